//! What the allocator itself counts of its chunks with mappings of their own: in `mp_`, which no library exports.
//!
//! It lies in the same data as the main arena's state, and is found by what must hold of it: above all it tells where
//! the main heap begins. Where not exactly one place is such, as before the main heap has begun, there is no answer.

use std::ops::Range;

use super::arena::{data_mappings, read_data};
use super::layout::{Counters, Layout};
use crate::census::Amount;
use crate::census::memory::{Memory, word_at};
use crate::sampler::maps::Mapping;

/// `n_mmaps_max` where nobody set it.
const MOST_CHUNKS: u32 = 65536;
/// The target counts in steps, between which the counts contradict each other.
const TRIES: u32 = 8;

/// The chunks and the bytes of their mappings, in whole pages. `heaps` are in the order of their addresses.
///
/// 2.43 counts a header too many whenever it moves a chunk, and never takes it back. So its bytes are the least that
/// they can be after fewer than 256 moves, and too many after more.
pub fn read(
    memory: &impl Memory,
    layout: &Layout,
    mappings: &[Mapping],
    heaps: &[Range<u64>],
) -> Option<Amount> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut told = None;
    for mapping in data_mappings(mappings) {
        let bytes = read_data(memory, mapping).ok()?;
        for (address, offset) in (mapping.range.start..)
            .step_by(8)
            .zip((0..bytes.len()).step_by(8))
        {
            if !word_at(&bytes, offset).is_some_and(|word| is_start(word, heaps)) {
                continue;
            }
            for counters in layout.counters {
                let Some(sane) = (0..TRIES).find_map(|_| at(memory, layout, address, *counters, page)) else {
                    continue;
                };
                if told.replace(sane).is_some() {
                    return None;
                }
            }
        }
    }
    told
}

/// Whether a heap begins there. The break need not be aligned as chunks are, and the heap then begins a little above.
fn is_start(address: u64, heaps: &[Range<u64>]) -> bool {
    let next = heaps.partition_point(|heap| heap.start < address);
    heaps.get(next).is_some_and(|heap| heap.start - address < 16)
}

