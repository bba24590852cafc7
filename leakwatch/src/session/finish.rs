//! The end of the window: the last readings, and the recording made of all that was gathered.

use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use leakwatch_ebpf::wire::Counter;

use super::births::BirthWatch;
use super::facts::{Facts, Names};
use super::pages::{grown, union};
use super::process::{Measure, monotonic_ns};
use super::sampling::Sampling;
use super::state::State;
use super::verdict::{self, Measured};
use super::watch::Watch;
use super::{RecordOptions, losses, trends};
use crate::diagnose::rank::rank;
use crate::diagnose::reconcile::reconcile;
use crate::report::build::{self, origin};
use crate::report::model::{self, EndedBy, Recording, SCHEMA_VERSION};
use crate::sampler::growth::growth;
use crate::sampler::{ProcRoot, maps};

/// What the clock said of the recording.
pub(super) struct Recorded {
    pub started_at: jiff::Timestamp,
    pub duration: Duration,
    pub attached: Duration,
}

/// Brings the ledgers to agree with the kernel's mappings, stops watching, and reads what the window's end has to tell.
pub(super) fn close(watch: &mut Watch, options: &RecordOptions) -> Result<()> {
    // While mappings are still watched: what the heap gains meanwhile has a call site as well.
    watch.count_heaps_at_end(options)?;
    watch.check();
    watch.check_again_after_losses();
    watch.state.note_clock_end();
    if let Some(births) = &watch.births {
        watch.state.estimate_survivors(births);
    }
    // Not a moment longer: what the target gains while its sizes are read is not in them.
    let all: Vec<u32> = watch.state.processes.keys().copied().collect();
    for pid in all {
        watch.probe.unwatch(pid);
    }
    for pid in watch.living() {
        let root = watch.state.root().clone();
        let window = watch.state.window();
        let end = watch.drain_while(move || Measure::take(&root, pid, window, false))?;
        watch.drain_rest();
        if let Some(process) = watch.state.processes.get_mut(&pid)
            && !process.gone
        {
            process.end = end;
        }
        watch.state.look_up(pid);
    }
    // What is left to do may take a while, and the target's faults need not pay for it.
    watch.probe.detach();
    Ok(())
}

