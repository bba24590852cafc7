//! The reader: what the file says, in bounded memory. A file may be damaged or made by anybody; what no row can hold is an
//! error, never a panic.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, Row, Rows};

use super::figures::{Figures, METRICS};
use super::file::{self, HistoryError, Reading};
use super::heap::{self, HeapRow};
use super::service::Service;
use super::store::{ProcessKey, RecentRun};
use super::thinning::WIDTHS;
use super::{At, RunId, ServiceId, schema};

/// Services, runs and alerts that are read at most; a file that has more is refused.
const ROWS_MAX: usize = 2_000_000;
/// The longest text that is read, bytes.
const TEXT_MAX: usize = 64 * 1024;

/// One run, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub id: RunId,
    pub service: ServiceId,
    pub process: ProcessKey,
    pub first_at: At,
    pub ended_at: Option<At>,
    pub ending: Option<String>,
    /// Bytes.
    pub baseline: Option<u64>,
}

/// One alert, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub at: At,
    pub run: RunId,
    pub event: String,
    pub threshold: String,
    pub line: String,
}

/// A sample, or what a bucket of them was thinned to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    pub run: RunId,
    /// Of a bucket its beginning.
    pub at: At,
    /// Seconds; 0 for a sample.
    pub width: u64,
    pub samples: u64,
    pub least: Figures,
    pub mean: Figures,
    pub most: Figures,
}

/// A history that is read.
#[derive(Debug)]
pub struct History {
    reading: Reading,
}

impl History {
    /// Opens a file; it is not written to.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let reading = file::open_to_read(path)?;
        // All that is read is of one moment, though a watch may go on writing.
        reading
            .connection
            .execute_batch("BEGIN")
            .map_err(|error| file::failed("read", &reading.path, &error))?;
        Ok(Self { reading })
    }

    /// By their numbers.
    pub fn services(&self) -> Result<Vec<(ServiceId, Service)>, HistoryError> {
        self.said(services(&self.reading.connection))
    }

    /// In the order in which they were first seen.
    pub fn runs(&self) -> Result<Vec<Run>, HistoryError> {
        self.said(runs(&self.reading.connection, ""))
    }

    /// In their order.
    pub fn alerts(&self) -> Result<Vec<Alert>, HistoryError> {
        let read = || -> rusqlite::Result<Vec<Alert>> {
            let mut statement = self
                .reading
                .connection
                .prepare("SELECT at, run, event, threshold, line FROM alert ORDER BY id")?;
            collect(statement.query([])?, |row| {
                Ok(Alert {
                    at: At(row.get(0)?),
                    run: RunId(row.get(1)?),
                    event: text(row, 2)?,
                    threshold: text(row, 3)?,
                    line: text(row, 4)?,
                })
            })
        };
        self.said(read())
    }

    /// What was read of the heap of a run, last.
    pub fn heap(&self, run: RunId) -> Result<Option<HeapRow>, HistoryError> {
        self.said(heap::read(&self.reading.connection, run))
    }

    /// Hands out all that is kept: the coarse buckets, the fine ones, the samples, each in the order of time. So each run's
    /// come in the order of time, as long as no clock was set.
    pub fn for_each(&self, mut each: impl FnMut(Kept)) -> Result<(), HistoryError> {
        let connection = &self.reading.connection;
        for width in WIDTHS.iter().rev() {
            self.said(for_each_bucket(connection, *width, &mut each))?;
        }
        self.said(for_each_sample(connection, At(i64::MIN), |run, at, figures| {
            each(Kept {
                run,
                at,
                width: 0,
                samples: 1,
                least: figures,
                mean: figures,
                most: figures,
            });
        }))
    }

    fn said<T>(&self, outcome: rusqlite::Result<T>) -> Result<T, HistoryError> {
        outcome.map_err(|error| file::failed("read", &self.reading.path, &error))
    }
}

