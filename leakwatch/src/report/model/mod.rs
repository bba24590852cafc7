//! The recording, schema version 1: what `.json` holds and what every report is rendered from.
//!
//! Sizes in bytes, times in seconds, rates in bytes per second; absent is null, never 0. Addresses are strings
//! (`"0x7f10c8000000"`): JSON numbers are doubles to most readers, which are exact to 2^53 only, and `[vsyscall]`, tagged
//! pointers and kernel addresses lie above. Fields may be added within version 1: a reader ignores those it does
//! not know. Names are untrusted text; where the target's bytes were not UTF-8 they are written `\xNN`, once, in
//! [`super::build`].

pub mod allocations;
pub mod diff;
pub mod frames;
pub mod heap;
pub mod history;
pub mod names;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use allocations::{Allocations, SiteAllocations, SiteClass, UnnamedClass};
pub use frames::{Frame, SharedFrame};
pub use heap::{FreeKind, FreeKinds, Heap, HeapArena, HeapClass, HeapGrowth};

/// The version that this program writes, and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Recording {
    pub schema_version: u32,
    pub tool: Tool,
    pub host: Host,
    pub target: Target,
    pub window: Window,
    /// Null: no judgement was made.
    pub verdict: Option<Verdict>,
    pub growth: Growth,
    pub reconciliation: Option<Reconciliation>,
    pub call_sites: Vec<CallSite>,
    /// The greatest growth first. Null when smaps could not be read at both ends.
    pub mappings: Option<Vec<MappingRow>>,
    /// The same per file. Null likewise.
    pub libraries: Option<Vec<LibraryRow>>,
    /// Null: nothing was sampled in between.
    pub series: Option<Vec<Sample>>,
    /// How anonymous memory went over the window.
    #[serde(default)]
    pub trend: Option<MemoryTrend>,
    pub correlations: Option<Vec<Correlation>>,
    /// What the allocator of the target knows of its heap. Null: not asked for, or not taken.
    #[serde(default)]
    pub heap: Option<Heap>,
    /// Why the census of the heap was not taken, at the start or the end of the window. Null: it was, or was not asked
    /// for.
    #[serde(default)]
    pub heap_not_taken: Option<String>,
    /// How births of blocks were watched. Null: they were not.
    #[serde(default)]
    pub allocations: Option<Allocations>,
    /// Why births were not watched. Null: they were, or it was not asked for.
    #[serde(default)]
    pub allocations_not_watched: Option<String>,
    /// Every process watched, when children were followed; else null.
    pub processes: Option<Vec<ProcessRow>>,
    pub losses: Losses,
    pub cost: Cost,
    /// What a reader of the report should know of this recording, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// One picture of a heap, without a window: what `leakwatch heap` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapPicture {
    pub schema_version: u32,
    pub tool: Tool,
    pub host: Host,
    pub target: Target,
    /// RFC 3339.
    pub taken_at: String,
    pub heap: Heap,
    pub losses: Losses,
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tool {
    pub name: String,
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    pub page_size_bytes: u64,
    pub cpus: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Target {
    pub pid: u32,
    /// Clock ticks from boot, as `/proc/PID/stat` has it: with the PID the process's identity.
    pub start_time: u64,
    pub comm: String,
    pub exe: Option<String>,
    pub cmdline: Option<Vec<String>>,
    pub container: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Window {
    /// RFC 3339.
    pub started_at: String,
    pub duration_seconds: f64,
    pub ended_by: EndedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    Deadline,
    Interrupt,
    TargetExit,
    TargetExec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Verdict {
    /// `leak`, `growth`, `plateau`, `retention`, `churn`, `flat` or `inconclusive`.
    pub kind: String,
    /// The rule that found it, in words.
    #[serde(default)]
    pub rule: Option<String>,
    /// The chance that it is right, as far as the evidence goes, 0 to 1: the product of `factors`. Null where nothing is
    /// claimed.
    pub confidence: Option<f64>,
    /// What it rests on, and how sure each is.
    #[serde(default)]
    pub factors: Vec<VerdictFactor>,
    pub summary: String,
    #[serde(default)]
    pub evidence: Vec<String>,
    #[serde(default)]
    pub suggestions: Vec<String>,
    /// When memory reaches its limit, if it goes on so. Null where it does not grow, or no limit is known.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// So much longer would tell; null where there is nothing left to tell.
    #[serde(default)]
    pub watch_longer_seconds: Option<f64>,
}

/// One thing that a verdict rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerdictFactor {
    pub what: String,
    /// 0 to 1.
    pub chance: f64,
}

/// The limit that the target meets first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limit {
    /// `cgroup`: its own, or that of one above; or `ram`: the host's.
    pub of: String,
    pub limit_bytes: u64,
    /// File cache counts as used in a cgroup above its own, though the kernel can take it back.
    pub left_bytes: u64,
    pub rate_bytes_per_second: f64,
    /// From the window's end, at that rate.
    pub seconds: Option<f64>,
}

/// End minus start, from /proc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Growth {
    pub rss_bytes: Option<i64>,
    pub anonymous_bytes: Option<i64>,
    pub private_dirty_bytes: Option<i64>,
    pub swap_bytes: Option<i64>,
    /// Private writable address space (`VmData`).
    pub committed_bytes: Option<i64>,
}

