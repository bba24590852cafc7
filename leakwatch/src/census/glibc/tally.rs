//! What a walk has counted so far.

use std::collections::BTreeMap;

use super::layout::LEAST_CHUNK;
use crate::census::{Amount, Class};

/// Classes below this are kept in an array: nearly all chunks are small, and each one is counted.
const SMALL_BYTES: u64 = 2048;

#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub in_use: Amount,
    pub bins: Amount,
    pub top: Amount,
    pub overhead_bytes: u64,
    pub largest_free_bytes: u64,
    /// In use, of the size of a `tcache_perthread_struct`, and not known to be anything else.
    pub tcaches: Vec<u64>,
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

    pub fn chunk(&mut self, bytes: u64, free: bool) {
        let one = Amount { count: 1, bytes };
        let class = self.class(bytes);
        if free {
            class.free.add(one);
            self.bins.add(one);
            self.largest_free_bytes = self.largest_free_bytes.max(bytes);
        } else {
            class.in_use.add(one);
            self.in_use.add(one);
        }
    }

    /// Chunks of one size that looked in use turned out to be on a list of free ones.
    pub fn are_free_after_all(&mut self, bytes: u64, amount: Amount) {
        let class = self.class(bytes);
        class.in_use.subtract(amount);
        class.free.add(amount);
    }

    pub fn merge(&mut self, mut other: Self) {
        self.in_use.add(other.in_use);
        self.bins.add(other.bins);
        self.top.add(other.top);
        self.overhead_bytes = self.overhead_bytes.saturating_add(other.overhead_bytes);
        self.largest_free_bytes = self.largest_free_bytes.max(other.largest_free_bytes);
        self.tcaches.append(&mut other.tcaches);
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
