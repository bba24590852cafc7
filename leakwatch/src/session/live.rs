//! What is shown of a recording while it goes on.
//!
//! Once a second a [`Snapshot`] is taken between two drains of the ring, and handed to a [`Viewer`], who must not wait. The
//! work is bounded: of every call site the bytes are read and compared, nothing else, and only of the largest
//! (`SITES_MOST`, `SURVIVORS_MOST`) the stack and the curve are copied. What it took puts the next one off a hundred
//! times as long, so that it takes a hundredth of the time at most. The heap is not read: whose blocks survived is told as
//! of the latest check, which there is without a viewer too. Names, groups and the verdict are made from the copy, on
//! another thread.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::Counter;

use super::keepers::threads;
use super::process::{monotonic_ns, page_bytes};
use super::sampling::Sampling;
use super::series::Series;
use super::watch::Watch;
use super::{finish, trends, verdict};
use crate::diagnose::rank::{Evidence, Via};
use crate::diagnose::trend::Trend;
use crate::diagnose::verdict::{Counts, Facts, LossFacts, Room, Verdict};
use crate::ledger::SiteId;
use crate::unwind::{Ending, Modules, Stack, StackId};

/// Call sites of a snapshot, by the memory that they hold.
const SITES_MOST: usize = 400;
/// And those whose blocks survived, by what these amount to.
const SURVIVORS_MOST: usize = 100;
/// A snapshot waits so many times as long as the latest one took.
const WAITS: u32 = 100;

/// Who is shown what goes on.
pub trait Viewer {
    /// Must return at once: the ring fills meanwhile.
    fn show(&mut self, snapshot: Snapshot);
}

/// What is known at a moment of the window.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the window.
    pub elapsed: Duration,
    /// Whether bytes are of pages that were touched; else of address space.
    pub by_pages: bool,
    /// The largest, in no order; stacks may come more than once.
    pub sites: Vec<LiveSite>,
    /// All call sites that hold anything, and what they hold.
    pub holding: u64,
    pub held_bytes: u64,
    pub sizes: Sizes,
    pub births: LiveBirths,
    /// Counters that are not zero, named as in a recording.
    pub losses: Vec<(&'static str, u64)>,
    pub cost: LiveCost,
    /// Those of the stacks.
    pub modules: Arc<Modules>,
}

/// What a call site holds now.
#[derive(Clone, Debug)]
pub struct LiveSite {
    pub process: u32,
    pub via: Via,
    pub id: StackId,
    pub stack: Stack,
    pub evidence: Evidence,
    /// By the evidence: estimated bytes of blocks that survived the latest check, bytes of the pages that it touched first
    /// and that were not given up (reclaim shows at the end only), or bytes of address space.
    pub bytes: u64,
    /// Bytes that it touched first, or committed, in all.
    pub gained: Option<u64>,
    pub blocks: Option<Blocks>,
    pub events: u64,
    /// (seconds of the window, bytes).
    pub series: Vec<(f64, u64)>,
    /// Seconds of the window.
    pub last_seen: f64,
    pub threads: Vec<String>,
}

impl LiveSite {
    /// The stack reaches its root.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.stack.ending == Ending::Root
    }
}

/// Blocks whose births were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Followed to a check, and those of them in use at the latest.
    pub followed: u64,
    pub alive: u64,
}

/// How births are watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveBirths {
    pub watched: bool,
    /// Why not, or no longer.
    pub not_watched: Option<String>,
    /// Of the latest check, as time of the window; `None` before the first.
    pub checked: Option<Duration>,
    pub blocks: Blocks,
}

/// What watching costs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveCost {
    pub events: u64,
    /// Processor time of leakwatch, all of its threads.
    pub processor: Duration,
    /// Sampled pages over all, at most 1; `None` where page faults are not watched.
    pub sampling_rate: Option<f64>,
    /// What the snapshot before this one took.
    pub snapshot: Duration,
}

/// What `/proc` said, as the verdict wants it.
#[derive(Clone, Debug)]
pub struct Sizes {
    series: Series,
    age: Option<f64>,
    losses: LossFacts,
    room: Option<Room>,
    window: f64,
    /// Of anonymous memory with swap, since the window's start.
    pub growth: Option<i64>,
    pub rss_bytes: Option<u64>,
}

impl Sizes {
    /// (seconds of the window, bytes of anonymous memory with swap).
    #[must_use]
    pub fn anonymous(&self) -> Vec<(f64, u64)> {
        let points = self.series.points().iter();
        points
            .filter_map(|point| Some((point.at.as_secs_f64(), point.anonymous()?)))
            .collect()
    }

    /// The verdict so far: by sizes and counts alone, without call sites and heap.
    #[must_use]
    pub fn judge(&self) -> (Verdict, Option<Trend>) {
        let trend = trends::of_memory(&self.series);
        let goes = trends::correlations(&self.series);
        let counts: Counts = verdict::counts(self.series.points());
        let verdict = crate::diagnose::verdict::judge(&Facts {
            window: self.window,
            age: self.age,
            growth: self.growth,
            series: &self.anonymous(),
            trend: trend.as_ref(),
            goes: &goes,
            counts,
            losses: self.losses,
            room: self.room,
            ..Facts::default()
        });
        (verdict, trend)
    }
}

