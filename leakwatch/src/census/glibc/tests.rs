//! Heaps built by hand, and memory that lies.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::layout::{self, Layout, Links, NON_MAIN_ARENA, Numbers, PREV_INUSE};
use crate::census::memory::Memory;
use crate::census::memory::fake::Pieces;
use crate::census::{Amount, Census, Limits, NotTaken, take};
use crate::sampler::maps::{Mapping, parse_line};
use crate::target::allocator::Allocator;

pub(super) const LIBC: u64 = 0x7f00_0000_0000;
pub(super) const STATE: u64 = LIBC + 0x480;
pub(super) const HEAP: u64 = 0x5555_0000_0000;
pub(super) const THREAD: u64 = 0x7e00_0000_0000;
pub(super) const MAPPED: u64 = 0x7d00_0000_0000;
pub(super) const HEAP_BYTES: u64 = 0x4_0000;

fn glibc(version: &str) -> Allocator {
    Allocator::Glibc {
        version: Some(version.to_owned()),
    }
}

pub(super) fn mappings() -> Vec<Mapping> {
    let lines = [
        "555500000000-555500040000 rw-p 00000000 00:00 0 [heap]",
        "7d0000000000-7d0000010000 rw-p 00000000 00:00 0",
        "7e0000000000-7e0000021000 rw-p 00000000 00:00 0",
        "7f0000000000-7f0000002000 rw-p 001d3000 08:01 77 /lib/libc.so.6",
    ];
    lines
        .iter()
        .map(|line| parse_line(line.as_bytes()).unwrap())
        .collect()
}

/// Chunks in memory, one after the other.
pub(super) struct Heap<'a> {
    pub memory: &'a mut Pieces,
    pub at: u64,
    pub previous: Option<u64>,
    pub flags: u64,
}

impl Heap<'_> {
    /// The chunk's address.
    pub fn chunk(&mut self, size: u64, free: bool) -> u64 {
        let flag = if self.previous.is_some() { 0 } else { PREV_INUSE };
        self.memory.put(self.at + 8, &[size | flag | self.flags]);
        if let Some(previous) = self.previous {
            self.memory.put(self.at, &[previous]);
        }
        self.previous = free.then_some(size);
        let chunk = self.at;
        self.at += size;
        chunk
    }
}

pub(super) fn state(memory: &mut Pieces, layout: &Layout, state: u64, top: u64, next: u64, system: u64) {
    for index in 0..layout::BINS {
        let own = layout.bin(state, index);
        memory.put(own + 16, &[own, own]);
    }
    memory.put(state + layout.top, &[top]);
    memory.put(state + layout.next, &[next]);
    memory.put(state + layout.system_mem, &[system]);
}

fn process(version: &str) -> Pieces {
    laid_out(&Layout::of(layout::version(version).unwrap()).unwrap())
}

/// A heap with a tcache of two chunks, a fastbin of three, two free chunks, an arena of a thread, mmapped chunks.
pub(super) fn laid_out(layout: &Layout) -> Pieces {
    let mut memory = Pieces::default();
    memory.add(LIBC, 0x2000);
    memory.add(HEAP, 0x4_0000);
    memory.add(THREAD, 0x2_1000);
    memory.add(MAPPED, 0x1_0000);

    let mut heap = Heap {
        memory: &mut memory,
        at: HEAP,
        previous: None,
        flags: 0,
    };
    let tcache = layout
        .tcaches
        .first()
        .map(|it| (*it, heap.chunk(it.least_chunk, false)));
    let cached: Vec<_> = (0..2).map(|_| heap.chunk(48, false)).collect();
    let fast: Vec<_> = (0..3).map(|_| heap.chunk(64, false)).collect();
    heap.chunk(1040, true);
    heap.chunk(544, false);
    heap.chunk(0x8000, true);
    for _ in 0..10 {
        heap.chunk(544, false);
    }
    let top = heap.at;
    heap.chunk(HEAP + HEAP_BYTES - top, false);

    // Where both may be, as the release itself has it.
    let link = |place: u64, to: u64| layout::link(place, to, layout.links == Links::Mangled);
    if let Some((shape, chunk)) = tcache {
        let body = chunk + 16;
        // Class 1 has chunks of 48 bytes.
        match (shape.numbers, shape.number_bytes) {
            (Numbers::Kept, 1) => memory.put(body, &[2 << 8]),
            (Numbers::Kept, _) => memory.put(body, &[2 << 16]),
            (Numbers::Room, _) => {
                memory.put(body, &[7 * 0x1_0001_0001_0001; 19]);
                memory.put(body, &[7 * 0x1_0001_0001_0001 - (2 << 16)]);
            }
        }
        memory.put(body + shape.heads() + 8, &[cached[0] + 16]);
        memory.put(cached[0] + 16, &[link(cached[0] + 16, cached[1] + 16)]);
        memory.put(cached[1] + 16, &[link(cached[1] + 16, 0)]);
    }
    state(
        &mut memory,
        layout,
        STATE,
        top,
        THREAD + layout.heap_info,
        HEAP_BYTES,
    );
    if let Some(fastbins) = layout.fastbins {
        memory.put(STATE + fastbins + 16, &[fast[0]]);
        for (index, chunk) in fast.iter().enumerate() {
            let next = fast.get(index + 1).copied().unwrap_or(0);
            memory.put(chunk + 16, &[link(chunk + 16, next)]);
        }
    }

    let own = THREAD + layout.heap_info;
    let first = (own + layout.state_bytes).next_multiple_of(16);
    let mut heap = Heap {
        memory: &mut memory,
        at: first,
        previous: None,
        flags: NON_MAIN_ARENA,
    };
    for _ in 0..5 {
        heap.chunk(112, false);
    }
    let thread_top = heap.at;
    heap.chunk(THREAD + 0x2_1000 - thread_top, false);
    memory.put(THREAD, &[own, 0, 0x2_1000, 0x2_1000]);
    state(&mut memory, layout, own, thread_top, STATE, 0x2_1000);

    memory.put(MAPPED + 8, &[(0x3000 - layout.mapped_unsized) | 2]);
    memory.put(MAPPED + 0x3000 + 8, &[(0x1000 - layout.mapped_unsized) | 2]);
    memory
}

