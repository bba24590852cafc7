//! Who first touched which page: the sample of page faults.
//!
//! A page is in the sample iff its hash is under the threshold, so every later fault on it is in it too, its owner is
//! its latest toucher, and (sampled pages that are still there) x (1 / rate) is an unbiased estimate. The rate starts
//! at 1 and only ever falls; pages over the new threshold leave the sample.
//!
//! A fault is not yet growth. The page may have been there when the window began: copied after a fork, brought back
//! from swap, moved to another NUMA node. Those are told apart by [`Presence`], read at the start; and what of that
//! befalls a page that has an owner by now does not make it another's. Whether a page is still there is read at the
//! end: [`settle`].
//!
//! A range that is given up ends ownership at once. Made inaccessible (`PROT_NONE`) it is not: its pages stay.

mod estimate;
mod moves;
pub mod presence;
mod scale;
pub mod settle;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use leakwatch_ebpf::wire::{SAMPLE_ALL, page_in_sample};

use super::account::{SITES_MAX, Series};
use super::change::{Action, Change, How, Pages, SiteId};
use moves::Moves;
use presence::{CHUNK_PAGES, Presence};

pub use estimate::Estimate;

/// Sampled pages kept at most, some 100 MiB. Over it the threshold is halved, which thins the sample by half.
pub const PAGES_MAX: usize = 2 << 20;

/// The owner of a sampled page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub site: SiteId,
    /// When its owner touched it first, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Base pages that came with this fault: 1, or what a huge page has.
    pub weight: u32,
}

/// What a site touched in all, gone or not. Each sampled page counts for as many as it stood for when it was touched:
/// the rate falls meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct PageAccount {
    /// Base pages, estimated.
    pub touched_pages: u64,
    /// Sampled faults.
    pub faults: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    /// Weights of the sampled pages that it owns.
    owned: u64,
    /// Bytes that it owns, estimated, over time.
    pub series: Series,
}

/// What a fault meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The page is in the sample, and new in it. `alone`: no other page of its huge page's block is, so that this
    /// fault may have brought the whole block.
    New { alone: bool },
    /// The page has another owner now.
    Taken,
    /// The same owner once more, or no growth.
    Known,
    /// Not counted: before the window, or out of the sample.
    Out,
}

/// What could not be said of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageLosses {
    /// Faults on pages that were there when the window began, or that had an owner whom the fault does not change
    /// (copied after a fork, back from swap): no growth.
    pub known_pages: u64,
    /// Faults from before the window.
    pub early: u64,
    /// Faults of sites beyond the number that can have an account.
    pub over_site_limit: u64,
    /// Moved pages whose owner was not kept: too many calls under way.
    pub moves_dropped: u64,
}

/// The pages of one process.
#[derive(Clone, Debug)]
pub struct PageLedger {
    rounding: Pages,
    page_shift: u32,
    threshold: u64,
    pages: BTreeMap<u64, Touch>,
    sites: HashMap<SiteId, PageAccount>,
    /// There when the window began, and not given up since.
    before: Presence,
    before_known: bool,
    window_began: u64,
    /// The latest fork: pages from before it are shared with a child, and a fault on one may be its copying.
    forked: Option<u64>,
    /// Pages of this host come and go behind the program's back.
    keeps_owner: bool,
    moves: Moves,
    losses: PageLosses,
}

impl PageLedger {
    /// An empty sample at this threshold. `page_bytes` is the machine's page size; faults from before `window_began`
    /// (nanoseconds) are not counted. `keeps_owner`: the host swaps, or moves pages between NUMA nodes, so that a
    /// fault on a page that has an owner most likely brings it back rather than makes it.
    #[must_use]
    pub fn new(page_bytes: u64, threshold: u64, window_began: u64, keeps_owner: bool) -> Self {
        Self {
            rounding: Pages::new(page_bytes),
            page_shift: page_bytes.trailing_zeros(),
            threshold,
            pages: BTreeMap::new(),
            sites: HashMap::new(),
            before: Presence::default(),
            before_known: false,
            window_began,
            forked: None,
            keeps_owner,
            moves: Moves::default(),
            losses: PageLosses::default(),
        }
    }

