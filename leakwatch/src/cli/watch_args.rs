//! The options of the commands that read /proc alone: `watch`, `history`, `scan`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::args::EXIT_STATUSES;
use super::values;
use super::watch_config::{self, CountBound, RateBound, RiseBound, TimeBound};

const WATCH_EXIT_STATUSES: &str = "\
Exit status:
  0  done
  1  an error, told in one line on stderr
  2  the command line is wrong
  3  done, and an alert was raised (only with --fail-on-alert)";

/// Whether a watch reads heaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchCensus {
    Auto,
    Never,
}

/// Watch processes for hours or weeks, and say when their memory grows
///
/// Samples /proc at a fixed interval: nothing is attached to a process and none is stopped. The trend of each is judged
/// with its noise in mind, so that neither a warm-up nor a garbage collector's saw is a leak. What is beyond a threshold is
/// told in one line on stdout, once, and once more when it is well within again. Processes that are started later are found,
/// and one that is restarted is a new run of the same service. It ends in good order at the first Ctrl-C or SIGTERM.
///
/// Works without root for processes of the same user; connections and proportional sizes of others need CAP_SYS_PTRACE.
///
/// Example: leakwatch watch --name nginx --every 30s --history nginx.lwh --listen 9464
#[derive(Debug, Args)]
#[command(after_help = WATCH_EXIT_STATUSES)]
pub struct WatchArguments {
    #[command(flatten)]
    pub selectors: SelectorsArguments,

    /// How often to sample
    ///
    /// A sample of one process costs some 20 µs; what is dearer is read more rarely by itself. From 100ms to a day.
    /// Example: --every 10s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::interval, allow_hyphen_values = true)]
    pub every: Duration,

    /// How long to watch
    ///
    /// Without it the watch goes on until it is stopped, or all processes that were given by --pid are gone. Example:
    /// --duration 12h
    #[arg(short, long, value_name = "DURATION", value_parser = values::span, allow_hyphen_values = true)]
    pub duration: Option<Duration>,

    /// How far back the trend looks
    ///
    /// A longer window finds slower growth, a shorter one is over sooner when growth has stopped. Example: --window 2d
    #[arg(long, value_name = "DURATION", default_value = "6h", value_parser = values::span, allow_hyphen_values = true)]
    pub window: Duration,

    /// Whether heaps are read
    ///
    /// Memory that a program has freed and its allocator keeps grows like a leak. So the heap of a process on glibc is read
    /// from outside, at the start and when its growth is to be told of; each reading costs some 0.3 s of this program per
    /// GiB, and is left out where that is over a hundredth of the time. Example: --census never
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = WatchCensus::Auto)]
    pub census: WatchCensus,

    /// Keep the samples in a file
    ///
    /// Made where there is none, readable by its owner alone, and gone on with where there is one: after a restart of
    /// leakwatch or of a process the past is still known. `leakwatch history` shows it, also meanwhile. A full disk costs
    /// samples, not the watch. Example: --history /var/lib/leakwatch/nginx.lwh
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// How long the history is kept
    ///
    /// Every sample for a day, five minutes for two weeks, hours for the rest: each with least, mean and greatest.
    /// Example: --keep 90d
    #[arg(long, value_name = "DURATION", default_value = "400d", value_parser = values::span, requires = "history")]
    pub keep: Duration,

    /// The most that the history may take
    ///
    /// Beyond it the oldest samples are thinned out before their time. A sample takes some 60 bytes. At least 1MiB. Example:
    /// --history-size 200MiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = values::history_size, requires = "history")]
    pub history_size: u64,

    #[command(flatten)]
    pub bounds: BoundsArguments,

    /// Run a command for each alert
    ///
    /// It is run without a shell, with what happened in variables of its environment (LEAKWATCH_ALERT_EVENT, _SERVICE,
    /// _PID, _THRESHOLD, _VALUE, _LINE and others, see the README). One at a time; one that takes over 30 s is killed, and a
    /// failure is told. All that follows is the command's, up to a `;`. Example: --on-alert logger -t leak
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true, value_terminator = ";")]
    pub on_alert: Vec<OsString>,

    /// Record the process that an alert is about
    ///
    /// Starts `leakwatch record` for so long, and names its file in the alert; a second line tells when it is there. One at a
    /// time, one in five minutes, one an hour of the same service, and 100 in all. Needs what `record` needs. Example:
    /// --record-on-alert 60s
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub record_on_alert: Option<Duration>,

    /// Where such recordings go
    ///
    /// Without it, beside the history, or into the current folder. Example: --recordings /var/lib/leakwatch
    #[arg(long, value_name = "FOLDER", requires = "record_on_alert")]
    pub recordings: Option<PathBuf>,

    /// Serve the figures to Prometheus
    ///
    /// As OpenMetrics at http://ADDR/metrics. A port alone is on the loopback address; what is served is readable by whoever
    /// reaches it. Example: --listen 9464
    #[arg(long, value_name = "ADDR", value_parser = values::address)]
    pub listen: Option<SocketAddr>,

    /// End with status 3 when an alert was raised
    ///
    /// For scripts, together with --duration. Example: --fail-on-alert
    #[arg(long)]
    pub fail_on_alert: bool,

    /// A folder in place of /proc
    ///
    /// For tests of load. Example: --proc-root /tmp/proc
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub proc_root: Option<PathBuf>,
}

