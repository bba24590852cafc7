//! Who allocated what the heap has gained: the cohorts joined with the two readings of the heap.

use std::collections::{BTreeMap, BTreeSet};

use super::births::BirthWatch;
use super::facts::Names;
use super::heap::WatchedHeap;
use super::keepers::threads;
use super::state::State;
use crate::births::Extent;
use crate::births::cohorts::{Class, Fate, Look, Outcome};
use crate::census::memory::ProcessMemory;
use crate::census::reading::Reading;
use crate::census::types::TypeName;
use crate::census::watched::{Found as FoundThere, WORDS, words};
use crate::census::{Census, What};
use crate::diagnose::rank::{Allocated, AllocatedClass, Evidence, SiteFacts, Via};
use crate::diagnose::reconcile::{Found, Reason};
use crate::diagnose::survivors::{ClassGrowth, Estimate, Facts, SiteEstimate, estimate};
use crate::ledger::SiteId;
use crate::probe::Probe;
use crate::report::build;
use crate::report::model::Allocations;
use crate::target::entry_points;

/// What the census found of the blocks that it was asked for, in the same order.
pub(super) fn fates(pid: u32, looks: &[Look], found: &[FoundThere]) -> Vec<Fate> {
    let in_use: Vec<(u64, u64)> = looks
        .iter()
        .zip(found)
        .filter_map(|(look, found)| match found {
            FoundThere::InUse { chunk_bytes, .. } => Some((look.address, *chunk_bytes)),
            FoundThere::Mapped { bytes } => Some((look.address, *bytes)),
            FoundThere::Nothing | FoundThere::Free => None,
        })
        .collect();
    let mut contents = words(&ProcessMemory::of(pid), &in_use).into_iter();
    found
        .iter()
        .map(|found| {
            let (chunk_bytes, constant, mapped) = match *found {
                FoundThere::Nothing | FoundThere::Free => return Fate::Gone,
                FoundThere::InUse { chunk_bytes, what } => (chunk_bytes, constant(what), false),
                FoundThere::Mapped { bytes } => (bytes, None, true),
            };
            let class = Class {
                chunk_bytes,
                constant,
                mapped,
            };
            // What vanished since was there when the heap was walked.
            let words = contents.next().flatten().unwrap_or([0; WORDS]);
            Fate::InUse { class, words }
        })
        .collect()
}

fn constant(what: Option<What>) -> Option<u64> {
    match what {
        Some(What::Constant(address)) => Some(address),
        // A block's first text is soon another.
        Some(What::Zero | What::Text) | None => None,
    }
}

/// What the blocks of one process came to.
#[derive(Debug)]
pub(super) struct Survivors {
    pub estimate: Estimate,
    /// Resident bytes of the heap, and those that are not in use, end minus start; `None` where residence is not known.
    resident: Option<(i64, i64)>,
    /// See [`WatchedHeap::unread`].
    unread: i64,
}

impl State {
    /// Splits each heap's growth over the sites of blocks that survived.
    pub(super) fn estimate_survivors(&mut self, births: &BirthWatch) {
        let window = births.extent_of_window(self.began_to_end());
        for heap in self.heaps.values_mut() {
            heap.survivors = heap.estimate(window, births.followed);
        }
    }
}

impl WatchedHeap {
    /// `followed`: how much of the window births could be followed in.
    fn estimate(&self, window: Extent, followed: Extent) -> Option<Survivors> {
        let outcome = self.outcome.as_ref()?;
        let (start, end) = (self.censuses.start.as_ref()?, self.censuses.end.as_ref()?);
        let window = window.since(self.since);
        let followed = followed.since(self.followed_before);
        let growth = class_growth(&start.census, &end.census);
        let estimate = estimate(&Facts {
            outcome,
            growth: &growth,
            watched: followed.part_of(window),
        });
        Some(Survivors {
            estimate,
            resident: resident(start, end),
            unread: self.unread,
        })
    }

    /// Of the constants that blocks begin with.
    fn type_names(&self) -> &BTreeMap<u64, TypeName> {
        static NONE: BTreeMap<u64, TypeName> = BTreeMap::new();
        self.censuses.end.as_ref().map_or(&NONE, |end| &end.names)
    }

