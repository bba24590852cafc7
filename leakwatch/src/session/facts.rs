//! What was gathered of the processes, as the diagnosis wants it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::process::{Process, page_bytes};
use super::watch::State;
use crate::diagnose::rank::{Evidence, SiteFacts, Via, sum_series};
use crate::diagnose::reconcile::{Found, Part, Reason, Rest, parts, reconcile};
use crate::ledger::pages::Estimate;
use crate::ledger::pages::settle::{Group, Kept};
use crate::ledger::{Account, SiteId};
use crate::report::{build, model};
use crate::sampler::growth::growth;
use crate::sampler::region::{Region, RegionMap};
use crate::symbolize::{SymbolizedFrame, Symbolizer};
use crate::unwind::{Ending, StackId};

/// Names of stacks, each made once.
#[derive(Default)]
pub(super) struct Names {
    pub symbolizer: Symbolizer,
    known: HashMap<StackId, (Vec<SymbolizedFrame>, bool)>,
}

impl Names {
    /// The frames of a stack, and whether it reaches its root.
    fn of(&mut self, state: &State, id: StackId) -> (Vec<SymbolizedFrame>, bool) {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        let Some(stack) = state.unwinder.stack(id) else {
            return (Vec::new(), false);
        };
        let frames = self.symbolizer.symbolize(state.unwinder.modules(), stack);
        let named = (frames, stack.ending == Ending::Root);
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
    pub smaps_cost: (u64, Duration),
    /// Held bytes of mapping calls whose stacks were thinned, where no site like them is known.
    pub unshared_bytes: u64,
}

/// Live bytes by region; `None` where regions are not told apart, or nothing is mapped any more.
type ByRegion = BTreeMap<Option<Region>, Found>;

impl Facts {
    /// `lost_faults`: records of page faults were lost.
    pub fn add(&mut self, process: &Process, state: &State, names: &mut Names, lost_faults: bool) {
        for reading in [&process.start.smaps, &process.end.smaps].into_iter().flatten() {
            self.smaps_cost.0 += 1;
            self.smaps_cost.1 += reading.took;
        }
        self.ledger_losses.push(process.ledger.losses());
        self.page_losses.push(process.pages.losses());
        let by_pages = state.sampling.is_some();
        let (mut sites, found) = if by_pages {
            let kept = process.settled.as_ref().map(|settled| &settled.sites);
            let (mut sites, unshared) = mapping_sites(process, state, names, &|id| {
                let kept = kept.and_then(|kept| kept.get(&id));
                Some(Live::of(kept.map(|kept| kept.mapped)))
            });
            self.unshared_bytes = self.unshared_bytes.saturating_add(unshared);
            for site in &mut sites {
                site.touched = site.live;
                // Its pages are told by those who touched them.
                if site.live == Some(0) {
                    site.series.clear();
                }
            }
            sites.extend(page_sites(process, state, names));
            (sites, found_by_pages(process, lost_faults))
        } else {
            let (live, found) = found_by_mappings(process, state);
            // Nothing is thinned then.
            let (sites, _) = mapping_sites(process, state, names, &|id| {
                let live = live.as_ref()?.get(&id).copied().unwrap_or(0);
                Some(Live {
                    bytes: live,
                    variance: 0.0,
                })
            });
            (sites, found)
        };
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
        let own = account(process, grown, found, rest);
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

/// Bytes with the square of their standard error.
#[derive(Clone, Copy, Default)]
struct Live {
    bytes: u64,
    variance: f64,
}

impl Live {
    fn of(pages: Option<Estimate>) -> Self {
        let pages = pages.unwrap_or_default();
        let page = page_bytes() as f64;
        Self {
            bytes: whole(pages.pages),
            variance: pages.variance * page * page,
        }
    }
}

/// Pages as bytes; never negative here.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and page counts stay far under 2^52"
)]
fn whole(pages: f64) -> u64 {
    (pages * page_bytes() as f64).round() as u64
}

fn signed(pages: f64) -> i64 {
    let bytes = i64::try_from(whole(pages.abs())).unwrap_or(i64::MAX);
    if pages < 0.0 { -bytes } else { bytes }
}

/// The sites that extended memory, with what is live of it by `live`; and the held bytes of thinned events that no site
/// is known for.
fn mapping_sites(
    process: &Process,
    state: &State,
    names: &mut Names,
    live: &dyn Fn(SiteId) -> Option<Live>,
) -> (Vec<SiteFacts>, u64) {
    let mut sites: Vec<SiteFacts> = Vec::new();
    let mut known: HashMap<(StackId, Via), usize> = HashMap::new();
    // What small ranges committed and hold, by index.
    let mut small: Vec<(usize, u64, u64)> = Vec::new();
    let now = state.ended_ns();
    for (id, account) in process.ledger.accounts() {
        let Some(site) = state.sites.get(id) else { continue };
        let (frames, complete) = names.of(state, site.stack);
        let live = live(id);
        let facts = SiteFacts {
            via: site.via,
            frames,
            complete,
            committed: account.committed_bytes,
            released: account.released_bytes,
            held: account.held_bytes(),
            events: account.events,
            first_seen: state.seconds_at(account.first_seen),
            last_seen: state.seconds_at(account.last_seen),
            series: account.series.until(now),
            live: live.map(|live| live.bytes),
            live_variance: live.map_or(0.0, |live| live.variance),
            touched: None,
            evidence: Evidence::Mappings,
            estimated: false,
            threads: threads(site),
            process: process.pid,
        };
        let index = *known.entry((site.stack, site.via)).or_insert(sites.len());
        match sites.get_mut(index) {
            Some(same) => join(same, &facts),
            None => sites.push(facts),
        }
        if site.small {
            small.push((index, account.committed_bytes, account.held_bytes()));
        }
    }
    let unshared = process
        .ledger
        .account(SiteId::THINNED)
        .map_or(0, |thinned| share_thinned(thinned, &small, &mut sites));
    (sites, unshared)
}

/// One stack whose ranges were counted apart.
fn join(site: &mut SiteFacts, other: &SiteFacts) {
    site.committed = site.committed.saturating_add(other.committed);
    site.released = site.released.saturating_add(other.released);
    site.held = site.held.saturating_add(other.held);
    site.events = site.events.saturating_add(other.events);
    site.first_seen = site.first_seen.min(other.first_seen);
    site.last_seen = site.last_seen.max(other.last_seen);
    site.live = site
        .live
        .zip(other.live)
        .map(|(one, two)| one.saturating_add(two));
    site.live_variance += other.live_variance;
    site.series = sum_series([site.series.as_slice(), other.series.as_slice()].into_iter());
    for thread in &other.threads {
        if !site.threads.contains(thread) {
            site.threads.push(thread.clone());
        }
    }
}

/// Gives what was acquired by events whose stacks were left out to the sites that small ranges are known of: in
/// proportion to what those committed, and to what they hold. Returns the held bytes that no site is known for.
fn share_thinned(thinned: &Account, small: &[(usize, u64, u64)], sites: &mut [SiteFacts]) -> u64 {
    let committed: u64 = small.iter().map(|(_, committed, _)| committed).sum();
    let held: u64 = small.iter().map(|(_, _, held)| held).sum();
    let share = |bytes: u64, part: u64, all: u64| {
        let product = u128::from(bytes) * u128::from(part);
        u64::try_from(product.checked_div(u128::from(all)).unwrap_or(0)).unwrap_or(u64::MAX)
    };
    for (index, part_committed, part_held) in small {
        let Some(site) = sites.get_mut(*index) else {
            continue;
        };
        let held = share(thinned.held_bytes(), *part_held, held);
        let committed = share(thinned.committed_bytes, *part_committed, committed).max(held);
        site.committed = site.committed.saturating_add(committed);
        site.held = site.held.saturating_add(held);
        site.released = site.committed.saturating_sub(site.held);
        site.estimated = true;
    }
    if held == 0 { thinned.held_bytes() } else { 0 }
}

/// The sites that touched pages first.
fn page_sites(process: &Process, state: &State, names: &mut Names) -> Vec<SiteFacts> {
    let now = state.ended_ns();
    let mut sites = Vec::new();
    for (id, account) in process.pages.accounts() {
        let Some(site) = state.sites.get(id) else { continue };
        let (frames, complete) = names.of(state, site.stack);
        let live = match &process.settled {
            Some(settled) => Live::of(settled.sites.get(&id).map(|kept: &Kept| kept.touched)),
            // The process is gone. What it had touched and not given up by then was there to the end.
            None => Live {
                bytes: process.pages.owned_bytes(id),
                variance: 0.0,
            },
        };
        let mut series = account.series.until(now);
        end_at(&mut series, live.bytes, process.pages.stands_for() > 1);
        sites.push(SiteFacts {
            via: site.via,
            frames,
            complete,
            committed: 0,
            released: 0,
            held: 0,
            events: account.faults,
            first_seen: state.seconds_at(account.first_seen),
            last_seen: state.seconds_at(account.last_seen),
            series,
            live: Some(live.bytes),
            live_variance: live.variance,
            touched: Some(account.touched_pages.saturating_mul(page_bytes())),
            evidence: Evidence::Pages,
            estimated: false,
            threads: threads(site),
            process: process.pid,
        });
    }
    sites
}

/// Lets a series end at what was found to be there. What the kernel took back meanwhile shows at the end only; an
/// estimate on the way was of the same sample, and off by the same factor.
fn end_at(series: &mut [(f64, u64)], live: u64, sampled: bool) {
    let Some(last) = series.last().map(|(_, bytes)| *bytes) else {
        return;
    };
    if sampled && last / 2 < live && live < last.saturating_mul(2) {
        for (_, bytes) in series.iter_mut() {
            let scaled = u128::from(*bytes) * u128::from(live) / u128::from(last.max(1));
            *bytes = u64::try_from(scaled).unwrap_or(u64::MAX);
        }
    }
    if let Some(last) = series.last_mut() {
        last.1 = live;
    }
}

fn threads(site: &super::sites::Site) -> Vec<String> {
    site.threads
        .iter()
        .map(|name| build::text(name).to_string())
        .collect()
}

/// By the pages themselves.
fn found_by_pages(process: &Process, lost_faults: bool) -> ByRegion {
    let Some(settled) = &process.settled else {
        return ByRegion::new();
    };
    let start = process
        .start
        .baseline
        .as_ref()
        .map(|baseline| &baseline.by_region);
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

/// By the mappings that were added, where faults are not watched: live bytes of each site, and of each region.
fn found_by_mappings(process: &Process, state: &State) -> (Option<HashMap<SiteId, u64>>, ByRegion) {
    let regions = process
        .end
        .smaps
        .as_ref()
        .map(|smaps| RegionMap::new(&smaps.mappings));
    let mut by_region = ByRegion::new();
    let mut live: HashMap<SiteId, u64> = HashMap::new();
    for owned in process.owned.iter().flatten() {
        let region = regions.as_ref().and_then(|map| map.at(owned.range.start));
        let found = by_region.entry(region).or_default();
        match owned.site {
            Some(site) if state.has_stack(site) => found.attributed += owned.bytes,
            Some(_) => found.add(Reason::NoStack, owned.bytes.cast_signed()),
            None => found.add(Reason::Unseen, owned.bytes.cast_signed()),
        }
        if let Some(site) = owned.site {
            *live.entry(site).or_default() += owned.bytes;
        }
    }
    (process.owned.is_some().then_some(live), by_region)
}

/// Region by region where smaps was read at both ends, else as one sum; `None` where the growth is not known.
fn account(process: &Process, grown: Option<i64>, found: ByRegion, rest: Rest) -> Option<Vec<Part>> {
    if let (Some(before), Some(after)) = (&process.start.smaps, &process.end.smaps) {
        let growth = growth(&before.mappings, &after.mappings);
        let by_region = growth
            .regions
            .iter()
            .map(|(region, delta)| (*region, delta.anonymous_and_swap()))
            .collect();
        let mut known = BTreeMap::new();
        let mut elsewhere = Found::default();
        for (region, found) in found {
            match region {
                Some(region) => drop(known.insert(region, found)),
                // Gone between the reading of smaps and the look-up, or come since.
                None => elsewhere = found,
            }
        }
        let mut own = parts(&by_region, &known, rest);
        own.push(elsewhere.part(None, 0, rest));
        return Some(own);
    }
    let mut sum = Found::default();
    for found in found.values() {
        sum.join(found);
    }
    Some(vec![sum.part(None, grown?, rest)])
}

impl State {
    pub fn has_stack(&self, site: SiteId) -> bool {
        self.sites
            .get(site)
            .and_then(|site| self.unwinder.stack(site.stack))
            .is_some_and(|stack| !stack.frames.is_empty())
    }

    /// Seconds from the window's start to a moment of the events' clock.
    fn seconds_at(&self, time: u64) -> f64 {
        Duration::from_nanos(time.saturating_sub(self.began_ns())).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(committed: u64, held: u64) -> SiteFacts {
        SiteFacts {
            via: Via::Mprotect,
            frames: Vec::new(),
            complete: true,
            committed,
            released: committed - held,
            held,
            events: 1,
            first_seen: 0.0,
            last_seen: 1.0,
            series: vec![(0.0, 0), (1.0, held)],
            live: Some(0),
            live_variance: 0.0,
            touched: None,
            evidence: Evidence::Mappings,
            estimated: false,
            threads: Vec::new(),
            process: 1,
        }
    }

    fn thinned(committed: u64, held: u64) -> Account {
        let mut ledger = crate::ledger::Ledger::new(4096);
        ledger.set_baseline(&[], 0);
        for (range, time) in [(0..committed, 1), (held..committed, 2)] {
            let range = 0x10_0000 + range.start..0x10_0000 + range.end;
            let action = if time == 1 {
                crate::ledger::Action::Map {
                    range,
                    protection: crate::ledger::Protection::READ_WRITE,
                    backing: crate::ledger::Backing::Anonymous,
                    site: Some(SiteId::THINNED),
                }
            } else {
                crate::ledger::Action::Release {
                    range,
                    how: crate::ledger::How::Unmap,
                }
            };
            ledger.apply(&crate::ledger::Change {
                time,
                thread: 1,
                action,
            });
        }
        ledger.account(SiteId::THINNED).cloned().unwrap()
    }

    #[test]
    fn what_was_thinned_goes_to_those_who_are_known_in_proportion() {
        // One keeps all of its small ranges, one none, one has no small ones.
        let mut sites = [site(30, 30), site(90, 0), site(7, 7)];
        let rest = share_thinned(
            &thinned(40 * 4096, 10 * 4096),
            &[(0, 30, 30), (1, 90, 0)],
            &mut sites,
        );
        assert_eq!(rest, 0);
        assert_eq!(sites[0].held, 30 + 10 * 4096);
        assert_eq!((sites[1].held, sites[1].committed), (0, 90 + 30 * 4096));
        assert_eq!(sites[1].released, sites[1].committed);
        assert!(sites[0].estimated && sites[1].estimated && !sites[2].estimated);
        assert_eq!(sites[2], site(7, 7));
    }

    #[test]
    fn what_nobody_is_known_for_is_told() {
        let mut sites = [site(90, 0)];
        assert_eq!(
            share_thinned(&thinned(8192, 4096), &[(0, 90, 0)], &mut sites),
            4096
        );
        assert_eq!(sites[0].held, 0);
        assert_eq!(share_thinned(&thinned(8192, 4096), &[], &mut []), 4096);
    }

    #[test]
    fn a_sampled_series_ends_at_what_was_found_and_keeps_its_shape() {
        let mut series = [(0.0, 0), (1.0, 50), (2.0, 100)];
        end_at(&mut series, 120, true);
        assert_eq!(series, [(0.0, 0), (1.0, 60), (2.0, 120)]);
        // The kernel took most of it back: that is no error of the sample.
        end_at(&mut series, 10, true);
        assert_eq!(series, [(0.0, 0), (1.0, 60), (2.0, 10)]);
        end_at(&mut series, 11, false);
        assert_eq!(series[2], (2.0, 11));
        end_at(&mut [], 1, true);
    }
}
