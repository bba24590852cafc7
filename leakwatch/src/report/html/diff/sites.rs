//! The call sites by how much their rates changed. Each row opens to its stacks in both.

use std::io;

use maud::{Markup, PreEscaped, html};

use super::SECTIONS;
use super::stack::{self, Budget, STACKS};
use crate::diagnose::difference::Change;
use crate::report::escape::fit;
use crate::report::html::cells::{hourly, known, more, name, rate, rate_change, size};
use crate::report::html::document;
use crate::report::html::rows::{self, cell, sorting};
use crate::report::model::diff::{DiffFigures, DiffReport, DiffSite, DiffStack};
use crate::report::text::Options;
use crate::report::text::layout::{UNKNOWN, bytes, count, per_second, rounded};

/// What a change means to whoever is on call.
const CHANGES: &[(Change, &str)] = &[
    (Change::Appeared, "bad"),
    (Change::Grew, "bad"),
    (Change::Same, "same"),
    (Change::Shrank, "good"),
    (Change::Went, "good"),
];

/// What tells that a call site is one in both.
pub const MATCHES: &[(&str, &str)] = &[
    ("code", "by code: the same offsets of the same builds"),
    ("names", "by names: the same functions from the culprit outward"),
    ("culprit", "by the culprit alone, which no other call site has"),
];

/// Writes the section row by row: there may be many.
pub fn section(
    report: &DiffReport,
    options: &Options,
    put: &mut impl FnMut(Markup) -> io::Result<()>,
) -> io::Result<()> {
    let most = rows::most(options.top);
    // What keeps nothing on either side changed nothing.
    let least = options.min_bytes.max(1);
    let told = || report.sites.iter().filter(|site| site.most_bytes() >= least);
    let shown = told().count().min(most);
    put(html! {
        (PreEscaped("<section id=\"sites\" aria-labelledby=\"sites-title\">\n"))
        h2 id="sites-title" { (document::title_of(SECTIONS, "sites")) }
        p.remark {
            "Ranked by how much the bytes changed that they added a second and still keep. A row opens to its stacks."
        }
        @if shown == 0 { p { "none that keeps anything" } }
        @else {
            div.sites-head {
                span.rank {}
                (sorting("label", "rank", "call site"))
                (sorting("change", "change", "change"))
                (sorting("side", "before", "before"))
                (sorting("side", "after", "after"))
            }
        }
        (PreEscaped("<ol class=\"sites\" id=\"ranking\">\n"))
    })?;
    let mut budget = Budget(rows::FRAMES);
    for (index, site) in told().take(shown).enumerate() {
        put(row(site, index, &mut budget))?;
    }
    let left_out = report.sites.len() - shown;
    put(html! {
        (PreEscaped("</ol>\n"))
        @if left_out > 0 {
            p.more id="left-out" { "… and " (left_out) " more, not listed here: they changed less, or keep nothing" }
        }
        (PreEscaped("</section>\n"))
    })
}

fn row(site: &DiffSite, index: usize, budget: &mut Budget) -> Markup {
    let of = |side: &Option<DiffFigures>| side.as_ref().map(|figures| figures.rate_bytes_per_second);
    html! {
        li data-rank=(site.rank) data-change=(site.rate_change_bytes_per_second)
            data-before=[of(&site.before)] data-after=[of(&site.after)] {
            details.site id={ "site-" (index + 1) } {
                summary {
                    span.rank { (site.rank) }
                    span.cell.label { (rows::label(&site.label, site.culprit.as_ref())) }
                    (cell("change", "", &html! { (tag(&site.change)) " " (rate_change(site.rate_change_bytes_per_second)) (doubt(site)) }))
                    (cell("side before", "before", &side(site.before.as_ref())))
                    (cell("side after", "after", &side(site.after.as_ref())))
                }
                div.opened {
                    div.stack-and-facts {
                        div.stacks { (stacks(site, budget)) }
                        div.facts { (facts(site)) }
                    }
                }
            }
        }
        "\n"
    }
}

fn tag(change: &str) -> Markup {
    let class = CHANGES
        .iter()
        .find(|(known, _)| known.name() == change)
        .map_or("same", |(_, class)| class);
    html! { span.tag.(class) { (fit(change, 12, "…")) } }
}

