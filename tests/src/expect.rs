//! What a report must say. Each panics with the call sites and leakwatch's own words.

use crate::record::Outcome;
use crate::recording::Recording;
use crate::target::Truth;

const PAGE_BYTES: u64 = 4096;

/// The call sites, one a line, for a failure's message.
#[must_use]
pub fn table(recording: &Recording, outcome: &Outcome) -> String {
    let mut text = String::from("call sites:\n");
    for site in recording.call_sites.iter().take(12) {
        let culprit = site.culprit.as_ref();
        let function = culprit
            .and_then(|culprit| culprit.function.as_deref())
            .unwrap_or("?");
        text += &format!(
            "{:3} {:>12} live {:>12} touched {:>12} held {:>12} committed {:>7} events {:8} {:8} {function} complete={}\n",
            site.rank,
            site.live_bytes
                .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            site.touched_bytes
                .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            site.held_bytes,
            site.committed_bytes,
            site.events,
            site.via,
            site.evidence,
            site.stack_complete
        );
    }
    text + &format!(
        "losses: {:?}\nstderr:\n{}",
        recording.losses.nonzero(),
        outcome.stderr
    )
}

/// The call site of rank 1 blames this function.
pub fn first(outcome: &Outcome, function: &str) {
    let recording = outcome.recording();
    let first = recording.call_sites.first();
    assert!(
        first.is_some_and(|site| site.blames(function)),
        "{function} should come first\n{}",
        table(&recording, outcome)
    );
}

/// What the true site holds agrees with the program's own count, within a page per call.
pub fn held_within_a_page_per_call(outcome: &Outcome, truth: &Truth) {
    held_within(outcome, truth, truth.calls * PAGE_BYTES);
}

/// What the true site holds agrees with the program's own count, within this many bytes.
pub fn held_within(outcome: &Outcome, truth: &Truth, tolerance: u64) {
    let recording = outcome.recording();
    let site = truth
        .site
        .as_deref()
        .expect("an honest program has no site to ask for");
    let held = recording.held_by(site);
    assert!(
        held.abs_diff(truth.committed_bytes) <= tolerance,
        "{site} holds {held} bytes by the report, {} by its own count (tolerance {tolerance})\n{}",
        truth.committed_bytes,
        table(&recording, outcome)
    );
}

/// What the true site committed agrees too: for a program that gives nothing of it back.
pub fn committed_within_a_page_per_call(outcome: &Outcome, truth: &Truth) {
    let recording = outcome.recording();
    let site = truth
        .site
        .as_deref()
        .expect("an honest program has no site to ask for");
    let committed = recording.committed_by(site);
    assert!(
        committed.abs_diff(truth.committed_bytes) <= truth.calls * PAGE_BYTES,
        "{site} committed {committed} bytes by the report, {} by its own count\n{}",
        truth.committed_bytes,
        table(&recording, outcome)
    );
}

/// Each function that gave back what it took holds at most `limit` bytes.
pub fn innocents_hold_at_most(outcome: &Outcome, truth: &Truth, limit: u64) {
    let recording = outcome.recording();
    for innocent in &truth.innocents {
        let held = recording.held_by(innocent);
        assert!(
            held <= limit,
            "{innocent} is blamed for {held} bytes\n{}",
            table(&recording, outcome)
        );
    }
}

/// All sites together hold at most `limit` bytes: there is no leak.
pub fn nothing_held_over(outcome: &Outcome, limit: u64) {
    let recording = outcome.recording();
    let held = recording.held();
    assert!(
        held <= limit,
        "{held} bytes are blamed where nothing leaks\n{}",
        table(&recording, outcome)
    );
}

/// Every stack reaches its root, and there is at least one.
pub fn complete_stacks(outcome: &Outcome) {
    let recording = outcome.recording();
    assert!(
        !recording.call_sites.is_empty(),
        "no call site at all\n{}",
        table(&recording, outcome)
    );
    let cut = recording
        .call_sites
        .iter()
        .filter(|site| !site.stack_complete)
        .count();
    assert!(
        cut == 0 && recording.losses.truncated() == 0,
        "{cut} call sites and {} stacks do not reach their root\n{}",
        recording.losses.truncated(),
        table(&recording, outcome)
    );
}

/// Nothing was lost or cut.
pub fn no_losses(outcome: &Outcome) {
    no_losses_but(outcome, &[]);
}

/// Nothing was lost or cut but what these counters count.
pub fn no_losses_but(outcome: &Outcome, counters: &[&str]) {
    let recording = outcome.recording();
    let mut losses = recording.losses.nonzero();
    // What is left out of a sample of /proc for its cost depends on the machine's load, and call sites do not rest on it.
    losses.retain(|name, _| !counters.contains(&name.as_str()) && !name.contains("samples_without_"));
    assert!(
        losses.is_empty(),
        "there are losses\n{}",
        table(&recording, outcome)
    );
}

/// Nothing that came from the target reached the terminal raw: no control character but the line's end.
pub fn printable(outcome: &Outcome) {
    for (stream, text) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
        let raw = text.chars().find(|letter| letter.is_control() && *letter != '\n');
        assert!(raw.is_none(), "{stream} has a raw {raw:?}: {text:?}");
    }
}

/// One line on stderr, nothing on stdout, this exit status, and each of these words in the line (any case).
pub fn refused(outcome: &Outcome, status: i32, words: &[&str]) {
    assert_eq!(outcome.status.code(), Some(status), "{outcome}");
    assert!(outcome.stdout.is_empty(), "a refusal prints no result: {outcome}");
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() == 1, "not one line on stderr: {outcome}");
    let said = outcome.stderr.to_lowercase();
    for word in words {
        assert!(
            said.contains(&word.to_lowercase()),
            "stderr should name {word:?}: {outcome}"
        );
    }
    assert!(
        !said.contains("panicked") && !said.contains("backtrace"),
        "{outcome}"
    );
}
