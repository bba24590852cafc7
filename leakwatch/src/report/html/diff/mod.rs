//! What changed between two recordings as one HTML file: the answer, the two beside each other, the call sites by how much
//! their rates changed, a flame graph coloured by the change, and what limits the comparison.
//!
//! It is made of the same parts as a recording's page, and keeps to the same rules. Every rate has its exact figure, in
//! bytes per second, in a `data-rate` attribute.

mod head;
mod limits;
mod sites;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use maud::{Markup, html};

use super::document::{self, Sections};
use super::{flame, policy, stack};
use crate::report::model::diff::DiffReport;
use crate::report::{svg, text};

/// The sections, in the order of the page.
const SECTIONS: Sections = &[
    ("sides", "Before and after"),
    ("sites", "Call sites"),
    ("flame", "Flame graph"),
    ("limits", "What limits the comparison"),
];

/// Writes the page, section by section.
///
/// # Errors
/// Those of `to`.
pub fn write(report: &DiffReport, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
    let page = &document::sentences();
    let mut put = |markup: Markup| to.write_all(markup.into_string().as_bytes());
    put(document::begin(
        &policy::COMPARISON,
        &head::title(report),
        &head::header(page, report),
        SECTIONS,
    ))?;
    put(head::answer(page, report))?;
    put(head::sides(report))?;
    sites::section(report, options, &mut put)?;
    put(flame_graph(report)?)?;
    put(limits::section(page, report))?;
    put(document::end(&policy::COMPARISON, &limits::footer(report)))
}

fn flame_graph(report: &DiffReport) -> io::Result<Markup> {
    let mut drawn = Vec::new();
    svg::write_diff(report, &mut drawn)?;
    let content = match flame::embedded(drawn, &flame::DIFFERENCES)? {
        Some(graph) => html! {
            (graph)
            p.remark {
                "Red has grown, blue has shrunk, at the innermost frame; the deeper the colour the more. "
                @match svg::gone(report) {
                    0 => {}
                    1 => "1 stack that holds nothing any more is not drawn.",
                    gone => { (gone) " stacks that hold nothing any more are not drawn." }
                }
            }
        },
        None => html! { p { "No call site keeps memory after." } },
    };
    let remark = "Wide is what grows fast after, in bytes an hour. Outermost below; frames too narrow to be seen count to \
                  their callers.";
    Ok(document::section(SECTIONS, "flame", remark, &content))
}
