//! What differs from release to release, and heaps that lie otherwise than usual, built by hand.

use super::layout::{self, LEAST_CHUNK, Layout, Links, NON_MAIN_ARENA, NONCONTIGUOUS, PREV_INUSE};
use super::tests::{
    HEAP, HEAP_BYTES, Heap, MAPPED, STATE, THREAD, amount, census, laid_out, limits, mappings,
};
use crate::census::memory::Memory;
use crate::census::memory::fake::Pieces;
use crate::census::{Amount, Census, NotTaken};
use crate::sampler::maps::{Mapping, parse_line};

fn of(minor: u32) -> Layout {
    Layout::of((2, minor)).unwrap()
}

fn mapped(lines: &[&str]) -> Vec<Mapping> {
    let lines = lines.iter().map(|line| parse_line(line.as_bytes()).unwrap());
    mappings().into_iter().chain(lines).collect()
}

fn taken(memory: &impl Memory, minor: u32, mappings: &[Mapping]) -> Result<Census, NotTaken> {
    super::take(memory, &of(minor), mappings, limits(), &[])
}

#[track_caller]
fn adds_up(census: &Census) {
    for arena in &census.arenas {
        let sum = arena.in_use.bytes + arena.free.bytes() + arena.overhead_bytes;
        assert_eq!(sum, arena.system_bytes, "{arena:?}");
    }
}

/// The 2.28 of RHEL 8 has the tcache of 2.30 and the links of 2.32; an older build of it has only the tcache.
#[test]
fn what_a_distribution_brought_from_a_later_release_is_told_by_the_heap() {
    for (tcaches, links) in [
        (of(30).tcaches, Links::Mangled),
        (of(30).tcaches, Links::Plain),
        (of(28).tcaches, Links::Mangled),
    ] {
        let memory = laid_out(&Layout {
            tcaches,
            links,
            ..of(28)
        });
        let census = census(&memory, "2.28").unwrap();
        assert_eq!(census.free.tcache, amount(2, 48), "{links:?}");
        assert_eq!(census.free.fastbins, amount(3, 64), "{links:?}");
        assert_eq!(census.broken_lists, 0);
        adds_up(&census);
    }
    // From 2.32 on there is no doubt, and the wrong links lead nowhere.
    let plain = Layout {
        links: Links::Plain,
        ..of(36)
    };
    assert!(census(&laid_out(&plain), "2.36").unwrap().broken_lists > 0);
}

/// A bin of chunks from 1056 to 2032 bytes, and one of chunks with mappings of their own, as a tuned tcache has them.
#[test]
fn large_chunks_in_a_tcache_count_with_their_own_sizes() {
    for minor in [42, 43] {
        let layout = of(minor);
        let mut memory = laid_out(&layout);
        let mut heap = Heap {
            memory: &mut memory,
            at: HEAP,
            previous: None,
            flags: 0,
        };
        let tcache = heap.chunk(layout.tcaches[0].most_chunk, false);
        let [small, large] = [1056, 2032].map(|size| heap.chunk(size, false));
        let top = heap.at;
        heap.chunk(HEAP + HEAP_BYTES - top, false);
        memory.put(STATE + layout.top, &[top]);
        if let Some(fastbins) = layout.fastbins {
            memory.put(STATE + fastbins + 16, &[0]);
        }
        let body = tcache + 16;
        memory.put(body, &[0; 95]);
        memory.put(body, &[16 * 0x1_0001_0001_0001; 19]);
        let numbers = 16 * 0x1_0001_0001_0001 - 2;
        memory.put(body + 2 * 64, &[numbers]);
        let shape = layout.tcaches[0];
        memory.put(body + shape.heads() + 8 * 64, &[small + 16]);
        memory.put(small + 16, &[layout::link(small + 16, large + 16, true)]);
        memory.put(large + 16, &[layout::link(large + 16, 0, true)]);
        if minor == 43 {
            // Of 0x3000 bytes, so in the bin from 8192 on.
            memory.put(body + 2 * 64, &[numbers - (1 << 48)]);
            memory.put(body + shape.heads() + 8 * 67, &[MAPPED + 16]);
            memory.put(MAPPED + 16, &[layout::link(MAPPED + 16, 0, true)]);
        }
        let census = taken(&memory, minor, &mappings()).unwrap();
        let both = Amount {
            count: 2,
            bytes: 1056 + 2032,
        };
        assert_eq!((census.free.tcache, census.broken_lists), (both, 0), "2.{minor}");
        assert_eq!(census.classes[&2032].free, amount(1, 2032));
        assert_eq!(census.classes[&1056].in_use, Amount::default());
        assert_eq!(census.mmapped.count, 2);
        adds_up(&census);
    }
}

