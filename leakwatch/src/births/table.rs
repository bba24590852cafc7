//! Which sampled blocks were born, and to whom.
//!
//! A block is in the sample iff its address's hash is under the threshold, so every later birth at the address is in it
//! too and the latest one that was seen owns it. Between bursts births go unseen: whether the block that stands there
//! at the end is the one that was born is for the census to say, by its size. The rate only ever falls; blocks over the
//! new threshold leave the sample.

use std::collections::HashMap;

use leakwatch_ebpf::wire::{SAMPLE_ALL, block_in_sample};

use crate::ledger::SiteId;

/// Blocks kept at most, some 100 MiB. Over it the threshold is halved.
pub const BLOCKS_MAX: usize = 1 << 20;

/// What is known of a birth when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `None` where its stack was not unwound, since its block was known to be gone by then.
    pub site: Option<SiteId>,
    /// How many births that were seen it stands for in what its site gave birth to.
    pub weight: u64,
    /// Asked for, bytes.
    pub size: u64,
    /// When the function returned, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    pub thread: u32,
    /// By its index in the target's functions.
    pub function: u32,
}

/// The block at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Born {
    /// Ever higher, in the order of births.
    pub id: u64,
    pub facts: Facts,
    /// When the block was born that has been grown or shrunk into this one, nanoseconds; else as `facts.time`.
    pub first: u64,
}

/// What a site gave birth to. Each sampled block counts for as many as it stood for when it was born: the rate falls
/// meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteBirths {
    /// Blocks, estimated.
    pub blocks: u64,
    /// Bytes asked for, estimated.
    pub bytes: u64,
    /// Sampled births, by their weights.
    pub seen: u64,
    /// Sampled blocks whose address was handed out again, or that realloc replaced: gone for certain. By their weights.
    pub gone: u64,
}

/// What could not be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Blocks that left the sample when the threshold fell.
    pub evicted: u64,
    /// How often it fell for want of room.
    pub halvings: u64,
    /// Births told of a block that is not in the sample: from before the threshold fell.
    pub out_of_sample: u64,
}

/// The sampled blocks of one process.
#[derive(Clone, Debug)]
pub struct Births {
    threshold: u64,
    blocks: HashMap<u64, Born>,
    sites: HashMap<SiteId, SiteBirths>,
    next: u64,
    blocks_max: usize,
    losses: Losses,
}

