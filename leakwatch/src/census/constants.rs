//! Where a module's constants lie, so that a word can be told to point at one. Pure.

use std::ops::Range;

/// Sorted ranges of addresses, asked for each block of a heap.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    ranges: Vec<Range<u64>>,
    /// Every range lies in it: most words are ruled out by it.
    all: Range<u64>,
}

impl Constants {
    #[must_use]
    pub fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        let all =
            ranges.first().map_or(0, |first| first.start)..ranges.iter().map(|it| it.end).max().unwrap_or(0);
        Self { ranges, all }
    }

    /// Whether an aligned word of a constant may begin at `address`.
    #[must_use]
    pub fn contain(&self, address: u64) -> bool {
        if !self.all.contains(&address) || !address.is_multiple_of(8) {
            return false;
        }
        let after = self.ranges.partition_point(|range| range.start <= address);
        after
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .is_some_and(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_inside_and_between() {
        let constants = Constants::new(vec![0x3000..0x4000, 0x1000..0x2000]);
        let told = [
            0xff8, 0x1000, 0x1ff8, 0x1ff9, 0x2000, 0x2800, 0x3000, 0x3ff8, 0x4000,
        ];
        let found: Vec<u64> = told.into_iter().filter(|it| constants.contain(*it)).collect();
        assert_eq!(found, [0x1000, 0x1ff8, 0x3000, 0x3ff8]);
        assert!(!Constants::default().contain(0));
    }
}
