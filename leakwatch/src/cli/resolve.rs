//! From what was typed to what each command needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{
    Arguments, CommandArguments, DemoArguments, GroupByArgument, HeapArguments, OutputArguments,
    RecordArguments, SelectorArguments,
};
use super::exit::UsageError;
use super::printable::printable;
use super::top_args::TopArguments;
use super::watch_args::{WatchArguments, WatchCensus};
use super::watch_config::{self, Config, Said};
use super::watching_args::{AllocsArgument, CensusArgument, FaultsArgument, WatchingArguments};
use crate::history::service::kept_name;
use crate::history::thinning::Retention;
use crate::report::build::history::Wanted;
use crate::sampler::ProcRoot;
use crate::session::{AllocsChoice, CensusChoice, FaultChoice, GroupBy, RecordOptions};
use crate::target::Target;
use crate::watch::WatchOptions;
use crate::watch::selection::Selectors;
use crate::watch::thresholds::Thresholds;

/// What leakwatch is to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    Record {
        selector: Selector,
        window: Window,
        /// The exit status tells the verdict.
        fail_on_leak: bool,
        output: Output,
    },
    Top {
        selector: Selector,
        window: Window,
        output: Output,
    },
    Heap {
        selector: Selector,
        /// Although much is swapped out.
        force: bool,
        output: Output,
    },
    Report {
        file: PathBuf,
        output: Output,
    },
    Diff {
        before: PathBuf,
        after: PathBuf,
        output: Output,
    },
    /// Boxed, being much larger than the others.
    Watch {
        options: Box<WatchOptions>,
        fail_on_alert: bool,
    },
    History {
        file: PathBuf,
        wanted: Wanted,
        output: Output,
    },
    Scan {
        duration: Duration,
        proc_root: ProcRoot,
        output: Output,
    },
    Doctor {
        pid: Option<u32>,
    },
    Demo {
        window: Window,
        output: Output,
    },
    DemoService,
    Completions {
        shell: clap_complete::Shell,
    },
    /// The page of a command, else leakwatch's own; or all of them, into a folder.
    Man {
        command: Option<String>,
        folder: Option<PathBuf>,
    },
}

/// Which process.
#[derive(Debug, PartialEq, Eq)]
pub enum Selector {
    Pid(u32),
    Name(String),
}

/// A recording before its target is known: see [`RecordOptions`] for what each means.
#[derive(Debug, PartialEq, Eq)]
pub struct Window {
    pub duration: Duration,
    /// Until somebody ends it.
    pub open_ended: bool,
    pub stack_bytes: u32,
    pub ring_bytes: u32,
    pub sample_budget: u32,
    pub faults: FaultChoice,
    pub census: CensusChoice,
    pub allocs: AllocsChoice,
    /// Parts per million.
    pub allocs_budget: u32,
    pub follow_children: bool,
    pub group_by: GroupBy,
    pub dump_ledger: Option<PathBuf>,
    pub record_changes: Option<PathBuf>,
}

impl Window {
    #[must_use]
    pub fn of(self, target: Target) -> RecordOptions {
        RecordOptions {
            target,
            duration: self.duration,
            open_ended: self.open_ended,
            stack_bytes: self.stack_bytes,
            ring_bytes: self.ring_bytes,
            sample_budget: self.sample_budget,
            faults: self.faults,
            census: self.census,
            allocs: self.allocs,
            allocs_budget: f64::from(self.allocs_budget) / 1e6,
            follow_children: self.follow_children,
            group_by: self.group_by,
            dump_ledger: self.dump_ledger,
            record_changes: self.record_changes,
        }
    }
}

/// Where the report goes beside stdout, and how much of it is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub files: Vec<PathBuf>,
    pub shown: Shown,
}

/// How much of the recording the text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Rows of each table.
    pub top: usize,
    /// Call sites that keep less, in bytes, are left out.
    pub min_bytes: u64,
    /// The answer alone, on one screen.
    pub brief: bool,
    /// Whole stacks, and everything else.
    pub verbose: bool,
}

