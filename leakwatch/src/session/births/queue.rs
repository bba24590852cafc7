//! Births between the ring and the cohorts.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{Header, Kind, block_in_sample, flags};

use crate::births::Facts;
use crate::probe::Event;
use crate::session::state::{State, living, site};
use crate::session::translate::untagged;

/// Births that wait hold so many bytes at most.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Births that wait for their stacks to be unwound. That takes longer than a burst may: it is done when the probes are out.
#[derive(Default)]
pub(in crate::session) struct Queue {
    births: VecDeque<Queued>,
    /// Their registers and stacks, one behind the other. It is emptied when the queue is, and keeps its room for the next
    /// burst: thousands of them come at once.
    bytes: Vec<u8>,
    /// When the newest was born, nanoseconds.
    pub latest: u64,
}

struct Queued {
    header: Header,
    /// Of [`Queue::bytes`].
    registers: Option<Range<usize>>,
    stack: Range<usize>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.births.is_empty()
    }

    /// Whether there is room for more.
    fn has_room(&self) -> bool {
        self.bytes.len() + self.births.len() * size_of::<Queued>() < QUEUE_BYTES_MAX
    }

    fn push(&mut self, event: &Event<'_>) {
        let queued = Queued {
            header: event.header,
            registers: event.registers.map(|registers| self.keep(registers)),
            stack: self.keep(event.stack),
        };
        self.latest = self.latest.max(queued.header.time);
        self.births.push_back(queued);
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// The blocks of a process that stand at their addresses when all of it is done, born at `until` or before.
    pub fn standing(&self, pid: u32, threshold: u64, until: u64) -> BTreeMap<u64, u64> {
        let mut standing = BTreeMap::new();
        let of_process = self.births.iter().filter(|birth| birth.header.tgid == pid);
        for Queued { header, .. } in of_process {
            standing.remove(&untagged(header.old_address));
            let address = untagged(header.address);
            if block_in_sample(address, threshold) {
                standing.insert(address, header.time);
            }
        }
        standing.retain(|_, born| *born <= until);
        standing
    }
}

impl State {
    /// A block was born, or realloc gave one up: to be told to the cohorts by [`Self::work_off`].
    pub(in crate::session) fn birth(&mut self, event: &Event<'_>) {
        if self.cohorts_of(event.header.tgid).is_none() {
            self.stray_events += 1;
            return;
        }
        if !self.queue.has_room() {
            self.work_off(Duration::MAX);
        }
        self.queue.push(event);
    }

    /// Unwinds what waits, for so long at most.
    pub(super) fn work_off(&mut self, most: Duration) {
        let began = Instant::now();
        self.work_off_while(|_| began.elapsed() < most);
    }

    /// Unwinds what waits and was born by `time`, nanoseconds.
    pub(super) fn work_off_until(&mut self, time: u64) {
        self.work_off_while(|next| next.header.time <= time);
    }

    fn work_off_while(&mut self, wanted: impl Fn(&Queued) -> bool) {
        let bytes = std::mem::take(&mut self.queue.bytes);
        while self.queue.births.front().is_some_and(&wanted)
            && let Some(queued) = self.queue.births.pop_front()
        {
            self.unwind_birth(&queued, &bytes);
        }
        self.queue.bytes = bytes;
        if self.queue.births.is_empty() {
            self.queue.bytes.clear();
        }
    }

    fn unwind_birth(&mut self, queued: &Queued, bytes: &[u8]) {
        let header = &queued.header;
        let (address, old) = (untagged(header.address), untagged(header.old_address));
        let began = header.old_length;
        if header.flags & flags::THINNED != 0 {
            if let Some(cohorts) = self.cohorts_of(header.tgid) {
                cohorts.left(old, began);
            }
            return;
        }
        if let Some(process) = living(&mut self.processes, header.tgid, &mut self.stray_events) {
            process.refresh_code(&self.root, &mut self.unwinder);
        }
        let event = Event {
            kind: Kind::Alloc,
            header: *header,
            registers: queued
                .registers
                .as_ref()
                .and_then(|range| bytes.get(range.clone())),
            stack: bytes.get(queued.stack.clone()).unwrap_or_default(),
        };
        let Some(site) = site(&mut self.unwinder, &mut self.sites, &event, false) else {
            return;
        };
        let facts = Facts {
            site,
            size: header.length,
            time: header.time,
            thread: header.tid,
            function: header.protection,
        };
        let Some(cohorts) = self.cohorts_of(header.tgid) else {
            return;
        };
        if old == 0 {
            cohorts.born(address, facts);
        } else {
            cohorts.moved(old, address, facts, began);
        }
    }
}
