//! What was gathered of the processes, as the diagnosis wants it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::heap::WatchedHeap;
use super::keepers::{Live, LiveAndHeap, mapping_sites, page_sites, went_with_its_process};
use super::pages::is_heap;
use super::process::{Process, page_bytes};
use super::state::State;
use crate::diagnose::rank::SiteFacts;
use crate::diagnose::reconcile::{Found, Part, Reason, Rest, parts, reconcile};
use crate::ledger::SiteId;
use crate::ledger::pages::settle::{Group, Settled};
use crate::report::model;
use crate::sampler::growth::growth;
use crate::sampler::region::{Region, RegionMap};
use crate::symbolize::{SymbolizedFrame, Symbolizer};
use crate::unwind::{Ending, StackId};

/// Names of stacks, each made once.
#[derive(Default)]
pub(super) struct Names {
    pub symbolizer: Symbolizer,
    known: HashMap<StackId, (Arc<[SymbolizedFrame]>, bool)>,
}

impl Names {
    /// The frames of a stack, and whether it reaches its root.
    pub(super) fn of(&mut self, state: &State, id: StackId) -> (Arc<[SymbolizedFrame]>, bool) {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        let Some(stack) = state.unwinder.stack(id) else {
            return (Arc::default(), false);
        };
        let frames = self.symbolizer.symbolize(state.unwinder.modules(), stack);
        let named = (frames.into(), stack.ending == Ending::Root);
        self.known.insert(id, named.clone());
        named
    }
}

/// What was gathered of all processes.
#[derive(Default)]
pub(super) struct Facts {
    pub sites: Vec<SiteFacts>,
    /// `None` until the growth of some process is known.
    pub parts: Option<Vec<Part>>,
    pub processes: Vec<model::ProcessRow>,
    pub ledger_losses: Vec<crate::ledger::Losses>,
    pub page_losses: Vec<crate::ledger::pages::PageLosses>,
    /// First touches that were not looked up for a huge page.
    pub huge_lookups_dropped: u64,
    pub smaps_cost: (u64, Duration),
    /// Held bytes of mapping calls whose stacks were thinned, where no site like them is known.
    pub unshared_bytes: u64,
}

/// Live bytes by region; `None` where regions are not told apart, or nothing is mapped any more.
type ByRegion = BTreeMap<Option<Region>, Found>;

impl Facts {
    /// `lost_faults`: records of page faults were lost. `heap`: what is known of the process's; where its survivors tell
    /// whose blocks it has gained, its pages say only who extended it.
    pub fn add(
        &mut self,
        process: &Process,
        state: &State,
        names: &mut Names,
        lost_faults: bool,
        heap: Option<&WatchedHeap>,
    ) {
        let survivors = heap.and_then(WatchedHeap::telling);

        for reading in [&process.start.smaps, &process.end.smaps].into_iter().flatten() {
            self.smaps_cost.0 += 1;
            self.smaps_cost.1 += reading.took;
        }
        self.ledger_losses.push(process.ledger.losses());
        self.page_losses.push(process.pages.losses());
        let dropped = process.huge.as_ref().map_or(0, |huge| huge.dropped);
        self.huge_lookups_dropped = self.huge_lookups_dropped.saturating_add(dropped);
        let by_pages = state.sampling.is_some();
        let (mut sites, found) = if by_pages {
            let kept = process.settled.as_ref();
            let mapped = |settled: &Settled<_>, id| Live::of(settled.sites.get(&id).map(|kept| kept.mapped));
            let (mut sites, unshared) = mapping_sites(process, state, names, &|id| LiveAndHeap {
                live: Some(kept.map_or_else(Live::default, |kept| mapped(&kept.others, id))),
                heap: kept
                    .and_then(|kept| kept.heap.as_ref())
                    .map(|heap| mapped(heap, id).bytes),
            });
            self.unshared_bytes = self.unshared_bytes.saturating_add(unshared);
            for site in &mut sites {
                site.touched = site
                    .live
                    .map(|live| live.saturating_add(site.extended.unwrap_or(0)));
                // Its pages are told by those who touched them.
                if site.live == Some(0) {
                    site.series.clear();
                }
            }
            sites.extend(page_sites(process, state, names));
            (sites, found_by_pages(process, lost_faults))
        } else {
            let (live, found) = found_by_mappings(process, state, survivors.is_some());
            let of = |id, in_heap| live.as_ref()?.get(&(id, in_heap)).copied();
            // Nothing is thinned then.
            let (sites, _) = mapping_sites(process, state, names, &|id| LiveAndHeap {
                live: live.is_some().then(|| Live {
                    bytes: of(id, false).unwrap_or(0),
                    variance: 0.0,
                }),
                heap: of(id, true),
            });
            (sites, found)
        };
        if let Some(heap) = heap {
            sites.extend(heap.sites(process.pid, state, names));
        }
        if process.gone && process.parent.is_some() {
            sites.iter_mut().for_each(went_with_its_process);
        }
        let live = sites
            .iter()
            .try_fold(0u64, |sum, site| Some(sum.saturating_add(site.live?)));
        let (held, events) = sites.iter().fold((0u64, 0u64), |(held, events), site| {
            (held.saturating_add(site.held), events.saturating_add(site.events))
        });
        self.sites.append(&mut sites);

        let grown = process
            .end
            .anonymous()
            .zip(process.start.anonymous())
            .map(|(end, start)| end.cast_signed().saturating_sub(start.cast_signed()));
        let complete = by_pages && process.pages.before_known() && process.end.smaps.is_some();
        let rest = if complete {
            Rest::BetweenReadings
        } else {
            Rest::Before
        };
        let heap = survivors.map(|survivors| (survivors.found(state), survivors.resident_growth()));
        let own = account(process, grown, found, heap, rest);
        let closed = own.as_deref().map(reconcile);
        if let Some(own) = own {
            self.parts.get_or_insert_default().extend(own);
        }
        self.processes.push(model::ProcessRow {
            pid: process.pid,
            parent_pid: process.parent,
            comm: process.comm.clone(),
            anonymous_growth_bytes: grown,
            attributed_bytes: closed
                .as_ref()
                .and_then(|account| u64::try_from(account.attributed).ok()),
            coverage: closed.and_then(|account| account.coverage),
            live_bytes: live,
            held_bytes: Some(held),
            events,
        });
    }
}

