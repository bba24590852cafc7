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

/// What a type's name was told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToldBy {
    Rtti,
    VtableSymbol,
    ConstantSymbol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    pub name: String,
    pub told_by: ToldBy,
}

#[derive(Debug)]
pub struct TypeNames;

impl TypeNames {
    pub fn new(
        _: crate::census::memory::ProcessMemory,
        _: &[Mapping],
        _: &crate::sampler::ProcRoot,
        _: u32,
    ) -> Self {
        Self
    }

    pub fn name(&mut self, _: u64) -> Option<TypeName> {
        None
    }
}
