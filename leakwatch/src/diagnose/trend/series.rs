//! Samples as they come, made into runs that time goes through. Pure.

use super::order;

/// Samples in a row that lie before the last one, each later than the one before: from so many on the clock was set
/// back and goes on from there. Fewer are strays, and dropped.
const CLOCK_SET_BACK: usize = 3;

/// Usual intervals that make a gap: nobody watched, or the clock was set forward. That time is left out.
const GAP: f64 = 20.0;
/// More gaps than this are the way in which the samples come, and stay.
const GAPS_MOST: usize = 8;

/// A size at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds of a clock that only goes forward, from any start that all samples share.
    pub at: f64,
    pub bytes: f64,
    /// Which run of the process it is of: where the number changes, the process was restarted.
    pub run: u32,
}

/// A kept sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds.
    pub at: f64,
    pub bytes: f64,
}

/// What was wrong with the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// A time or a size that is no number, or a size below zero.
    pub not_a_number: usize,
    /// Not later than the sample before.
    pub not_later: usize,
    /// Times that the clock went back and stayed back. No sample is lost by it: time goes on as before.
    pub set_back: usize,
}

/// The samples of one or more runs of a process, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// One per run, none empty. Times ascend strictly, over all runs.
    pub runs: Vec<Vec<Point>>,
    /// Times before which a gap was left out: the size may be another after it.
    pub gaps: Vec<f64>,
    pub dropped: Dropped,
}

impl Series {
    /// Never fails: what cannot be used is dropped and counted.
    #[must_use]
    pub fn new(samples: &[Sample]) -> Self {
        let mut dropped = Dropped::default();
        let usable: Vec<&Sample> = samples
            .iter()
            .filter(|sample| sample.at.is_finite() && sample.bytes.is_finite() && sample.bytes >= 0.0)
            .collect();
        dropped.not_a_number = samples.len() - usable.len();
        let mut runs: Vec<Vec<Point>> = Vec::new();
        let mut run = None;
        let mut last: Option<f64> = None;
        let (mut shift, mut interval) = (0.0, 1.0);
        for (index, sample) in usable.iter().enumerate() {
            let mut at = sample.at + shift;
            if let Some(before) = last {
                if at <= before {
                    let ahead = usable.iter().skip(index).take(CLOCK_SET_BACK);
                    if !goes_on(ahead.map(|sample| sample.at + shift), before) {
                        dropped.not_later += 1;
                        continue;
                    }
                    let next = before + interval;
                    // Of times so great that an interval is lost in them, there is no next.
                    if next <= before {
                        dropped.not_later += 1;
                        continue;
                    }
                    dropped.set_back += 1;
                    shift += next - at;
                    at = next;
                } else {
                    interval = at - before;
                }
            }
            last = Some(at);
            let point = Point {
                at,
                bytes: sample.bytes,
            };
            match runs.last_mut() {
                Some(points) if run == Some(sample.run) => points.push(point),
                _ => runs.push(vec![point]),
            }
            run = Some(sample.run);
        }
        let gaps = close_gaps(&mut runs);
        Self { runs, gaps, dropped }
    }

    /// Samples kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Seconds watched, without the time between one run and the next.
    #[must_use]
    pub fn watched(&self) -> f64 {
        self.runs.iter().map(|run| span(run)).sum()
    }
}

/// Seconds from the first point to the last.
#[must_use]
pub fn span(points: &[Point]) -> f64 {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => last.at - first.at,
        _ => 0.0,
    }
}

