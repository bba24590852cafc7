//! The account that closes: the kernel's growth against what call sites are known to keep, the rest by reason. Pure.
//!
//! Anonymous memory of a region at the window's end is what call sites added and keep, what was added without a
//! known owner, and what is left in memory from before the attach. What is measured of it stands by its reason. Where
//! memory from before was not measured, the rest of the growth is the change inside of it; where it was, the rest is
//! what moved between the readings.

use std::collections::{BTreeMap, BTreeSet};

use crate::sampler::region::Region;

/// One region's figures, bytes. Without smaps there is one part for the whole process, its `region` `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    pub region: Option<Region>,
    /// Anonymous + Swap, end minus start.
    pub growth: i64,
    /// Live bytes of call sites with a stack.
    pub attributed: u64,
    /// Square of the standard error of `attributed`, bytes²; 0 when it is exact.
    pub variance: f64,
    /// Measured amounts that no call site has. A reason may stand several times; its amounts add up.
    pub known: Vec<(Reason, i64)>,
    pub rest: Rest,
}

/// What the growth is that neither a call site nor a measured amount explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// The change inside memory from before the attach: it was not measured.
    #[default]
    Before,
    /// What moved between the readings: all else was measured.
    BetweenReadings,
}

/// What was found in one region at the window's end: the part without its growth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub attributed: u64,
    /// Of `attributed`, as in [`Part`].
    pub variance: f64,
    pub known: Vec<(Reason, i64)>,
    /// The allocator's own records tell all of the region, also what was there before: whatever is known of the others,
    /// its rest moved between the readings.
    pub by_census: bool,
}

impl Found {
    /// Adds bytes that no call site has.
    pub fn add(&mut self, reason: Reason, bytes: i64) {
        add(&mut self.known, reason, bytes);
    }

    /// Adds what was found elsewhere. `by_census` stays as it is: the sum is no region's.
    pub fn join(&mut self, other: &Self) {
        self.attributed = self.attributed.saturating_add(other.attributed);
        self.variance += other.variance;
        for &(reason, bytes) in &other.known {
            self.add(reason, bytes);
        }
    }

    /// With its growth it is a part. `rest` is of a region that the census does not tell of.
    #[must_use]
    pub fn part(self, region: Option<Region>, growth: i64, rest: Rest) -> Part {
        let Self {
            attributed,
            variance,
            known,
            by_census,
        } = self;
        let rest = if by_census { Rest::BetweenReadings } else { rest };
        Part {
            region,
            growth,
            attributed,
            variance,
            known,
            rest,
        }
    }
}

/// Joins smaps' growth (Anonymous + Swap) and what was found, region by region. A region of either is in the result.
#[must_use]
pub fn parts(growth: &BTreeMap<Region, i64>, found: &BTreeMap<Region, Found>, rest: Rest) -> Vec<Part> {
    let regions: BTreeSet<Region> = growth.keys().chain(found.keys()).copied().collect();
    regions
        .into_iter()
        .map(|region| {
            let growth = growth.get(&region).copied().unwrap_or_default();
            let found = found.get(&region).cloned().unwrap_or_default();
            found.part(Some(region), growth, rest)
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
    /// Pages that a huge page brought in without a fault of their own.
    HugePages,
    /// By how much the estimate from the sampled pages misses, either sign.
    SamplingError,
    /// Pages put there by other than the target's own faults: ptrace, `io_uring`, `process_vm_writev`, `mlock` or
    /// `MAP_POPULATE` on memory from before.
    TouchedByOthers,
    /// Pages given up by `MADV_FREE` that the kernel has not taken yet.
    FreedLazily,
    /// Pages whose fault was lost.
    LostFaults,
    /// Blocks of classes that grew, whose births were not seen.
    UnnamedGrowth,
    /// Blocks of the heap from before the window that were freed; negative.
    FreedBlocks,
    /// Resident memory of the heap that is not in use: its allocator keeps it. Negative where free memory that was
    /// resident already came into use.
    KeptFree,
    /// What a child's heap had gained before it was first read.
    UnreadYet,
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
            Self::HugePages => "huge_pages",
            Self::SamplingError => "sampling_error",
            Self::TouchedByOthers => "touched_by_others",
            Self::FreedLazily => "freed_lazily",
            Self::LostFaults => "lost_faults",
            Self::UnnamedGrowth => "unnamed_growth",
            Self::FreedBlocks => "freed_blocks_from_before",
            Self::KeptFree => "kept_free_in_heap",
            Self::UnreadYet => "gained_before_heap_was_read",
        }
    }
}

/// The account. `attributed + reasons` is `growth`, to the byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub growth: i64,
    pub attributed: i64,
    /// Of `attributed`, bytes; 0 when it is exact.
    pub standard_error: f64,
    pub unattributed: i64,
    /// `attributed / growth`; `None` unless memory grew.
    pub coverage: Option<f64>,
    /// Only those that are not 0, the largest amount first.
    pub reasons: Vec<(Reason, i64)>,
    /// (region, growth, attributed), each once, only regions where either is not 0 in some part, in the order of the
    /// parts. Empty without smaps.
    pub regions: Vec<(Region, i64, i64)>,
}

