//! The account that closes: the kernel's growth against what call sites are known to keep, the rest by reason. Pure.
//!
//! Anonymous memory of a region at the window's end is what call sites added and keep, what was added without a
//! known owner, and what is left in memory from before the attach. The first two are measured; so the rest of the
//! growth is the change inside memory from before, up to what moved between the two readings.

use std::collections::{BTreeMap, BTreeSet};

use crate::sampler::region::Region;

/// One region's figures, bytes. Without smaps there is one part for the whole process, its `region` `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub region: Option<Region>,
    /// Anonymous + Swap, end minus start.
    pub growth: i64,
    /// Live bytes of call sites with a stack.
    pub attributed: u64,
    /// Live bytes added in the window by events without a stack.
    pub no_stack: u64,
    /// Live bytes in memory that appeared without an event (lost, or repaired from /proc/PID/maps).
    pub unseen: u64,
    /// By how much the live bytes of memory from before the attach changed; `None` when it was not measured, then it
    /// is what the account leaves.
    pub before_attach: Option<i64>,
}

/// Live bytes found in one region at the window's end, by whether their owner is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub attributed: u64,
    pub no_stack: u64,
    pub unseen: u64,
}

/// Joins smaps' growth (Anonymous + Swap) and the live bytes, region by region. A region of either is in the result.
#[must_use]
pub fn parts(growth: &BTreeMap<Region, i64>, found: &BTreeMap<Region, Found>) -> Vec<Part> {
    let regions: BTreeSet<Region> = growth.keys().chain(found.keys()).copied().collect();
    regions
        .into_iter()
        .map(|region| {
            let Found {
                attributed,
                no_stack,
                unseen,
            } = found.get(&region).copied().unwrap_or_default();
            let growth = growth.get(&region).copied().unwrap_or_default();
            Part {
                region: Some(region),
                growth,
                attributed,
                no_stack,
                unseen,
                before_attach: None,
            }
        })
        .collect()
}

/// Why bytes of the growth have no call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The kernel extends a stack on a fault: no call does.
    StackGrowth,
    /// Pages first touched (or swapped in, or written after a fork) in memory that was mapped before the attach.
    TouchedBeforeAttach,
    /// Memory from before the attach that was given back; negative.
    ReleasedBeforeAttach,
    /// A call gained it, but its stack is not known.
    NoStack,
    /// Its event was lost or never seen.
    Unseen,
    /// Added or released between the reading of smaps and the look-up of pages, either sign.
    BetweenReadings,
}

impl Reason {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StackGrowth => "stack_growth",
            Self::TouchedBeforeAttach => "touched_in_memory_from_before_attach",
            Self::ReleasedBeforeAttach => "released_from_before_attach",
            Self::NoStack => "no_stack",
            Self::Unseen => "unseen",
            Self::BetweenReadings => "between_readings",
        }
    }
}

/// The account. `attributed + reasons` is `growth`, to the byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub growth: i64,
    pub attributed: i64,
    pub unattributed: i64,
    /// `attributed / growth`; `None` unless memory grew.
    pub coverage: Option<f64>,
    /// Only those that are not 0, the largest amount first.
    pub reasons: Vec<(Reason, i64)>,
    /// (region, growth, attributed), only regions where either is not 0, in the order of the parts. Empty without
    /// smaps.
    pub regions: Vec<(Region, i64, i64)>,
}

