//! After a storm of mapping calls ledger and kernel agree to the page.

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel, ranges};

/// Watches a storm and compares while the target is quiet and still there.
fn agrees(arguments: &[&str], extra: &[&str]) -> Outcome {
    let mut target = Target::start(&Program::c("storm"), arguments);
    let mut record = Record::of(target.pid());
    for argument in extra {
        record = record.arg(argument);
    }
    let dump = record.file("ledger.jsonl");
    let (truth, outcome) = record.arg("--dump-ledger").arg(dump).watch(&mut target);

    let kernel = ranges::of_process(target.pid());
    let held: u64 = kernel.iter().map(|(start, end)| end - start).sum();
    assert_eq!(
        held,
        truth.number("committed_now_bytes"),
        "the target is not quiet: maps is no truth to compare with"
    );
    let mut ledger = ranges::of_ledger(&outcome.file("ledger.jsonl"));
    if let Some(stack) = ranges::main_stack(target.pid()) {
        ledger = ranges::without(&ledger, stack);
    }
    ranges::assert_equal(&kernel, &ledger);
    outcome
}

#[test]
fn one_thread() {
    if kernel::required() {
        for seed in ["1", "2", "3"] {
            let outcome = agrees(&["--threads", "1", "--seed", seed], &[]);
            expect::no_losses(&outcome);
        }
    }
}

#[test]
fn four_threads() {
    if kernel::required() {
        for seed in ["11", "12", "13"] {
            let outcome = agrees(&["--threads", "4", "--seed", seed], &[]);
            expect::no_losses(&outcome);
            expect::complete_stacks(&outcome);
        }
    }
}

#[test]
fn many_threads() {
    if kernel::required() {
        agrees(&["--threads", "16", "--operations", "2000"], &[]);
    }
}

/// Events that were lost are repaired from `/proc/PID/maps`, and counted.
#[test]
fn a_ledger_that_lost_events_is_repaired() {
    if !kernel::required() {
        return;
    }
    let outcome = agrees(&["--threads", "4"], &["--ring-bytes", "4096"]);
    let losses = outcome.recording().losses.nonzero();
    assert!(!losses.is_empty(), "so small a ring loses events\n{outcome}");
}
