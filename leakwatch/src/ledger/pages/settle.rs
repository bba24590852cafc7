//! The end of the window: to whom each page belongs that is there.
//!
//! Fed with the runs of anonymous pages that the process has, it counts exactly how many are new, gives each sampled
//! one to its owner, and the rest to a reason. A sampled page that nobody touched is the mapping's, if a call of the
//! window made that (it was populated, or its fault was lost); a huge page belongs to whoever touched it first.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use leakwatch_ebpf::wire::{SAMPLE_ALL, page_in_sample};

use super::presence::{CHUNK_PAGES, WORDS, by_chunk, each_word, runs_of};
use super::{Estimate, PageLedger, Touch};
use crate::ledger::{Ledger, Owner, SiteId};

/// Anonymous pages of one group of address ranges. Base pages; estimates where pages were sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Group {
    /// There at the end and not from before the window. Exact, where it is known what was there before.
    pub new_pages: u64,
    /// There when the window began, and ever since. Exact.
    pub stayed_pages: u64,
    /// Of the new ones, those of call sites with a stack.
    pub attributed: Estimate,
    /// Those of events whose stack is not known.
    pub no_stack: f64,
    /// Those in memory that appeared without an event.
    pub unseen: f64,
    /// Those that came with a huge page and whose first toucher is not known.
    pub huge: f64,
    /// Those that the program gave up lazily and that the kernel has not taken yet.
    pub freed_lazily: f64,
    /// Those in memory from before that no fault of the program brought.
    pub by_others: f64,
}

impl Group {
    /// All estimates together: on the average `new_pages`.
    #[must_use]
    pub fn estimated(&self) -> f64 {
        self.attributed.pages + self.no_stack + self.unseen + self.huge + self.freed_lazily + self.by_others
    }
}

/// What one site keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Kept {
    /// Pages that it was the last to touch first.
    pub touched: Estimate,
    /// Pages that nobody was seen to touch, in memory that it mapped.
    pub mapped: Estimate,
}

/// The whole account of one process's pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled<G> {
    pub groups: BTreeMap<G, Group>,
    pub sites: HashMap<SiteId, Kept>,
}

/// Takes the runs, one after the other.
pub struct Settlement<'a, G> {
    pages: &'a PageLedger,
    ledger: &'a Ledger,
    has_stack: &'a dyn Fn(SiteId) -> bool,
    /// Several pages can come with one fault even where none is PMD-mapped.
    multi_size: bool,
    settled: Settled<G>,
    block: Option<Block<G>>,
}

/// The pages of one chunk and group seen so far.
struct Block<G> {
    group: G,
    chunk: u64,
    present: [u64; WORDS],
    huge: [u64; WORDS],
}

impl<'a, G: Ord + Copy> Settlement<'a, G> {
    /// `has_stack` tells whether a site can be named. `multi_size`: the host has huge pages smaller than PMD size.
    #[must_use]
    pub fn new(
        pages: &'a PageLedger,
        ledger: &'a Ledger,
        has_stack: &'a dyn Fn(SiteId) -> bool,
        multi_size: bool,
    ) -> Self {
        Self {
            pages,
            ledger,
            has_stack,
            multi_size,
            settled: Settled {
                groups: BTreeMap::new(),
                sites: HashMap::new(),
            },
            block: None,
        }
    }

    /// A run of anonymous pages (numbers, ascending from call to call) that are there, resident or swapped. `huge`:
    /// PMD-mapped.
    pub fn add(&mut self, group: G, run: Range<u64>, huge: bool) {
        for (chunk, part) in by_chunk(run) {
            if self
                .block
                .as_ref()
                .is_none_or(|block| block.chunk != chunk || block.group != group)
            {
                self.flush();
                self.block = Some(Block {
                    group,
                    chunk,
                    present: [0; WORDS],
                    huge: [0; WORDS],
                });
            }
            if let Some(block) = &mut self.block {
                set(&mut block.present, part.clone());
                if huge {
                    set(&mut block.huge, part);
                }
            }
        }
    }

    #[must_use]
    pub fn finish(mut self) -> Settled<G> {
        self.flush();
        self.settled
    }

    fn flush(&mut self) {
        let Some(block) = self.block.take() else { return };
        let first = block.chunk * CHUNK_PAGES;
        let before = self.pages.before.words(block.chunk);
        let mut rest = block.present;
        let mut stayed = 0;
        for (word, before) in rest.iter_mut().zip(before) {
            stayed += u64::from((*word & before).count_ones());
            *word &= !before;
        }
        let fresh = count(&rest);
        let owners: Vec<(u64, Touch)> = self
            .pages
            .pages
            .range(first..first + CHUNK_PAGES)
            .map(|(page, touch)| (*page, *touch))
            .filter(|(page, _)| has(&rest, page - first))
            .collect();
        for (page, _) in &owners {
            clear(&mut rest, page - first);
        }
        let mut group = Group {
            new_pages: fresh,
            stayed_pages: stayed,
            ..Group::default()
        };
        if self.pages.threshold >= SAMPLE_ALL {
            self.settle_all(&block, first, &rest, &owners, &mut group);
        } else {
            self.settle_sample(&block, first, &rest, &owners, fresh, &mut group);
        }
        let sum = self.settled.groups.entry(block.group).or_default();
        sum.new_pages += group.new_pages;
        sum.stayed_pages += group.stayed_pages;
        sum.attributed.join(group.attributed);
        sum.no_stack += group.no_stack;
        sum.unseen += group.unseen;
        sum.huge += group.huge;
        sum.freed_lazily += group.freed_lazily;
        sum.by_others += group.by_others;
    }

