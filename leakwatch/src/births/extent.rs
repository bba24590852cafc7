//! How much of a window was watched: by the clock, and by what the processes did.

use std::time::Duration;

/// A point of the window, or a stretch of it: time, and the processor time that the watched processes used until then, or
/// in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub time: Duration,
    pub processor: Duration,
}

/// Less processor time than this in a window tells nothing of when a process worked.
const WORK_LEAST: Duration = Duration::from_millis(1);

impl Extent {
    /// From `earlier` to this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            time: self.time.saturating_sub(earlier.time),
            processor: self.processor.saturating_sub(earlier.processor),
        }
    }

    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            time: self.time.saturating_add(more.time),
            processor: self.processor.saturating_add(more.processor),
        }
    }

    /// Without the last of so many equal parts.
    #[must_use]
    pub fn without_last(self, parts: u32) -> Self {
        let shorter = |whole: Duration| whole.saturating_sub(whole / parts.max(1));
        Self {
            time: shorter(self.time),
            processor: shorter(self.processor),
        }
    }

    /// What part of `whole` this is, 0 to 1. Of a process that sleeps most of the time the clock says much and its work
    /// little; of one that probes make slower it is the other way round. What was watched is the lesser.
    #[must_use]
    pub fn part_of(self, whole: Self) -> f64 {
        let part = |own: Duration, whole: Duration| {
            (own.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
        };
        let time = part(self.time, whole.time);
        if whole.processor < WORK_LEAST {
            return time;
        }
        time.min(part(self.processor, whole.processor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(time: u64, processor: u64) -> Extent {
        Extent {
            time: Duration::from_millis(time),
            processor: Duration::from_millis(processor),
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
    fn stretches_add_up() {
        let stretch = extent(700, 70).since(extent(100, 10));
        assert_eq!(stretch, extent(600, 60));
        assert_eq!(stretch.without_last(6), extent(500, 50));
        assert_eq!(extent(1, 1).since(extent(2, 2)), Extent::default());
        assert_eq!(extent(1, 2).plus(extent(3, 4)), extent(4, 6));
    }
}
