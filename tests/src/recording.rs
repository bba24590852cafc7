//! The recording of section 7 of the design, as a reader who knows only the schema sees it.
//!
//! Fields that a test asks for are typed; further ones are let through. [`Recording::parse`] checks what the types do
//! not: that every field the schema names is there (null where its layer is not built), ranks, and signs.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::allocations::{Allocations, SiteAllocations};
use crate::arenas::Arenas;
use crate::heap::{Heap, Verdict};
use crate::trends::{Correlation, MemoryTrend};

#[derive(Clone, Debug, Deserialize)]
pub struct Recording {
    pub schema_version: u32,
    pub target: TargetProcess,
    pub window: Window,
    pub growth: Growth,
    pub reconciliation: Option<Reconciliation>,
    pub trend: Option<MemoryTrend>,
    pub correlations: Option<Vec<Correlation>>,
    pub call_sites: Vec<CallSite>,
    pub mappings: Option<Vec<Mapping>>,
    /// `None` where no judgement was made.
    pub verdict: Option<Verdict>,
    /// The census at the window's end, with its growth since the start. `None` where it was not taken.
    #[serde(default)]
    pub heap: Option<Heap>,
    /// Why not.
    #[serde(default)]
    pub heap_not_taken: Option<String>,
    /// How births of blocks were watched. `None` where they were not.
    #[serde(default)]
    pub allocations: Option<Allocations>,
    /// Why not.
    #[serde(default)]
    pub allocations_not_watched: Option<String>,
    /// Each process's own account, with `--children`.
    pub processes: Option<Vec<ProcessAccount>>,
    /// What else the reader should know.
    #[serde(default)]
    pub notes: Vec<String>,
    pub losses: Losses,
    pub cost: Cost,
}

