//! What hits cost the process that calls.

use std::time::Duration;

/// What one call of a watched function costs, entry and return together. Measured on this machine, see
/// [`crate::probe::Probe::calibrate_allocs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HitCost {
    /// While no burst is under way: the probes are not there yet for it, or not gone yet.
    pub idle: Duration,
    /// A block that is not in the sample.
    pub plain: Duration,
    /// What a function adds whose first instruction the kernel does not emulate.
    pub stepped: Duration,
    /// What a block of the sample adds, with a short stack.
    pub sampled: Duration,
}

/// Calls that hit a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// While no burst was under way, or after it was cut.
    pub idle: u64,
    /// In a burst, all of them.
    pub burst: u64,
    /// Those of them whose first instruction the kernel does not emulate.
    pub stepped: u64,
    /// Those of them that returned a block of the sample.
    pub sampled: u64,
}

impl Hits {
    /// How far they rose since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            idle: self.idle.saturating_sub(earlier.idle),
            burst: self.burst.saturating_sub(earlier.burst),
            stepped: self.stepped.saturating_sub(earlier.stepped),
            sampled: self.sampled.saturating_sub(earlier.sampled),
        }
    }
}

impl HitCost {
    /// What hits within a burst cost, seconds of the target's processor time.
    #[must_use]
    pub fn of_burst(&self, hits: &Hits) -> f64 {
        self.plain.as_secs_f64() * count(hits.burst)
            + self.stepped.as_secs_f64() * count(hits.stepped)
            + self.sampled.as_secs_f64() * count(hits.sampled)
    }

    /// What hits outside of one cost, seconds.
    #[must_use]
    pub fn of_idle(&self, hits: &Hits) -> f64 {
        self.idle.as_secs_f64() * count(hits.idle)
    }

    /// The most that one hit can cost, seconds.
    #[must_use]
    pub fn most(&self) -> f64 {
        (self.plain + self.stepped + self.sampled).as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "hits stay far under 2^52")]
pub(super) fn count(hits: u64) -> f64 {
    hits as f64
}
