//! Call sites, ranked by what they added in the window and still hold. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::diagnose::culprit::{culprit, frame_label};
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
        }
    }
}

/// What the live bytes of a site rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
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
    pub frames: Vec<SymbolizedFrame>,
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
    pub evidence: Evidence,
    /// `committed`, `released` and `held` contain a share of events whose stacks were thinned.
    pub estimated: bool,
    /// Names of the threads that called, escaped where they are not text.
    pub threads: Vec<String>,
    pub process: u32,
}

/// One row of the ranking: the stacks of one culprit chain.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedSite {
    /// 1 is first.
    pub rank: u32,
    /// What the row is called; untrusted text.
    pub label: String,
    /// The stacks with their own figures, the one that holds most first; never empty.
    pub stacks: Vec<SiteFacts>,
    /// Index of the culprit in the frames of the first stack.
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
    /// Live over touched bytes of those stacks, 0 to 1: near 1 is kept, near 0 is churn. `None` when either is unknown
    /// or nothing was touched.
    pub retention: Option<f64>,
    /// Of the stacks that hold most of the live bytes.
    pub evidence: Evidence,
    /// Some stack's committed, released and held bytes are.
    pub estimated: bool,
    /// Of the live bytes of all rows (held bytes, where a row's live bytes are unknown: what ranks it); `None` when
    /// there are none.
    pub share: Option<f64>,
    /// The slope of the series, bytes per second; negative when the site shrank. Where the series has under four
    /// points, live (else held) bytes over the window; `None` then for an empty window.
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
        groups.entry(key(&site.frames, by)).or_default().push(site);
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
        row.rate = slope(&row.series)
            .or_else(|| (window_seconds > 0.0).then(|| row.weight() as f64 / window_seconds));
    }
    rows
}

