//! Looks at blocks from outside.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::births::cohorts::{Look, Seen};
use crate::census::memory::ProcessMemory;
use crate::census::watched::{Glimpse, Lists, glimpse};
use crate::session::process::monotonic_ns;

/// A look at blocks, on a thread of its own.
pub(super) struct Looking {
    looks: Vec<Look>,
    /// When it began, nanoseconds.
    pub time: u64,
    thread: JoinHandle<Vec<Seen>>,
}

impl Looking {
    pub fn start(pid: u32, lists: &Arc<Lists>, looks: Vec<Look>) -> Option<Self> {
        let addresses: Vec<u64> = looks.iter().map(|look| look.address).collect();
        let lists = Arc::clone(lists);
        let time = monotonic_ns();
        let thread = std::thread::Builder::new()
            .spawn(move || {
                let found = glimpse(&ProcessMemory::of(pid), &lists, &addresses);
                found.into_iter().map(seen).collect()
            })
            .ok()?;
        Some(Self { looks, time, thread })
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// What was seen, one for each look. A look that failed saw nothing.
    pub fn finish(self) -> (Vec<Look>, u64, Vec<Seen>) {
        let mut seen = self.thread.join().unwrap_or_default();
        seen.resize(self.looks.len(), Seen::Unknown);
        (self.looks, self.time, seen)
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
