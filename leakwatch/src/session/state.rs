//! Everything that events change: each is taken, and said to the ledgers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{Kind, SAMPLE_ALL, THIN_PAGES_MAX, flags};

use super::RecordOptions;
use super::births::Queue;
use super::heap::WatchedHeap;
use super::process::{PageRules, Process, anonymous_of, monotonic_ns};
use super::recorder::Recorder;
use super::samples::Samples;
use super::sampling::Sampling;
use super::series::{Point, Series};
use super::sites::{Sites, via};
use super::translate::{changes, untagged};
use crate::ledger::SiteId;
use crate::ledger::pages::{Fault, PAGES_MAX};
use crate::probe::{Event, Probe, ProbeError};
use crate::report::model::EndedBy;
use crate::sampler::ProcRoot;
use crate::sampler::paging::Paging;
use crate::unwind::{Snapshot, Unwinder};

/// Where a process's addresses end, by the architecture's page tables. The kernel's page for the probes in its text is the
/// last one below.
const ADDRESSES_END: [u64; 2] = if cfg!(target_arch = "aarch64") {
    [1 << 48, 1 << 52]
} else {
    [(1 << 47) - 4096, (1 << 56) - 4096]
};
const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;

/// Everything that events change. Apart from the probe, which lends them out.
pub(super) struct State {
    pub(super) root: ProcRoot,
    pub(super) target: u32,
    /// When it began to live, clock ticks since the boot.
    pub(super) start_ticks: u64,
    pub(super) follow_children: bool,
    pub unwinder: Unwinder,
    pub sites: Sites,
    pub processes: BTreeMap<u32, Process>,
    pub series: Series,
    pub samples: Samples,
    /// Of anonymous memory since the start, by the latest sample.
    pub(super) grown: Option<i64>,
    pub events: u64,
    /// Events of processes that are not watched, or were forgotten.
    pub stray_events: u64,
    /// Children that were born and not followed.
    pub unfollowed_children: u64,
    /// Children that were followed, exited, and had to make room for others.
    pub forgotten_children: u64,
    pub ended_by: Option<EndedBy>,
    /// The window's start.
    pub began: Instant,
    /// The window's end, in the clock of the events.
    pub ended_ns: Option<u64>,
    pub recorder: Option<Recorder>,
    /// `None` where page faults are not watched: then no stack is left out.
    pub sampling: Option<Sampling>,
    pub paging: Paging,
    /// What a reader should know of how page faults are watched.
    pub faults_note: Option<String>,
    /// Why the kernel did not follow the rate.
    pub sampling_error: Option<String>,
    /// The target's, and those of its children whose births are watched.
    pub heaps: BTreeMap<u32, WatchedHeap>,
    pub queue: Queue,
    /// Why births are not watched.
    pub allocs_not_watched: Option<String>,
    /// Why those of children are not, and of how many.
    pub children_not_watched: BTreeMap<String, u64>,
    /// The most that were left out of a sample.
    pub children_not_sampled: u64,
    window: Duration,
    open_ended: bool,
}

impl State {
    pub fn new(options: &RecordOptions) -> Self {
        Self {
            root: ProcRoot::default(),
            target: options.target.pid,
            start_ticks: options.target.start_time_ticks,
            follow_children: options.follow_children,
            unwinder: Unwinder::new(),
            sites: Sites::default(),
            processes: BTreeMap::new(),
            series: Series::default(),
            samples: Samples::of(&ProcRoot::default(), options.target.pid, options.duration),
            grown: None,
            events: 0,
            stray_events: 0,
            unfollowed_children: 0,
            forgotten_children: 0,
            ended_by: None,
            began: Instant::now(),
            ended_ns: None,
            recorder: None,
            sampling: None,
            paging: Paging::read(std::path::Path::new("/")),
            faults_note: None,
            sampling_error: None,
            heaps: BTreeMap::from([(options.target.pid, WatchedHeap::default())]),
            queue: Queue::default(),
            allocs_not_watched: None,
            children_not_watched: BTreeMap::new(),
            children_not_sampled: 0,
            window: options.duration,
            open_ended: options.open_ended,
        }
    }

