//! What each call site of a process gained, and keeps.

use std::collections::HashMap;

use super::facts::{Names, whole};
use super::process::{Process, page_bytes};
use super::state::State;
use crate::diagnose::pool::Pool;
use crate::diagnose::rank::{Evidence, SiteFacts, Via, sum_series};
use crate::ledger::pages::Estimate;
use crate::ledger::pages::settle::Settled;
use crate::ledger::{Account, SiteId};
use crate::report::build;
use crate::unwind::StackId;

/// Bytes with the square of their standard error.
#[derive(Clone, Copy, Default)]
pub(super) struct Live {
    pub bytes: u64,
    pub variance: f64,
}

impl Live {
    pub fn of(pages: Option<Estimate>) -> Self {
        let pages = pages.unwrap_or_default();
        let page = page_bytes() as f64;
        Self {
            bytes: whole(pages.pages),
            variance: pages.variance * page * page,
        }
    }
}

/// What is live of a site, and what of it only says who extended the heap: `heap` is `None` where survivors do not tell
/// whose the heap is.
#[derive(Clone, Copy, Default)]
pub(super) struct LiveAndHeap {
    /// `None` where it is not known.
    pub live: Option<Live>,
    pub heap: Option<u64>,
}

/// What a child had when it exited was given back then.
pub(super) fn went_with_its_process(site: &mut SiteFacts) {
    site.live = Some(0);
    site.extended = None;
    site.live_variance = 0.0;
    site.held = 0;
    site.released = site.committed;
    if let Some(last) = site.series.last_mut() {
        last.1 = 0;
    }
}

