//! What is given up, and what is put back when the call that wanted it fails.

use std::ops::Range;

use super::Ledger;
use super::change::{Change, How, Protection};
use super::pending::Taken;
use super::pieces::{self, Owner, Piece};

impl Ledger {
    pub(super) fn release(&mut self, change: &Change, range: Range<u64>, how: How) {
        let time = change.time;
        let mut taken = Taken::new(range.clone(), how, time, self.sequence);
        if how.unmaps() {
            self.remove(&range, time, |range, piece| taken.push(range, piece));
        } else {
            let mut parts = Vec::new();
            self.pieces
                .take(&range, |range, piece| parts.push((range, piece)));
            for (range, piece) in parts {
                let next = match how {
                    How::Discard if piece.committed() => piece.with_owner(Owner::Discarded),
                    How::Decommit => piece.with_protection(Protection::NONE),
                    _ => piece,
                };
                self.exchange(&range, piece, next, time);
                if next != piece {
                    taken.push(range.clone(), piece);
                }
                self.pieces.put(range, next);
            }
        }
        self.pending.hold(change.thread, taken);
    }

    /// A release failed: what it took out is put back, except where somebody else has come meanwhile.
    pub(super) fn restore(&mut self, change: &Change, range: &Range<u64>, how: How) {
        let time = change.time;
        let Some(taken) = self.pending.failed(change.thread, range, how) else {
            self.losses.failures_without_start += 1;
            return;
        };
        let (others, whole) = self.pending.since(&taken, change.thread);
        if !whole {
            self.losses.uncertain_restores += 1;
        }
        for (range, piece) in &taken.pieces {
            for left in pieces::without(range, others.iter().cloned()) {
                if how.unmaps() {
                    for hole in self.pieces.holes(&left) {
                        self.put_back(hole, *piece, time);
                    }
                } else {
                    self.revert(&left, *piece, how, time);
                }
            }
        }
    }

    /// Makes `range` again what it was before a discard or a decommit, where it still is what that made of it.
    fn revert(&mut self, range: &Range<u64>, before: Piece, how: How, time: u64) {
        let after = match how {
            How::Discard => before.with_owner(Owner::Discarded),
            _ => before.with_protection(Protection::NONE),
        };
        let mut parts = Vec::new();
        self.pieces.take(range, |range, piece| parts.push((range, piece)));
        for (range, piece) in parts {
            if piece == after {
                if piece.committed() {
                    self.accounts.release(piece.owner, range.end - range.start, time);
                }
                self.put_back(range, before, time);
            } else {
                self.pieces.put(range, piece);
            }
        }
    }
}
