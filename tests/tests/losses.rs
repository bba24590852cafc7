//! What is lost is part of the account: counted, named, and said to the reader.

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::Record;
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

#[test]
fn a_ring_too_small_says_so() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("churn"), &["--pause-ms", "0"]);
    let record = Record::of(target.pid()).arg("--ring-bytes").arg("4096");
    let (_, outcome) = record.watch(&mut target);
    let losses = outcome.recording().losses.nonzero();
    let lost = losses.get("events").copied().unwrap_or(0);
    assert!(lost > 0, "so small a ring loses events: {losses:?}\n{outcome}");
    assert!(
        outcome.stdout.contains(&format!("{lost} events lost")),
        "the report does not tell of {lost} losses\n{outcome}"
    );
}

#[test]
fn a_stack_deeper_than_the_snapshot_is_cut_and_counted() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("deep"), &[]);
    let (truth, outcome) = Record::of(target.pid()).watch(&mut target);
    // The inner end of a cut stack is whole, so the site is right all the same.
    expect::first(&outcome, "map_at_the_bottom");
    expect::held_within_a_page_per_call(&outcome, &truth);
    let recording = outcome.recording();
    assert!(!recording.call_sites[0].stack_complete, "{outcome}");
    // And the stacks of the faults by which the stack itself grew, the first time down.
    assert!(recording.losses.truncated() >= truth.calls, "{outcome}");
}

#[test]
fn a_frame_larger_than_the_snapshot_is_cut_and_counted() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("deep"), &["--large-frame"]);
    let record = Record::of(target.pid()).arg("--stack-bytes").arg("32768");
    let (truth, outcome) = record.watch(&mut target);
    expect::first(&outcome, "map_at_the_bottom");
    expect::held_within_a_page_per_call(&outcome, &truth);
    // Each page that it writes is a fault below the same frame.
    assert!(outcome.recording().losses.truncated() >= truth.calls, "{outcome}");
}

#[test]
fn a_larger_snapshot_reaches_the_root() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("deep"), &["--large-frame"]);
    let record = Record::of(target.pid()).arg("--stack-bytes").arg("65536");
    let (truth, outcome) = record.watch(&mut target);
    expect::first(&outcome, "map_at_the_bottom");
    expect::held_within_a_page_per_call(&outcome, &truth);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    assert!(outcome.recording().call_sites[0].runs_through("main"));
}

#[test]
fn a_moderately_deep_stack_is_whole() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("deep"), &["--depth", "100"]);
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    expect::complete_stacks(&outcome);
    let frames = &outcome.recording().call_sites[0].frames;
    let descents = frames
        .iter()
        .filter(|frame| frame.function.as_deref() == Some("descend"))
        .count();
    assert_eq!(descents, 101, "a frame for each call\n{outcome}");
}
