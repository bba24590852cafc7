//! Growth per mapping and per library, and the processes that were followed.

use std::cmp::Reverse;

use maud::{Markup, html};

use super::cells::{change, known, more, name};
use crate::report::model::{ProcessRow, Recording};
use crate::report::text::layout::{Page, UNKNOWN, percent};

/// Rows of each table.
const ROWS: usize = 50;
const NAME: usize = 80;

/// One line of either table, in the order of [`HEADS`].
struct Row<'a> {
    name: String,
    what: &'a str,
    figures: [i64; 6],
}

const HEADS: [&str; 6] = ["anonymous", "swap", "rss", "size", "pss", "private dirty"];

pub fn section(recording: &Recording) -> Markup {
    let (Some(mappings), Some(libraries)) = (&recording.mappings, &recording.libraries) else {
        let why =
            "not read: full smaps would have cost the target more than 1 % of the window, or it was gone";
        return super::titled("mappings", "", &html! { p { (why) } });
    };
    let of_mappings: Vec<Row<'_>> = mappings
        .iter()
        .map(|row| Row {
            name: row.path.clone().unwrap_or_else(|| {
                format!(
                    "[{}] {:#x}-{:#x} {}",
                    row.region, row.start.0, row.end.0, row.permissions
                )
            }),
            what: &row.fate,
            figures: [
                row.anonymous_growth_bytes,
                row.swap_growth_bytes,
                row.rss_growth_bytes,
                row.size_growth_bytes,
                row.pss_growth_bytes,
                row.private_dirty_growth_bytes,
            ],
        })
        .collect();
    let counts: Vec<String> = libraries.iter().map(|row| row.mappings.to_string()).collect();
    let of_libraries: Vec<Row<'_>> = libraries
        .iter()
        .zip(&counts)
        .map(|(row, count)| Row {
            name: row.name.clone(),
            what: count,
            figures: [
                row.anonymous_growth_bytes,
                row.swap_growth_bytes,
                row.rss_growth_bytes,
                row.size_growth_bytes,
                row.pss_growth_bytes,
                row.private_dirty_growth_bytes,
            ],
        })
        .collect();
    let content = html! {
        (table("mapping", "fate", &of_mappings))
        (table("library", "mappings", &of_libraries))
    };
    super::titled("mappings", "what grew, from smaps", &content)
}

fn table(title: &str, what: &str, rows: &[Row<'_>]) -> Markup {
    if rows.is_empty() {
        return html! { p { "no " (title) " changed" } };
    }
    let rest = rows.get(ROWS..).unwrap_or_default();
    let sum = |at: usize| {
        rest.iter()
            .filter_map(|row| row.figures.get(at))
            .fold(0i64, |sum, figure| sum.saturating_add(*figure))
    };
    let plural = if title == "library" {
        "libraries"
    } else {
        "mappings"
    };
    let sums = html! { ": " (change(sum(0))) " anonymous, " (change(sum(2))) " rss" };
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Growth of each " (title) } {
            table.growth {
                thead { tr {
                    th scope="col" { (title) } th scope="col" { (what) }
                    @for head in HEADS { th scope="col" { (head) } }
                } }
                tbody {
                    @for row in rows.iter().take(ROWS) {
                        tr {
                            th scope="row" { (name(&row.name, NAME)) }
                            td { (name(row.what, 12)) }
                            @for figure in row.figures { td { (change(figure)) } }
                        }
                    }
                }
            }
        }
        (more(rest.len(), plural, &sums))
    }
}

/// With `--children`: each process with its own account, what grew most first.
pub fn processes(page: &Page, recording: &Recording) -> Markup {
    let Some(processes) = recording.processes.as_ref().filter(|rows| !rows.is_empty()) else {
        return html! {};
    };
    let mut rows: Vec<&ProcessRow> = processes.iter().collect();
    rows.sort_by_key(|row| Reverse(row.anonymous_growth_bytes));
    let rest = rows.get(ROWS..).unwrap_or_default();
    let sum = rest
        .iter()
        .filter_map(|row| row.anonymous_growth_bytes)
        .fold(0i64, i64::saturating_add);
    html! {
        section id="processes" aria-labelledby="processes-title" {
            h2 id="processes-title" { "Processes" }
            p.remark { "each with its own account; what grew most first" }
            div.scroll tabindex="0" role="region" aria-label="Processes" {
                table.growth {
                    thead { tr {
                        th scope="col" { "process" } th scope="col" { "PID" } th scope="col" { "growth" }
                        th scope="col" { "attributed" } th scope="col" { "coverage" } th scope="col" { "events" }
                    } }
                    tbody {
                        @for row in rows.iter().take(ROWS) {
                            tr {
                                th scope="row" {
                                    (page.fit(&row.comm, 32))
                                    @if row.pid == recording.target.pid { " (target)" }
                                }
                                td { (row.pid) }
                                td { @match row.anonymous_growth_bytes { Some(growth) => (change(growth)), None => (UNKNOWN) } }
                                td { (known(row.attributed_bytes)) }
                                td { (row.coverage.map_or_else(|| UNKNOWN.to_owned(), percent)) }
                                td { (row.events) }
                            }
                        }
                    }
                }
            }
            (more(rest.len(), "processes", &html! { ": " (change(sum)) " growth" }))
        }
        "\n"
    }
}
