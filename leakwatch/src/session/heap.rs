//! The census of the heaps at the window's ends: the target's, and those of its children whose births are watched.

use std::time::{Duration, Instant};

use super::RecordOptions;
use super::process::monotonic_ns;
use super::survivors::{Survivors, fates};
use super::watch::Watch;
use crate::births::cohorts::Outcome;
use crate::births::{Cohorts, Extent};
use crate::census::Limits;
use crate::census::cost::{self, Earlier};
use crate::census::reading::{self, Reading};
use crate::diagnose::figures::bytes;
use crate::diagnose::verdict::HeapFacts;
use crate::report::build;
use crate::sampler::totals;
use crate::sampler::{ProcRoot, maps};

/// A census may take so much longer than the processor time that was predicted: a heap under load is read again in parts,
/// and on a busy machine the reader waits for its turn like everybody, as does a thread that it met amid a change.
const PATIENCE: u32 = 20;
const PATIENCE_LEAST: Duration = Duration::from_secs(1);
/// Of a census that was asked for.
const LONGEST: Duration = Duration::from_secs(60);

/// When the heap is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CensusChoice {
    /// Where that is predicted to take at most 1 % of the window; the second reading, for which the first was made, 5 %.
    #[default]
    Auto,
    Always,
    Never,
}

/// What is known of one process's heap.
#[derive(Debug, Default)]
pub(super) struct WatchedHeap {
    pub censuses: Censuses,
    /// Blocks whose births were seen; `None` where they are not watched, or the end has come.
    pub cohorts: Option<Cohorts>,
    /// What became of them, once the heap was read at the window's end.
    pub outcome: Option<Outcome>,
    /// And whose the heap's growth is by that.
    pub survivors: Option<Survivors>,
    /// When births came to be watched, and how much of the window births of others had been followed in by then.
    pub since: Extent,
    pub followed_before: Extent,
    /// A child's: what it had gained before its heap was first read, bytes.
    pub unread: i64,
}

impl WatchedHeap {
    /// Whether probes come and go in the process's text.
    pub fn has_births(&self) -> bool {
        self.cohorts.is_some()
    }

    /// What the verdict wants to know of it, where it was read at both ends.
    pub fn facts(&self) -> Option<HeapFacts> {
        let end = self.censuses.end.as_ref()?;
        build::heap::facts(&build::heap::heap(self.censuses.start.as_ref(), end))
    }

    /// The survivors, where they tell whose the growth is.
    pub fn telling(&self) -> Option<&Survivors> {
        self.survivors.as_ref().filter(|survivors| survivors.tell())
    }
}

/// What the two readings came to.
#[derive(Debug, Default)]
pub(super) struct Censuses {
    pub start: Option<Reading>,
    pub end: Option<Reading>,
    /// The part of the first one's time in which it had a processor, 0 to 1.
    on_processor: f64,
    /// Why one is missing; the first reason.
    pub not_taken: Option<String>,
}

/// A reading, and the part of its time in which it had a processor.
type Taken = (Reading, f64);

impl Censuses {
    fn note(&mut self, when: &str, why: &str) {
        self.not_taken
            .get_or_insert_with(|| format!("at the window's {when}: {why}"));
    }

    fn earlier(&self) -> Option<Earlier> {
        let start = self.start.as_ref()?;
        Some(Earlier {
            bytes: start.census.arenas.iter().map(|arena| arena.system_bytes).sum(),
            walk: start.census.took.mul_f64(self.on_processor),
            rest: start
                .took
                .saturating_sub(start.census.took)
                .mul_f64(self.on_processor),
        })
    }
}

impl Watch {
    /// The census at the window's start, of the target.
    pub fn count_heap_at_start(&mut self, options: &RecordOptions) -> anyhow::Result<()> {
        let pid = options.target.pid;
        let read = self.count_heap(pid, options, Vec::new())?;
        self.note_heap_at_start(pid, read);
        Ok(())
    }

    /// What the first reading of a process's heap came to.
    pub fn note_heap_at_start(&mut self, pid: u32, read: Option<Result<Taken, String>>) {
        if let Some(Ok((reading, _))) = &read
            && let Some(process) = self.state.processes.get_mut(&pid)
        {
            process.note_heap_before(&reading.census.extents);
        }
        let censuses = &mut self.state.heaps.entry(pid).or_default().censuses;
        match read {
            Some(Ok((reading, on_processor))) => {
                censuses.start = Some(reading);
                censuses.on_processor = on_processor;
            }
            Some(Err(why)) => censuses.note("start", &why),
            None => {}
        }
    }

