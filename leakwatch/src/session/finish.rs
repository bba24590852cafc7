//! The end of the window: the last readings, and the recording made of all that was gathered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Result;
use leakwatch_ebpf::wire::Counter;

use super::process::{Measure, Process, monotonic_ns, page_bytes};
use super::watch::{State, Watch};
use super::{RecordOptions, losses};
use crate::diagnose::rank::{Evidence, SiteFacts, rank};
use crate::diagnose::reconcile::{Found, Part, Reason, Rest, parts, reconcile};
use crate::ledger::SiteId;
use crate::report::build;
use crate::report::model::{self, EndedBy, Recording, SCHEMA_VERSION};
use crate::sampler::ProcRoot;
use crate::sampler::growth::growth;
use crate::sampler::region::RegionMap;
use crate::symbolize::{SymbolizedFrame, Symbolizer};
use crate::unwind::{Ending, StackId};

/// What the clock said of the recording.
pub(super) struct Recorded {
    pub started_at: jiff::Timestamp,
    pub duration: Duration,
    pub attached: Duration,
}

/// Brings the ledgers to agree with the kernel's mappings, stops watching, and reads what the window's end has to tell.
pub(super) fn close(watch: &mut Watch, options: &RecordOptions) -> Result<()> {
    watch.check();
    watch.check_again_after_losses();
    watch.state.note_clock_end();
    // Not a moment longer: what the target gains while its sizes are read is not in them.
    let all: Vec<u32> = watch.state.processes.keys().copied().collect();
    for pid in all {
        watch.probe.unwatch(pid);
    }
    for pid in watch.living() {
        let root = watch.state.root().clone();
        let window = options.duration;
        let end = watch.drain_while(move || Measure::take(&root, pid, window))?;
        watch.drain_rest();
        let root = watch.state.root().clone();
        if let Some(process) = watch.state.processes.get_mut(&pid)
            && !process.gone
        {
            process.end = end;
            process.owned = process.look_up(&root);
        }
    }
    Ok(())
}

/// Makes the recording.
pub(super) fn recording(watch: Watch, options: &RecordOptions, recorded: &Recorded) -> Recording {
    let Watch {
        probe,
        mut state,
        counts_before,
        ..
    } = watch;
    let counts = probe.counts().map(|counts| counts.since(&counts_before)).ok();
    let mut facts = Facts::default();
    let mut names = Names::default();
    for process in state.processes.values() {
        facts.add(process, &state, &mut names);
    }
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

    Recording {
        schema_version: SCHEMA_VERSION,
        tool: model::Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        host: host(),
        target: target_of(options),
        window: model::Window {
            started_at: recorded.started_at.to_string(),
            duration_seconds: seconds,
            ended_by: state.ended_by.unwrap_or(EndedBy::Deadline),
        },
        verdict: None,
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
        correlations: None,
        processes: options.follow_children.then_some(facts.processes),
        losses: losses::losses(&state, counts.as_ref(), &facts.ledger_losses, &names.symbolizer),
        cost: model::Cost {
            events: counts.as_ref().map(|counts| counts.get(Counter::Events)),
            cpu_seconds: usage.cpu_seconds,
            peak_rss_bytes: usage.peak_rss_bytes,
            kernel_map_bytes: Some(probe.kernel_map_bytes()),
            smaps_reads: Some(smaps_reads),
            smaps_read_seconds: Some(smaps_seconds.as_secs_f64()),
            sampling_rate: None,
            attach_seconds: Some(recorded.attached.as_secs_f64()),
        },
        notes: notes(&state, start, end, probe.missing()),
    }
}

/// Names of stacks, each made once.
#[derive(Default)]
struct Names {
    symbolizer: Symbolizer,
    known: HashMap<StackId, (Vec<SymbolizedFrame>, bool)>,
}

impl Names {
    /// The frames of a stack, and whether it reaches its root.
    fn of(&mut self, state: &State, id: StackId) -> (Vec<SymbolizedFrame>, bool) {
        if let Some(known) = self.known.get(&id) {
            return known.clone();
        }
        let Some(stack) = state.unwinder.stack(id) else {
            return (Vec::new(), false);
        };
        let frames = self.symbolizer.symbolize(state.unwinder.modules(), stack);
        let named = (frames, stack.ending == Ending::Root);
        self.known.insert(id, named.clone());
        named
    }
}

/// What was gathered of all processes.
#[derive(Default)]
struct Facts {
    sites: Vec<SiteFacts>,
    /// `None` until the growth of some process is known.
    parts: Option<Vec<Part>>,
    processes: Vec<model::ProcessRow>,
    ledger_losses: Vec<crate::ledger::Losses>,
    smaps_cost: (u64, Duration),
}