/// The sites that extended memory, with what is live of it by `live`; and the held bytes of thinned events that no site
/// is known for.
pub(super) fn mapping_sites(
    process: &Process,
    state: &State,
    names: &mut Names,
    live: &dyn Fn(SiteId) -> LiveAndHeap,
) -> (Vec<SiteFacts>, u64) {
    let mut sites: Vec<SiteFacts> = Vec::new();
    let mut known: HashMap<(StackId, Via), usize> = HashMap::new();
    // What small ranges committed and hold, by index.
    let mut small: Vec<(usize, u64, u64)> = Vec::new();
    let now = state.ended_ns();
    for (id, account) in process.ledger.accounts() {
        let Some(site) = state.sites.get(id) else { continue };
        let (frames, complete) = names.of(state, site.stack);
        let LiveAndHeap { live, heap } = live(id);
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
            extended: heap.filter(|bytes| *bytes > 0),
            allocated: None,
            pool: process
                .arenas
                .as_ref()
                .and_then(|arenas| arenas.sites.contains(&id).then_some(arenas.pool)),
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
    site.extended = [site.extended, other.extended]
        .into_iter()
        .flatten()
        .reduce(u64::saturating_add);
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
pub(super) fn page_sites(process: &Process, state: &State, names: &mut Names) -> Vec<SiteFacts> {
    let now = state.ended_ns();
    let mut sites = Vec::new();
    for (id, account) in process.pages.accounts() {
        let Some(site) = state.sites.get(id) else { continue };
        let (frames, complete) = names.of(state, site.stack);
        let touched = |settled: &Settled<_>| Live::of(settled.sites.get(&id).map(|kept| kept.touched));
        let heap = process.settled.as_ref().and_then(|settled| settled.heap.as_ref());
        let extended = heap.map(|heap| touched(heap).bytes).filter(|bytes| *bytes > 0);
        let live = match &process.settled {
            Some(settled) => touched(&settled.others),
            // The process is gone. What it had touched and not given up by then was there to the end.
            None => Live {
                bytes: process.pages.owned_bytes(id),
                variance: 0.0,
            },
        };
        let settled = process.settled.as_ref();
        let in_arenas = settled
            .map(|settled| Live::of(settled.others.sites.get(&id).map(|kept| kept.in_arenas)))
            .zip(process.arenas.as_ref())
            .filter(|(live, _)| live.bytes > 0);
        let mut series = account.series.until(now);
        let there = live
            .bytes
            .saturating_add(extended.unwrap_or(0))
            .saturating_add(in_arenas.map_or(0, |(live, _)| live.bytes));
        end_at(&mut series, there, process.pages.stands_for() > 1);
        // A curve of pages that are others' by now.
        if live.bytes == 0 && extended.is_some() && in_arenas.is_none() {
            series.clear();
        }
        let site = SiteFacts {
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
            extended,
            allocated: None,
            pool: None,
            evidence: Evidence::Pages,
            estimated: false,
            threads: threads(site),
            process: process.pid,
        };
        match in_arenas {
            Some((live, arenas)) => sites.extend(apart(site, live, arenas.pool)),
            None => sites.push(site),
        }
    }
    sites
}

/// A site and its pages in arenas, of which there are `there`, as two. What it touched in all and the course of that are
/// shared out as the pages are that are left: it is not known which of the others lay in arenas.
fn apart(site: SiteFacts, there: Live, pool: Pool) -> impl Iterator<Item = SiteFacts> {
    let own = site.live.unwrap_or(0).saturating_add(site.extended.unwrap_or(0));
    let all = u128::from(own.saturating_add(there.bytes).max(1));
    let part = |bytes: u64| {
        let part = u128::from(bytes) * u128::from(there.bytes) / all;
        u64::try_from(part).unwrap_or(bytes)
    };
    let in_arenas = SiteFacts {
        pool: Some(pool),
        live: Some(there.bytes),
        live_variance: there.variance,
        touched: site.touched.map(part),
        extended: None,
        events: part(site.events),
        series: site
            .series
            .iter()
            .map(|(at, bytes)| (*at, part(*bytes)))
            .collect(),
        ..site.clone()
    };
    let mut rest = SiteFacts {
        touched: site
            .touched
            .map(|all| all.saturating_sub(in_arenas.touched.unwrap_or(0))),
        events: site.events.saturating_sub(in_arenas.events),
        series: site
            .series
            .iter()
            .zip(&in_arenas.series)
            .map(|((at, all), (_, part))| (*at, all.saturating_sub(*part)))
            .collect(),
        ..site
    };
    // A curve of pages that are others' by now.
    if rest.live == Some(0) {
        rest.series.clear();
    }
    (own > 0).then_some(rest).into_iter().chain([in_arenas])
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

pub(super) fn threads(site: &super::sites::Site) -> Vec<String> {
    site.threads
        .iter()
        .map(|name| build::text(name).to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(committed: u64, held: u64) -> SiteFacts {
        SiteFacts {
            via: Via::Mprotect,
            frames: [].into(),
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
            extended: None,
            allocated: None,
            pool: None,
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
    fn pages_in_arenas_are_told_apart_and_add_up() {
        let one = SiteFacts {
            evidence: Evidence::Pages,
            events: 100,
            live: Some(300),
            live_variance: 9.0,
            touched: Some(2000),
            series: vec![(0.0, 0), (1.0, 400)],
            ..site(0, 0)
        };
        let in_arenas = Live {
            bytes: 100,
            variance: 4.0,
        };
        let parts: Vec<SiteFacts> = apart(one.clone(), in_arenas, Pool::Pymalloc).collect();
        let [rest, pooled] = parts.as_slice() else {
            panic!("{parts:?}");
        };
        assert_eq!((rest.pool, pooled.pool), (None, Some(Pool::Pymalloc)));
        assert_eq!((rest.live, pooled.live), (Some(300), Some(100)));
        assert_eq!((rest.live_variance, pooled.live_variance), (9.0, 4.0));
        assert_eq!((rest.touched, pooled.touched), (Some(1500), Some(500)));
        assert_eq!((rest.events, pooled.events), (75, 25));
        assert_eq!((rest.series[1], pooled.series[1]), ((1.0, 300), (1.0, 100)));
        // Nothing is left outside: one row.
        let all = SiteFacts { live: Some(0), ..one };
        let parts: Vec<SiteFacts> = apart(all, in_arenas, Pool::Pymalloc).collect();
        assert_eq!(parts.len(), 1);
        assert_eq!(
            (parts[0].live, parts[0].touched, parts[0].events),
            (Some(100), Some(2000), 100)
        );
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
    fn a_child_that_exited_keeps_nothing() {
        let mut one = SiteFacts {
            live: Some(50),
            live_variance: 4.0,
            ..site(100, 60)
        };
        went_with_its_process(&mut one);
        assert_eq!((one.live, one.live_variance, one.held), (Some(0), 0.0, 0));
        assert_eq!(one.released, one.committed);
        assert_eq!(one.series, [(0.0, 0), (1.0, 0)]);
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
