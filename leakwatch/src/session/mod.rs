//! One recording, from attach to report: the only place that knows every stage.
//!
//! `watch` is the window, `state` what its events change, `process` one process in it, `pages` its pages, `lineage` how processes come and go,
//! `translate` what events mean, `sampling` how many of them there are, `births` the blocks that the target takes,
//! `live` what is shown meanwhile,
//! `finish` what becomes of them: `keepers` is a process's call sites, `survivors` those of the blocks that stayed,
//! `facts` all of them with their accounts, `verdict` what all of it amounts to.

mod arenas;
mod births;
mod dump;
mod facts;
mod faults;
mod finish;
mod heap;
mod keepers;
mod lineage;
pub mod live;
mod losses;
mod pages;
mod priority;
mod process;
mod recorder;
mod samples;
mod sampling;
mod series;
mod sites;
mod state;
mod survivors;
mod translate;
mod trends;
mod verdict;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use leakwatch_ebpf::wire::SAMPLE_ALL;
use tokio::sync::Notify;

use crate::probe::{Probe, ProbeOptions, SelfTest};
use crate::report::model::Recording;
use crate::sampler::{ProcRoot, maps};
use crate::target::Target;
use crate::unwind::{Ending, Snapshot, Unwinder};

pub use crate::diagnose::rank::GroupBy;
pub use crate::probe::FaultChoice;

pub use births::AllocsChoice;
pub use heap::CensusChoice;

use priority::Priority;
use process::{Measure, Process};
use state::State;
use watch::{Signals, Watch};

/// How long the self-test waits for its event: a busy machine may let it wait, a broken path never brings it.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of a recording.
#[derive(Debug)]
pub struct RecordOptions {
    pub target: Target,
    /// How long to watch. Of an open-ended recording: what its costs are measured by, until it has gone on for longer.
    pub duration: Duration,
    /// Until somebody ends it.
    pub open_ended: bool,
    /// The most stack that an event carries, in bytes.
    pub stack_bytes: u32,
    /// Size of the ring buffer, in bytes: a power of two, whole pages.
    pub ring_bytes: u32,
    /// Stack snapshots a second before the sampling rate falls.
    pub sample_budget: u32,
    pub faults: FaultChoice,
    pub census: CensusChoice,
    pub allocs: AllocsChoice,
    /// What watching births may cost of the target's processor time, 0 to 1.
    pub allocs_budget: f64,
    pub follow_children: bool,
    pub group_by: GroupBy,
    /// Where to write the ledger at the window's end, for comparison with the target's own mappings.
    pub dump_ledger: Option<PathBuf>,
    /// Where to write what the ledger is fed with, for replay in tests.
    pub record_changes: Option<PathBuf>,
}

impl RecordOptions {
    /// When the window is to end by itself.
    fn ends_after(&self) -> Option<Duration> {
        (!self.open_ended).then_some(self.duration)
    }
}

/// How a recording tells the user that it goes on.
pub trait Progress {
    /// The programs are attached; attaching took this long.
    fn attached(&mut self, took: Duration);
    /// `growth_bytes` of anonymous memory since the start; `None` where it was not measured.
    fn tick(&mut self, elapsed: Duration, events: u64, growth_bytes: Option<i64>);
    /// Something the user should know now.
    fn note(&mut self, line: &str);
    /// The window has ended.
    fn done(&mut self);
    /// Who is shown once a second how things stand.
    fn viewer(&mut self) -> Option<&mut dyn live::Viewer> {
        None
    }
    /// What ends the window when it is notified. Who has it also has the signals, and keeps them when the window has ended.
    fn stop(&self) -> Option<Arc<Notify>> {
        None
    }
}

