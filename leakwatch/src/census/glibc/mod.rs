//! glibc's heap: a main arena that grows by `brk`, thread arenas in heaps of up to 64 MiB, large chunks with mappings
//! of their own. The walk counts; the lists of fastbins and tcaches then tell which of the chunks in use are free.

mod arena;
mod counters;
mod keys;
pub mod layout;
mod lists;
mod mapped;
mod pieces;
mod tally;
mod tcache;
mod walk;

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;

use std::ops::Range;

use super::constants::Constants;
use super::memory::Memory;
use super::types::constant_ranges;
use super::watched::{self, Found};
use super::{Arena, Budget, Census, Free, Limits, NotTaken};
use crate::sampler::maps::Mapping;
use layout::Layout;
use lists::Nodes;
use tally::Tally;
use walk::{Torn, Walker};

/// `sizeof(struct malloc_chunk)`: what a free chunk keeps of its first page.
const FREE_HEADER: u64 = 48;
/// How often an arena is begun anew when a heap of it came or went meanwhile.
const ARENA_TRIES: u32 = 4;

/// An arena as the walk found it.
struct Walked {
    arena: Arena,
    tally: Tally,
    heaps: Vec<Range<u64>>,
}

/// Takes the census of a glibc heap that is laid out as `layout` says, and tells of the blocks at `watched`.
pub fn take(
    memory: &impl Memory,
    layout: &Layout,
    mappings: &[Mapping],
    limits: Limits,
    watched: &[u64],
) -> Result<Census, NotTaken> {
    let mut budget = Budget::new(limits);
    let constants = Constants::new(constant_ranges(mappings));
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let main = arena::find_main(memory, layout, mappings)?;
    let layout = &arena::with_heap_alignment(memory, layout, main);
    let states = again(&mut budget, || arena::all(memory, layout, main))?;
    // Before the walk: in a fastbin a chunk looks in use, and parts free memory that a trim makes one.
    let mut fast = Nodes::watching(watched);
    for (index, state) in states.iter().enumerate() {
        let arena = (index, *state, *state == main);
        lists::fastbins(memory, layout, arena, &mut budget, &mut fast)?;
    }
    fast.addresses.sort_unstable();
    let mut walker = Walker::new(memory, layout, &constants, &fast.addresses, watched);

    let mut census = Census::default();
    let mut sum = Tally::default();
    let mut extents = Vec::new();
    for state in states {
        let walked = if state == main {
            main_arena(&mut walker, state, mappings, &mut budget)?
        } else {
            thread_arena(&mut walker, state, &mut budget)?
        };
        let index = census.arenas.len();
        extents.extend(walked.heaps.into_iter().map(|range| (range, index)));
        census.arenas.push(walked.arena);
        sum.merge(walked.tally);
    }
    extents.sort_by_key(|(range, _)| range.start);

    let mut cached = Nodes::watching(watched);
    for address in std::mem::take(&mut sum.tcaches) {
        lists::tcache(memory, layout, &extents, address, &mut budget, &mut cached)?;
    }
    let free = fast
        .met
        .iter()
        .chain(&cached.met)
        .map(|index| (*index, Found::Free));
    census.found = vec![Found::Nothing; watched.len()];
    for (index, found) in std::mem::take(&mut sum.watched).into_iter().chain(free) {
        if let Some(at) = census.found.get_mut(index) {
            *at = found;
        }
    }
    for (nodes, fastbin) in [(fast.counts, true), (cached.counts, false)] {
        for ((owner, bytes), count) in nodes {
            let amount = sum.are_free_after_all(bytes, count);
            if let Some(arena) = census.arenas.get_mut(owner) {
                arena.in_use.subtract(amount);
                let kind = if fastbin {
                    &mut arena.free.fastbins
                } else {
                    &mut arena.free.tcache
                };
                kind.add(amount);
            }
        }
    }

    census.extents = extents.into_iter().map(|(range, _)| range).collect();
    mapped::take(memory, layout, mappings, &mut census, &budget)?;
    mapped::watched(memory, layout, mappings, watched, &mut census);
    let doubled = (1..watched.len()).filter(|index| watched.get(*index) == watched.get(index - 1));
    for index in doubled {
        census.found.copy_within(index - 1..index, index);
    }
    census.lists = Some(watched::Lists {
        layout: *layout,
        arenas: census
            .arenas
            .iter()
            .map(|arena| (arena.address, arena.main))
            .collect(),
        tcache_keys: cached.keys.learned(layout),
    });
    for arena in &census.arenas {
        census.in_use_bytes += arena.in_use.bytes;
        census.in_use_chunks += arena.in_use.count;
        census.free.add(&arena.free);
    }
    census.classes = sum.classes().collect();
    census.contents = sum.contents.into_iter().collect();
    census.constants_dropped = sum.constants_dropped;
    census.largest_free = sum.largest_free;
    census.free_pages = sum.free_pages;
    census.free_pages.shrink_to_pages(page, FREE_HEADER);
    census.took = budget.took();
    census.torn_retries = budget.torn;
    census.broken_lists = budget.broken_lists;
    Ok(census)
}

