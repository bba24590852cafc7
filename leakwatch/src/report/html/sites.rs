//! The ranked call sites. Each row opens to what is known of it.

use std::io;

use maud::{Markup, PreEscaped, html};

use super::cells::{bar, known, name, size};
use super::rows::{cell, sorting};
use super::stack::{Budget, stacks};
use super::{SECTIONS, curve, document, rows};
use crate::report::model::{CallSite, Recording, SiteAllocations};
use crate::report::text::columns::{is_sampled, space};
use crate::report::text::layout::{
    Page, UNKNOWN, bytes, count, exact_bytes, per_second, percent, rounded, seconds, whole_percent,
};
use crate::report::text::sites::{EVIDENCE, history, weight};
use crate::report::text::{Options, arenas, births};

const THREADS: usize = 16;
const CLASSES: usize = 20;

/// Which figures stand, by what was measured.
#[derive(Clone, Copy)]
struct Columns {
    touched: bool,
    held: bool,
    curve: bool,
}

impl Columns {
    fn of(sites: &[&CallSite]) -> Self {
        let any = |is: fn(&CallSite) -> bool| sites.iter().any(|site| is(site));
        let touched = any(|site| site.touched_bytes.is_some());
        Self {
            touched,
            held: !touched || any(|site| site.live_bytes.is_none()),
            curve: any(|site| site.series.is_some()),
        }
    }
}

/// Writes the section row by row: there may be many.
pub fn section(
    page: &Page,
    recording: &Recording,
    options: &Options,
    put: &mut impl FnMut(Markup) -> io::Result<()>,
) -> io::Result<()> {
    let most = rows::most(options.top);
    let (shown, rest): (Vec<_>, Vec<_>) = recording
        .call_sites
        .iter()
        .enumerate()
        .partition(|(index, site)| *index < most && weight(site) >= options.min_bytes);
    let shown: Vec<&CallSite> = shown.into_iter().map(|(_, site)| site).collect();
    let rest: Vec<&CallSite> = rest.into_iter().map(|(_, site)| site).collect();
    let columns = Columns::of(&shown);
    put(html! {
        (PreEscaped("<section id=\"sites\" aria-labelledby=\"sites-title\">\n"))
        h2 id="sites-title" { (document::title_of(SECTIONS, "sites")) }
        p.remark { "Ranked by the bytes that they added in the window and still keep. A row opens to its stack." }
        (evidence(recording))
        @if shown.is_empty() && rest.is_empty() { p { "none" } }
        @if !shown.is_empty() { (head(columns)) }
        (PreEscaped("<ol class=\"sites\" id=\"ranking\">\n"))
    })?;
    let mut budget = Budget(rows::FRAMES);
    let window = recording.window.duration_seconds;
    for (index, site) in shown.iter().enumerate() {
        put(row(page, site, index, columns, window, &mut budget))?;
    }
    put(html! {
        (PreEscaped("</ol>\n"))
        (left_out(&rest))
        (PreEscaped("</section>\n"))
    })
}

/// What each evidence can and cannot say, of those that what is kept rests on.
fn evidence(recording: &Recording) -> Markup {
    let rests_on = |evidence: &str| {
        recording
            .call_sites
            .iter()
            .any(|site| weight(site) > 0 && site.evidence == evidence)
    };
    html! {
        @for (evidence, text) in EVIDENCE.iter().filter(|(evidence, _)| rests_on(evidence)) {
            details.evidence { summary { "What the evidence " em { (evidence) } " means" } p { (text) } }
        }
    }
}

fn head(columns: Columns) -> Markup {
    html! {
        div.sites-head {
            span.rank {}
            (sorting("label", "rank", "call site"))
            (sorting("live", "live", "live"))
            @if columns.touched { (sorting("touched", "touched", "touched")) (sorting("kept", "kept", "kept")) }
            @if columns.held { (sorting("held", "held", "held")) }
            (sorting("share", "live", "share"))
            (sorting("rate", "rate", "rate"))
            @if columns.curve { span.cell.curve-cell { "growth" } }
        }
    }
}

fn row(
    page: &Page,
    site: &CallSite,
    index: usize,
    columns: Columns,
    window: f64,
    budget: &mut Budget,
) -> Markup {
    let or_unknown = |figure: Option<String>| figure.unwrap_or_else(|| UNKNOWN.to_owned());
    html! {
        li data-rank=(site.rank) data-live=(weight(site)) data-touched=[site.touched_bytes] data-kept=[site.retention]
            data-held=[site.held_bytes] data-rate=[site.rate_bytes_per_second] {
            details.site id={ "site-" (index + 1) } {
                summary {
                    span.rank { (site.rank) }
                    span.cell.label { (rows::label(&site.label, site.culprit.as_ref())) }
                    (cell("live", "live", &html! { (known(site.live_bytes)) (error(site)) }))
                    @if columns.touched {
                        (cell("touched", "touched", &known(site.touched_bytes)))
                        (cell("kept", "kept", &html! { (or_unknown(site.retention.map(whole_percent))) }))
                    }
                    @if columns.held {
                        (cell("held", "held", &html! { span data-bytes=[site.held_bytes] { (space(site, site.held_bytes)) } }))
                    }
                    (cell("share", "share", &html! {
                        (or_unknown(site.share.map(percent))) @if let Some(share) = site.share { (bar(share)) }
                    }))
                    (cell("rate", "rate", &html! { (or_unknown(site.rate_bytes_per_second.map(per_second))) }))
                    @if columns.curve {
                        span.cell.curve-cell { @if let Some(series) = &site.series { (curve::small(series, window)) } }
                    }
                }
                div.opened {
                    @if let Some(blocks) = births::of_site(page, site, false) { p.blocks { (blocks) "." } }
                    @if let Some(told) = arenas::of_site(page, site) { p.blocks { (told) "." } }
                    div.stack-and-facts {
                        div.stacks { (stacks(site, budget)) }
                        div.facts {
                            @if let Some(series) = site.series.as_ref().filter(|series| series.len() > 1) {
                                (curve::large(series))
                            }
                            (facts(page, site))
                            @if let Some(births) = &site.allocations { (blocks(births)) }
                        }
                    }
                }
            }
        }
        "\n"
    }
}

