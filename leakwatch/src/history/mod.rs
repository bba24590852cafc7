//! The history of a watch: samples of many processes over weeks, in one file.
//!
//! The file is a SQLite database in WAL mode. It was weighed against a log of own making: a transaction per round makes
//! `kill -9` lose one round at most, pages that retention frees are used again, a reader may look while the writer writes,
//! and anybody can open it with the tools they have. It costs some 60 bytes a sample.
//!
//! What it holds, in the order of the files here:
//!
//! - [`figures`]: what of a sample is kept. One table of metrics.
//! - [`service`]: what stays the same when a process is restarted. A process is a *run* of a service.
//! - [`schema`], [`file`](mod@file): the tables, and how the file is opened without touching one that is not ours.
//! - [`heap`]: what was read of the heap of a run.
//! - [`store`]: a round of samples, written whole or not at all. A disk that is full costs samples, not the watch.
//! - [`thinning`]: a day in full, weeks by five minutes, months by the hour, with least, mean and greatest.
//! - [`read`], [`bins`]: back out again, in bounded memory.

pub mod bins;
pub mod figures;
pub mod file;
pub mod heap;
pub mod read;
pub mod schema;
pub mod service;
pub mod store;
pub mod thinning;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

/// A time as the file has it: milliseconds since 1970, by the clock on the wall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub i64);

impl At {
    /// Clocks before 1970 are 1970.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(milliseconds(since))
    }

    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(milliseconds(span)))
    }

    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(span)))
    }

    /// Seconds from another time to this one; negative where it is earlier.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of centuries are exact")]
    pub fn seconds_since(self, other: Self) -> f64 {
        self.0.saturating_sub(other.0) as f64 / 1000.0
    }

    /// `2026-11-27T03:51:06Z`; what no calendar has is a number.
    #[must_use]
    pub fn text(self) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .and_then(|at| at.round(jiff::Unit::Second))
            .map_or_else(|_| format!("{} ms", self.0), |at| at.to_string())
    }
}

fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The number of a service in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub i64);

/// The number of a run in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub i64);
