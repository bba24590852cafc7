//! What is measured: the programs, and what to read from their counters.

use anyhow::Result;

use super::counters::Window;
use super::programs::{Idle, Program};
use super::ratio::Direction;

/// One line of the table: a value read from a window.
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub direction: Direction,
    pub read: fn(&Window) -> Option<f64>,
}

impl Figure {
    fn rate(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            direction: Direction::Falls,
            read: Window::rate,
        }
    }

    fn time(name: &'static str, unit: &'static str, read: fn(&Window) -> Option<f64>) -> Self {
        Self {
            name,
            unit,
            direction: Direction::Rises,
            read,
        }
    }
}

/// A program and what is read from it.
pub struct Measure {
    pub title: &'static str,
    source: &'static str,
    arguments: Vec<String>,
    pub figures: Vec<Figure>,
    /// Whether the traced process is another one, which idles.
    beside_the_target: bool,
    /// Whether the traced process takes page faults all the time: a tracer that has seen none did not do its job.
    pub faults: bool,
    /// Whether it grows by much more than it goes up and down: only then is the coverage of its growth a figure.
    pub grows: bool,
}

/// The processes of a measurement.
pub struct Subject {
    pub program: Program,
    idle: Option<Idle>,
}

impl Subject {
    /// The PID to trace.
    pub fn target(&self) -> u32 {
        self.idle.as_ref().map_or_else(|| self.program.pid(), Idle::pid)
    }
}

impl Measure {
    /// # Errors
    /// When its program cannot be built or started.
    pub fn start(&self) -> Result<Subject> {
        let program = Program::start(self.source, &self.arguments)?;
        let idle = self.beside_the_target.then(Idle::start).transpose()?;
        Ok(Subject { program, idle })
    }
}

/// As many threads as there are CPUs, as servers have; at least two, for the sake of locks and arenas.
fn server_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2))
}

pub fn server_at_full_speed() -> Measure {
    Measure {
        title: "server at full speed",
        source: "server.cpp",
        arguments: vec![server_threads().to_string(), "0".to_owned()],
        figures: vec![Figure::rate("server, full speed", "requests/s")],
        beside_the_target: false,
        faults: true,
        grows: true,
    }
}

/// A fixed rate at which the server is not far from busy and requests rarely wait for one another.
const RATE_PART: f64 = 0.3;

/// With requests at 30 % of `full_speed` (requests a second).
pub fn server_at_rate(full_speed: f64) -> Measure {
    let rate = (full_speed * RATE_PART).max(100.0);
    Measure {
        title: "server at 30 % of full speed",
        source: "server.cpp",
        arguments: vec![server_threads().to_string(), format!("{rate:.0}")],
        figures: vec![
            Figure::time("server at 30 % of that, p50", "µs", |window| {
                window.latency_microseconds(0.5)
            }),
            Figure::time("server at 30 % of that, p99", "µs", |window| {
                window.latency_microseconds(0.99)
            }),
        ],
        beside_the_target: false,
        faults: true,
        grows: true,
    }
}

fn storm(title: &'static str, source: &'static str, unit: &'static str, faults: bool) -> Measure {
    Measure {
        title,
        source,
        arguments: Vec::new(),
        figures: vec![Figure::rate(title, unit)],
        beside_the_target: false,
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
        beside_the_target: true,
        faults: false,
        grows: false,
    }
}
