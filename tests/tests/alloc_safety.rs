//! Where births must not be watched: the recording says why, and the target does not feel a thing.

use std::process::Command;

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;
use leakwatch_tests::{account, text};

/// Nothing rests on survivors, and one of these words tells why.
fn was_not_watched(watched: &Watched, words: &[&str]) {
    let why = watched.recording.allocations_not_watched.as_deref();
    let why = why.unwrap_or_else(|| panic!("no reason\n{}", watched.detail()));
    assert!(
        words.iter().any(|word| why.to_lowercase().contains(word)),
        "{why:?} has none of {words:?}"
    );
    for site in &watched.recording.call_sites {
        assert_ne!(site.evidence, "survivors", "{}", watched.detail());
    }
    // It may be broken into lines there.
    let words: Vec<&str> = watched.outcome.stdout.split_whitespace().collect();
    assert!(
        words.join(" ").contains(why),
        "the report does not tell why: {why}\n{}",
        watched.detail()
    );
    account::sums_up(&watched.outcome);
}

/// Its heap cannot be read, so births would tell nothing.
#[test]
fn another_allocator() {
    if !kernel::required() {
        return;
    }
    let mut command = Command::new(Program::c("cohort_rate").path);
    command
        .args(["--rate", "50000"])
        .env("LD_PRELOAD", "libjemalloc.so.2");
    let mut target = Target::start_command(command);
    let watched = watch(&mut target, 3, &[]);
    was_not_watched(&watched, &["jemalloc"]);
    assert!(watched.recording.allocations.is_none(), "{}", watched.detail());
    text::wait_clean(target.pid());
}

/// Nobody can tell where its malloc is.
#[test]
fn a_static_program_without_symbols() {
    if !kernel::required() {
        return;
    }
    let program = Program::c_with("cohort_rate", &["-static", "-s"]);
    let mut target = Target::start(&program, &["--rate", "50000"]);
    let watched = watch(&mut target, 3, &[]);
    was_not_watched(&watched, &["malloc", "symbol"]);
    assert!(watched.recording.allocations.is_none(), "{}", watched.detail());
    text::wait_clean(target.pid());
}

/// With symbols it can.
#[test]
fn a_static_program_with_symbols() {
    if !kernel::required() {
        return;
    }
    let program = Program::c_with("cohort_realloc", &["-static"]);
    // It allocates little, so that what it keeps is seen for certain.
    let mut target = Target::start(&program, &["--journals", "60", "--replies", "200"]);
    let watched = watch(&mut target, 8, &["--allocs-budget", "10"]);
    watched.is_sound();
    watched.names_the_leak();
    watched.rests_on_survivors("append_record");
    text::wait_clean(target.pid());
}

/// Stacks of the program's own making, on the heap: a return probe there is no place to stay. It is known by the first
/// calls, and bursts end then, however often it is asked for.
#[test]
fn threads_of_the_programs_own_making() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("cohort_fibers"), &[]);
    let watched = watch(&mut target, 4, &[]);
    was_not_watched(&watched, &["fiber", "user-space thread", "stack"]);
    let allocations = watched.recording.allocations.as_ref();
    let watched_seconds = allocations.map_or(0.0, |allocations| allocations.watched_seconds);
    assert!(
        watched_seconds < 0.1,
        "watched on for {watched_seconds} s\n{}",
        watched.detail()
    );
    text::wait_clean(target.pid());
}
