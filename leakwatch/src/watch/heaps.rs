//! What the allocator of a process keeps although it is free. Memory that was freed and stays with the allocator is growth by
//! size, and no leak: so the heap is read at the beginning of what the trend looks back on, and once more when it is to be
//! told what growth is.

use std::time::{Duration, Instant};

use crate::census::Limits;
use crate::census::cost::{self, Earlier};
use crate::census::reading::{self, Reading};
use crate::diagnose::verdict::HeapFacts;
use crate::report::build;
use crate::sampler::subject::Subject;
use crate::sampler::{ProcRoot, maps, stat, totals};

/// A reading may take so many times as long as was predicted, and so long in any case, before it is given up.
const PATIENCE: u32 = 3;
const PATIENCE_LEAST: Duration = Duration::from_millis(100);
/// The round waits for a reading, so none may take a second, a hundredth of this.
const WITHIN_MOST: Duration = Duration::from_secs(100);

/// The heap of one process since a reading of it.
#[derive(Debug, Default)]
pub enum HeapSince {
    /// It was not read yet.
    #[default]
    Unread,
    Read(Box<First>),
    /// It is another allocator's, or cannot be read: it is not tried again.
    Unreadable,
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
}

impl HeapSince {
    /// Whether it is to be read (again): there is no reading, or one from before all that is looked back on, which began at
    /// `began` (seconds).
    #[must_use]
    pub fn is_due(&self, began: Option<f64>) -> bool {
        match self {
            Self::Unread => true,
            Self::Read(first) => began.is_some_and(|began| first.at < began),
            Self::Unreadable => false,
        }
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
            // A heap that is too large for now may be affordable later, but the growth until then is past.
            Err(_) => Self::Unreadable,
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
        })
    }
}

fn heap_bytes(reading: &Reading) -> u64 {
    reading.census.arenas.iter().map(|arena| arena.system_bytes).sum()
}

/// Why it was not read.
#[derive(Debug)]
struct NotRead;

fn read(
    root: &ProcRoot,
    subject: &Subject,
    within: Duration,
    earlier: Option<Earlier>,
) -> Result<Reading, NotRead> {
    let pid = subject.pid();
    let totals = totals::read_status(root, pid).map_err(|_| NotRead)?;
    if cost::swapped_too_much(&totals).is_some() {
        return Err(NotRead);
    }
    let mappings = maps::read(root, pid).map_err(|_| NotRead)?.mappings;
    let predicted = cost::predicted(cost::heap_bytes(&mappings), earlier);
    if !cost::affordable(predicted, within.min(WITHIN_MOST)) {
        return Err(NotRead);
    }
    let limits = Limits {
        time: predicted.saturating_mul(PATIENCE).max(PATIENCE_LEAST),
        ..Limits::default()
    };
    let reading = reading::read(root, pid, limits, &[]).map_err(|_| NotRead)?;
    // What was read may be another process's of this number.
    let now = stat::read(root, pid).map_err(|_| NotRead)?;
    if now.start_time_ticks == subject.start_time_ticks() {
        Ok(reading)
    } else {
        Err(NotRead)
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
        assert!(HeapSince::Unread.is_due(None));
        assert!(!HeapSince::Unreadable.is_due(Some(1.0)));
    }
}