pub(super) fn limits() -> Limits {
    Limits {
        time: Duration::from_secs(20),
        tries: 5,
        patience: Duration::ZERO,
    }
}

pub(super) fn census(memory: &impl Memory, version: &str) -> Result<Census, NotTaken> {
    take(memory, &glibc(version), &mappings(), limits(), &[])
}

pub(super) fn amount(count: u64, each: u64) -> Amount {
    Amount {
        count,
        bytes: count * each,
    }
}

#[test]
fn a_heap_by_hand_in_every_layout() {
    for minor in layout::OLDEST.1..=layout::NEWEST.1 {
        let version = &format!("2.{minor}");
        let census = census(&process(version), version).unwrap_or_else(|error| panic!("{version}: {error}"));
        let layout = Layout::of((2, minor)).unwrap();
        let fast = if layout.fastbins.is_some() { 3 } else { 0 };
        assert_eq!(census.classes[&544].in_use, amount(11, 544), "{version}");
        assert_eq!(census.classes[&112].in_use, amount(5, 112));
        assert_eq!(census.classes[&64].free, amount(fast, 64));
        assert_eq!(census.classes[&64].in_use, amount(3 - fast, 64));
        let cached = if layout.tcaches.is_empty() { 0 } else { 2 };
        assert_eq!(census.classes[&48].free, amount(cached, 48), "{version}");
        assert_eq!(census.classes[&48].in_use, amount(2 - cached, 48));
        assert_eq!(census.free.tcache, amount(cached, 48));
        assert_eq!(census.free.fastbins, amount(fast, 64));
        assert_eq!(
            census.free.bins,
            Amount {
                count: 2,
                bytes: 0x8000 + 1040
            }
        );
        assert_eq!(census.free.top.count, 2);
        assert_eq!(
            census.mmapped,
            Amount {
                count: 2,
                bytes: 0x4000
            }
        );
        assert_eq!(census.largest_free.first(), Some(&0x8000));
        assert_eq!((census.torn_retries, census.broken_lists), (0, 0));
        for arena in &census.arenas {
            let sum = arena.in_use.bytes + arena.free.bytes() + arena.overhead_bytes;
            assert_eq!(sum, arena.system_bytes, "{version} {arena:?}");
        }
        assert_eq!(census.arenas[0].system_bytes, HEAP_BYTES);
        assert_eq!(census.arenas[1].system_bytes, 0x2_1000);
    }
}

/// The right offsets matter: with those of another release there is nothing, or nothing that agrees.
#[test]
fn a_heap_of_another_release_is_not_read() {
    assert_eq!(census(&process("2.36"), "2.26"), Err(NotTaken::NoArena));
    assert!(census(&process("2.31"), "2.36").is_err());
}

