//! One process under watch: its recent past, its trend, its alarms.

use std::time::Duration;

use super::alert::{Growth, telling};
use super::baseline::{Baseline, Learned};
use super::heaps::{HeapGrowth, HeapSince};
use super::limit::{self, Room};
use super::series::Series;
use super::thresholds::{Alarm, Change, Threshold, Thresholds};
use crate::diagnose::trend::{Kind, Trend};
use crate::diagnose::verdict::Verdict;
use crate::history::figures::Figures;
use crate::history::service::Service;
use crate::history::store::Note;
use crate::history::{At, RunId};
use crate::sampler::ProcRoot;
use crate::sampler::cgroup::CgroupMemory;
use crate::sampler::sample::Sample;
use crate::sampler::subject::Subject;

/// A trend is judged again when it was watched for so large a part longer.
const JUDGE_AGAIN: f64 = 1.0 / 16.0;

/// A trend, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    pub kind: Kind,
    /// Bytes per second.
    pub slope: f64,
    pub interval: (f64, f64),
    /// Seconds.
    pub watched: f64,
    pub watch_longer: Option<f64>,
    pub samples: usize,
    /// Seconds, when it was judged.
    pub at: f64,
}

impl Judged {
    fn of(trend: &Trend, at: f64) -> Self {
        Self {
            kind: trend.kind,
            slope: trend.slope,
            interval: trend.interval,
            watched: trend.watched,
            watch_longer: trend.watch_longer,
            samples: trend.samples,
            at,
        }
    }
}

/// A threshold whose alarm changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Changed {
    pub threshold: Threshold,
    pub change: Change,
    pub value: f64,
    pub bound: f64,
}

/// What the growth of a process amounts to.
#[derive(Clone, Debug)]
pub struct Told {
    pub verdict: Verdict,
    /// Where its heap was read twice.
    pub heap: Option<HeapGrowth>,
}

impl Told {
    /// For the history.
    #[must_use]
    pub fn note(&self, run: RunId, at: At) -> Option<Note> {
        Some(Note::Heap(run, self.heap.as_ref()?.row(at)))
    }
}

/// A process under watch.
#[derive(Debug)]
pub struct Tracked {
    pub subject: Subject,
    pub run: RunId,
    pub service: Service,
    pub series: Series,
    pub baseline: Baseline,
    pub figures: Figures,
    pub judged: Option<Judged>,
    pub heap: HeapSince,
    /// The last account of its cgroup.
    cgroup: Option<CgroupMemory>,
    /// Another one tells that it executed another program.
    start_stack: Option<u64>,
    alarms: [Alarm; Threshold::ALL.len()],
    pub last_at: At,
}

impl Tracked {
    #[must_use]
    pub fn new(subject: Subject, run: RunId, service: Service, series: Series, baseline: Baseline) -> Self {
        Self {
            subject,
            run,
            service,
            series,
            baseline,
            figures: Figures::default(),
            judged: None,
            heap: HeapSince::default(),
            cgroup: None,
            start_stack: None,
            alarms: [Alarm::default(); Threshold::ALL.len()],
            last_at: At::default(),
        }
    }

    /// Takes a sample; false when it is of another program than those before: the process executed it.
    pub fn take(&mut self, sample: &Sample, at: f64, window: f64, points: usize) -> bool {
        let stack = sample.stat.start_stack;
        let known = self.start_stack;
        self.start_stack = stack.or(known);
        if known.is_some() && stack.is_some() && known != stack {
            return false;
        }
        let mut figures = Figures::of(sample);
        self.series.push(at, &figures, window, points);
        // What is not read each time is as it was.
        let before = self.figures;
        figures.connections = figures.connections.or(before.connections);
        figures.close_wait = figures.close_wait.or(before.close_wait);
        figures.pss_bytes = figures.pss_bytes.or(before.pss_bytes);
        figures.private_dirty_bytes = figures.private_dirty_bytes.or(before.private_dirty_bytes);
        figures.cgroup_bytes = figures.cgroup_bytes.or(before.cgroup_bytes);
        self.figures = figures;
        self.cgroup = sample.cgroup.ok().or(self.cgroup);
        self.last_at = At::of(sample.at.wall);
        true
    }

    /// Learns what it needs; the baseline when it has just been learned, bytes.
    pub fn learn(&mut self, at: f64, learning: f64) -> Option<u64> {
        let floor = self.series.floor_since(Baseline::floor_since(at, learning));
        match self.baseline.look(at, floor) {
            Learned::Now(bytes) => Some(bytes),
            Learned::Learning | Learned::Known(_) => None,
        }
    }

    /// Whether its trend should be judged again.
    #[must_use]
    pub fn is_due(&self, at: f64) -> bool {
        match self.judged {
            None => self.series.len() >= 2,
            Some(judged) => at - judged.at >= self.series.span() * JUDGE_AGAIN,
        }
    }

