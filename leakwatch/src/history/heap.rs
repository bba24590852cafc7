//! What a watch read of the heap of a run, last. It is one row for each run, so that the verdict on a history knows what was
//! held and what was free and only kept.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{At, RunId};

/// The table is made where it is missing: histories of before it have none.
pub const CREATE: &str = "CREATE TABLE IF NOT EXISTS heap(run INTEGER PRIMARY KEY, since INTEGER NOT NULL, \
    at INTEGER NOT NULL, anonymous INTEGER NOT NULL, in_use INTEGER NOT NULL, in_use_count INTEGER NOT NULL, \
    mapped INTEGER NOT NULL, mapped_count INTEGER NOT NULL, kept INTEGER, free_at_end INTEGER NOT NULL, \
    free_in_thread_arenas INTEGER NOT NULL, trim_at_end INTEGER, thread_arenas INTEGER NOT NULL) STRICT";

/// What a heap and its process grew by between two readings, bytes and numbers of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapRow {
    pub since: At,
    pub at: At,
    /// Anonymous memory of the process, resident or swapped.
    pub anonymous: i64,
    /// Chunks of arenas in use.
    pub in_use: i64,
    pub in_use_count: i64,
    /// Chunks with a mapping of their own.
    pub mapped: i64,
    pub mapped_count: i64,
    /// Resident, but not in use. `None` where residence is not known.
    pub kept: Option<i64>,
    /// At the end.
    pub free_at_end: u64,
    pub free_in_thread_arenas: u64,
    /// What `malloc_trim(0)` would give back.
    pub trim_at_end: Option<u64>,
    pub thread_arenas: u64,
}

fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Of a damaged file a size may be below zero.
fn size(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Takes the place of what was kept of the run before.
pub(super) fn write(to: &Connection, run: RunId, row: &HeapRow) -> rusqlite::Result<usize> {
    to.execute(
        "INSERT OR REPLACE INTO heap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            run.0,
            row.since.0,
            row.at.0,
            row.anonymous,
            row.in_use,
            row.in_use_count,
            row.mapped,
            row.mapped_count,
            row.kept,
            column(row.free_at_end),
            column(row.free_in_thread_arenas),
            row.trim_at_end.map(column),
            column(row.thread_arenas),
        ],
    )
}

/// What is kept of a run; `None` where there is nothing, or the history is older than the table.
pub(super) fn read(from: &Connection, run: RunId) -> rusqlite::Result<Option<HeapRow>> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'heap'";
    if from.query_row(table, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    from.query_row(
        "SELECT since, at, anonymous, in_use, in_use_count, mapped, mapped_count, kept, free_at_end, \
         free_in_thread_arenas, trim_at_end, thread_arenas FROM heap WHERE run = ?",
        [run.0],
        |row| {
            Ok(HeapRow {
                since: At(row.get(0)?),
                at: At(row.get(1)?),
                anonymous: row.get(2)?,
                in_use: row.get(3)?,
                in_use_count: row.get(4)?,
                mapped: row.get(5)?,
                mapped_count: row.get(6)?,
                kept: row.get(7)?,
                free_at_end: size(row.get(8)?),
                free_in_thread_arenas: size(row.get(9)?),
                trim_at_end: row.get::<_, Option<i64>>(10)?.map(size),
                thread_arenas: size(row.get(11)?),
            })
        },
    )
    .optional()
}
