//! What the rows of every ranking have.

use maud::{Markup, html};

use super::cells::name;
use crate::report::model::Culprit;
use crate::report::text::sites::{base, source};

/// Rows, whatever `--top` says of a terminal; and the most that a page can have.
const LEAST: usize = 100;
const MOST: usize = 1000;
/// Frames of all rows of a page.
pub const FRAMES: usize = 10_000;
/// Columns of a label.
pub const NAME: usize = 120;

/// How many rows a page has that was asked for so many.
pub fn most(asked: usize) -> usize {
    asked.clamp(LEAST, MOST)
}

/// The name of a column, by whose figure the rows can be sorted: they carry it in `data-…`. Sorting needs the script,
/// which enables the button.
pub fn sorting(class: &str, key: &str, title: &str) -> Markup {
    html! { span.cell.(class) { button type="button" data-sort=(key) disabled { (title) } } }
}

/// A figure with its name, which a narrow page shows.
pub fn cell(class: &str, key: &str, figure: &Markup) -> Markup {
    html! { span.cell.(class) { span.key { (key) " " } (figure) } }
}

/// A call site: its label, its culprit's line and module.
pub fn label(label: &str, culprit: Option<&Culprit>) -> Markup {
    html! { span.what { (name(label, NAME)) } " " (whereabouts(label, culprit)) }
}

fn whereabouts(label: &str, culprit: Option<&Culprit>) -> Markup {
    let Some(culprit) = culprit else {
        return html! {};
    };
    let place = source(culprit.file.as_deref(), culprit.line);
    let module = culprit.module.as_deref().map(base).unwrap_or_default();
    html! {
        span.where {
            @if !place.is_empty() { (name(&place, 60)) }
            @if !module.is_empty() && module != label {
                @if !place.is_empty() { " · " }
                (name(module, 40))
            }
        }
    }
}