/// `attributed_bytes` and the bytes of the reasons sum to `smaps_growth_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reconciliation {
    /// Anonymous + Swap.
    pub smaps_growth_bytes: i64,
    pub attributed_bytes: i64,
    pub unattributed_bytes: i64,
    /// Null unless memory grew.
    pub coverage: Option<f64>,
    /// Of `attributed_bytes`; 0 when it is exact.
    pub standard_error_bytes: Option<f64>,
    #[serde(default)]
    pub reasons: Vec<ReasonRow>,
    #[serde(default)]
    pub regions: Vec<RegionRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReasonRow {
    /// As `huge_pages`, `no_stack`, `touched_by_others`, `between_readings`; growth that is not attributed has one of them.
    pub reason: String,
    pub bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegionRow {
    /// `heap`, `anonymous`, `arena`, `stack`, `file`, `shared` or `other`.
    pub region: String,
    pub growth_bytes: i64,
    pub attributed_bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallSite {
    /// 1 is first.
    pub rank: u32,
    /// What the row is called, by the grouping chosen.
    #[serde(deserialize_with = "names::shared")]
    pub label: Arc<str>,
    /// Null when there is no stack, or nothing but allocator in it, and for arenas.
    pub culprit: Option<Culprit>,
    /// `mmap`, `brk`, `mremap`, `mprotect`, `fault` or `malloc`: by which most of it came.
    pub via: String,
    /// Every way it came, the main one first.
    #[serde(default)]
    pub vias: Vec<String>,
    /// Added in the window, and resident or swapped at its end: with evidence `pages` what it was the first to touch,
    /// with `mappings` what lies in memory that it asked for, with `survivors` blocks that it allocated, headers included.
    pub live_bytes: Option<u64>,
    /// Address space committed in the window and still held at its end.
    pub held_bytes: Option<u64>,
    /// Pages of the heap that it was the first to touch, resident or swapped at the end: it extended the heap, and others'
    /// blocks may lie there. Null where the heap's bytes are not told by survivors: there these pages are its live bytes.
    #[serde(default)]
    pub extended_bytes: Option<u64>,
    /// First touched by it in the window, gone or not. Null without page evidence.
    pub touched_bytes: Option<u64>,
    /// Live over touched, 0 to 1: near 1 is kept, near 0 is churn.
    pub retention: Option<f64>,
    pub committed_bytes: Option<u64>,
    pub released_bytes: Option<u64>,
    pub events: u64,
    /// Of the live (else held) bytes of all call sites, 0 to 1.
    pub share: Option<f64>,
    /// Negative when it shrank.
    pub rate_bytes_per_second: Option<f64>,
    /// `survivors`, `pages` or `mappings`.
    pub evidence: String,
    /// Of `live_bytes`; 0 when it is exact.
    pub standard_error_bytes: Option<f64>,
    /// Committed, released and held bytes contain a share of calls whose stacks were left out to spare the target.
    #[serde(default)]
    pub estimated: bool,
    /// What became of the blocks that it allocated. Null where no birth of its was seen.
    #[serde(default)]
    pub allocations: Option<Box<SiteAllocations>>,
    /// The row is of an allocator's arenas: memory that another allocator than the process's has mapped and hands out, to
    /// call sites that are not known. Else null.
    #[serde(default)]
    pub arenas: Option<Arenas>,
    pub trend: Option<Trend>,
    pub first_seen_seconds: Option<f64>,
    pub last_seen_seconds: Option<f64>,
    pub stack_complete: bool,
    #[serde(default)]
    pub threads: Vec<String>,
    #[serde(default)]
    pub processes: Vec<u32>,
    /// Held bytes over the window; with evidence `pages`, the pages that it owned.
    pub series: Option<Vec<SitePoint>>,
    /// The stack that holds most, innermost first.
    #[serde(default)]
    pub frames: Vec<SharedFrame>,
    /// All stacks of the row, the same one included, when there are several; else null.
    pub stacks: Option<Vec<StackRow>>,
}

// Read back by [`names`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Culprit {
    pub function: Option<Arc<str>>,
    pub module: Option<Arc<str>>,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
    /// Index in `frames`.
    pub frame: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Arenas {
    /// `pymalloc`: CPython's, of objects of up to 512 bytes.
    pub allocator: String,
    /// Who touched their pages first, the one with most of what is still there first; at most 8. Their objects were made
    /// then; what keeps the pages now may be others'.
    pub first_touched_by: Vec<Toucher>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Toucher {
    pub name: String,
    /// Resident or swapped at the end.
    pub live_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Trend {
    pub kind: String,
    pub slope_bytes_per_second: Option<f64>,
    pub p_value: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SitePoint {
    pub t: f64,
    /// With evidence `pages`, the pages that the site owned then.
    pub held_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StackRow {
    pub via: String,
    pub live_bytes: Option<u64>,
    pub held_bytes: Option<u64>,
    pub events: u64,
    pub stack_complete: bool,
    pub process: Option<u32>,
    #[serde(default)]
    pub frames: Vec<SharedFrame>,
}

/// `0x` and lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("an address is 0x and hexadecimal digits"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MappingRow {
    pub path: Option<String>,
    /// `heap`, `anonymous`, `stack`, `file`, `shared` or `other`.
    pub kind: String,
    /// The same, with thread arenas (`arena`) told from other anonymous memory.
    pub region: String,
    pub start: Address,
    pub end: Address,
    /// `rw-p`.
    pub permissions: String,
    /// `new`, `gone` or `stayed`.
    pub fate: String,
    pub rss_growth_bytes: i64,
    pub private_dirty_growth_bytes: i64,
    pub size_growth_bytes: i64,
    pub pss_growth_bytes: i64,
    pub anonymous_growth_bytes: i64,
    pub swap_growth_bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LibraryRow {
    pub name: String,
    pub mappings: u64,
    pub rss_growth_bytes: i64,
    pub private_dirty_growth_bytes: i64,
    pub size_growth_bytes: i64,
    pub pss_growth_bytes: i64,
    pub anonymous_growth_bytes: i64,
    pub swap_growth_bytes: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sample {
    pub t: f64,
    pub rss_bytes: Option<u64>,
    pub anonymous_bytes: Option<u64>,
    pub private_dirty_bytes: Option<u64>,
    pub pss_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub fds: Option<u64>,
    pub connections: Option<u64>,
}

/// How anonymous memory went over the window. Seconds, and bytes per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemoryTrend {
    /// `steady growth`, `warm-up`, `step`, `sawtooth with rising floor`, `sawtooth`, `flat`, `shrinking`, or `unknown`.
    pub kind: String,
    /// The median of all slopes, with its interval of 95 %; null where the noise is not known.
    pub slope_bytes_per_second: Option<f64>,
    pub slope_low_bytes_per_second: Option<f64>,
    pub slope_high_bytes_per_second: Option<f64>,
    /// That there is as much order without any (Mann-Kendall, with autocorrelation).
    pub p_value: Option<f64>,
    pub samples: u64,
    /// So much longer would tell, by the noise seen; null where there is nothing left to tell.
    pub watch_longer_seconds: Option<f64>,
}

/// Anonymous memory beside a count of the process, by how both change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Correlation {
    /// `connections`, `fds` or `threads`.
    pub with: String,
    pub coefficient: Option<f64>,
    /// The chance of as great a coefficient between the two with nothing to do with each other: 1 in 201 at least.
    pub p_value: Option<f64>,
    /// The same among all counts that were compared (Holm): at most 0.05 where it is told.
    #[serde(default)]
    pub p_value_corrected: Option<f64>,
    pub bytes_per_unit: Option<f64>,
    /// Its interval of 95 %.
    #[serde(default)]
    pub bytes_per_unit_low: Option<f64>,
    #[serde(default)]
    pub bytes_per_unit_high: Option<f64>,
    /// Memory follows after so long.
    #[serde(default)]
    pub lag_seconds: Option<f64>,
    /// It rests on so few events that it may be chance all the same.
    #[serde(default)]
    pub few_events: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcessRow {
    pub pid: u32,
    pub parent_pid: Option<u32>,
    pub comm: String,
    pub anonymous_growth_bytes: Option<i64>,
    /// Of that growth, what call sites with a stack keep.
    pub attributed_bytes: Option<u64>,
    /// `attributed_bytes / anonymous_growth_bytes`; null unless it grew.
    pub coverage: Option<f64>,
    pub live_bytes: Option<u64>,
    pub held_bytes: Option<u64>,
    pub events: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Losses {
    pub events: Option<u64>,
    /// Events that should carry a stack and came without.
    pub stacks: Option<u64>,
    /// Stacks that do not reach their root, by reason.
    #[serde(default)]
    pub truncated_stacks: BTreeMap<String, u64>,
    pub samples: Option<u64>,
    /// Every other counter that is not 0, by name.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cost {
    pub events: Option<u64>,
    /// Of leakwatch itself.
    pub cpu_seconds: Option<f64>,
    /// Likewise.
    pub peak_rss_bytes: Option<u64>,
    pub kernel_map_bytes: Option<u64>,
    pub smaps_reads: Option<u64>,
    pub smaps_read_seconds: Option<f64>,
    pub sampling_rate: Option<f64>,
    /// Page faults that were taken into the sample.
    pub page_faults: Option<u64>,
    /// Mapping calls that were told without a stack, since none of their pages is in the sample.
    pub thinned_stacks: Option<u64>,
    /// From start to attached.
    pub attach_seconds: Option<f64>,
    /// Samples of /proc, and how long they took in all.
    #[serde(default)]
    pub samples: Option<u64>,
    #[serde(default)]
    pub sample_seconds: Option<f64>,
}
