//! One watched process: its ledger, and what /proc said of it when.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::pages::{Baseline, HugeWatch, SettledPages, spans_of_maps, spans_of_smaps};
use crate::diagnose::pool::Arenas;
use crate::ledger::pages::PageLedger;
use crate::ledger::{Backing, Change, Ledger, Owner, Protection, Region, SiteId};
use crate::report::build;
use crate::sampler::maps::{self, Mapping};
use crate::sampler::paging::{HugePages, Paging};
use crate::sampler::smaps::{self, SmapsReading};
use crate::sampler::totals::{self, Rollup, Totals};
use crate::sampler::{ProcRoot, cost, resident};
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
    /// The anonymous pages there; only where asked for, and affordable.
    pub baseline: Option<Baseline>,
}

impl Measure {
    /// Reads sizes, and full smaps if that costs at most its share of `window`: it holds the target's memory map while
    /// it reads. With `pages`, what is there page by page as well, right after.
    pub fn take(root: &ProcRoot, pid: u32, window: Duration, pages: bool) -> Self {
        let totals = totals::read_status(root, pid).ok();
        let rollup = totals::read_rollup(root, pid).ok();
        let mut measure = Self {
            totals,
            rollup,
            ..Self::default()
        };
        let mappings = maps::read(root, pid).map_or(0, |read| read.mappings.len());
        // A look at each page walks the page tables once more.
        let walks = |took: Duration| if pages { took.saturating_mul(2) } else { took };
        match rollup.map(|rollup| cost::predicted_smaps(walks(rollup.took), mappings)) {
            Some(predicted) if !cost::full_smaps_affordable(predicted, window) => {
                measure.smaps_skipped = Some(format!(
                    "reading it would take about {} ms, more than 1 % of the window",
                    predicted.as_millis()
                ));
            }
            _ => match smaps::read(root, pid) {
                Ok(reading) => {
                    if pages {
                        measure.baseline = Baseline::read(root, pid, &spans_of_smaps(&reading)).ok();
                    }
                    measure.smaps = Some(reading);
                }
                Err(error) => measure.smaps_skipped = Some(error.to_string()),
            },
        }
        measure
    }

    /// What a child has at its birth, or when it has replaced its image: the sum, and its pages where that is affordable.
    pub fn at_birth(root: &ProcRoot, pid: u32, window: Duration, pages: bool) -> Self {
        let rollup = totals::read_rollup(root, pid).ok();
        let affordable = rollup.is_some_and(|rollup| cost::full_smaps_affordable(rollup.took, window));
        let baseline = (pages && affordable)
            .then(|| {
                let read = maps::read(root, pid).ok()?;
                Baseline::read(root, pid, &spans_of_maps(&read.mappings)).ok()
            })
            .flatten();
        Self {
            totals: totals::read_status(root, pid).ok(),
            rollup,
            baseline,
            ..Self::default()
        }
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
    /// Who forked it; `None` for the target itself.
    pub parent: Option<u32>,
    /// The main thread's name when it was first seen, as text.
    pub comm: String,
    pub ledger: Ledger,
    pub pages: PageLedger,
    /// `None` on hosts without huge pages.
    pub huge: Option<HugeWatch>,
    baseline: Vec<Region>,
    pub start: Measure,
    pub end: Measure,
    /// What is resident of what was added, at the end, by mappings alone: where page faults are not watched. `None`
    /// where it could not be looked up.
    pub owned: Option<Vec<Owned>>,
    /// The same by pages.
    pub settled: Option<SettledPages>,
    /// Arenas of an allocator above the process's that were mapped in the window; as known at its end.
    pub arenas: Option<Arenas>,
    /// Pages of the allocator's heaps that were there at the start; 0 where the heap was not read.
    pub heap_before: u64,
    /// The memory that was watched is gone: exit, or exec.
    pub gone: bool,
    /// When it came to be watched.
    pub since: Instant,
    /// Executable memory was mapped since the code was last read.
    code_changed: bool,
    library_loaded: bool,
    refreshed: Instant,
}

/// How pages are sampled when a process comes to be watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRules {
    pub threshold: u64,
    pub paging: Paging,
}

impl PageRules {
    fn ledger(&self, began: u64) -> PageLedger {
        let keeps_owner = self.paging.swap || self.paging.numa_balancing;
        PageLedger::new(page_bytes(), self.threshold, began, keeps_owner)
    }
}

impl Process {
    /// Reads the baseline. The probe must watch the process already, so that nothing falls between.
    pub fn new(root: &ProcRoot, pid: u32, unwinder: &mut Unwinder, rules: PageRules) -> io::Result<Self> {
        let read = maps::read(root, pid)?;
        unwinder.refresh(pid, &read.mappings);
        let mut process = Self::with_ledger(root, pid, None, Ledger::new(page_bytes()), rules);
        process.baseline = regions(&read.mappings);
        process.begin(rules);
        Ok(process)
    }