impl Facts {
    fn add(&mut self, process: &Process, state: &State, names: &mut Names) {
        for reading in [&process.start.smaps, &process.end.smaps].into_iter().flatten() {
            self.smaps_cost.0 += 1;
            self.smaps_cost.1 += reading.took;
        }
        self.ledger_losses.push(process.ledger.losses());
        let regions = process
            .end
            .smaps
            .as_ref()
            .map(|smaps| RegionMap::new(&smaps.mappings));
        let mut found: BTreeMap<_, Found> = BTreeMap::new();
        let mut live: HashMap<SiteId, u64> = HashMap::new();
        for owned in process.owned.iter().flatten() {
            let region = regions.as_ref().and_then(|map| map.at(owned.range.start));
            let found = found.entry(region).or_default();
            match owned.site {
                Some(site) if has_stack(state, site) => found.attributed += owned.bytes,
                Some(_) => found.add(Reason::NoStack, owned.bytes.cast_signed()),
                None => found.add(Reason::Unseen, owned.bytes.cast_signed()),
            }
            if let Some(site) = owned.site {
                *live.entry(site).or_default() += owned.bytes;
            }
        }
        let now = state.ended_ns();
        let seconds = |time: u64| Duration::from_nanos(time.saturating_sub(state.began_ns())).as_secs_f64();
        let (mut held, mut events) = (0u64, 0u64);
        for (id, account) in process.ledger.accounts() {
            held = held.saturating_add(account.held_bytes());
            events = events.saturating_add(account.events);
            let Some(site) = state.sites.get(id) else { continue };
            let (frames, complete) = names.of(state, site.stack);
            self.sites.push(SiteFacts {
                via: site.via,
                frames,
                complete,
                committed: account.committed_bytes,
                released: account.released_bytes,
                held: account.held_bytes(),
                events: account.events,
                first_seen: seconds(account.first_seen),
                last_seen: seconds(account.last_seen),
                series: account.series.until(now),
                live: process
                    .owned
                    .is_some()
                    .then(|| live.get(&id).copied().unwrap_or(0)),
                live_variance: 0.0,
                touched: None,
                evidence: Evidence::Mappings,
                estimated: false,
                threads: site
                    .threads
                    .iter()
                    .map(|name| build::text(name).to_string())
                    .collect(),
                process: process.pid,
            });
        }
        let grown = process
            .end
            .anonymous()
            .zip(process.start.anonymous())
            .map(|(end, start)| end.cast_signed().saturating_sub(start.cast_signed()));
        self.account(process, grown, found);
        self.processes.push(model::ProcessRow {
            pid: process.pid,
            parent_pid: process.parent,
            comm: process.comm.clone(),
            anonymous_growth_bytes: grown,
            attributed_bytes: None,
            coverage: None,
            live_bytes: process.owned.is_some().then(|| live.values().sum()),
            held_bytes: Some(held),
            events,
        });
    }

    /// Region by region where smaps was read at both ends, else as one sum.
    fn account(
        &mut self,
        process: &Process,
        grown: Option<i64>,
        found: BTreeMap<Option<crate::sampler::region::Region>, Found>,
    ) {
        let own = match (&process.start.smaps, &process.end.smaps, grown) {
            (Some(before), Some(after), _) => {
                let growth = growth(&before.mappings, &after.mappings);
                let by_region = growth
                    .regions
                    .iter()
                    .map(|(region, delta)| (*region, delta.anonymous_and_swap()))
                    .collect();
                let mut known = BTreeMap::new();
                let mut elsewhere = Found::default();
                for (region, found) in found {
                    match region {
                        Some(region) => drop(known.insert(region, found)),
                        // Gone between the reading of smaps and the look-up, or come since.
                        None => elsewhere = found,
                    }
                }
                let mut own = parts(&by_region, &known, Rest::Before);
                own.push(elsewhere.part(None, 0, Rest::Before));
                own
            }
            (_, _, Some(grown)) => {
                let mut sum = Found::default();
                for found in found.values() {
                    sum.join(found);
                }
                vec![sum.part(None, grown, Rest::Before)]
            }
            _ => return,
        };
        self.parts.get_or_insert_default().extend(own);
    }
}

fn has_stack(state: &State, site: SiteId) -> bool {
    state
        .sites
        .get(site)
        .and_then(|site| state.unwinder.stack(site.stack))
        .is_some_and(|stack| !stack.frames.is_empty())
}

fn series(state: &State) -> Option<Vec<model::Sample>> {
    let points = state.series.points();
    (!points.is_empty()).then(|| {
        points
            .iter()
            .map(|point| build::sample(point.at.as_secs_f64(), &point.totals, None))
            .collect()
    })
}

fn target_of(options: &RecordOptions) -> model::Target {
    let target = &options.target;
    model::Target {
        pid: target.pid,
        start_time: target.start_time_ticks,
        comm: build::text(target.comm.as_bytes()).to_string(),
        exe: target
            .exe
            .as_ref()
            .map(|exe| build::text(std::os::unix::ffi::OsStrExt::as_bytes(exe.as_os_str())).to_string()),
        cmdline: Some(
            target
                .cmdline
                .iter()
                .map(|argument| build::text(argument.as_bytes()).to_string())
                .collect(),
        ),
        container: target.container.clone(),
    }
}

fn host() -> model::Host {
    let name = rustix::system::uname();
    model::Host {
        kernel: name.release().to_string_lossy().into_owned(),
        arch: name.machine().to_string_lossy().into_owned(),
        page_size_bytes: page_bytes(),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|cpus| u32::try_from(cpus.get()).ok()),
    }
}

/// What leakwatch itself has used.
struct Usage {
    cpu_seconds: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

impl Usage {
    fn own() -> Self {
        let status = crate::sampler::totals::read_status(&ProcRoot::default(), std::process::id()).ok();
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = u64::try_from(clock.tv_sec).ok().map(Duration::from_secs);
        let nanoseconds = u64::try_from(clock.tv_nsec).ok().map(Duration::from_nanos);
        Self {
            cpu_seconds: seconds.zip(nanoseconds).map(|(s, n)| (s + n).as_secs_f64()),
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
            "The target exited: what was resident at its end could not be looked up any more, so call sites are ranked \
             by the address space that they held."
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
    for point in missing {
        notes.push(format!("This kernel has no {point}: such calls were not seen."));
    }
    notes
}

impl State {
    /// The window is over: what still comes belongs to its end.
    fn note_clock_end(&mut self) {
        self.ended_ns = Some(monotonic_ns());
    }

    fn ended_ns(&self) -> u64 {
        self.ended_ns.unwrap_or_else(monotonic_ns)
    }
}