/// What is kept from one snapshot to the next.
#[derive(Default)]
pub(super) struct Live {
    /// When the next one may be, as time of the window.
    next: Duration,
    took: Duration,
    modules: Arc<Modules>,
    /// Room for all sites: bytes, process, site.
    sizes: Vec<(u64, u32, SiteId)>,
}

impl Watch {
    /// Shows how things stand, unless the latest time took too long for that.
    pub(super) fn show(&mut self, viewer: &mut dyn Viewer) {
        let now = self.state.began.elapsed();
        if now < self.live.next {
            return;
        }
        let began = Instant::now();
        let snapshot = self.snapshot(now);
        viewer.show(snapshot);
        self.live.took = began.elapsed();
        self.live.next = now.saturating_add(self.live.took.saturating_mul(WAITS));
    }

    fn snapshot(&mut self, now: Duration) -> Snapshot {
        let by_pages = self.state.sampling.is_some();
        if self.state.unwinder.modules().len() != self.live.modules.len() {
            self.live.modules = Arc::new(self.state.unwinder.modules().clone());
        }
        let mut sizes = std::mem::take(&mut self.live.sizes);
        self.sizes_of_sites(by_pages, &mut sizes);
        let holding = sizes.len() as u64;
        let held_bytes = sizes.iter().fold(0u64, |sum, size| sum.saturating_add(size.0));
        keep_largest(&mut sizes, SITES_MOST);
        let mut sites: Vec<LiveSite> = sizes
            .iter()
            .filter_map(|&(bytes, pid, site)| self.holder(by_pages, bytes, pid, site))
            .collect();
        self.live.sizes = sizes;
        let mut births = self.live_births();
        self.survivors(&mut births, &mut sites, now);
        Snapshot {
            elapsed: now,
            by_pages,
            sites,
            holding,
            held_bytes,
            sizes: self.live_sizes(now),
            births,
            losses: self.live_losses(),
            cost: LiveCost {
                events: self.state.events,
                processor: finish::own_processor(),
                sampling_rate: self.state.sampling.as_ref().map(Sampling::rate),
                snapshot: self.live.took,
            },
            modules: Arc::clone(&self.live.modules),
        }
    }

    /// What each site holds, of processes that live.
    fn sizes_of_sites(&self, by_pages: bool, sizes: &mut Vec<(u64, u32, SiteId)>) {
        sizes.clear();
        for process in self
            .state
            .processes
            .values()
            .filter(|process| self.counts(process))
        {
            let pid = process.pid;
            if by_pages {
                sizes.extend(process.pages.owned().map(|(site, bytes)| (bytes, pid, site)));
            } else {
                let accounts = process.ledger.accounts();
                sizes.extend(accounts.map(|(site, account)| (account.held_bytes(), pid, site)));
            }
        }
        sizes.retain(|(bytes, ..)| *bytes > 0);
    }

    /// What a child had went with it; of the target it is what there was.
    fn counts(&self, process: &super::process::Process) -> bool {
        !process.gone || process.parent.is_none()
    }

    fn holder(&self, by_pages: bool, bytes: u64, pid: u32, id: SiteId) -> Option<LiveSite> {
        let process = self.state.processes.get(&pid)?;
        let (gained, events, last_seen, series) = if by_pages {
            let account = process.pages.account(id)?;
            let touched = account.touched_pages.saturating_mul(page_bytes());
            (touched, account.faults, account.last_seen, &account.series)
        } else {
            let account = process.ledger.account(id)?;
            (
                account.committed_bytes,
                account.events,
                account.last_seen,
                &account.series,
            )
        };
        let series = series.until(monotonic_ns());
        let evidence = if by_pages {
            Evidence::Pages
        } else {
            Evidence::Mappings
        };
        Some(LiveSite {
            evidence,
            bytes,
            gained: Some(gained),
            events,
            last_seen: self.state.seconds_at(last_seen),
            series,
            ..self.site(pid, id)?
        })
    }

    fn site(&self, pid: u32, id: SiteId) -> Option<LiveSite> {
        let site = self.state.sites.get(id)?;
        Some(LiveSite {
            process: pid,
            via: site.via,
            id: site.stack,
            stack: self.state.unwinder.stack(site.stack)?.clone(),
            evidence: Evidence::Survivors,
            bytes: 0,
            gained: None,
            blocks: None,
            events: 0,
            series: Vec::new(),
            last_seen: self.state.seconds_at(site.last_seen),
            threads: threads(site),
        })
    }

    fn live_births(&self) -> LiveBirths {
        let given_up = self.births.as_ref().and_then(|births| births.given_up.clone());
        LiveBirths {
            watched: self.births.is_some(),
            not_watched: given_up.or_else(|| self.state.allocs_not_watched.clone()),
            checked: None,
            blocks: Blocks::default(),
        }
    }

