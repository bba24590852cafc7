//! The recent past of one service, in bounded memory: what the trend is judged by. Pure.

use std::collections::VecDeque;

use super::heaps::HeapGrowth;
use crate::diagnose::correlate::Correlation;
use crate::diagnose::goes_with::{self, Counted};
use crate::diagnose::trend::series::{Sample, Series as TrendSeries};
use crate::diagnose::trend::{Trend, judge};
use crate::diagnose::verdict::{self, Counts, Facts, Goes, Verdict, With};
use crate::history::figures::Figures;

/// Absent.
const NONE: u32 = u32::MAX;

/// A sample, as small as can be: 10,000 processes have a hundred of them each.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// Seconds of the clock that never jumps.
    at: f64,
    anonymous_kib: u32,
    descriptors: u32,
    threads: u32,
    connections: u32,
    run: u32,
}

fn small(value: Option<u64>) -> u32 {
    value.map_or(NONE, |value| {
        u32::try_from(value).unwrap_or(NONE - 1).min(NONE - 1)
    })
}

fn float(value: u32) -> Option<f64> {
    (value != NONE).then_some(f64::from(value))
}

/// Samples of the last while.
#[derive(Clone, Debug, Default)]
pub struct Series {
    points: VecDeque<Point>,
    run: u32,
}

impl Series {
    /// Another run of the service begins.
    pub fn restart(&mut self) {
        if !self.points.is_empty() {
            self.run = self.run.wrapping_add(1);
        }
    }

    /// A sample at a time (seconds). What is older than `window` (seconds) goes, and of more than `most` points in it some
    /// are left out, evenly.
    pub fn push(&mut self, at: f64, figures: &Figures, window: f64, most: usize) {
        let most = most.max(2);
        while self.points.front().is_some_and(|first| first.at < at - window) {
            self.points.pop_front();
        }
        // More processes since: less for each.
        while self.points.len() > most {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        let step = window / most as f64;
        let early = self
            .points
            .back()
            // A round is never quite in time.
            .is_some_and(|last| last.run == self.run && at - last.at < 0.9 * step);
        if early && self.points.len() >= most / 2 {
            return;
        }
        if self.points.len() >= most {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            at,
            anonymous_kib: small(figures.anonymous_and_swap().map(|bytes| bytes >> 10)),
            descriptors: small(figures.descriptors),
            threads: small(figures.threads),
            connections: small(figures.connections),
            run: self.run,
        });
    }

    /// How anonymous memory went.
    #[must_use]
    pub fn trend(&self) -> Trend {
        let samples: Vec<Sample> = self
            .points
            .iter()
            .filter_map(|point| {
                Some(Sample {
                    at: point.at,
                    bytes: float(point.anonymous_kib)? * 1024.0,
                    run: point.run,
                })
            })
            .collect();
        judge(&TrendSeries::new(&samples))
    }

    /// What it goes with, as far as there is anything to compare.
    #[must_use]
    pub fn correlations(&self) -> Vec<(With, Correlation)> {
        let known = |count: u32| (count != NONE).then_some(u64::from(count));
        let samples: Vec<Counted> = self
            .points
            .iter()
            .map(|point| Counted {
                at: point.at,
                bytes: known(point.anonymous_kib).map(|kib| kib * 1024),
                connections: known(point.connections),
                descriptors: known(point.descriptors),
                threads: known(point.threads),
                run: point.run,
            })
            .collect();
        goes_with::correlations(&samples)
    }

    /// What the latest run amounts to, by sizes and counts, and by its heap where that was read twice. `age`: for how long
    /// the process has lived, seconds.
    #[must_use]
    pub fn verdict(&self, age: Option<f64>, heap: Option<&HeapGrowth>) -> Verdict {
        let own = || self.points.iter().filter(|point| point.run == self.run);
        let began = own().next().map_or(0.0, |first| first.at);
        let series: Vec<(f64, u64)> = own()
            .filter(|point| point.anonymous_kib != NONE)
            .map(|point| (point.at - began, u64::from(point.anonymous_kib) * 1024))
            .collect();
        let ends = |count: fn(&Point) -> u32| {
            let known = || own().map(count).filter(|count| *count != NONE).map(u64::from);
            Some((known().next()?, known().next_back()?))
        };
        let trend = self.trend();
        verdict::judge(&Facts {
            window: own().next_back().map_or(0.0, |last| last.at - began),
            age,
            growth: heap.map(|grown| grown.anonymous),
            heap: heap.map(|grown| grown.heap.clone()),
            series: &series,
            trend: Some(&trend),
            goes: &Goes::all(&self.correlations()),
            counts: Counts {
                connections: ends(|point| point.connections),
                descriptors: ends(|point| point.descriptors),
                threads: ends(|point| point.threads),
            },
            ..Facts::default()
        })
    }

    /// The least anonymous memory of this run from a time on, bytes.
    #[must_use]
    pub fn floor_since(&self, since: f64) -> Option<u64> {
        self.points
            .iter()
            .rev()
            .take_while(|point| point.at >= since && point.run == self.run)
            .filter(|point| point.anonymous_kib != NONE)
            .map(|point| u64::from(point.anonymous_kib) * 1024)
            .min()
    }

