//! Processes, losses and cost.

use super::Options;
use super::layout::{PLAIN, Page, UNKNOWN, bytes, known, right, seconds, signed};
use crate::report::model::Recording;

/// With `--children`: each process.
pub fn processes(page: &mut Page, recording: &Recording, options: &Options) {
    let Some(processes) = recording
        .processes
        .as_ref()
        .filter(|processes| !processes.is_empty())
    else {
        return;
    };
    page.heading("PROCESSES", "");
    for process in processes.iter().take(options.top) {
        let growth = process
            .anonymous_growth_bytes
            .map_or_else(|| UNKNOWN.to_owned(), signed);
        let comm = page.fit(&process.comm, 24);
        page.line(&format!(
            "{} {}  anonymous {growth}, live {}  {comm}",
            right(&process.pid.to_string(), 10),
            right(&format!("{} events", process.events), 16),
            known(process.live_bytes)
        ));
    }
    if processes.len() > options.top {
        page.paragraph(
            2,
            &format!("{} and {} more", page.ellipsis(), processes.len() - options.top),
            PLAIN,
        );
    }
}

/// Only what was lost; "none" is said too, because silence could mean either.
pub fn losses(page: &mut Page, recording: &Recording) {
    let losses = &recording.losses;
    page.heading("LOSSES", "");
    let mut lines = Vec::new();
    let plain = [
        (losses.events, "events lost"),
        (losses.stacks, "events without a stack"),
        (losses.samples, "samples lost"),
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
        lines.push(format!("{count} {}", words(name)));
    }
    if lines.is_empty() {
        let counted = losses.events.is_some();
        lines.push(if counted {
            "none".to_owned()
        } else {
            "not counted".to_owned()
        });
    }
    for line in lines {
        page.paragraph(2, &line, PLAIN);
    }
}

pub fn cost(page: &mut Page, recording: &Recording) {
    let cost = &recording.cost;
    page.heading("COST", "");
    let reads = match (cost.smaps_reads, cost.smaps_read_seconds) {
        (Some(reads), Some(took)) => Some(format!("{reads} smaps reads in {}", seconds(took))),
        _ => None,
    };
    let parts: Vec<String> = [
        cost.events.map(|events| format!("{events} events")),
        cost.cpu_seconds.map(|took| format!("{} CPU", seconds(took))),
        cost.peak_rss_bytes
            .map(|size| format!("{} memory at most", bytes(size))),
        cost.kernel_map_bytes
            .map(|size| format!("{} of kernel maps", bytes(size))),
        reads,
        cost.attach_seconds
            .map(|took| format!("attached after {}", seconds(took))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let text = if parts.is_empty() {
        "not measured".to_owned()
    } else {
        parts.join(", ")
    };
    page.paragraph(2, &text, PLAIN);
}
