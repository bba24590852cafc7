//! What a watch read of the heap of a run, last. It is one row for each run, so that the verdict on a history knows what was
//! held and what was free and only kept.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{At, RunId};
use crate::diagnose::verdict::HeapFacts;

/// The table is made where it is missing: histories of before it have none.
pub const CREATE: &str = "CREATE TABLE IF NOT EXISTS heap(run INTEGER PRIMARY KEY, since INTEGER NOT NULL, \
    at INTEGER NOT NULL, anonymous INTEGER NOT NULL, in_use INTEGER NOT NULL, in_use_count INTEGER NOT NULL, \
    mapped INTEGER NOT NULL, mapped_count INTEGER NOT NULL, kept INTEGER, free_at_end INTEGER NOT NULL, \
    free_in_thread_arenas INTEGER NOT NULL, trim_at_end INTEGER, thread_arenas INTEGER NOT NULL) STRICT";

/// What a heap and its process grew by between two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapRow {
    pub since: At,
    pub at: At,
    /// Anonymous memory of the process, resident or swapped, bytes.
    pub anonymous: i64,
    /// Which size of blocks grew most is not kept.
    pub heap: HeapFacts,
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
    let heap = &row.heap;
    to.execute(
        "INSERT OR REPLACE INTO heap VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            run.0,
            row.since.0,
            row.at.0,
            row.anonymous,
            heap.in_use,
            heap.in_use_count,
            heap.mapped,
            heap.mapped_count,
            heap.kept,
            column(heap.free_at_end),
            column(heap.free_in_thread_arenas),
            heap.trim_at_end.map(column),
            column(heap.thread_arenas),
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
                heap: HeapFacts {
                    in_use: row.get(3)?,
                    in_use_count: row.get(4)?,
                    mapped: row.get(5)?,
                    mapped_count: row.get(6)?,
                    kept: row.get(7)?,
                    free_at_end: size(row.get(8)?),
                    free_in_thread_arenas: size(row.get(9)?),
                    trim_at_end: row.get::<_, Option<i64>>(10)?.map(size),
                    thread_arenas: size(row.get(11)?),
                    class: None,
                },
            })
        },
    )
    .optional()
}
