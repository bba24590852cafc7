//! The writer: a round of samples, whole or not at all.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, params, params_from_iter};

use super::figures::{Figures, METRICS};
use super::file::{self, HistoryError, Writing};
use super::heap::{self, HeapRow};
use super::read;
use super::service::Service;
use super::thinning::{self, Retention};
use super::{At, RunId, ServiceId, schema};

/// Notes that wait for a disk that is full; more are dropped, and counted.
const NOTES_MAX: usize = 100_000;

/// What happened beside the samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    Service(ServiceId, Service),
    Run {
        run: RunId,
        service: ServiceId,
        process: ProcessKey,
        first_at: At,
    },
    Ended {
        run: RunId,
        at: At,
        /// In a word.
        ending: &'static str,
    },
    Baseline {
        run: RunId,
        /// Bytes.
        baseline: u64,
    },
    Alert {
        run: RunId,
        at: At,
        event: &'static str,
        threshold: &'static str,
        line: String,
    },
    /// What its heap was read to be, in the place of what was before.
    Heap(RunId, HeapRow),
}

/// Who a process is, over restarts of leakwatch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    pub pid: u32,
    pub start_time_ticks: u64,
    /// The kernel's name of the boot; empty where it has none.
    pub boot: String,
}

/// One sample to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub run: RunId,
    pub at: At,
    pub figures: Figures,
}

/// A run that was going on lately, by a leakwatch that was before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentRun {
    pub run: RunId,
    pub service: Service,
    pub process: ProcessKey,
    pub first_at: At,
    /// The file has no end of it.
    pub open: bool,
    /// Bytes.
    pub baseline: Option<u64>,
}

/// What was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    pub samples: u64,
    /// Runs, alerts and the like.
    pub notes: u64,
}

/// The history that is being written.
#[derive(Debug)]
pub struct Store {
    writing: Writing,
    retention: Retention,
    services: HashMap<Service, ServiceId>,
    next_service: i64,
    next_run: i64,
    notes: Vec<Note>,
    losses: Losses,
    /// The last attempt failed so.
    failing: Option<String>,
    insert: String,
    /// Samples kept by this.
    kept: u64,
}

