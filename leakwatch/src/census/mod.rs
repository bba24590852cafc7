//! The heap census: what of a heap is in use, and what the allocator keeps although it is free.
//!
//! Neither pages nor mappings can tell a leak from freed memory that is kept. The allocator's own metadata can, and it
//! is read here from outside: no probe, no pause, no ptrace. The price is that the heap changes while it is read. So
//! nothing that is read is trusted, a piece that contradicts itself is read again, and where that does not help
//! the census is [`NotTaken`] for a reason that it names. It never guesses.
//!
//! Only glibc's heap is read ([`glibc`]). Of the target's data nothing but headers and links is looked at, and nothing
//! is kept but sizes and counts.

pub mod content;
pub mod glibc;
pub mod memory;
pub mod types;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::sampler::maps::Mapping;
use crate::target::allocator::Allocator;
use memory::Memory;

/// What a census may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The census is given up after this long. One read of up to 1 MiB can end later.
    pub time: Duration,
    /// How often one place is read again without getting beyond it.
    pub tries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            tries: 24,
        }
    }
}

/// Chunks and their bytes, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub count: u64,
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Down to nothing at least: the two sides of a difference are read at different moments.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.count = self.count.saturating_sub(other.count);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Free chunks, by where the allocator keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Coalesced chunks, found again by any `malloc` that fits.
    pub bins: Amount,
    /// What is left at the ends of the heaps; the count is that of arenas which have such a rest.
    pub top: Amount,
    /// Kept by a thread for its own next `malloc` of this size. To its neighbours such a chunk is in use.
    pub tcache: Amount,
    /// Small chunks of an arena that were not coalesced. To its neighbours such a chunk is in use.
    pub fastbins: Amount,
}

impl Free {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [self.bins, self.top, self.tcache, self.fastbins]
            .iter()
            .fold(0, |sum, kind| sum.saturating_add(kind.bytes))
    }

    fn add(&mut self, other: &Self) {
        self.bins.add(other.bins);
        self.top.add(other.top);
        self.tcache.add(other.tcache);
        self.fastbins.add(other.fastbins);
    }
}

/// Chunks of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    pub in_use: Amount,
    /// In bins, tcache or fastbins. A top is in no class.
    pub free: Amount,
}

/// One arena: the main heap, or the heaps that some threads share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Of its `malloc_state`.
    pub address: u64,
    pub main: bool,
    /// How many pieces it is made of.
    pub heaps: u64,
    /// Bytes of the pieces: the sum of what is in use, free and overhead.
    pub system_bytes: u64,
    pub in_use: Amount,
    pub free: Free,
    /// The allocator's own headers of heaps and their end marks, bytes.
    pub overhead_bytes: u64,
}

/// A heap at about one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Chunks of the arenas in use, bytes with their headers. Mmapped ones are apart.
    pub in_use_bytes: u64,
    pub in_use_chunks: u64,
    pub free: Free,
    pub arenas: Vec<Arena>,
    /// By size of the chunk, bytes: the request and its header, rounded up to 16. Without mmapped chunks.
    pub classes: BTreeMap<u64, Class>,
    /// Chunks with a mapping of their own, all in use.
    pub mmapped: Amount,
    /// The largest chunk in a bin, bytes.
    pub largest_free_bytes: u64,
    pub took: Duration,
    /// Pieces that contradicted themselves and were read again.
    pub torn_retries: u64,
    /// Free lists whose end could not be followed: the chunks beyond count as in use.
    pub broken_lists: u64,
}

/// Why there is no census.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the heap is not glibc's: {0}")]
    OtherAllocator(Allocator),
    #[error("the version of glibc is unknown, and the heap does not tell it")]
    UnknownVersion,
    #[error("the heap's layout in glibc {0} is not known")]
    UnsupportedVersion(String),
    #[error("glibc's main arena was not found")]
    NoArena,
    #[error("the main heap is not one piece: {0}")]
    NotContiguous(&'static str),
    #[error("the heap's metadata contradicts itself at {address:#x}: {what}, after {tries} tries")]
    Inconsistent {
        address: u64,
        what: &'static str,
        tries: u32,
    },
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the memory cannot be read: {0}")]
    Unreadable(String),
}

/// Takes the census of a process: `allocator` as [`crate::target::allocator::identify`] tells it, `mappings` as they
/// stand now.
pub fn take(
    memory: &impl Memory,
    allocator: &Allocator,
    mappings: &[Mapping],
    limits: Limits,
) -> Result<Census, NotTaken> {
    match allocator {
        Allocator::Glibc { version: Some(text) } => {
            let layout = glibc::layout::version(text)
                .and_then(glibc::layout::Layout::of)
                .ok_or_else(|| NotTaken::UnsupportedVersion(text.clone()))?;
            glibc::take(memory, &layout, mappings, limits)
        }
        Allocator::Glibc { version: None } => glibc::take_of_unknown_version(memory, mappings, limits),
        // Stripped, so it has no names; but a heap of glibc's is known by its looks.
        Allocator::UnknownStatic => match glibc::take_of_unknown_version(memory, mappings, limits) {
            Err(NotTaken::NoArena) => Err(NotTaken::OtherAllocator(allocator.clone())),
            taken => taken,
        },
        other => Err(NotTaken::OtherAllocator(other.clone())),
    }
}

/// What is left of the limits while a census is taken.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    started: Instant,
    pub torn: u64,
    pub broken_lists: u64,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            torn: 0,
            broken_lists: 0,
        }
    }

    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn tries(&self) -> u32 {
        self.limits.tries
    }

    pub fn check(&self) -> Result<(), NotTaken> {
        if self.started.elapsed() > self.limits.time {
            return Err(NotTaken::TimedOut(self.limits.time));
        }
        Ok(())
    }
}
