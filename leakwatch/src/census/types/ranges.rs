//! Which parts of an address space may hold what.

use std::collections::HashSet;
use std::ops::Range;

use crate::sampler::maps::Mapping;

/// Addresses: sorted, disjoint, not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn of(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    pub fn into_ranges(self) -> Vec<Range<u64>> {
        self.0
    }

    /// How many bytes are in one range from `address` on; 0 where it is in none.
    pub fn room(&self, address: u64) -> u64 {
        let after = self.0.partition_point(|range| range.start <= address);
        after
            .checked_sub(1)
            .and_then(|index| self.0.get(index))
            .map_or(0, |range| range.end.saturating_sub(address))
    }

    /// Whether all these bytes are in one range.
    pub fn hold(&self, address: u64, bytes: u64) -> bool {
        self.room(address) >= bytes
    }
}

/// What makes two mappings the same file.
pub type Identity = ((u32, u32), u64);

pub fn identity(mapping: &Mapping) -> Identity {
    (mapping.device, mapping.inode)
}

/// The parts of a process's address space that matter here.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// See [`super::constant_ranges`].
    pub constant: Ranges,
    /// Those of them that cannot be written: names are there.
    pub read_only: Ranges,
    /// What can be executed, files or not.
    pub code: Ranges,
    /// Files with code.
    modules: HashSet<Identity>,
}

impl Places {
    pub fn of(mappings: &[Mapping]) -> Self {
        let ranges = |wanted: &dyn Fn(&Mapping) -> bool| {
            Ranges::of(
                mappings
                    .iter()
                    .filter(|it| wanted(it))
                    .map(|it| it.range.clone())
                    .collect(),
            )
        };
        let mut places = Self {
            modules: mappings
                .iter()
                .filter(|it| it.executable && it.inode != 0)
                .map(identity)
                .collect(),
            code: ranges(&|it| it.executable),
            ..Self::default()
        };
        places.constant = ranges(&|it| places.is_constant(it));
        places.read_only = ranges(&|it| places.is_constant(it) && !it.writable);
        places
    }

    /// Whether constants can lie in this mapping.
    pub fn is_constant(&self, mapping: &Mapping) -> bool {
        mapping.readable
            && !mapping.shared
            && mapping.inode != 0
            && self.modules.contains(&identity(mapping))
            // Newer linkers have a mapping of its own for the code, with the headers before it.
            && (!mapping.executable || mapping.offset == 0)
    }
}
