//! The report of a history: which services gained most, how each went, and points for plots.
//!
//! The file is gone through twice: for a line about each service, then for the points of those that are shown. So the memory
//! is that of the points shown, however long the history is.

use std::collections::HashMap;

use super::origin;
use crate::diagnose::goes_with::{self, Counted};
use crate::diagnose::trend::series::{Sample, Series};
use crate::diagnose::trend::{Trend, judge};
use crate::diagnose::verdict::{Counts, Facts, Goes, judge as judge_verdict};
use crate::history::bins::{Bin, Bins};
use crate::history::figures::{Figures, METRICS};
use crate::history::file::HistoryError;
use crate::history::heap::HeapRow;
use crate::history::read::{History, Kept, Run};
use crate::history::{At, RunId, ServiceId};
use crate::report::model::SCHEMA_VERSION;
use crate::report::model::history::{
    HistoryAlert, HistoryColumn, HistoryPoints, HistoryReport, HistoryRun, HistoryService,
};

/// What is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// By name; empty for all.
    pub services: Vec<String>,
    /// Services at most.
    pub most: usize,
    /// Points of one at most.
    pub points: usize,
}

/// What is known of a service after going through the file once.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    samples: u64,
    first_at: Option<At>,
    last_at: At,
    latest: Option<RunId>,
    /// Of the latest run.
    first: Option<u64>,
    last: Option<u64>,
    least: Option<u64>,
    most: Option<u64>,
    rss: Option<u64>,
}

impl Seen {
    fn take(&mut self, kept: &Kept) {
        self.samples = self.samples.saturating_add(kept.samples);
        self.first_at = Some(self.first_at.map_or(kept.at, |first| first.min(kept.at)));
        if self.latest != Some(kept.run) {
            if self.latest.is_some() && kept.at < self.last_at {
                return;
            }
            self.latest = Some(kept.run);
            (self.first, self.least, self.most) = (None, None, None);
        }
        self.last_at = self.last_at.max(kept.at);
        self.first = self.first.or(kept.least.anonymous_and_swap());
        self.last = kept.mean.anonymous_and_swap().or(self.last);
        self.least = lesser(self.least, kept.least.anonymous_and_swap());
        self.most = self.most.max(kept.most.anonymous_and_swap());
        self.rss = kept.mean.rss_bytes.or(self.rss);
    }

    fn gain(&self) -> i64 {
        let signed = |bytes: Option<u64>| i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        if self.first.is_none() || self.last.is_none() {
            return 0;
        }
        signed(self.last).saturating_sub(signed(self.first))
    }
}

