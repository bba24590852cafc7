//! The tables, and the statements on them, made from the one table of metrics.
//!
//! Samples are kept in the order of time, of all processes together, and not by process: so a round appends to the end of
//! one tree (by process it would write a page for each), and what is thinned out is whole pages from its beginning. The
//! price is that the samples of one process are read by passing over those of the others.

use std::fmt::Write as _;

use super::figures::METRICS;
use super::heap;

/// Stands in the file's head (`PRAGMA application_id`): "LkWh".
pub const APPLICATION_ID: u32 = 0x4c6b_5768;

/// Of the tables below (`PRAGMA user_version`). A file of a greater one is not touched.
pub const VERSION: u32 = 1;

/// Makes an empty history.
#[must_use]
pub fn create() -> String {
    let mut columns = String::new();
    let mut thinned = String::new();
    for metric in &METRICS {
        let column = metric.column;
        let _ = write!(columns, "{column} INTEGER, ");
        let _ = write!(
            thinned,
            "{column}_least INTEGER, {column}_mean INTEGER, {column}_most INTEGER, "
        );
    }
    format!(
        "CREATE TABLE service(id INTEGER PRIMARY KEY, name TEXT NOT NULL, cgroup TEXT NOT NULL, \
            instance INTEGER NOT NULL, UNIQUE(name, cgroup, instance)) STRICT;
         CREATE TABLE run(id INTEGER PRIMARY KEY, service INTEGER NOT NULL, pid INTEGER NOT NULL, \
            start_ticks INTEGER NOT NULL, boot TEXT NOT NULL, first_at INTEGER NOT NULL, ended_at INTEGER, \
            ending TEXT, baseline_kib INTEGER) STRICT;
         CREATE TABLE sample(at INTEGER NOT NULL, run INTEGER NOT NULL, {columns}PRIMARY KEY(at, run)) \
            STRICT, WITHOUT ROWID;
         CREATE TABLE bucket(width INTEGER NOT NULL, at INTEGER NOT NULL, run INTEGER NOT NULL, \
            samples INTEGER NOT NULL, {thinned}PRIMARY KEY(width, at, run)) STRICT, WITHOUT ROWID;
         CREATE TABLE alert(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, run INTEGER NOT NULL, \
            event TEXT NOT NULL, threshold TEXT NOT NULL, line TEXT NOT NULL) STRICT;
         {};
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};",
        heap::CREATE,
    )
}

/// A sample: `at`, `run`, then each metric. Two of one moment (the clock was set back) are one.
#[must_use]
pub fn insert_sample() -> String {
    let marks = vec!["?"; METRICS.len() + 2].join(", ");
    format!("INSERT OR REPLACE INTO sample VALUES ({marks})")
}

/// All samples from `?1` on, in order, with the columns of [`insert_sample`].
#[must_use]
pub fn select_samples() -> &'static str {
    "SELECT * FROM sample WHERE at >= ?1 ORDER BY at, run"
}

/// Every bucket of width `?1` (seconds): at, run, samples, then least, mean and greatest of each metric.
#[must_use]
pub fn select_buckets() -> String {
    let mut columns = String::from("at, run, samples");
    for metric in &METRICS {
        let column = metric.column;
        let _ = write!(columns, ", {column}_least, {column}_mean, {column}_most");
    }
    format!("SELECT {columns} FROM bucket WHERE width = ?1 ORDER BY at, run")
}

/// Makes a bucket per run, of width `?1` and beginning at `?2`, of the samples from `?3` to before `?4`.
#[must_use]
pub fn thin_samples() -> String {
    let mut columns = String::new();
    for metric in &METRICS {
        let column = metric.column;
        let _ = write!(
            columns,
            ", min({column}), CAST(round(avg({column})) AS INTEGER), max({column})"
        );
    }
    format!(
        "INSERT INTO bucket SELECT ?1, ?2, run, count(*){columns} FROM sample \
         WHERE at >= ?3 AND at < ?4 GROUP BY run {}",
        merge()
    )
}

/// The same of the buckets of width `?5`.
#[must_use]
pub fn thin_buckets() -> String {
    let mut columns = String::new();
    for metric in &METRICS {
        let column = metric.column;
        let _ = write!(
            columns,
            ", min({column}_least), CAST(round(CAST(sum({column}_mean * samples) AS REAL) / \
             sum(iif({column}_mean IS NULL, 0, samples))) AS INTEGER), max({column}_most)"
        );
    }
    format!(
        "INSERT INTO bucket SELECT ?1, ?2, run, sum(samples){columns} FROM bucket \
         WHERE width = ?5 AND at >= ?3 AND at < ?4 GROUP BY run {}",
        merge()
    )
}

/// Where there is one already (the clock was set back since), the two become one.
fn merge() -> String {
    let mut changes = String::from("samples = samples + excluded.samples");
    for metric in &METRICS {
        let column = metric.column;
        let _ = write!(
            changes,
            ", {column}_least = coalesce(min({column}_least, excluded.{column}_least), {column}_least, excluded.{column}_least), \
             {column}_mean = coalesce(({column}_mean * samples + excluded.{column}_mean * excluded.samples) / \
             (samples + excluded.samples), {column}_mean, excluded.{column}_mean), \
             {column}_most = coalesce(max({column}_most, excluded.{column}_most), {column}_most, excluded.{column}_most)"
        );
    }
    format!("ON CONFLICT(width, at, run) DO UPDATE SET {changes}")
}
