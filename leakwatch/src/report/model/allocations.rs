//! What watching births said: of the window, and of a call site.

use serde::{Deserialize, Serialize};

/// How births were watched in the window, and what was left over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Allocations {
    /// `session`, `multi` or `events`: how the probes are attached on this kernel.
    pub method: String,
    /// Stretches of time in which births were watched.
    pub bursts: u32,
    /// Of all bursts together.
    pub watched_seconds: f64,
    /// Calls of the allocator's functions that hit a probe.
    pub hits: u64,
    /// Births that were seen, of blocks in the sample.
    pub births: u64,
    /// The part of all blocks that is in the sample, 0 to 1.
    pub sampling_rate: f64,
    /// Births that were followed: blocks that were in use when their burst ended.
    pub followed: u64,
    /// How often the followed blocks were looked at after their burst, the end's census included.
    pub checks: u32,
    /// Processor time of the target that the hits have cost, estimated by a measured cost per hit.
    pub cost_seconds: f64,
    /// How much more it would have worked while probes came and went, had they not; `None` in recordings of before.
    #[serde(default)]
    pub withheld_seconds: Option<f64>,
    /// What both might have come to; `None` where they might cost anything (`--allocs always`).
    pub budget_seconds: Option<f64>,
    /// What the target has used in the window.
    pub target_cpu_seconds: Option<f64>,
    /// Whether they tell whose blocks the heap has gained. Where too little was seen the pages tell it, as far as they can.
    #[serde(default = "yes")]
    pub tell: bool,
    /// Growth of classes that no call site is known for: the sum of `unnamed`.
    pub unnamed_bytes: i64,
    /// Of classes that became fewer: blocks from before the window that were freed. Not positive.
    pub shrunk_bytes: i64,
    /// The greatest first.
    #[serde(default)]
    pub unnamed: Vec<UnnamedClass>,
}

/// Recordings from before it could be otherwise.
fn yes() -> bool {
    true
}

/// A class of blocks that grew, or what part of its growth, and nobody is known for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnnamedClass {
    /// The largest request that such a chunk serves.
    pub bytes: u64,
    pub chunk_bytes: u64,
    /// As `&name`: blocks that begin with the address of this constant, which is no class's.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    pub growth_count: i64,
    pub growth_bytes: i64,
}

/// What the births of a call site came to. Null in a call site whose births were not seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteAllocations {
    /// Blocks that it added and that are in use at the end, estimated.
    pub blocks: u64,
    /// Births seen, of blocks in the sample. Estimated: of those whose blocks were gone before they could be followed, one
    /// in 16 tells whose they were.
    pub births: u64,
    /// What they stand for, in the time that was watched.
    pub born_blocks: u64,
    pub born_bytes: u64,
    /// Births that were followed to the end or to their death.
    pub followed: u64,
    /// Of these, the ones in use at the end.
    pub survived: u64,
    /// Of the survivors, those that are as young as other blocks of the site became at most.
    pub young: u64,
    /// Of the survivors, those that may be other blocks, at the same address by now.
    pub doubtful: u64,
    /// Of the survivors.
    pub median_age_seconds: Option<f64>,
    pub oldest_age_seconds: Option<f64>,
    /// The most bytes first.
    #[serde(default)]
    pub classes: Vec<SiteClass>,
    /// The functions that it called, as `malloc`.
    #[serde(default)]
    pub functions: Vec<String>,
}

/// Blocks of one size, and of one type where that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteClass {
    /// The largest request that such a chunk serves.
    pub bytes: u64,
    pub chunk_bytes: u64,
    /// As `&name`: blocks that begin with the address of this constant, which is no class's.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// Each has a mapping of its own: these bytes are in the site's live bytes by the mappings, not by survivors.
    #[serde(default)]
    pub mapped: bool,
    pub blocks: u64,
    pub live_bytes: u64,
    /// Survivors that were seen.
    pub survivors: u64,
}
