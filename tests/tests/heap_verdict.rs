//! What a window's growth is: kept by the program, or free and kept by its allocator. Both with their shares.

use std::process::Command;

use leakwatch_tests::heap::{Growth, Heap, Verdict, within};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::recording::Recording;
use leakwatch_tests::target::{Target, Truth};

/// What the parts of the growth may differ by from the program's own count.
const TOLERANCE: f64 = 0.1;

fn watch(how: &str) -> (Truth, Outcome, Recording) {
    let mut target = Target::start(&Program::c("heap_window"), &[how]);
    let record = Record::of(target.pid()).arg("--census").arg("always");
    let (truth, outcome) = record.watch(&mut target);
    let recording = outcome.recording();
    // Its own books agree with its allocator's, else its truth is none. The top is in the latter.
    let free = truth.more["free_grown_bytes"].as_i64().expect("a number");
    let own = i64::try_from(truth.number("free_bytes")).expect("a size");
    assert!(free.abs_diff(own) < 1 << 20, "{truth:?}");
    (truth, outcome, recording)
}

fn census<'a>(recording: &'a Recording, outcome: &Outcome) -> (&'a Heap, Growth) {
    let heap = recording
        .heap
        .as_ref()
        .unwrap_or_else(|| panic!("no census: {:?}\n{outcome}", recording.heap_not_taken));
    heap.adds_up();
    let growth = heap.growth.expect("there were two censuses");
    (heap, growth)
}

fn verdict<'a>(recording: &'a Recording, kind: &str, outcome: &Outcome) -> &'a Verdict {
    let verdict = recording
        .verdict
        .as_ref()
        .unwrap_or_else(|| panic!("no verdict\n{outcome}"));
    assert_eq!(verdict.kind, kind, "{verdict:?}\n{outcome}");
    verdict
}

#[test]
fn a_steady_leak_is_a_leak() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome, recording) = watch("--leak");
    let (heap, growth) = census(&recording, &outcome);
    let verdict = verdict(&recording, "leak", &outcome);
    within(
        TOLERANCE,
        "in use",
        growth.in_use_bytes,
        truth.number("leaked_bytes"),
    );
    let kept = growth.kept_bytes.expect("pagemap can be read");
    assert!(
        kept < 2 << 20,
        "{kept} bytes kept where nothing was freed\n{outcome}"
    );
    // The leak's signature: one size of blocks.
    let first = &heap.classes[0];
    assert_eq!(first.bytes, truth.number("record_bytes"), "{first:?}\n{outcome}");
    within(
        0.01,
        "blocks that are new",
        first.growth_count.expect("there were two censuses"),
        truth.number("leaked_count"),
    );
    let words = verdict.evidence.join("\n");
    assert!(
        words.contains(&truth.number("record_bytes").to_string()),
        "the evidence does not tell the size: {verdict:?}"
    );
    assert!(recording.call_sites[0].blames("keep_records"), "{outcome}");
}

#[test]
fn fragmentation_is_retention() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome, recording) = watch("--fragment");
    let (_, growth) = census(&recording, &outcome);
    let verdict = verdict(&recording, "retention", &outcome);
    let kept = growth.kept_bytes.expect("pagemap can be read");
    within(TOLERANCE, "kept", kept, truth.number("free_bytes"));
    within(TOLERANCE, "free", growth.free_bytes, truth.number("free_bytes"));
    assert!(growth.in_use_bytes < 2 << 20, "{growth:?}");
    assert!(!verdict.suggestions.is_empty(), "{verdict:?}");
}

/// Some 280 MB by then, of which next to nothing is in use: grown within one window.
#[test]
fn forty_rounds_of_shrinking_blocks_are_retention() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("heap_holes"), &["--in-window"]);
    let record = Record::of(target.pid()).arg("--census").arg("always");
    let (truth, outcome) = record.watch(&mut target);
    let recording = outcome.recording();
    let (heap, growth) = census(&recording, &outcome);
    verdict(&recording, "retention", &outcome);
    assert!(
        heap.in_use_bytes < 3 << 20 && growth.in_use_bytes < 3 << 20,
        "{growth:?}"
    );
    let kept = growth.kept_bytes.expect("pagemap can be read");
    within(TOLERANCE, "kept", kept, truth.number("fordblks"));
}