    pub fn page_rules(&self) -> PageRules {
        PageRules {
            threshold: self.sampling.as_ref().map_or(SAMPLE_ALL, Sampling::threshold),
            paging: self.paging,
        }
    }

    /// The window begins.
    pub fn begin(&mut self) {
        self.began = Instant::now();
        let rules = self.page_rules();
        for process in self.processes.values_mut() {
            let began = process.begin(rules);
            if let Some(recorder) = &mut self.recorder {
                recorder.baseline(process.pid, process.baseline(), began);
            }
        }
    }

    /// What costs are measured by: the window that was asked for, or what an open-ended one has come to.
    pub(super) fn window(&self) -> Duration {
        if self.open_ended {
            self.window.max(self.began_to_end())
        } else {
            self.window
        }
    }

    /// From the window's start to its end, or to now.
    pub(super) fn began_to_end(&self) -> Duration {
        self.ended_ns.map_or_else(
            || self.began.elapsed(),
            |ended| Duration::from_nanos(ended.saturating_sub(self.began_ns())),
        )
    }

    /// The window's start, in the clock of the events.
    pub fn began_ns(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        monotonic_ns().saturating_sub(since)
    }

    pub fn root(&self) -> &ProcRoot {
        &self.root
    }

    pub(super) fn take(&mut self, event: &Event<'_>) {
        self.events += 1;
        match event.kind {
            Kind::Fork => self.forked(event),
            Kind::Exec => self.executed(event),
            Kind::Exit => self.exited(event.header.tgid),
            Kind::Fault => self.fault(event),
            Kind::Alloc => self.birth(event),
            _ => self.mapping(event),
        }
    }

    fn mapping(&mut self, event: &Event<'_>) {
        let header = &event.header;
        let Some(process) = living(&mut self.processes, header.tgid, &mut self.stray_events) else {
            return;
        };
        // A library that was just mapped runs in the very next stacks.
        process.refresh_code(&self.root, &mut self.unwinder);
        let mut small = false;
        if let Some(sampling) = &mut self.sampling
            && is_small(event)
        {
            small = sampling.threshold() < SAMPLE_ALL;
            if header.flags & flags::STACK != 0 {
                sampling.spend(header.stack_length);
            }
        }
        let site = acquires(event)
            .then(|| site(&mut self.unwinder, &mut self.sites, event, small))
            .flatten();
        for change in changes(event.kind, header, site) {
            if let Some(recorder) = &mut self.recorder {
                recorder.note(header.tgid, &change);
            }
            process.apply(&change);
        }
        if matches!(event.kind, Kind::Map | Kind::Protect) && header.protection & PROT_EXEC != 0 {
            process.note_code_change(event.kind == Kind::Map && header.fd >= 0);
        }
    }

    fn fault(&mut self, event: &Event<'_>) {
        let header = &event.header;
        let Some(sampling) = &mut self.sampling else {
            return;
        };
        let Some(process) = living(&mut self.processes, header.tgid, &mut self.stray_events) else {
            return;
        };
        let address = untagged(header.address);
        // No memory of the target's.
        if is_page_of_probes(address) && self.heaps.values().any(WatchedHeap::has_births) {
            return;
        }
        // Sampled before the rate fell.
        if !process.pages.samples(address) {
            return;
        }
        sampling.spend(header.stack_length);
        process.refresh_code(&self.root, &mut self.unwinder);
        let Some(site) = site(&mut self.unwinder, &mut self.sites, event, false) else {
            return;
        };
        if process.pages.touch(address, site, header.time) == (Fault::New { alone: true })
            && let Some(huge) = &mut process.huge
        {
            huge.note(address / super::process::page_bytes());
        }
    }

    /// Lowers the sampling rate where the budget is spent, there are more sampled pages than can be kept, or the kernel
    /// side has lowered it for want of room.
    pub(super) fn follow_sampling(&mut self, probe: &mut Probe) -> Result<(), ProbeError> {
        let Some(sampling) = &mut self.sampling else {
            return Ok(());
        };
        let pages: usize = self.processes.values().map(|process| process.pages.len()).sum();
        let fell = sampling.halve(self.began.elapsed()) || (pages > PAGES_MAX && sampling.lower());
        // 0 until the window begins.
        let in_kernel = probe.sample_threshold()?;
        while in_kernel > 0 && sampling.threshold() > in_kernel && sampling.lower() {}
        let threshold = sampling.threshold();
        if fell && threshold < in_kernel {
            probe.set_sample_threshold(threshold)?;
        }
        for process in self.processes.values_mut() {
            while process.pages.threshold() > threshold {
                process.pages.halve();
            }
        }
        Ok(())
    }

