//! `mremap`: the same memory at another address, or longer, or shorter.

use std::ops::Range;

use super::Ledger;
use super::change::{Backing, Change, Protection, SiteId};
use super::pieces::{Owner, Piece};

/// An `mremap` that returned, its ranges rounded to pages.
pub(super) struct Remapping {
    pub(super) old: Range<u64>,
    pub(super) new: Range<u64>,
    pub(super) keeps_old: bool,
    pub(super) site: Option<SiteId>,
}

impl Ledger {
    /// Puts down at `new` what the call's entry took out of `old`, owners and all; what is longer is the call site's.
    pub(super) fn remap(&mut self, change: &Change, remapping: &Remapping) {
        let Remapping {
            old,
            new,
            keeps_old,
            site,
        } = remapping;
        let time = change.time;
        let taken = self.pending.moved(change.thread, old).map(|taken| taken.pieces);
        let pieces = taken.unwrap_or_else(|| {
            // Attached in between, or the entry was lost: the old range as it stands.
            if !old.is_empty() {
                self.losses.remaps_without_start += 1;
            }
            self.pending
                .remember(self.sequence, change.thread, old.clone(), true);
            let mut pieces = Vec::new();
            self.remove(old, time, |range, piece| pieces.push((range, piece)));
            pieces
        });
        let like = self.template(old, new, &pieces);
        if *keeps_old {
            self.leave_behind(&pieces, time);
        }
        let mut stood = Vec::new();
        self.remove(new, time, |range, piece| stood.push((range, piece)));

        let kept = new.start..new.start + (old.end - old.start).min(new.end - new.start);
        for (range, piece) in pieces {
            // Within `new`, since the offset in `old` is below the length of `kept` or cut to it.
            let at = |address: u64| (address - old.start).saturating_add(new.start).min(kept.end);
            let moved = at(range.start)..at(range.end);
            if moved.is_empty() {
                continue;
            }
            if piece.owner == Owner::BeforeAttach {
                // When the baseline has the new place too, the move was done before maps was read, and what was
                // read at the old place may be a later mapping.
                self.put_back_baseline(&moved, &stood, time);
            }
            for hole in self.pieces.holes(&moved) {
                self.put_back(hole, piece, time);
            }
        }
        for hole in self.pieces.holes(&kept) {
            // Nothing is known of the old place. When the new one is the baseline's, the move happened before maps
            // was read and its line has all there is to know; else an event is missing.
            self.put_back_baseline(&hole, &stood, time);
            let owner = if self.is_before_baseline(time) {
                Owner::BeforeAttach
            } else {
                Owner::Unseen
            };
            self.fill(&hole, like.with_owner(owner), time);
        }
        let grown = kept.end..new.end;
        if self.is_before_baseline(time) {
            self.put_back_baseline(&grown, &stood, time);
        }
        let owner = self.owner(*site, time);
        let committed = self.fill(&grown, like.with_owner(owner), time);
        self.count_acquisition(owner, *site, committed, time);
    }

    /// What memory is like that the call adds. A mapping that is moved or grown is one mapping of the kernel, so it is
    /// like the last of its pieces, but fresh; where none is known, like the baseline has its new place.
    fn template(&self, old: &Range<u64>, new: &Range<u64>, pieces: &[(Range<u64>, Piece)]) -> Piece {
        let known = if old.is_empty() {
            self.pieces.at(old.start)
        } else {
            let arrived = || {
                self.pieces
                    .at(new.start)
                    .filter(|piece| piece.owner == Owner::BeforeAttach)
            };
            pieces.last().map(|&(_, piece)| piece).or_else(arrived)
        };
        match known {
            Some(piece) => Piece::new(Owner::Unseen, piece.protection, piece.backing),
            // An old length of zero is a second view of shared memory; the kernel refuses it for private memory.
            None if old.is_empty() => Piece::new(Owner::Unseen, Protection::READ_WRITE, Backing::Shared),
            None => Piece::new(Owner::Unseen, Protection::READ_WRITE, Backing::Anonymous),
        }
    }

    /// `MREMAP_DONTUNMAP`: the old range stays mapped, and its pages have gone.
    fn leave_behind(&mut self, pieces: &[(Range<u64>, Piece)], time: u64) {
        for (range, piece) in pieces {
            let left = if piece.committed() {
                piece.with_owner(Owner::Discarded)
            } else {
                *piece
            };
            self.fill(range, left, time);
        }
    }

    fn put_back_baseline(&mut self, within: &Range<u64>, stood: &[(Range<u64>, Piece)], time: u64) {
        for (range, piece) in stood
            .iter()
            .filter(|(_, piece)| piece.owner == Owner::BeforeAttach)
        {
            let part = range.start.max(within.start)..range.end.min(within.end);
            if !part.is_empty() {
                self.put_back(part, *piece, time);
            }
        }
    }
}