    /// Judges its trend.
    pub fn judge(&mut self, at: f64) {
        self.judged = Some(Judged::of(&self.series.trend(), at));
    }

    /// Looks at the thresholds. Those that hang on the trend are looked at when it has just been judged.
    pub fn look(
        &mut self,
        at: f64,
        learning: f64,
        available: Option<u64>,
        thresholds: &Thresholds,
    ) -> Vec<Changed> {
        let mut changed = Vec::new();
        let just_judged = self.judged.is_some_and(|judged| judged.at >= at);
        let room = self.room(available);
        for (index, threshold) in Threshold::ALL.into_iter().enumerate() {
            let Some(bound) = thresholds.bound(threshold, self.baseline.bytes()) else {
                continue;
            };
            if threshold.is_judged() && !just_judged {
                continue;
            }
            let value = self.value(threshold, at, learning, room);
            let Some(alarm) = self.alarms.get_mut(index) else {
                continue;
            };
            if let Some(change) = alarm.look(threshold, value, bound) {
                changed.push(Changed {
                    threshold,
                    change,
                    value: value.unwrap_or(f64::NAN),
                    bound,
                });
            }
        }
        changed
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
    fn value(&self, threshold: Threshold, at: f64, learning: f64, room: Option<Room>) -> Option<f64> {
        let count = |count: Option<u64>| count.map(|count| count as f64);
        match threshold {
            Threshold::Rate => {
                let judged = self.judged.filter(|judged| judged.kind != Kind::Unknown)?;
                Some(if judged.kind.grows() {
                    judged.slope * 3600.0
                } else {
                    0.0
                })
            }
            Threshold::Rise => {
                let floor = self.series.floor_since(Baseline::floor_since(at, learning))?;
                Some(floor as f64 - self.baseline.bytes()? as f64)
            }
            Threshold::TimeToLimit => {
                let judged = self.judged.filter(|judged| judged.kind != Kind::Unknown)?;
                let growing = judged.kind.grows().then_some(judged.slope);
                let time = growing.and_then(|slope| limit::time_to(room?, slope));
                Some(time.map_or(f64::INFINITY, |time| time.as_secs_f64()))
            }
            Threshold::Descriptors => count(self.figures.descriptors),
            Threshold::Threads => count(self.figures.threads),
            Threshold::Connections => count(self.figures.connections),
        }
    }

    /// What is left to it.
    #[must_use]
    pub fn room(&self, available: Option<u64>) -> Option<Room> {
        limit::room(self.cgroup.as_ref(), available)
    }

    /// Seconds until it meets its limit; `None` where it does not grow.
    #[must_use]
    pub fn seconds_to_limit(&self, available: Option<u64>) -> Option<f64> {
        let judged = self.judged.filter(|judged| judged.kind.grows())?;
        limit::time_to(self.room(available)?, judged.slope).map(|time| time.as_secs_f64())
    }

    /// The thresholds that are raised.
    pub fn raised(&self) -> impl Iterator<Item = Threshold> + '_ {
        Threshold::ALL
            .into_iter()
            .zip(&self.alarms)
            .filter(|(_, alarm)| alarm.is_raised())
            .map(|(threshold, _)| threshold)
    }

    /// Reads its heap, where what the trend looks back on begins and that was not done yet.
    pub fn begin_heap(&mut self, root: &ProcRoot, at: f64, within: Duration) {
        let anonymous = self.figures.anonymous_and_swap();
        self.heap.begin(root, &self.subject, at, anonymous, within);
    }

    /// What its growth amounts to: its heap is read for it once more.
    #[must_use]
    pub fn told(&self, root: &ProcRoot, at: f64) -> Told {
        let anonymous = self.figures.anonymous_and_swap();
        let heap = self.heap.growth(root, &self.subject, at, anonymous);
        Told {
            verdict: self.series.verdict(None, heap.as_ref()),
            heap,
        }
    }

    /// What an alert tells of its growth. With `told`, the verdict, it looks for what it goes with, which is dear: at an
    /// alert only.
    #[must_use]
    pub fn growth(&self, available: Option<u64>, told: Option<&Verdict>) -> Growth {
        let Some(judged) = self.judged else {
            return Growth::default();
        };
        let correlated = told.is_some();
        let with = correlated.then(|| telling(&self.series.correlations())).flatten();
        let time_to_limit = judged.kind.grows().then_some(judged.slope).and_then(|slope| {
            let room = self.room(available)?;
            Some((limit::time_to(room, slope)?, room.bound))
        });
        Growth {
            kind: judged.kind.name(),
            verdict: told.map(|verdict| verdict.kind.name()),
            rate: judged.slope,
            interval: judged.interval,
            watched: judged.watched,
            with,
            time_to_limit,
        }
    }
}
