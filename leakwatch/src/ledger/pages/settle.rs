//! The end of the window: to whom each page belongs that is there.
//!
//! Fed with the runs of anonymous pages that the process has, it counts exactly how many are new, gives each sampled
//! one to its owner, and the rest to a reason. A sampled page that nobody touched is the mapping's, if a call of the
//! window made that (it was populated, or its fault was lost); a huge page belongs to whoever touched it first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use leakwatch_ebpf::wire::{SAMPLE_ALL, page_in_sample};

use super::presence::{CHUNK_PAGES, WORDS, by_chunk, each_word, runs_of};
use super::scale::{Drawn, Scale, ratio, whole};
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
    /// Pages that it was the last to touch first, in arenas: no part of `touched`.
    pub in_arenas: Estimate,
}

/// The whole account of one process's pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled<G> {
    pub groups: BTreeMap<G, Group>,
    pub sites: HashMap<SiteId, Kept>,
}

impl<G: Ord> Settled<G> {
    /// With what was settled of other groups of the same process.
    pub fn join(&mut self, other: Self) {
        self.groups.extend(other.groups);
        for (site, kept) in other.sites {
            let sum = self.sites.entry(site).or_default();
            sum.touched.join(kept.touched);
            sum.mapped.join(kept.mapped);
            sum.in_arenas.join(kept.in_arenas);
        }
    }
}

/// Takes the runs, one after the other.
pub struct Settlement<'a, G> {
    pages: &'a PageLedger,
    ledger: &'a Ledger,
    has_stack: &'a dyn Fn(SiteId) -> bool,
    /// Who mapped arenas, in which whoever touched a page first is not its keeper.
    arenas: Option<&'a HashSet<SiteId>>,
    /// Several pages can come with one fault even where none is PMD-mapped.
    multi_size: bool,
    groups: BTreeMap<G, Seen>,
    sites: HashMap<SiteId, SiteSeen>,
    /// Huge pages of a sample, by who mapped their memory.
    strata: BTreeMap<Option<SiteId>, Stratum<G>>,
    block: Option<Block<G>>,
}

/// The pages of one chunk and group seen so far.
struct Block<G> {
    group: G,
    chunk: u64,
    present: [u64; WORDS],
    huge: [u64; WORDS],
}

/// Sampled pages of one site, not yet scaled.
#[derive(Clone, Copy, Default)]
struct SiteSeen {
    touched: Drawn,
    mapped: Drawn,
    in_arenas: Drawn,
}

/// Huge pages in the memory that one site mapped in the window, or in all other memory. What is drawn of them says
/// whose they are; where nothing is drawn they are the mapper's.
struct Stratum<G> {
    pages: BTreeMap<G, u64>,
    touches: HashMap<SiteId, Drawn>,
}

impl<G> Default for Stratum<G> {
    fn default() -> Self {
        Self {
            pages: BTreeMap::new(),
            touches: HashMap::new(),
        }
    }
}