impl Births {
    /// Sampled births, whether their sites are known or not.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.next
    }

    #[must_use]
    pub fn new(threshold: u64) -> Self {
        Self::with_room(threshold, BLOCKS_MAX)
    }

    fn with_room(threshold: u64, blocks_max: usize) -> Self {
        Self {
            threshold,
            blocks: HashMap::new(),
            sites: HashMap::new(),
            next: 0,
            blocks_max,
            losses: Losses::default(),
        }
    }

    /// Which blocks are in the sample: the kernel side is to be told when it falls.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// How many blocks one of the sample stands for.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        SAMPLE_ALL / self.threshold.max(1)
    }

    /// A block was born at `address`. Returns whose was there before, which is gone.
    pub fn born(&mut self, address: u64, facts: Facts) -> Option<Born> {
        self.insert(address, facts, facts.time)
    }

    /// realloc, entered at `began` (nanoseconds), gave `new` for `old`. `new` belongs to who called it, and is as old as
    /// the block was. Returns whose was at `new` before, where that is another block.
    pub fn moved(&mut self, old: u64, new: u64, facts: Facts, began: u64) -> Option<Born> {
        let first = self.left(old, began).map_or(facts.time, |born| born.first);
        self.insert(new, facts, first)
    }

    /// realloc, entered at `began` (nanoseconds), gave a block for `old` that is not in the sample. Returns the block that
    /// was there. One that was born there since realloc gave it up stays.
    pub fn left(&mut self, old: u64, began: u64) -> Option<Born> {
        if self.blocks.get(&old).is_none_or(|born| born.facts.time > began) {
            return None;
        }
        let born = self.blocks.remove(&old)?;
        self.count_gone(&born);
        Some(born)
    }

    /// The blocks, in no order: at an address of the first who was born there last.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, &Born)> {
        self.blocks.iter().map(|(address, born)| (*address, born))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The block that was born last at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&Born> {
        self.blocks.get(&address)
    }

    /// What each site gave birth to.
    pub fn sites(&self) -> impl Iterator<Item = (SiteId, &SiteBirths)> {
        self.sites.iter().map(|(site, births)| (*site, births))
    }

    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// Forgets the block at an address.
    pub fn forget(&mut self, address: u64) {
        self.blocks.remove(&address);
    }

    /// Forgets the blocks of which `keep` does not hold: what they were born to stays told.
    pub fn retain(&mut self, mut keep: impl FnMut(u64, &Born) -> bool) {
        self.blocks.retain(|address, born| keep(*address, born));
    }

    /// Lowers the threshold. It never rises.
    pub fn lower(&mut self, threshold: u64) {
        if threshold >= self.threshold {
            return;
        }
        self.threshold = threshold;
        let before = self.blocks.len();
        self.blocks
            .retain(|address, _| block_in_sample(*address, threshold));
        self.losses.evicted += (before - self.blocks.len()) as u64;
    }

    fn insert(&mut self, address: u64, facts: Facts, first: u64) -> Option<Born> {
        if !block_in_sample(address, self.threshold) {
            self.losses.out_of_sample += 1;
            return None;
        }
        let stands_for = self.stands_for();
        if let Some(site) = facts.site {
            let account = self.sites.entry(site).or_default();
            let blocks = stands_for.saturating_mul(facts.weight);
            account.seen += facts.weight;
            account.blocks = account.blocks.saturating_add(blocks);
            account.bytes = account.bytes.saturating_add(facts.size.saturating_mul(blocks));
        }
        let id = self.next;
        self.next += 1;
        let before = self.blocks.insert(address, Born { id, facts, first });
        if let Some(before) = &before {
            self.count_gone(before);
        }
        while self.blocks.len() > self.blocks_max && self.threshold > 1 {
            self.losses.halvings += 1;
            self.lower(self.threshold / 2);
        }
        before
    }

    fn count_gone(&mut self, born: &Born) {
        if let Some(account) = born.facts.site.and_then(|site| self.sites.get_mut(&site)) {
            account.gone += born.facts.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(site: u32, time: u64) -> Facts {
        Facts {
            site: Some(SiteId(site)),
            weight: 1,
            size: 100,
            time,
            thread: 7,
            function: 0,
        }
    }

    #[test]
    fn the_latest_birth_owns_the_address() {
        let mut births = Births::new(SAMPLE_ALL);
        assert_eq!(births.born(0x1000, facts(1, 10)), None);
        let before = births.born(0x1000, facts(2, 20)).unwrap();
        assert_eq!((before.id, before.facts.site), (0, Some(SiteId(1))));
        assert_eq!(births.at(0x1000).unwrap().facts.site, Some(SiteId(2)));
        assert_eq!(births.len(), 1);
        let account = |site| *births.sites().find(|(id, _)| *id == SiteId(site)).unwrap().1;
        assert_eq!((account(1).seen, account(1).gone), (1, 1));
        assert_eq!(
            (account(2).blocks, account(2).bytes, account(2).gone),
            (1, 100, 0)
        );
    }

    #[test]
    fn realloc_hands_the_block_on_and_its_age_with_it() {
        let mut births = Births::new(SAMPLE_ALL);
        births.born(0x1000, facts(1, 10));
        assert_eq!(births.moved(0x1000, 0x2000, facts(2, 30), 25), None);
        assert_eq!(births.at(0x1000), None);
        let grown = births.at(0x2000).unwrap();
        assert_eq!((grown.facts.site, grown.first), (Some(SiteId(2)), 10));
        // In place.
        assert_eq!(births.moved(0x2000, 0x2000, facts(3, 50), 45), None);
        let grown = births.at(0x2000).unwrap();
        assert_eq!(
            (grown.facts.site, grown.first, births.len()),
            (Some(SiteId(3)), 10, 1)
        );
        // One that was not seen to be born.
        births.moved(0x9000, 0x3000, facts(2, 60), 55);
        assert_eq!(births.at(0x3000).unwrap().first, 60);
        // Out of the sample.
        assert!(births.left(0x2000, 70).is_some());
        assert_eq!(births.at(0x2000), None);
    }

    #[test]
    fn births_whose_sites_are_not_known_are_counted_by_those_that_stand_for_them() {
        let mut births = Births::new(SAMPLE_ALL / 2);
        let sampled: Vec<u64> = (1..200u64)
            .map(|block| block * 32)
            .filter(|address| block_in_sample(*address, SAMPLE_ALL / 2))
            .collect();
        let address = sampled[0];
        for time in 1..=4 {
            let site = (time == 2).then_some(SiteId(1));
            let weight = 4;
            births.born(
                address,
                Facts {
                    site,
                    weight,
                    ..facts(0, time)
                },
            );
        }
        births.born(address, facts(2, 5));
        assert_eq!((births.seen(), births.len()), (5, 1));
        let of = |site| *births.sites().find(|(id, _)| *id == SiteId(site)).unwrap().1;
        let expected = SiteBirths {
            blocks: 8,
            bytes: 800,
            seen: 4,
            gone: 4,
        };
        assert_eq!(of(1), expected);
        assert_eq!((of(2).seen, of(2).gone), (1, 0));
        assert_eq!(births.sites().count(), 2);
        // What a block was grown from has its age, whosever it was.
        births.born(
            address,
            Facts {
                site: None,
                ..facts(0, 6)
            },
        );
        births.moved(address, address, facts(3, 8), 7);
        assert_eq!(births.at(address).unwrap().first, 6);
    }

    #[test]
    fn who_is_handed_the_old_block_while_realloc_is_under_way_keeps_it() {
        let mut births = Births::new(SAMPLE_ALL);
        births.born(0x1000, facts(1, 10));
        births.born(0x1000, facts(9, 27));
        births.moved(0x1000, 0x2000, facts(2, 30), 25);
        assert_eq!(births.at(0x1000).unwrap().facts.site, Some(SiteId(9)));
        assert_eq!(births.at(0x2000).unwrap().first, 30);
    }

    #[test]
    fn over_its_room_the_sample_is_halved_by_address() {
        let mut births = Births::with_room(SAMPLE_ALL, 1000);
        for block in 0..20_000u64 {
            births.born(block * 32, facts(1, block));
        }
        let threshold = births.threshold();
        assert!(births.len() <= 1000 && births.len() > 300, "{}", births.len());
        assert!(
            births
                .blocks()
                .all(|(address, _)| block_in_sample(address, threshold))
        );
        let account = *births.sites().next().unwrap().1;
        // What was told after the threshold fell and is over it is not counted, and the rest stands for more.
        assert!(account.blocks.abs_diff(20_000) < 1500, "{account:?}");
        let losses = births.losses();
        assert_eq!(account.seen, births.len() as u64 + losses.evicted);
        assert_eq!(losses.out_of_sample + account.seen, 20_000);
        assert_eq!(1 << losses.halvings, births.stands_for());
        births.lower(SAMPLE_ALL);
        assert_eq!(births.threshold(), threshold, "it never rises");
    }
}
