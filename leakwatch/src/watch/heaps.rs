//! What the allocator of a process keeps although it is free. Memory that was freed and stays with the allocator is growth by
//! size, and no leak: so the heap is read at the beginning of what the trend looks back on, and once more when it is to be
//! told what growth is.

use std::time::{Duration, Instant};

use crate::census::cost::{self, Earlier};
use crate::census::reading::{self, Reading};
use crate::census::{Limits, NotTaken};
use crate::diagnose::verdict::HeapFacts;
use crate::history::At;
use crate::history::heap::HeapRow;
use crate::report::build;
use crate::sampler::subject::Subject;
use crate::sampler::{ProcRoot, maps, stat, totals};

/// A reading may take so many times as long as was predicted, and so long in any case, before it is given up.
const PATIENCE: u32 = 3;
const PATIENCE_LEAST: Duration = Duration::from_millis(100);
/// The round waits for a reading, so none may take a second, a hundredth of this.
const WITHIN_MOST: Duration = Duration::from_secs(100);

/// Seconds until a heap that could not be read is tried again.
const AGAIN: f64 = 600.0;

/// The heap of one process since a reading of it.
#[derive(Debug, Default)]
pub enum HeapSince {
    /// It was not read yet.
    #[default]
    Unread,
    Read(Box<First>),
    /// It could not be read, and is tried again at this time (seconds); never, where it is another allocator's.
    Unreadable {
        again: Option<f64>,
    },
}

/// A first reading.
#[derive(Debug)]
pub struct First {
    reading: Reading,
    /// Seconds of the clock that never jumps.
    at: f64,
    /// Anonymous and swapped memory then, bytes.
    anonymous: u64,
}

/// What a heap and its process grew by.
#[derive(Clone, Debug)]
pub struct HeapGrowth {
    pub heap: HeapFacts,
    /// Anonymous and swapped memory between the two readings, bytes.
    pub anonymous: i64,
    /// Between them.
    pub over: Duration,
}

impl HeapGrowth {
    /// As a history keeps it; `now` is the time of the second reading.
    #[must_use]
    pub fn row(&self, now: At) -> HeapRow {
        HeapRow {
            since: now.before(self.over),
            at: now,
            anonymous: self.anonymous,
            heap: self.heap.clone(),
        }
    }
}

impl HeapSince {
    /// Whether it is to be read (again): there is no reading, or one from before all that is looked back on, which began at
    /// `began` (seconds). `at`: now.
    #[must_use]
    pub fn is_due(&self, began: Option<f64>, at: f64) -> bool {
        match self {
            Self::Unread => true,
            Self::Read(first) => began.is_some_and(|began| first.at < began),
            Self::Unreadable { again } => again.is_some_and(|again| at >= again),
        }
    }

    /// Whether it was tried, and could not be read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }

    /// Reads it, where that is predicted to take at most a hundredth of `within`. `at` in seconds, `anonymous` in bytes.
    pub fn begin(
        &mut self,
        root: &ProcRoot,
        subject: &Subject,
        at: f64,
        anonymous: Option<u64>,
        within: Duration,
    ) {
        let Some(anonymous) = anonymous else { return };
        *self = match read(root, subject, within, None) {
            Ok(mut reading) => {
                // Its sums are what is compared: thousands of processes are kept.
                reading.names.clear();
                reading.census.classes.clear();
                reading.census.contents.clear();
                reading.census.mmapped_classes.clear();
                reading.census.free_pages.runs.clear();
                Self::Read(Box::new(First {
                    reading,
                    at,
                    anonymous,
                }))
            }
            Err(NotRead::Never) => Self::Unreadable { again: None },
            Err(NotRead::ForNow) => Self::Unreadable {
                again: Some(at + AGAIN),
            },
        };
    }

