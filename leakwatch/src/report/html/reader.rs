//! Pages as a browser reads them, for the tests of every page.

use std::collections::BTreeMap;

use scraper::{ElementRef, Html, Selector};

/// Hostile in every place that holds a name.
pub const EVIL: &str =
    "\u{202e}\x1b[31m</script><script>x()</script><img src=x onerror=x()>\" onclick=\"x()\n'`{{7*7}}]]>";

/// Reads a page. What a browser had to guess would be a fault of ours; SVG has no `<details>`, so this also says that nothing
/// broke out of the drawings.
pub fn read(page: &str) -> Html {
    let document = Html::parse_document(page);
    assert!(document.errors.is_empty(), "{:?}", document.errors);
    document
}

pub fn all<'a>(document: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    document.select(&Selector::parse(selector).unwrap()).collect()
}

pub fn text_of(element: ElementRef<'_>) -> String {
    element.text().collect()
}

/// What would act on a terminal or reorder text.
pub fn hidden(c: char) -> bool {
    c.is_control() && c != '\n' || c == '\u{202e}'
}

/// Nothing is fetched, embedded or sent, nothing runs but what the page brings along, and links stay in it.
pub fn stays_by_itself(document: &Html) {
    for tag in [
        "img",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "foreignObject",
        "image",
        "use",
    ] {
        assert_eq!(all(document, tag).len(), 0, "{tag}");
    }
    for element in all(document, "*") {
        for (name, value) in element.value().attrs() {
            assert!(
                !name.starts_with("on") && name != "style" && name != "src",
                "{name}={value}"
            );
            assert!(
                !name.ends_with("href") || value.starts_with('#'),
                "{name}={value}"
            );
        }
    }
}

/// How many elements there are of each tag that could do something.
pub fn tags(document: &Html) -> BTreeMap<String, usize> {
    let mut tags = BTreeMap::new();
    for element in all(document, "*") {
        *tags.entry(element.value().name().to_owned()).or_default() += 1;
    }
    // Whether there is a place beside a name.
    tags.remove("span");
    tags.remove("bdi");
    tags
}
