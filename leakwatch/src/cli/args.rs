//! The command line as it is typed: what each option is called, what it accepts, and its help. Nothing here looks at
//! the machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::diff_args::DiffArguments;
use super::shell_args::{CompletionsArguments, ManArguments};
use super::top_args::TopArguments;
use super::values;
use super::watch_args::{HistoryArguments, ScanArguments, WatchArguments};
use super::watching_args::WatchingArguments;

pub(super) const EXIT_STATUSES: &str = "\
Exit status:
  0  done
  1  an error, told in one line on stderr
  2  the command line is wrong";

const EXIT_STATUSES_OF_RECORD: &str = "\
Exit status:
  0  done; with --fail-on-leak: and no leak
  1  an error, told in one line on stderr
  2  the command line is wrong
  3  with --fail-on-leak: the verdict is a leak
  4  with --fail-on-leak: the verdict is inconclusive, or growth that may go on";

/// Names the call sites that keep the memory a running process gains
///
/// leakwatch attaches to a live process, watches its memory for a window of time, and prints which call sites
/// committed memory in it and still hold it, ranked, with whole stacks, the total checked against the kernel's own
/// account. The process is not stopped, not restarted and not changed.
///
/// Try it with nothing prepared: `leakwatch demo`. On a process of yours: `leakwatch record --pid 4242 --duration 60s`.
#[derive(Debug, Parser)]
#[command(
    name = "leakwatch",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = EXIT_STATUSES
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: CommandArguments,
}

#[derive(Debug, Subcommand)]
pub enum CommandArguments {
    Record(RecordArguments),
    Top(TopArguments),
    Heap(HeapArguments),
    Report(ReportArguments),
    Diff(DiffArguments),
    // Boxed, having much more options than most.
    Watch(Box<WatchArguments>),
    History(HistoryArguments),
    Scan(ScanArguments),
    Doctor(DoctorArguments),
    Demo(DemoArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
    /// The leaky service that `demo` records
    #[command(hide = true)]
    DemoService,
}

/// Watch a process for a while and report who keeps the memory it gained
///
/// Attaches to the process, watches for the window, detaches, and prints the report to stdout. The window also ends,
/// with a report of what was gathered, at the first Ctrl-C and when the process exits or replaces its image.
///
/// Needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE: `leakwatch doctor` tells what is missing.
///
/// Example: leakwatch record --pid 4242 --duration 60s -o leak.json -o leak.folded
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES_OF_RECORD)]
pub struct RecordArguments {
    #[command(flatten)]
    pub selector: SelectorArguments,

    /// How long to watch
    ///
    /// The leak should grow by some MiB in it; a minute is a good start for a process that grows by the hour. A bare
    /// number is seconds; at most 7 days. Example: --duration 5m
    #[arg(
        short,
        long,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = values::duration,
        allow_hyphen_values = true,
        env = "LEAKWATCH_DURATION",
        hide_env_values = true
    )]
    pub duration: Duration,

    #[command(flatten)]
    pub output: OutputArguments,

    /// End with status 3 where the verdict is a leak, and 4 where it excludes none
    ///
    /// For scripts and pipelines. Example: --fail-on-leak
    #[arg(long)]
    pub fail_on_leak: bool,

    /// How many call sites to show
    ///
    /// The recording keeps all of them; this is for the printed report. Example: --top 25
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// What makes two stacks one row
    ///
    /// A function that is called from many places fills the ranking with rows by stack; by function it is one, by
    /// module each library is one. Example: --group-by function
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t = GroupByArgument::Stack,
        env = "LEAKWATCH_GROUP_BY",
        hide_env_values = true
    )]
    pub group_by: GroupByArgument,

    /// Leave out call sites that keep less than this
    ///
    /// Small sites are mostly start-up and noise. They stay in the total. Example: --min-bytes 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "0",
        value_parser = values::size,
        env = "LEAKWATCH_MIN_BYTES",
        hide_env_values = true
    )]
    pub min_bytes: u64,

    /// Write the ledger at the window's end
    ///
    /// A JSON line for each range: who owns it, for comparison with the target's own mappings. Example: --dump-ledger
    /// ledger.jsonl
    #[arg(long, value_name = "FILE", hide = true)]
    pub dump_ledger: Option<PathBuf>,

    /// Write what the ledger is fed with
    ///
    /// A JSON line for each change, to be replayed in tests. Example: --record-changes run.jsonl
    #[arg(long, value_name = "FILE", hide = true)]
    pub record_changes: Option<PathBuf>,

    #[command(flatten)]
    pub watching: WatchingArguments,
}