/// Pages of one group: the whole population, and what of the sample is whose.
#[derive(Clone, Copy, Default)]
struct Seen {
    stayed: u64,
    new_base: u64,
    new_huge: u64,
    attributed: Drawn,
    no_stack: Drawn,
    unseen: Drawn,
    freed_lazily: Drawn,
    by_others: Drawn,
    huge_alone: u64,
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
            arenas: None,
            multi_size,
            groups: BTreeMap::new(),
            sites: HashMap::new(),
            strata: BTreeMap::new(),
            block: None,
        }
    }

    /// With the call sites that mapped arenas.
    #[must_use]
    pub fn with_arenas(mut self, arenas: Option<&'a HashSet<SiteId>>) -> Self {
        self.arenas = arenas;
        self
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

    /// Scales what was drawn up to what is there.
    #[must_use]
    pub fn finish(mut self) -> Settled<G> {
        self.flush();
        let stands_for = self.pages.stands_for();
        let known = self.pages.before_known;
        let all = self
            .groups
            .values()
            .fold(Seen::default(), |all, seen| all.join(seen));
        let drawn = all.base_drawn();
        let scale = Scale::of(stands_for, known.then_some(all.new_base), drawn, drawn);
        let attributed = scale.base(all.attributed);
        let mut groups: BTreeMap<G, Group> = self
            .groups
            .iter()
            .map(|(group, seen)| {
                let mut own = scale.base(seen.attributed);
                // The groups' shares of one sample are no independent draws.
                own.variance = attributed.variance * ratio(own.pages, attributed.pages);
                let group_of = Group {
                    new_pages: seen.new_base + seen.new_huge,
                    stayed_pages: seen.stayed,
                    attributed: own,
                    no_stack: scale.pages(seen.no_stack.base),
                    unseen: scale.pages(seen.unseen.base),
                    huge: scale.pages(whole(seen.huge_alone)),
                    freed_lazily: scale.pages(seen.freed_lazily.base),
                    by_others: scale.pages(seen.by_others.base),
                };
                (*group, group_of)
            })
            .collect();
        let mut sites: HashMap<SiteId, Kept> = self
            .sites
            .iter()
            .map(|(site, seen)| {
                let kept = Kept {
                    touched: scale.base(seen.touched),
                    mapped: scale.base(seen.mapped),
                    in_arenas: scale.base(seen.in_arenas),
                };
                (*site, kept)
            })
            .collect();
        for (mapper, stratum) in &self.strata {
            self.settle_stratum(*mapper, stratum, &mut groups, &mut sites);
        }
        Settled { groups, sites }
    }

    fn settle_stratum(
        &self,
        mapper: Option<SiteId>,
        stratum: &Stratum<G>,
        groups: &mut BTreeMap<G, Group>,
        sites: &mut HashMap<SiteId, Kept>,
    ) {
        let pages: u64 = stratum.pages.values().sum();
        let drawn = stratum
            .touches
            .values()
            .fold(Drawn::default(), |sum, drawn| sum.and(*drawn));
        // Memory of the window is new as a whole.
        let population = (self.pages.before_known || mapper.is_some()).then_some(pages);
        let scale = Scale::of(self.pages.stands_for(), population, drawn.huge, drawn.huge_faults);
        let mut named = Estimate::default();
        let mut nameless = 0.0;
        let mut give = |site: SiteId, estimate: Estimate| {
            if (self.has_stack)(site) {
                named.join(estimate);
            } else {
                nameless += estimate.pages;
            }
        };
        if stratum.touches.is_empty()
            && let Some(site) = mapper
        {
            let estimate = Estimate {
                pages: whole(pages),
                variance: 0.0,
            };
            sites.entry(site).or_default().mapped.join(estimate);
            give(site, estimate);
        }
        for (site, drawn) in &stratum.touches {
            let estimate = scale.huge(*drawn);
            let kept = sites.entry(*site).or_default();
            if self.is_arena_of(mapper) {
                kept.in_arenas.join(estimate);
            } else {
                kept.touched.join(estimate);
            }
            give(*site, estimate);
        }
        for (group, own) in &stratum.pages {
            let Some(group) = groups.get_mut(group) else {
                continue;
            };
            let part = ratio(whole(*own), whole(pages));
            group.attributed.join(Estimate {
                pages: named.pages * part,
                variance: named.variance * part,
            });
            group.no_stack += nameless * part;
            if population.is_some() {
                group.huge += whole(*own) - (named.pages + nameless) * part;
            }
        }
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
        // Every page in the sample: none has to stand for others. A block is huge as a whole or not at all: one that was
        // split since is like any other.
        let huge = self.pages.threshold < SAMPLE_ALL && count(&block.huge) > 0;
        let mut seen = Seen {
            stayed,
            ..Seen::default()
        };
        if huge {
            seen.new_huge = fresh;
            self.draw_huge(&block, first, fresh, &owners);
        } else {
            seen.new_base = fresh;
            for (page, touch) in &owners {
                self.touched(*page, touch.site, &mut seen);
            }
            for run in runs_of(&rest) {
                self.untouched_run(&block, first, &run, &owners, &mut seen);
            }
        }
        let sum = self.groups.entry(block.group).or_default();
        *sum = sum.join(&seen);
    }

    /// New pages that nobody was seen to touch; `run` counts from the chunk's first page.
    fn untouched_run(
        &mut self,
        block: &Block<G>,
        first: u64,
        run: &Range<u64>,
        owners: &[(u64, Touch)],
        seen: &mut Seen,
    ) {
        let huge = has(&block.huge, run.start);
        // The pages that came along with one that was touched: known of a block that came whole, likely at least where
        // every touch is known.
        let whole_block = owners.iter().find(|(_, touch)| touch.weight > 1);
        let near = (huge || self.multi_size) && self.pages.threshold >= SAMPLE_ALL;
        let along = whole_block
            .map(|(_, touch)| *touch)
            .or_else(|| near.then(|| neighbour(owners, first + run.start)).flatten());
        for page in first + run.start..first + run.end {
            if !page_in_sample(page, self.pages.threshold) {
                continue;
            }
            match along {
                Some(touch) => self.touched(page, touch.site, seen),
                None => self.untouched(page, huge || self.multi_size, seen),
            }
        }
    }

    /// A block of huge pages. One mapping has it all, but for rare cases.
    fn draw_huge(&mut self, block: &Block<G>, first: u64, fresh: u64, owners: &[(u64, Touch)]) {
        let page = runs_of(&block.present)
            .first()
            .map_or(first, |run| first + run.start);
        let mapper = self.mapper_of(page);
        let stratum = self.strata.entry(mapper).or_default();
        *stratum.pages.entry(block.group).or_default() += fresh;
        for (_, touch) in owners {
            // Of what came along some may have been given up since.
            let weight = u64::from(touch.weight).min(fresh);
            stratum
                .touches
                .entry(touch.site)
                .or_default()
                .join(Drawn::of_huge(weight));
        }
    }

    /// Who mapped the page's memory in the window.
    fn mapper_of(&self, page: u64) -> Option<SiteId> {
        let piece = self.ledger.piece_at(page << self.pages.page_shift);
        match piece.map(|piece| piece.owner) {
            Some(Owner::Site(site)) => Some(site),
            _ => None,
        }
    }

    fn is_arena_of(&self, mapper: Option<SiteId>) -> bool {
        let arenas = self.arenas.zip(mapper);
        arenas.is_some_and(|(arenas, mapper)| arenas.contains(&mapper))
    }

    /// A new page of the sample.
    fn touched(&mut self, page: u64, site: SiteId, seen: &mut Seen) {
        let one = Drawn::of_base(1);
        let in_arena = self.arenas.is_some() && self.is_arena_of(self.mapper_of(page));
        let of = self.sites.entry(site).or_default();
        if in_arena {
            of.in_arenas.join(one);
        } else {
            of.touched.join(one);
        }
        self.book(site, one, seen);
    }

    fn book(&self, site: SiteId, drawn: Drawn, seen: &mut Seen) {
        if (self.has_stack)(site) {
            seen.attributed.join(drawn);
        } else {
            seen.no_stack.join(drawn);
        }
    }

    /// A new page of the sample that nobody was seen to touch.
    fn untouched(&mut self, page: u64, may_be_huge: bool, seen: &mut Seen) {
        let one = Drawn::of_base(1);
        let piece = self.ledger.piece_at(page << self.pages.page_shift);
        match piece.map(|piece| piece.owner) {
            Some(Owner::Site(site)) => {
                self.sites.entry(site).or_default().mapped.join(one);
                self.book(site, one, seen);
            }
            Some(Owner::Discarded) => seen.freed_lazily.join(one),
            Some(Owner::Unseen) => seen.unseen.join(one),
            // Whether it is new at all nobody knows.
            Some(Owner::BeforeAttach) | None if !self.pages.before_known => {
                seen.new_base = seen.new_base.saturating_sub(1);
            }
            Some(Owner::BeforeAttach) | None if may_be_huge => seen.huge_alone += 1,
            Some(Owner::BeforeAttach) | None => seen.by_others.join(one),
        }
    }
}

impl Seen {
    fn join(&self, other: &Self) -> Self {
        Self {
            stayed: self.stayed + other.stayed,
            new_base: self.new_base + other.new_base,
            new_huge: self.new_huge + other.new_huge,
            attributed: self.attributed.and(other.attributed),
            no_stack: self.no_stack.and(other.no_stack),
            unseen: self.unseen.and(other.unseen),
            freed_lazily: self.freed_lazily.and(other.freed_lazily),
            by_others: self.by_others.and(other.by_others),
            huge_alone: self.huge_alone + other.huge_alone,
        }
    }

    /// Sampled pages of blocks that are not huge.
    fn base_drawn(&self) -> f64 {
        self.attributed.base
            + self.no_stack.base
            + self.unseen.base
            + self.freed_lazily.base
            + self.by_others.base
            + whole(self.huge_alone)
    }
}

/// Whose huge page it is: the owner of the nearest page before it in the block, else after it.
fn neighbour(owners: &[(u64, Touch)], page: u64) -> Option<Touch> {
    let before = owners.iter().rev().find(|(owned, _)| *owned < page);
    before.or_else(|| owners.first()).map(|(_, touch)| *touch)
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
