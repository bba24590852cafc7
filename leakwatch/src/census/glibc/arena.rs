//! Where the arenas are, and which heaps each is made of.

use super::layout::{BINS, FLAGS, LEAST_CHUNK, Layout, NONCONTIGUOUS};
use super::pieces::Piece;
use super::walk::{End, Torn};
use crate::census::NotTaken;
use crate::census::memory::{Memory, word_at};
use crate::sampler::maps::Mapping;

/// Far above the default of eight a core.
const ARENAS_MAX: usize = 1 << 14;
/// Heaps of one arena: 64 GiB.
const HEAPS_MAX: usize = 1 << 10;
/// The writable data of a C library has some 20 KiB, that of a large static program some MiB.
const DATA_BYTES_MAX: u64 = 64 << 20;
/// Addresses from here on belong to no user space; sums of two such addresses still fit in 64 bits.
const ADDRESS_END: u64 = 1 << 62;

/// Sane as an address of something that is aligned as chunks are.
fn plausible(address: u64) -> bool {
    address != 0 && address.is_multiple_of(16) && address < ADDRESS_END
}

fn torn(address: u64, what: &'static str) -> Torn {
    Torn { address, what }
}

fn word(memory: &impl Memory, address: u64) -> Result<u64, Torn> {
    memory
        .word(address)
        .map_err(|_| torn(address, "the memory is gone"))
}