    /// Reads it once more, where that is affordable in the time since the first reading.
    #[must_use]
    pub fn growth(
        &self,
        root: &ProcRoot,
        subject: &Subject,
        at: f64,
        anonymous: Option<u64>,
    ) -> Option<HeapGrowth> {
        let Self::Read(first) = self else { return None };
        let within = Duration::try_from_secs_f64(at - first.at).ok()?;
        let walk = first.reading.census.took;
        let earlier = Earlier {
            bytes: heap_bytes(&first.reading),
            walk,
            rest: first.reading.took.saturating_sub(walk),
        };
        let end = read(root, subject, within, Some(earlier)).ok()?;
        let grown = build::heap::heap(Some(&first.reading), &end);
        Some(HeapGrowth {
            heap: HeapFacts {
                // The first reading's sizes were not kept.
                class: None,
                ..build::heap::facts(&grown)?
            },
            anonymous: anonymous?
                .cast_signed()
                .saturating_sub(first.anonymous.cast_signed()),
            over: within,
        })
    }
}

fn heap_bytes(reading: &Reading) -> u64 {
    reading.census.arenas.iter().map(|arena| arena.system_bytes).sum()
}

/// Whether it can ever be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotRead {
    ForNow,
    Never,
}

impl NotRead {
    fn of(why: &NotTaken) -> Self {
        match why {
            NotTaken::OtherAllocator(_) | NotTaken::UnsupportedVersion(_) | NotTaken::UnknownVersion => {
                Self::Never
            }
            // Of a heap that has just begun, is at work or was too slow to read.
            NotTaken::NoArena
            | NotTaken::NotContiguous(_)
            | NotTaken::Inconsistent { .. }
            | NotTaken::TimedOut(_)
            | NotTaken::Unreadable(_) => Self::ForNow,
        }
    }
}

fn read(
    root: &ProcRoot,
    subject: &Subject,
    within: Duration,
    earlier: Option<Earlier>,
) -> Result<Reading, NotRead> {
    let pid = subject.pid();
    let totals = totals::read_status(root, pid).map_err(|_| NotRead::ForNow)?;
    if cost::swapped_too_much(&totals).is_some() {
        return Err(NotRead::ForNow);
    }
    let mappings = maps::read(root, pid).map_err(|_| NotRead::ForNow)?.mappings;
    let predicted = cost::predicted(cost::heap_bytes(&mappings), earlier);
    if !cost::affordable(predicted, within.min(WITHIN_MOST)) {
        return Err(NotRead::ForNow);
    }
    let limits = Limits {
        time: predicted.saturating_mul(PATIENCE).max(PATIENCE_LEAST),
        ..Limits::default()
    };
    let reading = reading::read(root, pid, limits, &[]).map_err(|why| NotRead::of(&why))?;
    // What was read may be another process's of this number.
    let now = stat::read(root, pid).map_err(|_| NotRead::ForNow)?;
    if now.start_time_ticks == subject.start_time_ticks() {
        Ok(reading)
    } else {
        Err(NotRead::ForNow)
    }
}

/// Turns in which heaps are first read: in each round for a part of its interval, and one at least.
#[derive(Debug)]
pub struct Turn {
    began: Instant,
    budget: Duration,
    taken: u32,
}

impl Turn {
    #[must_use]
    pub fn of(budget: Duration) -> Self {
        Self {
            began: Instant::now(),
            budget,
            taken: 0,
        }
    }

    /// Whether another may be read.
    pub fn goes_on(&mut self) -> bool {
        let more = self.taken == 0 || self.began.elapsed() < self.budget;
        self.taken += u32::from(more);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_one_at_least_and_ends() {
        let mut turn = Turn::of(Duration::ZERO);
        assert!(turn.goes_on());
        assert!(!turn.goes_on());
        let mut turn = Turn::of(Duration::from_secs(3600));
        assert!((0..1000).all(|_| turn.goes_on()));
    }

    #[test]
    fn it_is_read_once_and_again_when_the_past_has_moved_on() {
        assert!(HeapSince::Unread.is_due(None, 5.0));
        let never = HeapSince::Unreadable { again: None };
        assert!(!never.is_due(Some(1.0), 1e9) && never.is_unreadable());
        let later = HeapSince::Unreadable { again: Some(600.0) };
        assert!(!later.is_due(None, 599.0) && later.is_due(None, 600.0));
        assert_eq!(NotRead::of(&NotTaken::UnknownVersion), NotRead::Never);
        assert_eq!(
            NotRead::of(&NotTaken::TimedOut(Duration::from_secs(1))),
            NotRead::ForNow
        );
    }
}