fn doubt(site: &DiffSite) -> Markup {
    let error = site.rate_change_standard_error.filter(|error| *error > 0.0);
    html! {
        @if let Some(error) = error { " " span.error { "± " (per_second(error)) } }
    }
}

fn side(figures: Option<&DiffFigures>) -> Markup {
    html! {
        @match figures {
            None => (UNKNOWN),
            Some(figures) => {
                (rate(figures.rate_bytes_per_second)) " " span.error { (known(figures.bytes)) }
            }
        }
    }
}

fn facts(site: &DiffSite) -> Markup {
    let measure = match site.measure.as_str() {
        "live" => "live bytes".to_owned(),
        "held" => "address space, since live bytes are not known of both".to_owned(),
        other => fit(other, 20, "…"),
    };
    let matched = site.matched_by.as_deref().map(|matched| {
        let known = MATCHES.iter().find(|(known, _)| *known == matched);
        known.map_or_else(|| fit(matched, 20, "…"), |(_, words)| (*words).to_owned())
    });
    html! {
        dl.facts-list {
            dt { "change" }
            dd {
                (rate_change(site.rate_change_bytes_per_second)) (doubt(site))
                ", or " (hourly(site.rate_change_bytes_per_second, true))
                @if !site.beyond_error { ": within the error" }
            }
            @for (which, figures) in [("before", &site.before), ("after", &site.after)] {
                dt { (which) }
                dd { @match figures { Some(figures) => (one(figures)), None => "not there" } }
            }
            dt { "compared" } dd { (measure) }
            dt { "matched" } dd { (matched.as_deref().unwrap_or("not: it is in one recording alone")) }
        }
    }
}

/// A call site in one of the two.
fn one(figures: &DiffFigures) -> Markup {
    html! {
        (known(figures.bytes))
        @if let Some(error) = figures.standard_error_bytes.filter(|error| *error > 0.0) {
            " " span.error { "± " (bytes(rounded(error))) }
        }
        ", " (rate(figures.rate_bytes_per_second))
        ", rank " (figures.rank) ", by " (name(&figures.evidence, 20))
        @if let Some(blocks) = figures.blocks { ", " (count(blocks)) " blocks" }
    }
}

/// Those that hold something in either; of a site that holds nothing any, so that it can be found.
fn stacks(site: &DiffSite, budget: &mut Budget) -> Markup {
    let holds = |stack: &&DiffStack| stack.before_bytes > 0 || stack.after_bytes > 0;
    let mut told: Vec<&DiffStack> = site.stacks.iter().filter(holds).collect();
    if told.is_empty() {
        told.extend(site.stacks.first());
    }
    let rest = told.get(STACKS..).unwrap_or_default();
    let sum = |of: fn(&DiffStack) -> u64| rest.iter().copied().map(of).fold(0, u64::saturating_add);
    let sums = html! {
        ": " (size(sum(|stack| stack.before_bytes))) " before, " (size(sum(|stack| stack.after_bytes))) " after"
    };
    html! {
        @match told.as_slice() {
            [] => p.remark { "no stack" },
            [stack] => (frames(site, stack, budget)),
            several => @for (index, stack) in several.iter().take(STACKS).enumerate() {
                details.stack-row open[index == 0] {
                    summary {
                        "stack " (index + 1) " of " (several.len()) ": " (size(stack.before_bytes)) " before, "
                        (size(stack.after_bytes)) " after, " (name(&stack.comm, 20))
                    }
                    (frames(site, stack, budget))
                }
            }
        }
        (more(rest.len(), "stacks in this row", &sums))
    }
}

fn frames(site: &DiffSite, stack: &DiffStack, budget: &mut Budget) -> Markup {
    // By what it is called: which frame it is was known of one stack in one recording.
    let culprit = site.culprit.as_ref().and_then(|culprit| {
        stack
            .frames
            .iter()
            .position(|frame| frame.function == culprit.function && frame.module == culprit.module)
    });
    stack::frames(&stack.frames, culprit, !stack.frames.is_empty(), budget)
}
