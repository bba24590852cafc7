//! How much of a window was watched: by the clock, and by what the processes did.

use std::time::Duration;

/// A point of the window, or a stretch of it: time, and the processor time that the watched processes used until then, or
/// in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub time: Duration,
    pub processor: Duration,
    /// What the probes are reckoned to have cost of that processor time.
    pub probes: Duration,
}

/// Less processor time than this in a window tells nothing of when a process worked.
const WORK_LEAST: Duration = Duration::from_millis(1);
/// At least one part in so many of its processor time a process worked for itself, whatever probes are reckoned to cost.
const OWN_LEAST: u32 = 20;

impl Extent {
    /// From `earlier` to this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            time: self.time.saturating_sub(earlier.time),
            processor: self.processor.saturating_sub(earlier.processor),
            probes: self.probes.saturating_sub(earlier.probes),
        }
    }

    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            time: self.time.saturating_add(more.time),
            processor: self.processor.saturating_add(more.processor),
            probes: self.probes.saturating_add(more.probes),
        }
    }

    /// The processor time without what the probes cost.
    #[must_use]
    pub fn work(self) -> Duration {
        self.processor
            .saturating_sub(self.probes)
            .max(self.processor / OWN_LEAST)
    }

    /// What part of `whole` this is, 0 to 1. Of a process that sleeps most of the time the clock says much and its work
    /// little; of one that probes make slower it is the other way round. What was watched is the lesser. Work is what it did for itself: in
    /// a burst most of its processor time may have gone into the probes.
    #[must_use]
    pub fn part_of(self, whole: Self) -> f64 {
        let part = |own: Duration, whole: Duration| {
            (own.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
        };
        let time = part(self.time, whole.time);
        if whole.work() < WORK_LEAST {
            return time;
        }
        time.min(part(self.work(), whole.work()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(time: u64, processor: u64) -> Extent {
        Extent {
            time: Duration::from_millis(time),
            processor: Duration::from_millis(processor),
            probes: Duration::ZERO,
        }
    }

    #[test]
    fn the_lesser_part_counts() {
        // It slept while it was watched, and worked when it was not.
        assert!((extent(9000, 5).part_of(extent(10_000, 100)) - 0.05).abs() < 1e-9);
        // The probes made it slower.
        assert!((extent(1000, 90).part_of(extent(10_000, 100)) - 0.1).abs() < 1e-9);
        // It did nothing at all.
        assert!((extent(9000, 0).part_of(extent(10_000, 0)) - 0.9).abs() < 1e-9);
        assert_eq!(extent(1, 1).part_of(Extent::default()), 1.0);
    }

    #[test]
    fn what_the_probes_cost_is_no_work() {
        let probes = |extent: Extent, probes| Extent {
            probes: Duration::from_millis(probes),
            ..extent
        };
        // Of 200 ms in the burst 180 went into the probes.
        let (burst, window) = (probes(extent(5000, 200), 180), probes(extent(10_000, 1180), 180));
        assert!((burst.part_of(window) - 0.02).abs() < 1e-9);
        // They were reckoned too dear: they cannot have had all of it.
        let dear = probes(extent(5000, 200), 300);
        assert_eq!(dear.work(), Duration::from_millis(10));
        assert_eq!(
            probes(burst, 190)
                .since(probes(extent(0, 0), 10))
                .probes
                .as_millis(),
            180
        );
        assert_eq!(burst.plus(burst).probes.as_millis(), 360);
    }

    #[test]
    fn stretches_add_up() {
        let stretch = extent(700, 70).since(extent(100, 10));
        assert_eq!(stretch, extent(600, 60));
        assert_eq!(extent(1, 1).since(extent(2, 2)), Extent::default());
        assert_eq!(extent(1, 2).plus(extent(3, 4)), extent(4, 6));
    }
}
