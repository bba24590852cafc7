//! What watching births adds: who extended the heap, what nobody is known for, how births were watched.

use maud::{Markup, html};

use super::SENTENCE;
use super::cells::{change, more, name, size};
use crate::report::model::{Allocations, CallSite, Recording, UnnamedClass};
use crate::report::text::births as words;
use crate::report::text::layout::{Page, exact_bytes, signed_count};

/// Rows of each list.
const ROWS: usize = 20;
const NAME: usize = 120;

pub fn section(page: &Page, recording: &Recording) -> Markup {
    let why_not = recording.allocations_not_watched.as_ref().map(|why| {
        let how = if recording.allocations.is_some() {
            "not watched"
        } else {
            "not watched, so that pages and mappings are all the evidence there is"
        };
        format!("{how}: {}.", page.fit(why, SENTENCE))
    });
    let births = recording.allocations.as_ref();
    if births.is_none() && why_not.is_none() {
        return html! {};
    }
    html! {
        section id="births" aria-labelledby="births-title" {
            h2 id="births-title" { "Births of blocks" }
            @if let Some(why_not) = why_not { p { (why_not) } }
            @if let Some(births) = births {
                @if !births.tell { p { (words::too_little(births)) } }
                p.remark { (words::how(births)) }
                div.beside {
                    (extenders(recording))
                    @if births.tell && words::unnamed_is_worth_a_word(recording, births) { (unnamed(births)) }
                }
            }
        }
        "\n"
    }
}

fn extenders(recording: &Recording) -> Markup {
    let mut sites: Vec<(&CallSite, u64)> = recording
        .call_sites
        .iter()
        .filter_map(|site| Some((site, site.extended_bytes.filter(|bytes| *bytes > 0)?)))
        .collect();
    if sites.is_empty() {
        return html! {};
    }
    sites.sort_by_key(|(_, extended)| std::cmp::Reverse(*extended));
    let rest = sites.get(ROWS..).unwrap_or_default();
    let sum = rest
        .iter()
        .fold(0u64, |sum, (_, extended)| sum.saturating_add(*extended));
    html! {
        div {
            h3 { "Who extended the heap" }
            p.remark { (words::EXTENDERS) }
            table {
                thead { tr { th scope="col" { "call site" } th scope="col" { "pages" } } }
                tbody {
                    @for (site, extended) in sites.iter().take(ROWS) {
                        tr { th scope="row" { (name(&site.label, NAME)) } td { (size(*extended)) } }
                    }
                }
            }
            (more(rest.len(), "call sites", &html! { ": " (size(sum)) }))
        }
    }
}

fn unnamed(births: &Allocations) -> Markup {
    let rest = births.unnamed.get(ROWS..).unwrap_or_default();
    let sum = rest.iter().fold(0i64, |sum, class: &UnnamedClass| {
        sum.saturating_add(class.growth_bytes)
    });
    html! {
        div {
            h3 { "Growth that nobody is known for" }
            p.remark { (words::unnamed_growth(births)) }
            table {
                thead { tr {
                    th scope="col" { "type" } th scope="col" { "size up to" } th scope="col" { "more" }
                    th scope="col" { "growth" }
                } }
                tbody {
                    @for class in births.unnamed.iter().take(ROWS) {
                        tr {
                            th scope="row" { @match &class.type_name { Some(of) => (name(of, NAME)), None => "-" } }
                            td { (exact_bytes(class.bytes)) }
                            td { (signed_count(class.growth_count)) }
                            td { (change(class.growth_bytes)) }
                        }
                    }
                }
            }
            (more(rest.len(), "sizes", &html! { ": " (change(sum)) }))
        }
    }
}