    /// The functions that made the survivors of each site.
    fn functions(&self) -> BTreeMap<SiteId, BTreeSet<&'static str>> {
        let mut functions: BTreeMap<SiteId, BTreeSet<&'static str>> = BTreeMap::new();
        for survivor in self.outcome.iter().flat_map(|outcome| &outcome.survivors) {
            if let Some(function) = entry_points::function(survivor.function) {
                functions.entry(survivor.site).or_default().insert(function.name);
            }
        }
        functions
    }

    /// The sites of the blocks that survived in process `pid`, whose heap this is; none where that is not known.
    pub fn sites(&self, pid: u32, state: &State, names: &mut Names) -> Vec<SiteFacts> {
        let functions = self.functions();
        self.telling()
            .into_iter()
            .flat_map(|survivors| &survivors.estimate.sites)
            .filter_map(|estimate| {
                let site = state.sites.get(estimate.site)?;
                let (frames, complete) = names.of(state, site.stack);
                Some(SiteFacts {
                    via: Via::Malloc,
                    frames,
                    complete,
                    committed: 0,
                    released: 0,
                    held: 0,
                    events: estimate.seen,
                    first_seen: state.seconds_at(site.first_seen),
                    last_seen: state.seconds_at(site.last_seen),
                    series: Vec::new(),
                    live: Some(estimate.bytes),
                    live_variance: estimate.variance,
                    touched: None,
                    extended: None,
                    allocated: Some(allocated(
                        estimate,
                        self.type_names(),
                        functions.get(&estimate.site),
                    )),
                    pool: None,
                    evidence: Evidence::Survivors,
                    estimated: false,
                    threads: threads(site),
                    process: pid,
                })
            })
            .collect()
    }
}

fn resident(start: &Reading, end: &Reading) -> Option<(i64, i64)> {
    let grown = |before: u64, after: u64| after.cast_signed().saturating_sub(before.cast_signed());
    let resident = grown(start.kept?.heap_bytes, end.kept?.heap_bytes);
    let in_use = grown(start.census.in_use_bytes, end.census.in_use_bytes);
    Some((resident, resident.saturating_sub(in_use)))
}

/// By how much each class of blocks grew, those included that stayed as they are.
fn class_growth(start: &Census, end: &Census) -> Vec<ClassGrowth> {
    let (before, after) = (counts(start), counts(end));
    let classes: BTreeSet<Class> = before.keys().chain(after.keys()).copied().collect();
    classes
        .into_iter()
        .map(|class| {
            let count = |of: &BTreeMap<Class, u64>| of.get(&class).copied().unwrap_or(0).cast_signed();
            let count = count(&after).saturating_sub(count(&before));
            ClassGrowth {
                class,
                count,
                bytes: count.saturating_mul(class.chunk_bytes.cast_signed()),
            }
        })
        .collect()
}

/// How many of each class are in use.
fn counts(census: &Census) -> BTreeMap<Class, u64> {
    let plain = |chunk_bytes, mapped| Class {
        chunk_bytes,
        constant: None,
        mapped,
    };
    let mut counts: BTreeMap<Class, u64> = census
        .classes
        .iter()
        .map(|(chunk_bytes, class)| (plain(*chunk_bytes, false), class.in_use.count))
        .collect();
    for ((chunk_bytes, what), count) in &census.contents {
        // Blocks that turned out to lie on a free list have left their class, and not what blocks begin with.
        if let Some(address) = constant(Some(*what))
            && let Some(rest) = counts.get_mut(&plain(*chunk_bytes, false))
        {
            let count = (*count).min(*rest);
            *rest -= count;
            let class = Class {
                constant: Some(address),
                ..plain(*chunk_bytes, false)
            };
            counts.insert(class, count);
        }
    }
    for (bytes, count) in &census.mmapped_classes {
        counts.insert(plain(*bytes, true), *count);
    }
    counts
}

impl Survivors {
    /// See [`Estimate::tells`].
    pub fn tell(&self) -> bool {
        self.estimate.tells()
    }

    /// What the account has of the heap.
    pub fn found(&self, state: &State) -> Found {
        let mut found = Found::default();
        let mut no_stack = 0_u64;
        for site in &self.estimate.sites {
            if state.has_stack(site.site) {
                found.attributed = found.attributed.saturating_add(site.bytes);
                found.variance += site.variance;
            } else {
                no_stack = no_stack.saturating_add(site.bytes);
            }
        }
        found.add(Reason::NoStack, no_stack.cast_signed());
        found.add(Reason::UnnamedGrowth, self.estimate.unnamed_bytes);
        found.add(Reason::FreedBlocks, self.estimate.shrunk_bytes);
        if let Some((_, kept)) = self.resident {
            found.add(Reason::KeptFree, kept);
        }
        found.add(Reason::UnreadYet, self.unread);
        found
    }

    /// By how many resident bytes the heaps grew, where that is known: what was found of them adds up to it.
    pub fn resident_growth(&self) -> Option<i64> {
        self.resident.map(|(resident, _)| resident)
    }
}

fn allocated(
    estimate: &SiteEstimate,
    types: &BTreeMap<u64, TypeName>,
    functions: Option<&BTreeSet<&'static str>>,
) -> Allocated {
    let aged = estimate.survived > 0;
    Allocated {
        blocks: estimate.blocks,
        births: estimate.seen,
        born_blocks: estimate.born,
        born_bytes: estimate.born_bytes,
        followed: estimate.followed,
        survived: estimate.survived,
        young: estimate.young,
        doubtful: estimate.doubtful,
        median_age: aged.then_some(estimate.median_age),
        oldest_age: aged.then_some(estimate.oldest_age),
        classes: estimate
            .classes
            .iter()
            .map(|share| AllocatedClass {
                request: build::heap::largest_request(share.class.chunk_bytes, share.class.mapped),
                chunk_bytes: share.class.chunk_bytes,
                type_name: type_name(types, &share.class),
                mapped: share.class.mapped,
                blocks: share.blocks,
                bytes: share.bytes,
                survivors: share.survivors,
            })
            .collect(),
        functions: functions.into_iter().flatten().copied().collect(),
    }
}

