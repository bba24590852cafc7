//! The facts with what all rules need of them: whose the growth is, and what would matter. Pure.

use super::course::{Course, MATTERS, Seen};
use super::facts::{Facts, HeapFacts};
use crate::diagnose::rank::Evidence;

/// Growth below this, in bytes, is not judged: a stack, a buffer, a library's first use. But a trend that is sure of less
/// is.
pub(super) const NOISE: i64 = 1 << 20;
/// A part of the growth that is smaller is not worth a word.
pub(super) const SMALL_SHARE: f64 = 0.2;
/// Pages of which at least this part stays are kept by whoever touched them.
const KEEPS: f64 = 0.8;
/// Memory that came and went is churn from here on, in bytes and as a share of the level.
const TURNOVER_LEAST: u64 = 16 << 20;
const TURNOVER: f64 = 0.5;

/// What the facts come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed<'a> {
    pub facts: &'a Facts<'a>,
    pub seen: Seen,
    /// Of anonymous memory; `None` where nothing tells.
    pub growth: Option<i64>,
    /// Anonymous memory at the window's end.
    pub level: f64,
    /// In use on the heap; 0 where it was not read.
    pub used: i64,
    /// Free, and kept by the allocator; 0 where it is not known.
    pub kept: i64,
    /// Growth that is not the heap's: mappings of the program's own, stacks. Only where what the heap keeps is known.
    pub elsewhere: i64,
    /// What the program has: in use, and elsewhere. All growth where the heap was not read.
    pub held: i64,
}

impl<'a> Weighed<'a> {
    pub fn of(facts: &'a Facts<'a>) -> Self {
        let seen = Seen::of(facts);
        let growth = growth(facts);
        let grown = growth.unwrap_or(0);
        let level = facts
            .series
            .last()
            .map(|(_, bytes)| *bytes as f64)
            .or_else(|| facts.trend.map(|trend| trend.level))
            .unwrap_or(0.0);
        let (used, kept, elsewhere, held) = match &facts.heap {
            Some(heap) => {
                let used = heap.in_use.saturating_add(heap.mapped);
                let elsewhere = heap
                    .kept
                    .map_or(0, |kept| grown.saturating_sub(used).saturating_sub(kept).max(0));
                (
                    used,
                    heap.kept.unwrap_or(0),
                    elsewhere,
                    used.max(0).saturating_add(elsewhere),
                )
            }
            None => (0, 0, 0, grown),
        };
        Self {
            facts,
            seen,
            growth,
            level,
            used,
            kept,
            elsewhere,
            held,
        }
    }

    pub fn heap(&self) -> Option<&'a HeapFacts> {
        self.facts.heap.as_ref()
    }

    pub fn grown(&self) -> i64 {
        self.growth.unwrap_or(0)
    }

    /// A part of the growth, 0 to 1.
    pub fn share(&self, part: i64) -> f64 {
        (part as f64 / self.grown().max(1) as f64).clamp(0.0, 1.0)
    }

    /// What growth is worth a verdict of its own: a leak of 5 % of the process in the window.
    pub fn matters(&self) -> f64 {
        (MATTERS * self.level).max(NOISE as f64)
    }

    /// Anonymous memory grew. What a trend is sure of may be less than noise elsewhere is; and where it says that there
    /// is none, the two ends of the window are two moments of its noise, or of a saw.
    pub fn grew(&self) -> bool {
        match self.seen.course {
            Course::Steady if self.seen.by_trend => self.grown() > 0,
            Course::Level | Course::Saws | Course::Falling => false,
            _ => self.grown() >= NOISE,
        }
    }

    /// The program has a part of the growth that counts: of itself, or of the process.
    pub fn is_held(&self) -> bool {
        let held = self.held as f64;
        let least = if self.grown() >= NOISE { NOISE as f64 } else { 0.0 };
        self.grew() && (self.share(self.held) >= SMALL_SHARE && held > least || held >= self.matters())
    }

    /// Bytes that call sites have added and keep, and the part of them that rests on pages that stay.
    pub fn sites_keep(&self) -> (u64, u64) {
        self.facts.sites.iter().fold((0, 0), |(all, staying), site| {
            let live = site.live.unwrap_or(0);
            let stays = match site.evidence {
                Evidence::Survivors => true,
                Evidence::Pages => site.retention.is_some_and(|part| part >= KEEPS),
                Evidence::Mappings => false,
            };
            (
                all.saturating_add(live),
                staying.saturating_add(if stays { live } else { 0 }),
            )
        })
    }

    /// Bytes of pages that were touched in the window and are gone.
    pub fn turnover(&self) -> u64 {
        self.facts.sites.iter().fold(0, |sum, site| {
            let kept = site.live.unwrap_or(0).saturating_add(site.extended.unwrap_or(0));
            let gone = site.touched.map_or(0, |touched| touched.saturating_sub(kept));
            sum.saturating_add(gone)
        })
    }

    /// So much comes and goes that it is a load of its own.
    pub fn churns(&self) -> bool {
        let gone = self.turnover();
        gone >= TURNOVER_LEAST && gone as f64 >= TURNOVER * self.level
    }

    /// How much longer to watch, seconds: as the trend says, else as long again.
    pub fn watch_longer(&self) -> f64 {
        self.facts
            .trend
            .and_then(|trend| trend.watch_longer)
            .filter(|more| *more > 0.0)
            .unwrap_or(self.facts.window)
            .max(1.0)
    }

    /// Bytes a second, where it grows.
    pub fn rate(&self) -> Option<f64> {
        let rate = match self.facts.trend {
            Some(trend) if self.seen.course == Course::Steady && self.seen.by_trend => trend.slope,
            _ => self.growth? as f64 / self.facts.window.max(f64::MIN_POSITIVE),
        };
        (rate > 0.0 && rate.is_finite()).then_some(rate)
    }
}

fn growth(facts: &Facts<'_>) -> Option<i64> {
    let restarted = facts.trend.filter(|trend| trend.restarts > 0);
    if let Some(trend) = restarted {
        // From one run to the next it is another process.
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        return Some((trend.slope * trend.watched) as i64);
    }
    facts.growth.or_else(|| {
        let ((_, first), (_, last)) = (facts.series.first()?, facts.series.last()?);
        Some(last.cast_signed().saturating_sub(first.cast_signed()))
    })
}