/// Another heap of the thread's arena is the newest; in the first one a rest is left that is no chunk.
#[test]
fn end_marks_of_every_length() {
    let layout = of(36);
    for (rest, words) in [
        // Two marks; one mark and no size; a mark that took 16 bytes along, and no size.
        (32, [16 | PREV_INUSE, 0, PREV_INUSE, 0, 0]),
        (48, [32 | PREV_INUSE, 0, 0, 0, PREV_INUSE]),
    ] {
        let mut memory = laid_out(&layout);
        let newest = THREAD + layout::HEAP_ALIGNMENT;
        memory.add(newest, 0x2_1000);
        let own = THREAD + layout.heap_info;
        let mut heap = Heap {
            memory: &mut memory,
            at: newest + layout.heap_info,
            previous: None,
            flags: NON_MAIN_ARENA,
        };
        heap.chunk(0x500, false);
        let top = heap.at;
        heap.chunk(newest + 0x2_1000 - top, false);
        memory.put(newest, &[own, THREAD, 0x2_1000, 0x2_1000]);
        let old_top = memory.word(own + layout.top).unwrap();
        memory.put(own + layout.top, &[top]);
        let end = THREAD + 0x2_1000;
        let size = end - rest - old_top;
        memory.put(old_top + 8, &[size | NON_MAIN_ARENA | PREV_INUSE]);
        memory.put(end - rest + 8, &words[..usize::try_from(rest / 8 - 1).unwrap()]);
        let line = format!("{newest:x}-{:x} rw-p 00000000 00:00 0", newest + 0x2_1000);
        let census = taken(&memory, 36, &mapped(&[&line])).unwrap_or_else(|error| panic!("{rest}: {error}"));
        assert_eq!(census.arenas[1].heaps, 2);
        assert_eq!(census.classes[&size].in_use, amount(1, size), "{rest}");
        adds_up(&census);
    }
}

/// With huge pages of 2 MiB, heaps are 8 MiB long and lie at multiples of that.
#[test]
fn heaps_of_huge_pages() {
    let layout = of(36);
    let mut memory = laid_out(&layout);
    let heap = memory
        .pieces
        .iter()
        .position(|(start, _)| *start == THREAD)
        .unwrap();
    let moved = THREAD + (8 << 20);
    memory.pieces[heap].0 = moved;
    let own = moved + layout.heap_info;
    let top = memory.word(own + layout.top).unwrap() + (8 << 20);
    memory.put(moved, &[own]);
    memory.put(STATE + layout.next, &[own]);
    memory.put(own + layout.top, &[top]);
    for index in 0..layout::BINS {
        let bin = layout.bin(own, index);
        memory.put(bin + 16, &[bin, bin]);
    }
    let census = taken(&memory, 36, &mappings()).unwrap();
    assert_eq!(census.classes[&112].in_use, amount(5, 112));
    adds_up(&census);
    // Older and newer releases have no other alignment than the usual one.
    let fixed = Layout {
        heap_alignments: of(34).heap_alignments,
        ..layout
    };
    let failed = super::take(&memory, &fixed, &mappings(), limits(), &[]);
    assert!(matches!(failed, Err(NotTaken::Inconsistent { .. })), "{failed:?}");
}

/// Where the break did not begin at a page, or a loader took the first bytes.
#[test]
fn a_heap_that_begins_within_its_mapping() {
    for shift in [16, 0x1230] {
        let mut memory = laid_out(&of(36));
        let heap = memory
            .pieces
            .iter()
            .position(|(start, _)| *start == HEAP)
            .unwrap();
        memory.pieces[heap] = (HEAP, vec![0; usize::try_from(HEAP_BYTES).unwrap()]);
        let layout = of(36);
        let mut heap = Heap {
            memory: &mut memory,
            at: HEAP + shift,
            previous: None,
            flags: 0,
        };
        heap.chunk(544, false);
        let top = heap.at;
        heap.chunk(HEAP + HEAP_BYTES - top, false);
        memory.put(STATE + layout.top, &[top]);
        memory.put(STATE + layout.fastbins.unwrap() + 16, &[0]);
        // Seven bytes are lost to alignment.
        memory.put(STATE + layout.system_mem, &[HEAP_BYTES - shift + 7]);
        let census = taken(&memory, 36, &mappings()).unwrap();
        assert_eq!(census.classes[&544].in_use, amount(1, 544));
        assert_eq!(census.arenas[0].system_bytes, HEAP_BYTES - shift);
    }
}

const ELSEWHERE: u64 = 0x7c00_0000_0000;
const ELSEWHERE_LINE: &str = "7c0000000000-7c0000020000 rw-p 00000000 00:00 0";

