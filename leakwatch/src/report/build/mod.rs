//! Parts of the recording from what the stages measured. Names become text here, once.

pub mod allocations;
pub mod diff;
pub mod heap;
pub mod history;
pub mod origin;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnose::culprit::{culprit, frame_label};
use crate::diagnose::pool::Pool;
use crate::diagnose::rank::{Evidence, RankedSite, SiteFacts};
use crate::diagnose::reconcile::Account;
use crate::diagnose::{trend, verdict};
use crate::report::escape::text_of;
use crate::report::model::frames::Frames;
use crate::report::model::{
    Address, Arenas, CallSite, Correlation, Culprit, Frame, Growth, LibraryRow, Limit, MappingRow,
    MemoryTrend, ReasonRow, Reconciliation, RegionRow, Sample, SharedFrame, SitePoint, StackRow, Toucher,
    Verdict, VerdictFactor,
};
use crate::sampler::growth::{Delta, Fate, LibraryGrowth, MappingGrowth};
use crate::sampler::region::Region;
use crate::sampler::totals::{Rollup, Totals};
use crate::symbolize::SymbolizedFrame;

/// A frame of the recording. Where there is no module the offset is the address.
#[must_use]
pub fn frame(frame: &SymbolizedFrame) -> Frame {
    let address = Address(frame.offset);
    Frame {
        address: frame.module.is_none().then_some(address),
        module: frame.module.clone(),
        build_id: frame.build_id.clone(),
        offset: frame.module.is_some().then_some(address),
        function: frame.function.clone(),
        function_start: frame.function_start.map(Address),
        file: frame.file.clone(),
        line: frame.line,
        inlined: frame.inlined,
    }
}

/// The call sites, in the order given.
#[must_use]
pub fn call_sites(sites: &[RankedSite]) -> Vec<CallSite> {
    let mut known = Frames::default();
    sites.iter().map(|site| call_site(site, &mut known)).collect()
}

fn frames(frames: &[SymbolizedFrame], known: &mut Frames) -> Vec<SharedFrame> {
    frames.iter().map(|it| known.share(frame(it))).collect()
}

fn call_site(site: &RankedSite, known: &mut Frames) -> CallSite {
    let frames = site
        .stacks
        .first()
        .map(|stack| frames(&stack.frames, known))
        .unwrap_or_default();
    let culprit = site.culprit.and_then(|at| {
        let named = frames.get(at)?;
        Some(Culprit {
            function: named.function.clone(),
            module: named.module.clone(),
            file: named.file.clone(),
            line: named.line,
            frame: Some(at),
        })
    });
    CallSite {
        rank: site.rank,
        label: site.label.as_str().into(),
        culprit,
        via: site.vias.first().map_or("mmap", |via| via.name()).to_owned(),
        vias: site.vias.iter().map(|via| via.name().to_owned()).collect(),
        live_bytes: site.live,
        held_bytes: Some(site.held),
        touched_bytes: site.touched,
        retention: site.retention.and_then(finite),
        committed_bytes: Some(site.committed),
        released_bytes: Some(site.released),
        events: site.events,
        share: site.share.and_then(finite),
        rate_bytes_per_second: site.rate.and_then(finite),
        evidence: site.evidence.name().to_owned(),
        standard_error_bytes: site.standard_error.and_then(finite),
        estimated: site.estimated,
        extended_bytes: site.extended,
        allocations: site
            .allocated
            .as_ref()
            .map(|it| Box::new(allocations::of_site(it))),
        arenas: site.pool.map(|pool| arenas(pool, &site.stacks)),
        trend: None,
        first_seen_seconds: finite(site.first_seen),
        last_seen_seconds: finite(site.last_seen),
        stack_complete: site.complete,
        threads: site.threads.clone(),
        processes: site.processes.clone(),
        series: (!site.series.is_empty()).then(|| {
            site.series
                .iter()
                .map(|&(t, held_bytes)| SitePoint { t, held_bytes })
                .collect()
        }),
        frames,
        stacks: (site.stacks.len() > 1).then(|| site.stacks.iter().map(|it| stack(it, known)).collect()),
    }
}

/// How many who touched arenas first are told.
const TOUCHERS: usize = 8;

fn arenas(pool: Pool, stacks: &[SiteFacts]) -> Arenas {
    let mut by_name: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks.iter().filter(|stack| stack.evidence == Evidence::Pages) {
        if let Some(frame) = culprit(&stack.frames).and_then(|at| stack.frames.get(at)) {
            let bytes = by_name.entry(frame_label(frame)).or_default();
            *bytes = bytes.saturating_add(stack.live.unwrap_or(0));
        }
    }
    let mut first_touched_by: Vec<Toucher> = by_name
        .into_iter()
        .filter(|(_, live_bytes)| *live_bytes > 0)
        .map(|(name, live_bytes)| Toucher { name, live_bytes })
        .collect();
    first_touched_by.sort_by_key(|toucher| Reverse(toucher.live_bytes));
    first_touched_by.truncate(TOUCHERS);
    Arenas {
        allocator: pool.name().to_owned(),
        first_touched_by,
    }
}

