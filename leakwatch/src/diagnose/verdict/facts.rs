//! What the verdict is made from: everything that was measured of a window, each layer there or not. Pure.

use std::collections::BTreeMap;

use super::room::Room;
use crate::diagnose::correlate::Correlation;
use crate::diagnose::holm;
use crate::diagnose::rank::RankedSite;
use crate::diagnose::trend::Trend;
use crate::sampler::growth::Delta;
use crate::sampler::kind::Kind as MappingKind;
use crate::target::allocator::Allocator;

/// What is known when the window has ended. Bytes and seconds; growth is end minus start. What was not measured is
/// `None` or empty: a watch over `/proc` alone has `window`, `series`, `trend`, `goes`, `counts`, `room` and `age`.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// How long it was watched.
    pub window: f64,
    /// How long the process has lived at the window's end.
    pub age: Option<f64>,
    /// Of Anonymous + Swap, as read at both ends. `None`: by the series.
    pub growth: Option<i64>,
    /// Anonymous + Swap over the window, by seconds from its start.
    pub series: &'a [(f64, u64)],
    pub trend: Option<&'a Trend>,
    /// Each count that memory may go with, where both change: see [`Goes::all`].
    pub goes: &'a [Goes],
    pub counts: Counts,
    /// `None` where the heap was not read at both ends.
    pub heap: Option<HeapFacts>,
    /// Who keeps the heap, where that was looked up.
    pub allocator: Option<&'a Allocator>,
    /// `None` where births were not watched to the end.
    pub births: Option<BirthFacts>,
    /// The call sites, ranked.
    pub sites: &'a [RankedSite],
    /// Growth by what mappings are for; `None` where smaps was not read at both ends.
    pub kinds: Option<&'a BTreeMap<MappingKind, Delta>>,
    pub losses: LossFacts,
    /// What is left of the limit that the process meets first.
    pub room: Option<Room>,
}

/// Of the census at both ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeapFacts {
    /// Chunks of arenas in use.
    pub in_use: i64,
    pub in_use_count: i64,
    /// Chunks with a mapping of their own.
    pub mapped: i64,
    pub mapped_count: i64,
    /// Resident, but not in use. `None` where residence is not known.
    pub kept: Option<i64>,
    /// Free at the end, and of that what lies in thread arenas.
    pub free_at_end: u64,
    pub free_in_thread_arenas: u64,
    /// What `malloc_trim(0)` would give back at the end.
    pub trim_at_end: Option<u64>,
    /// Arenas of threads at the end.
    pub thread_arenas: u64,
    /// The class that grew most.
    pub class: Option<ClassGrowth>,
}

impl HeapFacts {
    /// Adds those of another process.
    pub fn add(&mut self, other: &Self) {
        self.in_use = self.in_use.saturating_add(other.in_use);
        self.in_use_count = self.in_use_count.saturating_add(other.in_use_count);
        self.mapped = self.mapped.saturating_add(other.mapped);
        self.mapped_count = self.mapped_count.saturating_add(other.mapped_count);
        self.kept = both(self.kept, other.kept, i64::saturating_add);
        self.free_at_end = self.free_at_end.saturating_add(other.free_at_end);
        self.free_in_thread_arenas = self
            .free_in_thread_arenas
            .saturating_add(other.free_in_thread_arenas);
        self.trim_at_end = both(self.trim_at_end, other.trim_at_end, u64::saturating_add);
        self.thread_arenas = self.thread_arenas.saturating_add(other.thread_arenas);
        let bytes = |class: &Option<ClassGrowth>| class.as_ref().map_or(0, |class| class.bytes);
        if bytes(&other.class) > bytes(&self.class) {
            self.class.clone_from(&other.class);
        }
    }
}

/// The sum, where either is known.
fn both<T: Copy>(one: Option<T>, next: Option<T>, sum: fn(T, T) -> T) -> Option<T> {
    match (one, next) {
        (Some(one), Some(next)) => Some(sum(one, next)),
        (known, None) | (None, known) => known,
    }
}

/// Blocks of one size and, where it is known, one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassGrowth {
    /// The largest request that it serves.
    pub request: u64,
    /// Made printable.
    pub type_name: Option<String>,
    pub count: i64,
    pub bytes: i64,
}

/// What watching births came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BirthFacts {
    /// They tell whose the heap's growth is: [`crate::diagnose::survivors::Estimate::tells`].
    pub tell: bool,
    /// Bytes that survivors give to call sites.
    pub named: u64,
    /// Births that were followed, and those of them that survived.
    pub followed: u64,
    pub survived: u64,
}

/// What memory may go with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum With {
    Connections,
    Descriptors,
    Threads,
}

impl With {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "fds",
            Self::Threads => "threads",
        }
    }

    /// In a sentence.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "open descriptors",
            Self::Threads => "threads",
        }
    }
}

/// One count that memory was compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goes {
    pub with: With,
    pub correlation: Correlation,
    /// The chance of as great a correlation among all that were tried, where there is none.
    pub chance: f64,
}

/// With a greater chance to be none it is not told. Of all counts together, so one recording in twenty may tell of one.
pub const CHANCE_MOST: f64 = 0.05;

impl Goes {
    /// What was found, with the chances corrected for how many were tried.
    #[must_use]
    pub fn all(found: &[(With, Correlation)]) -> Vec<Self> {
        let chances: Vec<f64> = found.iter().map(|(_, found)| found.p_value).collect();
        found
            .iter()
            .zip(holm::corrected(&chances))
            .map(|(&(with, correlation), chance)| Self {
                with,
                correlation,
                chance,
            })
            .collect()
    }

    /// Whether it is told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.chance <= CHANCE_MOST
    }
}

/// Counts at the window's start and end, where they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: Option<(u64, u64)>,
    pub descriptors: Option<(u64, u64)>,
    pub threads: Option<(u64, u64)>,
}

impl Counts {
    pub(super) const fn of(&self, with: With) -> Option<(u64, u64)> {
        match with {
            With::Connections => self.connections,
            With::Descriptors => self.descriptors,
            With::Threads => self.threads,
        }
    }
}

/// What was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossFacts {
    /// Samples of `/proc` that have no size of anonymous memory, and those that have.
    pub samples_missed: u64,
    pub samples: u64,
    /// Events that did not arrive, and those that did.
    pub events_lost: u64,
    pub events: u64,
    /// Memory that the lost page faults stand for.
    pub fault_bytes: u64,
}

impl LossFacts {
    /// The part of the events that was lost, 0 to 1.
    pub(super) fn events_share(&self) -> f64 {
        let all = self.events.saturating_add(self.events_lost);
        if all == 0 {
            0.0
        } else {
            self.events_lost as f64 / all as f64
        }
    }
}
