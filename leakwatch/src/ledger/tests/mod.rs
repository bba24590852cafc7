//! Each rule by itself, as a short history of one process ([`rules`], [`limits`]); the ledger against a plain model
//! ([`against_model`]) and against a kernel in small ([`simulation`]).

use super::*;

mod against_model;
mod limits;
mod model;
mod rules;
mod simulation;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const HEAP: u64 = 0x5555_0000_0000;
const A: u64 = 0x7f00_0000_0000;
const B: u64 = 0x7f10_0000_0000;

const LEAK: SiteId = SiteId(1);
const OTHER: SiteId = SiteId(2);

/// A ledger and a clock that goes on by a millisecond with each change.
struct Target {
    ledger: Ledger,
    time: u64,
}

fn at(start: u64, bytes: u64) -> Range<u64> {
    start..start + bytes
}

impl Target {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(PAGE),
            time: 0,
        }
    }

    fn from_baseline(regions: &[Region]) -> Self {
        let mut target = Self {
            ledger: Ledger::new(PAGE),
            time: 10 * SECOND,
        };
        target.ledger.set_baseline(regions, target.time);
        target
    }

    fn apply(&mut self, thread: u32, action: Action) -> &mut Self {
        self.time += 1_000_000;
        self.ledger.apply(&Change {
            time: self.time,
            thread,
            action,
        });
        self
    }

    fn map(&mut self, thread: u32, range: Range<u64>, protection: Protection, site: SiteId) -> &mut Self {
        self.apply(
            thread,
            Action::Map {
                range,
                protection,
                backing: Backing::Anonymous,
                site: Some(site),
            },
        )
    }

    fn protect(&mut self, thread: u32, range: Range<u64>, protection: Protection, site: SiteId) -> &mut Self {
        self.apply(
            thread,
            Action::Protect {
                range,
                protection,
                site: Some(site),
            },
        )
    }

    fn release(&mut self, thread: u32, range: Range<u64>, how: How) -> &mut Self {
        self.apply(thread, Action::Release { range, how })
    }

    fn fail(&mut self, thread: u32, range: Range<u64>, how: How) -> &mut Self {
        self.apply(thread, Action::ReleaseFailed { range, how })
    }

    fn remap(&mut self, old: Range<u64>, new: Range<u64>, keeps_old: bool, site: SiteId) -> &mut Self {
        self.release(1, old.clone(), How::RemapFrom);
        self.apply(
            1,
            Action::Remap {
                old,
                new,
                keeps_old,
                site: Some(site),
            },
        )
    }

    fn held(&self, site: SiteId) -> u64 {
        self.ledger.account(site).map_or(0, Account::held_bytes)
    }

    fn owner(&self, address: u64) -> Option<Owner> {
        self.ledger.piece_at(address).map(|piece| piece.owner)
    }
}

fn region(range: Range<u64>, protection: Protection, backing: Backing) -> Region {
    Region {
        range,
        protection,
        backing,
    }
}
