//! One recording, from attach to report: the only place that knows every stage.

use std::time::Duration;

use crate::target::Target;

/// What is asked of a recording.
#[derive(Debug)]
pub struct RecordOptions {
    pub target: Target,
    pub duration: Duration,
    /// The most stack that an event carries, in bytes.
    pub stack_bytes: u32,
    /// Size of the ring buffer, in bytes: a power of two, whole pages.
    pub ring_bytes: u32,
    pub follow_children: bool,
    pub group_by: GroupBy,
    /// How many call sites the report shows.
    pub top: usize,
    /// Call sites with less than this, in bytes, are not shown.
    pub min_bytes: u64,
}

/// What makes two stacks one row of the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    Stack,
    Function,
    Module,
}

/// How a recording tells the user that it goes on.
pub trait Progress {
    /// The programs are attached; attaching took this long.
    fn attached(&mut self, took: Duration);
    /// `growth_bytes` of anonymous memory since the start; `None` where it was not measured.
    fn tick(&mut self, elapsed: Duration, events: u64, growth_bytes: Option<i64>);
    /// Something the user should know now.
    fn note(&mut self, line: &str);
    /// The window has ended.
    fn done(&mut self);
}

/// The outcome of a recording.
#[derive(Debug)]
pub struct Recording {}

/// Records the target for the window.
pub fn record(options: &RecordOptions, progress: &mut dyn Progress) -> anyhow::Result<Recording> {
    let _ = (options, progress);
    anyhow::bail!("not built")
}
