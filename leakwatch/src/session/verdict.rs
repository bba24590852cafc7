//! What the stages know of the window, as the verdict wants it.

use std::collections::BTreeMap;
use std::time::Duration;

use leakwatch_ebpf::wire::Counter;

use super::RecordOptions;
use super::heap::WatchedHeap;
use super::process::{Measure, anonymous_of};
use super::sampling::Sampling;
use super::series::Point;
use super::state::State;
use super::survivors::Survivors;
use crate::diagnose::rank::RankedSite;
use crate::diagnose::trend::Trend;
use crate::diagnose::verdict::{self, BirthFacts, Counts, Facts, Goes, LossFacts, Room, Verdict};
use crate::probe::Counts as ProbeCounts;
use crate::report::build;
use crate::report::model::Heap;
use crate::sampler::growth::Delta;
use crate::sampler::host::Memory;
use crate::sampler::kind::Kind as MappingKind;
use crate::sampler::sample::Moment;
use crate::target::allocator;
use crate::target::proc::Proc;

/// What was made of the measurements so far.
pub(super) struct Measured<'a> {
    pub start: &'a Measure,
    pub end: &'a Measure,
    /// Anonymous bytes that children which are followed and live have gained.
    pub children: i64,
    /// What the account says of a process alone: its readings are other moments than those of `start` and `end`, and one
    /// report should have one figure.
    pub account: Option<i64>,
    pub window: Duration,
    /// The target's own, which is not among the state's any more.
    pub heap: Option<&'a Heap>,
    pub survivors: Option<&'a Survivors>,
    pub sites: &'a [RankedSite],
    pub kinds: Option<&'a BTreeMap<MappingKind, Delta>>,
    pub trend: Option<&'a Trend>,
    pub goes: &'a [Goes],
    pub counts: Option<&'a ProbeCounts>,
}

/// The verdict on the target and the children that are followed.
pub(super) fn judge(state: &State, options: &RecordOptions, measured: &Measured<'_>) -> Verdict {
    let seconds = measured.window.as_secs_f64();
    let ends = measured.start.anonymous().zip(measured.end.anonymous());
    let ends = ends.map(|(start, end)| (start, end.saturating_add_signed(measured.children)));
    let between = ends.map(|(before, after)| after.cast_signed().saturating_sub(before.cast_signed()));
    let series = anonymous_series(state, seconds, ends);
    let mut heap = measured.heap.and_then(build::heap::facts);
    for child in state.heaps.values().filter_map(WatchedHeap::facts) {
        heap.get_or_insert_default().add(&child);
    }
    // It is named only for what its heap does not say.
    let allocator = if heap.is_none() && !options.target.exited() {
        allocator::identify(&Proc::host(), options.target.pid).ok()
    } else {
        None
    };
    verdict::judge(&Facts {
        window: seconds,
        age: age(options.target.start_time_ticks),
        growth: measured.account.or(between),
        series: &series,
        trend: measured.trend,
        goes: measured.goes,
        counts: counts(state.series.points()),
        heap,
        allocator: allocator.as_ref(),
        births: measured.survivors.map(births),
        sites: measured.sites,
        kinds: measured.kinds,
        losses: losses(state, measured.counts),
        room: room(state),
    })
}

/// Anonymous memory over the window, with what was read at its ends.
fn anonymous_series(state: &State, seconds: f64, ends: Option<(u64, u64)>) -> Vec<(f64, u64)> {
    let between = state.series.points().iter().filter_map(|point| {
        let at = point.at.as_secs_f64();
        Some((at, point.anonymous()?)).filter(|_| at > 0.0 && at < seconds)
    });
    let (start, end) = (
        ends.map(|(start, _)| (0.0, start)),
        ends.map(|(_, end)| (seconds, end)),
    );
    start.into_iter().chain(between).chain(end).collect()
}

fn births(survivors: &Survivors) -> BirthFacts {
    let estimate = &survivors.estimate;
    let sum = |of: fn(&crate::diagnose::survivors::SiteEstimate) -> u64| {
        estimate.sites.iter().map(of).fold(0, u64::saturating_add)
    };
    BirthFacts {
        tell: survivors.tell(),
        named: sum(|site| site.bytes),
        followed: sum(|site| site.followed),
        survived: sum(|site| site.survived),
    }
}

/// Of the first and the last sample that has each.
pub(super) fn counts(points: &[Point]) -> Counts {
    let ends = |of: fn(&Point) -> Option<u64>| {
        let first = points.iter().find_map(of)?;
        Some((first, points.iter().rev().find_map(of)?))
    };
    Counts {
        connections: ends(|point| point.connections),
        descriptors: ends(|point| point.descriptors),
        threads: ends(|point| point.totals.threads),
    }
}

pub(super) fn losses(state: &State, counts: Option<&ProbeCounts>) -> LossFacts {
    let (samples, _) = state.samples.spent();
    let without = |point: &&Point| anonymous_of(&point.totals).is_none();
    let sizeless = state.series.points().iter().filter(without).count() as u64;
    let count = |counter| counts.map_or(0, |counts| counts.get(counter));
    let pages = state.sampling.as_ref().map_or(0.0, |sampling| {
        count(Counter::LostFaults) as f64 / Sampling::rate(sampling)
    });
    LossFacts {
        samples_missed: sizeless.saturating_add(state.samples.failed()),
        samples: samples.saturating_sub(sizeless),
        events_lost: counts
            .map_or(0, ProbeCounts::lost)
            .saturating_add(count(Counter::LostFaults)),
        events: count(Counter::Events),
        fault_bytes: super::facts::whole(pages).min(u64::MAX / 2),
    }
}

/// `None` where the clock ticks of its start are from no boot of this kernel.
pub(super) fn age(start_ticks: u64) -> Option<f64> {
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let started = Duration::from_secs_f64(start_ticks as f64 / ticks as f64);
    let age = Moment::now().since_boot.checked_sub(started)?;
    Some(age.as_secs_f64())
}

pub(super) fn room(state: &State) -> Option<Room> {
    let ram = Memory::read(state.root()).ok();
    Room::tighter(state.samples.cgroup(), ram.as_ref())
}
