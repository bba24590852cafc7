//! A heap that has grown, one reading of it, and one as no heap is.

use super::super::model::*;
use super::{EVIL, MIB, full};

fn kinds(bins: u64, top: u64, tcache: u64, fastbins: u64) -> FreeKinds {
    let kind = |bytes, count| FreeKind { bytes, count };
    FreeKinds {
        bins: kind(bins, bins / 2048),
        top: kind(top, 1),
        tcache: kind(tcache, tcache / 96),
        fastbins: kind(fastbins, fastbins / 48),
    }
}

/// An arena of these MiB and the growth of what is in use.
fn arena(address: u64, in_use: u64, free: u64, growth: i64) -> HeapArena {
    HeapArena {
        address: Address(address),
        main: address == 0x7f00_0030_0c60,
        heaps: 1 + in_use / 64,
        system_bytes: (in_use + free) * MIB + 4096,
        in_use_bytes: in_use * MIB,
        in_use_count: in_use * 2000,
        free_bytes: free * MIB,
        free_kinds: kinds((free - 1) * MIB, MIB - 9600 - 480, 9600, 480),
        growth_in_use_bytes: Some(growth << 20),
        growth_free_bytes: Some(-1 << 20),
    }
}

/// Blocks of one size: how many there are, how many more than before, and what they are.
fn class(bytes: u64, count: u64, growth: i64, told: (Option<&str>, Option<&str>, Option<&str>)) -> HeapClass {
    let chunk_bytes = bytes + 8;
    let (type_name, type_told_by, content) = told;
    HeapClass {
        bytes,
        chunk_bytes,
        count,
        in_use_bytes: count * chunk_bytes,
        free_count: (type_name.is_none() && content.is_none()).then_some(count / 8),
        mapped: false,
        type_name: type_name.map(Into::into),
        type_told_by: type_told_by.map(Into::into),
        content: content.map(Into::into),
        growth_count: Some(growth),
        growth_bytes: Some(growth * chunk_bytes.cast_signed()),
    }
}

/// One class of objects has grown, the rest is as it was or less.
pub fn heap_grown() -> Heap {
    const MAP: &str = "std::_Rb_tree_node<std::pair<std::__cxx11::basic_string<char, std::char_traits<char>, \
        std::allocator<char> > const, Session*> >";
    let nothing = (None, None, None);
    let mut classes = vec![
        class(536, 150_000, 148_500, (Some("Session"), Some("rtti"), None)),
        class(72, 150_400, 148_500, (Some(MAP), Some("vtable"), None)),
        class(40, 151_000, 148_100, (None, None, Some("text"))),
        class(1032, 900, 400, (None, None, Some("zero"))),
        class(56, 9000, 12, (Some("kEmptyRow"), Some("constant"), None)),
        class(24, 71_000, 3, nothing),
        class(536, 40, 0, nothing),
        class(131_080, 3, -1, nothing),
        class(2056, 1200, -300, nothing),
    ];
    for (index, row) in (0u64..).zip(&mut classes) {
        let free = if row.bytes > 4096 { 1 } else { index * 100 };
        row.free_count = row.free_count.map(|_| free);
    }
    let of_arenas = [
        (0x7f00_0030_0c60, 40, 5, 28),
        (0x7eff_d000_0030, 60, 12, 65),
        (0x7eff_c000_0030, 9, 3, 2),
    ];
    let arenas: Vec<HeapArena> = of_arenas
        .into_iter()
        .chain((1..5).map(|at| (at << 36 | 0x30, 1, 1, 0)))
        .map(|(address, in_use, free, growth)| arena(address, in_use, free, growth))
        .collect();
    Heap {
        allocator: "glibc 2.36".into(),
        in_use_bytes: 113 * MIB,
        in_use_count: 533_543,
        free_bytes: 24 * MIB,
        free_kinds: kinds(17 * MIB, 7 * MIB - 72_000, 67_200, 4800),
        overhead_bytes: 28_672,
        mapped_bytes: 33 * MIB,
        mapped_count: 64,
        mapped_without_size: 3,
        resident_bytes: Some(130 * MIB),
        free_pages_bytes: Some(13 * MIB),
        trim_bytes: Some(9 * MIB),
        fragmentation_bytes: 4 * MIB,
        largest_free_bytes: vec![6 * MIB, 3 * MIB, MIB, 900 << 10, 70_000, 69_000, 4112, 2064],
        arenas,
        classes,
        growth: Some(HeapGrowth {
            in_use_bytes: 95 << 20,
            in_use_count: 445_000,
            free_bytes: 6 << 20,
            mapped_bytes: 23 << 20,
            mapped_count: 46,
            resident_bytes: Some(107 << 20),
            free_pages_bytes: Some(10 << 20),
            kept_bytes: Some(12 << 20),
        }),
        took_seconds: 0.0246,
    }
}