#[test]
fn what_is_no_known_heap_is_named() {
    let memory = process("2.36");
    let with = |allocator| take(&memory, &allocator, &mappings(), limits(), &[]);
    assert_eq!(
        with(Allocator::Jemalloc),
        Err(NotTaken::OtherAllocator(Allocator::Jemalloc))
    );
    assert_eq!(
        with(Allocator::Musl).unwrap_err().to_string(),
        "the heap is not glibc's: musl"
    );
    assert_eq!(
        with(glibc("2.99")),
        Err(NotTaken::UnsupportedVersion("2.99".to_owned()))
    );
    assert_eq!(
        take(&memory, &glibc("2.36"), &[], limits(), &[]),
        Err(NotTaken::NoArena)
    );
}

/// The heap tells its layout, or it is not read.
#[test]
fn an_unknown_version_is_proven_by_the_lists() {
    let taken = |memory: &Pieces, allocator| take(memory, &allocator, &mappings(), limits(), &[]);
    for version in ["2.23", "2.26", "2.28", "2.31", "2.32", "2.36", "2.42", "2.43"] {
        let memory = process(version);
        let known = census(&memory, version).unwrap();
        for allocator in [Allocator::Glibc { version: None }, Allocator::UnknownStatic] {
            let unknown = taken(&memory, allocator).unwrap_or_else(|error| panic!("{version}: {error}"));
            assert_eq!(
                (&unknown.classes, unknown.free),
                (&known.classes, known.free),
                "{version}"
            );
        }
    }
    // Nothing is in the tcache, so nothing shows how its links are made.
    let mut memory = process("2.36");
    let body = HEAP + 16;
    memory.put(body, &[0]);
    memory.put(body + 128 + 8, &[0]);
    let failed = taken(&memory, Allocator::Glibc { version: None });
    assert_eq!(failed, Err(NotTaken::UnknownVersion));
    let nothing = Pieces::default();
    let failed = taken(&nothing, Allocator::UnknownStatic);
    assert!(failed.is_err(), "{failed:?}");
}

#[test]
fn a_circle_in_a_free_list_ends() {
    let mut memory = process("2.26");
    let layout = Layout::of((2, 26)).unwrap();
    let head = memory.word(STATE + layout.fastbins.unwrap() + 16).unwrap();
    memory.put(head + 16, &[head]);
    let census = census(&memory, "2.26").unwrap();
    assert_eq!(census.broken_lists, 1);
    // The head is one, however often it is met; the two behind it are met no more.
    assert_eq!(census.classes[&64].in_use.count, 2);
}

#[test]
fn a_heap_that_contradicts_itself_is_not_taken() {
    for (at, word) in [
        (HEAP + 8, 0_u64),
        (HEAP + 8, 24 | PREV_INUSE),
        (HEAP + 8, u64::MAX),
        (HEAP + 8, 1 << 40 | PREV_INUSE),
        (HEAP + 0x290 + 8, 48 | PREV_INUSE | NON_MAIN_ARENA),
        // The chunk before is said to be free, and its size is not repeated.
        (HEAP + 0x290 + 8, 48),
    ] {
        let mut memory = process("2.36");
        memory.put(at, &[word]);
        let failed = census(&memory, "2.36").unwrap_err();
        assert!(
            matches!(failed, NotTaken::Inconsistent { tries: 6, .. }),
            "{at:#x} {word:#x} {failed:?}"
        );
    }
}

/// Where in what was read of memory a word stands, if it is there as a whole.
fn word_within(word: u64, from: u64, got: usize) -> Option<usize> {
    let offset = usize::try_from(word.checked_sub(from)?).ok()?;
    (offset + 8 <= got).then_some(offset)
}

/// A chunk whose size is wrong for some reads, as when the target is just dividing it.
pub(super) struct Flickering {
    pub pieces: Pieces,
    pub address: u64,
    pub wrong: Cell<u32>,
}

impl Memory for Flickering {
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        let got = self.pieces.read(address, into)?;
        if let Some(offset) = word_within(self.address, address, got)
            && self.wrong.get() > 0
        {
            self.wrong.set(self.wrong.get() - 1);
            into[offset..offset + 8].copy_from_slice(&8_u64.to_ne_bytes());
        }
        Ok(got)
    }
}

#[test]
fn a_torn_window_is_read_again() {
    let flickering = Flickering {
        pieces: process("2.36"),
        address: HEAP + 0x290 + 8,
        wrong: Cell::new(3),
    };
    let torn = census(&flickering, "2.36").unwrap();
    let quiet = census(&flickering.pieces, "2.36").unwrap();
    assert_eq!(torn.torn_retries, 3);
    assert_eq!((torn.classes, torn.free), (quiet.classes, quiet.free));
}

