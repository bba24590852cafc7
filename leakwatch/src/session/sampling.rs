//! How many pages are sampled: the rate starts at 1 and only ever falls, halving while the target makes more stack
//! snapshots than the budget allows. Pure.

use std::time::Duration;

use leakwatch_ebpf::wire::{SAMPLE_ALL, SAMPLE_MIN};

/// The target may spend one part in so many of its time on snapshots, whatever the budget.
const TIME_SHARE: f64 = 100.0;

/// What a snapshot costs the target (measured: 0.67 µs without a stack, 4.98 µs with one of 64 KiB; `cargo xtask bench`
/// measures what comes of it).
const SNAPSHOT_SECONDS: f64 = 0.7e-6;
const STACK_BYTE_SECONDS: f64 = 4.3e-6 / 65536.0;

/// Seconds of the budget that a burst may take at once: so much is seen whole.
const BURST_SECONDS: f64 = 5.0;

/// Seconds of the budget that are left to a rate that was just halved.
const ROOM_SECONDS_MIN: f64 = 0.05;
const ROOM_SECONDS_MAX: f64 = 0.5;

/// A bucket that fills with the budget's rate and holds what a burst may take.
#[derive(Clone, Debug)]
pub(super) struct Sampling {
    threshold: u64,
    per_second: f64,
    tokens: f64,
    filled_at: Duration,
    halved_at: Duration,
}

impl Sampling {
    /// `per_second`: stack snapshots.
    pub fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            threshold: SAMPLE_ALL,
            per_second,
            tokens: per_second * BURST_SECONDS,
            filled_at: Duration::ZERO,
            halved_at: Duration::ZERO,
        }
    }

    /// A page is in the sample if its hash is under it.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Sampled pages over all pages, at most 1.
    #[expect(clippy::cast_precision_loss, reason = "powers of two")]
    pub fn rate(&self) -> f64 {
        self.threshold as f64 / SAMPLE_ALL as f64
    }

    /// A snapshot with so many bytes of stack was taken.
    pub fn spend(&mut self, stack_bytes: u32) {
        let cost = SNAPSHOT_SECONDS + STACK_BYTE_SECONDS * f64::from(stack_bytes);
        self.tokens -= (cost * TIME_SHARE * self.per_second).max(1.0);
    }

    /// To be asked whenever events were taken; `now` is the time since any fixed moment. Whether the rate was halved:
    /// once only, since what is on its way was sampled at the old rate, and is left out of what is spent from now on.
    pub fn halve(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * BURST_SECONDS);
        if self.tokens >= 0.0 {
            return false;
        }
        // Room for what half the rate brings until that can be judged: the less, the faster it was used up.
        let lasted = now.saturating_sub(self.halved_at).as_secs_f64();
        self.halved_at = now;
        self.tokens = self.per_second * lasted.clamp(ROOM_SECONDS_MIN, ROOM_SECONDS_MAX);
        self.lower()
    }

    /// Halves the rate for another reason: more sampled pages than can be kept.
    pub fn lower(&mut self) -> bool {
        let lower = (self.threshold / 2).max(SAMPLE_MIN);
        let fell = lower < self.threshold;
        self.threshold = lower;
        fell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(5);

    /// Snapshots that a target with so many faults a second makes in `seconds`, and the rate at the end.
    fn run(budget: u32, faults_per_second: f64, seconds: u32) -> (f64, f64) {
        let mut sampling = Sampling::new(budget);
        let mut snapshots = 0.0;
        let mut owed = 0.0;
        let mut last_second = 0.0;
        let ticks = seconds * 200;
        for tick in 0..ticks {
            owed += faults_per_second * TICK.as_secs_f64() * sampling.rate();
            while owed >= 1.0 {
                owed -= 1.0;
                sampling.spend(2048);
                snapshots += 1.0;
                if tick >= ticks - 200 {
                    last_second += 1.0;
                }
            }
            sampling.halve(TICK * (tick + 1));
        }
        assert!(
            last_second <= f64::from(budget) * 1.1,
            "{last_second} snapshots in the last second"
        );
        (snapshots, sampling.rate())
    }

    #[test]
    fn under_the_budget_every_page_is_seen() {
        assert_eq!(run(2000, 1900.0, 20).1, 1.0);
    }

    #[test]
    fn a_storm_is_held_to_the_budget_from_the_start() {
        let (snapshots, rate) = run(2000, 600_000.0, 10);
        assert!(snapshots < 2000.0 * 10.0 + 16_000.0, "{snapshots}");
        assert!((0.0015..0.004).contains(&rate), "{rate}");
        let (snapshots, _) = run(50, 600_000.0, 10);
        assert!(snapshots < 8_000.0, "{snapshots}");
    }

    #[test]
    fn a_short_burst_costs_little_of_the_rate() {
        let mut sampling = Sampling::new(2000);
        (0..11_000).for_each(|_| sampling.spend(1024));
        assert!(sampling.halve(TICK));
        for tick in 2..1000 {
            assert!(!sampling.halve(TICK * tick));
        }
        assert_eq!(sampling.rate(), 0.5);
    }

    #[test]
    fn a_large_budget_still_leaves_the_target_its_time() {
        // 100,000 faults a second with whole stacks of 64 KiB would take half of its time.
        let mut sampling = Sampling::new(1_000_000);
        let mut spent = 0.0;
        let mut owed = 0.0;
        for tick in 1..=2000u32 {
            owed += 100_000.0 * TICK.as_secs_f64() * sampling.rate();
            while owed >= 1.0 {
                owed -= 1.0;
                sampling.spend(65536);
                if tick > 1800 {
                    spent += 5e-6;
                }
            }
            sampling.halve(TICK * tick);
        }
        assert!(spent <= 0.011, "{spent} s of the last second");
    }

    #[test]
    fn the_rate_has_a_floor() {
        let mut sampling = Sampling::new(1);
        while sampling.lower() {}
        assert_eq!(sampling.threshold(), SAMPLE_MIN);
    }
}
