//! Samples as they come, made into pieces that time runs through. Pure.

/// Samples in a row that lie before the last one, each later than the one before: from so many on the clock was set
/// back and goes on from there. Fewer are strays, and dropped.
const CLOCK_SET_BACK: usize = 3;

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
                    dropped.set_back += 1;
                    shift += before + interval - at;
                    at = before + interval;
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
        Self { runs, dropped }
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
