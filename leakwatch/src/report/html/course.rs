//! Memory over the window, with connections, descriptors and threads on the same axis of time.

use maud::{Markup, html};
use serde::Serialize;

use super::cells::{change, size};
use super::policy::json;
use super::titled;
use crate::report::model::{Recording, Sample};
use crate::report::text::layout::{Page, count, signed_count};
use crate::report::text::trend;

/// Points of a chart: more than any screen has columns.
const POINTS: usize = 4096;

type Measure = fn(&Sample) -> Option<u64>;

const MEMORY: &[(&str, Measure)] = &[
    ("anonymous", |sample| sample.anonymous_bytes),
    ("rss", |sample| sample.rss_bytes),
    ("swap", |sample| sample.swap_bytes.filter(|swap| *swap > 0)),
];
const COUNTS: &[(&str, Measure)] = &[
    ("connections", |sample| sample.connections),
    ("descriptors", |sample| sample.fds),
    ("threads", |sample| sample.threads),
];

/// What the script draws.
#[derive(Serialize)]
struct Charts {
    /// Seconds of the window.
    t: Vec<f64>,
    memory: Vec<Line>,
    counts: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    values: Vec<Option<u64>>,
}

impl Line {
    /// A line that lies flat says less than its figure.
    fn moves(&self) -> bool {
        let mut values = self.values.iter().flatten();
        let first = values.next();
        values.any(|value| Some(value) != first)
    }
}

pub fn section(page: &Page, recording: &Recording) -> Markup {
    let samples = recording.series.as_deref().unwrap_or_default();
    let content = html! {
        @if let Some(it) = &recording.trend { p { (trend::of_memory(page, it)) } }
        @for it in recording.correlations.iter().flatten().filter(|it| trend::is_told(it)) {
            p { (trend::goes_with(page, it)) }
        }
        @if samples.len() < 2 {
            p { "Nothing was sampled in between, so there is no course to show." }
        } @else {
            (charts(samples))
            (table(samples))
        }
    };
    titled("course", "", &content)
}

fn charts(samples: &[Sample]) -> Markup {
    let step = samples.len().div_ceil(POINTS).max(1);
    let shown: Vec<&Sample> = samples.iter().step_by(step).collect();
    let lines = |measures: &[(&'static str, Measure)]| {
        measures
            .iter()
            .map(|&(name, of)| Line {
                name,
                values: shown.iter().map(|sample| of(sample)).collect(),
            })
            .filter(|line| line.values.iter().any(Option::is_some))
            .collect::<Vec<_>>()
    };
    let (counts, still): (Vec<Line>, Vec<Line>) = lines(COUNTS).into_iter().partition(Line::moves);
    let still: Vec<&str> = still.iter().map(|line| line.name).collect();
    let charts = Charts {
        t: shown.iter().map(|sample| sample.t).collect(),
        memory: lines(MEMORY),
        counts,
    };
    html! {
        div.charts id="charts" role="img" aria-label="Charts over the window; the table below has where they begin and end" {
            noscript { p.remark { "The charts need scripts; the table has where they begin and end." } }
        }
        @if !still.is_empty() { p.remark { "Did not change, and is not drawn: " (still.join(", ")) "." } }
        @if step > 1 { p.remark { "One sample in " (step) " is drawn." } }
        script type="application/json" id="series" { (json(&charts)) }
    }
}

/// First, last, least and most: what can be read off the charts.
fn table(samples: &[Sample]) -> Markup {
    let ends = |of: Measure| {
        let values = || samples.iter().filter_map(of);
        Some([
            values().next()?,
            values().next_back()?,
            values().min()?,
            values().max()?,
        ])
    };
    let difference = |from: u64, to: u64| {
        let whole = i128::from(to) - i128::from(from);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    };
    html! {
        table.ends {
            caption.hidden { "Where the charts begin and end" }
            thead { tr {
                th scope="col" { "over the window" } th scope="col" { "first" } th scope="col" { "last" }
                th scope="col" { "change" } th scope="col" { "least" } th scope="col" { "most" }
            } }
            tbody {
                @for (name, of) in MEMORY {
                    @if let Some([first, last, least, most]) = ends(*of) {
                        tr {
                            th scope="row" { (name) }
                            td { (size(first)) } td { (size(last)) } td { (change(difference(first, last))) }
                            td { (size(least)) } td { (size(most)) }
                        }
                    }
                }
                @for (name, of) in COUNTS {
                    @if let Some([first, last, least, most]) = ends(*of) {
                        tr {
                            th scope="row" { (name) }
                            td { (count(first)) } td { (count(last)) } td { (signed_count(difference(first, last))) }
                            td { (count(least)) } td { (count(most)) }
                        }
                    }
                }
            }
        }
    }
}