/// Which processes: at least one of these, and whoever meets any.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SelectorsArguments {
    /// A process, by number; may be given several times
    ///
    /// This very process: one that is started after it has another number, see --name. Example: --pid 4242 --pid 4243
    #[arg(short, long = "pid", value_name = "PID", value_parser = values::pid, allow_hyphen_values = true)]
    pub pids: Vec<u32>,

    /// Processes, by name; may be given several times
    ///
    /// The exact name of the process or the exact file name of its executable: those that are there and those that come.
    /// Example: --name nginx --name redis-server
    #[arg(long = "name", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub names: Vec<String>,

    /// Processes of a cgroup, and of those below it; may be given several times
    ///
    /// By its path, or by one part of it, such as the name of a unit. Example: --cgroup nginx.service
    #[arg(long = "cgroup", value_name = "CGROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cgroups: Vec<String>,

    /// Every process
    ///
    /// At 10,000 of them and the default interval it takes up to some 3 % of one processor. Example: --all --every 1m
    #[arg(long)]
    pub all: bool,
}

/// What is too much.
#[derive(Debug, Args)]
pub struct BoundsArguments {
    /// Take thresholds from a TOML file
    ///
    /// `[thresholds]` with rate, rise, time_to_limit, descriptors, threads, connections and baseline, as the options below
    /// take them; `[service.NAME]` with those of one service. An option given here goes before `[thresholds]`. Example:
    /// --config /etc/leakwatch.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Alert at growth of so many bytes an hour
    ///
    /// Of anonymous memory, by its trend: growth without an end in sight, or a sawtooth whose floor rises. 16MiB where
    /// nothing else is said; off turns it off. Example: --max-rate 100MiB
    #[arg(long, value_name = "SIZE", value_parser = watch_config::rate)]
    pub max_rate: Option<RateBound>,

    /// Alert at so much over the baseline
    ///
    /// The baseline is what the process usually needs, learned in its first while (--baseline). In bytes or in percent of
    /// it; finds what grows too slowly for a trend. Example: --max-rise 50%
    #[arg(long, value_name = "SIZE|PERCENT", value_parser = watch_config::rise)]
    pub max_rise: Option<RiseBound>,

    /// Alert when the limit is so near
    ///
    /// At the present rate, to the limit of the cgroup or the end of the host's RAM, whichever is met first. 24h where
    /// nothing else is said; off turns it off. Example: --min-time-to-limit 3d
    #[arg(long, value_name = "DURATION", value_parser = watch_config::time)]
    pub min_time_to_limit: Option<TimeBound>,

    /// Alert at so many open descriptors
    ///
    /// A process that runs out of them fails before its memory does. Example: --max-fds 50000
    #[arg(long, value_name = "N", value_parser = watch_config::count)]
    pub max_fds: Option<CountBound>,

    /// Alert at so many threads
    ///
    /// Each has a stack, and maybe an arena of the allocator. Example: --max-threads 500
    #[arg(long, value_name = "N", value_parser = watch_config::count)]
    pub max_threads: Option<CountBound>,

    /// Alert at so many connections
    ///
    /// Of TCP and Unix sockets, of the process alone. Example: --max-connections 5000
    #[arg(long, value_name = "N", value_parser = watch_config::count)]
    pub max_connections: Option<CountBound>,

    /// How long a baseline is learned
    ///
    /// From when a process is first seen: as long as it needs to warm up. Example: --baseline 4h
    #[arg(long, value_name = "DURATION", value_parser = values::span, allow_hyphen_values = true)]
    pub baseline: Option<Duration>,
}

/// Show the history that a watch keeps
///
/// Reads a file of `watch --history`, also while it is written, and prints each service with its runs, its growth, its trend
/// and its alerts; those that gained most first. The file is not changed. Needs neither root nor the processes.
///
/// Example: leakwatch history nginx.lwh -o nginx.csv
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct HistoryArguments {
    /// The history: a file that `watch --history` keeps
    pub file: PathBuf,

    /// Also write it to a file, in the format of its ending
    ///
    /// .json has services, runs, alerts and points for plots; .csv the points, one a line; .txt the text as printed. May be
    /// given several times. A file is written whole or not at all, readable by its owner alone. Example: -o nginx.json
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// Only services of this name; may be given several times
    ///
    /// The name as it is printed, without the number behind it. Example: --service nginx
    #[arg(long = "service", value_name = "NAME")]
    pub services: Vec<String>,

    /// How many services to show, and to write points of
    ///
    /// Those that gained most. Example: --top 50
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// The most points of a service
    ///
    /// More samples are joined, to least, mean and greatest. Example: --points 5000
    #[arg(long, value_name = "N", default_value = "1000", value_parser = values::points)]
    pub points: usize,

    /// Say more: the runs of each service, and all alerts
    ///
    /// Without it the last alerts are shown, and runs are counted. Example: -v
    #[arg(short, long)]
    pub verbose: bool,
}

/// Show which processes of the host grow
///
/// Reads the sizes of every process from /proc twice, and prints those whose anonymous memory grew most between. Nothing is
/// attached to a process. A short window shows who is busy growing; whether that is a leak, `watch` tells in time.
///
/// Works without root, for the processes that /proc shows.
///
/// Example: leakwatch scan --duration 30s --top 5
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct ScanArguments {
    /// How long to wait between the two looks
    ///
    /// What grows by the hour needs longer to be seen. Example: --duration 1m
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = values::span, allow_hyphen_values = true)]
    pub duration: Duration,

    /// Also write it to a file, in the format of its ending
    ///
    /// .json has every process that is shown and all figures; .txt the text as printed. A file is written whole or not at
    /// all, readable by its owner alone. Example: -o scan.json
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// How many processes to show
    ///
    /// Those that grew most. Example: --top 50
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// A folder in place of /proc
    ///
    /// For tests of load. Example: --proc-root /tmp/proc
    #[arg(long, value_name = "FOLDER", hide = true)]
    pub proc_root: Option<PathBuf>,
}
