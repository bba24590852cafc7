//! Verdicts over facts that were made up: each rule, what is said, and how sure.

mod made_facts;
mod of_rules;
mod of_words;

use made_facts::{MIB, Made};

use super::*;

#[test]
fn a_confidence_is_the_product_of_what_it_rests_on() {
    for made in [Made::leak(), Made::cache(), Made::fragmented(), Made::steady()] {
        let verdict = made.judge();
        let product: f64 = verdict.factors.iter().map(|factor| factor.chance).product();
        let confidence = verdict.confidence.unwrap();
        assert!((confidence - product).abs() < 1e-9, "{verdict:?}");
        assert!(confidence > 0.5 && confidence < 1.0, "{verdict:?}");
        assert!(verdict.factors.iter().all(|factor| !factor.what.is_empty()));
    }
    let nothing = judge(&Facts::default());
    assert_eq!((nothing.kind, nothing.confidence), (Kind::Inconclusive, None));
}

#[test]
fn better_evidence_is_surer() {
    let sure = |made: &Made| {
        let verdict = made.judge();
        assert_eq!(verdict.kind, Kind::Leak, "{verdict:?}");
        verdict.confidence.unwrap()
    };
    let known = Made::leak();
    let mut unread = Made::leak();
    unread.heap = None;
    unread.births = None;
    assert!(sure(&known) > sure(&unread) + 0.1);
    let mut unseen = Made::leak();
    unseen.births = None;
    assert!(sure(&known) > sure(&unseen));
    let mut young = Made::leak();
    young.age = Some(70.0);
    assert!(sure(&known) > sure(&young) + 0.1);
    let mut lossy = Made::leak();
    (lossy.losses.events, lossy.losses.events_lost) = (100, 100);
    assert!(sure(&known) > sure(&lossy) + 0.1);
    // A heap that is half free is no less a leak, but two halves of a few samples are no trend.
    let mut short = Made::leak();
    short.keep(6);
    assert!(sure(&known) > sure(&short) + 0.1);
    // Noise about the line.
    let mut noisy = Made::leak();
    noisy.size = |at| 100.0 + 0.5 * at + 6.0 * (at * 1.7).sin();
    noisy.remake();
    assert!(noisy.judge().confidence.unwrap() <= sure(&known));
}

#[test]
fn the_limit_is_reached_at_the_present_rate() {
    let mut leak = Made::leak();
    leak.room = Some(Room {
        of: room::Of::Cgroup { above: 0 },
        limit: 512 << 20,
        left: 60 << 20,
    });
    let reached = leak.judge().reached.unwrap();
    // 30 MiB in a minute.
    assert!((reached.seconds - 120.0).abs() < 5.0, "{reached:?}");
    // What does not grow reaches nothing.
    for mut other in [Made::steady(), Made::cache()] {
        other.room = leak.room;
        assert_eq!(other.judge().reached, None);
    }
    assert_eq!(Made::leak().judge().reached, None);
}

/// A watch over /proc has sizes and counts alone, and says of them what a recording would say.
#[test]
fn sizes_alone_are_judged_by_the_same_rules() {
    for (mut made, kind) in [
        (Made::leak(), Kind::Leak),
        (Made::cache(), Kind::Plateau),
        (Made::steady(), Kind::Flat),
    ] {
        let whole = made.judge();
        (made.heap, made.births, made.growth) = (None, None, None);
        let alone = made.judge();
        assert_eq!((whole.kind, alone.kind), (kind, kind), "{alone:?}");
        assert!(alone.confidence < whole.confidence, "{alone:?}");
    }
}

#[test]
fn a_restart_is_no_growth() {
    use crate::diagnose::trend::series::{Sample, Series};
    // Up by 30 MiB in each run, and down to where it began.
    let samples: Vec<Sample> = (0_u32..120)
        .map(|at| Sample {
            at: f64::from(at),
            bytes: (100.0 + 0.5 * f64::from(at % 60)) * MIB as f64 + f64::from(at % 3) * 8192.0,
            run: at / 60,
        })
        .collect();
    let trend = crate::diagnose::trend::judge(&Series::new(&samples));
    assert_eq!(trend.restarts, 1);
    let verdict = judge(&Facts {
        window: 120.0,
        trend: Some(&trend),
        ..Facts::default()
    });
    assert_eq!(verdict.kind, Kind::Leak, "{verdict:?}");
    assert!(verdict.summary.contains("grew by 59"), "{}", verdict.summary);
}
