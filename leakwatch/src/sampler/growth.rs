//! What grew between two readings of smaps: per mapping, per library, per kind and region. Pure.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;

use super::kind::{Kind, Purpose, purposes};
use super::maps::Mapping;
use super::region::Region;
use super::smaps::MappingSizes;

/// Sizes that grew (or shrank), bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub size: i64,
    pub rss: i64,
    pub pss: i64,
    pub private_dirty: i64,
    pub anonymous: i64,
    pub swap: i64,
}

impl Delta {
    /// The measure that ranks: anonymous memory, in RAM or swapped out.
    #[must_use]
    pub fn anonymous_and_swap(&self) -> i64 {
        self.anonymous.saturating_add(self.swap)
    }

    fn between(before: &Sizes, after: &Sizes) -> Self {
        let difference = |a: u64, b: u64| signed(b).saturating_sub(signed(a));
        Self {
            size: difference(before.size, after.size),
            rss: difference(before.rss, after.rss),
            pss: difference(before.pss, after.pss),
            private_dirty: difference(before.private_dirty, after.private_dirty),
            anonymous: difference(before.anonymous, after.anonymous),
            swap: difference(before.swap, after.swap),
        }
    }
}

impl AddAssign for Delta {
    fn add_assign(&mut self, other: Self) {
        self.size = self.size.saturating_add(other.size);
        self.rss = self.rss.saturating_add(other.rss);
        self.pss = self.pss.saturating_add(other.pss);
        self.private_dirty = self.private_dirty.saturating_add(other.private_dirty);
        self.anonymous = self.anonymous.saturating_add(other.anonymous);
        self.swap = self.swap.saturating_add(other.swap);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[derive(Clone, Copy, Default)]
struct Sizes {
    size: u64,
    rss: u64,
    pss: u64,
    private_dirty: u64,
    anonymous: u64,
    swap: u64,
}

impl Sizes {
    fn of(mapping: &MappingSizes) -> Self {
        Self {
            size: mapping.size,
            rss: mapping.rss,
            pss: mapping.pss,
            private_dirty: mapping.private_dirty,
            anonymous: mapping.anonymous,
            swap: mapping.swap,
        }
    }

    fn add(&mut self, mapping: &MappingSizes) {
        self.size = self.size.saturating_add(mapping.size);
        self.rss = self.rss.saturating_add(mapping.rss);
        self.pss = self.pss.saturating_add(mapping.pss);
        self.private_dirty = self.private_dirty.saturating_add(mapping.private_dirty);
        self.anonymous = self.anonymous.saturating_add(mapping.anonymous);
        self.swap = self.swap.saturating_add(mapping.swap);
    }
}

/// Whether a mapping was there at both readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    New,
    Gone,
    /// There before and after; it may have grown, shrunk or merged with others.
    Stayed,
}

/// One mapping, and by how much it grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingGrowth {
    /// As it was at the second reading; at the first for one that is gone.
    pub mapping: Mapping,
    pub region: Region,
    pub kind: Kind,
    pub fate: Fate,
    pub growth: Delta,
}

/// Growth of the mappings of one file, its unnamed data (`.bss`) included, or of all those of a kind that has no files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryGrowth {
    /// The path (without ` (deleted)`), or e.g. `[heap]`, `[anonymous]`, `[thread arenas]`, `[thread stacks]`. Untrusted
    /// bytes.
    pub name: Vec<u8>,
    pub mappings: u64,
    pub growth: Delta,
}

/// All of it. The parts of each list sum to `total`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Every mapping of either reading, the greatest growth first.
    pub mappings: Vec<MappingGrowth>,
    /// Likewise.
    pub libraries: Vec<LibraryGrowth>,
    /// Only regions that occur.
    pub regions: BTreeMap<Region, Delta>,
    /// Only kinds that occur.
    pub kinds: BTreeMap<Kind, Delta>,
    pub total: Delta,
}

fn library(mapping: &Mapping, purpose: Purpose<'_>) -> Vec<u8> {
    let path = purpose.file.unwrap_or_else(|| match purpose.kind {
        Kind::Heap => b"[heap]",
        Kind::Arena => b"[thread arenas]",
        Kind::Stack => b"[stack]",
        Kind::ThreadStack => b"[thread stacks]",
        Kind::Jit => b"[JIT code]",
        _ if purpose.region == Region::Anonymous => b"[anonymous]",
        _ if mapping.path.is_none() => b"[anonymous shared]",
        _ => mapping.path_bytes(),
    });
    path.strip_suffix(b" (deleted)").unwrap_or(path).to_vec()
}

