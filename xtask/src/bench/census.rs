//! What a census costs: the time that it takes, and the target's slowdown while its heap is read again and again.
//!
//! leakwatch itself reads a heap twice a window at most. The slowdown is that of a process that is read all the time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::counters::Window;
use super::programs::Program;
use super::ratio::median;
use super::recording::Account;
use super::rounds::{self, Outcome, Plan};
use super::table::{self, Cell, Line, Own};
use super::tracers::{self, Tracer};
use super::{processor_time, workloads};
use crate::run;

/// What one reading was like, by its own word.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    seconds: f64,
    /// Bytes of the heap, in use and free.
    bytes: u64,
}

impl Reading {
    /// From what `leakwatch heap` writes.
    fn of(json: &str) -> Option<Self> {
        let picture: Value = serde_json::from_str(json).ok()?;
        let heap = picture.get("heap")?;
        let arenas = heap.get("arenas")?.as_array()?.iter();
        Some(Self {
            seconds: heap.get("took_seconds")?.as_f64()?,
            bytes: arenas
                .filter_map(|arena| arena.get("system_bytes")?.as_u64())
                .sum(),
        })
    }

    fn milliseconds_per_gib(self) -> f64 {
        self.seconds * 1000.0 / (self.bytes as f64 / f64::from(1 << 30))
    }
}

/// The lines of the table; `columns` is how many tracers it has, of which leakwatch is the first.
///
/// # Errors
/// When the program ends, or leakwatch fails.
pub fn lines(leakwatch: &Path, columns: usize, plan: &Plan) -> Result<Vec<Line>> {
    let measure = workloads::malloc_storm_on_a_large_heap();
    run::heading(measure.title);
    let mut subject = measure.start()?;
    let target = subject.target();
    let mut readings = Vec::new();
    let mut passes = Vec::new();
    std::thread::sleep(plan.settle);
    let mut before = rounds::values(&measure, &rounds::untraced(&mut subject.program, plan)?);
    for round in 1..=plan.rounds {
        let (window, cpu) = read_all_the_time(leakwatch, target, &mut subject.program, plan, &mut readings)?;
        std::thread::sleep(plan.settle);
        let after = rounds::values(&measure, &rounds::untraced(&mut subject.program, plan)?);
        let during = rounds::values(&measure, &window);
        let pass = rounds::pass(&measure, &before, &during, &after, cpu, Account::default());
        eprintln!(
            "  round {round} of {}, heap read {} times so far: {}",
            plan.rounds,
            readings.len(),
            rounds::told(&pass.slowdowns)
        );
        passes.push(pass);
        before = after;
    }
    let tracers = [Tracer::Leakwatch(leakwatch.to_owned())];
    let mut lines = table::lines(&measure, &tracers, &[Outcome::Passes(passes)]);
    let each: Vec<f64> = readings.iter().map(|it| it.milliseconds_per_gib()).collect();
    lines.push(Line {
        name: "one reading of that heap",
        untraced: median(&each),
        unit: "ms/GiB",
        cells: Vec::new(),
        own: Own::default(),
    });
    for line in &mut lines {
        line.cells.resize(columns, Cell::NoFigure);
    }
    Ok(lines)
}

/// A window in which one `leakwatch heap` follows the other, and leakwatch's processor time by it.
fn read_all_the_time(
    leakwatch: &Path,
    target: u32,
    program: &mut Program,
    plan: &Plan,
    readings: &mut Vec<Reading>,
) -> Result<(Window, f64)> {
    let folder = tracers::scratch()?;
    let path = folder.path().join("heap.json");
    let (before, cpu_before) = (program.counters()?, processor_time::of_children()?);
    let started = Instant::now();
    // The last one ends later: it belongs to the window.
    while started.elapsed() < plan.window {
        let mut command = Command::new(leakwatch);
        command
            .args(["heap", "--pid", &target.to_string(), "-o"])
            .arg(&path);
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
        ensure!(
            output.status.success(),
            "leakwatch heap failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = fs::read_to_string(&path).context("leakwatch heap left no picture")?;
        readings.push(Reading::of(&text).context("the picture of leakwatch heap is not understood")?);
    }
    let window = Window::between(&before, &program.counters()?);
    let cpu = (processor_time::of_children()? - cpu_before) / window.seconds();
    Ok((window, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_told_by_the_gib() {
        let text = r#"{"heap": {"took_seconds": 0.25, "arenas": [
            {"system_bytes": 536870912}, {"system_bytes": 536870912}]}}"#;
        let reading = Reading::of(text).unwrap();
        assert_eq!((reading.seconds, reading.bytes), (0.25, 1 << 30));
        assert_eq!(reading.milliseconds_per_gib(), 250.0);
        assert_eq!(Reading::of(r#"{"heap": null}"#), None);
    }
}
