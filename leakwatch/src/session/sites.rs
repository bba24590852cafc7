//! Call sites of the session: a stack, and the kind of call that it made.

use std::collections::{BTreeSet, HashMap};

use leakwatch_ebpf::wire::Kind;

use crate::diagnose::rank::Via;
use crate::ledger::SiteId;
use crate::unwind::StackId;

/// Names of threads kept for a site: a pool's threads tend to have one name each.
const THREADS_MAX: usize = 8;

/// One call site.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub stack: StackId,
    pub via: Via,
    /// Of ranges so small that others like them came without a stack: what those hold is shared out by these.
    pub small: bool,
    /// Names of the threads it was seen on: any bytes.
    pub threads: BTreeSet<Vec<u8>>,
    /// Nanoseconds.
    pub first_seen: u64,
    pub last_seen: u64,
}

/// All call sites. Bounded by the table of stacks, times the kinds of calls.
#[derive(Debug, Default)]
pub(super) struct Sites {
    sites: Vec<Site>,
    known: HashMap<(StackId, Via, bool), SiteId>,
}

impl Sites {
    /// The site of an event at `time` (nanoseconds); `comm` is the thread's name, NUL-padded.
    pub fn intern(&mut self, stack: StackId, via: Via, small: bool, (comm, time): (&[u8], u64)) -> SiteId {
        let id = *self.known.entry((stack, via, small)).or_insert_with(|| {
            let id = SiteId(u32::try_from(self.sites.len()).unwrap_or(u32::MAX));
            self.sites.push(Site {
                stack,
                via,
                small,
                threads: BTreeSet::new(),
                first_seen: time,
                last_seen: time,
            });
            id
        });
        if let Some(site) = self.sites.get_mut(id.0 as usize) {
            site.last_seen = site.last_seen.max(time);
            if site.threads.len() >= THREADS_MAX {
                return id;
            }
            let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
            // Looked up before it is copied: this runs for every event.
            if !site.threads.contains(name) {
                site.threads.insert(name.to_vec());
            }
        }
        id
    }

    pub fn get(&self, id: SiteId) -> Option<&Site> {
        self.sites.get(id.0 as usize)
    }
}

/// How the memory was asked for, for the kinds of events that gain some.
pub(super) fn via(kind: Kind) -> Option<Via> {
    Some(match kind {
        Kind::Map => Via::Mmap,
        Kind::BrkUp => Via::Brk,
        Kind::RemapTo => Via::Mremap,
        Kind::Protect => Via::Mprotect,
        Kind::Fault => Via::Fault,
        Kind::Alloc => Via::Malloc,
        _ => return None,
    })
}