/// Takes the census of a glibc heap of unknown version, as in a static program: with the layout that the heap itself
/// proves. Proof is that a free list was met and every one could be followed to its end: another width of the counts,
/// or other links, lead nowhere. Without such a list, or under load, there is none.
pub fn take_of_unknown_version(
    memory: &impl Memory,
    mappings: &[Mapping],
    limits: Limits,
    watched: &[u64],
) -> Result<Census, NotTaken> {
    let mut failed = NotTaken::NoArena;
    for layout in layout::LAYOUTS.into_iter().filter_map(Layout::of) {
        match take(memory, &layout, mappings, limits, watched) {
            Ok(census) => {
                let lists = if layout.tcaches.is_empty() {
                    census.free.fastbins
                } else {
                    census.free.tcache
                };
                if lists.count > 0 && census.broken_lists == 0 {
                    return Ok(census);
                }
                failed = NotTaken::UnknownVersion;
            }
            Err(NotTaken::TimedOut(after)) => return Err(NotTaken::TimedOut(after)),
            Err(NotTaken::NoArena) => {}
            Err(error) if failed == NotTaken::NoArena => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

/// The chunks in the fastbins of all arenas, by address.
pub(super) fn in_fastbins(memory: &impl Memory, facts: &watched::Lists) -> Vec<u64> {
    let mut budget = Budget::new(Limits::default());
    let mut nodes = Nodes::default();
    for (index, (state, main)) in facts.arenas.iter().enumerate() {
        let arena = (index, *state, *main);
        // What cannot be followed is left out: such a chunk looks in use.
        if lists::fastbins(memory, &facts.layout, arena, &mut budget, &mut nodes).is_err() {
            break;
        }
    }
    nodes.addresses.sort_unstable();
    nodes.addresses
}

/// The bytes of the mapping of a chunk that has one of its own, by the words of its header; `None` where they are no
/// such header.
pub(super) fn mapping_bytes(layout: &Layout, chunk: u64, words: &[u8]) -> Option<u64> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    mapped::chunk_at(layout, chunk, words, page).map(|range| range.end - range.start)
}

/// Until it is not torn, or too often.
fn again<T>(budget: &mut Budget, mut what: impl FnMut() -> Result<T, Torn>) -> Result<T, NotTaken> {
    let mut tries = 0;
    loop {
        match what() {
            Ok(value) => return Ok(value),
            Err(torn) => {
                budget.check()?;
                budget.torn += 1;
                tries += 1;
                if tries > budget.tries() {
                    return Err(NotTaken::Inconsistent {
                        address: torn.address,
                        what: torn.what,
                        tries,
                    });
                }
            }
        }
    }
}

fn main_arena(
    walker: &mut Walker<'_, impl Memory>,
    state: u64,
    mappings: &[Mapping],
    budget: &mut Budget,
) -> Result<Walked, NotTaken> {
    let (memory, layout) = (walker.memory, walker.layout);
    let Some(end) = again(budget, || arena::main_end(memory, layout, state))? else {
        return Ok(walked(state, true, Tally::default(), Vec::new()));
    };
    if again(budget, || arena::in_pieces(memory, state))? {
        return main_arena_in_pieces(walker, state, mappings, budget);
    }
    let mut failed = NotTaken::NoArena;
    for start in arena::main_starts(memory, layout, state, end, mappings)? {
        let end = || {
            let gone = Torn {
                address: state,
                what: "the heap is gone",
            };
            arena::main_end(memory, layout, state)?.ok_or(gone)
        };
        match walker.walk(start, true, end, budget) {
            Ok((tally, end)) => {
                let heap = start..end.address();
                return Ok(walked(state, true, tally, vec![heap]));
            }
            Err(NotTaken::TimedOut(after)) => return Err(NotTaken::TimedOut(after)),
            // The first guess is the better one, so is its error.
            Err(error) if failed == NotTaken::NoArena => failed = error,
            Err(_) => {}
        }
    }
    Err(failed)
}

fn main_arena_in_pieces(
    walker: &mut Walker<'_, impl Memory>,
    state: u64,
    mappings: &[Mapping],
    budget: &mut Budget,
) -> Result<Walked, NotTaken> {
    let (memory, layout) = (walker.memory, walker.layout);
    let mut tries = 0;
    'anew: loop {
        tries += 1;
        let mut tally = Tally::default();
        let mut ranges = Vec::new();
        for piece in pieces::find(memory, layout, state, mappings, budget)? {
            let end = || arena::piece_end(memory, layout, state, &piece);
            match walker.walk(piece.range.start, true, end, budget) {
                Ok((of_piece, end)) => {
                    tally.merge(of_piece);
                    ranges.push(piece.range.start..end.address());
                }
                Err(NotTaken::Inconsistent { .. }) if tries < ARENA_TRIES => continue 'anew,
                Err(error) => return Err(error),
            }
        }
        return Ok(walked(state, true, tally, ranges));
    }
}

fn thread_arena(
    walker: &mut Walker<'_, impl Memory>,
    state: u64,
    budget: &mut Budget,
) -> Result<Walked, NotTaken> {
    let (memory, layout) = (walker.memory, walker.layout);
    let mut tries = 0;
    'anew: loop {
        tries += 1;
        let heaps = again(budget, || arena::heaps(memory, layout, state))?;
        let mut tally = Tally::default();
        let mut ranges = Vec::new();
        for heap in heaps {
            let end = || arena::heap_end(memory, layout, state, heap.base);
            match walker.walk(heap.first_chunk, false, end, budget) {
                Ok((of_heap, end)) => {
                    tally.merge(of_heap);
                    tally.overhead_bytes += heap.first_chunk - heap.base;
                    ranges.push(heap.base..end.address());
                }
                Err(NotTaken::Inconsistent { .. }) if tries < ARENA_TRIES => continue 'anew,
                Err(error) => return Err(error),
            }
        }
        return Ok(walked(state, false, tally, ranges));
    }
}

fn walked(address: u64, main: bool, tally: Tally, heaps: Vec<Range<u64>>) -> Walked {
    let arena = Arena {
        address,
        main,
        heaps: heaps.len() as u64,
        system_bytes: heaps.iter().fold(0, |sum: u64, it| {
            sum.saturating_add(it.end.saturating_sub(it.start))
        }),
        in_use: tally.in_use,
        free: Free {
            bins: tally.bins,
            fastbins: tally.fastbins,
            top: tally.top,
            ..Free::default()
        },
        overhead_bytes: tally.overhead_bytes,
    };
    Walked { arena, tally, heaps }
}
