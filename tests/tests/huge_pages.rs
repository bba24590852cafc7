//! Transparent huge pages, where one fault brings in 512 pages: always, where asked for, and never.
//!
//! The machine's own setting is left as it is, since others share it. `always` is played by a program that asks for huge
//! pages in every mapping: the kernel's rule is then the same.

use leakwatch_tests::account::{self, every_page};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::{Target, Truth};

/// Does this machine give a huge page to who asks?
fn huge_pages_are_there() -> bool {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    setting.contains("[always]") || setting.contains("[madvise]")
}

fn arguments(mode: &str) -> [&str; 6] {
    ["--mode", mode, "--steps", "24", "--pause-ms", "5"]
}

/// Did the program's huge pages come as huge ones?
fn check_mode(mode: &str, truth: &Truth) {
    let touched = truth.number("touched_huge_bytes");
    let resident = truth.functions["leak_huge"];
    if mode == "never" {
        assert_eq!(
            resident, touched,
            "huge pages came where they are switched off: {truth:?}"
        );
    } else if huge_pages_are_there() {
        assert!(resident > 100 * touched, "no huge pages came: {truth:?}");
    }
}

fn right(mode: &str) {
    let mut target = Target::start(&Program::c("huge_pages"), &arguments(mode));
    let (truth, outcome) = every_page(target.pid()).watch(&mut target);
    check_mode(mode, &truth);
    account::every_function(&outcome, &truth);
    account::closes(&outcome);
}

/// Some of a function's few huge pages must be in the sample: with none of them the sample cannot tell how far off it
/// is. So the budget is as near to what the program needs as thins the sample at all, however fast the machine is.
fn right_when_sampled(mode: &str, budget: u32) {
    let record = || -> (Truth, Outcome) {
        let mut attempts = [budget, budget / 2, budget / 4].into_iter().map(|budget| {
            let mut target = Target::start(&Program::c("huge_pages"), &arguments(mode));
            let record = Record::of(target.pid()).pages_alone().budget(&budget.to_string());
            record.watch(&mut target)
        });
        let thinned = attempts.find(|(_, outcome)| outcome.recording().cost.sampling_rate < Some(1.0));
        let (truth, outcome) = thinned.expect("so little a budget thins the sample");
        check_mode(mode, &truth);
        (truth, outcome)
    };
    account::agrees_when_sampled(record);
}

#[test]
fn huge_pages_always() {
    if kernel::required() {
        right("always");
    }
}

#[test]
fn huge_pages_where_asked_for() {
    if kernel::required() {
        right("madvise");
    }
}

#[test]
fn huge_pages_never() {
    if kernel::required() {
        right("never");
    }
}

#[test]
fn huge_pages_always_from_a_sample() {
    if kernel::required() {
        right_when_sampled("always", 4000);
    }
}

#[test]
fn huge_pages_where_asked_for_from_a_sample() {
    if kernel::required() {
        right_when_sampled("madvise", 8000);
    }
}

#[test]
fn huge_pages_never_from_a_sample() {
    if kernel::required() {
        right_when_sampled("never", 8000);
    }
}
