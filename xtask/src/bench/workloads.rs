//! What is measured: the programs, and what to read from their counters.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::counters::Window;
use super::programs::{Idle, Program};
use super::ratio::Direction;
use super::redis::Redis;

/// One line of the table: a value read from a window.
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub direction: Direction,
    pub read: fn(&Window) -> Option<f64>,
    pub told: Told,
}

/// How a traced window's value is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// By the untraced one.
    AsSlowdown,
    /// As it is: of rare events a ratio says nothing.
    AsMeasured,
}

impl Figure {
    fn rate(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            direction: Direction::Falls,
            read: Window::rate,
            told: Told::AsSlowdown,
        }
    }

    fn time(name: &'static str, unit: &'static str, read: fn(&Window) -> Option<f64>) -> Self {
        Self {
            name,
            unit,
            direction: Direction::Rises,
            read,
            told: Told::AsSlowdown,
        }
    }

    fn longest_stall(name: &'static str) -> Self {
        Self {
            told: Told::AsMeasured,
            ..Self::time(name, "ms", Window::longest_milliseconds)
        }
    }
}

/// A program and what is read from it.
pub struct Measure {
    pub title: &'static str,
    source: &'static str,
    arguments: Vec<String>,
    pub figures: Vec<Figure>,
    target: Target,
    /// Whether the traced process takes page faults all the time: a tracer that has seen none did not do its job.
    pub faults: bool,
    /// Whether it grows by much more than it goes up and down: only then is the coverage of its growth a figure.
    pub grows: bool,
}

/// Which process is traced.
#[derive(Clone, Debug)]
enum Target {
    /// The one that counts its work.
    Itself,
    /// Another one, which idles.
    Idle,
    /// The redis server by this path: the one that counts is its load, and takes its socket as its first argument.
    Redis(PathBuf),
}

/// The processes of a measurement.
pub struct Subject {
    pub program: Program,
    other: Option<Other>,
}

/// A traced process beside the one that counts.
enum Other {
    Idle(Idle),
    Redis(Redis),
}

impl Subject {
    /// The PID to trace.
    pub fn target(&self) -> u32 {
        match &self.other {
            None => self.program.pid(),
            Some(Other::Idle(idle)) => idle.pid(),
            Some(Other::Redis(redis)) => redis.pid(),
        }
    }
}

impl Measure {
    /// The first figure, where it is how much work is done in a time.
    pub fn rate(&self) -> Option<&Figure> {
        let first = self.figures.first();
        first.filter(|figure| figure.direction == Direction::Falls && figure.told == Told::AsSlowdown)
    }

    /// Whether the traced process works as fast as it can, and waits for no other one.
    pub fn is_at_full_speed(&self) -> bool {
        matches!(self.target, Target::Itself) && self.rate().is_some()
    }

    /// Whether the program that counts is the client of the traced one.
    pub fn is_client(&self) -> bool {
        matches!(self.target, Target::Redis(_))
    }

    /// Whether a second process of it is of any use beside it: one that grows slows down as it does.
    pub fn has_twin(&self) -> bool {
        self.grows && self.is_at_full_speed()
    }

    /// # Errors
    /// When its programs cannot be built or started.
    pub fn start(&self) -> Result<Subject> {
        let mut arguments = self.arguments.clone();
        let other = match &self.target {
            Target::Itself => None,
            Target::Idle => Some(Other::Idle(Idle::start()?)),
            Target::Redis(server) => {
                let redis = Redis::start(server)?;
                arguments.insert(0, redis.socket());
                Some(Other::Redis(redis))
            }
        };
        let program = Program::start(self.source, &arguments)?;
        Ok(Subject { program, other })
    }
}

/// As many threads as there are CPUs, as servers have; at least two, for the sake of locks and arenas.
fn server_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2))
}

fn server(title: &'static str, threads: usize, rate: f64, figures: Vec<Figure>) -> Measure {
    Measure {
        title,
        source: "server.cpp",
        arguments: vec![threads.to_string(), format!("{rate:.0}")],
        figures,
        target: Target::Itself,
        faults: true,
        grows: true,
    }
}

pub fn server_at_full_speed() -> Measure {
    let figures = vec![Figure::rate("server, full speed", "requests/s")];
    server("server at full speed", server_threads(), 0.0, figures)
}

/// A fixed rate at which the server is not far from busy and requests rarely wait for one another.
const RATE_PART: f64 = 0.3;

