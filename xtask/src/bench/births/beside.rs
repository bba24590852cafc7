//! What works beside the measured program, and tells how fast the machine is just now.

use anyhow::{Context as _, Result};

use crate::bench::counters::{Counters, Window};
use crate::bench::processor_time;
use crate::bench::programs;
use crate::bench::workloads::{Measure, Subject};
use crate::bench::yardstick::{self, Yardstick};

/// What works beside the measured program.
pub enum Beside<'a> {
    /// Another program, for a small part of the time.
    Yardstick(&'a mut Yardstick),
    /// The same program, at full speed too.
    Twin(Subject),
}

/// Its counters at a moment, and where it is a twin its processor time, seconds.
pub struct Mark {
    counters: Counters,
    cpu_seconds: f64,
}

/// What it did between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Units of work in a second of its own processor time.
    pub speed: f64,
    /// The processor time that the measured program would have had without it, seconds: a twin's.
    pub cpu_seconds: f64,
}

impl Beside<'_> {
    /// # Errors
    /// When it has ended.
    pub fn mark(&mut self) -> Result<Mark> {
        Ok(match self {
            Self::Yardstick(yardstick) => Mark {
                counters: yardstick.counters()?,
                cpu_seconds: 0.0,
            },
            Self::Twin(twin) => Mark {
                counters: twin.program.counters()?,
                cpu_seconds: processor_time::of_threads(twin.target())?,
            },
        })
    }

    /// # Errors
    /// When it has ended, or has not worked.
    pub fn since(&mut self, before: &Mark) -> Result<Done> {
        let now = self.mark()?;
        let window = Window::between(&before.counters, &now.counters);
        let cpu_seconds = now.cpu_seconds - before.cpu_seconds;
        Ok(Done {
            speed: match self {
                Self::Yardstick(_) => yardstick::speed(&window)?,
                Self::Twin(_) => window.units().context("the twin has not worked in a window")? / cpu_seconds,
            },
            cpu_seconds,
        })
    }
}

/// Two of a program, of one age: where it grows it slows down as it does. Their threads are spread over the CPUs alike: what
/// makes one CPU slower than the other for a while is then no difference between them, and no thread moves. The first to start
/// is a little older: `younger` says which one is to be measured.
///
/// # Errors
/// When they cannot be built or started.
pub fn twins(measure: &Measure, younger: bool) -> Result<(Subject, Beside<'static>)> {
    let [first, second] = [measure.start()?, measure.start()?];
    for twin in [&first, &second] {
        programs::spread(twin.target())?;
    }
    Ok(if younger {
        (second, Beside::Twin(first))
    } else {
        (first, Beside::Twin(second))
    })
}