/// The account: the kernel's growth against what call sites are known to keep, bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Reconciliation {
    pub smaps_growth_bytes: i64,
    pub attributed_bytes: i64,
    /// `None` unless memory grew.
    pub coverage: Option<f64>,
    pub reasons: Vec<Reason>,
    /// Of the attributed bytes; `None` or 0 where every page was looked at.
    #[serde(default)]
    pub standard_error_bytes: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Reason {
    pub reason: String,
    pub bytes: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ProcessAccount {
    pub pid: u32,
    pub anonymous_growth_bytes: Option<i64>,
    pub attributed_bytes: Option<i64>,
    pub coverage: Option<f64>,
    pub live_bytes: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Cost {
    /// 1 where nothing was thinned.
    pub sampling_rate: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct TargetProcess {
    pub pid: u32,
    pub comm: Option<String>,
    pub exe: Option<String>,
    pub cmdline: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Window {
    pub duration_seconds: f64,
    pub ended_by: String,
}

/// End minus start, in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Growth {
    pub rss_bytes: Option<i64>,
    pub anonymous_bytes: Option<i64>,
    pub committed_bytes: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct CallSite {
    /// What the row is called.
    pub label: String,
    pub rank: u32,
    /// `None` where there is no stack, or nothing but allocator in it.
    pub culprit: Option<Culprit>,
    /// The row is of an allocator's arenas.
    #[serde(default)]
    pub arenas: Option<Arenas>,
    /// The way most of it came.
    pub via: String,
    /// All of them.
    #[serde(default)]
    pub vias: Vec<String>,
    /// Address space committed in the window and still held at its end: mapping calls are the layer that is always
    /// on. Null, which is 0 here, only where there was no such call, and blocks are what is told of the site.
    #[serde(deserialize_with = "null_is_none_of_it")]
    pub held_bytes: u64,
    #[serde(deserialize_with = "null_is_none_of_it")]
    pub committed_bytes: u64,
    #[serde(deserialize_with = "null_is_none_of_it")]
    pub released_bytes: u64,
    /// Resident or swapped at the window's end: of the pages that it touched first, or of the held bytes, or the blocks
    /// that it allocated, as its evidence says.
    pub live_bytes: Option<u64>,
    /// Pages of the heap that it was the first to touch, where others' blocks may lie.
    #[serde(default)]
    pub extended_bytes: Option<u64>,
    /// What became of its blocks. `None` where no birth of its was seen.
    #[serde(default)]
    pub allocations: Option<SiteAllocations>,
    /// Of all live bytes, 0 to 1.
    pub share: Option<f64>,
    /// What it touched in the window, gone or not.
    pub touched_bytes: Option<u64>,
    /// Live by touched, 0 to 1.
    pub retention: Option<f64>,
    /// Of the live bytes; `None` or 0 where every page was looked at.
    pub standard_error_bytes: Option<f64>,
    /// `survivors`, `pages` or `mappings`.
    pub evidence: String,
    pub events: u64,
    pub stack_complete: bool,
    pub frames: Vec<Frame>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Culprit {
    pub function: Option<String>,
    pub module: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Frame {
    pub module: Option<String>,
    pub function: Option<String>,
    pub build_id: Option<String>,
    /// ELF virtual address in the module: `0x` and hexadecimal digits.
    pub offset: Option<String>,
    /// Likewise, of the function's first instruction; only where it has no name.
    pub function_start: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Mapping {
    pub path: Option<String>,
    pub kind: String,
    pub rss_growth_bytes: Option<i64>,
    pub size_growth_bytes: Option<i64>,
}

/// Counters by name.
#[derive(Clone, Debug, Deserialize)]
pub struct Losses {
    #[serde(default)]
    pub truncated_stacks: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub counters: BTreeMap<String, Value>,
}

impl Losses {
    /// All counters that are not zero, by their path: `events`, `truncated_stacks.too_deep`, `counters.x`.
    #[must_use]
    pub fn nonzero(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for (reason, count) in &self.truncated_stacks {
            found.insert(format!("truncated_stacks.{reason}"), *count);
        }
        for (name, value) in &self.counters {
            if let Some(count) = value.as_u64() {
                found.insert(name.clone(), count);
            }
            for (inner, value) in value.as_object().into_iter().flatten() {
                found.insert(format!("{name}.{inner}"), value.as_u64().unwrap_or(0));
            }
        }
        found.retain(|_, count| *count > 0);
        found
    }

    /// Stacks that do not reach their root.
    #[must_use]
    pub fn truncated(&self) -> u64 {
        self.truncated_stacks.values().sum()
    }
}

impl CallSite {
    /// Does the culprit carry this name? Signatures and paths around it do not matter:
    /// `shop::UploadHandler::handle_upload(shop::Worker&)` is `handle_upload`.
    #[must_use]
    pub fn blames(&self, function: &str) -> bool {
        let culprit = self.culprit.as_ref();
        culprit
            .and_then(|culprit| culprit.function.as_deref())
            .is_some_and(|name| names(name, function))
    }

    /// Does any frame carry this name?
    #[must_use]
    pub fn runs_through(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| {
            frame
                .function
                .as_deref()
                .is_some_and(|name| names(name, function))
        })
    }
}

fn null_is_none_of_it<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Is `word` one of the identifiers of this name?
fn names(name: &str, word: &str) -> bool {
    name.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|part| part == word)
}

impl Recording {
    /// Reads a recording and checks it by the schema.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        check_fields(&value)?;
        let recording: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if recording.schema_version != 1 {
            return Err(format!("schema_version is {}", recording.schema_version));
        }
        for (expected, site) in (1..).zip(&recording.call_sites) {
            if site.rank != expected {
                return Err(format!("rank {} stands where {expected} should", site.rank));
            }
            if site.held_bytes > site.committed_bytes {
                return Err(format!(
                    "the site of rank {expected} holds more than it committed"
                ));
            }
            let live = site.live_bytes.unwrap_or(0);
            let by_faults = site.vias.iter().any(|via| via == "fault");
            if site.evidence == "mappings" && !by_faults && live > site.held_bytes {
                return Err(format!("the site of rank {expected} has more live than held"));
            }
            if site.retention.is_some_and(|kept| !(0.0..=1.0).contains(&kept)) {
                return Err(format!(
                    "the site of rank {expected} retains {:?}",
                    site.retention
                ));
            }
            if site
                .standard_error_bytes
                .is_some_and(|error| !(error.is_finite() && error >= 0.0))
            {
                return Err(format!(
                    "the site of rank {expected} errs by {:?}",
                    site.standard_error_bytes
                ));
            }
            if site.frames.is_empty() && site.stack_complete {
                return Err(format!(
                    "the site of rank {expected} has a complete stack of no frame"
                ));
            }
        }
        Ok(recording)
    }

    /// The sites that blame this function.
    pub fn sites_of<'a>(&'a self, function: &'a str) -> impl Iterator<Item = &'a CallSite> {
        self.call_sites.iter().filter(move |site| site.blames(function))
    }

    /// Bytes held by all sites that blame this function.
    #[must_use]
    pub fn held_by(&self, function: &str) -> u64 {
        self.sites_of(function).map(|site| site.held_bytes).sum()
    }

    /// Bytes committed by all sites that blame this function.
    #[must_use]
    pub fn committed_by(&self, function: &str) -> u64 {
        self.sites_of(function).map(|site| site.committed_bytes).sum()
    }

    /// Live bytes of all sites that blame this function.
    #[must_use]
    pub fn live_by(&self, function: &str) -> u64 {
        self.sites_of(function).filter_map(|site| site.live_bytes).sum()
    }

    /// Bytes that all sites that blame this function touched.
    #[must_use]
    pub fn touched_by(&self, function: &str) -> u64 {
        self.sites_of(function)
            .filter_map(|site| site.touched_bytes)
            .sum()
    }

    /// Standard error of [`Self::live_by`], bytes: the sites' pages are different ones, so their variances add up.
    #[must_use]
    pub fn standard_error_by(&self, function: &str) -> f64 {
        let variances = self
            .sites_of(function)
            .filter_map(|site| site.standard_error_bytes)
            .map(|error| error * error);
        variances.sum::<f64>().sqrt()
    }

    /// Live bytes of all sites together.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.call_sites.iter().filter_map(|site| site.live_bytes).sum()
    }

    /// Bytes held by all sites together.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.call_sites.iter().map(|site| site.held_bytes).sum()
    }
}

const TOP: &[&str] = &[
    "schema_version",
    "tool",
    "host",
    "target",
    "window",
    "verdict",
    "growth",
    "reconciliation",
    "call_sites",
    "mappings",
    "series",
    "trend",
    "correlations",
    "losses",
    "cost",
];

/// Fields of the objects that are there whichever layers are built.
const INNER: &[(&str, &[&str])] = &[
    ("tool", &["name", "version"]),
    ("host", &["kernel", "arch", "page_size_bytes", "cpus"]),
    (
        "target",
        &["pid", "start_time", "comm", "exe", "cmdline", "container"],
    ),
    ("window", &["started_at", "duration_seconds", "ended_by"]),
    (
        "growth",
        &[
            "rss_bytes",
            "anonymous_bytes",
            "private_dirty_bytes",
            "swap_bytes",
            "committed_bytes",
        ],
    ),
    (
        "cost",
        &[
            "events",
            "cpu_seconds",
            "peak_rss_bytes",
            "kernel_map_bytes",
            "smaps_reads",
            "smaps_read_seconds",
            "sampling_rate",
        ],
    ),
    ("losses", &["truncated_stacks"]),
];

const SITE: &[&str] = &[
    "rank",
    "culprit",
    "via",
    "held_bytes",
    "live_bytes",
    "touched_bytes",
    "retention",
    "committed_bytes",
    "released_bytes",
    "events",
    "share",
    "rate_bytes_per_second",
    "evidence",
    "standard_error_bytes",
    "trend",
    "first_seen_seconds",
    "last_seen_seconds",
    "stack_complete",
    "threads",
    "frames",
];

const FRAME: &[&str] = &[
    "address", "module", "build_id", "offset", "function", "file", "line", "inlined",
];
const MAPPING: &[&str] = &[
    "path",
    "kind",
    "rss_growth_bytes",
    "private_dirty_growth_bytes",
    "size_growth_bytes",
];

fn check_fields(recording: &Value) -> Result<(), String> {
    require(recording, "the recording", TOP)?;
    for (name, fields) in INNER {
        require(&recording[*name], name, fields)?;
    }
    for site in elements(recording, "call_sites") {
        require(site, "a call site", SITE)?;
        if !site["culprit"].is_null() {
            require(
                &site["culprit"],
                "a culprit",
                &["function", "module", "file", "line"],
            )?;
        }
        for frame in elements(site, "frames") {
            require(frame, "a frame", FRAME)?;
            for field in ["address", "offset"] {
                let address = &frame[field];
                let hexadecimal = |text: &str| text.starts_with("0x");
                if !address.is_null() && !address.as_str().is_some_and(hexadecimal) {
                    return Err(format!("a frame's {field} is {address}"));
                }
            }
        }
        one_of(
            &site["via"],
            "via",
            &["mmap", "brk", "mremap", "mprotect", "fault", "malloc"],
        )?;
        one_of(&site["evidence"], "evidence", &["survivors", "pages", "mappings"])?;
    }
    for mapping in elements(recording, "mappings") {
        require(mapping, "a mapping", MAPPING)?;
        one_of(
            &mapping["kind"],
            "kind",
            &["heap", "anonymous", "stack", "file", "shared", "other"],
        )?;
    }
    one_of(
        &recording["window"]["ended_by"],
        "ended_by",
        &["deadline", "interrupt", "target_exit", "target_exec"],
    )
}

fn elements<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn require(value: &Value, what: &str, fields: &[&str]) -> Result<(), String> {
    let object = value
        .as_object()
        .ok_or_else(|| format!("{what} is no object: {value}"))?;
    match fields.iter().find(|field| !object.contains_key(**field)) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "{what} has no field {missing} (absent is null, not left out)"
        )),
    }
}

