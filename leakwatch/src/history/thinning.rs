//! What is kept for how long: fine for a day, coarse for months, never more than so many bytes.
//!
//! A bucket has the least, the mean and the greatest of each metric, so that the floors of a sawtooth are still to be seen
//! a year later. Each step thins one bucket's worth of the oldest, in a transaction of its own: a round is never kept
//! waiting for long.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, params};

use super::{At, schema};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Widths of buckets, seconds, the finer one first. They divide each other.
pub const WIDTHS: [u64; 2] = [5 * MINUTE, HOUR];

/// Steps in one call at most, where more is due, and the time after which none is begun.
const STEPS_MOST: usize = 4;
const TIME_MOST: Duration = Duration::from_millis(100);
/// So many steps apart runs are looked for that left no trace.
const SWEEP_EVERY: u64 = 500;

/// How long each is kept, and the bound of them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Every sample.
    pub fine: Duration,
    /// The finer buckets.
    pub medium: Duration,
    /// The coarser ones.
    pub coarse: Duration,
    /// Bytes in use, over which the oldest are thinned before their time.
    pub bytes_max: u64,
    /// The bound has been reached once.
    pub pressed: bool,
    steps: u64,
}

impl Retention {
    /// Samples for a day, five minutes for two weeks, hours for so long; in so many bytes.
    #[must_use]
    pub fn new(coarse: Duration, bytes_max: u64) -> Self {
        Self {
            fine: Duration::from_secs(DAY).min(coarse),
            medium: Duration::from_secs(14 * DAY).min(coarse),
            coarse,
            bytes_max,
            pressed: false,
            steps: 0,
        }
    }
}

impl Default for Retention {
    /// Thirteen months, 1 GiB.
    fn default() -> Self {
        Self::new(Duration::from_secs(400 * DAY), 1 << 30)
    }
}

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Samples become a bucket of the finer width, which begins at `start`.
    Samples { start: At },
    /// Buckets of the finer width become one of the coarser.
    Buckets { start: At },
    /// The oldest of the coarser buckets go.
    Drop { start: At },
}

/// The oldest of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    pub sample: Option<At>,
    pub medium: Option<At>,
    pub coarse: Option<At>,
}

/// Where the bucket of a time begins.
#[must_use]
pub fn bucket_of(at: At, width: u64) -> At {
    let width = i64::try_from(width.saturating_mul(1000))
        .unwrap_or(i64::MAX)
        .max(1);
    At(at.0.div_euclid(width).saturating_mul(width))
}

/// What is due: what is older than it may be, whole buckets of it. Where there is too much (`over`), what is oldest is due
/// as soon as its bucket is over, the fine first. Pure.
#[must_use]
pub fn due(oldest: Oldest, retention: &Retention, now: At, over: bool) -> Option<Step> {
    let [medium, coarse] = WIDTHS;
    let is_due = |at: Option<At>, width: u64, keep: Duration| {
        let start = bucket_of(at?, width);
        let end = start.after(Duration::from_secs(width));
        (end.after(keep) <= now).then_some(start)
    };
    let by_age = |keep_fine, keep_medium, keep_coarse| {
        is_due(oldest.coarse, coarse, keep_coarse)
            .map(|start| Step::Drop { start })
            .or_else(|| is_due(oldest.medium, coarse, keep_medium).map(|start| Step::Buckets { start }))
            .or_else(|| is_due(oldest.sample, medium, keep_fine).map(|start| Step::Samples { start }))
    };
    let step = by_age(retention.fine, retention.medium, retention.coarse);
    if step.is_some() || !over {
        return step;
    }
    // The trend needs the last hours in full; months are worth less than these.
    let hours = Duration::from_secs(6 * HOUR);
    let day = Duration::from_secs(DAY);
    is_due(oldest.sample, medium, hours)
        .map(|start| Step::Samples { start })
        .or_else(|| is_due(oldest.medium, coarse, day).map(|start| Step::Buckets { start }))
        .or_else(|| is_due(oldest.coarse, coarse, day).map(|start| Step::Drop { start }))
        .or_else(|| is_due(oldest.sample, medium, Duration::ZERO).map(|start| Step::Samples { start }))
        .or_else(|| is_due(oldest.medium, coarse, Duration::ZERO).map(|start| Step::Buckets { start }))
        .or_else(|| is_due(oldest.coarse, coarse, Duration::ZERO).map(|start| Step::Drop { start }))
}

