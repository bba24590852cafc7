//! Each rule, in the order of the table.

use super::super::rules::RULES;
use super::super::*;
use super::made_facts::{MIB, Made, site};

/// The rule that has it, and its kind.
fn rule(made: &Made) -> (&'static str, Kind) {
    let verdict = made.judge();
    (verdict.rule, verdict.kind)
}

#[test]
fn the_last_rule_always_applies_and_names_are_told_apart() {
    let nothing = Facts::default();
    let weighed = Weighed::of(&nothing);
    assert!((RULES.last().unwrap().applies)(&weighed));
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
}

#[test]
fn nothing_was_measured() {
    let verdict = judge(&Facts {
        window: 10.0,
        ..Facts::default()
    });
    assert_eq!(
        (verdict.rule, verdict.kind),
        ("nothing was measured", Kind::Inconclusive)
    );
    assert_eq!(verdict.watch_longer, Some(10.0));
}

#[test]
fn samples_are_missing() {
    let mut made = Made::steady();
    made.heap = None;
    assert_eq!(made.kind(), Kind::Flat);
    (made.losses.samples, made.losses.samples_missed) = (20, 41);
    assert_eq!(rule(&made), ("samples are missing", Kind::Inconclusive));
}

#[test]
fn free_memory_that_is_kept() {
    assert_eq!(
        rule(&Made::fragmented()),
        ("the growth is free memory that is kept", Kind::Retention)
    );
    // A leak that is small beside it is one all the same.
    let mut beside = Made::fragmented();
    let heap = beside.heap.as_mut().unwrap();
    (heap.in_use, heap.kept) = (50 * MIB, Some(230 * MIB));
    assert_eq!(beside.kind(), Kind::Leak);
    // What is neither free nor in use lies elsewhere: half of it may be anything.
    let mut elsewhere = Made::fragmented();
    elsewhere.heap.as_mut().unwrap().kept = Some(150 * MIB);
    assert_eq!(elsewhere.kind(), Kind::Leak);
}

#[test]
fn growth_that_is_held_and_steady() {
    let name = "the growth is held, and steady";
    assert_eq!(rule(&Made::leak()), (name, Kind::Leak));
    // Outside the heap: mappings of the program's own.
    assert_eq!(rule(&Made::of(|at| 100.0 + 0.5 * at, 0, 0)), (name, Kind::Leak));
    // By the halves of a few samples, as the heap was read.
    let mut few = Made::leak();
    few.keep(6);
    assert_eq!(rule(&few), (name, Kind::Leak));
    few.heap = None;
    assert_ne!(few.kind(), Kind::Leak, "sizes alone, and no trend");
    // Small, and sure: 3 KiB in each tenth of a second.
    let mut slow = Made::of(|at| 50.0 + 0.015 * at, 1, 0);
    slow.heap = None;
    assert_eq!(rule(&slow), (name, Kind::Leak));
    // The same growth is the allocator's.
    let mut kept = Made::of(|at| 50.0 + 0.015 * at, 0, 1);
    kept.heap.as_mut().unwrap().in_use = -60_000;
    assert_eq!(kept.kind(), Kind::Retention);
}

#[test]
fn growth_that_has_ended() {
    let name = "the growth is held, and has ended";
    assert_eq!(rule(&Made::cache()), (name, Kind::Plateau));
    let at_once = Made::of(|at| if at < 20.0 { 100.0 } else { 130.0 }, 30, 0);
    assert_eq!(rule(&at_once), (name, Kind::Plateau));
}

#[test]
fn growth_that_may_end() {
    let name = "the growth is held, and may end";
    let slackens = Made::of(|at| 100.0 + 60.0 * (1.0 - (-at / 30.0).exp()), 50, 0);
    let verdict = slackens.judge();
    assert_eq!((verdict.rule, verdict.kind), (name, Kind::Growth));
    assert!(
        verdict.watch_longer.is_some_and(|more| more > 10.0),
        "{verdict:?}"
    );
    // Too few samples for halves.
    let mut few = Made::leak();
    few.keep(3);
    assert_eq!(rule(&few), (name, Kind::Growth));
    few.heap = None;
    assert_eq!(rule(&few), (name, Kind::Growth));
    // Growth that would not matter in a process so large may be noise.
    let mut large = Made::of(|at| 4000.0 + 0.5 * at, 0, 0);
    large.heap = None;
    large.keep(3);
    assert_eq!(large.kind(), Kind::Inconclusive);
    // Four single events are stairs, and may go on.
    let stairs = Made::of(|at| 100.0 + 30.0 * (at / 12.0).floor(), 120, 0);
    assert_ne!(stairs.kind(), Kind::Plateau);
    assert_ne!(stairs.kind(), Kind::Flat);
}

