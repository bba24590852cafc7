//! A server of eight threads with a leak in one of its five handlers, and a cache in another: bounded, as caches should
//! be, and full already or still filling.

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;

fn server(arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(&Program::cpp("cohort_server"), arguments);
    watch(&mut target, seconds, &[])
}

#[test]
fn a_handler_that_leaks() {
    if !kernel::required() {
        return;
    }
    let watched = server(&[], 10);
    watched.is_true();
    assert_eq!(watched.verdict(), Some("leak"), "{}", watched.detail());
}

/// Its entries are replaced: many of them are newer than the window's start, and yet it does not grow.
#[test]
fn a_handler_that_leaks_beside_a_cache_that_is_full() {
    if !kernel::required() {
        return;
    }
    let watched = server(&["--cache", "full"], 10);
    watched.is_true();
}

/// Both grow, and both are shown.
#[test]
fn a_handler_that_leaks_beside_a_cache_that_fills() {
    if !kernel::required() {
        return;
    }
    let watched = server(&["--cache", "filling"], 10);
    watched.is_true();
    watched.rests_on_survivors("handle_search");
    watched.bytes_are_true("handle_search", 0.2);
}

#[test]
fn handlers_fixed_beside_a_cache_that_is_full() {
    if !kernel::required() {
        return;
    }
    let watched = server(&["--fixed", "--cache", "full"], 8);
    watched.is_sound();
    watched.nothing_survives();
}