/// JSON has no infinity, and nothing that is not a number.
fn finite(figure: f64) -> Option<f64> {
    figure.is_finite().then_some(figure)
}

fn stack(site: &SiteFacts, known: &mut Frames) -> StackRow {
    StackRow {
        via: site.via.name().to_owned(),
        live_bytes: site.live,
        held_bytes: Some(site.held),
        events: site.events,
        stack_complete: site.complete,
        process: Some(site.process),
        frames: frames(&site.frames, known),
    }
}

#[must_use]
pub fn verdict(verdict: &verdict::Verdict) -> Verdict {
    Verdict {
        kind: verdict.kind.name().to_owned(),
        rule: Some(verdict.rule.to_owned()),
        confidence: verdict.confidence.and_then(finite),
        factors: verdict
            .factors
            .iter()
            .map(|factor| VerdictFactor {
                what: factor.what.to_owned(),
                chance: factor.chance,
            })
            .collect(),
        summary: verdict.summary.clone(),
        evidence: verdict.evidence.clone(),
        suggestions: verdict.suggestions.clone(),
        limit: verdict.reached.as_ref().map(limit),
        watch_longer_seconds: verdict.watch_longer.and_then(finite),
    }
}

fn limit(reached: &verdict::Reached) -> Limit {
    let room = &reached.room;
    Limit {
        of: room.of.name().to_owned(),
        limit_bytes: room.limit,
        left_bytes: room.left,
        rate_bytes_per_second: reached.rate,
        seconds: finite(reached.seconds),
    }
}

#[must_use]
pub fn reconciliation(account: &Account) -> Reconciliation {
    Reconciliation {
        smaps_growth_bytes: account.growth,
        attributed_bytes: account.attributed,
        unattributed_bytes: account.unattributed,
        coverage: account.coverage.and_then(finite),
        standard_error_bytes: finite(account.standard_error),
        reasons: account
            .reasons
            .iter()
            .map(|&(reason, bytes)| ReasonRow {
                reason: reason.name().to_owned(),
                bytes,
            })
            .collect(),
        regions: account
            .regions
            .iter()
            .map(|&(region, growth_bytes, attributed_bytes)| RegionRow {
                region: region.name().to_owned(),
                growth_bytes,
                attributed_bytes,
            })
            .collect(),
    }
}

/// Mappings that changed; the others say nothing.
#[must_use]
pub fn mappings(rows: &[MappingGrowth]) -> Vec<MappingRow> {
    rows.iter()
        .filter(|row| row.growth != Delta::default())
        .map(mapping)
        .collect()
}

fn mapping(row: &MappingGrowth) -> MappingRow {
    let MappingGrowth {
        mapping,
        region,
        kind: _,
        fate,
        growth,
    } = row;
    let flag = |set: bool, letter: char| if set { letter } else { '-' };
    let kind = match region {
        // The schema's kinds know no arena; the finer word is in `region`.
        Region::Arena => Region::Anonymous,
        other => *other,
    };
    MappingRow {
        path: mapping.path.is_some().then(|| text_of(mapping.path_bytes())),
        kind: kind.name().to_owned(),
        region: region.name().to_owned(),
        start: Address(mapping.range.start),
        end: Address(mapping.range.end),
        permissions: [
            flag(mapping.readable, 'r'),
            flag(mapping.writable, 'w'),
            flag(mapping.executable, 'x'),
            if mapping.shared { 's' } else { 'p' },
        ]
        .iter()
        .collect(),
        fate: match fate {
            Fate::New => "new",
            Fate::Gone => "gone",
            Fate::Stayed => "stayed",
        }
        .to_owned(),
        rss_growth_bytes: growth.rss,
        private_dirty_growth_bytes: growth.private_dirty,
        size_growth_bytes: growth.size,
        pss_growth_bytes: growth.pss,
        anonymous_growth_bytes: growth.anonymous,
        swap_growth_bytes: growth.swap,
    }
}

/// Files and regions that changed.
#[must_use]
pub fn libraries(rows: &[LibraryGrowth]) -> Vec<LibraryRow> {
    rows.iter()
        .filter(|row| row.growth != Delta::default())
        .map(
            |LibraryGrowth {
                 name,
                 mappings,
                 growth,
             }| LibraryRow {
                name: text_of(name),
                mappings: *mappings,
                rss_growth_bytes: growth.rss,
                private_dirty_growth_bytes: growth.private_dirty,
                size_growth_bytes: growth.size,
                pss_growth_bytes: growth.pss,
                anonymous_growth_bytes: growth.anonymous,
                swap_growth_bytes: growth.swap,
            },
        )
        .collect()
}

