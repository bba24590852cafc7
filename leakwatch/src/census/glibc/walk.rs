//! The walk over the chunks of one heap, from its first to its end.
//!
//! A chunk's header has its size; whether it is free stands in the header of the next one, which then has the size a
//! second time. So each chunk is decided by two headers that must agree.
//!
//! The heap is read window by window, and a window begins at a chunk that is not decided yet: nothing is carried over
//! but an address. The target may merge or divide chunks in between. Then the address is no chunk's any more, which
//! the headers betray nearly always; the walk goes back by some windows and takes them anew, smaller ones too.

use std::collections::VecDeque;

use super::layout::{FLAGS, HEADER, IS_MMAPPED, LEAST_CHUNK, Layout, NON_MAIN_ARENA, PREV_INUSE};
use super::tally::Tally;
use super::tcache;
use crate::census::constants::Constants;
use crate::census::content::{Content, content};
use crate::census::memory::{Memory, word_at};
use crate::census::watched::Found;
use crate::census::{Amount, Budget, NotTaken, What};

/// Bytes that are read at once. Measured: larger ones are not faster.
pub const WINDOW: usize = 1 << 20;
/// A window of a heap under load is torn less often the sooner it is read.
const LEAST_WINDOW: usize = 16 << 10;
/// Windows that can be taken back.
const KEPT: usize = 8;
/// What is in larger blocks is not looked at, beyond their first word.
const CONTENT_MAX: usize = 64 << 10;
/// Candidates for a `tcache_perthread_struct`; a process has one a thread.
const TCACHES_MAX: usize = 1 << 16;

/// Where a heap ends, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the arena's top chunk, which ends at `end`.
    Top { top: u64, end: u64 },
    /// With end marks: the arena went on in another heap.
    Fence { end: u64 },
}

impl End {
    pub fn address(self) -> u64 {
        match self {
            Self::Top { end, .. } | Self::Fence { end } => end,
        }
    }
}

/// What a piece of a heap contradicts itself in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    pub address: u64,
    pub what: &'static str,
}

/// Chunks that are free, one after the other.
#[derive(Default)]
struct Run {
    start: Option<u64>,
}

impl Run {
    fn begin(&mut self, at: u64) {
        self.start.get_or_insert(at);
    }

    fn end(&mut self, at: u64, tally: &mut Tally) {
        if let Some(start) = self.start.take() {
            tally.free_pages.add(start..at, true);
        }
    }
}

/// Sorted addresses, asked for in their order.
struct Cursor<'a> {
    all: &'a [u64],
    next: usize,
}

impl<'a> Cursor<'a> {
    fn new(all: &'a [u64], from: u64) -> Self {
        Self {
            all,
            next: all.partition_point(|it| *it < from),
        }
    }

    /// Where an address is among them, the first where it is there more than once.
    fn index_of(&mut self, address: u64) -> Option<usize> {
        while let Some(next) = self.all.get(self.next) {
            if *next >= address {
                return (*next == address).then_some(self.next);
            }
            self.next += 1;
        }
        None
    }

    fn contain(&mut self, address: u64) -> bool {
        self.index_of(address).is_some()
    }
}

/// One window's result.
struct Step {
    tally: Tally,
    next: u64,
    done: bool,
}

/// The walker and its buffer, which is used for heap after heap.
pub struct Walker<'a, M> {
    pub memory: &'a M,
    pub layout: &'a Layout,
    constants: &'a Constants,
    /// The chunks in fastbins, by address.
    fast: &'a [u64],
    /// What the users of some chunks were given, by address.
    watched: &'a [u64],
    buffer: Vec<u8>,
}

impl<'a, M: Memory> Walker<'a, M> {
    /// `fast`: the chunks in fastbins, by address. `watched`: the blocks that are told of, as their users were given
    /// them, by address.
    pub fn new(
        memory: &'a M,
        layout: &'a Layout,
        constants: &'a Constants,
        fast: &'a [u64],
        watched: &'a [u64],
    ) -> Self {
        Self {
            memory,
            layout,
            constants,
            fast,
            watched,
            buffer: vec![0; WINDOW],
        }
    }

    /// Counts the chunks from `start` to the heap's end, which `end` tells anew for each window.
    pub fn walk(
        &mut self,
        start: u64,
        main: bool,
        end: impl Fn() -> Result<End, Torn>,
        budget: &mut Budget,
    ) -> Result<(Tally, End), NotTaken> {
        let mut settled = Tally::default();
        let mut recent: VecDeque<(u64, Tally)> = VecDeque::new();
        let mut at = start;
        let mut furthest = start;
        let mut tries = 0_u32;
        loop {
            budget.check()?;
            let window = (WINDOW >> tries.min(6)).max(LEAST_WINDOW);
            let step = end().and_then(|end| Ok((end, self.window(at, end, main, window)?)));
            match step {
                Ok((end, step)) => {
                    recent.push_back((at, step.tally));
                    at = step.next;
                    if step.done {
                        for (_, tally) in recent {
                            settled.merge(tally);
                        }
                        return Ok((settled, end));
                    }
                    if at > furthest {
                        furthest = at;
                        tries = 0;
                    }
                    if recent.len() > KEPT
                        && let Some((_, tally)) = recent.pop_front()
                    {
                        settled.merge(tally);
                    }
                }
                Err(torn) => {
                    budget.torn += 1;
                    tries += 1;
                    if tries > budget.tries() {
                        return Err(NotTaken::Inconsistent {
                            address: torn.address,
                            what: torn.what,
                            tries,
                        });
                    }
                    if furthest > start {
                        budget.pause(tries);
                    }
                    // The first try again is at the same place: the header there is likely good.
                    if tries > 1
                        && let Some((from, _)) = recent.pop_back()
                    {
                        at = from;
                    }
                }
            }
        }
    }

