//! Regions: the kinds of memory that the account tells apart. Pure.

use std::ops::Range;

use super::maps::Mapping;
use super::smaps::MappingSizes;

/// glibc aligns the heaps of its thread arenas to their greatest size (`HEAP_MAX_SIZE`).
const ARENA_BYTES: u64 = 64 << 20;

/// What a mapping is for, as far as /proc tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Region {
    /// The brk heap.
    Heap,
    /// Private memory without a file.
    Anonymous,
    /// A heap of a glibc thread arena: anonymous, 64 MiB-aligned, its rest a `---p` reservation behind it.
    Arena,
    /// The main thread's stack or any other mapping that grows downward. Stacks of other threads are plain mmap
    /// memory and count as anonymous: nothing in /proc tells them apart.
    Stack,
    /// A private mapping of a file. Its anonymous part is what was written to.
    File,
    Shared,
    /// vDSO and the like.
    Other,
}

impl Region {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Anonymous => "anonymous",
            Self::Arena => "arena",
            Self::Stack => "stack",
            Self::File => "file",
            Self::Shared => "shared",
            Self::Other => "other",
        }
    }
}

/// The region of each mapping, in the order given (by address: an arena is told by its neighbour).
#[must_use]
pub fn regions(mappings: &[MappingSizes]) -> Vec<Region> {
    let next = mappings.iter().skip(1).map(Some).chain([None]);
    mappings
        .iter()
        .zip(next)
        .map(|(sizes, next)| region(sizes, next))
        .collect()
}

fn region(sizes: &MappingSizes, next: Option<&MappingSizes>) -> Region {
    let mapping = &sizes.mapping;
    let path = mapping.path_bytes();
    if mapping.shared || path.starts_with(b"[anon_shmem:") {
        Region::Shared
    } else if path == b"[heap]" {
        Region::Heap
    } else if path.starts_with(b"[stack") || sizes.vm_flags.has(*b"gd") {
        Region::Stack
    } else if mapping.inode != 0 || path.starts_with(b"/") {
        Region::File
    } else if !path.is_empty() && !path.starts_with(b"[anon:") {
        Region::Other
    } else if arena(mapping, next.map(|next| &next.mapping)) {
        Region::Arena
    } else {
        Region::Anonymous
    }
}

fn arena(mapping: &Mapping, next: Option<&Mapping>) -> bool {
    let Range { start, end } = mapping.range;
    if !start.is_multiple_of(ARENA_BYTES) || !mapping.writable || end - start > ARENA_BYTES {
        return false;
    }
    // A heap that is used up has no reservation left.
    end - start == ARENA_BYTES
        || next.is_some_and(|next| {
            next.inaccessible()
                && next.inode == 0
                && next.range.start == end
                && next.range.end - start <= ARENA_BYTES
        })
}

/// Looks the region of an address up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionMap(Vec<(Range<u64>, Region)>);

impl RegionMap {
    /// From a reading, by address.
    #[must_use]
    pub fn new(mappings: &[MappingSizes]) -> Self {
        let ranges = mappings.iter().map(|sizes| sizes.mapping.range.clone());
        Self(ranges.zip(regions(mappings)).collect())
    }

    /// `None` where nothing is mapped.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<Region> {
        let after = self.0.partition_point(|(range, _)| range.end <= address);
        self.0
            .get(after)
            .filter(|(range, _)| range.contains(&address))
            .map(|&(_, region)| region)
    }
}

#[cfg(test)]
mod tests {
    use super::super::smaps;
    use super::*;

    fn sizes(line: &str) -> MappingSizes {
        smaps::parse(line.as_bytes()).unwrap().mappings.remove(0)
    }

    #[test]
    fn an_arena_is_told_by_its_alignment_and_its_reservation() {
        let of = |lines: &[&str]| regions(&lines.iter().map(|line| sizes(line)).collect::<Vec<_>>());
        assert_eq!(
            of(&[
                "7f0000000000-7f0000021000 rw-p 0 00:00 0",
                "7f0000021000-7f0004000000 ---p 0 00:00 0"
            ]),
            [Region::Arena, Region::Anonymous]
        );
        assert_eq!(of(&["7f0000000000-7f0004000000 rw-p 0 00:00 0"]), [Region::Arena]);
        // Not aligned; aligned without a reservation; too large.
        assert_eq!(
            of(&[
                "7f0000001000-7f0000021000 rw-p 0 00:00 0",
                "7f0000021000-7f0004000000 ---p 0 00:00 0"
            ])[0],
            Region::Anonymous
        );
        assert_eq!(
            of(&["7f0000000000-7f0000021000 rw-p 0 00:00 0"]),
            [Region::Anonymous]
        );
        assert_eq!(
            of(&["7f0000000000-7f0004001000 rw-p 0 00:00 0"]),
            [Region::Anonymous]
        );
    }

    #[test]
    fn each_region_by_its_line() {
        let of = |line: &str| regions(&[sizes(line)])[0];
        assert_eq!(of("1000-2000 rw-p 0 00:00 0 [heap]"), Region::Heap);
        assert_eq!(of("1000-2000 rw-p 0 00:00 0 [stack]"), Region::Stack);
        assert_eq!(of("1000-2000 rw-p 0 00:00 0 [anon:pool]"), Region::Anonymous);
        assert_eq!(of("1000-2000 r-xp 0 00:00 0 [vdso]"), Region::Other);
        assert_eq!(of("1000-2000 rw-p 0 fe:01 5 /x (deleted)"), Region::File);
        assert_eq!(of("1000-2000 rw-s 0 00:01 5 /dev/zero (deleted)"), Region::Shared);
    }

    #[test]
    fn an_address_has_the_region_of_its_mapping() {
        let map = RegionMap::new(&[
            sizes("1000-3000 rw-p 0 00:00 0 [heap]"),
            sizes("3000-4000 rw-p 0 00:00 0"),
        ]);
        let at = [0xfff, 0x1000, 0x2fff, 0x3000, 0x4000].map(|address| map.at(address));
        let (heap, anonymous) = (Some(Region::Heap), Some(Region::Anonymous));
        assert_eq!(at, [None, heap, heap, anonymous, None]);
    }
}
