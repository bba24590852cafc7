//! When births came, in what was not looked at yet: which are old enough to be followed, and how much of what the processes
//! did that is. Pure.

use std::time::Duration;

use super::Extent;

/// Births of the last part of what is looked at, one of so many, are too young to be followed.
const TOO_YOUNG: u32 = 6;
/// So many times are kept at most: of more each second, each fourth and so on.
const KEPT_MAX: usize = 4096;

/// When births came, nanoseconds of `CLOCK_MONOTONIC`, about in order.
#[derive(Clone, Debug)]
pub struct Moments {
    times: Vec<u64>,
    /// One of so many is kept.
    each: u64,
    /// How many came since the latest that was.
    passed: u64,
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            times: Vec::new(),
            each: 1,
            passed: 0,
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldEnough {
    /// Blocks that were born by then are, nanoseconds.
    pub until: u64,
    /// So much of what is looked at they were born in.
    pub extent: Extent,
}

impl Moments {
    /// A block was born.
    pub fn came(&mut self, time: u64) {
        self.passed += 1;
        if self.passed < self.each {
            return;
        }
        self.passed = 0;
        self.times.push(time);
        if self.times.len() >= KEPT_MAX {
            let mut index = 0;
            self.times.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.each *= 2;
        }
    }

    /// Forgets the births until then, nanoseconds.
    pub fn forget_until(&mut self, until: u64) {
        self.times.retain(|time| *time > until);
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Which births are old enough in `span`, whose end is `now`, nanoseconds.
    ///
    /// Those of its last part by the clock are not. In a burst that is looked at `early`, since its calls were more than was
    /// expected, these may be all that there were, come in one clump: then it is those of the last part of the births.
    ///
    /// So much of the work was done by a moment as births had come by then: a process that sleeps until its clump comes has
    /// done nothing in most of the time before.
    #[must_use]
    pub fn old_enough(&self, span: Extent, now: u64, early: bool) -> OldEnough {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let by_time = now.saturating_sub(nanoseconds(span.time / TOO_YOUNG));
        let until = self
            .all_but_last_part()
            .filter(|_| early)
            .map_or(by_time, |by_births| by_births.clamp(by_time, now.max(by_time)));
        let young = Duration::from_nanos(now.saturating_sub(until));
        let time = span.time.saturating_sub(young);
        let done = self.done_by(until).unwrap_or_else(|| {
            let whole = span.time.as_secs_f64().max(f64::MIN_POSITIVE);
            time.as_secs_f64() / whole
        });
        OldEnough {
            until,
            extent: Extent {
                time,
                processor: span.processor.mul_f64(done),
                probes: span.probes.mul_f64(done),
            },
        }
    }

    /// What part of the births had come by `until`, 0 to 1; `None` where there were none.
    fn done_by(&self, until: u64) -> Option<f64> {
        let by_then = self.times.iter().filter(|time| **time <= until).count();
        (!self.times.is_empty()).then(|| by_then as f64 / self.times.len() as f64)
    }

    /// When all births had come but the last part.
    fn all_but_last_part(&self) -> Option<u64> {
        let young = self.times.len().div_ceil(TOO_YOUNG as usize);
        let index = self.times.len().checked_sub(young)?.checked_sub(1)?;
        let mut times = self.times.clone();
        Some(*times.select_nth_unstable(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn span(time: u64, processor: u64) -> Extent {
        Extent {
            time: Duration::from_millis(time),
            processor: Duration::from_millis(processor),
            probes: Duration::ZERO,
        }
    }

    fn of(times: impl IntoIterator<Item = u64>) -> Moments {
        let mut moments = Moments::default();
        for time in times {
            moments.came(time);
        }
        moments
    }

    #[test]
    fn of_a_steady_stream_it_is_all_but_the_last_part_in_every_respect() {
        // 60 ms, a birth each tenth of one.
        let moments = of((0..600).map(|tenth| tenth * MS / 10));
        for early in [false, true] {
            let old = moments.old_enough(span(60, 30), 60 * MS, early);
            assert!(old.until.abs_diff(50 * MS) <= MS / 5, "{old:?}");
            assert!(old.extent.time.abs_diff(Duration::from_millis(50)) < Duration::from_millis(1));
            assert!(
                old.extent.processor.abs_diff(Duration::from_millis(25)) < Duration::from_millis(1),
                "{old:?}"
            );
        }
    }

    #[test]
    fn a_clump_at_the_end_is_followed_for_the_most_part_and_else_not_said_to_be() {
        // It slept for 194 of 200 ms.
        let moments = of((0..600).map(|hundredth| 194 * MS + hundredth * MS / 100));
        let now = 200 * MS;
        let by_clock = moments.old_enough(span(200, 6), now, false);
        assert_eq!(by_clock.extent.processor, Duration::ZERO, "{by_clock:?}");
        let early = moments.old_enough(span(200, 6), now, true);
        assert!(early.until.abs_diff(199 * MS) <= MS / 50, "{early:?}");
        assert!(early.extent.processor.abs_diff(Duration::from_millis(5)) < Duration::from_millis(1));
    }

    #[test]
    fn a_clump_at_the_beginning_is_followed_as_a_whole() {
        let moments = of((0..600).map(|hundredth| hundredth * MS / 100));
        for early in [false, true] {
            let old = moments.old_enough(span(60, 6), 60 * MS, early);
            assert_eq!((old.until, old.extent), (50 * MS, span(50, 6)));
        }
    }

    #[test]
    fn without_births_it_goes_by_the_clock() {
        let old = Moments::default().old_enough(span(60, 30), 100 * MS, true);
        assert_eq!((old.until, old.extent), (90 * MS, span(50, 25)));
        let one = of([99 * MS]).old_enough(span(60, 30), 100 * MS, true);
        assert_eq!((one.until, one.extent), (90 * MS, span(50, 0)));
        // A span of no length.
        let none = Moments::default().old_enough(span(0, 0), 0, true);
        assert_eq!((none.until, none.extent), (0, span(0, 0)));
    }

    #[test]
    fn of_many_births_some_stand_for_all() {
        let mut moments = of((0..1_000_000).map(|at| at * 60));
        assert!(moments.times.len() < KEPT_MAX && moments.each > 100);
        let old = moments.old_enough(span(60, 60), 60 * MS, true);
        assert!(old.until.abs_diff(50 * MS) < MS / 10, "{old:?}");
        moments.forget_until(old.until);
        assert!(moments.times.iter().all(|time| *time > old.until) && !moments.times.is_empty());
        moments.clear();
        moments.came(7);
        assert_eq!(moments.times, [7]);
    }
}
