//! What a watch says when it ends.

use super::alert::{span, telling};
use super::exposition::Own;
use super::tracked::{Judged, Told, Tracked};
use crate::diagnose::figures;
use crate::diagnose::trend::Kind;
use crate::history::store::Store;
use crate::report::escape::fit;
use crate::sampler::ProcRoot;

/// Processes that are told of, those that gained most.
const ROWS: usize = 20;
const NAME_COLUMNS: usize = 40;

/// The processes that gained most, and what that amounts to.
pub fn rows<'a>(
    tracked: impl Iterator<Item = &'a Tracked>,
    root: &ProcRoot,
    at: f64,
) -> Vec<(&'a Tracked, Told)> {
    let mut all: Vec<&Tracked> = tracked.collect();
    all.sort_by(|one, other| other.series.gain().total_cmp(&one.series.gain()));
    all.truncate(ROWS);
    all.into_iter()
        .map(|tracked| (tracked, tracked.told(root, at)))
        .collect()
}

/// A line for each of them. All of it is inert.
#[must_use]
pub fn lines(rows: &[(&Tracked, Told)], processes: usize, available: Option<u64>) -> Vec<String> {
    let more = processes.saturating_sub(rows.len());
    let mut lines: Vec<String> = rows
        .iter()
        .map(|(tracked, told)| line(tracked, available, told))
        .collect();
    if more > 0 {
        lines.push(format!("and {more} more, of which none gained as much"));
    }
    lines
}

fn line(tracked: &Tracked, available: Option<u64>, told: &Told) -> String {
    let verdict = &told.verdict;
    let who = format!(
        "{} (PID {})",
        fit(&tracked.service.title(), NAME_COLUMNS, "…"),
        tracked.subject.pid()
    );
    let size = tracked
        .figures
        .anonymous_and_swap()
        .map_or_else(|| "-".to_owned(), figures::bytes);
    let judged = tracked
        .judged
        .map_or_else(|| "not judged".to_owned(), |judged| trend(&judged));
    let sure = verdict
        .confidence
        .map_or_else(String::new, |sure| format!(" ({})", figures::whole_percent(sure)));
    let verdict = format!("{}{sure}", verdict.kind.name());
    let grows = tracked.judged.is_some_and(|judged| judged.kind.grows());
    let with = if grows {
        telling(&tracked.series.correlations()).map_or_else(String::new, |(with, correlation)| {
            let each = correlation.per_unit.map_or_else(String::new, |each| {
                format!(" ({} to {} each)", signed(each.low), signed(each.high))
            });
            format!("; goes with {with}{each}")
        })
    } else {
        String::new()
    };
    let by = if grows && told.heap.is_none() {
        ", by sizes alone"
    } else {
        ""
    };
    let left = tracked
        .seconds_to_limit(available)
        .map_or_else(String::new, |seconds| format!("; {} to its limit", span(seconds)));
    format!("{who}: {verdict}{by}; {size} anonymous, {judged}{with}{left}")
}

fn trend(judged: &Judged) -> String {
    if judged.kind == Kind::Unknown {
        let longer = judged
            .watch_longer
            .filter(|longer| longer.is_finite())
            .map_or_else(String::new, |longer| {
                format!(", {} more would tell", span(longer))
            });
        return format!("trend not known yet{longer}");
    }
    let rate = if judged.kind.grows() || judged.kind == Kind::Shrinking {
        format!(
            " of {}/h ({} to {})",
            signed(judged.slope * 3600.0),
            signed(judged.interval.0 * 3600.0),
            signed(judged.interval.1 * 3600.0)
        )
    } else {
        String::new()
    };
    format!("{}{rate} over {}", judged.kind.name(), span(judged.watched))
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and is only shown")]
fn signed(bytes: f64) -> String {
    figures::amount(bytes.round() as i64)
}

/// What the watch itself cost, in one line.
pub fn own(processes: usize, own: &Own, processor: f64, peak: Option<u64>, store: Option<&Store>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    let (rounds, samples) = (own.rounds.max(1) as f64, own.samples.max(1) as f64);
    let history = store.map_or_else(String::new, |store| {
        let lost = match store.losses().samples {
            0 => String::new(),
            lost => format!(", {lost} samples lost"),
        };
        let size = store.size().map_or_else(|| "-".to_owned(), figures::bytes);
        format!("; history {size}, {} samples kept{lost}", store.kept())
    });
    let heaps = match own.heaps_unread {
        0 => String::new(),
        unread => format!(" (heaps that could not be read: {unread})"),
    };
    format!(
        "at the end {processes} watched{heaps}; {} rounds, {} samples, alerts: {}; processor time {:.3} s, {:.1} ms a round, \
         {:.0} µs a sample; own memory {} at most{history}",
        own.rounds,
        own.samples,
        own.alerts,
        processor,
        processor * 1000.0 / rounds,
        processor * 1e6 / samples,
        peak.map_or_else(|| "-".to_owned(), figures::bytes),
    )
}