pub(super) fn services(connection: &Connection) -> rusqlite::Result<Vec<(ServiceId, Service)>> {
    let mut statement = connection.prepare("SELECT id, name, cgroup, instance FROM service ORDER BY id")?;
    collect(statement.query([])?, |row| {
        Ok((
            ServiceId(row.get(0)?),
            Service {
                name: text(row, 1)?,
                cgroup: text(row, 2)?,
                instance: row.get(3)?,
            },
        ))
    })
}

fn runs(connection: &Connection, which: &str) -> rusqlite::Result<Vec<Run>> {
    let sql = format!(
        "SELECT id, service, pid, start_ticks, boot, first_at, ended_at, ending, baseline_kib FROM run {which} ORDER BY id"
    );
    let mut statement = connection.prepare(&sql)?;
    collect(statement.query([])?, |row| {
        let baseline: Option<i64> = row.get(8)?;
        Ok(Run {
            id: RunId(row.get(0)?),
            service: ServiceId(row.get(1)?),
            process: ProcessKey {
                pid: row.get(2)?,
                start_time_ticks: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                boot: text(row, 4)?,
            },
            first_at: At(row.get(5)?),
            ended_at: row.get::<_, Option<i64>>(6)?.map(At),
            ending: row
                .get_ref(7)?
                .as_str_or_null()?
                .map(|ending| ending.chars().take(64).collect()),
            baseline: baseline
                .and_then(|kib| u64::try_from(kib).ok())
                .and_then(|kib| kib.checked_mul(1024)),
        })
    })
}

pub(super) fn recent_runs(connection: &Connection, since: At) -> rusqlite::Result<Vec<RecentRun>> {
    let services: HashMap<ServiceId, Service> = services(connection)?.into_iter().collect();
    let which = format!("WHERE ended_at IS NULL OR ended_at >= {}", since.0);
    Ok(runs(connection, &which)?
        .into_iter()
        .filter_map(|run| {
            Some(RecentRun {
                run: run.id,
                service: services.get(&run.service)?.clone(),
                process: run.process,
                first_at: run.first_at,
                open: run.ended_at.is_none(),
                baseline: run.baseline,
            })
        })
        .collect())
}

pub(super) fn for_each_sample(
    connection: &Connection,
    since: At,
    mut each: impl FnMut(RunId, At, Figures),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(schema::select_samples())?;
    let mut rows = statement.query([since.0])?;
    while let Some(row) = rows.next()? {
        let mut figures = Figures::default();
        for (index, metric) in METRICS.iter().enumerate() {
            let kept: Option<i64> = row.get(index + 2)?;
            (metric.set)(&mut figures, kept.and_then(|kept| metric.unit.of_column(kept)));
        }
        each(RunId(row.get(1)?), At(row.get(0)?), figures);
    }
    Ok(())
}

fn for_each_bucket(connection: &Connection, width: u64, each: &mut impl FnMut(Kept)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&schema::select_buckets())?;
    let mut rows = statement.query([i64::try_from(width).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let mut kept = Kept {
            at: At(row.get(0)?),
            run: RunId(row.get(1)?),
            width,
            samples: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            least: Figures::default(),
            mean: Figures::default(),
            most: Figures::default(),
        };
        for (index, metric) in METRICS.iter().enumerate() {
            let parts = [&mut kept.least, &mut kept.mean, &mut kept.most];
            for (offset, part) in parts.into_iter().enumerate() {
                let value: Option<i64> = row.get(3 + 3 * index + offset)?;
                (metric.set)(part, value.and_then(|value| metric.unit.of_column(value)));
            }
        }
        each(kept);
    }
    Ok(())
}

fn collect<T>(
    mut rows: Rows<'_>,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        if all.len() >= ROWS_MAX {
            return Err(rusqlite::Error::QueryReturnedMoreThanOneRow);
        }
        all.push(each(row)?);
    }
    Ok(all)
}

fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    let text = row.get_ref(index)?.as_str()?;
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(text.get(..end).unwrap_or_default().to_owned())
}