    /// Adds the sites whose blocks were in use at the latest check. One block stands for those that were not in the sample,
    /// and for those that were born while nobody watched.
    fn survivors(&self, births: &mut LiveBirths, sites: &mut Vec<LiveSite>, now: Duration) {
        let Some(watched) = &self.births else { return };
        let Some((checked, followed)) = watched.latest_check() else {
            return;
        };
        births.checked = Some(checked.time.min(now));
        let mut found: Vec<(u64, u32, SiteId, Blocks, u64)> = Vec::new();
        for (pid, heap) in &self.state.heaps {
            let Some(cohorts) = &heap.cohorts else { continue };
            let watched = followed
                .since(heap.followed_before)
                .part_of(checked.since(heap.since));
            if watched <= 0.0 {
                continue;
            }
            let each = cohorts.stands_for() as f64 / watched;
            for site in cohorts.checked_so_far() {
                births.blocks.followed += site.followed;
                births.blocks.alive += site.alive;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "saturates, and is an estimate"
                )]
                let bytes = (site.alive as f64 * site.mean_bytes * each) as u64;
                let blocks = Blocks {
                    followed: site.followed,
                    alive: site.alive,
                };
                found.push((bytes, *pid, site.site, blocks, site.seen));
            }
        }
        found.retain(|(bytes, ..)| *bytes > 0);
        if found.len() > SURVIVORS_MOST {
            found.select_nth_unstable_by_key(SURVIVORS_MOST, |found| Reverse(found.0));
            found.truncate(SURVIVORS_MOST);
        }
        sites.extend(found.into_iter().filter_map(|(bytes, pid, id, blocks, seen)| {
            Some(LiveSite {
                bytes,
                blocks: Some(blocks),
                events: seen,
                ..self.site(pid, id)?
            })
        }));
    }

    fn live_sizes(&self, now: Duration) -> Sizes {
        let counts = self
            .probe
            .counts()
            .map(|counts| counts.since(&self.counts_before))
            .ok();
        let latest = self.state.series.points().last();
        Sizes {
            series: self.state.series.clone(),
            age: verdict::age(self.state.start_ticks),
            losses: verdict::losses(&self.state, counts.as_ref()),
            room: verdict::room(&self.state),
            window: now.as_secs_f64(),
            growth: self.state.grown,
            rss_bytes: latest.and_then(|point| point.totals.rss),
        }
    }

    fn live_losses(&self) -> Vec<(&'static str, u64)> {
        let mut losses = Vec::new();
        if let Ok(counts) = self.probe.counts() {
            let counts = counts.since(&self.counts_before);
            losses.extend([
                ("events", counts.lost()),
                ("page faults", counts.get(Counter::LostFaults)),
                ("births", counts.get(Counter::LostAllocs)),
            ]);
        }
        let unwinding = self.state.unwinder.losses();
        losses.extend([
            ("truncated stacks", unwinding.truncated.values().sum()),
            ("stacks over the limit", unwinding.stacks_over_cap),
            ("children not followed", self.state.children_not_sampled),
            ("samples", self.state.samples.failed()),
        ]);
        losses.retain(|(_, count)| *count > 0);
        losses
    }
}

fn keep_largest(sizes: &mut Vec<(u64, u32, SiteId)>, most: usize) {
    if sizes.len() > most {
        sizes.select_nth_unstable_by_key(most, |size| Reverse(size.0));
        sizes.truncate(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of a snapshot that grows with the target. Measured 67 ms without optimization on a busy machine.
    #[test]
    fn a_hundred_thousand_sites_are_looked_at_in_little_time() {
        let mut pages =
            crate::ledger::pages::PageLedger::new(4096, leakwatch_ebpf::wire::SAMPLE_ALL, 0, false);
        for site in 0..100_000u32 {
            for page in 0..u64::from(site % 3 + 1) {
                pages.touch((u64::from(site) * 4 + page) << 12, SiteId(site), 5);
            }
        }
        let began = Instant::now();
        let mut sizes: Vec<(u64, u32, SiteId)> =
            pages.owned().map(|(site, bytes)| (bytes, 1, site)).collect();
        assert_eq!(sizes.len(), 100_000);
        keep_largest(&mut sizes, SITES_MOST);
        let took = began.elapsed();
        println!("100,000 sites: {took:?}");
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert!(sizes.len() == SITES_MOST && sizes.iter().all(|size| size.0 == 3 * 4096));
    }

    #[test]
    fn the_largest_are_kept_however_many_there_are() {
        let mut sizes: Vec<_> = (0..100_000u32)
            .map(|site| (u64::from(site.wrapping_mul(2_654_435_761)), 1, SiteId(site)))
            .collect();
        let mut all: Vec<u64> = sizes.iter().map(|size| size.0).collect();
        all.sort_unstable_by_key(|bytes| Reverse(*bytes));
        keep_largest(&mut sizes, 400);
        let mut kept: Vec<u64> = sizes.iter().map(|size| size.0).collect();
        kept.sort_unstable_by_key(|bytes| Reverse(*bytes));
        assert_eq!(kept, all[..400]);
        let mut few = vec![(3, 1, SiteId(1)), (9, 1, SiteId(2))];
        keep_largest(&mut few, 400);
        assert_eq!(few.len(), 2);
    }
}
