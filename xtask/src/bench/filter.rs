//! `cargo xtask bench --filter`: what it costs the target to ask of each fault whether it is in the sample.
//!
//! The filter runs in BPF for every fault, since pages are sampled by address. The alternative would be a period in
//! the kernel, which cannot choose by address but never runs the program for the others. The difference is the price.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::rounds::{self, Plan};
use super::tracers::Tracer;
use super::{table, workloads};
use crate::run;

/// What the example `fault_filter` opens beside the mapping tracepoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No fault event.
    None,
    /// The fault event with a period so long that the program never runs.
    Period,
    /// The fault event with period 1; the program runs each time and lets no page through.
    Filter,
}

impl Mode {
    /// As the example takes it.
    pub fn argument(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Period => "period",
            Self::Filter => "filter",
        }
    }

    /// The head of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no fault event",
            Self::Period => "event, program never run",
            Self::Filter => "event, program lets none through",
        }
    }
}

/// Builds the example and returns its path.
///
/// # Errors
/// When it does not build.
pub fn build() -> Result<PathBuf> {
    let example = [
        "build",
        "--release",
        "--package",
        "leakwatch",
        "--example",
        "fault_filter",
    ];
    run::run(&mut run::cargo(&example))?;
    Ok(run::target_directory()?.join("release/examples/fault_filter"))
}

/// Measures and prints.
///
/// # Errors
/// When the storm or the example does not run.
pub fn run(example: &Path, plan: &Plan, load: &str) -> Result<()> {
    let tracers =
        [Mode::None, Mode::Period, Mode::Filter].map(|mode| Tracer::FaultEvent(example.to_owned(), mode));
    let measure = workloads::fault_storm();
    run::heading(measure.title);
    let mut subject = measure.start()?;
    let outcomes = rounds::run(&mut subject, &measure, &tracers, plan)?;
    let lines = table::lines(&measure, &tracers, &outcomes);
    let names = tracers.each_ref().map(Tracer::name);
    table::print(
        &table::head(plan, &tracers, load),
        &table::markdown(&names, &lines),
    );
    Ok(())
}
