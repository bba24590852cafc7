//! Chunks that are free though they look in use: those on the lists of fastbins and tcaches.

use std::ops::Range;

use super::layout::{FASTBINS, FLAGS, HEADER, LEAST_CHUNK, Layout, TCACHE_BINS};
use super::walk::{could_be_tcache, tcache_count, tcache_head};
use crate::census::memory::{Memory, word_at};
use crate::census::{Budget, NotTaken};

/// Nodes between two looks at the clock.
const NODES_UNCHECKED: u64 = 1024;

/// One list of chunks of one size.
struct List {
    /// The head's chunk (not what the user was given).
    chunk: u64,
    bytes: u64,
    /// Nodes at most.
    most: u64,
}

/// How a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListEnd {
    Whole,
    /// A node that is no chunk of this size, or one more than there can be.
    Broken,
}

/// The walked heaps, by address: (range, index of the arena).
pub type Extents = [(Range<u64>, usize)];

fn arena_of(extents: &Extents, address: u64) -> Option<usize> {
    let after = extents.partition_point(|(range, _)| range.start <= address);
    let (range, arena) = extents.get(after.checked_sub(1)?)?;
    range.contains(&address).then_some(*arena)
}

/// Reports each node of a list: (index of the arena, bytes of the chunk). In a tcache links point at what the user was
/// given, in a fastbin at the chunk; both stand in the user's first word.
fn follow(
    memory: &impl Memory,
    layout: &Layout,
    extents: &Extents,
    list: &List,
    to_user: u64,
    budget: &Budget,
    mut node: impl FnMut(usize, u64),
) -> Result<ListEnd, NotTaken> {
    let mut chunk = list.chunk;
    for index in 0..list.most {
        if index % NODES_UNCHECKED == 0 {
            budget.check()?;
        }
        let mut words = [0; 24];
        let arena = arena_of(extents, chunk).filter(|_| chunk.is_multiple_of(16));
        let Some(arena) = arena.filter(|_| memory.fill(chunk, &mut words).is_ok()) else {
            return Ok(ListEnd::Broken);
        };
        let word = |offset| word_at(&words, offset).unwrap_or(0);
        if word(8) & !FLAGS != list.bytes {
            return Ok(ListEnd::Broken);
        }
        node(arena, list.bytes);
        let next = layout.link(chunk + HEADER, word(16));
        if next == 0 {
            return Ok(ListEnd::Whole);
        }
        let Some(next) = next.checked_sub(to_user) else {
            return Ok(ListEnd::Broken);
        };
        chunk = next;
    }
    // The list is longer than its count: the target has just put one there, or it is a circle.
    Ok(ListEnd::Broken)
}

/// The chunks in an arena's fastbins; `most` is what the arena has in use by its neighbours' word.
pub fn fastbins(
    memory: &impl Memory,
    layout: &Layout,
    extents: &Extents,
    state: u64,
    most: u64,
    budget: &mut Budget,
    mut node: impl FnMut(usize, u64),
) -> Result<(), NotTaken> {
    for index in 0..FASTBINS {
        let head = memory.word(state + layout.fastbins + 8 * index).unwrap_or(0);
        if head == 0 {
            continue;
        }
        let list = List {
            chunk: head,
            bytes: LEAST_CHUNK + 16 * index,
            most,
        };
        if follow(memory, layout, extents, &list, 0, budget, &mut node)? == ListEnd::Broken {
            budget.broken_lists += 1;
        }
    }
    Ok(())
}

/// The chunks that a thread keeps in the tcache whose chunk is at `address`. Nothing, where it turns out to be the
/// user's own data: then the heads of its lists are no chunks of the right size.
pub fn tcache(
    memory: &impl Memory,
    layout: &Layout,
    extents: &Extents,
    address: u64,
    budget: &mut Budget,
    mut node: impl FnMut(usize, u64),
) -> Result<(), NotTaken> {
    let Some(shape) = layout.tcache else {
        return Ok(());
    };
    let length = shape.entries() + 8 * TCACHE_BINS;
    let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
    if memory.fill(address + HEADER, &mut body).is_err() || !could_be_tcache(&body, shape) {
        return Ok(());
    }
    let mut lists = Vec::new();
    for index in 0..TCACHE_BINS {
        let most = tcache_count(&body, shape, index).unwrap_or(0);
        let head = tcache_head(&body, shape, index).unwrap_or(0);
        let Some(chunk) = head.checked_sub(HEADER).filter(|_| most > 0) else {
            continue;
        };
        let bytes = LEAST_CHUNK + 16 * index;
        let is_chunk = arena_of(extents, chunk).is_some()
            && memory.word(chunk + 8).is_ok_and(|size| size & !FLAGS == bytes);
        if !is_chunk {
            return Ok(());
        }
        lists.push(List { chunk, bytes, most });
    }
    for list in lists {
        if follow(memory, layout, extents, &list, HEADER, budget, &mut node)? == ListEnd::Broken {
            budget.broken_lists += 1;
        }
    }
    Ok(())
}