/// `[heap]` ends with marks, and the heap went on in two pieces that lie in one mapping beside a chunk of its own.
fn in_pieces(minor: u32, first_shift: u64) -> Pieces {
    let layout = of(minor);
    let mut memory = laid_out(&layout);
    memory.add(ELSEWHERE, 0x2_0000);
    if first_shift > 0 {
        let heap = memory
            .pieces
            .iter()
            .position(|(start, _)| *start == HEAP)
            .unwrap();
        memory.pieces[heap] = (HEAP, vec![0; usize::try_from(HEAP_BYTES).unwrap()]);
    }
    let mut pieces = |start: u64, end: u64, chunk: u64| {
        let mut heap = Heap {
            memory: &mut memory,
            at: start,
            previous: None,
            flags: 0,
        };
        while heap.at + chunk + 32 <= end - 32 {
            heap.chunk(chunk, false);
        }
        let rest = end - 32 - heap.at;
        heap.chunk(rest, true);
        heap.chunk(16, false);
        heap.chunk(16, false);
        heap.at
    };
    assert_eq!(
        pieces(HEAP + first_shift, HEAP + HEAP_BYTES, 0x220),
        HEAP + HEAP_BYTES
    );
    pieces(ELSEWHERE, ELSEWHERE + 0x8000, 0x330);
    memory.put(ELSEWHERE + 0x8000 + 8, &[(0x3000 - layout.mapped_unsized) | 2]);
    let mut heap = Heap {
        memory: &mut memory,
        at: ELSEWHERE + 0xb000,
        previous: None,
        flags: 0,
    };
    for _ in 0..7 {
        heap.chunk(0x440, false);
    }
    let top = heap.at;
    heap.chunk(ELSEWHERE + 0x1_b000 - top, false);
    memory.put(STATE, &[NONCONTIGUOUS << 32]);
    memory.put(STATE + layout.top, &[top]);
    if let Some(fastbins) = layout.fastbins {
        memory.put(STATE + fastbins + 16, &[0]);
    }
    let system = HEAP_BYTES - first_shift + 0x8000 + 0x1_0000;
    memory.put(STATE + layout.system_mem, &[system]);
    memory
}

#[test]
fn a_main_heap_in_pieces_is_found_whole() {
    for minor in [17, 23, 31, 36, 42, 44] {
        for first_shift in [0, 0x1230] {
            let memory = in_pieces(minor, first_shift);
            let census = taken(&memory, minor, &mapped(&[ELSEWHERE_LINE]))
                .unwrap_or_else(|error| panic!("2.{minor} {first_shift:#x}: {error}"));
            let main = &census.arenas[0];
            let system = HEAP_BYTES - first_shift + 0x1_8000;
            assert_eq!((main.heaps, main.system_bytes), (3, system), "2.{minor}");
            assert_eq!(census.classes[&0x440].in_use, amount(7, 0x440));
            assert_eq!(census.classes[&0x330].in_use.count, (0x8000 - 64) / 0x330);
            assert_eq!(main.overhead_bytes, 64);
            // Two where they always are, one between the pieces.
            assert_eq!((census.mmapped.count, census.mmapped.bytes), (3, 0x7000));
            adds_up(&census);
        }
    }
}

/// Pieces that are not all of the arena's bytes, or more than these, are no census.
#[test]
fn a_main_heap_in_pieces_is_not_guessed() {
    let layout = of(36);
    let fails = |memory: &Pieces, mappings: &[Mapping]| {
        let failed = taken(memory, 36, mappings);
        assert!(matches!(failed, Err(NotTaken::NotContiguous(_))), "{failed:?}");
    };
    // One of the mappings is not known.
    fails(&in_pieces(36, 0), &mappings());
    for wrong in [
        (STATE + layout.system_mem, HEAP_BYTES + 0x1_8000 + 16),
        (STATE + layout.system_mem, HEAP_BYTES + 0x1_7ff0),
        // A mark, a flag, a size, the top's end.
        (ELSEWHERE + 0x8000 - 8, 0),
        (ELSEWHERE + 8, 0x330 | PREV_INUSE | NON_MAIN_ARENA),
        (ELSEWHERE + 0x338, 24 | PREV_INUSE),
        (ELSEWHERE + 0x338, LEAST_CHUNK - 8),
        (ELSEWHERE + 0xb000 + 7 * 0x440 + 8, 0x4000 | PREV_INUSE),
    ] {
        let mut memory = in_pieces(36, 0);
        memory.put(wrong.0, &[wrong.1]);
        fails(&memory, &mapped(&[ELSEWHERE_LINE]));
    }
    // A second top, as a stale copy of a piece: the bytes are too many.
    let mut memory = in_pieces(36, 0);
    let copy = memory
        .pieces
        .iter()
        .find(|(start, _)| *start == ELSEWHERE)
        .unwrap()
        .1
        .clone();
    memory.pieces.push((ELSEWHERE + 0x4_0000, copy));
    let other = "7c0000040000-7c0000060000 rw-p 00000000 00:00 0";
    fails(&memory, &mapped(&[ELSEWHERE_LINE, other]));
}