/// End minus start; a figure that either end lacks is null. Where smaps_rollup is missing, anonymous memory comes
/// from status.
#[must_use]
pub fn growth(start: (&Totals, Option<&Rollup>), end: (&Totals, Option<&Rollup>)) -> Growth {
    let difference = |before: Option<u64>, after: Option<u64>| {
        i64::try_from(after?)
            .ok()?
            .checked_sub(i64::try_from(before?).ok()?)
    };
    let rollup = |of: fn(&Rollup) -> Option<u64>| difference(start.1.and_then(of), end.1.and_then(of));
    let totals = |of: fn(&Totals) -> Option<u64>| difference(of(start.0), of(end.0));
    Growth {
        rss_bytes: rollup(|r| r.rss).or_else(|| totals(|t| t.rss)),
        anonymous_bytes: rollup(|r| r.anonymous).or_else(|| totals(|t| t.rss_anonymous)),
        private_dirty_bytes: rollup(|r| r.private_dirty),
        swap_bytes: rollup(|r| r.swap).or_else(|| totals(|t| t.swap)),
        committed_bytes: totals(|t| t.data),
    }
}

/// How anonymous memory went.
#[must_use]
pub fn trend(trend: &trend::Trend) -> MemoryTrend {
    let known = |value: f64| value.is_finite().then_some(value);
    let (low, high) = (known(trend.interval.0), known(trend.interval.1));
    MemoryTrend {
        kind: trend.kind.name().to_owned(),
        slope_bytes_per_second: known(trend.slope).filter(|_| low.is_some() && high.is_some()),
        slope_low_bytes_per_second: low,
        slope_high_bytes_per_second: high,
        p_value: known(trend.p_value),
        samples: trend.samples as u64,
        watch_longer_seconds: trend.watch_longer.and_then(known),
    }
}

/// What it goes with.
#[must_use]
pub fn correlation(goes: &verdict::Goes) -> Correlation {
    let correlation = &goes.correlation;
    let each = correlation.per_unit.as_ref();
    Correlation {
        with: goes.with.name().to_owned(),
        coefficient: Some(correlation.coefficient),
        p_value: Some(correlation.p_value),
        p_value_corrected: Some(goes.chance),
        bytes_per_unit: each.map(|each| each.bytes),
        bytes_per_unit_low: each.map(|each| each.low),
        bytes_per_unit_high: each.map(|each| each.high),
        lag_seconds: Some(correlation.lag),
        few_events: correlation.rests_on_few_events(),
    }
}

/// One point of the series; `t` in seconds from the start of the window. The counts are of descriptors and of connections.
/// Few points have a rollup, and its count of anonymous memory may differ a little: all have that of `totals`.
#[must_use]
pub fn sample(
    t: f64,
    totals: &Totals,
    rollup: Option<&Rollup>,
    (fds, connections): (Option<u64>, Option<u64>),
) -> Sample {
    Sample {
        t,
        rss_bytes: totals.rss,
        anonymous_bytes: totals
            .rss_anonymous
            .or_else(|| rollup.and_then(|rollup| rollup.anonymous)),
        private_dirty_bytes: rollup.and_then(|rollup| rollup.private_dirty),
        pss_bytes: rollup.and_then(|rollup| rollup.pss),
        swap_bytes: totals.swap,
        threads: totals.threads,
        fds,
        connections,
    }
}

/// Any bytes of the target (a path, a thread's name up to its NUL) as text of the recording.
#[must_use]
pub fn text(bytes: &[u8]) -> Arc<str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    text_of(bytes.get(..end).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_null_where_an_end_is_missing() {
        let start = Totals {
            rss: Some(100),
            data: Some(7),
            ..Totals::default()
        };
        let end = Totals {
            rss: Some(40),
            swap: Some(1),
            ..Totals::default()
        };
        let rollup = Rollup {
            anonymous: Some(5),
            ..Rollup::default()
        };
        let growth = growth((&start, Some(&rollup)), (&end, Some(&rollup)));
        assert_eq!(growth.rss_bytes, Some(-60));
        assert_eq!(growth.anonymous_bytes, Some(0));
        assert_eq!(
            (
                growth.swap_bytes,
                growth.committed_bytes,
                growth.private_dirty_bytes
            ),
            (None, None, None)
        );
    }

    #[test]
    fn a_frame_has_an_address_or_an_offset() {
        let in_module = SymbolizedFrame {
            offset: 16,
            module: Some("/x".into()),
            ..SymbolizedFrame::default()
        };
        assert_eq!(
            (frame(&in_module).address, frame(&in_module).offset),
            (None, Some(Address(16)))
        );
        assert_eq!(frame(&in_module).function_start, None);
        let in_function = SymbolizedFrame {
            function_start: Some(8),
            ..in_module
        };
        assert_eq!(
            (frame(&in_function).offset, frame(&in_function).function_start),
            (Some(Address(16)), Some(Address(8)))
        );
        let jit = SymbolizedFrame {
            offset: 16,
            ..SymbolizedFrame::default()
        };
        assert_eq!(
            (frame(&jit).address, frame(&jit).offset),
            (Some(Address(16)), None)
        );
    }

    #[test]
    fn names_are_cut_at_their_nul() {
        assert_eq!(&*text(b"worker\0\0"), "worker");
        assert_eq!(&*text(b"w\xff"), "w\\xff");
    }
}
