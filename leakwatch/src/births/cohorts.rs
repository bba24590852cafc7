//! What becomes of the blocks whose births were watched.
//!
//! Births are watched in stretches: from when the probes are put in to when they are taken out. Within a stretch every
//! later birth at a watched address is seen, after it none is. So a block counts only if it was looked at near the end
//! of its stretch, with the probes still there, and was in use then: what was free by then, or young, is left out, since
//! its address may be handed out again unseen. What is left are *candidates*, looked at again at each check and by the
//! census at the end.
//!
//! Between stretches a candidate may be freed and its address be given to another block of the same size. Such a block
//! is told by its content, where it can be, and by the births that later stretches see.

use std::collections::BTreeMap;

use super::table::{Births, Facts, Losses};
use crate::ledger::SiteId;

/// How many words of a block are remembered.
pub const WORDS: usize = 8;

/// The first words of a block, as far as it has so many. They stay in this process's memory.
pub type Words = [u64; WORDS];

/// A block to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub address: u64,
    /// [`super::table::Born::id`]: another block may be born there meanwhile.
    pub id: u64,
}

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A chunk begins there and is in use.
    InUse {
        /// With its header; of one with a mapping of its own its mapping.
        chunk_bytes: u64,
        mapped: bool,
        words: Words,
    },
    /// It is free, or no chunk begins there.
    NotInUse,
    /// It could not be told.
    Unknown,
}

/// Blocks of one kind, as a census counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// With its header; of one with a mapping of its own its mapping.
    pub chunk_bytes: u64,
    /// The address of a constant that it begins with, as of a vtable.
    pub constant: Option<u64>,
    pub mapped: bool,
}

/// What the census at the window's end found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    InUse { class: Class, words: Words },
    /// It is free, or no chunk begins there.
    Gone,
    Unknown,
}

/// How the blocks of one site fared, by the check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Births that were seen, sampled ones; and what they stand for.
    pub seen: u64,
    pub born: u64,
    pub born_bytes: u64,
    /// By the interval between checks in which they were born: the members of the cohort (blocks that were old enough
    /// when they were looked at in their stretch), then how many of them were in use at that look, then at each check
    /// since, the end's census included.
    pub alive: Vec<Vec<u64>>,
}

/// A block that is in use at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survivor {
    pub site: SiteId,
    pub class: Class,
    /// Asked for, bytes.
    pub size: u64,
    /// Since it was born, or what was realloc'ed into it, nanoseconds.
    pub age: u64,
    /// Index into [`Course::alive`].
    pub interval: usize,
    /// The birth at this address may be another, unseen one's.
    pub doubtful: bool,
    /// The function that made it: index into `FUNCTIONS` of the target's entry points.
    pub function: u32,
}

/// All that is known at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub survivors: Vec<Survivor>,
    pub courses: BTreeMap<SiteId, Course>,
    /// Moments of the checks, the end's census last, nanoseconds.
    pub checks: Vec<u64>,
    pub losses: Losses,
    /// Candidates that could not be followed to the end.
    pub unknown: u64,
    /// One block of the sample stands for so many.
    pub stands_for: u64,
}

/// The blocks of one process.
#[derive(Debug)]
pub struct Cohorts {
    births: Births,
}

impl Cohorts {
    #[must_use]
    pub fn new(threshold: u64) -> Self {
        Self {
            births: Births::new(threshold),
        }
    }

    /// Which blocks are in the sample: the kernel side is to be told when it falls.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.births.threshold()
    }

    /// Lowers the threshold. It never rises.
    pub fn lower(&mut self, threshold: u64) {
        self.births.lower(threshold);
    }

    /// See [`Births::born`].
    pub fn born(&mut self, _address: u64, _facts: Facts) {
        todo!()
    }

    /// See [`Births::moved`].
    pub fn moved(&mut self, _old: u64, _new: u64, _facts: Facts, _began: u64) {
        todo!()
    }

    /// See [`Births::left`].
    pub fn left(&mut self, _old: u64, _began: u64) {
        todo!()
    }

    /// Blocks of this stretch that were born at `until` or before and were not looked at yet, by address.
    #[must_use]
    pub fn to_look_at(&self, _until: u64) -> Vec<Look> {
        todo!()
    }

    /// What was found of them, in the same order, with the probes still there. Those in use become candidates.
    pub fn looked(&mut self, _looks: &[Look], _seen: &[Seen]) {
        todo!()
    }

    /// The probes are gone, and all of their events were told: what was not looked at is forgotten.
    pub fn end_stretch(&mut self) {
        todo!()
    }

    /// All candidates, by address.
    #[must_use]
    pub fn candidates(&self) -> Vec<Look> {
        todo!()
    }

    /// A check of all candidates, at `time` (nanoseconds), in the same order.
    pub fn checked(&mut self, _time: u64, _looks: &[Look], _seen: &[Seen]) {
        todo!()
    }

    /// The end, at `time` (nanoseconds): what the census found at the candidates' addresses, in the same order.
    #[must_use]
    pub fn close(self, _time: u64, _looks: &[Look], _fates: &[Fate]) -> Outcome {
        todo!()
    }
}
