//! What changed from one recording to another. Sizes in bytes, rates in bytes per second of a window: windows may differ
//! in length.

use serde::{Deserialize, Serialize};

use super::{Culprit, SharedFrame, Target, Tool};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffReport {
    pub schema_version: u32,
    pub tool: Tool,
    pub before: DiffSide,
    pub after: DiffSide,
    /// Those that changed most first, by their rates.
    pub sites: Vec<DiffSite>,
    /// Files of call sites' stacks that are not the same build in both.
    pub rebuilt: Vec<DiffModule>,
    /// What a reader should know of the comparison, a sentence each.
    pub notes: Vec<String>,
}

/// One recording of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffSide {
    /// RFC 3339.
    pub started_at: String,
    pub duration_seconds: f64,
    pub target: Target,
    /// Null: no judgement was made.
    pub verdict: Option<String>,
    pub anonymous_growth_bytes: Option<i64>,
    pub anonymous_rate_bytes_per_second: Option<f64>,
    /// Of all call sites: live bytes where they are known, else held ones.
    pub kept_bytes: u64,
    pub kept_rate_bytes_per_second: f64,
    pub call_sites: u64,
    /// Of pages, 0 to 1; null where none were watched.
    pub sampling_rate: Option<f64>,
    pub lost_events: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffSite {
    /// 1 is first.
    pub rank: u32,
    /// `appeared`, `grew`, `same`, `shrank` or `went`.
    pub change: String,
    /// What tells that it is one site in both: `code` (the same offsets of the same builds), `names` (the same functions
    /// from the culprit outward) or `culprit` (the same culprit, which no other site has). Null for a site of one
    /// recording.
    pub matched_by: Option<String>,
    /// What is compared: `live` bytes, or `held` ones where live ones are not known in each.
    pub measure: String,
    pub label: String,
    pub culprit: Option<Culprit>,
    /// Null where the recording has no such site.
    pub before: Option<DiffFigures>,
    pub after: Option<DiffFigures>,
    pub rate_change_bytes_per_second: f64,
    /// Null where the error of one of them is not known.
    pub rate_change_standard_error: Option<f64>,
    /// The change is greater than chance makes it 19 times of 20, as far as its error is known.
    pub beyond_error: bool,
    /// All of both, those that hold most after first.
    pub stacks: Vec<DiffStack>,
}

impl DiffSite {
    /// What it keeps in the one of the two in which that is more, bytes.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        let sides = [&self.before, &self.after].into_iter().flatten();
        sides.filter_map(|figures| figures.bytes).max().unwrap_or(0)
    }
}

/// A call site in one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffFigures {
    /// In its recording.
    pub rank: u32,
    /// By the site's measure.
    pub bytes: Option<u64>,
    pub rate_bytes_per_second: f64,
    pub standard_error_bytes: Option<f64>,
    /// `survivors`, `pages` or `mappings`.
    pub evidence: String,
    pub blocks: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffStack {
    /// Name of the process.
    pub comm: String,
    /// Live bytes where they are known of every stack of the process, else held ones; 0 where the stack is not.
    pub before_bytes: u64,
    pub after_bytes: u64,
    /// All that is known of it in each recording; null where the stack is not.
    pub before: Option<Measures>,
    pub after: Option<Measures>,
    /// As they are after, where it is there. Innermost first.
    pub frames: Vec<SharedFrame>,
}

/// What a stack has in one recording; null is not known. Figures of its call site as a whole (touched bytes, blocks) stand
/// at the stack that holds most of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Measures {
    pub live_bytes: Option<u64>,
    pub touched_bytes: Option<u64>,
    /// Added in the window, and in use at its end.
    pub blocks: Option<u64>,
    pub held_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DiffModule {
    /// Its file's name.
    pub module: String,
    pub build_id_before: String,
    pub build_id_after: String,
}
