//! A main heap in several pieces. Where `sbrk` fails (something lies above the break, or huge pages were asked for),
//! `mmap` gives the rest, and nothing says where it is.
//!
//! But a piece begins with a page, its chunks lead from one to the next, and the last ones are two marks at the end of
//! a page, or the top. And all pieces together have what the arena says it got from the system: without that there is
//! no proof that these are all, or that each is one.

use std::ops::Range;

use super::arena;
use super::layout::{FLAGS, HEADER, IS_MMAPPED, LEAST_CHUNK, Layout, NON_MAIN_ARENA, PREV_INUSE};
use super::mapped::{chunk_end_by_first_page, is_anonymous};
use super::walk::Torn;
use crate::census::memory::{Memory, word_at};
use crate::census::{Budget, NotTaken};
use crate::sampler::maps::Mapping;

/// Pages that are looked at, as a piece may begin there.
const PAGES_MAX: u64 = 1 << 18;
/// How far from the beginning of `[heap]` the heap can begin: a static program's loader has taken some there, and up to
/// 2.34 any loader where tunables were set.
const LOADER_BYTES: u64 = 64 << 10;
/// Bytes that are read at once along the chunks.
const WINDOW: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub range: Range<u64>,
    /// It ends with the arena's top chunk, and not with marks.
    pub has_top: bool,
}

/// The pieces of the main arena, by address.
pub fn find(
    memory: &impl Memory,
    layout: &Layout,
    state: u64,
    mappings: &[Mapping],
    budget: &Budget,
) -> Result<Vec<Piece>, NotTaken> {
    let gone = |torn: Torn| NotTaken::Unreadable(format!("{} at {:#x}", torn.what, torn.address));
    let word = |address| {
        memory
            .word(address)
            .map_err(|error| NotTaken::Unreadable(error.to_string()))
    };
    let mut search = Search {
        memory,
        layout,
        page: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
        top: word(state + layout.top)?,
        others: thread_heaps(memory, layout, state).map_err(gone)?,
        pages: 0,
        budget,
    };
    let mut pieces = Vec::new();
    for mapping in mappings.iter().filter(|mapping| is_anonymous(mapping)) {
        search.within(mapping.range.clone(), &mut pieces)?;
    }
    let told: Vec<_> = [Some(layout.system_mem), layout.system_mem_or]
        .into_iter()
        .flatten()
        .map(|offset| word(state + offset))
        .collect::<Result<_, _>>()?;
    for mapping in mappings
        .iter()
        .filter(|mapping| mapping.path_bytes() == b"[heap]")
    {
        search.within_heap(mapping.range.clone(), &told, &mut pieces)?;
    }
    pieces.sort_by_key(|piece| piece.range.start);
    let bytes = bytes(&pieces);
    let tops = pieces.iter().filter(|piece| piece.has_top).count();
    // A first piece that is not aligned as chunks are begins some bytes higher.
    let is_all = |told: &u64| told.checked_sub(bytes).is_some_and(|lost| lost < 16);
    if tops != 1 || !told.iter().any(is_all) {
        return Err(NotTaken::NotContiguous(
            "sbrk failed once, and what mmap gave was not found whole",
        ));
    }
    Ok(pieces)
}

fn bytes(pieces: &[Piece]) -> u64 {
    let each = pieces.iter().map(|piece| piece.range.end - piece.range.start);
    each.fold(0, u64::saturating_add)
}

/// Where the heaps of the other arenas lie.
fn thread_heaps(memory: &impl Memory, layout: &Layout, main: u64) -> Result<Vec<Range<u64>>, Torn> {
    let mut ranges = Vec::new();
    for state in arena::all(memory, layout, main)? {
        if state == main {
            continue;
        }
        for heap in arena::heaps(memory, layout, state)? {
            let end = arena::heap_end(memory, layout, state, heap.base)?;
            ranges.push(heap.base..end.address());
        }
    }
    Ok(ranges)
}

struct Search<'a, M> {
    memory: &'a M,
    layout: &'a Layout,
    page: u64,
    top: u64,
    others: Vec<Range<u64>>,
    pages: u64,
    budget: &'a Budget,
}

