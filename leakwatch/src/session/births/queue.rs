//! Births between the ring and the cohorts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use leakwatch_ebpf::wire::{Header, Kind, block_in_sample, flags};

use crate::births::{Cohorts, Facts, Moments};
use crate::ledger::SiteId;
use crate::probe::Event;
use crate::session::state::{State, living, site};
use crate::session::translate::untagged;

/// Births that wait hold so many bytes at most.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Of the births whose blocks are gone while they wait, one in so many has its stack unwound, for all of them: most births
/// are of such blocks, and whose they were is only for the numbers of births by site.
const GONE_EACH: u64 = 16;

/// Births that wait for their stacks to be unwound. That takes longer than a burst may: it is done when the probes are out.
#[derive(Default)]
pub(in crate::session) struct Queue {
    births: VecDeque<Waiting>,
    /// How many were taken out of it: the number of the first one.
    taken: u64,
    /// Of processes' addresses the numbers of the births that came last.
    latest_at: HashMap<(u32, u64), u64, RandomState>,
    /// Of the copies.
    bytes: usize,
    /// When those came that were not looked at yet, whether they still wait or not.
    pub moments: Moments,
}

struct Waiting {
    header: Header,
    /// [`Facts::weight`]; 0 where the stack is not to be unwound.
    weight: u64,
    /// Its registers, if they are known, so many bytes, and its stack.
    copy: Vec<u8>,
    registers: Option<usize>,
}

impl Waiting {
    fn of(event: &Event<'_>) -> Self {
        let registers = event.registers.unwrap_or_default();
        Self {
            header: event.header,
            weight: 1,
            copy: [registers, event.stack].concat(),
            registers: event.registers.map(<[u8]>::len),
        }
    }

    fn event(&self) -> Event<'_> {
        let (registers, stack) = self
            .copy
            .split_at_checked(self.registers.unwrap_or(0))
            .unwrap_or_default();
        Event {
            kind: Kind::Alloc,
            header: self.header,
            registers: self.registers.map(|_| registers),
            stack,
        }
    }

    fn is_thinned(&self) -> bool {
        self.header.flags & flags::THINNED != 0
    }

    fn is_unwound(&self) -> bool {
        self.weight > 0 && !self.is_thinned()
    }

    fn tell(&self, site: Option<SiteId>, cohorts: &mut Cohorts) {
        let header = &self.header;
        let (address, old) = (untagged(header.address), untagged(header.old_address));
        let began = header.old_length;
        if self.is_thinned() {
            cohorts.left(old, began);
            return;
        }
        let facts = Facts {
            site,
            weight: self.weight,
            size: header.length,
            time: header.time,
            thread: header.tid,
            function: header.protection,
        };
        if old == 0 {
            cohorts.born(address, facts);
        } else {
            cohorts.moved(old, address, facts, began);
        }
    }

    /// Its block is gone. Returns by how many bytes its copy is shorter.
    fn gone(&mut self) -> usize {
        // Requests are made of like births in like order: to take each so-many-th could take the same ones of all.
        self.weight = if scattered(self.header.time).is_multiple_of(GONE_EACH) {
            GONE_EACH
        } else {
            0
        };
        if self.weight > 0 {
            return 0;
        }
        std::mem::take(&mut self.copy).len()
    }
}

/// A number whose bits all depend on those of `time` (the finalizer of MurmurHash3).
fn scattered(time: u64) -> u64 {
    let bits = (time ^ (time >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.births.is_empty()
    }

    /// Whether there is room for more.
    fn has_room(&self) -> bool {
        self.bytes + self.births.len() * size_of::<Waiting>() < QUEUE_BYTES_MAX
    }

    fn push(&mut self, event: &Event<'_>) {
        let birth = Waiting::of(event);
        self.bytes += birth.copy.len();
        let (pid, old) = (birth.header.tgid, untagged(birth.header.old_address));
        if old != 0 {
            self.gave_up(pid, old, birth.header.old_length);
        }
        if !birth.is_thinned() {
            self.moments.came(birth.header.time);
            let number = self.taken + self.births.len() as u64;
            let address = untagged(birth.header.address);
            if let Some(before) = self.latest_at.insert((pid, address), number) {
                self.gone(before);
            }
        }
        self.births.push_back(birth);
    }

    /// realloc, which began at `began`, gave up the block at an address. One that was born there since stays.
    fn gave_up(&mut self, pid: u32, address: u64, began: u64) {
        let Some(number) = self.latest_at.get(&(pid, address)).copied() else {
            return;
        };
        if self
            .waiting(number)
            .is_some_and(|birth| birth.header.time <= began)
        {
            self.latest_at.remove(&(pid, address));
            self.gone(number);
        }
    }

    fn gone(&mut self, number: u64) {
        let shorter = self.waiting(number).map_or(0, Waiting::gone);
        self.bytes -= shorter;
    }

    fn waiting(&mut self, number: u64) -> Option<&mut Waiting> {
        let index = usize::try_from(number.checked_sub(self.taken)?).ok()?;
        self.births.get_mut(index)
    }

    /// Whoever is born from now on, all that wait have their stacks unwound that would have it now: their blocks are
    /// being looked at.
    pub fn settle(&mut self) {
        self.latest_at.clear();
    }

    fn pop(&mut self) -> Option<Waiting> {
        let birth = self.births.pop_front()?;
        let key = (birth.header.tgid, untagged(birth.header.address));
        if let Entry::Occupied(latest) = self.latest_at.entry(key)
            && *latest.get() == self.taken
        {
            latest.remove();
        }
        self.taken += 1;
        self.bytes -= birth.copy.len();
        Some(birth)
    }

    /// The blocks of a process that stand at their addresses when all of it is done, born at `until` or before.
    pub fn standing(&self, pid: u32, threshold: u64, until: u64) -> BTreeMap<u64, u64> {
        let mut standing = BTreeMap::new();
        let of_process = self.births.iter().filter(|birth| birth.header.tgid == pid);
        for Waiting { header, .. } in of_process {
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
            self.make_room();
        }
        self.queue.push(event);
    }

    /// Unwinds what waits, for so long at most.
    pub(super) fn work_off(&mut self, most: Duration) {
        let began = Instant::now();
        self.work_off_while(|_| began.elapsed() < most);
    }

    /// Unwinds so much of what waits that there is room for more.
    fn make_room(&mut self) {
        while !self.queue.has_room()
            && let Some(birth) = self.queue.pop()
        {
            self.tell_birth(&birth);
        }
    }

    /// Unwinds what waits and was born by `time`, nanoseconds.
    pub(super) fn work_off_until(&mut self, time: u64) {
        self.work_off_while(|next| next.header.time <= time);
    }

    fn work_off_while(&mut self, wanted: impl Fn(&Waiting) -> bool) {
        while self.queue.births.front().is_some_and(&wanted)
            && let Some(birth) = self.queue.pop()
        {
            self.tell_birth(&birth);
        }
    }

    fn tell_birth(&mut self, birth: &Waiting) {
        let unwound = birth.is_unwound().then(|| self.site_of(birth)).flatten();
        if let Some(cohorts) = self.cohorts_of(birth.header.tgid) {
            birth.tell(unwound, cohorts);
        }
    }

    fn site_of(&mut self, birth: &Waiting) -> Option<SiteId> {
        if let Some(process) = living(&mut self.processes, birth.header.tgid, &mut self.stray_events) {
            process.refresh_code(&self.root, &mut self.unwinder);
        }
        site(&mut self.unwinder, &mut self.sites, &birth.event(), false)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