fn error(site: &CallSite) -> Markup {
    html! {
        @if let Some(error) = site.standard_error_bytes.filter(|_| is_sampled(site)) {
            " " span.error { "± " (bytes(rounded(error))) }
        }
    }
}

fn facts(page: &Page, site: &CallSite) -> Markup {
    let vias = if site.vias.is_empty() {
        page.fit(&site.via, 60)
    } else {
        page.fit(&site.vias.join(", "), 120)
    };
    let threads: Vec<String> = site
        .threads
        .iter()
        .take(THREADS)
        .map(|thread| page.fit(thread, 64))
        .collect();
    let more = site.threads.len().saturating_sub(THREADS);
    html! {
        dl.facts-list {
            dt { "evidence" } dd { (page.fit(&site.evidence, 20)) ", by " (vias) }
            @if let Some(live) = site.live_bytes { dt { "live" } dd { (size(live)) (error(site)) } }
            @if let Some(touched) = site.touched_bytes { dt { "touched" } dd { (size(touched)) } }
            @if let Some(kept) = site.retention { dt { "kept of it" } dd { (percent(kept)) } }
            @if let Some(extended) = site.extended_bytes { dt { "heap extended by" } dd { (size(extended)) } }
            @if let Some(trend) = &site.trend {
                dt { "trend" }
                dd {
                    (page.fit(&trend.kind, 40))
                    @if let Some(slope) = trend.slope_bytes_per_second { ", " (per_second(slope)) }
                    @if let Some(chance) = trend.p_value { (format!(" (p {chance:.3})")) }
                }
            }
            dt { "events" } dd { (history(site)) }
            @if !threads.is_empty() {
                dt { "threads" } dd { (threads.join(", ")) @if more > 0 { " … and " (more) " more" } }
            }
            @if site.processes.len() > 1 { dt { "processes" } dd { (site.processes.len()) } }
        }
    }
}

/// What became of its blocks.
fn blocks(births: &SiteAllocations) -> Markup {
    let rest = births.classes.len().saturating_sub(CLASSES);
    let survival = (births.followed > 0).then(|| births.survived as f64 / births.followed as f64);
    html! {
        dl.facts-list {
            dt { "blocks" } dd { (count(births.blocks)) " added and in use" }
            dt { "births seen" }
            dd { (count(births.births)) " in bursts, " (count(births.followed)) " followed" }
            @if let Some(survival) = survival {
                dt { "survived" } dd { (count(births.survived)) " (" (whole_percent(survival)) ")" }
            }
            @if let Some(age) = births.median_age_seconds {
                dt { "age" }
                dd {
                    (seconds(age)) " in the middle"
                    @if let Some(oldest) = births.oldest_age_seconds { ", " (seconds(oldest)) " the oldest" }
                }
            }
            @if !births.functions.is_empty() {
                dt { "called" }
                dd { @for function in births.functions.iter().take(THREADS) { (name(function, 40)) " " } }
            }
        }
        @if !births.classes.is_empty() {
            table.sizes {
                caption.hidden { "Its blocks by size" }
                thead { tr {
                    th scope="col" { "blocks of" } th scope="col" { "number" } th scope="col" { "live" }
                } }
                tbody {
                    @for class in births.classes.iter().take(CLASSES) {
                        tr {
                            th scope="row" {
                                (exact_bytes(class.bytes))
                                @if let Some(of) = &class.type_name { " " (name(of, 80)) }
                                @if class.mapped { " [mapped]" }
                            }
                            td { (count(class.blocks)) }
                            td { (size(class.live_bytes)) }
                        }
                    }
                }
            }
            @if rest > 0 { p.more { "… and " (rest) " more sizes" } }
        }
    }
}

/// What the rows that are not shown sum to.
fn left_out(rest: &[&CallSite]) -> Markup {
    let sum = |of: fn(&CallSite) -> Option<u64>| {
        rest.iter()
            .filter_map(|site| of(site))
            .fold(0, u64::saturating_add)
    };
    let (live, held) = (sum(|site| site.live_bytes), sum(|site| site.held_bytes));
    html! {
        @if !rest.is_empty() {
            p.more id="left-out" data-live=(live) {
                "… and " (rest.len()) " more, not listed here: " (size(live)) " live, " (size(held)) " held"
            }
        }
    }
}
