//! Page evidence against the program's own books: live bytes function by function, with every page looked at and from a
//! sample.

use leakwatch_tests::account::{self, every_page};
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{expect, kernel};

/// Snapshots a second that none of these programs keeps within.
const LITTLE: &str = "500";

fn watch(program: &Program, arguments: &[&str]) -> (Truth, Outcome) {
    let mut target = Target::start(program, arguments);
    every_page(target.pid()).watch(&mut target)
}

fn watch_sampled(program: &Program, arguments: &[&str]) -> (Truth, Outcome) {
    let mut target = Target::start(program, arguments);
    Record::of(target.pid())
        .pages_alone()
        .budget(LITTLE)
        .watch(&mut target)
}

/// Looked at page by page: every function right, the leak first, the account closed, nothing lost.
fn right(program: &Program, arguments: &[&str]) -> (Truth, Outcome) {
    let (truth, outcome) = watch(program, arguments);
    expect::no_losses(&outcome);
    agree(&truth, &outcome);
    (truth, outcome)
}

fn agree(truth: &Truth, outcome: &Outcome) {
    account::every_function(outcome, truth);
    if let Some(site) = &truth.site {
        expect::first(outcome, site);
        account::rests_on_pages(outcome, site);
    }
    account::closes(outcome);
    expect::complete_stacks(outcome);
}

fn right_when_sampled(program: &Program, arguments: &[&str]) {
    account::agrees_when_sampled(|| {
        let (truth, outcome) = watch_sampled(program, arguments);
        if let Some(site) = &truth.site {
            expect::first(&outcome, site);
        }
        (truth, outcome)
    });
}

fn blames_nobody(program: &Program) -> (Truth, Outcome) {
    let (truth, outcome) = watch(program, &["--honest"]);
    assert_eq!(truth.site, None, "an honest program has no site");
    account::every_function(&outcome, &truth);
    account::nothing_beyond_smaps(&outcome);
    expect::no_losses(&outcome);
    (truth, outcome)
}

#[test]
fn owners_of_pages_touched_given_up_and_touched_again() {
    if !kernel::required() {
        return;
    }
    for seed in ["1", "2"] {
        let (truth, outcome) = right(&Program::c("page_owners"), &["--seed", seed]);
        account::truth_is_sound(&truth);
        // Each function's evidence says what it is: small blocks share a heap, and their toucher may be a victim.
        for function in ["write_orders", "write_sessions", "note_event", "load_document"] {
            account::rests_on_pages(&outcome, function);
        }
        // What was given up again was seen too. A page that is only read is touched but is nobody's memory.
        let recording = outcome.recording();
        assert!(
            recording.touched_by("peek") > 0,
            "what was read was not seen\n{outcome}"
        );
        let touched: u64 = truth
            .functions
            .keys()
            .filter(|function| *function != "peek")
            .map(|function| recording.touched_by(function))
            .sum();
        let live: u64 = truth.functions.values().sum();
        let expected = live + truth.number("given_up_bytes");
        assert!(
            touched.abs_diff(expected) <= expected / 20,
            "{touched} bytes touched by the report, {expected} by its own count\n{outcome}"
        );
    }
}

#[test]
fn owners_of_pages_from_a_sample() {
    if kernel::required() {
        right_when_sampled(
            &Program::c("page_owners"),
            &["--operations", "2200", "--seed", "3"],
        );
    }
}

#[test]
fn owners_of_pages_honest() {
    if kernel::required() {
        let (truth, _) = blames_nobody(&Program::c("page_owners"));
        account::truth_is_sound(&truth);
    }
}

#[test]
fn memory_from_before_the_attach() {
    if kernel::required() {
        let (truth, _) = right(&Program::c("before_attach"), &[]);
        account::truth_is_sound(&truth);
    }
}

#[test]
fn memory_from_before_the_attach_from_a_sample() {
    if kernel::required() {
        right_when_sampled(&Program::c("before_attach"), &[]);
    }
}

#[test]
fn memory_from_before_the_attach_honest() {
    if kernel::required() {
        let (_, outcome) = blames_nobody(&Program::c("before_attach"));
        account::churn_is_not_retained(&outcome, "fill_old_buffer", 18 << 20);
    }
}

#[test]
fn bodies_that_only_the_kernel_wrote() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = right(&Program::c("read_fresh"), &[]);
    account::truth_is_sound(&truth);
    account::churn_is_not_retained(&outcome, "receive_and_drop", 24 << 20);
}

