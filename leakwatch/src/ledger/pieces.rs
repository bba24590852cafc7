//! The interval map: pieces that do not overlap, each with its owner, its protection and its backing.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use super::change::{Backing, Protection, SiteId};

/// To whom a byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// It stood when the baseline was read.
    BeforeAttach,
    Site(SiteId),
    /// Its pages were given up by `madvise`: still mapped, nobody's until touched again.
    Discarded,
    /// Nobody saw who: a lost event, a lost stack, or the kernel let the main stack grow.
    Unseen,
}

/// What is known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    pub owner: Owner,
    pub protection: Protection,
    pub backing: Backing,
    /// Anonymous and at some time writable: it may hold pages, whatever its protection is now.
    pub written: bool,
}

impl Piece {
    #[must_use]
    pub fn new(owner: Owner, protection: Protection, backing: Backing) -> Self {
        Self {
            owner,
            protection,
            backing,
            written: false,
        }
        .with_protection(protection)
    }

    /// Private anonymous memory that is or was writable and is not `PROT_NONE`.
    #[must_use]
    pub fn committed(&self) -> bool {
        self.written && !self.protection.is_none()
    }

    pub(super) fn with_protection(self, protection: Protection) -> Self {
        let written = self.written || (self.backing == Backing::Anonymous && protection.is_writable());
        Self {
            protection,
            written,
            ..self
        }
    }

    pub(super) fn with_owner(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    end: u64,
    piece: Piece,
}

/// Keyed by start address. Adjacent pieces that are equal are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    tree: BTreeMap<u64, Extent>,
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<u64>, Piece)> + '_ {
        self.tree
            .iter()
            .map(|(&start, extent)| (start..extent.end, extent.piece))
    }

    /// The pieces in `range`, cut to it, in order.
    pub(super) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Piece)> + '_ {
        let (from, to) = (range.start, range.end.max(range.start));
        let first = self
            .tree
            .range(..from)
            .next_back()
            .filter(|(_, extent)| extent.end > from && from < to);
        first
            .into_iter()
            .chain(self.tree.range(from..to))
            .map(move |(&start, extent)| (start.max(from)..extent.end.min(to), extent.piece))
    }

    pub(super) fn at(&self, address: u64) -> Option<Piece> {
        let (_, extent) = self.tree.range(..=address).next_back()?;
        (extent.end > address).then_some(extent.piece)
    }

    /// The parts of `range` where no piece is.
    pub(super) fn holes(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        without(range, self.within(range).map(|(piece, _)| piece))
    }

    /// Takes out what lies in `range`, cutting the pieces at its ends; `visit` gets each part, in order.
    pub(super) fn take(&mut self, range: &Range<u64>, mut visit: impl FnMut(Range<u64>, Piece)) {
        if range.is_empty() {
            return;
        }
        if let Some((_, extent)) = self.tree.range_mut(..range.start).next_back()
            && extent.end > range.start
        {
            let Extent { end, piece } = *extent;
            extent.end = range.start;
            visit(range.start..end.min(range.end), piece);
            if end > range.end {
                self.tree.insert(range.end, Extent { end, piece });
                return;
            }
        }
        while let Some((&start, &Extent { end, piece })) = self.tree.range(range.clone()).next() {
            self.tree.remove(&start);
            visit(start..end.min(range.end), piece);
            if end > range.end {
                self.tree.insert(range.end, Extent { end, piece });
                return;
            }
        }
    }

    /// Puts a piece where none is, joining it with equal neighbours.
    pub(super) fn put(&mut self, range: Range<u64>, piece: Piece) {
        debug_assert!(
            !range.is_empty() && self.within(&range).next().is_none(),
            "{range:x?} is taken or empty"
        );
        let mut end = range.end;
        if let Some(right) = self.tree.get(&range.end)
            && right.piece == piece
        {
            end = right.end;
            self.tree.remove(&range.end);
        }
        if let Some((_, left)) = self.tree.range_mut(..range.start).next_back()
            && left.end == range.start
            && left.piece == piece
        {
            left.end = end;
            return;
        }
        self.tree.insert(range.start, Extent { end, piece });
    }

    /// Every piece belongs to `owner` from now on.
    pub(super) fn owned_by(&self, owner: Owner) -> Self {
        let mut all = Self::default();
        for (range, piece) in self.iter() {
            all.put(range, piece.with_owner(owner));
        }
        all
    }

    /// Brings the number of pieces down to `goal`, the smallest first. Neighbours that differ only in their owner
    /// become one piece that is [`Owner::Unseen`]; `disown` hears of each part that loses its owner. The number of
    /// mappings is bounded by the kernel (`vm.max_map_count`), so that this nearly always suffices; where it does not,
    /// pieces are dropped, and `dropped` hears of them.
    pub(super) fn coarsen(
        &mut self,
        goal: usize,
        mut disown: impl FnMut(u64, Piece),
        mut dropped: impl FnMut(u64, Piece),
    ) {
        let mut small = 16 * 1024;
        while self.len() > goal && small <= 1 << 30 {
            self.join_small(small, &mut disown);
            small = u64::saturating_mul(small, 4);
        }
        let mut small = 16 * 1024;
        while self.len() > goal {
            self.tree.retain(|&start, extent| {
                let kept = extent.end - start > small;
                if !kept {
                    dropped(extent.end - start, extent.piece);
                }
                kept
            });
            small = u64::saturating_mul(small, 4);
        }
    }

    fn join_small(&mut self, small: u64, disown: &mut impl FnMut(u64, Piece)) {
        let mut joined = Self::default();
        let mut run: Option<(Range<u64>, Piece, bool)> = None;
        for (range, piece) in self.iter() {
            let length = range.end - range.start;
            let is_small = length <= small;
            match &mut run {
                Some((open, first, open_is_small))
                    if *open_is_small
                        && is_small
                        && open.end == range.start
                        && first.with_owner(piece.owner) == piece =>
                {
                    if first.owner != Owner::Unseen {
                        disown(open.end - open.start, *first);
                        first.owner = Owner::Unseen;
                    }
                    if piece.owner != Owner::Unseen {
                        disown(length, piece);
                    }
                    open.end = range.end;
                }
                _ => {
                    if let Some((range, piece, _)) = run.replace((range, piece, is_small)) {
                        joined.put(range, piece);
                    }
                }
            }
        }
        if let Some((range, piece, _)) = run {
            joined.put(range, piece);
        }
        *self = joined;
    }
}

/// `range` without `others`, which come in order and may overlap.
pub(super) fn without(range: &Range<u64>, others: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut from = range.start;
    for other in others {
        if from >= range.end || other.start >= range.end {
            break;
        }
        if other.start > from {
            left.push(from..other.start);
        }
        from = from.max(other.end);
    }
    if from < range.end {
        left.push(from..range.end);
    }
    left
}
