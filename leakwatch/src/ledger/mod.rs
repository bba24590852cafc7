//! Who owns which byte of the target's address space: pure, no IO, no clock.
//!
//! The ledger is an interval map. Every byte that is mapped belongs to one [`Owner`], and has the protection and the
//! backing that the kernel gives it. [`Change`]s come in the order of the ring buffer. That order is the order of
//! ownership, because what gives memory up is reported when its call is entered and what gains memory when it has
//! returned: between two owners of a page the first one's release always comes before the second one's acquisition,
//! whatever their threads do in between.
//!
//! # What counts
//!
//! *Committed* is private anonymous memory that is or was writable and is not `PROT_NONE`. A range becomes growth when
//! it becomes committed (`mmap` of writable memory, `brk` up, `mprotect` of a reservation to writable) and belongs to
//! the call site that made it so. A later `mprotect` of committed memory changes its protection, never its owner: the
//! pages are the same. To `PROT_NONE` it is a release. File mappings and shared memory are kept, since they replace
//! what they cover, but are no growth.
//!
//! # The baseline
//!
//! Probes are attached first, then `/proc/PID/maps` is read, then [`Ledger::set_baseline`] is called, and only then
//! are changes applied, *also those from before the reading*. They are in the reading already, most of them, so they
//! may seem to undo it; but:
//!
//! - a page's state is what the last change on it left. After all changes from before the reading, in order, each page
//!   that any of them touched is as its last change says, and the kernel had it so when maps was read: the two agree.
//!   On the way there the ledger passes through states that are long gone; nobody looks at it then;
//! - a page that none of them touched is as the reading says;
//! - a call that was under way while maps was read may or may not be in the reading. Its release came before or its
//!   acquisition comes after, and that one has the last word. To drop the changes from before the reading would get
//!   exactly these wrong: a `munmap` that was entered before and done after would leave its range for ever.
//!
//! Their acquisitions belong to [`Owner::BeforeAttach`], as the baseline itself does: they are not of the window.
//!
//! Two things remain to the first check. A release that was entered before the attach and done after the reading leaves
//! no trace. And an `mremap` from around the reading can have taken out of its old place what the reading saw there
//! later: its new place is known to be mapped, but with what protection is a guess where the reading does not tell.
//!
//! # Checks
//!
//! [`Ledger::begin_check`] and [`Ledger::finish_check`] bring the ledger back to a later reading of maps, so that a
//! lost event costs an owner, not the account.
//!
//! # Not a goal
//!
//! Which pages are resident: an owner of committed memory may never have touched it.

mod account;
mod change;
mod check;
pub mod pages;
mod pending;
mod pieces;
mod release;
mod remap;

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::Serialize;

pub use account::{Account, SERIES_POINTS, Series, Tally, Totals, slope};
pub use change::{Action, Backing, Change, How, Protection, Region, SiteId};
pub use check::Repair;
pub use pieces::{Owner, Piece};

use account::Accounts;
use change::Pages;
use check::Check;
use pending::Pending;
use pieces::Pieces;
use remap::Remapping;

/// Pieces kept at most, some 200 MiB. Contiguous pieces that differ in their owner only are what makes them many.
const PIECES_MAX: usize = 4 << 20;

/// What the ledger could not do right. Each one is a line of the report where it is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Changes that no kernel makes: zero or negative length, a start off the page, kernel addresses. `munmap` and its
    /// kin refuse them, and `mprotect` and `madvise` of nothing do nothing.
    pub ignored_changes: u64,
    /// Acquisitions whose stack was lost, and their bytes.
    pub stackless_acquisitions: u64,
    pub stackless_bytes: u64,
    /// Acquisitions of sites beyond the number that can have an account.
    pub acquisitions_over_site_limit: u64,
    /// `mprotect` of addresses that the ledger did not know to be mapped, in bytes.
    pub protected_unknown_bytes: u64,
    /// `mremap` whose entry was not seen.
    pub remaps_without_start: u64,
    /// Failed releases that nothing is known of.
    pub failures_without_start: u64,
    /// Failed releases that were put back though too much had happened meanwhile to be sure that nobody else had come.
    pub uncertain_restores: u64,
    /// Calls under way whose pieces could not all be held back: too many threads or pieces.
    pub pending_dropped: u64,
    /// Committed bytes that lost their owner, or were forgotten, because there were too many pieces.
    pub coarsened_bytes: u64,
    pub forgotten_bytes: u64,
    /// All repairs together.
    pub repaired: Repair,
}