impl<M: Memory> Search<'_, M> {
    /// The pieces that begin at a page of `range`.
    fn within(&mut self, range: Range<u64>, pieces: &mut Vec<Piece>) -> Result<(), NotTaken> {
        let mut at = range.start.next_multiple_of(self.page);
        while at < range.end {
            if let Some(other) = self.others.iter().find(|other| other.contains(&at)) {
                at = other.end.next_multiple_of(self.page);
                continue;
            }
            if let Some(piece) = self.piece(at, range.end)? {
                at = piece.range.end;
                pieces.push(piece);
                continue;
            }
            let (memory, layout) = (self.memory, self.layout);
            if let Some(end) = chunk_end_by_first_page(memory, layout, at, range.end, self.page) {
                at = end;
                continue;
            }
            self.pages += 1;
            if self.pages > PAGES_MAX {
                return Err(NotTaken::NotContiguous(
                    "sbrk failed once, and there is too much memory in which mmap can have given the rest",
                ));
            }
            if self.pages.is_multiple_of(256) {
                self.budget.check()?;
            }
            at += self.page;
        }
        Ok(())
    }

    /// The pieces in `[heap]`. The first begins at its beginning, or above what a loader has there: any chunk leads to that piece's end, and what the others leave of the arena's bytes to its beginning.
    fn within_heap(
        &mut self,
        heap: Range<u64>,
        told: &[u64],
        pieces: &mut Vec<Piece>,
    ) -> Result<(), NotTaken> {
        let mut first = None;
        for at in (heap.start..heap.end.min(heap.start.saturating_add(LOADER_BYTES))).step_by(16) {
            first = self.piece(at, heap.end)?;
            if first.is_some() {
                break;
            }
        }
        let Some(mut first) = first else {
            return Ok(());
        };
        self.within(first.range.end..heap.end, pieces)?;
        let others = bytes(pieces);
        let lowest = heap.start.saturating_sub(self.page);
        for told in told {
            let own = told.checked_sub(others);
            let start = own.and_then(|own| first.range.end.checked_sub(own)?.checked_next_multiple_of(16));
            let Some(start) = start.filter(|start| *start >= lowest) else {
                continue;
            };
            if let Some(piece) = self.piece(start, heap.end)?
                && piece.range.end == first.range.end
            {
                first = piece;
                break;
            }
        }
        pieces.push(first);
        Ok(())
    }

    /// The piece that begins at `start` and ends within `limit`.
    fn piece(&self, start: u64, limit: u64) -> Result<Option<Piece>, NotTaken> {
        // First the header alone: nearly always that is all.
        if !self.memory.word(start.saturating_add(8)).is_ok_and(is_chunk) && start != self.top {
            return Ok(None);
        }
        let mut buffer = vec![0; WINDOW];
        let mut window = (start, 0);
        let mut at = start;
        for step in 1_u64.. {
            if step.is_multiple_of(4096) {
                self.budget.check()?;
            }
            // With the header of a second mark.
            let offset = usize::try_from(at - window.0).unwrap_or(usize::MAX);
            if offset.saturating_add(48) > window.1 {
                let left = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
                let into = buffer.get_mut(..left.min(WINDOW)).unwrap_or_default();
                let Ok(got) = self.memory.read(at, into) else {
                    return Ok(None);
                };
                window = (at, got.min(left));
            }
            let offset = usize::try_from(at - window.0).unwrap_or(usize::MAX);
            let bytes = buffer.get(..window.1).unwrap_or_default();
            let word = |header: usize| word_at(bytes, offset.checked_add(16 * header + 8)?);
            let Some(size_word) = word(0) else {
                return Ok(None);
            };
            let end = at.saturating_add(size_word & !FLAGS);
            let at_end = |end: u64| end <= limit && end.is_multiple_of(self.page);
            if at == self.top {
                let is_top = at_end(end) && is_chunk(size_word);
                return Ok(is_top.then_some(Piece {
                    range: start..end,
                    has_top: true,
                }));
            }
            if size_word & !FLAGS == HEADER {
                // Two marks, or three where the rest of the top was too small to be a chunk.
                let marks = [2_u64, 3].into_iter().find(|marks| at_end(at + marks * HEADER));
                let is_mark = |header| word(header) == Some(HEADER | PREV_INUSE);
                let all = marks.is_some_and(|marks| is_mark(1) && (marks == 2 || is_mark(2)));
                return Ok(marks.filter(|_| all).map(|marks| Piece {
                    range: start..at + marks * HEADER,
                    has_top: false,
                }));
            }
            if !is_chunk(size_word | PREV_INUSE) || end.saturating_add(HEADER) > limit {
                return Ok(None);
            }
            at = end;
        }
        Ok(None)
    }
}

/// A chunk of the main arena, with one in use before it.
fn is_chunk(size_word: u64) -> bool {
    let size = size_word & !FLAGS;
    let flags = size_word & (PREV_INUSE | IS_MMAPPED | NON_MAIN_ARENA);
    flags == PREV_INUSE && size >= LEAST_CHUNK && size.is_multiple_of(16)
}