/// Closes the account. All sums are exact as long as they fit 64 bits, which address spaces do.
#[must_use]
pub fn reconcile(parts: &[Part]) -> Account {
    let mut account = Account::default();
    let mut sums: Vec<(Reason, i64)> = Vec::new();
    let mut variance = 0.0;
    for part in parts {
        let attributed = signed(part.attributed);
        variance += part.variance;
        account.growth = account.growth.saturating_add(part.growth);
        account.attributed = account.attributed.saturating_add(attributed);
        if let Some(region) = part.region.filter(|_| part.growth != 0 || attributed != 0) {
            // Several processes have a part each.
            match account.regions.iter_mut().find(|row| row.0 == region) {
                Some((_, growth, sum)) => {
                    *growth = growth.saturating_add(part.growth);
                    *sum = sum.saturating_add(attributed);
                }
                None => account.regions.push((region, part.growth, attributed)),
            }
        }
        let mut rest = part.growth.saturating_sub(attributed);
        for &(reason, bytes) in &part.known {
            add(&mut sums, reason, bytes);
            rest = rest.saturating_sub(bytes);
        }
        let reason = match part.rest {
            Rest::BetweenReadings => Reason::BetweenReadings,
            Rest::Before if within_error(rest, part.variance) => Reason::SamplingError,
            Rest::Before if part.region == Some(Region::Stack) => Reason::StackGrowth,
            Rest::Before if rest < 0 => Reason::ReleasedBeforeAttach,
            Rest::Before => Reason::TouchedBeforeAttach,
        };
        add(&mut sums, reason, rest);
    }
    account.standard_error = variance.max(0.0).sqrt();
    account.unattributed = account.growth.saturating_sub(account.attributed);
    account.coverage = (account.growth > 0).then(|| account.attributed as f64 / account.growth as f64);
    sums.retain(|(_, bytes)| *bytes != 0);
    sums.sort_by_key(|&(reason, bytes)| (std::cmp::Reverse(bytes.unsigned_abs()), reason));
    account.reasons = sums;
    account
}

/// Whether an amount that was not measured is no more than an estimate may be off by.
fn within_error(bytes: i64, variance: f64) -> bool {
    variance > 0.0 && bytes.unsigned_abs() as f64 <= 3.0 * variance.sqrt()
}