/// The map and its accounts. See the module's page.
#[derive(Clone, Debug)]
pub struct Ledger {
    pages: Pages,
    pieces: Pieces,
    pieces_max: usize,
    accounts: Accounts,
    pending: Pending,
    check: Option<Check>,
    losses: Losses,
    /// When the reading of maps began that is the baseline: acquisitions from before are not of the window.
    baseline_time: u64,
    /// Changes applied so far: numbers them.
    sequence: u64,
}

impl Ledger {
    /// An empty ledger. `page_bytes` is the target's page size.
    #[must_use]
    pub fn new(page_bytes: u64) -> Self {
        Self {
            pages: Pages::new(page_bytes),
            pieces: Pieces::default(),
            pieces_max: PIECES_MAX,
            accounts: Accounts::default(),
            pending: Pending::default(),
            check: None,
            losses: Losses::default(),
            baseline_time: 0,
            sequence: 0,
        }
    }

    /// Starts anew from a reading of maps that began at `read_began` (nanoseconds of `CLOCK_MONOTONIC`). To be called
    /// before any change is applied; then all changes since the probes were attached are, in order.
    pub fn set_baseline(&mut self, regions: &[Region], read_began: u64) {
        let fresh = Self {
            pages: self.pages,
            pieces_max: self.pieces_max,
            ..Self::new(4096)
        };
        *self = Self {
            baseline_time: read_began,
            accounts: Accounts::new(read_began),
            ..fresh
        };
        for region in self.pages.regions(regions) {
            let piece = Piece::new(Owner::BeforeAttach, region.protection, region.backing);
            self.fill(&region.range, piece, read_began);
        }
        self.accounts.totals.baseline_bytes = self.accounts.totals.held_bytes();
        self.limit(read_began);
    }