impl Command {
    pub fn resolve(arguments: Arguments) -> Result<Self, UsageError> {
        Ok(match arguments.command {
            CommandArguments::Record(record) => resolve_record(record)?,
            CommandArguments::Top(top) => resolve_top(top)?,
            CommandArguments::Heap(heap) => resolve_heap(heap)?,
            CommandArguments::Report(report) => Self::Report {
                file: report.file,
                output: resolve_output(report.output, report.top, report.min_bytes)?,
            },
            CommandArguments::Diff(diff) => Self::Diff {
                before: diff.before,
                after: diff.after,
                output: output_of(diff.outputs, diff.top, diff.min_bytes, diff.verbose)?,
            },
            CommandArguments::Watch(watch) => resolve_watch(*watch)?,
            CommandArguments::History(history) => Self::History {
                wanted: Wanted {
                    services: history
                        .services
                        .iter()
                        .map(|name| kept_name(name).to_owned())
                        .collect(),
                    most: history.top,
                    points: history.points,
                },
                file: history.file,
                output: output_of(history.outputs, history.top, 0, history.verbose)?,
            },
            CommandArguments::Scan(scan) => Self::Scan {
                duration: scan.duration,
                proc_root: proc_root(scan.proc_root),
                output: output_of(scan.outputs, scan.top, 0, false)?,
            },
            CommandArguments::Doctor(doctor) => Self::Doctor { pid: doctor.pid },
            CommandArguments::Demo(demo) => resolve_demo(demo)?,
            CommandArguments::DemoService => Self::DemoService,
            CommandArguments::Completions(wanted) => Self::Completions { shell: wanted.shell },
            CommandArguments::Man(wanted) => Self::Man {
                command: wanted.command,
                folder: wanted.dir,
            },
        })
    }
}

fn resolve_selector(selector: SelectorArguments) -> Result<Selector, UsageError> {
    match (selector.pid, selector.name) {
        (Some(pid), _) => Ok(Selector::Pid(pid)),
        (None, Some(name)) => Ok(Selector::Name(name)),
        (None, None) => Err(UsageError("give --pid or --name".to_owned())),
    }
}

fn resolve_heap(heap: HeapArguments) -> Result<Command, UsageError> {
    Ok(Command::Heap {
        selector: resolve_selector(heap.selector)?,
        force: heap.force,
        output: output_of(heap.outputs, heap.top, 0, heap.verbose)?,
    })
}

fn resolve_record(record: RecordArguments) -> Result<Command, UsageError> {
    Ok(Command::Record {
        selector: resolve_selector(record.selector)?,
        fail_on_leak: record.fail_on_leak,
        window: Window {
            dump_ledger: record.dump_ledger,
            record_changes: record.record_changes,
            ..window_of(record.watching, record.duration, record.group_by)
        },
        output: resolve_output(record.output, record.top, record.min_bytes)?,
    })
}

/// By which what it costs is measured where nobody has said when it ends.
const OPEN_WINDOW: Duration = Duration::from_secs(30);

fn resolve_top(top: TopArguments) -> Result<Command, UsageError> {
    Ok(Command::Top {
        selector: resolve_selector(top.selector)?,
        window: Window {
            open_ended: top.duration.is_none(),
            ..window_of(top.watching, top.duration.unwrap_or(OPEN_WINDOW), top.group_by)
        },
        output: resolve_output(top.output, top.top, 0)?,
    })
}

fn window_of(watching: WatchingArguments, duration: Duration, group_by: GroupByArgument) -> Window {
    Window {
        duration,
        open_ended: false,
        stack_bytes: watching.stack_bytes,
        ring_bytes: watching.ring_bytes,
        sample_budget: watching.sample_budget,
        faults: watching.faults.into(),
        census: watching.census.into(),
        allocs: watching.allocs.into(),
        allocs_budget: watching.allocs_budget,
        follow_children: watching.children,
        group_by: group_by.into(),
        dump_ledger: None,
        record_changes: None,
    }
}

/// As long as most services need to warm up.
const BASELINE: Duration = Duration::from_secs(3600);

