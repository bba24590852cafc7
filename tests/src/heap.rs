//! What leakwatch says of a heap, and what a program says of its own: how the two must agree.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::programs;
use crate::record::{Outcome, run_command};
use crate::recording::Losses;
use crate::target::Truth;

/// In use may differ from the truth by one part in a hundred, or by this many bytes where that is more.
pub const TOLERANCE_BYTES: u64 = 64 * 1024;

/// The heap as the recording has it, and as `leakwatch heap` does.
#[derive(Clone, Debug, Deserialize)]
pub struct Heap {
    pub allocator: String,
    pub in_use_bytes: u64,
    pub in_use_count: u64,
    pub free_bytes: u64,
    pub free_kinds: FreeKinds,
    pub overhead_bytes: u64,
    pub mapped_bytes: u64,
    pub mapped_count: u64,
    pub resident_bytes: Option<u64>,
    pub free_pages_bytes: Option<u64>,
    pub trim_bytes: Option<u64>,
    pub largest_free_bytes: Vec<u64>,
    pub arenas: Vec<Arena>,
    pub classes: Vec<Class>,
    /// Only of a window.
    pub growth: Option<Growth>,
    pub took_seconds: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct FreeKinds {
    pub bins: Amount,
    pub top: Amount,
    pub tcache: Amount,
    pub fastbins: Amount,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Amount {
    pub bytes: u64,
    pub count: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Arena {
    pub main: bool,
    pub heaps: u64,
    pub system_bytes: u64,
    pub in_use_bytes: u64,
    pub free_bytes: u64,
    pub free_kinds: FreeKinds,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Class {
    /// The largest request that it serves.
    pub bytes: u64,
    pub chunk_bytes: u64,
    pub count: u64,
    pub in_use_bytes: u64,
    pub free_count: Option<u64>,
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    pub content: Option<String>,
    /// Each has a mapping of its own.
    #[serde(default)]
    pub mapped: bool,
    pub growth_count: Option<i64>,
    pub growth_bytes: Option<i64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Growth {
    pub in_use_bytes: i64,
    pub in_use_count: i64,
    pub free_bytes: i64,
    pub mapped_bytes: i64,
    pub resident_bytes: Option<i64>,
    pub kept_bytes: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    /// `leak`, `growth`, `plateau`, `retention`...
    pub kind: String,
    /// `None` where nothing is claimed.
    pub confidence: Option<f64>,
    /// What it is the product of.
    pub factors: Vec<Factor>,
    pub summary: String,
    pub evidence: Vec<String>,
    pub suggestions: Vec<String>,
    /// `None` where memory does not grow.
    pub limit: Option<Limit>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Factor {
    pub chance: f64,
}

/// The limit that the target meets first.
#[derive(Clone, Debug, Deserialize)]
pub struct Limit {
    pub of: String,
    pub left_bytes: u64,
    pub rate_bytes_per_second: f64,
    pub seconds: Option<f64>,
}

/// What `leakwatch heap` writes.
#[derive(Clone, Debug, Deserialize)]
pub struct Picture {
    pub schema_version: u32,
    pub target: PictureTarget,
    pub heap: Heap,
    pub losses: Losses,
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct PictureTarget {
    pub pid: u32,
}

/// What a program's malloc_info says of one of its arenas.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ArenaTruth {
    pub system: u64,
    pub fast_count: u64,
    pub fast_bytes: u64,
    /// Bins and top together.
    pub rest_count: u64,
    /// Likewise, and up to seven bytes a chunk too high.
    pub rest_bytes: u64,
}

/// A picture of the heap of a process; else what leakwatch says for not taking one.
///
/// # Errors
/// What stands on its stderr.
///
/// # Panics
/// Where it fails otherwise than by one line and exit status 1, or the picture is not what the schema says.
pub fn picture(pid: u32) -> Result<Picture, String> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("heap.json");
    let mut command = Command::new(programs::leakwatch());
    command.args(["heap", "-p", &pid.to_string(), "-o"]).arg(&path);
    let outcome = run_command(command);
    if outcome.status.success() {
        return Ok(read(&path, pid, &outcome));
    }
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert_eq!(outcome.stderr.trim_end().lines().count(), 1, "{outcome}");
    assert!(!path.exists(), "a file though it failed: {outcome}");
    Err(outcome.stderr.trim_end().to_owned())
}

fn read(path: &Path, pid: u32, outcome: &Outcome) -> Picture {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}\n{outcome}", path.display()));
    let picture: Picture =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}\n{outcome}"));
    assert_eq!(picture.schema_version, 1);
    assert_eq!(picture.target.pid, pid);
    assert!(picture.heap.growth.is_none(), "growth without a window: {text}");
    picture.heap.adds_up();
    picture
}

/// The heap of a process that is on glibc's malloc and rests.
#[must_use]
pub fn of_quiet(pid: u32) -> Heap {
    picture(pid)
        .unwrap_or_else(|why| panic!("no picture of {pid}: {why}"))
        .heap
}

impl FreeKinds {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [self.bins, self.top, self.tcache, self.fastbins]
            .iter()
            .map(|kind| kind.bytes)
            .sum()
    }
}

impl Heap {
    /// The sums that hold of any heap, whether it rested or not.
    pub fn adds_up(&self) {
        assert_eq!(self.free_bytes, self.free_kinds.bytes());
        let sum = |what: fn(&Arena) -> u64| self.arenas.iter().map(what).sum::<u64>();
        assert_eq!(self.in_use_bytes, sum(|arena| arena.in_use_bytes));
        assert_eq!(self.free_bytes, sum(|arena| arena.free_bytes));
        let system = sum(|arena| arena.system_bytes);
        assert_eq!(
            self.in_use_bytes + self.free_bytes + self.overhead_bytes,
            system,
            "in use, free and overhead are not all that the arenas have: {:?}",
            self.arenas
        );
        for arena in &self.arenas {
            assert_eq!(arena.free_bytes, arena.free_kinds.bytes(), "{arena:?}");
            assert!(
                arena.in_use_bytes + arena.free_bytes <= arena.system_bytes,
                "{arena:?}"
            );
        }
        let classes = |mapped: bool| self.classes.iter().filter(move |class| class.mapped == mapped);
        let in_arenas: u64 = classes(false).map(|class| class.in_use_bytes).sum();
        assert_eq!(
            in_arenas, self.in_use_bytes,
            "the classes are not all that is in use"
        );
        // Of these some may be known by their number only.
        let mapped: u64 = classes(true).map(|class| class.count).sum();
        assert!(
            mapped <= self.mapped_count,
            "{mapped} of {} large blocks",
            self.mapped_count
        );
        for class in &self.classes {
            assert_eq!(class.in_use_bytes, class.count * class.chunk_bytes, "{class:?}");
        }
        if let (Some(resident), Some(free), Some(trim)) =
            (self.resident_bytes, self.free_pages_bytes, self.trim_bytes)
        {
            assert!(
                trim <= free && free <= resident,
                "{trim} to trim, {free} free, {resident} resident"
            );
        }
    }

    /// In use as the program's `mallinfo2` has it: with what its tcaches keep and the allocator's own headers.
    #[must_use]
    pub fn uordblks(&self) -> u64 {
        self.in_use_bytes + self.free_kinds.tcache.bytes + self.overhead_bytes
    }

    /// All blocks of one size in arenas, whatever is in them.
    #[must_use]
    pub fn count_of(&self, bytes: u64) -> u64 {
        let class = self
            .classes
            .iter()
            .filter(|class| class.bytes == bytes && !class.mapped);
        class.map(|class| class.count).sum()
    }

    /// How many large blocks have a row by their size, and their bytes.
    #[must_use]
    pub fn mapped_rows(&self) -> (u64, u64) {
        let rows = self.classes.iter().filter(|class| class.mapped);
        rows.fold((0, 0), |(count, bytes), class| {
            (count + class.count, bytes + class.in_use_bytes)
        })
    }

    /// Rows of this type, wherever it is declared: `shop::Session` is `Session`.
    pub fn rows_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Class> {
        self.classes.iter().filter(move |class| {
            class
                .type_name
                .as_deref()
                .is_some_and(|own| own.rsplit("::").next() == Some(name))
        })
    }
}

/// The heap is what the program's own `mallinfo2` says of it.
pub fn agrees(heap: &Heap, truth: &Truth) {
    near("in use", heap.uordblks(), truth.number("uordblks"), heap);
    near(
        "free",
        heap.free_bytes - heap.free_kinds.tcache.bytes,
        truth.number("fordblks"),
        heap,
    );
    let system: u64 = heap.arenas.iter().map(|arena| arena.system_bytes).sum();
    near("had from the system", system, truth.number("system"), heap);
    assert_eq!(
        heap.free_kinds.fastbins.bytes,
        truth.number("fastbins"),
        "fastbins: {heap:?}"
    );
}

/// The chunks with mappings of their own are all found.
pub fn mapped_agree(heap: &Heap, truth: &Truth) {
    assert_eq!(
        (heap.mapped_count, heap.mapped_bytes),
        (truth.number("mapped_count"), truth.number("mapped_bytes")),
        "blocks with a mapping of their own: {heap:?}"
    );
}

/// What the program holds by its own count, block by block, is in use, and little else is.
pub fn kept_is_in_use(heap: &Heap, truth: &Truth) {
    near("in use", heap.in_use_bytes, truth.number("kept_bytes"), heap);
}

/// Arena by arena as the program's `malloc_info` has them, in its order.
pub fn arenas_agree(heap: &Heap, truth: &Truth) {
    let told: Vec<ArenaTruth> = serde_json::from_value(truth.more["arenas"].clone())
        .unwrap_or_else(|error| panic!("the program tells its arenas otherwise ({error}): {truth:?}"));
    assert_eq!(heap.arenas.len(), told.len(), "{:?}\n{told:?}", heap.arenas);
    for (arena, told) in heap.arenas.iter().zip(&told) {
        let free = &arena.free_kinds;
        assert_eq!(arena.system_bytes, told.system, "{arena:?}\n{told:?}");
        assert_eq!(
            (free.fastbins.count, free.fastbins.bytes),
            (told.fast_count, told.fast_bytes),
            "{arena:?}\n{told:?}"
        );
        let (count, bytes) = (free.bins.count + free.top.count, free.bins.bytes + free.top.bytes);
        assert_eq!(count, told.rest_count, "{arena:?}\n{told:?}");
        assert!(
            (bytes..=bytes + 7 * count).contains(&told.rest_bytes),
            "{arena:?}\n{told:?}"
        );
    }
}

/// Within 1 % or 64 KiB.
#[track_caller]
pub fn near(what: &str, told: u64, truth: u64, heap: &Heap) {
    assert!(
        told.abs_diff(truth) <= TOLERANCE_BYTES.max(truth / 100),
        "{told} bytes are {what} by leakwatch, {truth} by the program's own count: {:?}",
        heap.arenas
    );
}

/// Within this part of the truth.
#[track_caller]
pub fn within(part: f64, what: &str, told: i64, truth: u64) {
    let truth = i64::try_from(truth).expect("a size");
    #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
    let off = told.abs_diff(truth) as f64 / truth as f64;
    assert!(
        off <= part,
        "{what}: {told} by leakwatch, {truth} by the program's own count"
    );
}
