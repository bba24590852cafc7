//! What a history says: services, their runs, how each went. And one look at all processes of a host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Correlation, MemoryTrend, Tool, Verdict};

/// The services of a history that were asked for, those that gained most first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryReport {
    pub schema_version: u32,
    pub tool: Tool,
    pub services: Vec<HistoryService>,
    /// Those of the file that are not among them.
    pub services_left_out: u64,
    /// Of the services shown, in the order of time.
    pub alerts: Vec<HistoryAlert>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryService {
    pub name: String,
    pub cgroup: String,
    /// Of several at the same time, counted from 0.
    pub replica: u32,
    pub runs: Vec<HistoryRun>,
    pub samples: u64,
    /// Calendar times, UTC.
    pub first_at: String,
    pub last_at: String,
    /// Resident memory at the last sample.
    pub rss_bytes: Option<u64>,
    /// Anonymous memory, resident or swapped: at the last sample, the least and the most of the latest run, and what that
    /// run gained since its first.
    pub anonymous_bytes: Option<u64>,
    pub anonymous_least_bytes: Option<u64>,
    pub anonymous_most_bytes: Option<u64>,
    pub gain_bytes: i64,
    /// By the least of each part of the time, over all runs.
    pub trend: Option<MemoryTrend>,
    pub correlations: Vec<Correlation>,
    /// On the latest run: by sizes and counts, and by its heap where the watch read that.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    pub alerts_raised: u64,
    pub points: HistoryPoints,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryRun {
    pub pid: u32,
    pub first_at: String,
    /// Null while it goes on, or nobody saw its end.
    pub ended_at: Option<String>,
    pub ending: Option<String>,
    pub baseline_bytes: Option<u64>,
}

/// Columns of equal length: a part of the time each, of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryPoints {
    /// Of the first sample in it, since 1970.
    pub at_seconds: Vec<f64>,
    /// Index into `runs`.
    pub run: Vec<u32>,
    pub samples: Vec<u64>,
    /// By the metric's name; those that were never there are left out.
    pub metrics: BTreeMap<String, HistoryColumn>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryColumn {
    pub least: Vec<Option<u64>>,
    pub mean: Vec<Option<u64>>,
    pub most: Vec<Option<u64>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryAlert {
    pub at: String,
    pub service: String,
    pub event: String,
    pub threshold: String,
    pub line: String,
}

/// Processes by how much they grew between two looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScanReport {
    pub schema_version: u32,
    pub tool: Tool,
    /// Calendar time of the first look, UTC.
    pub taken_at: String,
    /// From one look to the other.
    pub seconds: f64,
    /// Processes that could be read at both looks, or were started between.
    pub processes: u64,
    pub started: u64,
    pub exited: u64,
    /// There, and not to be read.
    pub unreadable: u64,
    /// Of all of them together.
    pub anonymous_growth_bytes: i64,
    pub processor_seconds: f64,
    /// Those that grew most first.
    pub rows: Vec<ScanRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ScanRow {
    pub pid: u32,
    pub name: String,
    /// Between the looks.
    pub started: bool,
    pub rss_bytes: Option<u64>,
    /// Resident or swapped.
    pub anonymous_bytes: Option<u64>,
    pub anonymous_growth_bytes: i64,
    pub rss_growth_bytes: Option<i64>,
    pub threads: Option<u64>,
    pub threads_growth: Option<i64>,
    pub descriptors: Option<u64>,
    pub descriptors_growth: Option<i64>,
}
