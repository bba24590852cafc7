//! What marks a block that lies in a tcache.
//!
//! Since 2.29 the second word that its user had tells the allocator that it has been freed already: the address of the
//! thread's tcache, and since 2.34 a number that is drawn once for the process. Older releases have no such mark.
//!
//! A number drawn at random is nowhere in the process where it could be told from any other. So it is learned from the
//! blocks met on the lists.

use std::collections::BTreeMap;

use super::layout::{Layout, Links};

/// Words that are told apart.
const KEYS_MAX: usize = 4096;
/// No user's address lies here or above, so a pointer in a user's data is not taken for a key; of all numbers drawn one
/// in 65,536 is below.
const LEAST_DRAWN: u64 = 1 << 48;

/// Second words of the blocks met in tcaches.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Tcaches whose blocks are marked with their address.
    tcaches: Vec<u64>,
    /// How often any other word was met.
    others: BTreeMap<u64, u64>,
    blocks: u64,
}

impl Keys {
    /// A block was met in a tcache, which is at `tcache` to its thread.
    pub fn met(&mut self, word: u64, tcache: u64) {
        self.add(word, tcache, 1);
    }

    fn add(&mut self, word: u64, tcache: u64, count: u64) {
        self.blocks += count;
        if word == tcache {
            // The blocks of one tcache come one after the other.
            if self.tcaches.last() != Some(&tcache) && self.tcaches.len() < KEYS_MAX {
                self.tcaches.push(tcache);
            }
        } else {
            self.count(word, count);
        }
    }

    fn count(&mut self, word: u64, count: u64) {
        if self.others.len() < KEYS_MAX || self.others.contains_key(&word) {
            *self.others.entry(word).or_default() += count;
        }
    }

    pub fn append(&mut self, mut other: Self) {
        self.blocks += other.blocks;
        self.tcaches.append(&mut other.tcaches);
        self.tcaches.dedup();
        self.tcaches.truncate(KEYS_MAX);
        for (word, count) in other.others {
            self.count(word, count);
        }
    }

    /// The keys of a heap, in order. A word that most blocks have was drawn, where the release may draw one; a few
    /// blocks can have been taken by their users since their list was read.
    pub fn learned(mut self, layout: &Layout) -> Vec<u64> {
        let draws = layout.links == Links::Mangled;
        let drawn = self
            .others
            .iter()
            .find(|(word, count)| **count > self.blocks / 2 && **word >= LEAST_DRAWN);
        if let Some((word, _)) = drawn.filter(|_| draws) {
            return vec![*word];
        }
        self.tcaches.sort_unstable();
        self.tcaches.dedup();
        self.tcaches
    }
}
