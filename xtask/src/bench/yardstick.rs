//! How fast the machine is just now: a program beside the measured one that does the same again and again.
//!
//! What other machines on the same hardware do makes this one faster and slower by many percent, for minutes, and that
//! is more than leakwatch costs. It makes the yardstick slower too, more or less as much. The yardstick's threads count
//! their own processor time, so that a tracer that takes a CPU from them does not; but one that takes what all share, such
//! as caches, does, and that part of what it costs is missing in a slowdown by the yardstick.

use anyhow::{Context as _, Result};

use super::counters::{Counters, Window};
use super::programs::Program;

/// At work until it is dropped, for some two parts in a hundred of all CPUs.
pub struct Yardstick(Program);

impl Yardstick {
    /// # Errors
    /// When it cannot be built or started.
    pub fn start() -> Result<Self> {
        Ok(Self(Program::start("yardstick.cpp", &[])?))
    }

    /// # Errors
    /// When it has ended.
    pub fn counters(&mut self) -> Result<Counters> {
        self.0.counters()
    }
}

/// Its requests in a second of its processor time.
///
/// # Errors
/// When it has not worked.
pub fn speed(window: &Window) -> Result<f64> {
    window
        .units_by_own_time()
        .context("the yardstick has not worked in a window")
}