/// Makes the recording.
pub(super) fn recording(watch: Watch, options: &RecordOptions, recorded: &Recorded) -> Recording {
    let Watch {
        probe,
        mut state,
        counts_before,
        births,
        ..
    } = watch;
    let counts = probe.counts().map(|counts| counts.since(&counts_before)).ok();
    let mut facts = Facts::default();
    let mut names = Names::default();
    let lost_faults = counts
        .as_ref()
        .map_or(0, |counts| counts.get(Counter::LostFaults));
    for process in state.processes.values() {
        let heap = state.heaps.get(&process.pid);
        facts.add(process, &state, &mut names, lost_faults > 0, heap);
    }
    let allocations = births
        .as_ref()
        .and_then(|births| state.allocations(&probe, births));
    if let Some(births) = &births {
        state.note_births(births);
    }
    let losses = losses::losses(
        &state,
        counts.as_ref(),
        &facts,
        &names.symbolizer,
        births.as_ref().map_or(0, |births| births.cut),
    );
    let seconds = recorded.duration.as_secs_f64();
    let ranked = rank(facts.sites, options.group_by, seconds);
    let target = state.processes.remove(&options.target.pid);
    let smaps_growth = target.as_ref().and_then(|process| {
        let (before, after) = (process.start.smaps.as_ref()?, process.end.smaps.as_ref()?);
        Some(growth(&before.mappings, &after.mappings))
    });
    let account = facts.parts.map(|parts| build::reconciliation(&reconcile(&parts)));
    let nobody = Measure::default();
    let (start, end) = target
        .as_ref()
        .map_or((&nobody, &nobody), |process| (&process.start, &process.end));
    let end_totals = end
        .totals
        .or_else(|| state.series.points().last().map(|point| point.totals));
    let (smaps_reads, smaps_seconds) = facts.smaps_cost;
    let usage = Usage::own();
    let (samples, sampled) = state.samples.spent();
    let mut own = state.heaps.remove(&options.target.pid).unwrap_or_default();
    let censuses = &own.censuses;
    let heap = censuses
        .end
        .as_ref()
        .map(|end| build::heap::heap(censuses.start.as_ref(), end));
    let trend = trends::of_memory(&state.series);
    let goes = trends::correlations(&state.series);
    let verdict = verdict::judge(
        &state,
        options,
        &Measured {
            start,
            end,
            children: state.children_growth_at_end(),
            account: account
                .as_ref()
                .filter(|_| !options.follow_children)
                .map(|account| account.smaps_growth_bytes),
            window: recorded.duration,
            heap: heap.as_ref(),
            survivors: own.survivors.as_ref(),
            sites: &ranked,
            kinds: smaps_growth.as_ref().map(|growth| &growth.kinds),
            trend: trend.as_ref(),
            goes: &goes,
            counts: counts.as_ref(),
        },
    );

    Recording {
        schema_version: SCHEMA_VERSION,
        tool: origin::tool(),
        host: origin::host(),
        target: origin::target(&options.target),
        window: model::Window {
            started_at: recorded.started_at.to_string(),
            duration_seconds: seconds,
            ended_by: state.ended_by.unwrap_or(EndedBy::Deadline),
        },
        verdict: Some(build::verdict(&verdict)),
        growth: build::growth(
            (&start.totals.unwrap_or_default(), start.rollup.as_ref()),
            (&end_totals.unwrap_or_default(), end.rollup.as_ref()),
        ),
        reconciliation: account,
        call_sites: build::call_sites(&ranked),
        mappings: smaps_growth
            .as_ref()
            .map(|growth| build::mappings(&growth.mappings)),
        libraries: smaps_growth
            .as_ref()
            .map(|growth| build::libraries(&growth.libraries)),
        series: series(&state),
        trend: trend.as_ref().map(build::trend),
        correlations: Some(goes.iter().map(build::correlation).collect()),
        heap,
        heap_not_taken: own.censuses.not_taken.take(),
        allocations,
        allocations_not_watched: state.allocs_not_watched.take(),
        processes: options.follow_children.then_some(facts.processes),
        losses,
        cost: model::Cost {
            events: counts.as_ref().map(|counts| counts.get(Counter::Events)),
            cpu_seconds: usage.cpu_seconds,
            peak_rss_bytes: usage.peak_rss_bytes,
            kernel_map_bytes: Some(probe.kernel_map_bytes()),
            smaps_reads: Some(smaps_reads),
            smaps_read_seconds: Some(smaps_seconds.as_secs_f64()),
            sampling_rate: state.sampling.as_ref().map(Sampling::rate),
            page_faults: state
                .sampling
                .as_ref()
                .and(counts.as_ref())
                .map(|counts| counts.get(Counter::Faults)),
            thinned_stacks: counts.as_ref().map(|counts| counts.get(Counter::Thinned)),
            attach_seconds: Some(recorded.attached.as_secs_f64()),
            samples: Some(samples),
            sample_seconds: Some(sampled.as_secs_f64()),
        },
        notes: notes(&state, start, end, probe.missing()),
    }
}

fn series(state: &State) -> Option<Vec<model::Sample>> {
    let points = state.series.points();
    (!points.is_empty()).then(|| {
        points
            .iter()
            .map(|point| {
                let counts = (point.descriptors, point.connections);
                build::sample(
                    point.at.as_secs_f64(),
                    &point.totals,
                    point.rollup.as_ref(),
                    counts,
                )
            })
            .collect()
    })
}

/// What leakwatch itself has used.
struct Usage {
    cpu_seconds: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

/// The processor time of all threads of leakwatch.
pub(super) fn own_processor() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(clock).unwrap_or_default()
}

impl Usage {
    fn own() -> Self {
        let status = crate::sampler::totals::read_status(&ProcRoot::default(), std::process::id()).ok();
        Self {
            cpu_seconds: Some(own_processor().as_secs_f64()),
            peak_rss_bytes: status.and_then(|status| status.peak_rss),
        }
    }
}

