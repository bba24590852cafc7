//! Programs on musl, as in every Alpine container: a C library without unwind information and without frame pointers
//! stands between each allocation and who asked for it, and where threads begin.

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::Record;
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{expect, kernel};

fn names_the_leak(name: &str, flags: &[&str]) -> Truth {
    let mut target = Target::start(&Program::musl(name, flags), &[]);
    let (truth, outcome) = Record::of(target.pid()).watch(&mut target);
    expect::first(
        &outcome,
        truth.site.as_deref().expect("a leaky program has a site"),
    );
    expect::held_within_a_page_per_call(&outcome, &truth);
    expect::innocents_hold_at_most(&outcome, &truth, truth.committed_bytes / 100);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    truth
}

#[test]
fn threads_of_a_server() {
    if kernel::required() {
        let truth = names_the_leak("musl_server", &[]);
        assert_eq!(truth.calls, 400, "four threads of 100 requests each");
    }
}

#[test]
fn a_static_server() {
    if kernel::required() {
        names_the_leak("musl_server", &["-static"]);
    }
}

/// Nothing in the whole process has unwind information.
#[test]
fn a_server_without_unwind_information_of_its_own() {
    if kernel::required() {
        let bare = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
        names_the_leak("musl_server", &bare);
    }
}

#[test]
fn with_frame_pointers() {
    if kernel::required() {
        names_the_leak("musl_server", &["-fno-omit-frame-pointer"]);
    }
}

#[test]
fn direct_mappings_of_the_main_thread() {
    if kernel::required() {
        names_the_leak("mmap_leak", &[]);
    }
}

#[test]
fn an_honest_server() {
    if kernel::required() {
        let mut target = Target::start(&Program::musl("musl_server", &[]), &["--honest"]);
        let (truth, outcome) = Record::of(target.pid()).watch(&mut target);
        assert_eq!(truth.site, None, "an honest program has no site");
        // Threads that have ended leave their stacks behind for a while.
        expect::nothing_held_over(&outcome, 256 << 10);
    }
}