/// Closes the account. All sums are exact as long as they fit 64 bits, which address spaces do.
#[must_use]
pub fn reconcile(parts: &[Part]) -> Account {
    let mut account = Account::default();
    let mut sums: Vec<(Reason, i64)> = Vec::new();
    let mut add = |reason: Reason, bytes: i64| match sums.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, sum)) => *sum = sum.saturating_add(bytes),
        None => sums.push((reason, bytes)),
    };
    for part in parts {
        let attributed = signed(part.attributed);
        let (no_stack, unseen) = (signed(part.no_stack), signed(part.unseen));
        account.growth = account.growth.saturating_add(part.growth);
        account.attributed = account.attributed.saturating_add(attributed);
        if let Some(region) = part.region.filter(|_| part.growth != 0 || attributed != 0) {
            account.regions.push((region, part.growth, attributed));
        }
        add(Reason::NoStack, no_stack);
        add(Reason::Unseen, unseen);
        let rest = part
            .growth
            .saturating_sub(attributed)
            .saturating_sub(no_stack)
            .saturating_sub(unseen);
        let before = part.before_attach.unwrap_or(rest);
        match before {
            _ if part.region == Some(Region::Stack) => add(Reason::StackGrowth, before),
            0.. => add(Reason::TouchedBeforeAttach, before),
            _ => add(Reason::ReleasedBeforeAttach, before),
        }
        add(Reason::BetweenReadings, rest.saturating_sub(before));
    }
    account.unattributed = account.growth.saturating_sub(account.attributed);
    account.coverage = (account.growth > 0).then(|| account.attributed as f64 / account.growth as f64);
    sums.retain(|(_, bytes)| *bytes != 0);
    sums.sort_by_key(|&(reason, bytes)| (std::cmp::Reverse(bytes.unsigned_abs()), reason));
    account.reasons = sums;
    account
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rest_is_memory_from_before() {
        let account = reconcile(&[
            Part {
                region: Some(Region::Heap),
                growth: 100,
                attributed: 90,
                no_stack: 3,
                ..Part::default()
            },
            Part {
                region: Some(Region::Anonymous),
                growth: 50,
                attributed: 60,
                ..Part::default()
            },
            Part {
                region: Some(Region::Stack),
                growth: 4,
                ..Part::default()
            },
            Part {
                region: Some(Region::File),
                ..Part::default()
            },
        ]);
        assert_eq!(
            (account.growth, account.attributed, account.unattributed),
            (154, 150, 4)
        );
        assert_eq!(
            account.reasons,
            [
                (Reason::ReleasedBeforeAttach, -10),
                (Reason::TouchedBeforeAttach, 7),
                (Reason::StackGrowth, 4),
                (Reason::NoStack, 3),
            ]
        );
        assert_eq!(
            account.regions,
            [
                (Region::Heap, 100, 90),
                (Region::Anonymous, 50, 60),
                (Region::Stack, 4, 0)
            ]
        );
        assert_eq!(account.coverage, Some(150.0 / 154.0));
    }

    #[test]
    fn a_measured_change_leaves_the_difference_between_the_readings() {
        let account = reconcile(&[Part {
            growth: 100,
            attributed: 80,
            before_attach: Some(15),
            ..Part::default()
        }]);
        assert_eq!(
            account.reasons,
            [(Reason::TouchedBeforeAttach, 15), (Reason::BetweenReadings, 5)]
        );
        assert!(account.regions.is_empty());
    }

    #[test]
    fn memory_that_shrank_has_no_coverage() {
        let account = reconcile(&[Part {
            growth: -50,
            attributed: 10,
            ..Part::default()
        }]);
        assert_eq!(account.coverage, None);
        assert_eq!(account.unattributed, -60);
        assert_eq!(account.reasons, [(Reason::ReleasedBeforeAttach, -60)]);
        assert_eq!(reconcile(&[]), Account::default());
    }

    #[test]
    fn a_region_of_either_side_is_a_part() {
        let found = Found {
            attributed: 5,
            no_stack: 1,
            unseen: 2,
        };
        let parts = parts(&[(Region::Heap, 9)].into(), &[(Region::Anonymous, found)].into());
        assert_eq!(
            parts,
            [
                Part {
                    region: Some(Region::Heap),
                    growth: 9,
                    ..Part::default()
                },
                Part {
                    region: Some(Region::Anonymous),
                    attributed: 5,
                    no_stack: 1,
                    unseen: 2,
                    ..Part::default()
                },
            ]
        );
    }

    proptest! {
        #[test]
        fn it_closes_to_the_byte(parts in proptest::collection::vec(
            (0usize..8, -1i64 << 40..1 << 40, 0u64..1 << 40, 0u64..1 << 30, 0u64..1 << 30,
             proptest::option::of(-1i64 << 40..1 << 40)), 0..9,
        )) {
            let regions = [None, Some(Region::Heap), Some(Region::Anonymous), Some(Region::Arena), Some(Region::Stack),
                Some(Region::File), Some(Region::Shared), Some(Region::Other)];
            let parts: Vec<Part> = parts.into_iter().map(|(region, growth, attributed, no_stack, unseen, before_attach)| Part {
                region: regions[region], growth, attributed, no_stack, unseen, before_attach,
            }).collect();
            let account = reconcile(&parts);
            let reasons: i64 = account.reasons.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(account.growth, parts.iter().map(|part| part.growth).sum::<i64>());
            prop_assert_eq!(account.attributed + reasons, account.growth);
            prop_assert_eq!(account.unattributed, reasons);
            prop_assert_eq!(account.coverage.is_some(), account.growth > 0);
        }
    }
}
