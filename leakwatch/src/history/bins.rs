//! A bounded number of points of any number of samples, for plots. Pure.

use super::At;
use super::figures::{Figures, METRICS};
use super::read::Kept;

/// Part of the time, with what was least, mean and greatest in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Its first sample.
    pub at: At,
    /// Which run of its service, counted from 0. A bin is of one run.
    pub run: u32,
    pub samples: u64,
    pub least: Figures,
    pub most: Figures,
    sums: [Sum; METRICS.len()],
}

/// Of one metric: the sum of its samples, and how many had it. A mean of means would be rounded again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    total: f64,
    samples: f64,
}

impl Bin {
    #[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
    fn of(run: u32, kept: &Kept) -> Self {
        let samples = kept.samples.max(1);
        let mut sums = [Sum::default(); METRICS.len()];
        for (sum, metric) in sums.iter_mut().zip(&METRICS) {
            if let Some(mean) = (metric.get)(&kept.mean) {
                sum.samples = samples as f64;
                sum.total = mean as f64 * sum.samples;
            }
        }
        Self {
            at: kept.at,
            run,
            samples,
            least: kept.least,
            most: kept.most,
            sums,
        }
    }

    /// The mean of each metric, over the samples that have it.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of such figures"
    )]
    pub fn mean(&self) -> Figures {
        let mut mean = Figures::default();
        for (sum, metric) in self.sums.iter().zip(&METRICS) {
            let value = (sum.samples > 0.0).then(|| (sum.total / sum.samples).round() as u64);
            (metric.set)(&mut mean, value);
        }
        mean
    }
}

/// Takes what is kept in the order of time. When it is full, neighbours become one, and from then on a bin takes twice the
/// time.
#[derive(Clone, Debug)]
pub struct Bins {
    bins: Vec<Bin>,
    most: usize,
    /// Milliseconds that a bin may span.
    span: i64,
}

impl Bins {
    /// At most so many points; at least 2. A run has one of its own at least, however many there are.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            bins: Vec::new(),
            most: most.max(2),
            span: 0,
        }
    }

    /// The next, of the run that is counted so.
    pub fn push(&mut self, run: u32, kept: &Kept) {
        self.join(Bin::of(run, kept));
        while self.bins.len() > self.most {
            let joinable = |pair: (&Bin, &Bin)| pair.0.run == pair.1.run;
            if !self.bins.iter().zip(self.bins.iter().skip(1)).any(joinable) {
                // As many runs as bins: the oldest goes.
                self.bins.remove(0);
                continue;
            }
            let first = self.bins.first().map_or(0, |bin| bin.at.0);
            let last = self.bins.last().map_or(0, |bin| bin.at.0);
            let even = last.saturating_sub(first) / i64::try_from(self.most).unwrap_or(i64::MAX);
            self.span = self.span.saturating_mul(2).max(even).max(1);
            for bin in std::mem::take(&mut self.bins) {
                self.join(bin);
            }
        }
    }

    fn join(&mut self, next: Bin) {
        match self.bins.last_mut() {
            Some(last)
                if last.run == next.run && (0..self.span).contains(&next.at.0.saturating_sub(last.at.0)) =>
            {
                *last = joined(last, &next);
            }
            _ => self.bins.push(next),
        }
    }

    #[must_use]
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }
}

fn joined(one: &Bin, next: &Bin) -> Bin {
    let mut bin = Bin {
        samples: one.samples.saturating_add(next.samples),
        ..*one
    };
    for (sum, more) in bin.sums.iter_mut().zip(&next.sums) {
        sum.total += more.total;
        sum.samples += more.samples;
    }
    for metric in &METRICS {
        let both = |pick: fn(u64, u64) -> u64, of: fn(&Bin) -> &Figures| {
            let values = ((metric.get)(of(one)), (metric.get)(of(next)));
            match values {
                (Some(one), Some(next)) => Some(pick(one, next)),
                (one, next) => one.or(next),
            }
        };
        let least = both(u64::min, |bin| &bin.least);
        let most = both(u64::max, |bin| &bin.most);
        (metric.set)(&mut bin.least, least);
        (metric.set)(&mut bin.most, most);
    }
    bin
}

#[cfg(test)]
mod tests {
    use super::super::RunId;
    use super::*;

    fn kept(at: i64, bytes: u64) -> Kept {
        let figures = Figures {
            rss_bytes: Some(bytes),
            ..Figures::default()
        };
        Kept {
            run: RunId(1),
            at: At(at),
            width: 0,
            samples: 1,
            least: figures,
            mean: figures,
            most: figures,
        }
    }

    #[test]
    fn few_points_stay_as_they_are() {
        let mut bins = Bins::new(10);
        for at in 0..10 {
            bins.push(0, &kept(at * 1000, 7));
        }
        assert_eq!(bins.bins().len(), 10);
        assert_eq!(bins.bins()[3].at, At(3000));
    }

    #[test]
    fn a_saw_keeps_its_floor_its_height_and_its_mean() {
        let mut bins = Bins::new(64);
        for at in 0..100_000_i64 {
            bins.push(0, &kept(at * 1000, 1000 + u64::try_from(at % 10).unwrap()));
        }
        let bins = bins.bins();
        assert!((32..=64).contains(&bins.len()), "{}", bins.len());
        assert_eq!(bins.iter().map(|bin| bin.samples).sum::<u64>(), 100_000);
        for bin in &bins[..bins.len() - 1] {
            assert_eq!(bin.least.rss_bytes, Some(1000));
            assert_eq!(bin.most.rss_bytes, Some(1009));
            assert!((1003..=1005).contains(&bin.mean().rss_bytes.unwrap()), "{bin:?}");
        }
        assert!(bins.is_sorted_by_key(|bin| bin.at));
    }

    #[test]
    fn a_bin_is_of_one_run_and_more_runs_than_points_stay_bounded() {
        let mut bins = Bins::new(4);
        for at in 0..100_u32 {
            bins.push(at / 2, &kept(i64::from(at) * 1000, u64::from(at)));
        }
        assert!(bins.bins().len() <= 4);
        assert_eq!(bins.bins().last().unwrap().run, 49);
    }
}
