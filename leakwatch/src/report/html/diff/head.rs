//! What changed, in a sentence; and the two recordings beside each other.

use maud::{Markup, html};

use super::SECTIONS;
use crate::diagnose::difference::Change;
use crate::report::escape::fit;
use crate::report::html::cells::{self, change, hourly, name, rate, rate_change, size};
use crate::report::html::{document, head};
use crate::report::model::diff::{DiffReport, DiffSide, DiffSite};
use crate::report::text::diff as words;
use crate::report::text::layout::{Page, UNKNOWN, count, per_second, percent, rounded, seconds};

/// Columns of a call site in the sentence.
const LABEL: usize = 80;
const NAME: usize = 60;

pub fn title(report: &DiffReport) -> String {
    let who = |side: &DiffSide| format!("{} ({})", fit(&side.target.comm, 32, "…"), side.target.pid);
    let (before, after) = (who(&report.before), who(&report.after));
    if before == after {
        format!("what changed in {after}")
    } else {
        format!("what changed from {before} to {after}")
    }
}

pub fn header(page: &Page, report: &DiffReport) -> Markup {
    html! {
        header {
            p.brand { "leakwatch" }
            p.about { "Before: " (words::about(page, &report.before)) "." }
            p.about { "After: " (words::about(page, &report.after)) "." }
        }
    }
}

pub fn answer(page: &Page, report: &DiffReport) -> Markup {
    html! {
        section.verdict id="verdict" {
            h1 { (sentence(page, report)) }
            p.headline { (words::headline(report)) " " (words::counts(report)) }
            (tiles(report))
        }
        "\n"
    }
}

/// Changes of less than this part of what all call sites gain are not for a headline.
const NOTABLE: f64 = 0.01;

/// Which call site grew most, and which shrank most; or that the greatest gains as before.
pub fn sentence(page: &Page, report: &DiffReport) -> String {
    let all = [&report.before, &report.after].map(|side| side.kept_rate_bytes_per_second);
    let notable = NOTABLE * all[0].max(all[1]);
    let is = |site: &&DiffSite, change: Change| site.change == change.name();
    let most = |appeared: Change, changed: Change| {
        report.sites.iter().find(|site| {
            site.beyond_error
                && site.rate_change_bytes_per_second.abs() >= notable
                && (is(site, appeared) || is(site, changed))
        })
    };
    let label = |site: &DiffSite| page.fit(&site.label, LABEL);
    let by = |site: &DiffSite| per_second(site.rate_change_bytes_per_second.abs());
    let grew = most(Change::Appeared, Change::Grew).map(|site| {
        if is(&site, Change::Appeared) {
            format!("{} appeared, with {}", label(site), by(site))
        } else {
            format!("{} grew most, by {}", label(site), by(site))
        }
    });
    let shrank = most(Change::Went, Change::Shrank).map(|site| {
        if is(&site, Change::Went) {
            format!("{} went, which had {}", label(site), by(site))
        } else {
            format!("{} shrank most, by {}", label(site), by(site))
        }
    });
    match (grew, shrank) {
        (Some(grew), Some(shrank)) => format!("{grew}; {shrank}."),
        (Some(grew), None) => format!("{grew}; none shrank notably."),
        (None, Some(shrank)) => format!("No call site grew notably; {shrank}."),
        (None, None) if report.sites.is_empty() => "There is no call site in either.".to_owned(),
        (None, None) => {
            let rate = |site: &DiffSite| {
                let after = site.after.as_ref();
                after.map_or(0.0, |figures| figures.rate_bytes_per_second)
            };
            let same = report.sites.iter().filter(|site| is(site, Change::Same));
            match same.max_by(|a, b| rate(a).total_cmp(&rate(b))) {
                Some(site) if rate(site) > 0.0 => format!(
                    "No call site changed notably; {} gains {}, as before.",
                    label(site),
                    per_second(rate(site))
                ),
                _ => "No call site changed notably.".to_owned(),
            }
        }
    }
}