fn one_of(value: &Value, field: &str, known: &[&str]) -> Result<(), String> {
    match value.as_str() {
        Some(text) if known.contains(&text) => Ok(()),
        _ => Err(format!("{field} is {value}, not one of {known:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        serde_json::from_str(include_str!("../fixtures/recording.json")).unwrap()
    }

    #[test]
    fn the_schemas_example_is_read() {
        let recording = Recording::parse(&example().to_string()).unwrap();
        assert!(recording.call_sites[0].blames("handle_upload"));
        assert!(!recording.call_sites[0].blames("upload"));
        assert!(recording.call_sites[0].runs_through("main"));
        assert_eq!(recording.held_by("handle_upload"), 37_519_360);
        assert_eq!(recording.live_by("handle_render"), 409_600 + 204_800);
        assert_eq!(recording.touched_by("handle_render"), 2 * 819_200);
        let error = recording.standard_error_by("handle_render");
        assert!((error - 34_756.0).abs() < 1.0, "{error}");
        assert_eq!(recording.live(), 38_133_760);
        assert_eq!(
            recording.losses.nonzero().into_iter().collect::<Vec<_>>(),
            [("truncated_stacks.too_deep".to_owned(), 3)]
        );
    }

    #[test]
    fn a_field_left_out_is_refused() {
        let mut value = example();
        value["call_sites"][0]
            .as_object_mut()
            .unwrap()
            .remove("retention");
        assert!(
            Recording::parse(&value.to_string())
                .unwrap_err()
                .contains("retention")
        );
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        for (field, wrong, word) in [
            ("retention", 1.5, "retains"),
            ("standard_error_bytes", -1.0, "errs"),
        ] {
            let mut value = example();
            value["call_sites"][1][field] = wrong.into();
            let refusal = Recording::parse(&value.to_string()).unwrap_err();
            assert!(refusal.contains(word), "{field}: {refusal}");
        }
        // Only what rests on mappings is bound by what is held.
        let mut value = example();
        value["call_sites"][1]["evidence"] = "mappings".into();
        value["call_sites"][1]["vias"] = serde_json::json!(["brk"]);
        assert!(
            Recording::parse(&value.to_string())
                .unwrap_err()
                .contains("more live than held")
        );
    }

    #[test]
    fn a_wrong_rank_and_an_unknown_word_are_refused() {
        let mut value = example();
        value["call_sites"][0]["rank"] = 2.into();
        assert!(
            Recording::parse(&value.to_string())
                .unwrap_err()
                .contains("rank 2")
        );
        let mut value = example();
        value["window"]["ended_by"] = "boredom".into();
        assert!(
            Recording::parse(&value.to_string())
                .unwrap_err()
                .contains("boredom")
        );
    }
}
