//! One watched process: its ledger, and what /proc said of it when.

use std::io;
use std::time::{Duration, Instant};

use crate::ledger::{Backing, Ledger, Protection, Region};
use crate::sampler::maps::{self, Mapping};
use crate::sampler::smaps::{self, SmapsReading};
use crate::sampler::totals::{self, Rollup, Totals};
use crate::sampler::{ProcRoot, cost};
use crate::unwind::Unwinder;

/// Code may change this often at most before it is read anew: a JIT maps memory all the time.
const REFRESH_EVERY: Duration = Duration::from_millis(20);

/// What /proc says of a process at one moment.
#[derive(Debug, Default)]
pub(super) struct Measure {
    pub totals: Option<Totals>,
    pub rollup: Option<Rollup>,
    pub smaps: Option<SmapsReading>,
    /// Why there is no full smaps reading.
    pub smaps_skipped: Option<String>,
}

impl Measure {
    /// Reads sizes, and full smaps if that costs at most its share of `window`: it holds the target's memory map while
    /// it reads.
    pub fn take(root: &ProcRoot, pid: u32, window: Duration) -> Self {
        let totals = totals::read_status(root, pid).ok();
        let rollup = totals::read_rollup(root, pid).ok();
        let mut measure = Self { totals, rollup, ..Self::default() };
        let mappings = maps::read(root, pid).map_or(0, |read| read.mappings.len());
        match rollup.map(|rollup| cost::predict(rollup.took, mappings)) {
            Some(predicted) if !cost::affordable(predicted, window) => {
                measure.smaps_skipped = Some(format!(
                    "reading it would take about {} ms, more than 1 % of the window",
                    predicted.as_millis()
                ));
            }
            _ => match smaps::read(root, pid) {
                Ok(reading) => measure.smaps = Some(reading),
                Err(error) => measure.smaps_skipped = Some(error.to_string()),
            },
        }
        measure
    }

    /// Anonymous bytes, resident or swapped, by the best source that was read.
    pub fn anonymous(&self) -> Option<u64> {
        self.rollup
            .and_then(|rollup| rollup.anonymous_and_swap())
            .or_else(|| self.totals.and_then(|totals| anonymous_of(&totals)))
    }
}

/// Anonymous bytes, resident or swapped, as `status` counts them.
pub(super) fn anonymous_of(totals: &Totals) -> Option<u64> {
    totals.rss_anonymous?.checked_add(totals.swap.unwrap_or(0))
}

pub(super) struct Process {
    pub pid: u32,
    pub ledger: Ledger,
    pub start: Measure,
    pub end: Measure,
    /// The memory that was watched is gone: exit, or exec.
    pub gone: bool,
    /// Executable memory was mapped since the code was last read.
    code_changed: bool,
    refreshed: Instant,
}

impl Process {
    /// Reads the baseline. The probe must watch the process already, so that nothing falls between.
    pub fn new(root: &ProcRoot, pid: u32, unwinder: &mut Unwinder) -> io::Result<Self> {
        let began = monotonic_ns();
        let read = maps::read(root, pid)?;
        let mut ledger = Ledger::new(page_bytes());
        ledger.set_baseline(&regions(&read.mappings), began);
        unwinder.refresh(pid, &read.mappings);
        Ok(Self::with_ledger(pid, ledger))
    }

    /// A child at its birth.
    pub fn fork(&self, child: u32) -> Self {
        Self::with_ledger(child, self.ledger.fork())
    }

    fn with_ledger(pid: u32, ledger: Ledger) -> Self {
        Self {
            pid,
            ledger,
            start: Measure::default(),
            end: Measure::default(),
            gone: false,
            code_changed: false,
            refreshed: Instant::now(),
        }
    }

    pub fn note_code_change(&mut self) {
        self.code_changed = true;
    }

    /// Reads the code's mappings anew where an event or a stack said that they changed.
    pub fn refresh_code(&mut self, root: &ProcRoot, unwinder: &mut Unwinder) {
        let wanted = self.code_changed || unwinder.is_stale(self.pid);
        if !wanted || self.refreshed.elapsed() < REFRESH_EVERY {
            return;
        }
        self.refreshed = Instant::now();
        self.code_changed = false;
        // Where the process is gone the code known so far serves what is left of its events.
        if let Ok(read) = maps::read(root, self.pid) {
            unwinder.refresh(self.pid, &read.mappings);
        }
    }
}

/// What the ledger needs of a reading of maps.
pub(super) fn regions(mappings: &[Mapping]) -> Vec<Region> {
    mappings
        .iter()
        .map(|mapping| Region {
            range: mapping.range.clone(),
            protection: protection(mapping),
            backing: if mapping.shared {
                Backing::Shared
            } else if mapping.inode != 0 || mapping.device != (0, 0) {
                Backing::PrivateFile
            } else {
                Backing::Anonymous
            },
        })
        .collect()
}

fn protection(mapping: &Mapping) -> Protection {
    let bit = |set, bit| if set { bit } else { 0 };
    Protection::from_bits(bit(mapping.readable, 1) | bit(mapping.writable, 2) | bit(mapping.executable, 4))
}

/// The clock of the events: `CLOCK_MONOTONIC`, nanoseconds.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

pub(super) fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}
