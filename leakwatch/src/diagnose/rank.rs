//! Call sites, ranked by what they added in the window and still hold. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::diagnose::allocated::{Allocated, AllocatedClass};
use crate::diagnose::culprit::{culprit, frame_label};
use crate::diagnose::pool::Pool;
use crate::ledger::slope;
use crate::symbolize::SymbolizedFrame;

/// How a call site gained memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    Mmap,
    Brk,
    Mremap,
    Mprotect,
    /// It touched the pages first.
    Fault,
    /// It asked the allocator for blocks, by whatever function.
    Malloc,
}

impl Via {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmap => "mmap",
            Self::Brk => "brk",
            Self::Mremap => "mremap",
            Self::Mprotect => "mprotect",
            Self::Fault => "fault",
            Self::Malloc => "malloc",
        }
    }
}

/// What the live bytes of a site rest on, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// Whose blocks are in use, of those whose births were watched.
    Survivors,
    /// Who first touched the pages that are still there.
    Pages,
    /// Who asked for the address space.
    Mappings,
}

impl Evidence {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Survivors => "survivors",
            Self::Pages => "pages",
            Self::Mappings => "mappings",
        }
    }
}

/// What makes two stacks one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// The same chain from the culprit outward, by function (where it has no name, by its start) and module.
    #[default]
    Stack,
    /// The same culprit function.
    Function,
    /// The culprit's module.
    Module,
}

/// One stack with its account, as measured. Bytes; times are seconds from the start of the window.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteFacts {
    pub via: Via,
    /// Innermost first; empty when the event came without a stack.
    pub frames: Arc<[SymbolizedFrame]>,
    /// The stack reaches its root.
    pub complete: bool,
    pub committed: u64,
    pub released: u64,
    /// Address space committed in the window and still committed at its end.
    pub held: u64,
    pub events: u64,
    pub first_seen: f64,
    pub last_seen: f64,
    /// (seconds, bytes), ascending: what it held, with page evidence the pages that it owned.
    pub series: Vec<(f64, u64)>,
    /// Added in the window, and resident or swapped at its end; `None` when it could not be looked up.
    pub live: Option<u64>,
    /// Square of the standard error of `live`, bytes²; 0 when `live` is exact.
    pub live_variance: f64,
    /// First touched by it in the window, gone or not; `None` without page evidence.
    pub touched: Option<u64>,
    /// Pages in regions of the heap that survivors tell of, first touched by it, resident or swapped at the end. They are
    /// no part of `live`, but of `touched`; others' blocks may lie there. `None` where pages are live bytes, and for a
    /// site that touched none.
    pub extended: Option<u64>,
    /// What became of the blocks that it asked for; `None` where no birth of its was seen.
    pub allocated: Option<Allocated>,
    /// All this lies in arenas of an allocator above the process's: whose objects are kept there is not known.
    pub pool: Option<Pool>,
    pub evidence: Evidence,
    /// `committed`, `released` and `held` contain a share of events whose stacks were thinned.
    pub estimated: bool,
    /// Names of the threads that called, escaped where they are not text.
    pub threads: Vec<String>,
    pub process: u32,
}

/// One row of the ranking: the stacks of one culprit chain, or the arenas of one allocator.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedSite {
    /// 1 is first.
    pub rank: u32,
    /// What the row is called; untrusted text.
    pub label: String,
    /// The stacks with their own figures, the one that holds most first; never empty.
    pub stacks: Vec<SiteFacts>,
    /// Index of the culprit in the frames of the first stack; `None` for arenas.
    pub culprit: Option<usize>,
    /// The ways it gained memory, the one that holds most first.
    pub vias: Vec<Via>,
    pub committed: u64,
    pub released: u64,
    pub held: u64,
    pub events: u64,
    pub first_seen: f64,
    pub last_seen: f64,
    /// Sum over the stacks of the row's evidence: pages, or address space.
    pub series: Vec<(f64, u64)>,
    /// `None` when it is unknown for a stack of the row.
    pub live: Option<u64>,
    /// Standard error of `live`, bytes; 0 when it is exact, `None` when `live` is unknown.
    pub standard_error: Option<f64>,
    /// Sum over the stacks where it is known; `None` when it is of none.
    pub touched: Option<u64>,
    /// Live and extended bytes of those stacks over what they touched, 0 to 1: near 1 is kept, near 0 is churn. `None`
    /// when either is unknown or nothing was touched.
    pub retention: Option<f64>,
    /// Sum over the stacks where there are any: see [`SiteFacts::extended`].
    pub extended: Option<u64>,
    /// Of all stacks whose births were seen.
    pub allocated: Option<Allocated>,
    /// The row is of arenas, by whoever touched them first: it has no culprit.
    pub pool: Option<Pool>,
    /// Of the stacks that hold most of the live bytes.
    pub evidence: Evidence,
    /// Some stack's committed, released and held bytes are.
    pub estimated: bool,
    /// Of the live bytes of all rows (held bytes, where a row's live bytes are unknown: what ranks it); `None` when
    /// there are none.
    pub share: Option<f64>,
    /// The slope of the series, bytes per second; negative when the site shrank. Where the series has under four
    /// points, live (else held) bytes over the window; `None` then for an empty window. What survivors tell has no
    /// series: beside one, their bytes over the window are added.
    pub rate: Option<f64>,
    /// Every stack of the row reaches its root.
    pub complete: bool,
    /// Sorted, each once.
    pub threads: Vec<String>,
    /// Sorted, each once.
    pub processes: Vec<u32>,
}

