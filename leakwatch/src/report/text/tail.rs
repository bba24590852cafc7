//! Processes, losses and cost.

use std::cmp::Reverse;

use super::Options;
use super::layout::{DIM, PLAIN, Page, STRONG, UNKNOWN, bytes, known, percent, right, seconds, signed};
use crate::report::model::{Cost, Losses, ProcessRow, Recording};

/// With `--children`: each process with its own account, and their sum.
pub fn processes(page: &mut Page, recording: &Recording, options: &Options) {
    let Some(processes) = recording
        .processes
        .as_ref()
        .filter(|processes| !processes.is_empty())
    else {
        return;
    };
    page.heading("PROCESSES", "each with its own account; what grew most first");
    let head = ["PID", "growth", "attributed", "coverage", "events"].map(str::to_owned);
    page.line(&page.paint(DIM, &process_row(head, "process")));
    let mut rows: Vec<&ProcessRow> = processes.iter().collect();
    rows.sort_by_key(|row| Reverse(row.anonymous_growth_bytes));
    for process in rows.iter().take(options.top) {
        let figures = [
            process.pid.to_string(),
            growth(process.anonymous_growth_bytes),
            known(process.attributed_bytes),
            process.coverage.map_or_else(|| UNKNOWN.to_owned(), percent),
            process.events.to_string(),
        ];
        let comm = page.fit(&process.comm, 16);
        let role = if process.pid == recording.target.pid {
            " (target)"
        } else {
            ""
        };
        page.line(&process_row(figures, &format!("{comm}{role}")));
    }
    if rows.len() > options.top {
        let text = format!("{} and {} more", page.ellipsis(), rows.len() - options.top);
        page.paragraph(2, &text, PLAIN);
    }
    if rows.len() > 1 {
        sum(page, &rows);
    }
}

/// Only of processes whose growth is known: the others' part would stand on one side alone.
fn sum(page: &mut Page, rows: &[&ProcessRow]) {
    let counted = || {
        rows.iter()
            .filter_map(|row| Some((row.anonymous_growth_bytes?, row.attributed_bytes)))
    };
    let grown = counted().fold(0i64, |sum, (grown, _)| sum.saturating_add(grown));
    let attributed = counted()
        .try_fold(0u64, |sum, (_, attributed)| Some(sum.saturating_add(attributed?)))
        .filter(|_| counted().next().is_some());
    let coverage = attributed
        .filter(|_| grown > 0)
        .map(|attributed| percent(attributed as f64 / grown as f64));
    let events = rows.iter().fold(0u64, |sum, row| sum.saturating_add(row.events));
    let figures = [
        "sum".to_owned(),
        growth(counted().next().map(|_| grown)),
        known(attributed),
        coverage.unwrap_or_else(|| UNKNOWN.to_owned()),
        events.to_string(),
    ];
    let line = process_row(figures, &format!("{} processes", rows.len()));
    page.line(&page.paint(STRONG, &line));
    let unknown = rows.len() - counted().count();
    if unknown > 0 {
        let plural = if unknown == 1 { "process" } else { "processes" };
        let text = format!("growth is not known of {unknown} {plural}; the sum is without");
        page.paragraph(2, &text, PLAIN);
    }
}

fn growth(growth: Option<i64>) -> String {
    growth.map_or_else(|| UNKNOWN.to_owned(), signed)
}

fn process_row([pid, growth, attributed, coverage, events]: [String; 5], name: &str) -> String {
    format!(
        "{}{}{}{}{}  {name}",
        right(&pid, 9),
        right(&growth, 13),
        right(&attributed, 12),
        right(&coverage, 10),
        right(&events, 9),
    )
}