/// One reading of it.
pub fn heap_alone() -> Heap {
    let mut heap = heap_grown();
    heap.growth = None;
    for class in &mut heap.classes {
        (class.growth_count, class.growth_bytes) = (None, None);
    }
    heap.classes
        .sort_by_key(|class| std::cmp::Reverse(class.in_use_bytes));
    for arena in &mut heap.arenas {
        (arena.growth_in_use_bytes, arena.growth_free_bytes) = (None, None);
    }
    heap
}

/// Figures as no heap has them, and names that a terminal would obey.
pub fn hostile(mut heap: Heap) -> Heap {
    let evil = EVIL;
    let told = [Some("rtti"), Some("constant"), Some(evil)];
    for (index, class) in heap.classes.iter_mut().enumerate() {
        class.type_name = Some(if index % 2 == 0 {
            evil.into()
        } else {
            "長".repeat(64 << 10)
        });
        class.type_told_by = told[index % 3].map(Into::into);
        class.content = Some(evil.into());
        (class.bytes, class.chunk_bytes, class.count) = (u64::MAX, u64::MAX, u64::MAX);
        (class.in_use_bytes, class.free_count) = (u64::MAX, Some(u64::MAX));
        class.growth_count = class.growth_count.map(|_| i64::MIN);
        class.growth_bytes = class
            .growth_bytes
            .map(|_| if index < 6 { i64::MAX } else { i64::MIN });
    }
    for arena in &mut heap.arenas {
        (arena.address, arena.main) = (Address(u64::MAX), false);
        (arena.heaps, arena.system_bytes) = (u64::MAX, u64::MAX);
        (arena.in_use_bytes, arena.free_bytes) = (u64::MAX, u64::MAX);
        arena.growth_in_use_bytes = arena.growth_in_use_bytes.map(|_| i64::MIN);
        arena.growth_free_bytes = arena.growth_free_bytes.map(|_| i64::MIN);
    }
    heap.allocator = evil.into();
    (heap.in_use_bytes, heap.in_use_count) = (u64::MAX, u64::MAX);
    (heap.mapped_bytes, heap.mapped_count) = (u64::MAX, u64::MAX);
    (heap.free_bytes, heap.fragmentation_bytes) = (u64::MAX, 0);
    if let Some(growth) = &mut heap.growth {
        (growth.in_use_bytes, growth.in_use_count) = (i64::MIN, i64::MIN);
        (growth.mapped_bytes, growth.kept_bytes) = (i64::MIN, Some(i64::MIN));
    }
    heap.largest_free_bytes = vec![u64::MAX; 300];
    heap
}

/// What `leakwatch heap` tells.
pub fn picture() -> HeapPicture {
    let recording = full();
    HeapPicture {
        schema_version: SCHEMA_VERSION,
        tool: recording.tool,
        host: recording.host,
        target: recording.target,
        taken_at: "2026-01-02T03:04:05Z".into(),
        heap: heap_alone(),
        losses: Losses {
            counters: [("heap_torn_reads".to_owned(), 2)].into(),
            ..Losses::default()
        },
        notes: vec!["The version of glibc could not be read: the heap's own lists proved its layout.".into()],
    }
}

pub fn hostile_picture() -> HeapPicture {
    let recording = super::hostile();
    HeapPicture {
        target: recording.target,
        taken_at: recording.window.started_at,
        heap: hostile(heap_alone()),
        losses: recording.losses,
        notes: recording.notes,
        ..picture()
    }
}
