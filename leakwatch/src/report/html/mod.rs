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
pub mod diff;
mod document;
mod flame;
mod head;
mod heap;
mod mappings;
mod policy;
mod rows;
mod sites;
mod stack;
mod tail;

#[cfg(test)]
mod reader;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use maud::{Markup, html};

use self::document::Sections;
use super::escape::fit;
use super::model::Recording;
use super::{svg, text};

/// Columns that a sentence may have: names in it are cut by whoever makes it, and the browser wraps it.
const SENTENCE: usize = 400;

/// The sections, in the order of the page.
const SECTIONS: Sections = &[
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
    let page = &document::sentences();
    let mut put = |markup: Markup| to.write_all(markup.into_string().as_bytes());
    let target = &recording.target;
    let title = format!("{} ({})", fit(&target.comm, 32, "…"), target.pid);
    put(document::begin(
        &policy::RECORDING,
        &title,
        &head::header(page, recording),
        SECTIONS,
    ))?;
    put(head::verdict(page, recording))?;
    put(account::section(page, recording))?;
    put(course::section(page, recording))?;
    sites::section(page, recording, options, &mut put)?;
    put(flame_graph(recording)?)?;
    put(heap::section(page, recording))?;
    put(births::section(page, recording))?;
    put(mappings::section(recording))?;
    put(mappings::processes(page, recording))?;
    put(tail::losses_and_cost(page, recording))?;
    put(tail::notes(page, recording))?;
    put(document::end(&policy::RECORDING, &tail::footer(recording)))
}

fn flame_graph(recording: &Recording) -> io::Result<Markup> {
    let mut drawn = Vec::new();
    svg::write(recording, &mut drawn)?;
    let content = flame::embedded(drawn, &flame::SIZES)?
        .unwrap_or_else(|| html! { p { "No call site keeps memory." } });
    let remark =
        "Wide is what holds much. Outermost below; frames too narrow to be seen count to their callers.";
    Ok(titled("flame", remark, &content))
}

/// A section with its heading.
fn titled(id: &str, remark: &str, content: &Markup) -> Markup {
    document::section(SECTIONS, id, remark, content)
}
