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
}

impl Places {
    pub fn of(mappings: &[Mapping]) -> Self {
        let modules: HashSet<Identity> = mappings
            .iter()
            .filter(|it| it.executable && it.inode != 0)
            .map(identity)
            .collect();
        let of_module =
            |it: &Mapping| it.readable && !it.shared && it.inode != 0 && modules.contains(&identity(it));
        let (mut read_only, mut writable, mut code) = (Vec::new(), Vec::new(), Vec::new());
        let mut before: [Option<&Mapping>; 2] = [None; 2];
        for mapping in mappings {
            if mapping.executable {
                code.push(mapping.range.clone());
            }
            if of_module(mapping) {
                if mapping.writable {
                    if !has_relro(before, mapping) {
                        writable.push(mapping.range.clone());
                    }
                } else if !mapping.executable || mapping.offset == 0 {
                    // Newer linkers give the code a mapping of its own, after that of the headers.
                    read_only.push(mapping.range.clone());
                }
            }
            before = [before[1], Some(mapping)];
        }
        writable.extend_from_slice(&read_only);
        Self {
            constant: Ranges::of(writable),
            read_only: Ranges::of(read_only),
            code: Ranges::of(code),
        }
    }
}

/// Whether a module's variables certainly have their constants apart (RELRO): then these are a mapping that was split
/// off before them, so that memory and file go on without a break, and that follows the one of the read-only data.
///
/// Without the latter it could be the read-only data itself. Then a module with RELRO is taken for one without, which
/// costs some time and no truth.
fn has_relro([first, second]: [Option<&Mapping>; 2], variables: &Mapping) -> bool {
    let (Some(data), Some(constants)) = (first, second) else {
        return false;
    };
    let of_the_module = |it: &Mapping| identity(it) == identity(variables) && it.readable && !it.writable;
    let bytes = constants.range.end.wrapping_sub(constants.range.start);
    of_the_module(data)
        && (!data.executable || data.offset == 0)
        && data.range.end == constants.range.start
        && of_the_module(constants)
        && !constants.executable
        && constants.range.end == variables.range.start
        && constants.offset.wrapping_add(bytes) == variables.offset
}
