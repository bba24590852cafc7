//! A thread that faults as fast as it can: leakwatch keeps within its budget, and what little is kept does not drown.

use std::time::Instant;

use leakwatch_tests::account;
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{cost, expect};

/// Of one core, while the storm blows.
const MOST_CPU: f64 = 0.10;
const MOST_RESIDENT_BYTES: u64 = 400 << 20;

fn storm(milliseconds: &str) -> (Truth, Outcome) {
    let arguments = [
        "--milliseconds",
        milliseconds,
        "--mib",
        "16",
        "--keep-pages",
        "128",
    ];
    let mut target = Target::start(&Program::c("fault_storm"), &arguments);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    let before = cost::cpu_seconds(running.pid());
    let began = Instant::now();
    target.go();
    let truth = target.truth();
    let used = cost::cpu_seconds(running.pid()) - before;
    let share = used / began.elapsed().as_secs_f64();
    let resident = cost::peak_resident_bytes(running.pid());
    running.interrupt();
    let outcome = running.finish();
    assert!(
        target.is_well(),
        "the target did not survive being watched\n{outcome}"
    );
    account::truth_is_sound(&truth);
    assert!(
        share <= MOST_CPU,
        "leakwatch took {:.1} % of a core for {} faults\n{outcome}",
        100.0 * share,
        truth.number("faults")
    );
    assert!(
        resident <= MOST_RESIDENT_BYTES,
        "leakwatch grew to {resident} bytes\n{outcome}"
    );
    (truth, outcome)
}

/// Losses, if any, are told to the reader.
fn losses_are_told(outcome: &Outcome) {
    for (name, count) in outcome.recording().losses.nonzero() {
        assert!(
            outcome.stdout.contains(&count.to_string()),
            "{count} of {name} are not in the text\n{outcome}"
        );
    }
}

#[test]
fn a_storm_of_faults_keeps_within_the_budget() {
    if !kernel::required() {
        return;
    }
    account::agrees_when_sampled(|| {
        let (truth, outcome) = storm("6000");
        expect::first(&outcome, "keep_a_few");
        losses_are_told(&outcome);
        // Each round touches 16 MiB and gives it back.
        let calls = truth.calls;
        account::churn_is_not_retained(&outcome, "storm_pages", calls * (16 << 20) / 2);
        (truth, outcome)
    });
}