    /// Every page is in the sample.
    fn settle_all(
        &mut self,
        block: &Block<G>,
        first: u64,
        rest: &[u64; WORDS],
        owners: &[(u64, Touch)],
        group: &mut Group,
    ) {
        for (_, touch) in owners {
            self.touched(touch.site, 1, 1, group);
        }
        for run in runs_of(rest) {
            let pages = run.end - run.start;
            let huge = has(&block.huge, run.start);
            // The pages that came along with the one that was touched.
            let toucher = (huge || self.multi_size)
                .then(|| neighbour(owners, first + run.start))
                .flatten();
            if let Some(touch) = toucher {
                for _ in 0..pages {
                    self.touched(touch.site, 1, 1, group);
                }
                continue;
            }
            for page in first + run.start..first + run.end {
                self.untouched(page, huge, 1, group);
            }
        }
    }

    /// Only some are: each stands for others.
    fn settle_sample(
        &mut self,
        block: &Block<G>,
        first: u64,
        rest: &[u64; WORDS],
        owners: &[(u64, Touch)],
        fresh: u64,
        group: &mut Group,
    ) {
        let stands_for = self.pages.stands_for();
        for (_, touch) in owners {
            // Of what came along some may have been given up since.
            let weight = touch.weight.min(u32::try_from(fresh).unwrap_or(u32::MAX)).max(1);
            self.touched(touch.site, weight, stands_for, group);
            #[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
            let came_along = (u64::from(weight - 1) * stands_for) as f64;
            // They are in the sample themselves, by their own numbers, and are counted below.
            group.huge -= came_along;
        }
        for page in runs_of(rest).into_iter().flatten() {
            if page_in_sample(first + page, self.pages.threshold) {
                self.untouched(first + page, has(&block.huge, page), stands_for, group);
            }
        }
    }

    fn touched(&mut self, site: SiteId, weight: u32, stands_for: u64, group: &mut Group) {
        self.settled
            .sites
            .entry(site)
            .or_default()
            .touched
            .add(weight, stands_for);
        self.book(site, weight, stands_for, group);
    }

    fn book(&self, site: SiteId, weight: u32, stands_for: u64, group: &mut Group) {
        let mut estimate = Estimate::default();
        estimate.add(weight, stands_for);
        if (self.has_stack)(site) {
            group.attributed.join(estimate);
        } else {
            group.no_stack += estimate.pages;
        }
    }

    /// A new page of the sample that nobody was seen to touch.
    fn untouched(&mut self, page: u64, huge: bool, stands_for: u64, group: &mut Group) {
        #[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
        let worth = stands_for as f64;
        // Its block's first toucher is not in the sample, but stands in it for all of the block.
        if huge && stands_for > 1 {
            group.huge += worth;
            return;
        }
        let piece = self.ledger.piece_at(page << self.pages.page_shift);
        match piece.map(|piece| piece.owner) {
            Some(Owner::Site(site)) => {
                self.settled
                    .sites
                    .entry(site)
                    .or_default()
                    .mapped
                    .add(1, stands_for);
                self.book(site, 1, stands_for, group);
            }
            Some(Owner::Discarded) => group.freed_lazily += worth,
            Some(Owner::Unseen) => group.unseen += worth,
            // Whether it is new at all nobody knows.
            Some(Owner::BeforeAttach) | None if !self.pages.before_known => {}
            Some(Owner::BeforeAttach) | None if huge || self.multi_size => group.huge += worth,
            Some(Owner::BeforeAttach) | None => group.by_others += worth,
        }
    }
}

/// Whose huge page it is: the owner of the nearest page before it in the block, else after it.
fn neighbour(owners: &[(u64, Touch)], page: u64) -> Option<Touch> {
    let heavy = owners.iter().find(|(_, touch)| touch.weight > 1);
    let before = owners.iter().rev().find(|(owned, _)| *owned < page);
    heavy
        .or(before)
        .or_else(|| owners.first())
        .map(|(_, touch)| *touch)
}

fn set(words: &mut [u64; WORDS], pages: Range<u64>) {
    each_word(pages, |index, mask| {
        if let Some(word) = words.get_mut(index) {
            *word |= mask;
        }
    });
}

/// `page` counts from the chunk's first.
fn has(words: &[u64; WORDS], page: u64) -> bool {
    usize::try_from(page / 64)
        .ok()
        .and_then(|index| words.get(index))
        .is_some_and(|word| word & (1 << (page % 64)) != 0)
}

fn clear(words: &mut [u64; WORDS], page: u64) {
    if let Some(word) = usize::try_from(page / 64)
        .ok()
        .and_then(|index| words.get_mut(index))
    {
        *word &= !(1 << (page % 64));
    }
}

fn count(words: &[u64; WORDS]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