/// Bytes of the file that are in use.
pub fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(u64::try_from(used.saturating_mul(pragma("page_size")?)).unwrap_or(0))
}

/// Does what is due, a bounded part of it.
pub(super) fn step(connection: &mut Connection, retention: &mut Retention, now: At) -> rusqlite::Result<()> {
    let started = Instant::now();
    for _ in 0..STEPS_MOST {
        if started.elapsed() > TIME_MOST {
            break;
        }
        let over = size(connection)? > retention.bytes_max;
        retention.pressed |= over;
        let Some(step) = due(oldest(connection)?, retention, now, over) else {
            return Ok(());
        };
        apply(connection, step)?;
        retention.steps += 1;
        if retention.steps.is_multiple_of(SWEEP_EVERY) || over {
            sweep(connection)?;
        }
    }
    Ok(())
}

fn oldest(connection: &Connection) -> rusqlite::Result<Oldest> {
    let [medium, coarse] = WIDTHS;
    // By the key's order: a look at one page each.
    let of = |width: u64| {
        connection
            .query_row(
                "SELECT at FROM bucket WHERE width = ? ORDER BY at LIMIT 1",
                [i64::try_from(width).unwrap_or(i64::MAX)],
                |row| row.get::<_, i64>(0).map(At),
            )
            .optional()
    };
    let sample = connection
        .query_row("SELECT at FROM sample ORDER BY at LIMIT 1", [], |row| {
            row.get::<_, i64>(0).map(At)
        })
        .optional()?;
    Ok(Oldest {
        sample,
        medium: of(medium)?,
        coarse: of(coarse)?,
    })
}

fn apply(connection: &mut Connection, step: Step) -> rusqlite::Result<()> {
    let [medium, coarse] = WIDTHS.map(|width| i64::try_from(width).unwrap_or(i64::MAX));
    let end = |start: At, width: i64| start.0.saturating_add(width.saturating_mul(1000));
    let transaction = connection.transaction()?;
    match step {
        Step::Samples { start } => {
            let to = end(start, medium);
            transaction.execute(&schema::thin_samples(), params![medium, start.0, start.0, to])?;
            transaction.execute(
                "DELETE FROM sample WHERE at >= ? AND at < ?",
                params![start.0, to],
            )?;
        }
        Step::Buckets { start } => {
            let to = end(start, coarse);
            transaction.execute(
                &schema::thin_buckets(),
                params![coarse, start.0, start.0, to, medium],
            )?;
            transaction.execute(
                "DELETE FROM bucket WHERE width = ? AND at >= ? AND at < ?",
                params![medium, start.0, to],
            )?;
        }
        Step::Drop { start } => {
            transaction.execute(
                "DELETE FROM bucket WHERE width = ? AND at >= ? AND at < ?",
                params![coarse, start.0, end(start, coarse)],
            )?;
        }
    }
    transaction.commit()
}

/// Runs that ended before the oldest of what is kept go too, and alerts of that time. Services stay: their numbers are known
/// to who writes.
fn sweep(connection: &mut Connection) -> rusqlite::Result<()> {
    let kept = oldest(connection)?;
    let Some(from) = [kept.sample, kept.medium, kept.coarse]
        .into_iter()
        .flatten()
        .min()
    else {
        return Ok(());
    };
    let transaction = connection.transaction()?;
    transaction.execute(
        "DELETE FROM heap WHERE run IN (SELECT id FROM run WHERE ended_at < ?)",
        [from.0],
    )?;
    transaction.execute("DELETE FROM run WHERE ended_at < ?", [from.0])?;
    transaction.execute("DELETE FROM alert WHERE at < ?", [from.0])?;
    transaction.commit()
}