fn type_name(types: &BTreeMap<u64, TypeName>, class: &Class) -> Option<String> {
    types.get(&class.constant?).map(build::allocations::type_name)
}

impl State {
    /// How births were watched, and what nobody is known for; `None` where they were not, or no heap was read at both ends.
    pub(super) fn allocations(&self, probe: &Probe, births: &BirthWatch) -> Option<Allocations> {
        let told = || {
            let heaps = self.heaps.values();
            heaps.filter_map(|heap| Some((heap, heap.outcome.as_ref()?, heap.survivors.as_ref()?)))
        };
        told().next()?;
        let tell = told().any(|(.., survivors)| survivors.tell());
        let followed = |outcome: &Outcome| -> u64 {
            let courses = outcome.courses.values().flat_map(|course| &course.alive);
            courses.filter_map(|alive| alive.first()).sum()
        };
        let stands_for = told().map(|(_, outcome, _)| outcome.stands_for).max();
        let checks = told().map(|(_, outcome, _)| outcome.checks.len()).max();
        let mut allocations = Allocations {
            method: births.method.name().to_owned(),
            bursts: births.bursts.count(),
            watched_seconds: births.bursts.watched(),
            hits: births.hits(probe).burst,
            births: told().map(|(_, outcome, _)| outcome.births).sum(),
            sampling_rate: 1.0 / stands_for.unwrap_or(1).max(1) as f64,
            followed: told().map(|(_, outcome, _)| followed(outcome)).sum(),
            checks: u32::try_from(checks.unwrap_or(0)).unwrap_or(u32::MAX),
            cost_seconds: births.bursts.spent(),
            withheld_seconds: Some(births.bursts.withheld(self.began_to_end(), births.processor())),
            budget_seconds: births.bursts.allowance(self.began_to_end(), births.processor()),
            target_cpu_seconds: Some(births.processor().as_secs_f64()),
            tell,
            ..Allocations::default()
        };
        // Where some tell, the others' growth has its pages for evidence.
        for (heap, _, survivors) in told().filter(|(.., survivors)| survivors.tell() == tell) {
            let estimate = &survivors.estimate;
            allocations.unnamed_bytes += estimate.unnamed_bytes;
            allocations.shrunk_bytes += estimate.shrunk_bytes;
            let rows = build::allocations::unnamed(&estimate.unnamed, heap.type_names());
            build::allocations::join(&mut allocations.unnamed, rows);
        }
        Some(allocations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::{Amount, Class as CensusClass};

    fn census(classes: &[(u64, u64)], contents: &[((u64, What), u64)], mapped: &[(u64, u64)]) -> Census {
        Census {
            classes: classes
                .iter()
                .map(|&(bytes, count)| {
                    let in_use = Amount {
                        count,
                        bytes: bytes * count,
                    };
                    let class = CensusClass {
                        in_use,
                        ..CensusClass::default()
                    };
                    (bytes, class)
                })
                .collect(),
            contents: contents.iter().copied().collect(),
            mmapped_classes: mapped.iter().copied().collect(),
            ..Census::default()
        }
    }

    #[test]
    fn classes_are_told_apart_by_size_constant_and_mapping() {
        let start = census(&[(64, 10), (96, 5)], &[((64, What::Constant(7)), 4)], &[]);
        let end = census(
            &[(64, 30)],
            &[((64, What::Constant(7)), 20), ((64, What::Text), 3)],
            &[(8192, 2)],
        );
        let growth = class_growth(&start, &end);
        let of = |chunk_bytes, constant, mapped| {
            let class = Class {
                chunk_bytes,
                constant,
                mapped,
            };
            growth
                .iter()
                .find(|it| it.class == class)
                .map(|it| (it.count, it.bytes))
        };
        assert_eq!(of(64, Some(7), false), Some((16, 1024)));
        assert_eq!(of(64, None, false), Some((4, 256)));
        assert_eq!(of(96, None, false), Some((-5, -480)));
        assert_eq!(of(8192, None, true), Some((2, 16384)));
        assert_eq!(growth.len(), 4);
    }

    #[test]
    fn there_is_no_more_of_a_constant_than_there_are_blocks() {
        let census = census(&[(64, 10)], &[((64, What::Constant(7)), 14)], &[]);
        let counts = counts(&census);
        let of = |constant| Class {
            chunk_bytes: 64,
            constant,
            mapped: false,
        };
        assert_eq!(counts.get(&of(Some(7))), Some(&10));
        assert_eq!(counts.get(&of(None)), Some(&0));
    }
}