/// Which process: by number or by name, exactly one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SelectorArguments {
    /// The process, by number
    ///
    /// As the host counts it, also for a process in a container. Example: --pid 4242
    #[arg(short, long, value_name = "PID", value_parser = values::pid, allow_hyphen_values = true)]
    pub pid: Option<u32>,

    /// The process, by name
    ///
    /// The exact name of the process or the exact file name of its executable. When several have it they are listed
    /// and nothing is done: a number says which. Example: --name redis-server
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub struct OutputArguments {
    /// Also write the report to a file, in the format of its ending
    ///
    /// .json is the recording itself, which `leakwatch report` reads; .txt the report as printed; .svg a flame graph;
    /// .folded one stack a line, for other flame graphs; .pb.gz a profile for pprof; .csv the ranking, and .series.csv
    /// the samples of /proc, as tables. May be given several times. A file is written whole or not at all, readable by its owner
    /// alone, and never through a symbolic link. Example: -o leak.json -o leak.folded
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// Say more: the evidence, the account, the heap, mappings, what it cost; -vv: whole stacks
    ///
    /// The report is cut to what answers the question, on one screen; this is the rest of it. Example: -v
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupByArgument {
    /// The whole chain of calls
    Stack,
    /// The function to blame
    Function,
    /// The executable or library it lies in
    Module,
}

/// Show what of a process's heap is in use, and what its allocator keeps although it is free
///
/// Reads glibc's own records of the heap once, from outside, without a window: blocks in use by size and type, free
/// memory by kind (bins, top, tcache, fastbins), what of it malloc_trim could give back and what is fragmentation, and
/// each arena. The process is not stopped. Heaps of other allocators are not read, and the error says which one it is.
///
/// Needs neither BPF nor root: the process's own user, or CAP_SYS_PTRACE.
///
/// Example: leakwatch heap --pid 4242 --top 25
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct HeapArguments {
    #[command(flatten)]
    pub selector: SelectorArguments,

    /// Also write it to a file, in the format of its ending
    ///
    /// .json has every figure, and all sizes and types; .txt the text as printed. May be given several times. A file is
    /// written whole or not at all, readable by its owner alone, and never through a symbolic link. Example: -o heap.json
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// How many rows of blocks to show
    ///
    /// A row is one size and type. The .json file has all of them. Example: --top 25
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// Say more: every arena, its free memory by kind, whole names
    ///
    /// Without it the largest arenas are shown, where there are several, and a long name is cut. Example: -v
    #[arg(short, long)]
    pub verbose: bool,

    /// Read the heap even if much of the process is swapped out
    ///
    /// Reading brings what is swapped out back into RAM, which may push out other memory. So a process of which more than
    /// 1 MiB and 1 % is swapped out is left alone. Example: --force
    #[arg(long)]
    pub force: bool,
}

/// Render a recording again
///
/// Reads a recording (.json) made by `record` or `demo`, on this machine or another, and prints the report or writes
/// it in other formats. Needs neither root nor the process.
///
/// Example: leakwatch report leak.json -o leak.folded
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct ReportArguments {
    /// The recording: a .json that `record -o` wrote
    pub file: PathBuf,

    #[command(flatten)]
    pub output: OutputArguments,

    /// How many call sites to show
    ///
    /// The recording holds all of them; this is for the printed report. Example: --top 25
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// Leave out call sites that keep less than this
    ///
    /// They stay in the total. Example: --min-bytes 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "0",
        value_parser = values::size,
        env = "LEAKWATCH_MIN_BYTES",
        hide_env_values = true
    )]
    pub min_bytes: u64,
}

/// Tell what of this machine, these privileges and this process can be watched
///
/// Checks each need of a recording and says of each whether it is met, what degrades without it and what to do; at
/// last records a child of its own. Exit status 0 says that `record` would work, 1 that it would not.
///
/// Example: leakwatch doctor --pid 4242
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct DoctorArguments {
    /// Check this process too
    ///
    /// Its word size, namespace and allocator, and whether its memory can be read. Example: --pid 4242
    #[arg(short, long, value_name = "PID", value_parser = values::pid, allow_hyphen_values = true)]
    pub pid: Option<u32>,
}

/// Record a leaky service that is built in
///
/// Starts a small server in a child process (several threads, one handler that leaks among honest ones, a bounded
/// cache), records it, and prints the report: the main job with nothing to prepare. The service ends with the demo.
///
/// Example: leakwatch demo
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct DemoArguments {
    /// How long to watch
    ///
    /// The service leaks some 6 MiB a second. At most 2 minutes. Example: --duration 10s
    #[arg(
        short,
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = values::demo_duration,
        allow_hyphen_values = true
    )]
    pub duration: Duration,

    #[command(flatten)]
    pub output: OutputArguments,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    fn help(command: &str, long: bool) -> String {
        let mut root = Arguments::command().term_width(80).max_term_width(80);
        root.build();
        let command = if command.is_empty() {
            &mut root
        } else {
            root.find_subcommand_mut(command).unwrap()
        };
        let text = if long {
            command.render_long_help()
        } else {
            command.render_help()
        };
        text.to_string()
    }

    #[test]
    fn short_help() {
        for command in [
            "",
            "record",
            "top",
            "heap",
            "report",
            "diff",
            "watch",
            "history",
            "scan",
            "doctor",
            "demo",
            "completions",
            "man",
        ] {
            insta::assert_snapshot!(format!("help_short_{command}"), help(command, false));
        }
    }

    #[test]
    fn long_help() {
        for command in [
            "",
            "record",
            "top",
            "heap",
            "report",
            "diff",
            "watch",
            "history",
            "scan",
            "doctor",
            "demo",
            "completions",
            "man",
        ] {
            insta::assert_snapshot!(format!("help_long_{command}"), help(command, true));
        }
    }

    #[test]
    fn every_option_says_why_and_gives_an_example() {
        let mut root = Arguments::command();
        root.build();
        for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
            for option in command.get_opts().filter(|option| option.get_id() != "help") {
                let long = option.get_long_help().map(ToString::to_string);
                assert!(
                    long.is_some_and(|text| text.contains("Example: ")),
                    "{} {}",
                    command.get_name(),
                    option.get_id()
                );
            }
        }
    }

    #[test]
    fn the_service_is_hidden() {
        assert!(!help("", false).contains("demo-service"));
    }
}