/// The main arena's state. The library does not export it, and most are stripped; but it is in the library's writable
/// data (in a static program in the program's own), and its 127 bins look like nothing else: most point at themselves.
pub fn find_main(memory: &impl Memory, layout: &Layout, mappings: &[Mapping]) -> Result<u64, NotTaken> {
    let is_libc = |mapping: &Mapping| {
        let path = mapping.path_bytes();
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        name.starts_with(b"libc.so.6") || name.starts_with(b"libc-2.")
    };
    let data =
        |mapping: &&Mapping| mapping.readable && mapping.writable && !mapping.shared && mapping.inode != 0;
    let of_libc: Vec<_> = mappings.iter().filter(data).filter(|it| is_libc(it)).collect();
    // Without a library it is in the program. No other file is searched: what lies there is not this heap.
    let searched = if of_libc.is_empty() && !mappings.iter().any(is_libc) {
        let first = mappings.iter().find(|it| it.inode != 0);
        let path = first.map_or(&[][..], Mapping::path_bytes);
        mappings
            .iter()
            .filter(data)
            .filter(|it| it.path_bytes() == path)
            .collect()
    } else {
        of_libc
    };
    let mut unreadable = None;
    let mut found = Vec::new();
    for mapping in searched {
        let length = mapping
            .range
            .end
            .saturating_sub(mapping.range.start)
            .min(DATA_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        match memory.read(mapping.range.start, &mut bytes) {
            Ok(got) => bytes.truncate(got),
            Err(error) => {
                unreadable = Some(error);
                continue;
            }
        }
        let states = (mapping.range.start..)
            .step_by(16)
            .zip((0..bytes.len()).step_by(16));
        found.extend(states.filter_map(|(address, offset)| {
            let own = bytes.get(offset..)?;
            looks_like_state(own, address, layout).then_some(address)
        }));
    }
    // A second library of another namespace has an arena too; the one that has a heap is meant.
    let used = |state: &&u64| {
        memory
            .word(**state + layout.top)
            .is_ok_and(|top| top != layout.bin(**state, 0))
    };
    match (found.iter().find(used).or(found.first()), unreadable) {
        (Some(state), _) => Ok(*state),
        (None, Some(error)) => Err(NotTaken::Unreadable(error.to_string())),
        (None, None) => Err(NotTaken::NoArena),
    }
}

/// Are these bytes, which stand at `address`, a `malloc_state`?
fn looks_like_state(bytes: &[u8], address: u64, layout: &Layout) -> bool {
    let at = |offset: u64| {
        usize::try_from(offset)
            .ok()
            .and_then(|offset| word_at(bytes, offset))
    };
    let mut empty = 0;
    // The last bins first: those of the largest chunks are empty nearly always, so most of the data is ruled out by
    // one comparison.
    for index in (0..BINS).rev() {
        let offset = layout.top + 16 * index + 16;
        let (Some(forward), Some(backward)) = (at(offset), at(offset + 8)) else {
            return false;
        };
        // Up to 2.26 the list heads themselves are not aligned as chunks are.
        let own = layout.bin(address, index);
        let is_empty = forward == own && backward == own;
        let has_chunks = forward != own && backward != own && plausible(forward) && plausible(backward);
        if !is_empty && !has_chunks {
            return false;
        }
        empty += u64::from(is_empty);
    }
    let top = at(layout.top).is_some_and(|top| plausible(top) || top == layout.bin(address, 0));
    let next = at(layout.next).is_some_and(|next| next != 0 && next.is_multiple_of(8) && next < ADDRESS_END);
    // A heap that has chunks in all of its bins at once has not been met.
    empty >= 4 && top && next
}

/// The states of all arenas, the main one first: they are linked in a circle.
pub fn all(memory: &impl Memory, layout: &Layout, main: u64) -> Result<Vec<u64>, Torn> {
    let mut states = vec![main];
    let mut at = main;
    loop {
        at = word(memory, at + layout.next)?;
        if at == main {
            return Ok(states);
        }
        if at % layout.heap_alignment != layout.heap_info || at >= ADDRESS_END {
            return Err(torn(at, "an arena where none can be"));
        }
        if states.len() >= ARENAS_MAX {
            return Err(torn(at, "more arenas than any process has"));
        }
        states.push(at);
    }
}

/// The layout with the alignment of heaps that this process uses: not always the usual one with huge pages. It is the
/// one at which every arena's state, and the heap of its top chunk, is where it must be.
pub fn with_heap_alignment(memory: &impl Memory, layout: &Layout, main: u64) -> Layout {
    let with = |heap_alignment: &u64| Layout {
        heap_alignment: *heap_alignment,
        ..*layout
    };
    let mut candidates = layout.heap_alignments.iter().map(with);
    candidates
        .find(|candidate| heaps_lie_so(memory, candidate, main).unwrap_or(false))
        .unwrap_or(*layout)
}

fn heaps_lie_so(memory: &impl Memory, layout: &Layout, main: u64) -> Result<bool, Torn> {
    for state in all(memory, layout, main)? {
        if state == main {
            continue;
        }
        let top = word(memory, state + layout.top)?;
        let base = top - top % layout.heap_alignment;
        let size = word(memory, base.saturating_add(16))?;
        if word(memory, base)? != state || top - base >= size || size > layout.heap_alignment {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A part of an arena that is walked in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Of the mapping, so with `heap_info` and state.
    pub base: u64,
    pub first_chunk: u64,
}

/// The heaps of a thread arena, the newest first.
pub fn heaps(memory: &impl Memory, layout: &Layout, state: u64) -> Result<Vec<Heap>, Torn> {
    let first = state - layout.heap_info;
    let top = word(memory, state + layout.top)?;
    let mut base = top - top % layout.heap_alignment;
    let mut heaps = Vec::new();
    loop {
        if base == 0 || base >= ADDRESS_END || word(memory, base)? != state {
            return Err(torn(base, "a heap of another arena"));
        }
        let chunks = if base == first {
            state + layout.state_bytes
        } else {
            base + layout.heap_info
        };
        heaps.push(Heap {
            base,
            first_chunk: chunks.next_multiple_of(16),
        });
        if base == first {
            return Ok(heaps);
        }
        if heaps.len() >= HEAPS_MAX {
            return Err(torn(base, "more heaps than any arena has"));
        }
        base = word(memory, base + 8)?;
        if !base.is_multiple_of(layout.heap_alignment) {
            return Err(torn(base, "a heap where none can be"));
        }
    }
}

/// Where a heap of a thread arena ends.
pub fn heap_end(memory: &impl Memory, layout: &Layout, state: u64, base: u64) -> Result<End, Torn> {
    let top = word(memory, state + layout.top)?;
    let size = word(memory, base + 16)?;
    if word(memory, base)? != state || !(LEAST_CHUNK..=layout.heap_alignment).contains(&size) {
        return Err(torn(base, "a heap that says nothing sensible of itself"));
    }
    let end = base + size;
    Ok(if top - top % layout.heap_alignment == base {
        End::Top { top, end }
    } else {
        End::Fence { end }
    })
}

/// Where the main heap ends. `None` where it has not begun.
pub fn main_end(memory: &impl Memory, layout: &Layout, state: u64) -> Result<Option<End>, Torn> {
    let top = word(memory, state + layout.top)?;
    if top == layout.bin(state, 0) {
        return Ok(None);
    }
    if !plausible(top) {
        return Err(torn(state, "a top that is no chunk"));
    }
    let size = word(memory, top + 8)? & !FLAGS;
    match top.checked_add(size) {
        Some(end) if size >= 16 && end < ADDRESS_END => Ok(Some(End::Top { top, end })),
        _ => Err(torn(top, "a top of no possible size")),
    }
}

/// Where a piece of a main heap in pieces ends.
pub fn piece_end(memory: &impl Memory, layout: &Layout, state: u64, piece: &Piece) -> Result<End, Torn> {
    if !piece.has_top {
        return Ok(End::Fence { end: piece.range.end });
    }
    match main_end(memory, layout, state)? {
        Some(End::Top { top, end }) if piece.range.start <= top && top < piece.range.end => {
            Ok(End::Top { top, end })
        }
        _ => Err(torn(state, "the top went on elsewhere")),
    }
}

/// Whether the main heap is in several pieces: `sbrk` failed once, and `mmap` gave the rest.
pub fn in_pieces(memory: &impl Memory, state: u64) -> Result<bool, Torn> {
    // The second 32-bit word of the state.
    Ok((word(memory, state)? >> 32) & NONCONTIGUOUS != 0)
}

/// Where the main heap, in one piece, may begin, the likeliest first. It has what `system_mem` says up to its end. A
/// static program's `[heap]` begins with memory of the loader, as does any where an older loader was given tunables. So
/// the mapping's start is only the second guess.
pub fn main_starts(
    memory: &impl Memory,
    layout: &Layout,
    state: u64,
    end: End,
    mappings: &[Mapping],
) -> Result<Vec<u64>, NotTaken> {
    let heap = mappings
        .iter()
        .find(|it| it.path_bytes() == b"[heap]")
        .ok_or(NotTaken::NotContiguous("there is no [heap]"))?;
    if end.address() <= heap.range.start || heap.range.end.saturating_add(1 << 30) < end.address() {
        return Err(NotTaken::NotContiguous("its top is not in [heap]"));
    }
    // Without randomization older kernels let the break begin in the last page of the program's own data.
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let possible = heap.range.start.saturating_sub(page)..heap.range.end;
    let mut starts: Vec<_> = [Some(layout.system_mem), layout.system_mem_or]
        .into_iter()
        .flatten()
        .filter_map(|offset| end.address().checked_sub(memory.word(state + offset).ok()?))
        .filter_map(|start| start.checked_next_multiple_of(16))
        .filter(|start| possible.contains(start))
        .collect();
    if !starts.contains(&heap.range.start) {
        starts.push(heap.range.start);
    }
    Ok(starts)
}