/// What a reader of the report should know, a sentence each.
fn notes(state: &State, start: &Measure, end: &Measure, missing: &[&str]) -> Vec<String> {
    let mut notes = Vec::new();
    match state.ended_by {
        Some(EndedBy::TargetExec) => notes.push(
            "The target replaced its image (exec): the memory that was watched is gone, and the report tells what was \
             held until then."
                .to_owned(),
        ),
        Some(EndedBy::TargetExit) => notes.push(
            if state.sampling.is_some() {
                "The target exited: what was resident at its end could not be looked up any more, so call sites are ranked \
                 by the pages that they had touched and not given up."
            } else {
                "The target exited: what was resident at its end could not be looked up any more, so call sites are ranked \
                 by the address space that they held."
            }
            .to_owned(),
        ),
        _ => {}
    }
    if state.unfollowed_children > 0 {
        notes.push(format!(
            "The target forked {} times; memory of its children is left out (--children follows them).",
            state.unfollowed_children
        ));
    }
    for (when, measure) in [("start", start), ("end", end)] {
        if let Some(why) = &measure.smaps_skipped {
            notes.push(format!("smaps was not read at the window's {when}: {why}."));
        }
    }
    for (why, children) in &state.children_not_watched {
        let word = if *children == 1 { "child" } else { "children" };
        notes.push(format!("Births of {children} {word} were not watched: {why}."));
    }
    if let Some(note) = &state.faults_note {
        notes.push(note.clone());
    }
    if let Some(error) = &state.sampling_error {
        notes.push(format!(
            "The sampling rate could not be lowered in the kernel: {error}."
        ));
    }
    for point in missing {
        notes.push(format!("This kernel has no {point}: such calls were not seen."));
    }
    notes
}

impl State {
    /// Why there is nothing, or less than there might be, of births that were watched.
    fn note_births(&mut self, births: &BirthWatch) {
        let heap = self.heaps.get(&self.target);
        let why = if heap.is_some_and(|heap| heap.survivors.is_some()) {
            births
                .given_up
                .clone()
                .map(|why| format!("from some moment on: {why}"))
        } else {
            let heap = heap.and_then(|heap| heap.censuses.not_taken.as_deref());
            births.given_up.clone().or_else(|| {
                Some(format!(
                    "the heap was not read {}",
                    heap.unwrap_or("at the window's end")
                ))
            })
        };
        self.allocs_not_watched = self.allocs_not_watched.take().or(why);
    }

    /// Where the heaps lie, or lay, whose blocks are told by survivors.
    fn survivors_heap(&self, pid: u32) -> Vec<Range<u64>> {
        let heap = self.heaps.get(&pid).filter(|heap| heap.telling().is_some());
        let censuses = heap.map(|heap| &heap.censuses);
        let Some((start, end)) = censuses.and_then(|it| it.start.as_ref().zip(it.end.as_ref())) else {
            return Vec::new();
        };
        let heaps = union(&start.census.extents, &end.census.extents);
        match maps::read(&self.root, pid) {
            Ok(read) => grown(heaps, &read.mappings),
            Err(_) => heaps,
        }
    }

    /// Finds out what is there of what was added.
    fn look_up(&mut self, pid: u32) {
        let arenas = self.processes.get(&pid).and_then(|process| self.arenas(process));
        let Some(process) = self.processes.get_mut(&pid).filter(|process| !process.gone) else {
            return;
        };
        process.arenas = arenas;
        let Some(process) = self.processes.get(&pid) else {
            return;
        };
        let (mut owned, mut settled) = (None, None);
        if self.sampling.is_some() {
            let has_stack = |site| self.has_stack(site);
            let heap = self.survivors_heap(pid);
            settled = process.settle(&self.root, &has_stack, self.paging.multi_size, &heap);
        } else {
            owned = process.look_up(&self.root);
        }
        if let Some(process) = self.processes.get_mut(&pid) {
            process.owned = owned;
            process.settled = settled;
        }
    }

    /// The window is over: what still comes belongs to its end.
    fn note_clock_end(&mut self) {
        self.ended_ns = Some(monotonic_ns());
    }

    pub(super) fn ended_ns(&self) -> u64 {
        self.ended_ns.unwrap_or_else(monotonic_ns)
    }
}