impl RankedSite {
    /// The bytes that rank the row: live where known, else held.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.live.unwrap_or(self.held)
    }
}

/// Groups and ranks. Ties are broken by committed bytes, then by name, so equal input gives equal output whatever its
/// order.
#[must_use]
pub fn rank(facts: Vec<SiteFacts>, by: GroupBy, window_seconds: f64) -> Vec<RankedSite> {
    let mut groups: BTreeMap<Vec<String>, Vec<SiteFacts>> = BTreeMap::new();
    for site in facts {
        let key = match pool(&site, by) {
            Some(pool) => vec![format!("\0{}", pool.name())],
            None => group_key(&site.frames, by),
        };
        groups.entry(key).or_default().push(site);
    }
    let mut rows: Vec<RankedSite> = groups
        .into_values()
        .filter_map(|stacks| row(stacks, by))
        .collect();
    // The map's order, which is by name, stands for what is left equal.
    rows.sort_by_key(|row| Reverse((row.weight(), row.held, row.committed)));

    let total = rows
        .iter()
        .fold(0u64, |sum, row| sum.saturating_add(row.weight()));
    for (index, row) in rows.iter_mut().enumerate() {
        row.rank = u32::try_from(index + 1).unwrap_or(u32::MAX);
        row.share = (total > 0).then(|| row.weight() as f64 / total as f64);
        row.rate = rate(row, window_seconds);
    }
    rows
}

/// The allocator whose arenas a row is of. A module's row has whatever came through its code.
fn pool(site: &SiteFacts, by: GroupBy) -> Option<Pool> {
    site.pool.filter(|_| by != GroupBy::Module)
}

fn rate(row: &RankedSite, window_seconds: f64) -> Option<f64> {
    let over_window = |bytes: u64| (window_seconds > 0.0).then(|| bytes as f64 / window_seconds);
    let Some(slope) = slope(&row.series) else {
        return over_window(row.weight());
    };
    let survivors = row
        .stacks
        .iter()
        .filter(|site| site.evidence == Evidence::Survivors && site.series.is_empty())
        .fold(0u64, |sum, site| sum.saturating_add(site.live.unwrap_or(0)));
    Some(slope + over_window(survivors).unwrap_or(0.0))
}

/// What makes two stacks one row.
#[must_use]
pub fn group_key(frames: &[SymbolizedFrame], by: GroupBy) -> Vec<String> {
    let at = culprit(frames).unwrap_or(0);
    let name = |frame: &SymbolizedFrame| {
        let module = frame.module.as_deref().unwrap_or_default();
        match &frame.function {
            Some(function) => format!("{function}\0{module}"),
            None => format!("{:#x}\0{module}", frame.place()),
        }
    };
    let chain = frames.get(at..).unwrap_or_default();
    match by {
        GroupBy::Stack => chain.iter().map(name).collect(),
        GroupBy::Function => chain.first().map(name).into_iter().collect(),
        GroupBy::Module => chain
            .first()
            .map(|frame| frame.module.as_deref().unwrap_or("\0no module").to_owned())
            .into_iter()
            .collect(),
    }
}