    /// The memory that was watched is gone.
    pub(super) fn target_gone(&self) -> bool {
        self.processes
            .get(&self.target)
            .is_none_or(|process| process.gone)
    }

    pub(super) fn end(&mut self, by: EndedBy) {
        self.ended_by.get_or_insert(by);
    }

    /// Reads what /proc tells cheaply. Returns the growth of anonymous memory since the start.
    pub(super) fn sample(&mut self) -> Option<i64> {
        let at = self.began.elapsed();
        let sample = self.samples.take()?;
        let children = self.children_growth();
        self.series.push(Point::of(at, &sample, children));
        let now = sample.totals;
        let start = self
            .processes
            .get(&self.target)?
            .start
            .totals
            .as_ref()
            .and_then(anonymous_of)?;
        Some(
            anonymous_of(&now)?
                .cast_signed()
                .saturating_sub(start.cast_signed())
                .saturating_add(children),
        )
    }
}

/// The process of an event. One that is gone has no account to keep any more; one that is not known is counted.
pub(super) fn living<'a>(
    processes: &'a mut BTreeMap<u32, Process>,
    pid: u32,
    unknown: &mut u64,
) -> Option<&'a mut Process> {
    let process = processes.get_mut(&pid);
    if process.is_none() {
        *unknown += 1;
    }
    process.filter(|process| !process.gone)
}

/// Whether an event can make a range private, writable memory: only then does its stack matter. A reservation or a
/// file mapping is somebody's only once it is made writable, and that is an event of its own.
fn acquires(event: &Event<'_>) -> bool {
    const MAP_PRIVATE_ANONYMOUS: u32 = 0x22;
    const MAP_SHARED: u32 = 1;
    let header = &event.header;
    match event.kind {
        Kind::Map => {
            header.protection & PROT_WRITE != 0
                && header.operation & MAP_PRIVATE_ANONYMOUS == MAP_PRIVATE_ANONYMOUS
                && header.operation & MAP_SHARED == 0
        }
        // Even to read-only: memory that was written, then made inaccessible, comes back so.
        Kind::Protect => true,
        Kind::RemapTo => header.length > header.old_length,
        Kind::BrkUp => true,
        _ => false,
    }
}

/// Whether an address lies in the page in which the kernel has what the probes in a process's text need.
fn is_page_of_probes(address: u64) -> bool {
    ADDRESSES_END
        .iter()
        .any(|end| (end - super::process::page_bytes()..*end).contains(&address))
}

/// Whether a range is so small that its stack may be left out.
fn is_small(event: &Event<'_>) -> bool {
    let header = &event.header;
    let bytes = match event.kind {
        Kind::BrkUp => header.address.saturating_sub(header.old_address),
        Kind::Map | Kind::Protect | Kind::RemapTo => header.length,
        _ => return false,
    };
    bytes.div_ceil(super::process::page_bytes()) <= THIN_PAGES_MAX
}

pub(super) fn site(
    unwinder: &mut Unwinder,
    sites: &mut Sites,
    event: &Event<'_>,
    small: bool,
) -> Option<SiteId> {
    if event.header.flags & flags::THINNED != 0 {
        return Some(SiteId::THINNED);
    }
    let via = via(event.kind)?;
    let header = &event.header;
    let stack = match event.registers {
        Some(registers) if header.flags & flags::STACK != 0 => unwinder.unwind(
            header.tgid,
            &Snapshot {
                registers,
                stack_pointer: header.stack_pointer,
                stack: event.stack,
                flags: header.flags,
            },
        ),
        _ => unwinder.without_registers(),
    };
    Some(sites.intern(stack, via, small, (&header.comm, header.time)))
}
