//! Where a module's constants lie, so that a word can be told to point at one. Pure.

use std::ops::Range;

/// Sorted ranges of addresses, asked for each block of a heap.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    ranges: Vec<Range<u64>>,
    /// Every range lies in one of these, on either side of the widest gap: between an executable and its libraries, where
    /// the heaps are too. Most words are ruled out by them.
    around: [Range<u64>; 2],
}

impl Constants {
    #[must_use]
    pub fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        let (mut widest, mut split, mut end) = (0, 0, 0);
        for (index, range) in ranges.iter().enumerate() {
            let gap = range.start.saturating_sub(end);
            if index > 0 && gap > widest {
                (widest, split) = (gap, index);
            }
            end = end.max(range.end);
        }
        let around = |ranges: &[Range<u64>]| {
            let start = ranges.first().map_or(0, |first| first.start);
            start..ranges.iter().map(|it| it.end).max().unwrap_or(0)
        };
        let (below, above) = ranges.split_at(split);
        Self {
            around: [around(below), around(above)],
            ranges,
        }
    }

    /// Whether an aligned word of a constant may begin at `address`.
    #[must_use]
    pub fn contain(&self, address: u64) -> bool {
        if !self.around.iter().any(|around| around.contains(&address)) || !address.is_multiple_of(8) {
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn the_same_as_by_each_range(
            ranges in proptest::collection::vec((0_u64..64, 0_u64..8), 0..8),
            address in 0_u64..80,
        ) {
            // Apart from each other, as mappings are.
            let mut end = 0;
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(gap, length)| {
                    let start = end + gap;
                    end = start + length;
                    start * 8..end * 8
                })
                .collect();
            let any = ranges.iter().any(|range| range.contains(&(address * 8)));
            prop_assert_eq!(Constants::new(ranges.clone()).contain(address * 8), any);
            prop_assert!(!Constants::new(ranges).contain(address * 8 + 4));
        }
    }
}
