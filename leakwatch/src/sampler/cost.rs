//! When what is dear may be read. Pure.
//!
//! A read of smaps or its rollup holds the target's mmap lock while it walks the page tables: page faults and mapping
//! calls of the target wait (4.5 s were seen at 210 GB). Listing descriptors and sockets costs the host processor time for
//! each of them. So each such reader may take one hundredth of the time, and no more: of the time that passes, or of a
//! processor's where nobody waits for it.

use std::time::Duration;

/// One part in so many of the time may go to one such reader.
const SHARE: u32 = 100;

/// What the text of one mapping costs over the page walk: some 25 lines are formatted, copied and parsed (measured:
/// 5 to 7 µs in an optimised build on Linux 6.18, for 15,000 to 60,000 mappings).
const TEXT_PER_MAPPING: Duration = Duration::from_micros(8);

/// Paces repeated reads: one that took t is followed by at least 100 t without any.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadBudget {
    not_before: Option<Duration>,
    reads: u64,
    spent: Duration,
}

impl ReadBudget {
    /// Whether a read may start at `now` (time since any fixed moment).
    #[must_use]
    pub fn may_read(&self, now: Duration) -> bool {
        self.not_before.is_none_or(|moment| now >= moment)
    }

    /// Notes a read that ended at `now` and cost `took`.
    pub fn note(&mut self, now: Duration, took: Duration) {
        self.not_before = Some(now.saturating_add(took.saturating_mul(SHARE)));
        self.reads += 1;
        self.spent = self.spent.saturating_add(took);
    }

    /// How many reads there were, and how long they took in all.
    #[must_use]
    pub fn spent(&self) -> (u64, Duration) {
        (self.reads, self.spent)
    }
}

/// What a full read of smaps will take: the page walk, which the rollup has just made, and the text of each mapping.
#[must_use]
pub fn predicted_smaps(rollup_took: Duration, mappings: usize) -> Duration {
    let mappings = u32::try_from(mappings).unwrap_or(u32::MAX);
    rollup_took.saturating_add(TEXT_PER_MAPPING.saturating_mul(mappings))
}

/// Whether full smaps may be read at both ends of a window: the two reads together cost at most 1 % of it. Otherwise
/// only the rollup is read, and the report has no mapping table.
#[must_use]
pub fn full_smaps_affordable(predicted: Duration, window: Duration) -> bool {
    predicted.saturating_mul(2 * SHARE) <= window
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_read_is_free() {
        assert!(ReadBudget::default().may_read(Duration::ZERO));
    }

    #[test]
    fn a_huge_target_is_not_read_in_full() {
        let predicted = predicted_smaps(Duration::from_millis(600), 60_000);
        assert!(predicted > Duration::from_secs(1));
        assert!(!full_smaps_affordable(predicted, Duration::from_secs(60)));
        assert!(full_smaps_affordable(predicted, Duration::from_secs(600)));
        assert!(full_smaps_affordable(
            predicted_smaps(Duration::from_millis(2), 100),
            Duration::from_secs(1)
        ));
        assert!(!full_smaps_affordable(
            predicted_smaps(Duration::MAX, usize::MAX),
            Duration::from_secs(1)
        ));
    }

    proptest! {
        #[test]
        fn reading_whenever_allowed_stays_within_the_hundredth(
            costs in proptest::collection::vec(1u64..5_000_000, 2..60), step in 1u64..100_000_000,
        ) {
            let mut budget = ReadBudget::default();
            let mut now = Duration::ZERO;
            let mut all_but_last = Duration::ZERO;
            let mut spent = Duration::ZERO;
            for cost in costs {
                let cost = Duration::from_nanos(cost);
                while !budget.may_read(now) { now += Duration::from_nanos(step); }
                all_but_last = spent;
                prop_assert!(all_but_last * 100 <= now);
                now += cost;
                spent += cost;
                budget.note(now, cost);
                prop_assert!(!budget.may_read(now));
            }
            prop_assert_eq!(budget.spent().1, spent);
            prop_assert!(all_but_last < spent);
        }
    }
}