#[test]
fn a_mix_is_told_apart_with_shares() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome, recording) = watch("--both");
    let (_, growth) = census(&recording, &outcome);
    let verdict = verdict(&recording, "leak", &outcome);
    let in_use = truth.number("leaked_bytes") + truth.number("shrunk_bytes");
    within(TOLERANCE, "in use", growth.in_use_bytes, in_use);
    let kept = growth.kept_bytes.expect("pagemap can be read");
    within(TOLERANCE, "kept", kept, truth.number("free_bytes"));
    // The words carry both shares, of about one half each.
    let words = format!("{}\n{}", verdict.summary, verdict.evidence.join("\n"));
    let shares: Vec<u32> = words
        .split('%')
        .filter_map(|before| {
            let number = before
                .trim_end()
                .rsplit(|letter: char| !letter.is_ascii_digit())
                .next()?;
            number.parse().ok()
        })
        .collect();
    let halves = shares.iter().filter(|share| (40..=60).contains(*share)).count();
    assert!(halves >= 2, "no two shares of about a half in: {words}");
    assert!(words.contains("in use") && words.contains("retention"), "{words}");
}

#[test]
fn a_cache_that_is_full_is_no_leak() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome, recording) = watch("--cache");
    let (heap, growth) = census(&recording, &outcome);
    verdict(&recording, "plateau", &outcome);
    within(
        TOLERANCE,
        "in use",
        growth.in_use_bytes,
        truth.number("cached_bytes"),
    );
    assert_eq!(heap.classes[0].bytes, truth.number("record_bytes"), "{outcome}");
}

#[test]
fn churn_is_no_leak() {
    if !kernel::required() {
        return;
    }
    let (_, outcome, recording) = watch("--churn");
    let (_, growth) = census(&recording, &outcome);
    assert!(
        growth.in_use_bytes.unsigned_abs() < 1 << 20,
        "{growth:?}\n{outcome}"
    );
    let kind = recording.verdict.as_ref().map(|verdict| verdict.kind.as_str());
    assert!(
        !matches!(kind, Some("leak" | "growth" | "retention")),
        "{:?}\n{outcome}",
        recording.verdict
    );
}

/// Nobody asked: nothing is read, and what less than a second of sizes says is no more than that it grows.
#[test]
fn without_a_census_a_second_is_too_short() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("heap_window"), &["--leak", "--steps", "20"]);
    let record = Record::of(target.pid()).arg("--census").arg("never");
    let (_, outcome) = record.watch(&mut target);
    let recording = outcome.recording();
    assert!(
        recording.heap.is_none() && recording.heap_not_taken.is_none(),
        "{outcome}"
    );
    undecided(&recording, &outcome);
}

fn undecided(recording: &Recording, outcome: &Outcome) {
    let kind = recording.verdict.as_ref().map(|verdict| verdict.kind.as_str());
    assert!(
        matches!(kind, Some("growth" | "inconclusive")),
        "{:?}\n{outcome}",
        recording.verdict
    );
}

/// The reason takes the place of the figures.
#[test]
fn a_census_that_is_not_taken_says_why() {
    if !kernel::required() {
        return;
    }
    let mut command = Command::new(Program::c("heap_window").path);
    command
        .args(["--leak", "--steps", "20"])
        .env("LD_PRELOAD", "libjemalloc.so.2");
    let mut target = Target::start_command(command);
    let record = Record::of(target.pid()).arg("--census").arg("always");
    let (_, outcome) = record.watch(&mut target);
    let recording = outcome.recording();
    assert!(recording.heap.is_none(), "{outcome}");
    undecided(&recording, &outcome);
    let why = recording.heap_not_taken.expect("a reason");
    assert!(why.contains("jemalloc"), "{why}");
    assert!(
        outcome.stdout.contains("jemalloc"),
        "the report does not tell: {outcome}"
    );
}
