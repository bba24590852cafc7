//! Who keeps the blocks that were added, among others that allocate a thousand times as much and give it back.

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;

/// With the budget that leakwatch has by itself.
fn c(name: &str, arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(&Program::c(name), arguments);
    watch(&mut target, seconds, &[])
}

fn with_budget(percent: &str, name: &str, arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(&Program::c(name), arguments);
    watch(&mut target, seconds, &["--allocs-budget", percent])
}

#[test]
fn three_leaks_of_three_kinds() {
    if !kernel::required() {
        return;
    }
    let watched = c("cohort_three", &[], 10);
    watched.is_true();
    assert_eq!(watched.verdict(), Some("leak"), "{}", watched.detail());
    // Blocks with a mapping of their own and mappings are known by the ledger, to the page.
    for function in ["keep_images", "map_segments"] {
        watched.bytes_are_true(function, 0.15);
        let sites = watched.recording.sites_of(function);
        let by_blocks = sites.filter(|site| site.evidence == "survivors").count();
        assert_eq!(
            by_blocks,
            0,
            "{function} has mappings of its own\n{}",
            watched.detail()
        );
    }
    // The size that is asked for, by the census and by the births.
    let site = watched.recording.sites_of("keep_records").next();
    let blocks = site.and_then(|site| site.allocations.clone()).expect("births");
    assert_eq!(blocks.classes[0].chunk_bytes, 1008, "{blocks:?}");
    assert!(
        blocks.functions.iter().any(|function| function == "malloc"),
        "{blocks:?}"
    );
    // Others asked for that size too, far oftener, and keep none of it.
    let rows = watched
        .recording
        .sites_of("fetch_row")
        .filter_map(|site| site.allocations.as_ref());
    let born: u64 = rows.map(|rows| rows.births).sum();
    assert!(
        born > 10 * blocks.births,
        "{born} births of rows\n{}",
        watched.detail()
    );
}

#[test]
fn three_leaks_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = c("cohort_three", &["--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}

#[test]
fn one_block_in_ten_thousand() {
    if !kernel::required() {
        return;
    }
    // 50 a second, and some hundredth of the window is watched: one percent of 160 seconds would see as many, and the test
    // would take as long.
    let watched = with_budget("4", "cohort_rare", &[], 40);
    watched.is_true();
}

#[test]
fn one_block_in_ten_thousand_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = c("cohort_rare", &["--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}

#[test]
fn buffers_that_grow_by_realloc() {
    if !kernel::required() {
        return;
    }
    // The target rests nine tenths of its time, and so does the budget.
    let watched = with_budget("10", "cohort_realloc", &[], 10);
    watched.is_true();
    let site = watched.recording.sites_of("append_record").next();
    let blocks = site.and_then(|site| site.allocations.clone()).expect("births");
    assert!(
        blocks.functions.iter().any(|function| function == "realloc"),
        "{blocks:?}"
    );
}

#[test]
fn buffers_that_grow_by_realloc_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = c("cohort_realloc", &["--fixed"], 8);
    watched.is_sound();
    watched.nothing_survives();
}