/// Moves what comes after a gap to where the next sample would have been.
fn close_gaps(runs: &mut [Vec<Point>]) -> Vec<f64> {
    let intervals: Vec<f64> = runs
        .iter()
        .flat_map(|run| run.iter().zip(run.iter().skip(1)))
        .map(|(one, next)| next.at - one.at)
        .collect();
    let usual = order::median(&intervals).unwrap_or(0.0);
    let is_gap = |interval: &f64| *interval > GAP * usual;
    if intervals.iter().filter(|interval| is_gap(interval)).count() > GAPS_MOST {
        return Vec::new();
    }
    let mut gaps = Vec::new();
    let mut last: Option<(f64, f64)> = None;
    for run in runs {
        let mut first = true;
        for point in run {
            let at = point.at;
            if let Some((before, now)) = last {
                let interval = at - before;
                let gap = !first && is_gap(&interval);
                point.at = now + if gap { usual } else { interval };
                if gap {
                    gaps.push(point.at);
                }
            }
            first = false;
            last = Some((at, point.at));
        }
    }
    gaps
}

/// Whether a clock that was set back goes on from there, below where it had been.
fn goes_on(ahead: impl Iterator<Item = f64>, before: f64) -> bool {
    let mut earlier = f64::NEG_INFINITY;
    let mut count = 0;
    for at in ahead {
        if at <= earlier || at > before {
            return false;
        }
        earlier = at;
        count += 1;
    }
    count == CLOCK_SET_BACK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(f64, f64, u32)]) -> Vec<Sample> {
        of.iter()
            .map(|&(at, bytes, run)| Sample { at, bytes, run })
            .collect()
    }

    fn times(series: &Series) -> Vec<f64> {
        series.runs.iter().flatten().map(|point| point.at).collect()
    }

    #[test]
    fn strays_and_what_is_no_number_are_dropped_and_counted() {
        let series = Series::new(&samples(&[
            (0.0, 1.0, 0),
            (1.0, f64::NAN, 0),
            (f64::INFINITY, 1.0, 0),
            (2.0, -1.0, 0),
            (3.0, 1.0, 0),
            (3.0, 1.0, 0),
            (0.5, 1.0, 0),
            (4.0, 1.0, 0),
        ]));
        assert_eq!(times(&series), [0.0, 3.0, 4.0]);
        assert_eq!(
            series.dropped,
            Dropped {
                not_a_number: 3,
                not_later: 2,
                set_back: 0
            }
        );
    }

    #[test]
    fn a_clock_that_is_set_back_loses_no_sample() {
        let series = Series::new(&samples(&[
            (100.0, 1.0, 0),
            (110.0, 2.0, 0),
            (20.0, 3.0, 0),
            (30.0, 4.0, 0),
            (40.0, 5.0, 0),
            (50.0, 6.0, 0),
        ]));
        assert_eq!(times(&series), [100.0, 110.0, 120.0, 130.0, 140.0, 150.0]);
        assert_eq!(series.dropped.set_back, 1);
        assert_eq!(series.dropped.not_later, 0);
    }

    #[test]
    fn a_gap_is_left_out_and_marked() {
        let samples: Vec<(f64, f64, u32)> = (0..20)
            .map(|at| (f64::from(at) + if at < 10 { 0.0 } else { 500.0 }, 1.0, 0))
            .collect();
        let series = Series::new(&self::samples(&samples));
        assert_eq!(
            (series.gaps.as_slice(), series.watched()),
            ([10.0].as_slice(), 19.0)
        );
        assert_eq!(times(&series), (0..20).map(f64::from).collect::<Vec<_>>());
        // By night and by day, each second time: nothing is left out.
        let rare: Vec<(f64, f64, u32)> = (0..40)
            .map(|at| (f64::from(at / 4) * 1000.0 + f64::from(at % 4), 1.0, 0))
            .collect();
        let series = Series::new(&self::samples(&rare));
        assert!(series.gaps.is_empty() && series.watched() == 9003.0);
    }

    #[test]
    fn a_restart_begins_a_run() {
        let series = Series::new(&samples(&[
            (0.0, 1.0, 7),
            (1.0, 2.0, 7),
            (9.0, 3.0, 2),
            (10.0, 4.0, 2),
        ]));
        assert_eq!(series.runs.len(), 2);
        assert_eq!(series.len(), 4);
        assert_eq!(series.watched(), 2.0);
        assert!(Series::new(&[]).is_empty());
    }
}