/// The figures that are asked for first.
fn tiles(report: &DiffReport) -> Markup {
    let memory = report
        .before
        .anonymous_rate_bytes_per_second
        .zip(report.after.anonymous_rate_bytes_per_second);
    html! {
        dl.tiles {
            @if let Some((before, after)) = memory {
                div { dt { "anonymous memory, before" } dd { (rate(before)) } }
                div { dt { "after" } dd { (rate(after)) } }
                div { dt { "change" } dd { (rate_change(after - before)) } }
            }
            div {
                dt { "change of what call sites keep" }
                dd {
                    (rate_change(report.after.kept_rate_bytes_per_second - report.before.kept_rate_bytes_per_second))
                }
            }
        }
    }
}

/// A line of the table: what it says of one recording.
type Row = (&'static str, fn(&DiffSide) -> Markup);

const ABOUT: [Row; 5] = [
    ("process", |side| {
        html! { (name(&side.target.comm, 32)) ", PID " (side.target.pid) }
    }),
    ("program", |side| match &side.target.exe {
        Some(exe) => name(exe, NAME),
        None => html! { (UNKNOWN) },
    }),
    ("recorded", |side| html! { (cells::moment(&side.started_at)) }),
    ("watched for", |side| html! { (seconds(side.duration_seconds)) }),
    ("verdict", |side| match &side.verdict {
        Some(kind) => head::badge(kind),
        None => html! { (UNKNOWN) },
    }),
];

const SEEN: [Row; 3] = [
    ("call sites", |side| html! { (count(side.call_sites)) }),
    ("pages sampled", |side| {
        html! {
            @match side.sampling_rate {
                None => "none",
                Some(1.0..) => "every page",
                Some(part) if part > 0.0 && rounded(1.0 / part) > 1 => { "1 in " (count(rounded(1.0 / part))) }
                Some(part) => (percent(part)),
            }
        }
    }),
    ("events lost", |side| {
        html! {
            @match side.lost_events {
                None => "not counted",
                Some(lost) => (count(lost)),
            }
        }
    }),
];

pub fn sides(report: &DiffReport) -> Markup {
    let (before, after) = (&report.before, &report.after);
    let same = |row: &Row| {
        html! {
            tr { th scope="row" { (row.0) } td { (row.1(before)) } td { (row.1(after)) } td {} }
        }
    };
    let rates = |what: &str, of: fn(&DiffSide) -> Option<f64>, shown: [fn(f64) -> Markup; 2]| {
        let [rate, change] = shown;
        let figure = |side: &DiffSide| match of(side) {
            Some(figure) => rate(figure),
            None => html! { (UNKNOWN) },
        };
        html! {
            tr.part {
                th scope="row" { (what) }
                td { (figure(before)) }
                td { (figure(after)) }
                td { @if let Some((before, after)) = of(before).zip(of(after)) { (change(after - before)) } }
            }
        }
    };
    let anonymous: fn(&DiffSide) -> Option<f64> = |side| side.anonymous_rate_bytes_per_second;
    let kept: fn(&DiffSide) -> Option<f64> = |side| Some(side.kept_rate_bytes_per_second);
    let by_second: [fn(f64) -> Markup; 2] = [rate, rate_change];
    let by_hour: [fn(f64) -> Markup; 2] = [|it| hourly(it, false), |it| hourly(it, true)];
    let grew = |side: &DiffSide| match side.anonymous_growth_bytes {
        Some(growth) => change(growth),
        None => html! { (UNKNOWN) },
    };
    let content = html! {
        table.sides {
            caption.hidden { "The two recordings" }
            thead { tr {
                th {} th scope="col" { "before" } th scope="col" { "after" } th scope="col" { "change" }
            } }
            tbody {
                @for row in &ABOUT { (same(row)) }
                tr.sum.grown { th scope="row" { "anonymous memory" } td { (grew(before)) } td { (grew(after)) } td {} }
                (rates("a second", anonymous, by_second))
                (rates("an hour", anonymous, by_hour))
                tr.sum.kept {
                    th scope="row" { "kept by call sites" }
                    td { (size(before.kept_bytes)) } td { (size(after.kept_bytes)) } td {}
                }
                (rates("a second", kept, by_second))
                (rates("an hour", kept, by_hour))
                @for row in &SEEN { (same(row)) }
            }
        }
    };
    document::section(SECTIONS, "sides", "", &content)
}