/// Counters whose names do not say enough.
const COUNTERS: &[(&str, &str)] = &[
    (
        "bursts_cut",
        "times a burst had spent what it might before its blocks were looked at: none of these was followed",
    ),
    (
        "births_with_unknown_fate",
        "followed births of which it could not be told whether they survived",
    ),
    (
        "births_out_of_sample",
        "births came from before the sampling rate fell and were left out",
    ),
    (
        "births_evicted",
        "followed births left the sample when its rate fell",
    ),
    (
        "heap_torn_reads",
        "pieces of the heap contradicted themselves and were read again",
    ),
    (
        "heap_broken_lists",
        "times a free list of the heap could not be followed to its end: what lies beyond counts as in use",
    ),
    (
        "heap_constants_dropped",
        "blocks found no room among the types that were told apart",
    ),
    (
        "heap_free_runs_dropped_bytes",
        "bytes of free pages found no room: whether they are resident was not looked up",
    ),
    (
        "heap_types_not_named",
        "types of blocks were not named, to spare time",
    ),
];

/// Only what was lost; "none" is said too where it was counted, because silence could mean either.
pub fn losses(page: &mut Page, losses: &Losses, counted: bool) {
    page.heading("LOSSES", "");
    for line in lost(page, losses, counted) {
        page.paragraph(2, &line, PLAIN);
    }
}

/// A line for each.
pub fn lost(page: &Page, losses: &Losses, counted: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let plain = [
        (losses.events, "events lost"),
        (losses.stacks, "events without a stack"),
        (
            losses.samples,
            "sampled page faults lost (their pages have no call site)",
        ),
    ];
    for (count, what) in plain {
        if let Some(count) = count.filter(|count| *count > 0) {
            lines.push(format!("{count} {what}"));
        }
    }
    let words = |name: &str| page.fit(&name.replace('_', " "), 60);
    for (reason, count) in losses.truncated_stacks.iter().filter(|(_, count)| **count > 0) {
        lines.push(format!("{count} stacks cut short: {}", words(reason)));
    }
    for (name, count) in losses.counters.iter().filter(|(_, count)| **count > 0) {
        let known = COUNTERS.iter().find(|(known, _)| known == name);
        let what = known.map_or_else(|| words(name), |(_, what)| (*what).to_owned());
        lines.push(format!("{count} {what}"));
    }
    if lines.is_empty() {
        lines.push(if counted {
            "none".to_owned()
        } else {
            "not counted".to_owned()
        });
    }
    lines
}

/// What the events were, as far as a reader may ask.
fn kinds(cost: &Cost) -> String {
    let faults = cost.page_faults.map(|count| format!("{count} page faults"));
    let thinned = cost
        .thinned_stacks
        .filter(|count| *count > 0)
        .map(|count| format!("{count} mapping calls told without a stack"));
    let parts: Vec<String> = [faults, thinned].into_iter().flatten().collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!(" ({})", parts.join(", "))
    }
}

pub fn cost(page: &mut Page, recording: &Recording) {
    page.heading("COST", "");
    let parts = spent(&recording.cost);
    let text = if parts.is_empty() {
        "not measured".to_owned()
    } else {
        parts.join(", ")
    };
    page.paragraph(2, &text, PLAIN);
}

/// What it cost, each in a few words.
pub fn spent(cost: &Cost) -> Vec<String> {
    let reads = match (cost.smaps_reads, cost.smaps_read_seconds) {
        (Some(reads), Some(took)) => Some(format!("{reads} smaps reads in {}", seconds(took))),
        _ => None,
    };
    [
        cost.events
            .map(|events| format!("{events} events{}", kinds(cost))),
        cost.cpu_seconds.map(|took| format!("{} CPU", seconds(took))),
        cost.peak_rss_bytes
            .map(|size| format!("{} memory at most", bytes(size))),
        cost.kernel_map_bytes
            .map(|size| format!("{} of kernel maps", bytes(size))),
        reads,
        match (cost.samples, cost.sample_seconds) {
            (Some(samples), Some(took)) if samples > 0 => {
                Some(format!("{samples} samples of /proc in {}", seconds(took)))
            }
            _ => None,
        },
        cost.attach_seconds
            .map(|took| format!("attached after {}", seconds(took))),
    ]
    .into_iter()
    .flatten()
    .collect()
}