fn row(mut stacks: Vec<SiteFacts>, by: GroupBy) -> Option<RankedSite> {
    let weight = |site: &SiteFacts| site.live.unwrap_or(site.held);
    stacks.sort_by(|a, b| {
        (weight(b), b.held, b.committed, b.events)
            .cmp(&(weight(a), a.held, a.committed, a.events))
            .then_with(|| a.via.cmp(&b.via))
            .then_with(|| a.process.cmp(&b.process))
            .then_with(|| a.frames.iter().map(frame_key).cmp(b.frames.iter().map(frame_key)))
    });
    let first = stacks.first()?;
    let pool = pool(first, by);
    let culprit = culprit(&first.frames).filter(|_| pool.is_none());
    let named = first.frames.get(culprit.unwrap_or(0));
    let label = match (pool, named, by) {
        (Some(pool), ..) => pool.label().to_owned(),
        (None, None, _) => "(no stack)".to_owned(),
        (None, Some(frame), GroupBy::Module) => frame.module.as_deref().unwrap_or("(no module)").to_owned(),
        (None, Some(frame), _) => frame_label(frame),
    };

    let vias = by_weight(stacks.iter().map(|site| (site.via, weight(site))));
    let evidence = by_weight(stacks.iter().map(|site| (site.evidence, weight(site))));
    let evidence = evidence.first().copied().unwrap_or(Evidence::Mappings);
    let live = total(stacks.iter().map(|site| site.live));
    let touchers = || stacks.iter().filter(|site| site.touched.is_some());
    let touched = total(touchers().map(|site| site.touched)).filter(|_| touchers().next().is_some());
    // Of the same stacks: what others keep says nothing about what these touched.
    let kept = total(touchers().map(|site| Some(site.live?.saturating_add(site.extended.unwrap_or(0)))));
    let retention = kept
        .zip(touched.filter(|touched| *touched > 0))
        .map(|(kept, touched)| (kept as f64 / touched as f64).clamp(0.0, 1.0));

    let sum = |of: fn(&SiteFacts) -> u64| stacks.iter().map(of).fold(0u64, u64::saturating_add);
    let mut threads: Vec<String> = stacks
        .iter()
        .flat_map(|site| site.threads.iter().cloned())
        .collect();
    threads.sort();
    threads.dedup();
    let mut processes: Vec<u32> = stacks.iter().map(|site| site.process).collect();
    processes.sort_unstable();
    processes.dedup();
    Some(RankedSite {
        rank: 0,
        label,
        culprit,
        vias,
        committed: sum(|site| site.committed),
        released: sum(|site| site.released),
        held: sum(|site| site.held),
        events: sum(|site| site.events),
        first_seen: stacks
            .iter()
            .map(|site| site.first_seen)
            .fold(f64::INFINITY, f64::min),
        last_seen: stacks.iter().map(|site| site.last_seen).fold(0.0, f64::max),
        // Pages and the address space that they lie in do not add up.
        series: sum_series(
            stacks
                .iter()
                .filter(|site| site.evidence == evidence)
                .map(|site| site.series.as_slice()),
        ),
        live,
        standard_error: live.map(|_| {
            stacks
                .iter()
                .map(|site| site.live_variance)
                .sum::<f64>()
                .max(0.0)
                .sqrt()
        }),
        touched,
        retention,
        extended: stacks
            .iter()
            .filter_map(|site| site.extended)
            .reduce(u64::saturating_add),
        allocated: Allocated::sum(stacks.iter().filter_map(|site| site.allocated.as_ref())),
        pool,
        evidence,
        estimated: stacks.iter().any(|site| site.estimated),
        share: None,
        rate: None,
        complete: stacks.iter().all(|site| site.complete),
        threads,
        processes,
        stacks,
    })
}

/// `None` when one is.
fn total(mut amounts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    amounts.try_fold(0u64, |sum, amount| Some(sum.saturating_add(amount?)))
}

/// Each once, the one with the most bytes first; equals in their own order.
fn by_weight<K: Ord + Copy>(weighted: impl Iterator<Item = (K, u64)>) -> Vec<K> {
    let mut sums: BTreeMap<K, u64> = BTreeMap::new();
    for (key, bytes) in weighted {
        let sum = sums.entry(key).or_default();
        *sum = sum.saturating_add(bytes);
    }
    let mut sums: Vec<(K, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|&(key, bytes)| (Reverse(bytes), key));
    sums.into_iter().map(|(key, _)| key).collect()
}

fn frame_key(frame: &SymbolizedFrame) -> (Option<&str>, Option<&str>, u64) {
    (frame.function.as_deref(), frame.module.as_deref(), frame.offset)
}

/// Sums step functions: at each moment that any of them names, what each held last.
pub fn sum_series<'a>(series: impl Iterator<Item = &'a [(f64, u64)]>) -> Vec<(f64, u64)> {
    let mut changes: Vec<(f64, usize, u64)> = series
        .enumerate()
        .flat_map(|(index, steps)| steps.iter().map(move |&(time, bytes)| (time, index, bytes)))
        .collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = changes.iter().map(|(_, index, _)| index + 1).max().unwrap_or(0);
    let mut now = vec![0u64; count];
    let mut total = 0u64;
    let mut sums: Vec<(f64, u64)> = Vec::new();
    for (time, index, bytes) in changes {
        if let Some(last) = now.get_mut(index) {
            total = total.saturating_sub(*last).saturating_add(bytes);
            *last = bytes;
        }
        match sums.last_mut() {
            Some((at, sum)) if *at == time => *sum = total,
            _ => sums.push((time, total)),
        }
    }
    sums
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