    /// The pages that were there at `read` (nanoseconds). What was touched earlier is among them and of before the
    /// window; what was touched since is growth, whether or not the reading saw it already.
    pub fn set_before(&mut self, before: Presence, read: u64) {
        self.before = before;
        self.before_known = true;
        self.window_began = self.window_began.max(read);
        let early: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, touch)| touch.time < read)
            .map(|(page, _)| *page)
            .collect();
        let stands_for = self.stands_for();
        for page in early {
            if let Some(touch) = self.disown(page, read) {
                self.losses.early += 1;
                if let Some(account) = self.sites.get_mut(&touch.site) {
                    let pages = u64::from(touch.weight).saturating_mul(stands_for);
                    account.touched_pages = account.touched_pages.saturating_sub(pages);
                }
            }
        }
        for page in self.pages.keys() {
            self.before.remove(*page..page + 1);
        }
    }

    /// The process forked at `time` (nanoseconds).
    pub fn note_fork(&mut self, time: u64) {
        self.forked = Some(time);
    }

    /// Whether a fault at this address is in the sample.
    #[must_use]
    pub fn samples(&self, address: u64) -> bool {
        page_in_sample(address >> self.page_shift, self.threshold)
    }

    /// A fault at `address` (bytes) by `site` at `time` (nanoseconds).
    pub fn touch(&mut self, address: u64, site: SiteId, time: u64) -> Fault {
        let page = address >> self.page_shift;
        if time < self.window_began {
            self.losses.early += 1;
            return Fault::Out;
        }
        if !page_in_sample(page, self.threshold) {
            return Fault::Out;
        }
        if self.before.contains(page) {
            self.losses.known_pages += 1;
            return Fault::Known;
        }
        let fault = match self.pages.get(&page) {
            None => Fault::New {
                alone: self.pages.range(block_of(page)).next().is_none(),
            },
            // First read, then written; or seen twice, through two events of one thread.
            Some(touch) if touch.site == site => Fault::Known,
            Some(touch) if self.keeps_owner || self.forked.is_some_and(|forked| touch.time < forked) => {
                self.losses.known_pages += 1;
                return Fault::Known;
            }
            Some(_) => Fault::Taken,
        };
        if self.sites.len() >= SITES_MAX && !self.sites.contains_key(&site) {
            self.losses.over_site_limit += 1;
            return Fault::Out;
        }
        if fault == Fault::Taken {
            self.disown(page, time);
        }
        let stands_for = self.stands_for();
        let page_bytes = 1 << self.page_shift;
        let account = account_of(&mut self.sites, self.window_began, site, time);
        account.faults += 1;
        account.last_seen = account.last_seen.max(time);
        if fault != Fault::Known {
            account.touched_pages = account.touched_pages.saturating_add(stands_for);
            account.own(1, time, stands_for * page_bytes);
            self.pages.insert(
                page,
                Touch {
                    site,
                    time,
                    weight: 1,
                },
            );
        }
        fault
    }

    /// The fault on `page` (number) brought a huge page of `pages` base pages in.
    pub fn weigh(&mut self, page: u64, pages: u32) {
        let stands_for = self.stands_for();
        let page_bytes = 1 << self.page_shift;
        if let Some(touch) = self.pages.get_mut(&page) {
            let more = pages.saturating_sub(touch.weight);
            touch.weight += more;
            if let Some(account) = self.sites.get_mut(&touch.site) {
                let touched = u64::from(more).saturating_mul(stands_for);
                account.touched_pages = account.touched_pages.saturating_add(touched);
                account.own(i64::from(more), account.last_seen, stands_for * page_bytes);
            }
        }
    }

    /// How many pages a sampled one stands for: 1 / rate, a whole number since thresholds are powers of two.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        SAMPLE_ALL / self.threshold.max(1)
    }

    /// What a mapping call did to the pages. One that no kernel does is ignored.
    pub fn apply(&mut self, change: &Change) {
        let time = change.time;
        match &change.action {
            // Whatever is known to be there had its release lost.
            Action::Map { range, .. } => {
                if let Some(range) = self.rounding.mapping(range) {
                    self.release(&range, time);
                }
            }
            Action::BrkUp { old_end, new_end, .. } => {
                if let Some(range) = self.rounding.heap(&(*old_end..*new_end)) {
                    self.release(&range, time);
                }
            }
            Action::Release { range, how } => {
                let Some(range) = self.rounding.release(range, *how) else {
                    return;
                };
                match how {
                    How::Unmap | How::BrkDown | How::Replace | How::Discard => self.release(&range, time),
                    How::RemapFrom => self.take_away(change.thread, &range, time),
                    How::Decommit => {}
                }
            }
            Action::ReleaseFailed {
                range,
                how: How::RemapFrom,
            } => {
                self.put_down(change.thread, range.start, range.end - range.start, time);
            }
            Action::Remap { new, .. } => {
                self.put_down(change.thread, new.start, new.end.saturating_sub(new.start), time);
            }
            // The owners of pages that a failed call was taken to have given up are not known any more: at the end
            // such a page is the mapping's.
            Action::ReleaseFailed { .. } | Action::Protect { .. } => {}
        }
    }

    /// The range (bytes, whole pages) was given up: whoever touches it next owns it, also what was there before.
    fn release(&mut self, range: &Range<u64>, time: u64) {
        let pages = self.page_range(range);
        self.before.remove(pages.clone());
        let known: Vec<u64> = self.pages.range(pages).map(|(page, _)| *page).collect();
        for page in known {
            self.disown(page, time);
        }
    }

    fn disown(&mut self, page: u64, time: u64) -> Option<Touch> {
        let touch = self.pages.remove(&page)?;
        let worth = self.stands_for() << self.page_shift;
        if let Some(account) = self.sites.get_mut(&touch.site) {
            account.own(-i64::from(touch.weight), time, worth);
        }
        Some(touch)
    }

    fn page_range(&self, range: &Range<u64>) -> Range<u64> {
        let mask = (1u64 << self.page_shift) - 1;
        let end = range.end.saturating_add(mask) >> self.page_shift;
        (range.start >> self.page_shift).min(end)..end
    }

    /// Halves the rate. The sample in hand is thinned to it.
    pub fn halve(&mut self) {
        let threshold = (self.threshold / 2).max(1);
        if threshold == self.threshold {
            return;
        }
        self.threshold = threshold;
        self.pages.retain(|page, _| page_in_sample(*page, threshold));
        for account in self.sites.values_mut() {
            account.owned = 0;
        }
        for touch in self.pages.values() {
            if let Some(account) = self.sites.get_mut(&touch.site) {
                account.owned = account.owned.saturating_add(u64::from(touch.weight));
            }
        }
    }

    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Sampled pages in hand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// All sampled pages with their owners, by page number.
    pub fn owners(&self) -> impl Iterator<Item = (u64, Touch)> + '_ {
        self.pages.iter().map(|(page, touch)| (*page, *touch))
    }

    /// The sites that touched pages in the window, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = (SiteId, &PageAccount)> + '_ {
        self.sites.iter().map(|(site, account)| (*site, account))
    }

    /// Bytes of the pages in hand of a site, estimated.
    #[must_use]
    pub fn owned_bytes(&self, site: SiteId) -> u64 {
        let owned = self.sites.get(&site).map_or(0, |account| account.owned);
        owned.saturating_mul(self.stands_for() << self.page_shift)
    }

    /// The sites with the bytes of their pages in hand, estimated; in no order.
    pub fn owned(&self) -> impl Iterator<Item = (SiteId, u64)> + '_ {
        let worth = self.stands_for() << self.page_shift;
        let sites = self.sites.iter();
        sites.map(move |(site, account)| (*site, account.owned.saturating_mul(worth)))
    }

    #[must_use]
    pub fn account(&self, site: SiteId) -> Option<&PageAccount> {
        self.sites.get(&site)
    }

    /// How many of these pages (numbers) were there when the window began, and were not given up since.
    #[must_use]
    pub fn before_in(&self, pages: Range<u64>) -> u64 {
        let runs = self.before.runs(pages);
        runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether it is known what was there when the window began.
    #[must_use]
    pub fn before_known(&self) -> bool {
        self.before_known
    }

    #[must_use]
    pub fn losses(&self) -> PageLosses {
        PageLosses {
            moves_dropped: self.moves.dropped(),
            ..self.losses
        }
    }
}

impl PageAccount {
    /// Owns so many more pages (weights), each of them worth so many bytes.
    fn own(&mut self, more: i64, time: u64, worth: u64) {
        self.owned = self.owned.saturating_add_signed(more);
        self.series.push(time, self.owned.saturating_mul(worth));
    }
}

fn account_of(
    sites: &mut HashMap<SiteId, PageAccount>,
    window_began: u64,
    site: SiteId,
    time: u64,
) -> &mut PageAccount {
    sites.entry(site).or_insert_with(|| PageAccount {
        touched_pages: 0,
        faults: 0,
        first_seen: time,
        last_seen: time,
        owned: 0,
        series: Series::new(window_began),
    })
}

/// The pages of the huge page that would hold this one.
fn block_of(page: u64) -> Range<u64> {
    let start = page / CHUNK_PAGES * CHUNK_PAGES;
    start..start + CHUNK_PAGES
}