    /// The censuses at the window's end, the target's first. Without one at the start too: alone it still tells what is in
    /// use.
    pub fn count_heaps_at_end(&mut self, options: &RecordOptions) -> anyhow::Result<()> {
        let target = options.target.pid;
        let heaps = self.state.heaps.iter();
        let children = heaps.filter(|(pid, heap)| **pid != target && heap.has_births());
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        for pid in std::iter::once(target).chain(children) {
            self.count_heap_at_end(pid, options)?;
        }
        Ok(())
    }

    fn count_heap_at_end(&mut self, pid: u32, options: &RecordOptions) -> anyhow::Result<()> {
        if options.census == CensusChoice::Never {
            return Ok(());
        }
        let Some(heap) = self.state.heaps.get_mut(&pid) else {
            return Ok(());
        };
        if self.state.processes.get(&pid).is_none_or(|it| it.gone) {
            heap.censuses.note("end", "the memory that was watched is gone");
            return Ok(());
        }
        let looks = heap.cohorts.as_ref().map(Cohorts::candidates).unwrap_or_default();
        let watched = looks.iter().map(|look| look.address).collect();
        let read = self.count_heap(pid, options, watched)?;
        // Whatever was read under this number may be another process's.
        self.drain_rest();
        let exited = if pid == options.target.pid {
            options.target.exited()
        } else {
            self.state.processes.get(&pid).is_none_or(|it| it.gone)
        };
        let Some(heap) = self.state.heaps.get_mut(&pid) else {
            return Ok(());
        };
        if exited && read.is_some() {
            heap.censuses.note("end", "the process exited");
            return Ok(());
        }
        match read {
            Some(Ok((reading, _))) => {
                if let Some(cohorts) = heap.cohorts.take() {
                    let fates = fates(pid, &looks, &reading.census.found);
                    heap.outcome = Some(cohorts.close(monotonic_ns(), &looks, &fates));
                }
                heap.censuses.end = Some(reading);
            }
            Some(Err(why)) => heap.censuses.note("end", &why),
            None => {}
        }
        Ok(())
    }

    /// Reads the heap of a process, `None` where that is not wanted. `watched`: addresses of blocks whose fate is asked
    /// for, ascending.
    pub fn count_heap(
        &mut self,
        pid: u32,
        options: &RecordOptions,
        watched: Vec<u64>,
    ) -> anyhow::Result<Option<Result<Taken, String>>> {
        let (choice, window) = (options.census, self.state.window());
        if choice == CensusChoice::Never {
            return Ok(None);
        }
        let root = self.state.root().clone();
        let heap = self.state.heaps.get(&pid);
        let earlier = heap.and_then(|heap| heap.censuses.earlier());
        let read = self.drain_while(move || {
            let limits = limits(&root, pid, choice, window, earlier)?;
            let (began, used) = (Instant::now(), thread_processor());
            let reading = reading::read(&root, pid, limits, &watched).map_err(|error| error.to_string())?;
            let used = thread_processor().saturating_sub(used).as_secs_f64();
            let took = began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            Ok((reading, (used / took).clamp(0.0, 1.0)))
        })?;
        Ok(Some(read))
    }
}

/// The processor time of this thread.
fn thread_processor() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(clock).unwrap_or_default()
}

/// What a census may cost, or why it is not to be taken.
fn limits(
    root: &ProcRoot,
    pid: u32,
    choice: CensusChoice,
    window: Duration,
    earlier: Option<Earlier>,
) -> Result<Limits, String> {
    if choice == CensusChoice::Always {
        return Ok(Limits {
            time: LONGEST,
            ..Limits::default()
        });
    }
    let totals = totals::read_status(root, pid).map_err(|error| error.to_string())?;
    if let Some(swapped) = cost::swapped_too_much(&totals) {
        return Err(format!(
            "{} of the target are swapped out, and reading would bring them back (--census always does it)",
            bytes(swapped)
        ));
    }
    let mappings = maps::read(root, pid).map_err(|error| error.to_string())?.mappings;
    let heap = cost::heap_bytes(&mappings);
    let predicted = cost::predicted(heap, earlier);
    // Without the second reading the first was for nothing, and so were the births: a heap that has grown, or a busy
    // machine, is not to undo them.
    let share = if earlier.is_some() { 5 } else { 1 };
    if !cost::affordable(predicted, window * share) {
        return Err(format!(
            "reading {} of heap would take about {} ms, more than {share} % of the window (a longer window, or --census always)",
            bytes(heap),
            predicted.as_millis()
        ));
    }
    Ok(Limits {
        time: predicted.saturating_mul(PATIENCE).max(PATIENCE_LEAST),
        ..Limits::default()
    })
}