/// The counts below a field that can be `sbrk_base`, if they are such.
fn at(
    memory: &impl Memory,
    layout: &Layout,
    sbrk_base: u64,
    counters: Counters,
    page: u64,
) -> Option<Amount> {
    let mut fields = vec![0; usize::try_from(counters.chunks).ok()?];
    memory
        .fill(sbrk_base.checked_sub(counters.chunks)?, &mut fields)
        .ok()?;
    let number = |offset: usize| {
        let bytes = fields.get(offset..offset + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (count, limit, most) = (number(0)?, number(4)?, number(8)?);
    let sums = usize::try_from(counters.chunks.checked_sub(counters.bytes)?).ok()?;
    let (bytes, most_bytes) = (word_at(&fields, sums)?, word_at(&fields, sums + 8)?);
    let counts_headers = layout.mapped_unsized > 0;
    let unit = if counts_headers {
        layout.mapped_unsized
    } else {
        page
    };
    let are_counts = limit == MOST_CHUNKS
        && i32::try_from(most).is_ok()
        && count <= most
        && bytes <= most_bytes
        && bytes.is_multiple_of(unit)
        && most_bytes.is_multiple_of(unit)
        // A chunk has a page at least, and none have none.
        && bytes >= u64::from(count) * page
        && (count > 0 || bytes == 0 || counts_headers);
    are_counts.then_some(Amount {
        count: u64::from(count),
        bytes: bytes - bytes % page,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::layout;
    use super::super::tests::{Flickering, HEAP, LIBC, THREAD, amount, census, laid_out};
    use super::*;
    use crate::census::Census;
    use crate::census::memory::fake::Pieces;

    /// Behind the main arena's state.
    const MP: u64 = LIBC + 0x1000;

    /// A `malloc_par` as a release's own source has its fields, by their names.
    struct Parameters {
        bytes: Vec<u8>,
        places: Vec<(&'static str, usize, usize)>,
    }

    impl Parameters {
        fn of(minor: u32, with_huge_pages: bool) -> Self {
            let mut fields = vec![
                ("trim_threshold", 8),
                ("top_pad", 8),
                ("mmap_threshold", 8),
                ("arena_test", 8),
                ("arena_max", 8),
            ];
            if minor >= 43 {
                fields.push(("thp_mode", 4));
            }
            if with_huge_pages {
                fields.extend([("thp_pagesize", 8), ("hp_pagesize", 8), ("hp_flags", 4)]);
            }
            fields.extend([
                ("n_mmaps", 4),
                ("n_mmaps_max", 4),
                ("max_n_mmaps", 4),
                ("no_dyn_threshold", 4),
                ("mmapped_mem", 8),
                ("max_mmapped_mem", 8),
            ]);
            if minor < 24 {
                fields.push(("max_total_mem", 8));
            }
            fields.push(("sbrk_base", 8));
            let mut end = 0_usize;
            let places: Vec<_> = fields
                .into_iter()
                .map(|(name, bytes)| {
                    let start = end.next_multiple_of(bytes);
                    end = start + bytes;
                    (name, start, bytes)
                })
                .collect();
            let mut own = Self {
                bytes: vec![0; end],
                places,
            };
            own.set("trim_threshold", 128 << 10);
            own.set("mmap_threshold", 128 << 10);
            own.set("arena_test", 8);
            own.set("n_mmaps", 3);
            own.set("n_mmaps_max", 65536);
            own.set("max_n_mmaps", 4);
            own.set("mmapped_mem", 0x6000);
            own.set("max_mmapped_mem", 0x8000);
            own.set("sbrk_base", HEAP);
            own
        }

        fn place(&self, name: &str) -> usize {
            self.places.iter().find(|(of, ..)| *of == name).unwrap().1
        }

        fn set(&mut self, name: &str, value: u64) {
            let (_, start, bytes) = *self.places.iter().find(|(of, ..)| *of == name).unwrap();
            self.bytes[start..start + bytes].copy_from_slice(&value.to_ne_bytes()[..bytes]);
        }

        /// The heap that is built by hand, with these.
        fn in_heap(&self, minor: u32) -> Pieces {
            let mut memory = laid_out(&Layout::of((2, minor)).unwrap());
            self.put(&mut memory, MP);
            memory
        }

        fn put(&self, memory: &mut Pieces, address: u64) {
            let words: Vec<_> = self
                .bytes
                .chunks_exact(8)
                .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
                .collect();
            memory.put(address, &words);
        }
    }

    fn taken(memory: &impl Memory, minor: u32) -> Census {
        census(memory, &format!("2.{minor}")).unwrap_or_else(|error| panic!("2.{minor}: {error}"))
    }

    /// Three by the allocator's count, of which two begin where they can be found.
    #[track_caller]
    fn told(census: &Census) {
        let three = Amount {
            count: 3,
            bytes: 0x6000,
        };
        assert_eq!((census.mmapped, census.mmapped_unlocated), (three, 1));
        assert_eq!(census.mmapped_classes, [(0x1000, 1), (0x3000, 1)].into());
    }

    #[track_caller]
    fn by_headers(census: &Census) {
        let two = Amount {
            count: 2,
            bytes: 0x4000,
        };
        assert_eq!((census.mmapped, census.mmapped_unlocated), (two, 0));
        assert_eq!(census.mmapped_classes, [(0x1000, 1), (0x3000, 1)].into());
    }

    #[test]
    fn of_every_release() {
        for minor in layout::OLDEST.1..=layout::NEWEST.1 {
            let census = taken(&Parameters::of(minor, minor >= 35).in_heap(minor), minor);
            if minor < 19 {
                by_headers(&census);
            } else {
                told(&census);
            }
        }
        // Without tunables.
        for minor in 35..38 {
            told(&taken(&Parameters::of(minor, false).in_heap(minor), minor));
        }
        // Another release's are not read.
        by_headers(&taken(&Parameters::of(22, false).in_heap(36), 36));
        by_headers(&taken(&Parameters::of(36, true).in_heap(34), 34));
    }

    #[test]
    fn the_main_heap_may_begin_a_little_above_the_break() {
        for (sbrk_base, found) in [
            (HEAP - 15, true),
            (HEAP - 16, false),
            (HEAP + 1, false),
            (0, false),
        ] {
            let mut parameters = Parameters::of(36, true);
            parameters.set("sbrk_base", sbrk_base);
            let census = taken(&parameters.in_heap(36), 36);
            if found {
                told(&census);
            } else {
                by_headers(&census);
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_not_counted_with() {
        for (name, wrong) in [
            ("n_mmaps_max", 65535),
            ("n_mmaps_max", 0),
            ("n_mmaps", 5),
            ("n_mmaps", u64::from(u32::MAX)),
            ("n_mmaps", 7),
            ("n_mmaps", 0),
            ("max_n_mmaps", 2),
            ("max_n_mmaps", u64::from(u32::MAX)),
            ("mmapped_mem", 0x9000),
            ("mmapped_mem", 0x6010),
            ("mmapped_mem", 0x2000),
            ("max_mmapped_mem", 0x5000),
            ("max_mmapped_mem", 0x8001),
        ] {
            let mut parameters = Parameters::of(36, true);
            parameters.set(name, wrong);
            by_headers(&taken(&parameters.in_heap(36), 36));
        }
    }

    #[test]
    fn two_places_are_none() {
        let parameters = Parameters::of(36, true);
        let mut memory = parameters.in_heap(36);
        parameters.put(&mut memory, MP + 0x100);
        by_headers(&taken(&memory, 36));
        // What differs but in one thing is no second one.
        let mut other = Parameters::of(36, true);
        other.set("sbrk_base", THREAD + 0x100);
        other.put(&mut memory, MP + 0x100);
        told(&taken(&memory, 36));
    }

    /// 2.43 counts a header too many for each chunk that was moved.
    #[test]
    fn headers_that_are_counted_too_often_are_left_out() {
        for (minor, extra) in [(43, 16), (44, 0xff0)] {
            let mut parameters = Parameters::of(minor, true);
            parameters.set("mmapped_mem", 0x6000 + extra);
            told(&taken(&parameters.in_heap(minor), minor));
            // Where all are found, their headers tell.
            parameters.set("n_mmaps", 2);
            by_headers(&taken(&parameters.in_heap(minor), minor));
            parameters.set("n_mmaps", 0);
            let census = taken(&parameters.in_heap(minor), minor);
            assert_eq!((census.mmapped.count, census.mmapped_unlocated), (0, 0));
        }
    }

    /// Just when a chunk has been counted, and its bytes have not.
    #[test]
    fn counts_are_read_again() {
        let parameters = Parameters::of(36, true);
        let place = parameters.place("mmapped_mem") as u64;
        for (wrong, found) in [(4, true), (100, false)] {
            let flickering = Flickering {
                pieces: parameters.in_heap(36),
                address: MP + place,
                wrong: Cell::new(wrong),
            };
            let census = taken(&flickering, 36);
            if found {
                told(&census);
            } else {
                by_headers(&census);
            }
            assert_eq!(census.classes[&544].in_use, amount(11, 544));
        }
    }
}
