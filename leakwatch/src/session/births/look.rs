//! Looks at blocks from outside.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::births::cohorts::{Look, Seen};
use crate::census::memory::ProcessMemory;
use crate::census::watched::{Glimpse, Lists, glimpse};
use crate::session::process::monotonic_ns;

/// What is to be looked at in one process.
pub(super) struct Wanted {
    pub pid: u32,
    pub lists: Arc<Lists>,
    pub looks: Vec<Look>,
}

/// A look at blocks, on a thread of its own.
pub(super) struct Looking {
    /// When it began, nanoseconds.
    pub time: u64,
    thread: JoinHandle<Vec<(Wanted, Vec<Seen>)>>,
}

impl Looking {
    pub fn start(all: Vec<Wanted>) -> Option<Self> {
        let time = monotonic_ns();
        let look = |wanted: Wanted| {
            let addresses: Vec<u64> = wanted.looks.iter().map(|look| look.address).collect();
            let found = glimpse(&ProcessMemory::of(wanted.pid), &wanted.lists, &addresses);
            let mut seen: Vec<Seen> = found.into_iter().map(seen).collect();
            seen.resize(wanted.looks.len(), Seen::Unknown);
            (wanted, seen)
        };
        let thread = std::thread::Builder::new()
            .spawn(move || all.into_iter().map(look).collect())
            .ok()?;
        Some(Self { time, thread })
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// When it began, and what was seen, one for each look. A look that failed saw nothing.
    pub fn finish(self) -> (u64, Vec<(Wanted, Vec<Seen>)>) {
        (self.time, self.thread.join().unwrap_or_default())
    }
}

fn seen(glimpse: Glimpse) -> Seen {
    match glimpse {
        Glimpse::NotInUse => Seen::NotInUse,
        Glimpse::InUse {
            chunk_bytes,
            mapped,
            words,
        } => Seen::InUse {
            chunk_bytes,
            mapped,
            words,
        },
    }
}
