//! What a reader should know before trusting the comparison, and what the page was made from.

use maud::{Markup, html};

use super::SECTIONS;
use super::sites::MATCHES;
use crate::report::html::cells::name;
use crate::report::html::tail::LINES;
use crate::report::html::{SENTENCE, document};
use crate::report::model::diff::{DiffModule, DiffReport, DiffSide};
use crate::report::text::diff as words;
use crate::report::text::layout::{Page, count, percent, seconds};

pub fn section(page: &Page, report: &DiffReport) -> Markup {
    let content = html! {
        div.beside {
            div {
                h3 { "How call sites were matched" }
                (matched(report))
            }
            div {
                h3 { "What to keep in mind" }
                ul {
                    @for sentence in sentences(report) { li { (sentence) } }
                    @for note in report.notes.iter().take(LINES) { li { (page.fit(note, SENTENCE)) } }
                }
                @if report.notes.len() > LINES { p.more { "… and " (report.notes.len() - LINES) " more notes" } }
            }
        }
        (rebuilt(&report.rebuilt))
    };
    document::section(SECTIONS, "limits", "", &content)
}

fn matched(report: &DiffReport) -> Markup {
    let rows = MATCHES
        .iter()
        .map(|(known, words)| (Some(*known), *words))
        .chain([(None, "in one recording alone")]);
    html! {
        @if report.sites.is_empty() { p { "There is none." } }
        @else {
            table.matches {
                caption.hidden { "Call sites by how they were matched" }
                thead { tr { th scope="col" { "matched" } th scope="col" { "call sites" } } }
                tbody {
                    @for (how, words) in rows {
                        @let found = report.sites.iter().filter(|site| site.matched_by.as_deref() == how).count();
                        @if found > 0 { tr { th scope="row" { (words) } td { (found) } } }
                    }
                }
            }
        }
    }
}

fn sentences(report: &DiffReport) -> Vec<String> {
    let (before, after) = (&report.before, &report.after);
    let mut said = vec![
        "A change is one of more than a tenth of the greater rate, and beyond 1.96 standard errors where these are known."
            .to_owned(),
    ];
    if before.duration_seconds != after.duration_seconds {
        said.push(format!(
            "The windows are of {} and {}.{}",
            seconds(before.duration_seconds),
            seconds(after.duration_seconds),
            words::WINDOWS_DIFFER
        ));
    }
    let doubtful = report.sites.iter().filter(|site| !site.beyond_error).count();
    if doubtful > 0 {
        said.push(format!(
            "Of {doubtful} call sites the change is within the error, or none."
        ));
    }
    for (which, side) in [("before", before), ("after", after)] {
        if let Some(sampled) = sampled(side) {
            said.push(format!("{sampled} {which}."));
        }
        match side.lost_events {
            None => said.push(format!("How many events were lost {which} was not counted.")),
            Some(0) => said.push(format!("No event was lost {which}.")),
            // There is a note of it.
            Some(_) => {}
        }
    }
    said
}

fn sampled(side: &DiffSide) -> Option<String> {
    match side.sampling_rate {
        None => Some("No pages were watched".to_owned()),
        Some(1.0..) => None,
        Some(part) => Some(format!("{} of the pages were sampled", percent(part))),
    }
}

fn rebuilt(files: &[DiffModule]) -> Markup {
    html! {
        @if !files.is_empty() {
            h3 { "Files that are another build after" }
            div.scroll {
                table.rebuilt {
                    caption.hidden { "Files that are another build after" }
                    thead { tr { th scope="col" { "file" } th scope="col" { "build ID before" } th scope="col" { "after" } } }
                    tbody {
                        @for file in files.iter().take(LINES) {
                            tr {
                                th scope="row" { (name(&file.module, 60)) }
                                td { (name(&file.build_id_before, 16)) }
                                td { (name(&file.build_id_after, 16)) }
                            }
                        }
                    }
                }
            }
            @if files.len() > LINES { p.more { "… and " (count((files.len() - LINES) as u64)) " more files" } }
        }
    }
}

pub fn footer(report: &DiffReport) -> Markup {
    html! {
        footer {
            p {
                "Made by " (name(&report.tool.name, 20)) " " (name(&report.tool.version, 20))
                " from two recordings, by schema version " (report.schema_version) " of a comparison."
            }
            p { "Flame graph by inferno." }
        }
    }
}
