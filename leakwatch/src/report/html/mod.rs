//! The report as one HTML file: the answer first, then the account, memory over time, the call sites, a flame graph, the
//! heap, the mappings, what was lost and what it cost.
//!
//! The file needs nothing beside itself. Its own scripts and styles are known to the browser by their hashes
//! (`policy`), so that a name of the target could not run even if it were not escaped; and it is, twice: what would
//! hide or reorder text becomes visible ([`super::escape`]), and what is markup becomes text (maud). Every figure that
//! stands for bytes has them to the byte in a `data-bytes` attribute.
//!
//! It is usable without scripts: rows open, figures and curves are there; only the charts over time, sorting, and the
//! flame graph's zoom and search are not.

mod account;
mod births;
mod cells;
mod course;
mod curve;
mod flame;
mod head;
mod heap;
mod mappings;
mod policy;
mod sites;
mod stack;
mod tail;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::escape::fit;
use super::model::Recording;
use super::text;
use super::text::layout::Page;

/// Columns that a sentence may have: names in it are cut by whoever makes it, and the browser wraps it.
const SENTENCE: usize = 400;

/// The sections, in the order of the page.
const SECTIONS: &[(&str, &str)] = &[
    ("account", "Account"),
    ("course", "Over time"),
    ("sites", "Call sites"),
    ("flame", "Flame graph"),
    ("heap", "Heap"),
    ("mappings", "Mappings"),
    ("losses", "Losses and cost"),
];

/// Writes the page, section by section.
///
/// # Errors
/// Those of `to`.
pub fn write(recording: &Recording, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
    let page = &Page::new(&text::Options {
        width: SENTENCE,
        ..text::Options::default()
    });
    let mut put = |markup: Markup| to.write_all(markup.into_string().as_bytes());
    put(html! {
        (DOCTYPE)
        (PreEscaped("<html lang=\"en\">\n"))
        (document_head(recording))
        (PreEscaped("<body>\n"))
        (head::header(page, recording))
        (navigation())
        (PreEscaped("<main>\n"))
    })?;
    put(head::verdict(page, recording))?;
    put(account::section(page, recording))?;
    put(course::section(page, recording))?;
    sites::section(page, recording, options, &mut put)?;
    put(flame::section(recording)?)?;
    put(heap::section(page, recording))?;
    put(births::section(page, recording))?;
    put(mappings::section(recording))?;
    put(mappings::processes(page, recording))?;
    put(tail::losses_and_cost(page, recording))?;
    put(tail::notes(page, recording))?;
    put(html! {
        (PreEscaped("</main>\n"))
        (tail::footer(recording))
        @for script in policy::SCRIPTS { script { (PreEscaped(script)) } }
        (PreEscaped("\n</body></html>\n"))
    })
}

fn document_head(recording: &Recording) -> Markup {
    let comm = fit(&recording.target.comm, 32, "…");
    html! {
        head {
            meta charset="utf-8";
            // Before anything that it is to hold for.
            meta http-equiv="Content-Security-Policy" content=(policy::policy());
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="referrer" content="no-referrer";
            meta name="generator" content="leakwatch";
            title { "leakwatch: " (comm) " (" (recording.target.pid) ")" }
            @for style in policy::STYLES { style { (PreEscaped(style)) } }
        }
    }
}

fn navigation() -> Markup {
    html! {
        nav aria-label="Sections" {
            @for (id, title) in SECTIONS { a href={ "#" (id) } { (title) } " " }
        }
    }
}

/// A section with its heading.
fn titled(id: &str, remark: &str, content: &Markup) -> Markup {
    let title = SECTIONS
        .iter()
        .find(|(known, _)| *known == id)
        .map_or(id, |(_, title)| title);
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (title) }
            @if !remark.is_empty() { p.remark { (remark) } }
            (content)
        }
        "\n"
    }
}