fn lesser(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Reads the history.
///
/// # Errors
/// When the file is damaged.
pub fn build(history: &History, wanted: &Wanted) -> Result<HistoryReport, HistoryError> {
    let services = history.services()?;
    let runs = history.runs()?;
    let service_of: HashMap<RunId, ServiceId> = runs.iter().map(|run| (run.id, run.service)).collect();
    let mut seen: HashMap<ServiceId, Seen> = HashMap::new();
    history.for_each(|kept| {
        if let Some(service) = service_of.get(&kept.run) {
            seen.entry(*service).or_default().take(&kept);
        }
    })?;

    let mut chosen: Vec<(ServiceId, Seen)> = services
        .iter()
        .filter(|(_, service)| wanted.services.is_empty() || wanted.services.contains(&service.name))
        .filter_map(|(id, _)| Some((*id, *seen.get(id)?)))
        .collect();
    chosen.sort_by_key(|(id, seen)| (std::cmp::Reverse(seen.gain()), *id));
    let left_out = chosen.len().saturating_sub(wanted.most);
    chosen.truncate(wanted.most);

    let mut index_of: HashMap<RunId, u32> = HashMap::new();
    let mut runs_of: HashMap<ServiceId, Vec<&Run>> = chosen.iter().map(|(id, _)| (*id, Vec::new())).collect();
    for run in &runs {
        if let Some(runs) = runs_of.get_mut(&run.service) {
            index_of.insert(run.id, u32::try_from(runs.len()).unwrap_or(u32::MAX));
            runs.push(run);
        }
    }
    let mut bins: HashMap<ServiceId, Bins> = chosen
        .iter()
        .map(|(id, _)| (*id, Bins::new(wanted.points)))
        .collect();
    history.for_each(|kept| {
        let of = service_of.get(&kept.run).zip(index_of.get(&kept.run));
        if let Some((service, index)) = of
            && let Some(bins) = bins.get_mut(service)
        {
            bins.push(*index, &kept);
        }
    })?;

    let names: HashMap<ServiceId, &crate::history::service::Service> =
        services.iter().map(|(id, service)| (*id, service)).collect();
    let mut alerts = Vec::new();
    let mut raised: HashMap<ServiceId, u64> = HashMap::new();
    for alert in history.alerts()? {
        let Some(service) = service_of
            .get(&alert.run)
            .filter(|service| runs_of.contains_key(service))
        else {
            continue;
        };
        if alert.event == "raised" {
            *raised.entry(*service).or_default() += 1;
        }
        alerts.push(HistoryAlert {
            at: alert.at.text(),
            service: names
                .get(service)
                .map(|service| service.title())
                .unwrap_or_default(),
            event: alert.event,
            threshold: alert.threshold,
            line: alert.line,
        });
    }

    let mut heaps: HashMap<ServiceId, HeapRow> = HashMap::new();
    for (id, seen) in &chosen {
        if let Some(run) = seen.latest
            && let Some(heap) = history.heap(run)?
        {
            heaps.insert(*id, heap);
        }
    }
    let rows = chosen
        .iter()
        .filter_map(|(id, seen)| {
            let service = names.get(id)?;
            let bins = bins.get(id).map(Bins::bins).unwrap_or_default();
            let heap = heaps.get(id);
            Some(HistoryService {
                name: service.name.clone(),
                cgroup: service.cgroup.clone(),
                replica: service.instance,
                runs: runs_of
                    .get(id)
                    .into_iter()
                    .flatten()
                    .map(|run| run_row(run))
                    .collect(),
                samples: seen.samples,
                first_at: seen.first_at.unwrap_or_default().text(),
                last_at: seen.last_at.text(),
                rss_bytes: seen.rss,
                anonymous_bytes: seen.last,
                anonymous_least_bytes: seen.least,
                anonymous_most_bytes: seen.most,
                gain_bytes: seen.gain(),
                trend: trend(bins),
                correlations: correlations(bins),
                verdict: verdict(bins, heap),
                alerts_raised: raised.get(id).copied().unwrap_or(0),
                points: points(bins),
            })
        })
        .collect();
    Ok(HistoryReport {
        schema_version: SCHEMA_VERSION,
        tool: origin::tool(),
        services: rows,
        services_left_out: left_out as u64,
        alerts,
    })
}

fn run_row(run: &Run) -> HistoryRun {
    HistoryRun {
        pid: run.process.pid,
        first_at: run.first_at.text(),
        ended_at: run.ended_at.map(At::text),
        ending: run.ending.clone(),
        baseline_bytes: run.baseline,
    }
}

fn seconds(at: At) -> f64 {
    at.seconds_since(At(0))
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

/// By the floors of the bins.
fn trend(bins: &[Bin]) -> Option<crate::report::model::MemoryTrend> {
    judged(bins).as_ref().map(super::trend)
}

/// On the latest run, with its heap where the watch read that.
fn verdict(bins: &[Bin], heap: Option<&HeapRow>) -> Option<crate::report::model::Verdict> {
    let run = bins.last()?.run;
    let own = || bins.iter().filter(|bin| bin.run == run);
    let began = seconds(own().next()?.at);
    let series: Vec<(f64, u64)> = own()
        .filter_map(|bin| Some((seconds(bin.at) - began, bin.least.anonymous_and_swap()?)))
        .collect();
    let ends = |count: fn(&Figures) -> Option<u64>| {
        let known = || own().filter_map(|bin| count(&bin.mean()));
        Some((known().next()?, known().next_back()?))
    };
    let trend = judged(bins);
    let window = series.last().map_or(0.0, |(last, _)| *last);
    let heap = heap.filter(|heap| covers(heap, began, window));
    Some(super::verdict(&judge_verdict(&Facts {
        window,
        growth: heap.map(|heap| heap.anonymous),
        heap: heap.map(|heap| heap.heap.clone()),
        series: &series,
        trend: trend.as_ref(),
        goes: &goes(bins),
        counts: Counts {
            connections: ends(|figures| figures.connections),
            descriptors: ends(|figures| figures.descriptors),
            threads: ends(|figures| figures.threads),
        },
        ..Facts::default()
    })))
}

/// Whether what was read of a heap is of most of a run's time, which began at `began` and lasted `window` (seconds).
fn covers(heap: &HeapRow, began: f64, window: f64) -> bool {
    heap.at.seconds_since(heap.since) >= 0.5 * window && seconds(heap.at) >= began + 0.9 * window
}

fn judged(bins: &[Bin]) -> Option<Trend> {
    let samples: Vec<Sample> = bins
        .iter()
        .filter_map(|bin| {
            Some(Sample {
                at: seconds(bin.at),
                bytes: float(bin.least.anonymous_and_swap()?),
                run: bin.run,
            })
        })
        .collect();
    (!samples.is_empty()).then(|| judge(&Series::new(&samples)))
}

fn correlations(bins: &[Bin]) -> Vec<crate::report::model::Correlation> {
    goes(bins).iter().map(super::correlation).collect()
}

fn goes(bins: &[Bin]) -> Vec<Goes> {
    let samples: Vec<Counted> = bins
        .iter()
        .map(|bin| {
            let mean = bin.mean();
            Counted {
                at: seconds(bin.at),
                bytes: mean.anonymous_and_swap(),
                connections: mean.connections,
                descriptors: mean.descriptors,
                threads: mean.threads,
                run: bin.run,
            }
        })
        .collect();
    Goes::all(&goes_with::correlations(&samples))
}

fn points(bins: &[Bin]) -> HistoryPoints {
    let means: Vec<Figures> = bins.iter().map(Bin::mean).collect();
    let metrics = METRICS
        .iter()
        .filter(|metric| bins.iter().any(|bin| (metric.get)(&bin.most).is_some()))
        .map(|metric| {
            let column = |of: fn(&Bin) -> &Figures| bins.iter().map(|bin| (metric.get)(of(bin))).collect();
            let column = HistoryColumn {
                least: column(|bin| &bin.least),
                mean: means.iter().map(|mean| (metric.get)(mean)).collect(),
                most: column(|bin| &bin.most),
            };
            (metric.name.to_owned(), column)
        })
        .collect();
    HistoryPoints {
        at_seconds: bins.iter().map(|bin| seconds(bin.at)).collect(),
        run: bins.iter().map(|bin| bin.run).collect(),
        samples: bins.iter().map(|bin| bin.samples).collect(),
        metrics,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::history::service::Service;
    use crate::history::store::{Note, ProcessKey, Row, Store};
    use crate::history::thinning::Retention;
    use crate::report::formats::Rendered as _;
    use crate::report::output::Output;
    use crate::report::text;

    const START: i64 = 1_795_751_466_000;
    const MIB: u64 = 1 << 20;

    /// 300 rounds of 10 s: a server that leaks and is restarted halfway, and one that does not change.
    fn written(path: &Path) {
        let mut store = Store::open(path, Retention::default()).unwrap();
        let service = |name: &str| Service {
            name: name.to_owned(),
            cgroup: "/x.service".to_owned(),
            instance: 0,
        };
        let process = |pid| ProcessKey {
            pid,
            start_time_ticks: 1,
            boot: String::new(),
        };
        let mut leaks = store.begin(&service("leaks"), process(1), At(START));
        let steady = store.begin(&service("steady"), process(2), At(START));
        for round in 0..300_u64 {
            let at = At(START + i64::try_from(round).unwrap() * 10_000);
            if round == 150 {
                store.note(Note::Ended {
                    run: leaks,
                    at,
                    ending: "it exited",
                });
                leaks = store.begin(&service("leaks"), process(3), at);
            }
            let row = |run, bytes| Row {
                run,
                at,
                figures: Figures {
                    rss_bytes: Some(bytes + MIB),
                    anonymous_bytes: Some(bytes),
                    threads: Some(4),
                    ..Figures::default()
                },
            };
            let rows = [row(leaks, 50 * MIB + round % 150 * MIB), row(steady, 300 * MIB)];
            assert_eq!(store.write(&rows), None);
        }
        for (run, event) in [(leaks, "raised"), (leaks, "cleared"), (steady, "raised")] {
            store.note(Note::Alert {
                run,
                at: At(START),
                event,
                threshold: "rate",
                line: format!("{event} by {}", run.0),
            });
        }
        store.write(&[]);
    }

    fn wanted(services: &[&str], most: usize, points: usize) -> Wanted {
        Wanted {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            most,
            points,
        }
    }

    #[test]
    fn who_gained_most_is_first_with_runs_trend_and_points() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        written(&path);
        let history = History::open(&path).unwrap();
        let report = build(&history, &wanted(&[], 10, 100)).unwrap();
        let [leaks, steady] = report.services.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!((leaks.name.as_str(), steady.name.as_str()), ("leaks", "steady"));
        assert_eq!(leaks.gain_bytes, i64::try_from(149 * MIB).unwrap());
        assert_eq!((leaks.samples, leaks.alerts_raised), (300, 1));
        assert_eq!(leaks.anonymous_least_bytes, Some(50 * MIB));
        assert_eq!(leaks.rss_bytes, Some(200 * MIB));
        let pids: Vec<u32> = leaks.runs.iter().map(|run| run.pid).collect();
        assert_eq!(pids, [1, 3]);
        assert_eq!(leaks.runs[0].ending.as_deref(), Some("it exited"));
        let trend = leaks.trend.as_ref().unwrap();
        assert_eq!(trend.kind, "steady growth");
        let slope = trend.slope_bytes_per_second.unwrap();
        assert!((90_000.0..=120_000.0).contains(&slope), "{slope}");
        assert_eq!(steady.trend.as_ref().unwrap().kind, "flat");
        let points = &leaks.points;
        assert!(points.at_seconds.len() <= 100 && points.at_seconds.len() >= 50);
        assert_eq!(points.samples.iter().sum::<u64>(), 300);
        assert_eq!(points.metrics.len(), 3, "those that were there");
        for column in points.metrics.values() {
            assert_eq!(column.mean.len(), points.at_seconds.len());
        }
        let mut runs = points.run.clone();
        runs.dedup();
        assert_eq!(runs, [0, 1]);
        assert_eq!(report.alerts.len(), 3);

        let one = build(&history, &wanted(&[], 1, 100)).unwrap();
        assert_eq!(
            (one.services.len(), one.services_left_out, one.alerts.len()),
            (1, 1, 2)
        );
        let by_name = build(&history, &wanted(&["steady"], 10, 100)).unwrap();
        assert_eq!((by_name.services.len(), by_name.alerts.len()), (1, 1));
        assert!(
            build(&history, &wanted(&["none"], 10, 100))
                .unwrap()
                .services
                .is_empty()
        );
    }

    #[test]
    fn each_format_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        written(&path);
        let report = build(&History::open(&path).unwrap(), &wanted(&[], 10, 50)).unwrap();
        let options = text::Options::default();
        let written = |name: &str| {
            let file = folder.path().join(name);
            Output::<HistoryReport>::new(&file)
                .unwrap()
                .write(&report, &options)
                .unwrap();
            std::fs::read_to_string(file).unwrap()
        };
        let back: HistoryReport = serde_json::from_str(&written("x.json")).unwrap();
        assert_eq!(back, report);
        let points: usize = report
            .services
            .iter()
            .map(|service| service.points.run.len())
            .sum();
        assert_eq!(written("x.csv").lines().count(), points + 1);
        assert_eq!(written("x.txt"), report.text(&options));
        // No recording, and it is said.
        let error = crate::report::json::read(written("x.json").as_bytes(), "x.json").unwrap_err();
        assert!(error.to_string().contains("`leakwatch history`"), "{error}");
    }
}
