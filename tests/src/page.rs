//! An HTML page as a browser's parser reads it.

use std::path::Path;
use std::str::FromStr;

use scraper::{ElementRef, Html, Selector};

/// A page that leakwatch wrote.
#[derive(Debug)]
pub struct Page(Html);

impl Page {
    /// A parser that had to guess what was meant is a failure.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        let document = Html::parse_document(&text);
        assert!(document.errors.is_empty(), "{:?}", document.errors);
        Self(document)
    }

    #[must_use]
    pub fn all(&self, selector: &str) -> Vec<ElementRef<'_>> {
        self.0.select(&parsed(selector)).collect()
    }

    /// All text below the first such element.
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        let found = self.all(selector);
        let first = found.first().unwrap_or_else(|| panic!("no {selector} is there"));
        first.text().collect()
    }
}

fn parsed(selector: &str) -> Selector {
    Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"))
}

/// Below an element.
#[must_use]
pub fn within<'a>(element: ElementRef<'a>, selector: &str) -> Vec<ElementRef<'a>> {
    element.select(&parsed(selector)).collect()
}

/// A figure in an attribute; `None` where there is no such attribute.
#[must_use]
pub fn figure<T: FromStr>(element: ElementRef<'_>, attribute: &str) -> Option<T> {
    let value = element.value().attr(attribute)?;
    let figure = value.parse().ok();
    assert!(figure.is_some(), "{attribute}={value} is no figure");
    figure
}