    /// Decides the chunks from `start` on whose successor's header is in the window, or one.
    fn window(&mut self, start: u64, end: End, main: bool, window: usize) -> Result<Step, Torn> {
        let torn = |address, what| Torn { address, what };
        let left = end
            .address()
            .checked_sub(start)
            .ok_or(torn(start, "the heap ends before"))?;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(window);
        let buffer = self.buffer.get_mut(..wanted).unwrap_or_default();
        let got = self
            .memory
            .read(start, buffer)
            .map_err(|_| torn(start, "the memory is gone"))?;
        let bytes = self.buffer.get(..got.min(wanted)).unwrap_or_default();
        let head = |address: u64| -> Option<(u64, u64)> {
            let offset = usize::try_from(address.checked_sub(start)?).ok()?;
            Some((word_at(bytes, offset)?, word_at(bytes, offset.checked_add(8)?)?))
        };

        let mut tally = Tally::default();
        let mut run = Run::default();
        let mut fast = Cursor::new(self.fast, start);
        let mut watched = Cursor::new(self.watched, start.saturating_add(HEADER));
        let mut at = start;
        // Of the chunk at `at`.
        let (_, mut size_word) = head(at).ok_or(torn(at, "a header beyond the end"))?;
        loop {
            let size = size_word & !FLAGS;
            match end {
                End::Top { top, end } if at == top => {
                    if top.checked_add(size) != Some(end) || size_word & PREV_INUSE == 0 {
                        return Err(torn(at, "the top chunk does not end the heap"));
                    }
                    tally.top = Amount {
                        count: 1,
                        bytes: size,
                    };
                    run.end(at, &mut tally);
                    tally.free_pages.add(at..end, main);
                    if let Some(index) = watched.index_of(at.saturating_add(HEADER)) {
                        tally.watched.push((index, Found::Free));
                    }
                    return Ok(Step {
                        tally,
                        next: end,
                        done: true,
                    });
                }
                End::Top { top, .. } if at > top => return Err(torn(at, "beyond the top chunk")),
                // The first mark takes the rest of a chunk along that is too small to be one.
                End::Fence { end } if (HEADER..=LEAST_CHUNK).contains(&size) && end - at <= 3 * HEADER => {
                    run.end(at, &mut tally);
                    tally.overhead_bytes += end - at;
                    return Ok(Step {
                        tally,
                        next: end,
                        done: true,
                    });
                }
                _ => {}
            }
            let next = at
                .checked_add(size)
                .filter(|next| next.checked_add(HEADER).is_some_and(|its| its <= end.address()));
            let Some(next) = next.filter(|_| size >= LEAST_CHUNK && size.is_multiple_of(16)) else {
                return Err(torn(at, "no size that a chunk could have"));
            };
            if size_word & IS_MMAPPED != 0 || main && size_word & NON_MAIN_ARENA != 0 {
                return Err(torn(at, "flags of another kind of chunk"));
            }
            let (prev_size, next_word) = match head(next) {
                Some(words) => words,
                None if at != start => {
                    run.end(at, &mut tally);
                    return Ok(Step {
                        tally,
                        next: at,
                        done: false,
                    });
                }
                None => {
                    // Larger than the window: its body is of no interest, and not read.
                    let mut words = [0; 16];
                    self.memory
                        .fill(next, &mut words)
                        .map_err(|_| torn(next, "the memory is gone"))?;
                    let word = |offset| word_at(&words, offset).unwrap_or(0);
                    (word(0), word(8))
                }
            };
            let free = next_word & PREV_INUSE == 0;
            if free && prev_size != size {
                return Err(torn(at, "neighbours that disagree"));
            }
            let found = if free {
                tally.free(size);
                run.begin(at);
                Found::Free
            } else if fast.contain(at) {
                tally.fast(size);
                run.begin(at);
                Found::Free
            } else {
                run.end(at, &mut tally);
                let what = self.what(bytes, at - start, size);
                tally.in_use(size, what);
                Found::InUse {
                    chunk_bytes: size,
                    what,
                }
            };
            if let Some(index) = watched.index_of(at + HEADER) {
                tally.watched.push((index, found));
            }
            if !free && tally.tcaches.len() < TCACHES_MAX {
                let offset = usize::try_from(at - start)
                    .unwrap_or(usize::MAX)
                    .saturating_add(16);
                let body = bytes.get(offset..).unwrap_or_default();
                if tcache::is_candidate(size, body, self.layout.tcaches) {
                    tally.tcaches.push(at);
                }
            }
            if head(next).is_none() {
                run.end(next, &mut tally);
                return Ok(Step {
                    tally,
                    next,
                    done: false,
                });
            }
            at = next;
            size_word = next_word;
        }
    }
}

impl<M: Memory> Walker<'_, M> {
    /// What is in the chunk in use at `offset` of a window.
    fn what(&self, window: &[u8], offset: u64, size: u64) -> Option<What> {
        let from = usize::try_from(offset.checked_add(HEADER)?).ok()?;
        // The next chunk's `prev_size` is its own while it is in use.
        let usable = usize::try_from(size.checked_sub(8)?).ok()?;
        let first = word_at(window, from)?;
        if self.constants.contain(first) {
            return Some(What::Constant(first));
        }
        if usable > CONTENT_MAX {
            return None;
        }
        match content(window.get(from..from.checked_add(usable)?)?) {
            Content::Zero => Some(What::Zero),
            Content::Text => Some(What::Text),
            Content::Other => None,
        }
    }
}