/// A word that is zero until a moment: of a page that its thread waits for.
struct Waiting {
    pieces: Pieces,
    address: u64,
    until: Instant,
}

impl Memory for Waiting {
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        let got = self.pieces.read(address, into)?;
        if let Some(offset) = word_within(self.address, address, got)
            && Instant::now() < self.until
        {
            into[offset..offset + 8].fill(0);
        }
        Ok(got)
    }
}

/// The top chunk's header, and one amid the heap.
#[test]
fn a_place_that_stays_torn_is_waited_for() {
    let quiet = census(&process("2.36"), "2.36").unwrap();
    let top = process("2.36")
        .word(STATE + Layout::of((2, 36)).unwrap().top)
        .unwrap();
    for address in [top + 8, HEAP + 0x290 + 8] {
        let take = |patience| {
            let waiting = Waiting {
                pieces: process("2.36"),
                address,
                until: Instant::now() + Duration::from_millis(50),
            };
            let limits = Limits { patience, ..limits() };
            take(&waiting, &glibc("2.36"), &mappings(), limits, &[])
        };
        let waited = take(Duration::from_secs(5)).unwrap();
        assert!(waited.torn_retries > 0, "{address:#x}");
        assert_eq!((waited.classes, waited.free), (quiet.classes.clone(), quiet.free));
        let at_once = take(Duration::ZERO);
        assert!(
            matches!(at_once, Err(NotTaken::Inconsistent { .. })),
            "{at_once:?}"
        );
    }
}

#[test]
fn the_clock_ends_a_census() {
    let limits = Limits {
        time: Duration::ZERO,
        ..limits()
    };
    let failed = take(&process("2.36"), &glibc("2.36"), &mappings(), limits, &[]);
    assert_eq!(failed, Err(NotTaken::TimedOut(Duration::ZERO)));
}

/// Arenas whose links never come back to the first.
struct Endless(Pieces);

impl Memory for Endless {
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        let layout = Layout::of((2, 36)).unwrap();
        if address % layout::HEAP_ALIGNMENT == layout.heap_info + layout.next && into.len() == 8 {
            let next = address - layout.next + layout::HEAP_ALIGNMENT;
            into.copy_from_slice(&next.to_ne_bytes());
            return Ok(8);
        }
        self.0.read(address, into)
    }
}

#[test]
fn endless_arenas_end() {
    let failed = census(&Endless(process("2.36")), "2.36").unwrap_err();
    assert!(
        matches!(
            failed,
            NotTaken::Inconsistent {
                what: "more arenas than any process has",
                ..
            }
        ),
        "{failed:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Words of a good heap, overwritten: a census or a reason, and no more reads than the limits allow.
    #[test]
    fn damaged_heaps_neither_panic_nor_loop(
        damage in prop::collection::vec(
            (prop::sample::select(vec![
                STATE..STATE + 2200, HEAP..HEAP + 0x1000, HEAP..HEAP + HEAP_BYTES, THREAD..THREAD + 0xc00,
                MAPPED..MAPPED + 32,
            ]).prop_flat_map(|range| range.start / 8..range.end / 8),
            prop_oneof![
                any::<u64>(), Just(0), Just(u64::MAX), 0_u64..0x1000,
                (HEAP..HEAP + HEAP_BYTES), (THREAD..THREAD + 0x2_1000), (STATE..STATE + 2200),
                any::<u64>().prop_map(|it| it & !15 & (HEAP_BYTES - 1) | 1),
            ]),
            1..12,
        ),
        version in prop::sample::select(vec!["2.17", "2.26", "2.31", "2.36", "2.42", "2.44"]),
    ) {
        let mut memory = process(version);
        for (at, word) in damage {
            memory.put(at * 8, &[word]);
        }
        memory.reads.set(0);
        if let Ok(census) = census(&memory, version) {
            let walked: u64 = census.arenas.iter().map(|it| it.system_bytes).sum();
            prop_assert!(census.in_use_bytes + census.free.bytes() <= walked);
        }
        prop_assert!(memory.reads.get() < 2_000_000, "{} reads", memory.reads.get());
    }

    #[test]
    fn random_bytes_are_no_heap(seed in any::<u64>()) {
        let mut memory = process("2.36");
        let mut random = seed | 1;
        for at in (HEAP..HEAP + HEAP_BYTES).step_by(8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            memory.put(at, &[random]);
        }
        prop_assert!(census(&memory, "2.36").is_err());
    }
}
