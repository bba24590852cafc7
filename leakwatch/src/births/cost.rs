//! What hits cost the process that calls.

use std::time::Duration;

/// What one call of a watched function costs, entry and return together. Measured on this machine, see
/// [`crate::probe::Probe::calibrate_allocs`].
///
/// A call in a tight loop finds all that the kernel needs for it in the caches; one amid other work, or after a sleep,
/// costs several times as much. How much lies between these is told by how long the entry's program took: what slows it
/// slows the rest of the hit likewise.
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
    /// What any hit adds where the caches hold other things.
    pub cold: Duration,
    /// How long the entry's program takes in a tight loop, and where the caches hold other things.
    pub entry: Duration,
    pub cold_entry: Duration,
}

/// Caches are no colder than so many times those that were measured.
const COLDEST: f64 = 4.0;

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
    /// Those of them whose entry was timed, and how long its program took for all of these.
    pub timed: u64,
    pub nanoseconds: u64,
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
            timed: self.timed.saturating_sub(earlier.timed),
            nanoseconds: self.nanoseconds.saturating_sub(earlier.nanoseconds),
        }
    }

    /// How long the program took for an entry, where any was timed.
    #[must_use]
    pub fn entry(&self) -> Option<Duration> {
        self.nanoseconds.checked_div(self.timed).map(Duration::from_nanos)
    }
}

impl HitCost {
    /// How cold the caches were where the entry's program took so long: 0 as in a tight loop, 1 as measured cold.
    #[must_use]
    pub fn coldness(&self, entry: Duration) -> f64 {
        let (hot, cold) = (self.entry.as_secs_f64(), self.cold_entry.as_secs_f64());
        if cold <= hot {
            // No measurement to go by: rather too dear than too cheap.
            return 1.0;
        }
        ((entry.as_secs_f64() - hot) / (cold - hot)).clamp(0.0, COLDEST)
    }

    /// What hits within a burst cost, seconds of the target's processor time, at a [`Self::coldness`].
    #[must_use]
    pub fn of_burst(&self, hits: &Hits, coldness: f64) -> f64 {
        (self.plain.as_secs_f64() + coldness * self.cold.as_secs_f64()) * count(hits.burst)
            + self.stepped.as_secs_f64() * count(hits.stepped)
            + self.sampled.as_secs_f64() * count(hits.sampled)
    }

    /// What hits outside of one cost, seconds: they are as much dearer as those within.
    #[must_use]
    pub fn of_idle(&self, hits: &Hits, coldness: f64) -> f64 {
        let dearer = coldness * self.cold.as_secs_f64() / (self.plain + self.sampled).as_secs_f64().max(1e-9);
        self.idle.as_secs_f64() * (1.0 + dearer) * count(hits.idle)
    }

    /// What one hit costs that nothing is known of, and that may well be cold, seconds.
    #[must_use]
    pub fn most(&self) -> f64 {
        (self.plain + self.stepped + self.sampled + self.cold).as_secs_f64()
    }
}

#[expect(clippy::cast_precision_loss, reason = "hits stay far under 2^52")]
pub(super) fn count(hits: u64) -> f64 {
    hits as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: HitCost = HitCost {
        idle: Duration::from_nanos(500),
        plain: Duration::from_nanos(1500),
        stepped: Duration::from_nanos(5000),
        sampled: Duration::from_nanos(1000),
        cold: Duration::from_nanos(5000),
        entry: Duration::from_nanos(150),
        cold_entry: Duration::from_nanos(650),
    };

    #[test]
    fn the_time_of_an_entry_tells_how_cold_it_was() {
        let coldness = |entry| COST.coldness(Duration::from_nanos(entry));
        assert_eq!((coldness(100), coldness(150)), (0.0, 0.0));
        assert!((coldness(400) - 0.5).abs() < 1e-9 && (coldness(650) - 1.0).abs() < 1e-9);
        assert_eq!(coldness(1_000_000), COLDEST);
        let unmeasured = HitCost {
            cold_entry: COST.entry,
            ..COST
        };
        assert_eq!(unmeasured.coldness(Duration::from_nanos(9)), 1.0);
    }

    #[test]
    fn cold_hits_cost_more() {
        let hits = Hits {
            idle: 1000,
            burst: 1000,
            stepped: 100,
            sampled: 10,
            timed: 4,
            nanoseconds: 1000,
        };
        let close = |seconds: f64, milliseconds: f64| (seconds * 1e3 - milliseconds).abs() < 1e-9;
        assert!(close(COST.of_burst(&hits, 0.0), 1.5 + 0.5 + 0.01));
        assert!(close(COST.of_burst(&hits, 0.5), 4.0 + 0.5 + 0.01));
        assert!(close(COST.of_idle(&hits, 0.0), 0.5));
        // As much dearer as a hit of 2.5 us that costs 5 more.
        assert!(close(COST.of_idle(&hits, 1.0), 1.5));
        assert_eq!(hits.entry(), Some(Duration::from_nanos(250)));
        assert_eq!(Hits::default().entry(), None);
    }
}
