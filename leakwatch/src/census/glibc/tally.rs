//! What a walk has counted so far.

use std::collections::{BTreeMap, HashMap};

use super::layout::LEAST_CHUNK;
use crate::census::watched::Found;
use crate::census::{Amount, Class, FreePages, LARGEST, What};

/// Pairs of a size and a constant that are told apart: some 2 MiB.
const CONTENTS_MAX: usize = 1 << 15;

/// Classes below this are kept in an array: nearly all chunks are small, and each one is counted.
const SMALL_BYTES: u64 = 2048;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub in_use: Amount,
    pub bins: Amount,
    pub fastbins: Amount,
    pub top: Amount,
    pub overhead_bytes: u64,
    /// The largest first, no more than are kept.
    pub largest_free: Vec<u64>,
    pub free_pages: FreePages,
    /// Asked for many blocks, so with a hash that is quick; what the target may do to it is bounded by their number.
    pub contents: HashMap<(u64, What), u64, foldhash::fast::RandomState>,
    pub constants_dropped: u64,
    /// In use, of the size of a `tcache_perthread_struct`, and not known to be anything else.
    pub tcaches: Vec<u64>,
    /// What was found at watched addresses, by their index. It goes with the tally where a window is taken back.
    pub watched: Vec<(usize, Found)>,
    small: Vec<Class>,
    large: BTreeMap<u64, Class>,
}

impl Tally {
    pub fn class(&mut self, bytes: u64) -> &mut Class {
        if bytes < SMALL_BYTES
            && let Ok(index) = usize::try_from(bytes / 16)
        {
            if self.small.len() <= index {
                self.small.resize(index + 1, Class::default());
            }
            if let Some(class) = self.small.get_mut(index) {
                return class;
            }
        }
        self.large.entry(bytes).or_default()
    }

    /// A chunk in use by the word of its neighbour.
    pub fn in_use(&mut self, bytes: u64, what: Option<What>) {
        let one = Amount { count: 1, bytes };
        self.class(bytes).in_use.add(one);
        self.in_use.add(one);
        if let Some(what) = what {
            self.content((bytes, what), 1);
        }
    }

    fn content(&mut self, of: (u64, What), count: u64) {
        let full = self.contents.len() >= CONTENTS_MAX;
        match self.contents.get_mut(&of) {
            Some(known) => *known += count,
            None if full && matches!(of.1, What::Constant(_)) => self.constants_dropped += count,
            None => drop(self.contents.insert(of, count)),
        }
    }

    /// A chunk in a fastbin: to its neighbours it is in use.
    pub fn fast(&mut self, bytes: u64) {
        let one = Amount { count: 1, bytes };
        self.class(bytes).free.add(one);
        self.fastbins.add(one);
    }

    /// A chunk in a bin.
    pub fn free(&mut self, bytes: u64) {
        let one = Amount { count: 1, bytes };
        self.class(bytes).free.add(one);
        self.bins.add(one);
        if self.largest_free.len() < LARGEST || self.largest_free.last().is_some_and(|least| *least < bytes) {
            let after = self.largest_free.partition_point(|larger| *larger >= bytes);
            self.largest_free.insert(after, bytes);
            self.largest_free.truncate(LARGEST);
        }
    }

    /// Chunks of one size that looked in use turned out to be on a list of free ones: how many did. The list was read
    /// later, and may have some that were met as free or not at all.
    pub fn are_free_after_all(&mut self, bytes: u64, count: u64) -> Amount {
        let class = self.class(bytes);
        let count = count.min(class.in_use.count);
        let amount = Amount {
            count,
            bytes: bytes.saturating_mul(count),
        };
        class.in_use.subtract(amount);
        class.free.add(amount);
        amount
    }

    pub fn merge(&mut self, mut other: Self) {
        self.in_use.add(other.in_use);
        self.bins.add(other.bins);
        self.fastbins.add(other.fastbins);
        self.top.add(other.top);
        self.overhead_bytes = self.overhead_bytes.saturating_add(other.overhead_bytes);
        self.largest_free.append(&mut other.largest_free);
        self.largest_free.sort_unstable_by(|one, next| next.cmp(one));
        self.largest_free.truncate(LARGEST);
        self.free_pages.append(std::mem::take(&mut other.free_pages));
        self.constants_dropped = self.constants_dropped.saturating_add(other.constants_dropped);
        for (of, count) in other.contents.drain() {
            self.content(of, count);
        }
        self.tcaches.append(&mut other.tcaches);
        self.watched.append(&mut other.watched);
        for (bytes, class) in other.classes() {
            let sum = self.class(bytes);
            sum.in_use.add(class.in_use);
            sum.free.add(class.free);
        }
    }

    /// Those that have chunks, by size.
    pub fn classes(&self) -> impl Iterator<Item = (u64, Class)> {
        let small = (0..).step_by(16).zip(self.small.iter().copied());
        small
            .chain(self.large.iter().map(|(bytes, class)| (*bytes, *class)))
            .filter(|(bytes, class)| *bytes >= LEAST_CHUNK && *class != Class::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_become_free_after_all_than_were_in_use() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.in_use(64, None);
        }
        tally.free(64);
        let of = |count| Amount {
            count,
            bytes: 64 * count,
        };
        assert_eq!(tally.are_free_after_all(64, 2), of(2));
        assert_eq!(tally.are_free_after_all(64, 5), of(1));
        assert_eq!(tally.are_free_after_all(96, 1), of(0));
        let class = tally.class(64);
        assert_eq!((class.in_use, class.free), (of(0), of(4)));
    }
}
