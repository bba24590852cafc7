//! `mremap`: the owners of pages go where the pages go.
//!
//! At the call's entry they are taken out of their old place, since other threads may be handed it before the call
//! is seen to have returned; then they are put down in the new one.

use std::collections::HashMap;
use std::ops::Range;

use leakwatch_ebpf::wire::page_in_sample;

use super::{PageLedger, Touch, account_of};

/// Calls under way at most: one a thread.
const MOVES_MAX: usize = 4096;

/// Pages that are on their way; numbers count from the range's first page.
#[derive(Clone, Debug, Default)]
struct Move {
    owned: Vec<(u64, Touch)>,
    before: Vec<Range<u64>>,
}

/// By thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    under_way: HashMap<u32, Move>,
    dropped: u64,
}

impl Moves {
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl PageLedger {
    /// `thread` has begun to move the range (bytes).
    pub(super) fn take_away(&mut self, thread: u32, range: &Range<u64>, time: u64) {
        let pages = self.page_range(range);
        let known: Vec<u64> = self.pages.range(pages.clone()).map(|(page, _)| *page).collect();
        let mut owned = Vec::with_capacity(known.len());
        for page in known {
            if let Some(touch) = self.disown(page, time) {
                owned.push((page - pages.start, touch));
            }
        }
        let before: Vec<Range<u64>> = self
            .before
            .runs(pages.clone())
            .into_iter()
            .map(|run| run.start - pages.start..run.end - pages.start)
            .collect();
        self.before.remove(pages);
        if owned.is_empty() && before.is_empty() {
            self.moves.under_way.remove(&thread);
            return;
        }
        if self.moves.under_way.len() >= MOVES_MAX && !self.moves.under_way.contains_key(&thread) {
            self.moves.dropped += owned.len() as u64;
            return;
        }
        self.moves.under_way.insert(thread, Move { owned, before });
    }

    /// What `thread` moves lies at `to` now, `length` of it (both bytes): what enters the sample with its new number
    /// was not in it before and has no owner, what leaves it goes; the estimate stays right on the average.
    pub(super) fn put_down(&mut self, thread: u32, to: u64, length: u64, time: u64) {
        let Some(Move { owned, before }) = self.moves.under_way.remove(&thread) else {
            return;
        };
        let place = self.page_range(&(to..to.saturating_add(length)));
        self.release(&(to..to.saturating_add(length)), time);
        for run in before {
            let run =
                place.start.saturating_add(run.start)..place.start.saturating_add(run.end).min(place.end);
            self.before.insert(run);
        }
        let worth = self.stands_for() << self.page_shift;
        for (offset, touch) in owned {
            let page = place.start.saturating_add(offset);
            if page < place.end && page_in_sample(page, self.threshold) {
                account_of(&mut self.sites, self.window_began, touch.site, touch.time).own(
                    i64::from(touch.weight),
                    time,
                    worth,
                );
                self.pages.insert(page, touch);
            }
        }
    }
}