impl Store {
    /// Opens the file, or makes it.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, HistoryError> {
        let writing = file::open_to_write(path)?;
        let services = read::services(&writing.connection)
            .map_err(|error| file::failed("read", &writing.path, &error))?;
        let greatest = |table: &str| -> rusqlite::Result<i64> {
            let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
            writing.connection.query_row(&sql, [], |row| row.get(0))
        };
        let next = |table| {
            greatest(table)
                .map(|id| id.saturating_add(1))
                .map_err(|error| file::failed("read", &writing.path, &error))
        };
        let (next_service, next_run) = (next("service")?, next("run")?);
        Ok(Self {
            services: services.into_iter().map(|(id, service)| (service, id)).collect(),
            next_service,
            next_run,
            notes: Vec::new(),
            losses: Losses::default(),
            failing: None,
            insert: schema::insert_sample(),
            kept: 0,
            writing,
            retention,
        })
    }

    /// The runs that have no end in the file, or one since a time.
    pub fn runs_since(&self, at: At) -> Result<Vec<RecentRun>, HistoryError> {
        read::recent_runs(&self.writing.connection, at)
            .map_err(|error| file::failed("read", &self.writing.path, &error))
    }

    /// The time of the last sample.
    pub fn last_at(&self) -> Result<Option<At>, HistoryError> {
        self.writing
            .connection
            .query_row("SELECT max(at) FROM sample", [], |row| {
                row.get::<_, Option<i64>>(0)
            })
            .map(|at| at.map(At))
            .map_err(|error| file::failed("read", &self.writing.path, &error))
    }

    /// Hands out the samples from a time on, in their order.
    pub fn samples_since(&self, at: At, each: impl FnMut(RunId, At, Figures)) -> Result<(), HistoryError> {
        read::for_each_sample(&self.writing.connection, at, each)
            .map_err(|error| file::failed("read", &self.writing.path, &error))
    }

    /// A process that is a new run of its service.
    pub fn begin(&mut self, service: &Service, process: ProcessKey, first_at: At) -> RunId {
        let id = match self.services.get(service) {
            Some(id) => *id,
            None => {
                let id = ServiceId(self.next_service);
                self.next_service = self.next_service.saturating_add(1);
                self.services.insert(service.clone(), id);
                self.note(Note::Service(id, service.clone()));
                id
            }
        };
        let run = RunId(self.next_run);
        self.next_run = self.next_run.saturating_add(1);
        self.note(Note::Run {
            run,
            service: id,
            process,
            first_at,
        });
        run
    }

    /// Is written with the next round.
    pub fn note(&mut self, note: Note) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        } else {
            self.losses.notes += 1;
        }
    }

    /// Writes the notes and a round of samples in one transaction. What comes back is a line to be told: that it could not be
    /// written, the first time, or that it can again.
    ///
    /// When it fails the notes are kept for the next time and the samples are counted as lost.
    pub fn write(&mut self, rows: &[Row]) -> Option<String> {
        match self.try_write(rows) {
            Ok(()) => {
                self.notes.clear();
                self.kept = self.kept.saturating_add(rows.len() as u64);
                let before = self.failing.take()?;
                Some(format!(
                    "the history {} is written again; {} samples are not in it ({before})",
                    file::shown(&self.writing.path),
                    self.losses.samples
                ))
            }
            Err(error) => {
                self.losses.samples = self.losses.samples.saturating_add(rows.len() as u64);
                let reason = file::reason(&error);
                let first = self.failing.is_none();
                let line = first.then(|| {
                    format!(
                        "the history {} cannot be written: {reason}; watching goes on without it, and each round tries again",
                        file::shown(&self.writing.path)
                    )
                });
                self.failing.get_or_insert(reason);
                line
            }
        }
    }

    fn try_write(&mut self, rows: &[Row]) -> rusqlite::Result<()> {
        let transaction = self.writing.connection.transaction()?;
        for note in &self.notes {
            write_note(&transaction, note)?;
        }
        {
            let mut insert = transaction.prepare(&self.insert)?;
            for row in rows {
                let figures = METRICS
                    .iter()
                    .map(|metric| (metric.get)(&row.figures).map(|value| metric.unit.to_column(value)));
                let keys = [Some(row.at.0), Some(row.run.0)];
                insert.execute(params_from_iter(keys.into_iter().chain(figures)))?;
            }
        }
        transaction.commit()
    }

    /// Thins out a little of what is older than it may be, and what is too much. To be called each round: it is some
    /// milliseconds at most, and catches up when it was not called for long.
    ///
    /// A line to be told comes back the first time that samples are given up before their time.
    pub fn thin(&mut self, now: At) -> Option<String> {
        if self.failing.is_some() {
            return None;
        }
        let pressed = self.retention.pressed;
        match thinning::step(&mut self.writing.connection, &mut self.retention, now) {
            Ok(()) => (self.retention.pressed && !pressed).then(|| {
                format!(
                    "the history {} has reached its size: what is oldest is thinned out before its time",
                    file::shown(&self.writing.path)
                )
            }),
            // A full disk shows in the next round, and is told then.
            Err(_) => None,
        }
    }

    /// Samples and notes that are not in the file.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// Whether the last round could not be written.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Samples written.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Bytes of the file that are in use.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        thinning::size(&self.writing.connection).ok()
    }
}

fn write_note(to: &Connection, note: &Note) -> rusqlite::Result<()> {
    match note {
        Note::Service(id, service) => to.execute(
            "INSERT OR IGNORE INTO service VALUES (?, ?, ?, ?)",
            params![id.0, service.name, service.cgroup, service.instance],
        ),
        Note::Run {
            run,
            service,
            process,
            first_at,
        } => to.execute(
            "INSERT OR IGNORE INTO run VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
            params![
                run.0,
                service.0,
                process.pid,
                i64::try_from(process.start_time_ticks).unwrap_or(i64::MAX),
                process.boot,
                first_at.0
            ],
        ),
        Note::Ended { run, at, ending } => to.execute(
            "UPDATE run SET ended_at = ?, ending = ? WHERE id = ?",
            params![at.0, ending, run.0],
        ),
        Note::Baseline { run, baseline } => to.execute(
            "UPDATE run SET baseline_kib = ? WHERE id = ?",
            params![i64::try_from(baseline >> 10).unwrap_or(i64::MAX), run.0],
        ),
        Note::Alert {
            run,
            at,
            event,
            threshold,
            line,
        } => to.execute(
            "INSERT INTO alert(at, run, event, threshold, line) VALUES (?, ?, ?, ?, ?)",
            params![at.0, run.0, event, threshold, line],
        ),
        Note::Heap(run, row) => heap::write(to, *run, row),
    }
    .map(drop)
}
