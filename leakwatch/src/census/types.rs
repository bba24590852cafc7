//! What class a block is an object of.

use std::ops::Range;

use crate::sampler::maps::Mapping;

/// Where vtables lie.
#[must_use]
pub fn constant_ranges(mappings: &[Mapping]) -> Vec<Range<u64>> {
    mappings
        .iter()
        .filter(|it| it.inode != 0 && it.readable && !it.writable && !it.shared)
        .map(|it| it.range.clone())
        .collect()
}