#[test]
fn blocks_that_take_free_memory() {
    let within = Made::of(|_| 100.0, 20, -20);
    assert_eq!(
        rule(&within),
        ("blocks in use grew within memory that was there", Kind::Growth)
    );
    // A working set that is a little larger than before.
    assert_eq!(Made::of(|_| 100.0, 2, -2).kind(), Kind::Flat);
}

#[test]
fn memory_that_shrank() {
    let mut shrinks = Made::of(|at| 100.0 - at, -30, -30);
    assert_eq!(rule(&shrinks), ("memory stays as it is", Kind::Flat));
    shrinks.heap = None;
    assert_eq!(shrinks.kind(), Kind::Flat);
    // What grew meanwhile would be told by events.
    shrinks.losses.fault_bytes = 20 << 20;
    assert_eq!(
        rule(&shrinks),
        ("it shrank, and what grew meanwhile was lost", Kind::Inconclusive)
    );
}

#[test]
fn memory_that_comes_and_goes() {
    let mut saws = Made::steady();
    saws.series = (0_u32..300)
        .map(|at| (f64::from(at) / 5.0, (100 << 20) + u64::from(at % 15) * (4 << 20)))
        .collect();
    saws.keep(300);
    assert_eq!(saws.kind(), Kind::Churn, "{:?}", saws.trend);
    let name = "memory comes and goes";
    let mut touched = Made::steady();
    touched.sites = vec![site("churn", 1, 4000)];
    assert_eq!(rule(&touched), (name, Kind::Churn));
    // A little is nothing.
    touched.sites = vec![site("serve", 1, 12)];
    assert_eq!(touched.kind(), Kind::Flat);
    // A few samples, but neither more in use nor larger.
    let mut few = Made::steady();
    few.keep(4);
    few.sites = vec![site("churn", 0, 4000)];
    assert_eq!(rule(&few), (name, Kind::Churn));
    few.losses.fault_bytes = 900 << 20;
    assert_eq!(
        rule(&few),
        ("memory comes and goes, and how much was lost", Kind::Inconclusive)
    );
    // Churn beside a leak is a leak.
    let mut leak = Made::leak();
    leak.sites = vec![site("keep", 29, 29), site("churn", 0, 4000)];
    assert_eq!(leak.kind(), Kind::Leak);
}

#[test]
fn memory_that_stays() {
    let name = "memory stays as it is";
    assert_eq!(rule(&Made::steady()), (name, Kind::Flat));
    // Lost events do not change the sizes.
    let mut lossy = Made::steady();
    (lossy.losses.events, lossy.losses.events_lost) = (1000, 400);
    assert_eq!(rule(&lossy), (name, Kind::Flat));
}

#[test]
fn nothing_can_be_told_yet() {
    let name = "nothing can be told yet";
    let mut short = Made::steady();
    short.keep(4);
    let verdict = short.judge();
    assert_eq!((verdict.rule, verdict.kind), (name, Kind::Inconclusive));
    assert!(verdict.watch_longer.is_some_and(|more| more >= 1.0));
    assert!(verdict.summary.contains("Watch for about"), "{}", verdict.summary);
    // Noise as high as what would matter.
    let mut noisy = Made::steady();
    noisy.heap = None;
    noisy.size = |at| 100.0 + 12.0 * (at / 25.0).sin() + 5.0 * (at / 3.1).sin();
    noisy.remake();
    noisy.growth = Some(0);
    assert_eq!(noisy.kind(), Kind::Inconclusive, "{:?}", noisy.trend);
}
