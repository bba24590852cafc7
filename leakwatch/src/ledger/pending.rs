//! What calls that are still under way took out: for `mremap` to put down elsewhere, and to be put back when a call
//! fails. One place a thread, since a thread is in one call at a time.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use super::change::How;
use super::pieces::Piece;

/// Threads with something under way. A thread that ends with a `munmap` leaves its place behind, so the oldest half
/// goes when all are taken.
const THREADS_MAX: usize = 4096;
/// Pieces that one call may hold back.
const PIECES_MAX: usize = 16 * 1024;
/// Pieces that all of them together may: some 50 MiB.
const PIECES_MAX_TOGETHER: usize = 1 << 20;
/// Changes whose addresses are remembered, to tell whether a failed call's range was another's meanwhile. A call can
/// wait in the kernel for a processor while others make thousands; 2 MiB are soon spent on worse.
const RECENT_MAX: usize = 32 * 1024;
/// No mapping call takes this long, in nanoseconds: what is older is the rest of a call whose end needs no event.
pub(super) const LONGEST_CALL: u64 = 1_000_000_000;

/// What one release took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// Rounded to pages.
    pub(super) range: Range<u64>,
    pub(super) how: How,
    pub(super) time: u64,
    /// The number of the change.
    pub(super) sequence: u64,
    /// As they were before, in order.
    pub(super) pieces: Vec<(Range<u64>, Piece)>,
    /// More pieces than may be held back.
    overflowed: bool,
}

impl Taken {
    pub(super) fn new(range: Range<u64>, how: How, time: u64, sequence: u64) -> Self {
        Self {
            range,
            how,
            time,
            sequence,
            pieces: Vec::new(),
            overflowed: false,
        }
    }

    pub(super) fn push(&mut self, range: Range<u64>, piece: Piece) {
        if self.pieces.len() < PIECES_MAX {
            self.pieces.push((range, piece));
        } else {
            self.overflowed = true;
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// The last release but `RemapFrom`.
    release: Option<Taken>,
    remap: Option<Taken>,
}

impl Slot {
    fn both(&self) -> impl Iterator<Item = &Taken> {
        self.release.iter().chain(&self.remap)
    }

    fn pieces(&self) -> usize {
        self.both().map(|taken| taken.pieces.len()).sum()
    }
}

#[derive(Clone, Debug)]
struct Recent {
    sequence: u64,
    thread: u32,
    range: Range<u64>,
    /// The range was mapped or unmapped; else only what is in it changed.
    mapping: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pending {
    slots: HashMap<u32, Slot>,
    /// In all slots.
    pieces: usize,
    recent: VecDeque<Recent>,
    /// Calls whose pieces could not be held back while they might be under way.
    pub(super) dropped: u64,
}

impl Pending {
    /// Keeps what a call took until its end is known. The one call of two releases is `mremap` with `MREMAP_FIXED`:
    /// so these two leave each other alone, any other ends what came before.
    pub(super) fn hold(&mut self, thread: u32, taken: Taken) {
        while !self.slots.is_empty()
            && ((self.slots.len() >= THREADS_MAX && !self.slots.contains_key(&thread))
                || self.pieces + taken.pieces.len() > PIECES_MAX_TOGETHER)
        {
            self.evict(taken.time);
        }
        let slot = self.slots.entry(thread).or_default();
        self.pieces -= slot.pieces();
        match taken.how {
            How::RemapFrom => {
                slot.release = slot.release.take().filter(|release| release.how == How::Replace);
                slot.remap = Some(taken);
            }
            How::Replace => slot.release = Some(taken),
            _ => {
                *slot = Slot {
                    release: Some(taken),
                    remap: None,
                }
            }
        }
        self.pieces += slot.pieces();
    }

    /// The older half of the slots goes, or the only one.
    fn evict(&mut self, now: u64) {
        let newest = |slot: &Slot| slot.both().map(|taken| taken.sequence).max().unwrap_or(0);
        let mut ages: Vec<u64> = self.slots.values().map(newest).collect();
        let middle = ages.len() / 2;
        let (_, &mut median, _) = ages.select_nth_unstable(middle);
        let mut dropped = 0;
        self.slots.retain(|_, slot| {
            let kept = newest(slot) > median;
            if !kept
                && slot
                    .both()
                    .any(|taken| taken.time.saturating_add(LONGEST_CALL) >= now)
            {
                dropped += 1;
            }
            kept
        });
        self.dropped += dropped;
        self.pieces = self.slots.values().map(Slot::pieces).sum();
    }

    /// The thread has come back from a call with success: nothing before it can fail any more. Gives what an `mremap`
    /// under way had taken.
    pub(super) fn settle(&mut self, thread: u32) -> Option<Taken> {
        let slot = self.slots.remove(&thread)?;
        self.pieces -= slot.pieces();
        slot.remap
    }

    /// What the thread's `mremap` of `old` took out; settles the thread.
    pub(super) fn moved(&mut self, thread: u32, old: &Range<u64>) -> Option<Taken> {
        let taken = self.settle(thread).filter(|taken| taken.range == *old)?;
        self.dropped += u64::from(taken.overflowed);
        Some(taken)
    }

    /// What the release that now failed took out.
    pub(super) fn failed(&mut self, thread: u32, range: &Range<u64>, how: How) -> Option<Taken> {
        let slot = self.slots.get_mut(&thread)?;
        let place = if how == How::RemapFrom {
            &mut slot.remap
        } else {
            &mut slot.release
        };
        let taken = place.take_if(|taken| taken.how == how && taken.range == *range)?;
        self.pieces -= taken.pieces.len();
        self.dropped += u64::from(taken.overflowed);
        Some(taken)
    }

    /// Remembers that `thread` changed `range`.
    pub(super) fn remember(&mut self, sequence: u64, thread: u32, range: Range<u64>, mapping: bool) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent {
            sequence,
            thread,
            range,
            mapping,
        });
    }

    /// Where other threads came in since a release: ranges in order, and whether that is all of them (the memory for
    /// it is short). To a release that only changed what is in its range any change counts; to one that took the
    /// range away only what mapped or unmapped.
    pub(super) fn since(&self, taken: &Taken, thread: u32) -> (Vec<Range<u64>>, bool) {
        let whole = self.recent.len() < RECENT_MAX
            || self
                .recent
                .front()
                .is_some_and(|oldest| oldest.sequence <= taken.sequence);
        let mut ranges: Vec<Range<u64>> = self
            .recent
            .iter()
            .rev()
            .take_while(|recent| recent.sequence > taken.sequence)
            .filter(|recent| recent.thread != thread && (recent.mapping || !taken.how.unmaps()))
            .map(|recent| recent.range.clone())
            .collect();
        ranges.sort_by_key(|range| range.start);
        (ranges, whole)
    }

    /// Ranges of calls that may be under way at `now`.
    pub(super) fn under_way(&self, now: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.slots
            .values()
            .flat_map(Slot::both)
            .filter(move |taken| taken.time.saturating_add(LONGEST_CALL) >= now)
            .map(|taken| taken.range.clone())
    }
}