fn part_of(full_speed: f64) -> f64 {
    (full_speed * RATE_PART).max(100.0)
}

fn p50(window: &Window) -> Option<f64> {
    window.latency_microseconds(0.5)
}

fn p99(window: &Window) -> Option<f64> {
    window.latency_microseconds(0.99)
}

/// With requests at 30 % of `full_speed` (requests a second).
pub fn server_at_rate(full_speed: f64) -> Measure {
    let figures = vec![
        Figure::time("server at 30 % of that, p50", "µs", p50),
        Figure::time("server at 30 % of that, p99", "µs", p99),
    ];
    server(
        "server at 30 % of full speed",
        server_threads(),
        part_of(full_speed),
        figures,
    )
}

/// More than a small machine has CPUs, as many a service has.
const BUSY_THREADS: usize = 8;

/// The server as births are measured: its requests' stalls too.
pub fn busy_server_at_full_speed() -> Measure {
    let figures = vec![
        Figure::rate("server of 8 threads, full speed", "requests/s"),
        Figure::longest_stall("server of 8 threads, full speed, longest stall"),
    ];
    server("server of 8 threads at full speed", BUSY_THREADS, 0.0, figures)
}

/// The same with requests at 30 % of `full_speed` (requests a second).
pub fn busy_server_at_rate(full_speed: f64) -> Measure {
    let figures = vec![
        Figure::time("server at 30 % of that, p50", "µs", p50),
        Figure::time("server at 30 % of that, p99", "µs", p99),
        Figure::longest_stall("server at 30 % of that, longest stall"),
    ];
    server(
        "server of 8 threads at 30 % of full speed",
        BUSY_THREADS,
        part_of(full_speed),
        figures,
    )
}

/// The redis server by this path, on a socket, with clients that keep it busy.
pub fn redis(server: &Path) -> Measure {
    Measure {
        title: "redis on libc malloc",
        source: "redis_load.c",
        arguments: vec!["8".to_owned()],
        figures: vec![
            Figure::rate("redis on libc malloc", "requests/s"),
            Figure::time("redis on libc malloc, p99", "µs", p99),
            Figure::longest_stall("redis on libc malloc, longest stall"),
        ],
        target: Target::Redis(server.to_owned()),
        faults: false,
        grows: false,
    }
}

/// Mallocs at `rate` a second on all CPUs; 0 is as fast as they can.
pub fn mallocs_at_rate(title: &'static str, rate: u32) -> Measure {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    Measure {
        arguments: vec![threads.to_string(), rate.to_string()],
        ..storm(title, "malloc_rate.c", "mallocs/s", false)
    }
}

fn storm(title: &'static str, source: &'static str, unit: &'static str, faults: bool) -> Measure {
    Measure {
        title,
        source,
        arguments: Vec::new(),
        figures: vec![Figure::rate(title, unit)],
        target: Target::Itself,
        faults,
        grows: false,
    }
}

pub fn fault_storm() -> Measure {
    storm("fault storm", "fault_storm.c", "pages/s", true)
}

pub fn mapping_storm() -> Measure {
    storm("mapping storm", "mapping_storm.c", "mappings/s", true)
}

pub fn malloc_storm() -> Measure {
    storm("malloc storm", "malloc_storm.c", "mallocs/s", false)
}

/// As births are measured: its stalls too.
pub fn malloc_storm_with_stalls() -> Measure {
    let mut measure = malloc_storm();
    measure
        .figures
        .push(Figure::longest_stall("malloc storm, longest stall"));
    measure
}

/// MiB in small blocks that the storm keeps beside its own: what a census reads.
const HEAP_MIB: u32 = 512;

/// The same beside a large heap that rests.
pub fn malloc_storm_on_a_large_heap() -> Measure {
    Measure {
        arguments: vec![HEAP_MIB.to_string()],
        ..storm("malloc storm, heap read", "malloc_storm.c", "mallocs/s", false)
    }
}

pub fn bystander() -> Measure {
    Measure {
        title: "bystander",
        source: "bystander.c",
        arguments: Vec::new(),
        figures: vec![
            Figure::time("another process, getpid", "ns", |window| {
                window.nanoseconds_per_unit(0)
            }),
            Figure::time("another process, page fault", "ns", |window| {
                window.nanoseconds_per_unit(1)
            }),
        ],
        target: Target::Idle,
        faults: false,
        grows: false,
    }
}