fn resolve_watch(watch: WatchArguments) -> Result<Command, UsageError> {
    let bounds = watch.bounds;
    let config = bounds
        .config
        .as_deref()
        .map(watch_config::read)
        .transpose()
        .map_err(UsageError)?
        .unwrap_or_default();
    let Config { general, by_service } = config;
    let typed = Said {
        rate: bounds.max_rate,
        rise: bounds.max_rise,
        time_to_limit: bounds.min_time_to_limit,
        descriptors: bounds.max_fds,
        threads: bounds.max_threads,
        connections: bounds.max_connections,
        baseline: bounds.baseline,
    };
    let thresholds = typed.over(general.over(Thresholds::default()));
    let recordings = watch.recordings.unwrap_or_else(|| {
        let beside = watch.history.as_deref().and_then(Path::parent);
        beside
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned()
    });
    if watch.record_on_alert.is_some() && !recordings.is_dir() {
        return Err(UsageError(format!(
            "recordings cannot go to {}: it is no folder",
            printable(&recordings.to_string_lossy())
        )));
    }
    Ok(Command::Watch {
        fail_on_alert: watch.fail_on_alert,
        options: Box::new(WatchOptions {
            selectors: Selectors {
                pids: watch.selectors.pids,
                names: watch.selectors.names,
                cgroups: watch.selectors.cgroups,
                all: watch.selectors.all,
            },
            every: watch.every,
            duration: watch.duration,
            window: watch.window,
            learning: bounds.baseline.or(general.baseline).unwrap_or(BASELINE),
            history: watch.history,
            retention: Retention::new(watch.keep, watch.history_size),
            by_service: by_service
                .into_iter()
                .map(|(name, said)| (kept_name(&name).to_owned(), said.over(thresholds)))
                .collect(),
            thresholds,
            on_alert: watch.on_alert,
            record_on_alert: watch.record_on_alert,
            recordings,
            listen: watch.listen,
            // A folder that stands in for /proc has no memory to read.
            heaps: watch.census == WatchCensus::Auto && watch.proc_root.is_none(),
            proc_root: proc_root(watch.proc_root),
        }),
    })
}

fn proc_root(folder: Option<PathBuf>) -> ProcRoot {
    folder.map_or_else(ProcRoot::default, ProcRoot::new)
}

fn resolve_demo(demo: DemoArguments) -> Result<Command, UsageError> {
    Ok(Command::Demo {
        window: Window {
            duration: demo.duration,
            open_ended: false,
            stack_bytes: 32 * 1024,
            ring_bytes: 64 * 1024 * 1024,
            sample_budget: SAMPLE_BUDGET,
            faults: FaultChoice::Auto,
            census: CensusChoice::Auto,
            allocs: AllocsChoice::Auto,
            allocs_budget: ALLOCS_BUDGET,
            follow_children: false,
            group_by: GroupBy::Function,
            dump_ledger: None,
            record_changes: None,
        },
        output: resolve_output(demo.output, 5, 0)?,
    })
}

fn resolve_output(output: OutputArguments, top: usize, min_bytes: u64) -> Result<Output, UsageError> {
    let mut resolved = output_of(output.outputs, top, min_bytes, output.verbose > 1)?;
    resolved.shown.brief = output.verbose == 0;
    Ok(resolved)
}

fn output_of(files: Vec<PathBuf>, top: usize, min_bytes: u64, verbose: bool) -> Result<Output, UsageError> {
    for (index, file) in files.iter().enumerate() {
        if files.iter().take(index).any(|other| other == file) {
            return Err(UsageError(format!("-o {} is given twice", file.display())));
        }
    }
    Ok(Output {
        files,
        shown: Shown {
            top,
            min_bytes,
            brief: false,
            verbose,
        },
    })
}

/// Stack snapshots a second.
const SAMPLE_BUDGET: u32 = 2000;
/// Parts per million, as that of `record`.
const ALLOCS_BUDGET: u32 = 10_000;

impl From<FaultsArgument> for FaultChoice {
    fn from(argument: FaultsArgument) -> Self {
        match argument {
            FaultsArgument::Auto => Self::Auto,
            FaultsArgument::Event => Self::Event,
            FaultsArgument::Tracepoint => Self::Tracepoint,
            FaultsArgument::Never => Self::Never,
        }
    }
}

impl From<AllocsArgument> for AllocsChoice {
    fn from(argument: AllocsArgument) -> Self {
        match argument {
            AllocsArgument::Auto => Self::Auto,
            AllocsArgument::Always => Self::Always,
            AllocsArgument::Never => Self::Never,
        }
    }
}

impl From<CensusArgument> for CensusChoice {
    fn from(argument: CensusArgument) -> Self {
        match argument {
            CensusArgument::Auto => Self::Auto,
            CensusArgument::Always => Self::Always,
            CensusArgument::Never => Self::Never,
        }
    }
}

impl From<GroupByArgument> for GroupBy {
    fn from(argument: GroupByArgument) -> Self {
        match argument {
            GroupByArgument::Stack => Self::Stack,
            GroupByArgument::Function => Self::Function,
            GroupByArgument::Module => Self::Module,
        }
    }
}