    /// The window begins now: what the process gained until now is from before. No event may have been applied yet.
    ///
    /// The mappings were read earlier. That does no harm: the events from in between are still to be applied, and the
    /// last one on a page has the last word.
    pub fn begin(&mut self, rules: PageRules) -> u64 {
        let began = monotonic_ns();
        self.pages = rules.ledger(began);
        self.ledger.set_baseline(&self.baseline, began);
        began
    }

    pub fn baseline(&self) -> &[Region] {
        &self.baseline
    }

    /// A child at its birth.
    pub fn fork(&self, root: &ProcRoot, child: u32, rules: PageRules) -> Self {
        Self::with_ledger(root, child, Some(self.pid), self.ledger.fork(), rules)
    }

    /// What was measured at the start.
    pub fn set_start(&mut self, mut start: Measure) {
        if let Some(baseline) = &mut start.baseline {
            self.pages
                .set_before(std::mem::take(&mut baseline.pages), baseline.read);
        }
        self.start = start;
    }

    /// What a mapping call did.
    pub fn apply(&mut self, change: &Change) {
        self.ledger.apply(change);
        self.pages.apply(change);
    }

    fn with_ledger(root: &ProcRoot, pid: u32, parent: Option<u32>, ledger: Ledger, rules: PageRules) -> Self {
        let comm = std::fs::read(root.of(pid, "comm")).unwrap_or_default();
        Self {
            pid,
            parent,
            comm: build::text(comm.trim_ascii_end()).to_string(),
            ledger,
            pages: rules.ledger(monotonic_ns()),
            huge: (rules.paging.huge_pages != HugePages::Never).then(|| HugeWatch::new(root, pid)),
            baseline: Vec::new(),
            start: Measure::default(),
            end: Measure::default(),
            owned: None,
            settled: None,
            arenas: None,
            heap_before: 0,
            gone: false,
            since: Instant::now(),
            code_changed: false,
            library_loaded: false,
            refreshed: Instant::now(),
        }
    }

    /// Executable memory was mapped. A library's (`of_file`) runs in the very next stacks.
    pub fn note_code_change(&mut self, of_file: bool) {
        self.code_changed = true;
        self.library_loaded |= of_file;
    }

    /// Reads the code's mappings anew where an event or a stack said that they changed.
    pub fn refresh_code(&mut self, root: &ProcRoot, unwinder: &mut Unwinder) {
        let wanted = self.code_changed || unwinder.is_stale(self.pid);
        if !self.library_loaded && (!wanted || self.refreshed.elapsed() < REFRESH_EVERY) {
            return;
        }
        self.library_loaded = false;
        self.refreshed = Instant::now();
        self.code_changed = false;
        // Where the process is gone the code known so far serves what is left of its events.
        if let Ok(read) = maps::read(root, self.pid) {
            unwinder.refresh(self.pid, &read.mappings);
        }
    }
}

/// Resident or swapped bytes of one range that was added in the window.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub range: Range<u64>,
    /// `None` for what appeared without an event.
    pub site: Option<SiteId>,
    pub bytes: u64,
}

impl Process {
    /// Looks up what is there of the memory that was added.
    pub fn look_up(&self, root: &ProcRoot) -> Option<Vec<Owned>> {
        let wanted: Vec<(Range<u64>, Option<SiteId>)> = self
            .ledger
            .pieces()
            .filter(|(_, piece)| piece.committed())
            .filter_map(|(range, piece)| match piece.owner {
                Owner::Site(site) => Some((range, Some(site))),
                Owner::Unseen => Some((range, None)),
                Owner::BeforeAttach | Owner::Discarded => None,
            })
            .collect();
        let ranges: Vec<Range<u64>> = wanted.iter().map(|(range, _)| range.clone()).collect();
        let reading = resident::read(root, self.pid, &ranges).ok()?;
        // The process ended meanwhile: what could not be looked up is not 0.
        if reading.failures > 0 && reading.failures == ranges.len() as u64 {
            return None;
        }
        let owned = wanted
            .into_iter()
            .zip(reading.ranges)
            .map(|((range, site), found)| Owned {
                range,
                site,
                bytes: found.map_or(0, |found| found.live()),
            });
        Some(owned.collect())
    }
}

/// What the ledger needs of a reading of maps.
pub(super) fn regions(mappings: &[Mapping]) -> Vec<Region> {
    mappings
        .iter()
        // The kernel's own, for the probes.
        .filter(|mapping| mapping.path_bytes() != b"[uprobes]")
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
