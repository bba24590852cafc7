//! How sure a verdict is. Pure.
//!
//! The confidence is the chance that the verdict is right as far as the evidence goes: the product of what it rests on,
//! each a chance of its own, and each named in the recording. Where a part is measured, it is as measured: how memory went
//! has its chance by the slope's error, and shares of the growth are counts. What cannot be measured in one window (that a
//! process which fills a cache looks like a leak; that a heap which was not read keeps what is freed) has a prior that is
//! written here, and nowhere else. An inconclusive verdict claims nothing, and has none.

use super::Kind;
use super::course::{Course, SUREST};
use super::weighed::Weighed;

/// One thing that the verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    /// What is sure to this part, as a clause.
    pub what: &'static str,
    /// 0 to 1.
    pub chance: f64,
}

/// The allocator's own records, read at two moments that are not those of `/proc`.
const BY_HEAP: f64 = 0.97;
/// The same where it is not known how much of what is free is resident.
const BY_HEAP_ALONE: f64 = 0.9;
/// Of pages of which most stay, by whom they were touched: an allocator may keep them all the same.
const BY_PAGES: f64 = 0.85;
/// Sizes from outside alone: what is freed and kept looks like what is in use.
const BY_SIZES: f64 = 0.65;
/// That blocks stay: seen to survive...
const SURVIVED: f64 = 0.97;
/// ...more in use at the end than at the start...
const COUNTED: f64 = 0.85;
/// ...or only that the process is larger.
const LARGER: f64 = 0.8;
/// What a process that is as old as the window, and grows, may still be about: its start. It goes with the share that the
/// window has in its life.
const STARTS: f64 = 0.25;
/// Where its age is not known.
const OF_ANY_AGE: f64 = 0.9;
/// That nothing is hidden in free memory of a heap that was not read, where a process stays as it is.
const NOTHING_WITHIN: f64 = 0.85;
/// A course that is not known says nothing of whether it grows on.
const UNDECIDED: f64 = 0.6;

/// What the verdict rests on; empty where it claims nothing.
pub(super) fn factors(weighed: &Weighed<'_>, kind: Kind) -> Vec<Factor> {
    let factor = |what, chance: f64| Factor {
        what,
        chance: chance.clamp(0.0, SUREST),
    };
    let course = factor("how memory went", weighed.seen.chance);
    let held = factor("who has it", held(weighed));
    let start = factor("that this is not its start", no_start(weighed));
    let mut factors = match kind {
        Kind::Leak => vec![course, held, factor("that it stays", stays(weighed)), start],
        Kind::Growth => {
            let undecided = if weighed.seen.course == Course::Unknown {
                UNDECIDED
            } else {
                weighed.seen.chance
            };
            vec![factor("how memory went", undecided), held]
        }
        Kind::Plateau => vec![course, held],
        // The part of the growth that is neither free nor accounted for may be anything.
        Kind::Retention => vec![factor(
            "what the allocator keeps",
            BY_HEAP * (1.0 - 0.5 * (1.0 - weighed.share(weighed.kept))),
        )],
        Kind::Churn | Kind::Flat => {
            let within = if weighed.heap().is_some() {
                BY_HEAP
            } else {
                NOTHING_WITHIN
            };
            vec![course, factor("that nothing grows within", within)]
        }
        Kind::Inconclusive => Vec::new(),
    };
    let lost = weighed.facts.losses.events_share();
    if lost > 0.0 && !factors.is_empty() {
        factors.push(factor("that what was lost is like the rest", 1.0 - 0.5 * lost));
    }
    factors
}

/// Their product; `None` of none.
pub(super) fn confidence(factors: &[Factor]) -> Option<f64> {
    (!factors.is_empty()).then(|| {
        factors
            .iter()
            .map(|factor| factor.chance)
            .product::<f64>()
            .min(SUREST)
    })
}

fn held(weighed: &Weighed<'_>) -> f64 {
    match weighed.heap() {
        Some(heap) if heap.kept.is_some() => BY_HEAP,
        Some(_) => BY_HEAP_ALONE,
        None => {
            let (_, staying) = weighed.sites_keep();
            let share = weighed.share(staying.cast_signed().max(0));
            BY_SIZES + (BY_PAGES - BY_SIZES) * share
        }
    }
}

fn stays(weighed: &Weighed<'_>) -> f64 {
    let Some(heap) = weighed.heap() else {
        return LARGER;
    };
    let of_blocks = weighed
        .facts
        .births
        .filter(|births| births.tell)
        .map_or(0.0, |births| {
            let in_use = heap.in_use.max(1) as f64;
            (births.named as f64 / in_use).clamp(0.0, 1.0)
        });
    // What has a mapping of its own and stays is seen by the mapping.
    let (_, staying) = weighed.sites_keep();
    let by_pages = weighed.share(staying.cast_signed().max(0));
    COUNTED + (SURVIVED - COUNTED) * of_blocks.max(by_pages)
}

fn no_start(weighed: &Weighed<'_>) -> f64 {
    weighed
        .facts
        .age
        .filter(|age| *age > 0.0)
        .map_or(OF_ANY_AGE, |age| {
            1.0 - STARTS * (2.0 * weighed.facts.window / age).min(1.0)
        })
}