fn add(sums: &mut Vec<(Reason, i64)>, reason: Reason, bytes: i64) {
    match sums.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, sum)) => *sum = sum.saturating_add(bytes),
        None => sums.push((reason, bytes)),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heap(growth: i64, attributed: u64) -> Part {
        Part {
            region: Some(Region::Heap),
            growth,
            attributed,
            ..Part::default()
        }
    }

    #[test]
    fn the_rest_is_memory_from_before() {
        let account = reconcile(&[
            Part {
                region: Some(Region::Heap),
                growth: 100,
                attributed: 90,
                known: vec![(Reason::NoStack, 3)],
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
    fn what_an_estimate_may_be_off_by_says_nothing_of_memory_from_before() {
        let of = |growth| {
            let part = Part {
                variance: 100.0,
                ..heap(growth, 1000)
            };
            reconcile(&[part]).reasons
        };
        assert_eq!(of(1030), [(Reason::SamplingError, 30)]);
        assert_eq!(of(970), [(Reason::SamplingError, -30)]);
        assert_eq!(of(1031), [(Reason::TouchedBeforeAttach, 31)]);
        assert_eq!(of(969), [(Reason::ReleasedBeforeAttach, -31)]);
    }

    #[test]
    fn where_all_was_measured_the_rest_moved_between_the_readings() {
        let account = reconcile(&[
            Part {
                growth: 100,
                attributed: 80,
                variance: 9.0,
                known: vec![(Reason::HugePages, 10), (Reason::LostFaults, 5)],
                rest: Rest::BetweenReadings,
                ..Part::default()
            },
            Part {
                region: Some(Region::Stack),
                growth: 7,
                variance: 16.0,
                known: vec![(Reason::HugePages, 10), (Reason::ReleasedBeforeAttach, -4)],
                rest: Rest::BetweenReadings,
                ..Part::default()
            },
        ]);
        assert_eq!(
            account.reasons,
            [
                (Reason::HugePages, 20),
                // 5 and 1.
                (Reason::BetweenReadings, 6),
                (Reason::LostFaults, 5),
                (Reason::ReleasedBeforeAttach, -4),
            ]
        );
        assert_eq!(account.standard_error, 5.0);
        let twice = reconcile(&[heap(3, 2), heap(-4, 1), heap(0, 0)]);
        assert_eq!(twice.regions, [(Region::Heap, -1, 3)]);
        assert_eq!(account.regions, [(Region::Stack, 7, 0)]);
    }

    #[test]
    fn what_is_found_adds_up() {
        let mut found = Found {
            attributed: 5,
            variance: 2.0,
            ..Found::default()
        };
        found.add(Reason::Unseen, 3);
        let other = found.clone();
        found.add(Reason::NoStack, 1);
        found.join(&other);
        assert_eq!(
            found.part(None, 20, Rest::Before),
            Part {
                region: None,
                growth: 20,
                attributed: 10,
                variance: 4.0,
                known: vec![(Reason::Unseen, 6), (Reason::NoStack, 1)],
                rest: Rest::Before,
            }
        );
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
            variance: 3.0,
            known: vec![(Reason::NoStack, 1), (Reason::Unseen, 2)],
            by_census: false,
        };
        let parts = parts(
            &[(Region::Heap, 9)].into(),
            &[(Region::Anonymous, found)].into(),
            Rest::BetweenReadings,
        );
        assert_eq!(
            parts,
            [
                Part {
                    region: Some(Region::Heap),
                    growth: 9,
                    rest: Rest::BetweenReadings,
                    ..Part::default()
                },
                Part {
                    region: Some(Region::Anonymous),
                    growth: 0,
                    attributed: 5,
                    variance: 3.0,
                    known: vec![(Reason::NoStack, 1), (Reason::Unseen, 2)],
                    rest: Rest::BetweenReadings,
                },
            ]
        );
    }

    /// Where faults are not watched, the rest of other regions is what was there before; of the heap all is known.
    #[test]
    fn the_rest_of_a_counted_heap_moved_between_the_readings() {
        let mut heap = Found {
            attributed: 70,
            variance: 10_000.0,
            known: vec![
                (Reason::UnnamedGrowth, 20),
                (Reason::FreedBlocks, -15),
                (Reason::KeptFree, 21),
            ],
            by_census: true,
        };
        heap.join(&Found {
            known: vec![(Reason::KeptFree, 1)],
            ..Found::default()
        });
        let growth = [(Region::Heap, 100), (Region::Anonymous, 9)].into();
        let account = reconcile(&parts(&growth, &[(Region::Heap, heap)].into(), Rest::Before));
        assert_eq!(account.attributed, 70);
        assert_eq!(
            account.reasons,
            [
                (Reason::KeptFree, 22),
                (Reason::UnnamedGrowth, 20),
                (Reason::FreedBlocks, -15),
                (Reason::TouchedBeforeAttach, 9),
                (Reason::BetweenReadings, 3),
            ]
        );
    }

    const REASONS: [Reason; 14] = [
        Reason::StackGrowth,
        Reason::TouchedBeforeAttach,
        Reason::ReleasedBeforeAttach,
        Reason::NoStack,
        Reason::Unseen,
        Reason::BetweenReadings,
        Reason::HugePages,
        Reason::SamplingError,
        Reason::TouchedByOthers,
        Reason::FreedLazily,
        Reason::LostFaults,
        Reason::UnnamedGrowth,
        Reason::FreedBlocks,
        Reason::KeptFree,
    ];

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = REASONS.iter().map(|reason| reason.name()).collect();
        assert_eq!(words.len(), REASONS.len());
    }

    proptest! {
        #[test]
        fn it_closes_to_the_byte(parts in proptest::collection::vec(
            (0usize..8, -1i64 << 40..1 << 40, 0u64..1 << 40,
             proptest::collection::vec((0usize..REASONS.len(), -1i64 << 40..1 << 40), 0..9), any::<bool>()), 0..9,
        )) {
            let regions = [None, Some(Region::Heap), Some(Region::Anonymous), Some(Region::Arena), Some(Region::Stack),
                Some(Region::File), Some(Region::Shared), Some(Region::Other)];
            let parts: Vec<Part> = parts.into_iter().map(|(region, growth, attributed, known, before)| Part {
                region: regions[region],
                growth,
                attributed,
                variance: attributed as f64,
                known: known.into_iter().map(|(reason, bytes)| (REASONS[reason], bytes)).collect(),
                rest: if before { Rest::Before } else { Rest::BetweenReadings },
            }).collect();
            let account = reconcile(&parts);
            let reasons: i64 = account.reasons.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(account.growth, parts.iter().map(|part| part.growth).sum::<i64>());
            prop_assert_eq!(account.attributed + reasons, account.growth);
            prop_assert_eq!(account.unattributed, reasons);
            prop_assert_eq!(account.coverage.is_some(), account.growth > 0);
            // Nothing of what was measured is lost in the rest.
            let known: i64 = parts.iter().flat_map(|part| &part.known)
                .filter(|(reason, _)| *reason == Reason::HugePages).map(|(_, bytes)| bytes).sum();
            let shown = account.reasons.iter().find(|(reason, _)| *reason == Reason::HugePages).map_or(0, |row| row.1);
            prop_assert_eq!(shown, known);
            let variance: f64 = parts.iter().map(|part| part.variance).sum();
            prop_assert!((account.standard_error - variance.sqrt()).abs() <= 1e-9 * variance.sqrt());
        }
    }
}