/// Compares two readings. A mapping is the same one when start, path and permissions are; what is left over on both
/// sides is paired by overlap with the same path and sharing, because the kernel merges neighbours (a new anonymous
/// mapping below an old one moves its start) and `mprotect` changes permissions.
#[must_use]
pub fn growth(before: &[MappingSizes], after: &[MappingSizes]) -> Growth {
    let before_purposes = purposes(before);
    let after_purposes = purposes(after);
    let exact = |mapping: &Mapping| {
        let permissions = (
            mapping.readable,
            mapping.writable,
            mapping.executable,
            mapping.shared,
        );
        (mapping.range.start, mapping.path.clone(), permissions)
    };
    let mut unmatched: HashMap<_, _> = before
        .iter()
        .map(|sizes| (exact(&sizes.mapping), sizes))
        .collect();
    let mut rows = Vec::with_capacity(after.len());
    for (sizes, purpose) in after.iter().zip(after_purposes) {
        rows.push((
            sizes,
            purpose,
            unmatched.remove(&exact(&sizes.mapping)).map(Sizes::of),
        ));
    }

    let mut gone = Vec::new();
    // `before` is by address, and so the pairing does not depend on the map's order.
    for (sizes, purpose) in before.iter().zip(before_purposes) {
        if !unmatched
            .get(&exact(&sizes.mapping))
            .is_some_and(|left| std::ptr::eq(*left, sizes))
        {
            continue;
        }
        let first = rows.partition_point(|(after, ..)| after.mapping.range.end <= sizes.mapping.range.start);
        let heir = rows
            .iter_mut()
            .skip(first)
            .take_while(|(after, ..)| after.mapping.range.start < sizes.mapping.range.end)
            .find(|(after, ..)| same_memory(&sizes.mapping, &after.mapping));
        match heir {
            Some((_, _, earlier)) => earlier.get_or_insert_default().add(sizes),
            None => gone.push((sizes, purpose)),
        }
    }

    let mut result = Growth::default();
    let mut libraries: BTreeMap<Vec<u8>, (u64, Delta)> = BTreeMap::new();
    let stayed = rows.into_iter().map(|(sizes, purpose, earlier)| {
        let fate = if earlier.is_some() {
            Fate::Stayed
        } else {
            Fate::New
        };
        (
            sizes,
            purpose,
            fate,
            Delta::between(&earlier.unwrap_or_default(), &Sizes::of(sizes)),
        )
    });
    let gone = gone.into_iter().map(|(sizes, purpose)| {
        (
            sizes,
            purpose,
            Fate::Gone,
            Delta::between(&Sizes::of(sizes), &Sizes::default()),
        )
    });
    for (sizes, purpose, fate, growth) in stayed.chain(gone) {
        result.total += growth;
        *result.regions.entry(purpose.region).or_default() += growth;
        *result.kinds.entry(purpose.kind).or_default() += growth;
        let (count, sum) = libraries.entry(library(&sizes.mapping, purpose)).or_default();
        *count += 1;
        *sum += growth;
        result.mappings.push(MappingGrowth {
            mapping: sizes.mapping.clone(),
            region: purpose.region,
            kind: purpose.kind,
            fate,
            growth,
        });
    }
    result.mappings.sort_by(|a, b| {
        rank(&b.growth)
            .cmp(&rank(&a.growth))
            .then_with(|| a.mapping.range.start.cmp(&b.mapping.range.start))
    });
    result.libraries = libraries
        .into_iter()
        .map(|(name, (mappings, growth))| LibraryGrowth {
            name,
            mappings,
            growth,
        })
        .collect();
    result.libraries.sort_by(|a, b| {
        rank(&b.growth)
            .cmp(&rank(&a.growth))
            .then_with(|| a.name.cmp(&b.name))
    });
    result
}

/// Anonymous growth first: a file's pages come and go with the page cache.
fn rank(growth: &Delta) -> (i64, i64, i64) {
    (growth.anonymous_and_swap(), growth.rss, growth.size)
}

