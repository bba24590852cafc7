//! What the screen is made from: plain values, names and rows made.

use std::sync::Arc;

use crate::diagnose::rank::{Evidence, Via};
use crate::session::live::{Blocks, LiveBirths, LiveCost};
use crate::symbolize::SymbolizedFrame;
use crate::unwind::StackId;

/// Who is watched. Names are untrusted text.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub pid: u32,
    pub comm: String,
    /// When the window is to end by itself, seconds.
    pub ends_after: Option<f64>,
}

/// How things stand at a moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Seconds of the window.
    pub elapsed: f64,
    /// Bytes are of pages that were touched first; else of address space.
    pub by_pages: bool,
    pub verdict: Option<Judged>,
    /// Anonymous memory with swap since the window's start.
    pub growth: Option<i64>,
    pub rss_bytes: Option<u64>,
    /// (seconds of the window, bytes of anonymous memory with swap).
    pub memory: Vec<(f64, u64)>,
    pub rows: Vec<Row>,
    /// Call sites that hold anything, and what all of them hold: more than the rows, where there are many.
    pub holding: u64,
    pub held_bytes: u64,
    /// What survivors amount to, by all rows.
    pub surviving_bytes: u64,
    pub births: LiveBirths,
    pub losses: Vec<(&'static str, u64)>,
    pub cost: LiveCost,
}

/// The verdict so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    pub kind: String,
    pub summary: String,
    /// 0 to 1.
    pub confidence: Option<f64>,
}

/// One row of the ranking.
#[derive(Clone, Debug)]
pub struct Row {
    /// The same from one view to the next, once its stack has names.
    pub key: Arc<str>,
    pub label: Arc<str>,
    /// File name of the culprit's module.
    pub module: Arc<str>,
    /// Pages in hand, or address space; 0 where only survivors tell.
    pub bytes: u64,
    /// What it touched, or committed, in all.
    pub gained: u64,
    /// Of blocks that survived the latest check.
    pub surviving: Option<(u64, Blocks)>,
    /// Bytes per second, of `bytes`; where there are none of what survived.
    pub rate: Option<f64>,
    pub events: u64,
    /// Seconds of the window.
    pub last_seen: f64,
    /// The one that holds most first; never empty.
    pub stacks: Vec<RowStack>,
    pub threads: Vec<String>,
    pub processes: Vec<u32>,
    /// What a filter looks in, lower case.
    pub haystack: Arc<str>,
}

/// One stack of a row.
#[derive(Clone, Debug)]
pub struct RowStack {
    pub id: StackId,
    pub via: Via,
    pub evidence: Evidence,
    pub bytes: u64,
    pub complete: bool,
    pub named: Arc<Named>,
}

/// A stack with its names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named {
    /// Innermost first.
    pub frames: Vec<SymbolizedFrame>,
    /// Index of the frame to blame.
    pub culprit: Option<usize>,
    /// What makes it one row with others.
    pub key: Arc<str>,
    pub label: Arc<str>,
    pub module: Arc<str>,
    pub haystack: Arc<str>,
    /// Its turn to be named has not come yet.
    pub pending: bool,
}

impl Row {
    /// Live over gained: near 1 is kept, near 0 is churn.
    #[must_use]
    pub fn kept(&self) -> Option<f64> {
        (self.gained > 0).then(|| (self.bytes as f64 / self.gained as f64).clamp(0.0, 1.0))
    }

    #[must_use]
    pub fn surviving_bytes(&self) -> u64 {
        self.surviving.map_or(0, |(bytes, _)| bytes)
    }

    #[must_use]
    pub fn has(&self, stack: StackId) -> bool {
        self.stacks.iter().any(|it| it.id == stack)
    }
}