/// Pages as bytes; never negative here.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and page counts stay far under 2^52"
)]
pub(super) fn whole(pages: f64) -> u64 {
    (pages * page_bytes() as f64).round() as u64
}

fn signed(pages: f64) -> i64 {
    let bytes = i64::try_from(whole(pages.abs())).unwrap_or(i64::MAX);
    if pages < 0.0 { -bytes } else { bytes }
}

/// By the pages themselves.
fn found_by_pages(process: &Process, lost_faults: bool) -> ByRegion {
    let Some(settled) = &process.settled else {
        return ByRegion::new();
    };
    let mut start = process
        .start
        .baseline
        .as_ref()
        .map(|baseline| baseline.by_region.clone());
    if settled.heap.is_some()
        && let Some(start) = &mut start
    {
        without_heap(start, process.heap_before);
    }
    let start = start.as_ref();
    let settled = &settled.others;
    let regions = settled
        .groups
        .keys()
        .chain(start.into_iter().flat_map(BTreeMap::keys));
    regions
        .map(|region| {
            let group = settled.groups.get(region).copied().unwrap_or_default();
            let mut found = of_group(&group, lost_faults);
            if let Some(start) = start
                && process.end.smaps.is_some()
            {
                let had = start.get(region).copied().unwrap_or(0);
                // Given up since, or another region's by now.
                let gone = group.stayed_pages.cast_signed().saturating_sub(had.cast_signed());
                found.add(
                    Reason::ReleasedBeforeAttach,
                    gone.saturating_mul(page_bytes().cast_signed()),
                );
                #[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
                let error = group.new_pages as f64 - group.estimated();
                found.add(Reason::SamplingError, signed(error));
            }
            (*region, found)
        })
        .collect()
}

/// Takes the heaps' pages out of those that were there, by region: from where heaps are first, then from what the kernel
/// may have merged them with.
fn without_heap(had: &mut BTreeMap<Option<Region>, u64>, mut heap: u64) {
    for region in [
        Some(Region::Heap),
        Some(Region::Arena),
        Some(Region::Anonymous),
        None,
    ] {
        if let Some(pages) = had.get_mut(&region) {
            let own = heap.min(*pages);
            *pages -= own;
            heap -= own;
        }
    }
}

fn of_group(group: &Group, lost_faults: bool) -> Found {
    let live = Live::of(Some(group.attributed));
    let mut found = Found {
        attributed: live.bytes,
        variance: live.variance,
        ..Found::default()
    };
    let by_others = if lost_faults {
        Reason::LostFaults
    } else {
        Reason::TouchedByOthers
    };
    for (reason, pages) in [
        (Reason::NoStack, group.no_stack),
        (Reason::Unseen, group.unseen),
        (Reason::HugePages, group.huge),
        (Reason::FreedLazily, group.freed_lazily),
        (by_others, group.by_others),
    ] {
        found.add(reason, signed(pages));
    }
    found
}