fn same_memory(before: &Mapping, after: &Mapping) -> bool {
    before.path == after.path
        && before.shared == after.shared
        && before.inode == after.inode
        // A reservation that became memory is new memory.
        && before.inaccessible() == after.inaccessible()
        && before.range.start < after.range.end
        && after.range.start < before.range.end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{maps, smaps};
    use super::*;

    fn sizes(line: &str, anonymous_kib: u64) -> MappingSizes {
        let size = maps::parse_line(line.as_bytes()).unwrap().range;
        let text = format!(
            "{line}\nSize: {} kB\nRss: {anonymous_kib} kB\nPss: {anonymous_kib} kB\nAnonymous: {anonymous_kib} kB\n",
            (size.end - size.start) / 1024
        );
        smaps::parse(text.as_bytes()).unwrap().mappings.remove(0)
    }

    fn kib(growth: &Growth) -> Vec<(u64, Fate, i64)> {
        growth
            .mappings
            .iter()
            .map(|row| (row.mapping.range.start, row.fate, row.growth.anonymous / 1024))
            .collect()
    }

    #[test]
    fn grown_new_gone_and_still() {
        let before = [
            sizes("10000-20000 rw-p 0 00:00 0 [heap]", 16),
            sizes("30000-40000 rw-p 0 00:00 0", 64),
            sizes("50000-60000 r--p 0 fe:00 9 /lib/a.so", 4),
        ];
        let after = [
            sizes("10000-80000 rw-p 0 00:00 0 [heap]", 400),
            sizes("90000-a0000 rw-p 0 00:00 0", 8),
            sizes("b0000-c0000 r--p 0 fe:00 9 /lib/a.so", 4),
        ];
        let growth = growth(&before, &after);
        assert_eq!(
            kib(&growth),
            [
                (0x10000, Fate::Stayed, 384),
                (0x90000, Fate::New, 8),
                (0xb0000, Fate::New, 4),
                (0x50000, Fate::Gone, -4),
                (0x30000, Fate::Gone, -64),
            ]
        );
        assert_eq!(growth.total.anonymous, (384 + 8 - 64) * 1024);
        let names: Vec<_> = growth
            .libraries
            .iter()
            .map(|l| (String::from_utf8_lossy(&l.name), l.mappings, l.growth.rss / 1024))
            .collect();
        assert_eq!(
            names,
            [
                ("[heap]".into(), 1, 384),
                ("/lib/a.so".into(), 2, 0),
                ("[anonymous]".into(), 2, -56)
            ]
        );
    }

    #[test]
    fn merged_neighbours_are_the_same_memory() {
        let before = [
            sizes("40000-50000 rw-p 0 00:00 0", 64),
            sizes("50000-60000 r--p 0 00:00 0", 4),
        ];
        let after = [sizes("20000-60000 rw-p 0 00:00 0", 128)];
        assert_eq!(kib(&growth(&before, &after)), [(0x20000, Fate::Stayed, 60)]);
    }

    #[test]
    fn new_threads_are_growth_of_stacks_and_unnamed_data_is_the_library_s() {
        let library = [
            sizes("10000-20000 r-xp 0 fe:00 9 /lib/a.so", 0),
            sizes("20000-21000 rw-p 0 fe:00 9 /lib/a.so", 4),
        ];
        let stack = |at: u64| {
            [
                sizes(&format!("{at:x}-{:x} ---p 0 00:00 0", at + 0x1000), 0),
                sizes(&format!("{:x}-{:x} rw-p 0 00:00 0", at + 0x1000, at + 0x8000), 12),
            ]
        };
        let of = |data: u64, threads: u64| {
            let mut reading = library.to_vec();
            reading.push(sizes("21000-31000 rw-p 0 00:00 0", data));
            reading.extend((0..threads).flat_map(|thread| stack(0x100_0000 + thread * 0x8000)));
            reading
        };
        let growth = growth(&of(4, 1), &of(40, 4));
        let kinds: Vec<_> = growth
            .kinds
            .iter()
            .map(|(kind, row)| (*kind, row.anonymous / 1024))
            .collect();
        assert_eq!(
            kinds,
            [
                (Kind::ThreadStack, 36),
                (Kind::LibraryData, 36),
                (Kind::File, 0),
                (Kind::Reserved, 0)
            ]
        );
        let names: Vec<_> = growth
            .libraries
            .iter()
            .map(|row| (&row.name[..], row.growth.anonymous / 1024))
            .collect();
        assert_eq!(
            names,
            [
                (&b"[thread stacks]"[..], 36),
                (b"/lib/a.so", 36),
                (b"[anonymous]", 0)
            ]
        );
    }

    fn some_mappings() -> impl Strategy<Value = Vec<MappingSizes>> {
        proptest::collection::vec((1u64..4, 1u64..5, 0u64..64, 0usize..4, 0usize..3), 0..30).prop_map(
            |rows| {
                let mut at = 0x10000;
                rows.into_iter()
                    .map(|(gap, pages, kib, path, permissions)| {
                        let start = at + (gap - 1) * 4096;
                        at = start + pages * 4096;
                        let path = ["0 ", "0 [heap]", "7 /lib/a", "8 /lib/b (deleted)"][path];
                        let permissions = ["rw-p", "r--p", "---p"][permissions];
                        sizes(&format!("{start:x}-{at:x} {permissions} 0 00:00 {path}"), kib)
                    })
                    .collect()
            },
        )
    }

    proptest! {
        #[test]
        fn every_list_sums_to_what_the_readings_differ_by(before in some_mappings(), after in some_mappings()) {
            let growth = growth(&before, &after);
            let sum = |readings: &[MappingSizes]| readings.iter().map(|s| signed(s.anonymous)).sum::<i64>();
            let truth = sum(&after) - sum(&before);
            prop_assert_eq!(growth.total.anonymous, truth);
            prop_assert_eq!(growth.mappings.iter().map(|row| row.growth.anonymous).sum::<i64>(), truth);
            prop_assert_eq!(growth.libraries.iter().map(|row| row.growth.anonymous).sum::<i64>(), truth);
            prop_assert_eq!(growth.regions.values().map(|row| row.anonymous).sum::<i64>(), truth);
            prop_assert_eq!(growth.kinds.values().map(|row| row.anonymous).sum::<i64>(), truth);
            prop_assert!(growth.mappings.is_sorted_by_key(|row| std::cmp::Reverse(row.growth.anonymous)));
        }

        #[test]
        fn nothing_changed_is_no_growth(readings in some_mappings()) {
            let growth = growth(&readings, &readings);
            prop_assert!(growth.mappings.iter().all(|row| row.growth == Delta::default() && row.fate == Fate::Stayed));
        }
    }
}