    /// The ledger of a child at its birth: the same memory, all of it from before, and accounts of its own.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut child = Self {
            pages: self.pages,
            pieces_max: self.pieces_max,
            ..Self::new(4096)
        };
        child.baseline_time = self.baseline_time;
        child.accounts = Accounts::new(self.baseline_time);
        child.pieces = self.pieces.owned_by(Owner::BeforeAttach);
        for (range, piece) in child.pieces.iter().filter(|(_, piece)| piece.committed()) {
            child
                .accounts
                .commit(piece.owner, range.end - range.start, self.baseline_time);
        }
        child.accounts.totals.baseline_bytes = child.accounts.totals.held_bytes();
        child
    }

    /// Applies the next change. One that no kernel makes is ignored and counted.
    pub fn apply(&mut self, change: &Change) {
        self.sequence += 1;
        if self.act(change).is_none() {
            self.losses.ignored_changes += 1;
        }
        self.limit(change.time);
    }

    /// `None` for a change that cannot be.
    fn act(&mut self, change: &Change) -> Option<()> {
        match &change.action {
            Action::Map {
                range,
                protection,
                backing,
                site,
            } => {
                let range = self.pages.mapping(range)?;
                self.map(change, range, *protection, *backing, *site);
            }
            Action::BrkUp {
                old_end,
                new_end,
                site,
            } => {
                let range = self.pages.heap(&(*old_end..*new_end))?;
                if !range.is_empty() {
                    self.map(change, range, Protection::READ_WRITE, Backing::Anonymous, *site);
                }
            }
            Action::Remap {
                old,
                new,
                keeps_old,
                site,
            } => {
                let (old, new) = (self.pages.moved(old)?, self.pages.mapping(new)?);
                // The old range was given up at the call's entry: others may have come and gone there since.
                self.note_touched(&old, change.time);
                self.touch(change, &new, true);
                self.remap(
                    change,
                    &Remapping {
                        old,
                        new,
                        keeps_old: *keeps_old,
                        site: *site,
                    },
                );
            }
            Action::Protect {
                range,
                protection,
                site,
            } => {
                let range = self.pages.mapping(range)?;
                self.pending.settle(change.thread);
                self.touch(change, &range, false);
                self.protect(&range, *protection, *site, change.time);
            }
            Action::Release { range, how } => {
                let range = self.pages.release(range, *how)?;
                self.touch(change, &range, how.unmaps());
                self.release(change, range, *how);
            }
            Action::ReleaseFailed { range, how } => {
                let range = self.pages.release(range, *how)?;
                self.note_touched(&range, change.time);
                self.restore(change, &range, *how);
            }
        }
        Some(())
    }

    fn touch(&mut self, change: &Change, range: &Range<u64>, mapping: bool) {
        self.pending
            .remember(self.sequence, change.thread, range.clone(), mapping);
        self.note_touched(range, change.time);
    }

    fn map(
        &mut self,
        change: &Change,
        range: Range<u64>,
        protection: Protection,
        backing: Backing,
        site: Option<SiteId>,
    ) {
        self.pending.settle(change.thread);
        self.touch(change, &range, true);
        // Whatever is there still had its release lost.
        self.remove(&range, change.time, |_, _| ());
        let owner = self.owner(site, change.time);
        let committed = self.fill(&range, Piece::new(owner, protection, backing), change.time);
        self.count_acquisition(owner, site, committed, change.time);
    }

    fn protect(&mut self, range: &Range<u64>, protection: Protection, site: Option<SiteId>, time: u64) {
        let owner = self.owner(site, time);
        let mut parts = Vec::new();
        self.pieces.take(range, |range, piece| parts.push((range, piece)));
        let mut known = 0;
        let mut committed = 0;
        for (range, piece) in parts {
            let bytes = range.end - range.start;
            known += bytes;
            let mut next = piece.with_protection(protection);
            let acquired = match (piece.committed(), next.committed()) {
                (false, true) => true,
                // A check read maps between this very call and its event, and saw its effect first.
                (true, true) => {
                    piece.owner == Owner::Unseen
                        && piece.protection == protection
                        && matches!(owner, Owner::Site(_))
                }
                (_, false) => false,
            };
            if piece.committed() && (acquired || !next.committed()) {
                self.accounts.release(piece.owner, bytes, time);
            }
            if acquired {
                next.owner = owner;
                committed += bytes;
                self.accounts.commit(owner, bytes, time);
            }
            self.pieces.put(range, next);
        }
        // The kernel refuses to protect a hole: its event was lost. What it is, the next check finds.
        self.losses.protected_unknown_bytes += range.end - range.start - known;
        self.count_acquisition(owner, site, committed, time);
    }

    /// Takes out what is in `range`; committed pieces count as released.
    fn remove(&mut self, range: &Range<u64>, time: u64, mut visit: impl FnMut(Range<u64>, Piece)) {
        let accounts = &mut self.accounts;
        self.pieces.take(range, |range, piece| {
            if piece.committed() {
                accounts.release(piece.owner, range.end - range.start, time);
            }
            visit(range, piece);
        });
    }

    /// Puts a piece into free addresses whose release turned out to be none.
    fn put_back(&mut self, range: Range<u64>, piece: Piece, time: u64) {
        if piece.committed() {
            self.accounts.restore(piece.owner, range.end - range.start, time);
        }
        self.pieces.put(range, piece);
    }

    /// Puts a new piece wherever `range` is free; the bytes that it committed.
    fn fill(&mut self, range: &Range<u64>, piece: Piece, time: u64) -> u64 {
        let mut committed = 0;
        for hole in self.pieces.holes(range) {
            if piece.committed() {
                let bytes = hole.end - hole.start;
                self.accounts.commit(piece.owner, bytes, time);
                committed += bytes;
            }
            self.pieces.put(hole, piece);
        }
        committed
    }

    /// Books that `range` was `before` and is `after`; the map itself is the caller's.
    fn exchange(&mut self, range: &Range<u64>, before: Piece, after: Piece, time: u64) {
        let bytes = range.end - range.start;
        if before.owner == after.owner && before.committed() == after.committed() {
            return;
        }
        if before.committed() {
            self.accounts.release(before.owner, bytes, time);
        }
        if after.committed() {
            self.accounts.commit(after.owner, bytes, time);
        }
    }

    /// Whose an acquisition is.
    fn owner(&self, site: Option<SiteId>, time: u64) -> Owner {
        match site {
            _ if self.is_before_baseline(time) => Owner::BeforeAttach,
            Some(site) if self.accounts.has_room_for(site) => Owner::Site(site),
            _ => Owner::Unseen,
        }
    }

    fn count_acquisition(&mut self, owner: Owner, site: Option<SiteId>, committed: u64, time: u64) {
        if committed == 0 {
            return;
        }
        match (owner, site) {
            (Owner::Site(site), _) => self.accounts.count(site, time),
            (Owner::Unseen, Some(_)) => self.losses.acquisitions_over_site_limit += 1,
            (Owner::Unseen, None) => {
                self.losses.stackless_acquisitions += 1;
                self.losses.stackless_bytes += committed;
            }
            _ => {}
        }
    }

    fn is_before_baseline(&self, time: u64) -> bool {
        time < self.baseline_time
    }

    /// Bounded memory: too many pieces lose detail, and the loss is counted.
    fn limit(&mut self, time: u64) {
        if self.pieces.len() <= self.pieces_max {
            return;
        }
        let goal = self.pieces_max / 4 * 3;
        let mut disowned = Vec::new();
        let mut dropped = Vec::new();
        self.pieces.coarsen(
            goal,
            |bytes, piece| disowned.push((bytes, piece)),
            |bytes, piece| dropped.push((bytes, piece)),
        );
        for (bytes, piece) in disowned.into_iter().filter(|(_, piece)| piece.committed()) {
            self.accounts.release(piece.owner, bytes, time);
            self.accounts.commit(Owner::Unseen, bytes, time);
            self.losses.coarsened_bytes += bytes;
        }
        for (bytes, piece) in dropped.into_iter().filter(|(_, piece)| piece.committed()) {
            self.accounts.release(piece.owner, bytes, time);
            self.losses.forgotten_bytes += bytes;
        }
    }
}

/// What a report asks.
impl Ledger {
    /// Everything that is mapped, in order of address. Neighbours differ.
    pub fn pieces(&self) -> impl Iterator<Item = (Range<u64>, Piece)> + '_ {
        self.pieces.iter()
    }

    /// Committed memory that call sites hold, in order of address.
    pub fn held_ranges(&self) -> impl Iterator<Item = (Range<u64>, SiteId)> + '_ {
        self.pieces.iter().filter_map(|(range, piece)| match piece.owner {
            Owner::Site(site) if piece.committed() => Some((range, site)),
            _ => None,
        })
    }

    /// What is known of one address; `None` where nothing is mapped.
    #[must_use]
    pub fn piece_at(&self, address: u64) -> Option<Piece> {
        self.pieces.at(address)
    }

    #[must_use]
    pub fn account(&self, site: SiteId) -> Option<&Account> {
        self.accounts.sites.get(&site)
    }

    /// The sites that committed memory in the window, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = (SiteId, &Account)> + '_ {
        self.accounts.sites.iter().map(|(&site, account)| (site, account))
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.accounts.totals
    }

    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            pending_dropped: self.pending.dropped,
            ..self.losses
        }
    }
}
