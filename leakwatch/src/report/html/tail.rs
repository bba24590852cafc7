//! What was lost, what it cost, notes, and what the page was made from.

use maud::{Markup, html};

use super::cells::name;
use super::{SENTENCE, titled};
use crate::report::model::Recording;
use crate::report::text::layout::Page;
use crate::report::text::tail as words;

/// Lines of each list: a made-up file may have any number of counters.
pub const LINES: usize = 100;

pub fn losses_and_cost(page: &Page, recording: &Recording) -> Markup {
    let losses = &recording.losses;
    let lost = words::lost(page, losses, losses.events.is_some());
    let spent = words::spent(&recording.cost);
    let content = html! {
        div.beside {
            div {
                h3 { "What was lost" }
                ul { @for line in lost.iter().take(LINES) { li { (line) } } }
                @if lost.len() > LINES { p.more { "… and " (lost.len() - LINES) " more kinds" } }
            }
            div {
                h3 { "What it cost" }
                @if spent.is_empty() { p { "not measured" } }
                ul { @for line in &spent { li { (line) } } }
            }
        }
    };
    titled("losses", "", &content)
}

pub fn notes(page: &Page, recording: &Recording) -> Markup {
    if recording.notes.is_empty() {
        return html! {};
    }
    html! {
        section id="notes" aria-labelledby="notes-title" {
            h2 id="notes-title" { "Notes" }
            ul { @for note in recording.notes.iter().take(LINES) { li { (page.fit(note, SENTENCE)) } } }
            @if recording.notes.len() > LINES {
                p.more { "… and " (recording.notes.len() - LINES) " more notes" }
            }
        }
        "\n"
    }
}

pub fn footer(recording: &Recording) -> Markup {
    let (tool, host, target) = (&recording.tool, &recording.host, &recording.target);
    html! {
        footer {
            p {
                "Made by " (name(&tool.name, 20)) " " (name(&tool.version, 20))
                " from a recording of schema version " (recording.schema_version) "."
                @if !host.kernel.is_empty() {
                    " Recorded on Linux " (name(&host.kernel, 60)) ", " (name(&host.arch, 20))
                    @if let Some(cpus) = host.cpus { ", " (cpus) " CPUs" }
                    "."
                }
                @if let Some(exe) = &target.exe { " The program is " (name(exe, 80)) "." }
                @if let Some(container) = &target.container { " Its container is " (name(container, 80)) "." }
            }
            p { "Charts by uPlot, copyright 2022 Leon Sorokin, MIT licence. Flame graph by inferno." }
        }
    }
}
