//! Makes the ledger agree with a reading of maps, except where changes and reading may have crossed.

use std::ops::Range;

use serde::Serialize;

use super::Ledger;
use super::change::{Region, USER_END};
use super::pending::LONGEST_CALL;
use super::pieces::{Owner, Piece};

/// Ranges that may be remembered while a check is on. Beyond it near ones are joined with what is between them: more
/// is skipped then, nothing is judged wrongly.
const TOUCHED_MAX: usize = 64 * 1024;

/// What a check found, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Mapped and unknown: [`Owner::Unseen`] now.
    pub appeared_bytes: u64,
    /// Known and not mapped: released now.
    pub vanished_bytes: u64,
    /// Mapped with another protection than was known.
    pub changed_bytes: u64,
    /// Mapped, and changed while maps was read: left to the next check.
    pub skipped_bytes: u64,
}

impl Repair {
    fn add(&mut self, other: Self) {
        self.appeared_bytes += other.appeared_bytes;
        self.vanished_bytes += other.vanished_bytes;
        self.changed_bytes += other.changed_bytes;
        self.skipped_bytes += other.skipped_bytes;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Check {
    began: u64,
    touched: Vec<Range<u64>>,
}

impl Check {
    fn note(&mut self, range: &Range<u64>) {
        if self.touched.len() >= TOUCHED_MAX {
            let mut gap = 0;
            while self.touched.len() > TOUCHED_MAX / 2 {
                self.touched = joined(std::mem::take(&mut self.touched), gap);
                gap = (gap * 4).max(4096);
            }
        }
        self.touched.push(range.clone());
    }
}

/// In order, those that are at most `gap` apart as one.
fn joined(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, open| {
        let near = next.start <= open.end.saturating_add(gap);
        if near {
            open.end = open.end.max(next.end);
        }
        near
    });
    ranges
}

impl Ledger {
    /// Call this right before maps is read, at `now` (nanoseconds of `CLOCK_MONOTONIC`). Then read maps, then apply
    /// all changes that are in the ring by then, then call [`Ledger::finish_check`].
    pub fn begin_check(&mut self, now: u64) {
        let mut check = Check {
            began: now,
            touched: Vec::new(),
        };
        for range in self.pending.under_way(now) {
            check.note(&range);
        }
        self.check = Some(check);
    }

    /// Remembers a range as touched while a check is on. A change from shortly before it began may be the entry of a
    /// call that the kernel had not yet done when maps was read, so these count too.
    pub(super) fn note_touched(&mut self, range: &Range<u64>, time: u64) {
        if let Some(check) = &mut self.check
            && time.saturating_add(LONGEST_CALL) >= check.began
            && !range.is_empty()
        {
            check.note(range);
        }
    }

    /// Makes the ledger agree with `regions` outside of what was touched since [`Ledger::begin_check`]; without one it
    /// does nothing. A call whose effect is in maps and whose event comes later is no trouble: its range is
    /// [`Owner::Unseen`] until the event takes it over.
    pub fn finish_check(&mut self, regions: &[Region]) -> Repair {
        let Some(check) = self.check.take() else {
            return Repair::default();
        };
        let regions = self.pages.regions(regions);
        let mut repair = Repair::default();
        let mut from = 0;
        for touched in joined(check.touched, 0) {
            self.compare(&(from..touched.start), &regions, check.began, &mut repair);
            repair.skipped_bytes += overlapping(&regions, &touched)
                .map(|(part, _)| part.end - part.start)
                .sum::<u64>();
            from = touched.end;
        }
        self.compare(&(from..USER_END), &regions, check.began, &mut repair);
        self.losses.repaired.add(repair);
        self.limit(check.began);
        repair
    }

    fn compare(&mut self, range: &Range<u64>, regions: &[Region], time: u64, repair: &mut Repair) {
        let mut from = range.start;
        for (part, region) in overlapping(regions, range) {
            repair.vanished_bytes += self.vanish(&(from..part.start), time);
            from = part.end;
            self.agree(&part, region, time, repair);
        }
        repair.vanished_bytes += self.vanish(&(from..range.end), time);
    }

    fn vanish(&mut self, range: &Range<u64>, time: u64) -> u64 {
        let mut bytes = 0;
        self.remove(range, time, |range, _| bytes += range.end - range.start);
        bytes
    }

    fn agree(&mut self, range: &Range<u64>, region: &Region, time: u64, repair: &mut Repair) {
        let alike = |piece: &Piece| piece.protection == region.protection && piece.backing == region.backing;
        let agreed: u64 = self
            .pieces
            .within(range)
            .filter(|(_, piece)| alike(piece))
            .map(|(part, _)| part.end - part.start)
            .sum();
        if agreed == range.end - range.start {
            return;
        }
        let mut parts = Vec::new();
        self.pieces.take(range, |range, piece| parts.push((range, piece)));
        for (range, piece) in parts {
            let bytes = range.end - range.start;
            if piece.backing != region.backing {
                // Another mapping than the one that was known.
                repair.vanished_bytes += bytes;
                if piece.committed() {
                    self.accounts.release(piece.owner, bytes, time);
                }
                continue;
            }
            let mut next = piece.with_protection(region.protection);
            if next.protection != piece.protection {
                repair.changed_bytes += bytes;
                if next.committed() && !piece.committed() {
                    next.owner = Owner::Unseen;
                }
                self.exchange(&range, piece, next, time);
            }
            self.pieces.put(range, next);
        }
        let unseen = Piece::new(Owner::Unseen, region.protection, region.backing);
        for hole in self.pieces.holes(range) {
            repair.appeared_bytes += hole.end - hole.start;
            self.fill(&hole, unseen, time);
        }
    }
}

/// The parts of `regions` (in order) that lie in `range`.
fn overlapping<'a>(
    regions: &'a [Region],
    range: &Range<u64>,
) -> impl Iterator<Item = (Range<u64>, &'a Region)> + use<'a> {
    let (start, end) = (range.start, range.end);
    let first = regions.partition_point(|region| region.range.end <= start);
    regions
        .get(first..)
        .unwrap_or_default()
        .iter()
        .take_while(move |region| region.range.start < end)
        .map(move |region| (region.range.start.max(start)..region.range.end.min(end), region))
        .filter(|(part, _)| !part.is_empty())
}