/// Records the target for the window.
///
/// # Errors
///
/// When the kernel side cannot be set up, or the target was gone before there was anything to tell.
pub fn record(options: &RecordOptions, progress: &mut dyn Progress) -> Result<Recording> {
    let began = Instant::now();
    let modest = Priority::modest();
    let mut probe = Probe::attach(&ProbeOptions {
        stack_bytes: options.stack_bytes,
        ring_bytes: options.ring_bytes,
    })?;
    verify(&probe.self_test(SELF_TEST_PATIENCE)?)?;
    let pid = options.target.pid;
    // While nothing is watched: measuring a hit's cost drops what waits in the ring.
    let births = match options.allocs {
        AllocsChoice::Never => None,
        AllocsChoice::Auto | AllocsChoice::Always => Some(births::prepare(&mut probe, options)),
    };
    let mut watch = Watch::new(probe, State::new(options))?;
    // From here on what the target does waits to be drained.
    drop(modest);
    watch.probe.watch(pid, options.follow_children)?;
    let root = watch.state.root().clone();
    watch.watch_faults(options)?;
    let rules = watch.state.page_rules();
    let process = Process::new(&root, pid, &mut watch.state.unwinder, rules);
    // Whatever was just read under this number is the target's only if it still lives.
    if options.target.exited() {
        bail!("cannot record PID {pid}: it exited before the first look at its memory");
    }
    let process = process.with_context(|| format!("cannot record PID {pid}"))?;
    watch.state.processes.insert(pid, process);
    if let Some(path) = &options.record_changes {
        watch.state.recorder = Some(recorder::Recorder::create(path)?);
    }
    let attached = began.elapsed();

    // One thread is enough: the ring has one reader, and everything else waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::catch()?
    };
    // The window begins where the sizes are read: nothing was drained yet, and what the target gains until then is in
    // them already.
    watch.state.begin();
    if watch.state.sampling.is_some() {
        watch.probe.set_sample_threshold(SAMPLE_ALL)?;
    }
    let window = options.duration;
    let pages = watch.state.sampling.is_some();
    let start = watch.drain_while({
        let root = root.clone();
        move || Measure::take(&root, pid, window, pages)
    })?;
    if let Some(rollup) = &start.rollup {
        watch.state.samples.note_rollup(rollup.took);
    }
    if let Some(process) = watch.state.processes.get_mut(&pid) {
        process.set_start(start);
    }
    watch.count_heap_at_start(options)?;
    match births {
        Some(Ok(prepared)) => watch.begin_births(prepared, options),
        Some(Err(why)) => watch.state.allocs_not_watched = Some(why),
        None => {}
    }
    progress.attached(attached);
    let started_at = jiff::Timestamp::now();
    runtime.block_on(watch.run(options, &mut signals, progress))?;
    watch.end_births();
    let recorded = finish::Recorded {
        started_at,
        duration: watch.state.began.elapsed(),
        attached,
    };
    // From here on a second Ctrl-C is the default again: it ends leakwatch at once.
    drop(runtime);
    if progress.stop().is_none() {
        default_signals(&[libc::SIGINT, libc::SIGTERM]);
    }
    finish::close(&mut watch, options)?;
    progress.done();
    let _modest = Priority::modest();
    if let Some(recorder) = watch.state.recorder.take() {
        recorder.finish(&watch.state)?;
    }
    if let Some(path) = &options.dump_ledger {
        dump::write(path, &watch.state)?;
    }
    Ok(finish::recording(watch, options, &recorded))
}

/// Lets signals do what they do to any program. tokio leaves its handler installed when it goes, and they would do nothing.
pub fn default_signals(signals: &[libc::c_int]) {
    for &signal in signals {
        // SAFETY: SIG_DFL is a valid disposition, and no handler of ours refers to memory that goes away.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What a self-test measured.
#[derive(Clone, Copy, Debug)]
pub struct SelfTestResult {
    /// From nothing to all programs attached.
    pub attach: Duration,
    /// From a child's system call to its event in hand.
    pub event: Duration,
    /// Frames of its stack, up to the root.
    pub frames: usize,
}

/// Sends one event the whole way: the programs are loaded and attached, a child of leakwatch's own maps memory, its
/// event comes back, and its stack is unwound.
///
/// # Errors
///
/// The first part of the way that fails.
pub fn self_test() -> Result<SelfTestResult> {
    let began = Instant::now();
    let mut probe = Probe::attach(&ProbeOptions {
        stack_bytes: 32 * 1024,
        ring_bytes: 1024 * 1024,
    })?;
    let attach = began.elapsed();
    let test = probe.self_test(SELF_TEST_PATIENCE)?;
    Ok(SelfTestResult {
        attach,
        event: test.took,
        frames: verify(&test)?,
    })
}

/// Unwinds the self-test's stack: the child is a fork of this process, so its code lies where ours does. Returns how
/// many frames it has.
fn verify(test: &SelfTest) -> Result<usize> {
    let own = std::process::id();
    let read = maps::read(&ProcRoot::default(), own).context("self-test failed: cannot read own mappings")?;
    let mut unwinder = Unwinder::new();
    unwinder.refresh(own, &read.mappings);
    let id = unwinder.unwind(
        own,
        &Snapshot {
            registers: &test.registers,
            stack_pointer: test.stack_pointer,
            stack: &test.stack,
            flags: test.flags,
        },
    );
    let stack = unwinder
        .stack(id)
        .context("self-test failed: its stack is nowhere")?;
    match stack.ending {
        Ending::Root => {}
        Ending::Truncated(reason) => bail!(
            "self-test failed: the stack of leakwatch's own child does not reach its root ({reason:?} after {} frames, {} bytes)",
            stack.frames.len(),
            test.stack.len()
        ),
    }
    ensure!(
        stack.frames.len() > 2,
        "self-test failed: a stack of {} frames is too short",
        stack.frames.len()
    );
    Ok(stack.frames.len())
}
