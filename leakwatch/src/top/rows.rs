//! From call sites to rows: stacks with the same culprit chain are one. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::view::{Named, Row, RowStack};
use crate::diagnose::rank::{Evidence, sum_series};
use crate::ledger::slope;
use crate::session::live::{Blocks, LiveSite};

/// Groups call sites, each with its names. `elapsed`: seconds of the window.
#[must_use]
pub fn rows(sites: Vec<(LiveSite, Arc<Named>)>, elapsed: f64) -> Vec<Row> {
    let mut groups: BTreeMap<Arc<str>, Vec<(LiveSite, Arc<Named>)>> = BTreeMap::new();
    for (site, named) in sites {
        groups.entry(named.key.clone()).or_default().push((site, named));
    }
    groups
        .into_iter()
        .filter_map(|(key, sites)| row(key, sites, elapsed))
        .collect()
}

fn row(key: Arc<str>, mut sites: Vec<(LiveSite, Arc<Named>)>, elapsed: f64) -> Option<Row> {
    sites.sort_by_key(|(site, _)| Reverse((site.bytes, site.events)));
    let named = Arc::clone(&sites.first()?.1);
    let of = |survivors: bool| {
        sites
            .iter()
            .map(|(site, _)| site)
            .filter(move |site| (site.evidence == Evidence::Survivors) == survivors)
    };
    let sum = |survivors, field: fn(&LiveSite) -> u64| of(survivors).map(field).fold(0, u64::saturating_add);
    let bytes = sum(false, |site| site.bytes);
    let blocks = of(true)
        .filter_map(|site| site.blocks)
        .reduce(|one, next| Blocks {
            followed: one.followed.saturating_add(next.followed),
            alive: one.alive.saturating_add(next.alive),
        });
    let surviving = blocks.map(|blocks| (sum(true, |site| site.bytes), blocks));
    let over_window = |bytes: u64| (elapsed > 0.0).then(|| bytes as f64 / elapsed);
    let series = sum_series(of(false).map(|site| site.series.as_slice()));
    let rate = if bytes > 0 {
        slope(&series).or_else(|| over_window(bytes))
    } else {
        over_window(surviving.map_or(0, |(bytes, _)| bytes))
    };
    let mut threads: Vec<String> = sites.iter().flat_map(|(site, _)| site.threads.clone()).collect();
    threads.sort();
    threads.dedup();
    let mut processes: Vec<u32> = sites.iter().map(|(site, _)| site.process).collect();
    processes.sort_unstable();
    processes.dedup();
    Some(Row {
        key,
        label: Arc::clone(&named.label),
        module: Arc::clone(&named.module),
        haystack: Arc::clone(&named.haystack),
        bytes,
        gained: sum(false, |site| site.gained.unwrap_or(0)),
        surviving,
        rate,
        events: sum(false, |site| site.events),
        last_seen: sites.iter().map(|(site, _)| site.last_seen).fold(0.0, f64::max),
        stacks: sites
            .iter()
            .map(|(site, named)| RowStack {
                id: site.id,
                via: site.via,
                evidence: site.evidence,
                bytes: site.bytes,
                complete: site.complete(),
                named: Arc::clone(named),
            })
            .collect(),
        threads,
        processes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::naming::named;
    use super::*;
    use crate::diagnose::rank::{GroupBy, Via};
    use crate::symbolize::SymbolizedFrame;
    use crate::unwind::{Ending, Stack, StackId};

    fn site(id: u32, evidence: Evidence, bytes: u64, functions: &[&str]) -> (LiveSite, Arc<Named>) {
        let survivors = evidence == Evidence::Survivors;
        let frames = functions.iter().map(|function| SymbolizedFrame {
            function: Some((*function).into()),
            module: Some("/bin/server".into()),
            ..SymbolizedFrame::default()
        });
        let site = LiveSite {
            process: 7,
            via: if survivors { Via::Malloc } else { Via::Fault },
            id: StackId(id),
            stack: Stack {
                frames: Vec::new(),
                ending: Ending::Root,
            },
            evidence,
            bytes,
            gained: (!survivors).then_some(2 * bytes),
            blocks: survivors.then_some(Blocks {
                followed: 10,
                alive: 4,
            }),
            events: 3,
            series: vec![(1.0, bytes / 2), (2.0, bytes)],
            last_seen: 2.0,
            threads: vec!["worker".into()],
        };
        (site, Arc::new(named(frames.collect(), GroupBy::Stack)))
    }

    #[test]
    fn pages_and_survivors_of_one_chain_are_one_row_and_are_not_added_up() {
        let rows = rows(
            vec![
                site(1, Evidence::Pages, 8192, &["memset", "leak", "main"]),
                site(2, Evidence::Survivors, 4096, &["malloc", "leak", "main"]),
                site(3, Evidence::Survivors, 96, &["calloc", "leak", "main"]),
                site(4, Evidence::Pages, 100, &["other", "main"]),
            ],
            10.0,
        );
        assert_eq!(rows.len(), 2);
        let leak = rows.iter().find(|row| &*row.label == "leak").unwrap();
        assert_eq!((leak.bytes, leak.gained, leak.events), (8192, 16384, 3));
        assert_eq!(
            leak.surviving,
            Some((
                4192,
                Blocks {
                    followed: 20,
                    alive: 8
                }
            ))
        );
        assert_eq!(leak.kept(), Some(0.5));
        assert_eq!(leak.stacks[0].id, StackId(1));
        assert!(leak.has(StackId(3)) && !leak.has(StackId(4)));
        assert_eq!(leak.threads, ["worker"]);
        // Two points are no line.
        assert_eq!(leak.rate, Some(819.2));
        assert!(
            rows.iter()
                .any(|row| &*row.label == "other" && row.surviving.is_none())
        );
    }

    #[test]
    fn the_rate_of_survivors_alone_is_theirs() {
        let rows = rows(vec![site(1, Evidence::Survivors, 500, &["malloc", "leak"])], 10.0);
        assert_eq!(
            (rows[0].bytes, rows[0].rate, rows[0].kept()),
            (0, Some(50.0), None)
        );
    }
}