    /// Bytes from the first point to the last, a cheap guess at who grows.
    #[must_use]
    pub fn gain(&self) -> f64 {
        let known = |point: &Point| float(point.anonymous_kib);
        let first = self.points.iter().find_map(known);
        let last = self.points.iter().rev().find_map(known);
        match (first, last) {
            (Some(first), Some(last)) => (last - first) * 1024.0,
            _ => 0.0,
        }
    }

    /// Time of the first point of this run, seconds.
    #[must_use]
    pub fn first_at(&self) -> Option<f64> {
        let mut own = self.points.iter().filter(|point| point.run == self.run);
        own.next().map(|point| point.at)
    }

    /// Seconds from the first point to the last.
    #[must_use]
    pub fn span(&self) -> f64 {
        match (self.points.front(), self.points.back()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => 0.0,
        }
    }

    /// Time of the last point, seconds.
    #[must_use]
    pub fn last_at(&self) -> Option<f64> {
        self.points.back().map(|point| point.at)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::trend::Kind;

    fn figures(bytes: u64, connections: u64) -> Figures {
        Figures {
            anonymous_bytes: Some(bytes),
            connections: Some(connections),
            descriptors: Some(10 + connections),
            threads: Some(4),
            ..Figures::default()
        }
    }

    #[test]
    fn weeks_stay_bounded_and_even() {
        let mut series = Series::default();
        let window = 6.0 * 3600.0;
        for round in 0..100_000_u32 {
            series.push(f64::from(round) * 30.0, &figures(1 << 20, 1), window, 100);
            assert!(series.len() <= 101);
        }
        assert!(series.len() > 60, "{}", series.len());
        assert!(series.span() > 0.9 * window && series.span() <= window);
        let steps: Vec<f64> = series
            .points
            .iter()
            .zip(series.points.iter().skip(1))
            .map(|(one, next)| next.at - one.at)
            .collect();
        let later = &steps[steps.len() / 2..];
        assert!(
            later.iter().all(|step| (200.0..=300.0).contains(step)),
            "{later:?}"
        );
    }

    #[test]
    fn fewer_points_for_each_when_there_are_more_processes() {
        let mut series = Series::default();
        for round in 0..1000_u32 {
            series.push(f64::from(round), &figures(1 << 20, 1), 1000.0, 1000);
        }
        assert!(series.len() > 900);
        series.push(1000.0, &figures(1 << 20, 1), 1000.0, 100);
        assert!(series.len() <= 101, "{}", series.len());
        assert!(series.span() > 900.0);
    }

    /// 5 KiB for each connection, which come in clumps and stay; with `files` beside them, which come and go.
    fn by_the_connection(files: bool) -> Series {
        let mut series = Series::default();
        let (mut connections, mut random) = (10_u64, 7_u64);
        for round in 0..400_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            connections += (random >> 33) % 7 * ((random >> 40) % 3);
            let mut figures = figures((50 << 20) + connections * 5120, connections);
            if files {
                figures.descriptors = Some(20 + connections + u64::from(round % 3));
            }
            series.push(f64::from(round), &figures, 600.0, 1024);
        }
        series
    }

    #[test]
    fn a_leak_by_the_connection_is_growth_and_goes_with_connections() {
        let series = by_the_connection(false);
        let trend = series.trend();
        assert_eq!(trend.kind, Kind::SteadyGrowth);
        assert_eq!(series.verdict(None, None).kind, verdict::Kind::Leak);
        assert!(series.gain() > 0.0);
        // Threads never change, and descriptors by connections alone.
        for (files, expected) in [(false, &["connections"][..]), (true, &["connections", "fds"])] {
            let found = by_the_connection(files).correlations();
            let names: Vec<&str> = found.iter().map(|(with, _)| with.name()).collect();
            assert_eq!(names, expected);
            let each = found[0].1.per_unit.unwrap();
            assert!((each.bytes - 5120.0).abs() < 1280.0, "{each:?}");
        }
    }

    #[test]
    fn a_restart_is_no_shrinking_and_the_floor_is_of_this_run() {
        let mut series = Series::default();
        series.restart();
        for round in 0..100_u32 {
            series.push(f64::from(round), &figures(100 << 20, 1), 1000.0, 1000);
        }
        series.restart();
        for round in 100..200_u32 {
            series.push(f64::from(round), &figures(10 << 20, 1), 1000.0, 1000);
        }
        let trend = series.trend();
        assert_eq!(trend.restarts, 1);
        assert_ne!(trend.kind, Kind::Shrinking);
        assert_eq!(series.floor_since(0.0), Some(10 << 20));
        assert_eq!(series.floor_since(500.0), None);
    }

    #[test]
    fn what_is_absent_is_not_nothing() {
        let mut series = Series::default();
        for round in 0..50_u32 {
            series.push(f64::from(round), &Figures::default(), 1000.0, 1000);
        }
        assert_eq!(series.trend().samples, 0);
        assert!(series.correlations().is_empty());
        assert_eq!(small(Some(u64::MAX)), NONE - 1);
    }
}