/// Bytes by the site, and whether they lie in a heap whose blocks are told by survivors.
type BySite = HashMap<(SiteId, bool), u64>;

/// By the mappings that were added, where faults are not watched: live bytes of each site, and of each region.
fn found_by_mappings(process: &Process, state: &State, heap_apart: bool) -> (Option<BySite>, ByRegion) {
    let regions = process
        .end
        .smaps
        .as_ref()
        .map(|smaps| RegionMap::new(&smaps.mappings));
    let mut by_region = ByRegion::new();
    let mut live = BySite::new();
    for owned in process.owned.iter().flatten() {
        let region = regions.as_ref().and_then(|map| map.at(owned.range.start));
        let in_heap = heap_apart && region.is_some_and(is_heap);
        if let Some(site) = owned.site {
            *live.entry((site, in_heap)).or_default() += owned.bytes;
        }
        // Its blocks tell more.
        if in_heap {
            continue;
        }
        let found = by_region.entry(region).or_default();
        match owned.site {
            Some(site) if state.has_stack(site) => found.attributed += owned.bytes,
            Some(_) => found.add(Reason::NoStack, owned.bytes.cast_signed()),
            None => found.add(Reason::Unseen, owned.bytes.cast_signed()),
        }
    }
    (process.owned.is_some().then_some(live), by_region)
}

/// Region by region where smaps was read at both ends, else as one sum; `None` where the growth is not known. `heap`: what
/// was found of all heaps by their blocks, and whether that is all there is to find.
fn account(
    process: &Process,
    grown: Option<i64>,
    found: ByRegion,
    heap: Option<(Found, Option<i64>)>,
    rest: Rest,
) -> Option<Vec<Part>> {
    if let (Some(before), Some(after)) = (&process.start.smaps, &process.end.smaps) {
        let growth = growth(&before.mappings, &after.mappings);
        let mut by_region: BTreeMap<Region, i64> = growth
            .regions
            .iter()
            .map(|(region, delta)| (*region, delta.anonymous_and_swap()))
            .collect();
        let heap = heap.map(|(found, grown)| {
            // Blocks are not told apart by where they lie.
            let mut told = 0_i64;
            by_region.retain(|region, grown| {
                told += if is_heap(*region) { *grown } else { 0 };
                !is_heap(*region)
            });
            let grown_there = grown.unwrap_or(told);
            // The kernel merges heaps with what else is mapped beside them.
            *by_region.entry(Region::Anonymous).or_default() += told - grown_there;
            heap_part(found, grown.is_some(), grown_there)
        });
        let mut known: BTreeMap<Region, Found> = BTreeMap::new();
        let mut elsewhere = Found::default();
        for (region, found) in found {
            match region {
                Some(region) => known
                    .entry(if heap.is_some() && is_heap(region) {
                        Region::Anonymous
                    } else {
                        region
                    })
                    .or_default()
                    .join(&found),
                // Gone between the reading of smaps and the look-up, or come since.
                None => elsewhere = found,
            }
        }
        let mut own = parts(&by_region, &known, rest);
        own.extend(heap);
        own.push(elsewhere.part(None, 0, rest));
        return Some(own);
    }
    let mut sum = Found::default();
    for found in found.values().chain(heap.as_ref().map(|(found, _)| found)) {
        sum.join(found);
    }
    Some(vec![sum.part(None, grown?, rest)])
}

/// The account of the heaps by their blocks. Where it is not known what of their memory is free and resident, that is what
/// is left.
fn heap_part(mut found: Found, whole: bool, grown: i64) -> Part {
    if !whole {
        let known = found
            .known
            .iter()
            .fold(found.attributed.cast_signed(), |sum, (_, bytes)| {
                sum.saturating_add(*bytes)
            });
        found.add(Reason::KeptFree, grown.saturating_sub(known));
    }
    found.part(Some(Region::Heap), grown, Rest::BetweenReadings)
}

impl State {
    pub fn has_stack(&self, site: SiteId) -> bool {
        self.sites
            .get(site)
            .and_then(|site| self.unwinder.stack(site.stack))
            .is_some_and(|stack| !stack.frames.is_empty())
    }

    /// Seconds from the window's start to a moment of the events' clock.
    pub(super) fn seconds_at(&self, time: u64) -> f64 {
        Duration::from_nanos(time.saturating_sub(self.began_ns())).as_secs_f64()
    }
}