fn key(frames: &[SymbolizedFrame], by: GroupBy) -> Vec<String> {
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
    let culprit = culprit(&first.frames);
    let named = first.frames.get(culprit.unwrap_or(0));
    let label = match (named, by) {
        (None, _) => "(no stack)".to_owned(),
        (Some(frame), GroupBy::Module) => frame.module.as_deref().unwrap_or("(no module)").to_owned(),
        (Some(frame), _) => frame_label(frame),
    };

    let vias = by_weight(stacks.iter().map(|site| (site.via, weight(site))));
    let evidence = by_weight(stacks.iter().map(|site| (site.evidence, weight(site))));
    let evidence = evidence.first().copied().unwrap_or(Evidence::Mappings);
    let live = total(stacks.iter().map(|site| site.live));
    let touchers = || stacks.iter().filter(|site| site.touched.is_some());
    let touched = total(touchers().map(|site| site.touched)).filter(|_| touchers().next().is_some());
    // Of the same stacks: what others keep says nothing about what these touched.
    let kept = total(touchers().map(|site| site.live));
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(function: &str, module: &str) -> SymbolizedFrame {
        SymbolizedFrame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..SymbolizedFrame::default()
        }
    }

    fn site(stack: &[&str], live: u64) -> SiteFacts {
        SiteFacts {
            via: Via::Mmap,
            frames: stack
                .iter()
                .map(|name| {
                    frame(
                        name,
                        if matches!(*name, "malloc" | "mmap" | "brk") {
                            "/usr/lib/libc.so.6"
                        } else {
                            "/app"
                        },
                    )
                })
                .collect(),
            complete: true,
            committed: 2 * live + 1,
            released: live,
            held: live + 1,
            events: 1,
            first_seen: 1.0,
            last_seen: 2.0,
            series: vec![(0.0, 0), (1.0, live)],
            live: Some(live),
            live_variance: 0.0,
            touched: None,
            evidence: Evidence::Mappings,
            estimated: false,
            threads: vec!["worker".into()],
            process: 7,
        }
    }

    fn names(rows: &[RankedSite]) -> Vec<(&str, Option<u64>)> {
        rows.iter().map(|row| (row.label.as_str(), row.live)).collect()
    }

    #[test]
    fn the_same_culprit_chain_is_one_row() {
        let facts = vec![
            site(&["mmap", "malloc", "leak", "main"], 10),
            site(&["brk", "malloc", "leak", "main"], 30),
            site(&["malloc", "leak", "other"], 25),
            site(&["malloc", "cache", "main"], 39),
        ];
        let rows = rank(facts.clone(), GroupBy::Stack, 10.0);
        assert_eq!(
            names(&rows),
            [("leak", Some(40)), ("cache", Some(39)), ("leak", Some(25))]
        );
        assert_eq!(rows[0].stacks.len(), 2);
        assert_eq!(rows[0].stacks[0].live, Some(30));
        assert_eq!(rows[0].culprit, Some(2));
        assert_eq!(rows[0].rate, Some(4.0));
        assert_eq!(rows[0].series, [(0.0, 0), (1.0, 40)]);
        assert_eq!(rows.iter().map(|row| row.rank).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            names(&rank(facts.clone(), GroupBy::Function, 1.0)),
            [("leak", Some(65)), ("cache", Some(39))]
        );
        assert_eq!(names(&rank(facts, GroupBy::Module, 1.0)), [("/app", Some(104))]);
    }

    /// A function of a stripped file that maps, and then touches, is one row, called by where it begins.
    #[test]
    fn calls_in_one_unnamed_function_are_one_row() {
        let unnamed = |offset, function_start: Option<u64>, module: &str, live| {
            let outer = SymbolizedFrame {
                offset: offset + 0x1000,
                function_start: function_start.map(|start| start + 0x1000),
                module: Some(module.into()),
                ..SymbolizedFrame::default()
            };
            let inner = SymbolizedFrame {
                offset,
                function_start,
                ..outer.clone()
            };
            SiteFacts {
                frames: vec![inner, outer],
                ..site(&[], live)
            }
        };
        let facts = vec![
            unnamed(0x1a9, Some(0x100), "/bin/python3", 30),
            unnamed(0x1b4, Some(0x100), "/bin/python3", 8),
            // The next function, the same one elsewhere, and code of which nothing is known.
            unnamed(0x1f4, Some(0x1c0), "/bin/python3", 7),
            unnamed(0x1a9, Some(0x100), "/bin/postgres", 6),
            unnamed(0x304, None, "/bin/python3", 5),
            unnamed(0x300, None, "/bin/python3", 4),
        ];
        for by in [GroupBy::Stack, GroupBy::Function] {
            assert_eq!(
                names(&rank(facts.clone(), by, 1.0)),
                [
                    ("python3+0x100", Some(38)),
                    ("python3+0x1c0", Some(7)),
                    ("postgres+0x100", Some(6)),
                    ("python3+0x304", Some(5)),
                    ("python3+0x300", Some(4)),
                ]
            );
        }
        // Another caller is another chain.
        let mut elsewhere = unnamed(0x1b4, Some(0x100), "/bin/python3", 8);
        elsewhere.frames[1].function_start = Some(0x5000);
        let facts = vec![facts[0].clone(), elsewhere];
        assert_eq!(rank(facts.clone(), GroupBy::Stack, 1.0).len(), 2);
        assert_eq!(rank(facts, GroupBy::Function, 1.0).len(), 1);
    }

    #[test]
    fn unknown_is_not_zero() {
        let mut unknown = site(&["a"], 5);
        unknown.live = None;
        unknown.held = 50;
        let rows = rank(
            vec![unknown.clone(), site(&["a"], 7), site(&["b"], 20)],
            GroupBy::Stack,
            0.0,
        );
        // `a` holds 50 + 8, `b` 21; the live bytes of `a` are not known.
        assert_eq!(names(&rows), [("a", None), ("b", Some(20))]);
        assert_eq!(rows[0].share, Some(58.0 / 78.0));
        assert_eq!(rows[0].rate, None);
    }

    #[test]
    fn errors_add_in_squares_and_retention_is_of_what_was_touched() {
        let paged = |live: u64, variance: f64, touched: u64| SiteFacts {
            via: Via::Fault,
            live_variance: variance,
            touched: Some(touched),
            evidence: Evidence::Pages,
            ..site(&["a"], live)
        };
        let mapped = SiteFacts {
            estimated: true,
            ..site(&["a"], 100)
        };
        let rows = rank(
            vec![paged(30, 9.0, 100), paged(20, 16.0, 100), mapped.clone()],
            GroupBy::Stack,
            1.0,
        );
        let row = &rows[0];
        assert_eq!((row.live, row.touched), (Some(150), Some(200)));
        assert_eq!(row.standard_error, Some(5.0));
        // The mapping's 100 bytes were not touched by anybody that is known.
        assert_eq!(row.retention, Some(0.25));
        assert_eq!(row.evidence, Evidence::Mappings);
        assert_eq!(row.vias, [Via::Mmap, Via::Fault]);
        assert!(row.estimated);

        // The address space of the same site is not counted as pages, even where some of it has no other toucher.
        let beside = SiteFacts {
            series: vec![(0.0, 5000)],
            ..site(&["a"], 2)
        };
        let rows = rank(vec![paged(30, 0.0, 40), beside.clone()], GroupBy::Stack, 1.0);
        assert_eq!(rows[0].series, [(0.0, 0), (1.0, 30)]);
        assert_eq!((rows[0].live, rows[0].evidence), (Some(32), Evidence::Pages));
        let rows = rank(vec![beside], GroupBy::Stack, 1.0);
        assert_eq!(rows[0].series, [(0.0, 5000)]);

        let rows = rank(vec![paged(30, 0.0, 20)], GroupBy::Stack, 1.0);
        assert_eq!(
            (rows[0].retention, rows[0].standard_error),
            (Some(1.0), Some(0.0))
        );
        assert_eq!(rows[0].evidence, Evidence::Pages);
        assert!(!rows[0].estimated);

        let rows = rank(vec![mapped], GroupBy::Stack, 1.0);
        assert_eq!((rows[0].touched, rows[0].retention), (None, None));
        let rows = rank(vec![paged(0, 0.0, 0)], GroupBy::Stack, 1.0);
        assert_eq!((rows[0].touched, rows[0].retention), (Some(0), None));
        let unknown = SiteFacts {
            live: None,
            ..paged(1, 4.0, 9)
        };
        let rows = rank(vec![unknown], GroupBy::Stack, 1.0);
        assert_eq!(rows[0].touched, Some(9));
        assert_eq!((rows[0].retention, rows[0].standard_error), (None, None));
    }

    #[test]
    fn four_points_make_a_rate() {
        let with = |series: Vec<(f64, u64)>| SiteFacts {
            series,
            ..site(&["a"], 1000)
        };
        let rate = |series| rank(vec![with(series)], GroupBy::Stack, 10.0)[0].rate;
        assert_eq!(rate(vec![(0.0, 0), (5.0, 1), (10.0, 2)]), Some(100.0));
        assert_eq!(rate(vec![(0.0, 0), (1.0, 20), (2.0, 40), (3.0, 60)]), Some(20.0));
        assert_eq!(rate(vec![(0.0, 60), (1.0, 40), (2.0, 20), (3.0, 0)]), Some(-20.0));
        // All at one moment: no line.
        assert_eq!(rate(vec![(1.0, 1); 4]), Some(100.0));
        // Of the row's series, not of one stack's.
        let row = rank(
            vec![with(vec![(0.0, 0), (2.0, 40)]), with(vec![(1.0, 20), (3.0, 40)])],
            GroupBy::Stack,
            10.0,
        );
        assert_eq!(row[0].series, [(0.0, 0), (1.0, 20), (2.0, 60), (3.0, 80)]);
        assert_eq!(row[0].rate, Some(28.0));
    }

    #[test]
    fn an_event_without_a_stack_is_a_row_of_its_own() {
        let rows = rank(vec![site(&[], 5), site(&["a"], 1)], GroupBy::Function, 1.0);
        assert_eq!(names(&rows), [("(no stack)", Some(5)), ("a", Some(1))]);
        assert_eq!(rows[0].culprit, None);
        assert!(rank(Vec::new(), GroupBy::Stack, 1.0).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_order_of_the_input_does_not_matter(
            picks in proptest::collection::vec((0usize..5, 0usize..3, 0u64..4), 0..40), turn in 0usize..40,
        ) {
            let mut facts: Vec<SiteFacts> = picks.iter()
                .map(|&(a, b, live)| site(&["malloc", ["a", "b", "c", "d", "e"][a], ["x", "y", "z"][b]], live))
                .collect();
            let rows = rank(facts.clone(), GroupBy::Stack, 10.0);
            prop_assert_eq!(rows.iter().map(|row| row.live.unwrap()).sum::<u64>(), picks.iter().map(|p| p.2).sum::<u64>());
            prop_assert_eq!(rows.iter().map(|row| row.events).sum::<u64>(), picks.len() as u64);
            prop_assert!(rows.is_sorted_by_key(|row| Reverse(row.live)));
            let shares: f64 = rows.iter().filter_map(|row| row.share).sum();
            prop_assert!(shares == 0.0 || (shares - 1.0).abs() < 1e-9);
            if !facts.is_empty() { let at = turn % facts.len(); facts.rotate_left(at); }
            prop_assert_eq!(rank(facts, GroupBy::Stack, 10.0), rows);
        }
    }
}