#[test]
fn bodies_that_only_the_kernel_wrote_from_a_sample() {
    if kernel::required() {
        right_when_sampled(&Program::c("read_fresh"), &[]);
    }
}

#[test]
fn bodies_that_only_the_kernel_wrote_honest() {
    if kernel::required() {
        let (_, outcome) = blames_nobody(&Program::c("read_fresh"));
        account::churn_is_not_retained(&outcome, "receive_and_drop", 48 << 20);
    }
}

/// The child is not watched: what is said of its own faults is no loss of this process's.
const OF_THE_CHILD: &[&str] = &["counters.events_of_unwatched_processes"];

/// A fault is not growth: what stood before the window and was copied after a fork is nobody's.
#[test]
fn pages_copied_after_a_fork() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = watch(&Program::c("fork_cow"), &[]);
    account::truth_is_sound(&truth);
    agree(&truth, &outcome);
    // Nor is it churn that came and went.
    let touched = outcome.recording().touched_by("overwrite_old");
    assert!(
        touched <= 16 * 4096,
        "{touched} bytes that were copied count as touched\n{outcome}"
    );
    expect::no_losses_but(&outcome, OF_THE_CHILD);
}

#[test]
fn pages_copied_after_a_fork_from_a_sample() {
    if kernel::required() {
        right_when_sampled(&Program::c("fork_cow"), &[]);
    }
}

#[test]
fn pages_copied_after_a_fork_honest() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = watch(&Program::c("fork_cow"), &["--honest"]);
    account::every_function(&outcome, &truth);
    account::nothing_beyond_smaps(&outcome);
    expect::no_losses_but(&outcome, OF_THE_CHILD);
}

/// Memory that allocators keep though nearly all of it is free again: it stands in smaps, and nothing more is blamed.
#[test]
fn a_fragmented_heap() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = right(&Program::c("fragment"), &[]);
    account::nothing_beyond_smaps(&outcome);
    let kept = truth.functions["fill_blocks"];
    assert!(
        kept > 20 * truth.number("in_use_bytes"),
        "the heap is not fragmented: {truth:?}"
    );
}

/// Small blocks share a heap: whoever touched its pages first may be a victim, and each such site says so.
#[test]
fn small_blocks_rest_on_pages() {
    if !kernel::required() {
        return;
    }
    for (program, function) in [
        (Program::c("brk_leak"), "leak_small"),
        (Program::cpp("arenas"), "handle_upload"),
    ] {
        let (_, outcome) = watch(&program, &[]);
        account::every_page_was_looked_at(&outcome);
        account::rests_on_pages(&outcome, function);
        account::closes(&outcome);
        assert!(
            outcome.stdout.contains("Evidence is pages"),
            "the text does not say what it rests on\n{outcome}"
        );
    }
}

/// Churn of mappings and of the heap at once: it touches gigabytes and retains next to nothing.
#[test]
fn churn_retains_nothing() {
    if !kernel::required() {
        return;
    }
    let (truth, outcome) = watch(&Program::c("churn"), &[]);
    account::every_page_was_looked_at(&outcome);
    expect::first(&outcome, "keep_a_little");
    let live = outcome.recording().live_by("keep_a_little");
    assert!(
        live.abs_diff(truth.committed_bytes) <= truth.committed_bytes / 50,
        "keep_a_little keeps {live} bytes by the report, {} by its own count\n{outcome}",
        truth.committed_bytes
    );
    // Two pages of each of 100 mappings a step.
    account::churn_is_not_retained(&outcome, "churn_mappings", 40 * 100 * 2 * 4096 * 9 / 10);
    account::closes(&outcome);
}

#[test]
fn churn_alone_stays_within_smaps() {
    if kernel::required() {
        let (_, outcome) = watch(&Program::c("churn"), &["--honest"]);
        account::nothing_beyond_smaps(&outcome);
    }
}

/// A block that grows by `realloc` moves, and its pages with it.
#[test]
fn a_block_that_grows_by_realloc_keeps_its_pages() {
    if !kernel::required() {
        return;
    }
    for (arguments, function) in [(&["--realloc"][..], "grow_block"), (&[][..], "grow_table")] {
        let (truth, outcome) = watch(&Program::c("remap_growth"), arguments);
        account::every_page_was_looked_at(&outcome);
        expect::first(&outcome, function);
        let live = outcome.recording().live_by(function);
        assert!(
            live.abs_diff(truth.committed_bytes) <= truth.committed_bytes / 50,
            "{function} keeps {live} bytes by the report, {} by its own count\n{outcome}",
            truth.committed_bytes
        );
        account::closes(&outcome);
    }
}
