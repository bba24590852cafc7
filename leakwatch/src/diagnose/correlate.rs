//! Whether a size goes with a count: connections, descriptors, threads. Pure.
//!
//! Two series that both grow always correlate; that says nothing. What is compared is how they change, less what they do
//! around that time anyway: a burst of connections must be a burst of memory, at once or a little later.
//!
//! The chance of as much by accident is counted, not computed: one series is rotated against the other, forwards and backwards,
//! and each time the best of all lags and spans is taken: a coefficient is as likely as they reach it. So the lags tried and
//! whatever memory the series have are in it. What that cannot tell is that a single event is no evidence, however well it
//! fits: so a correlation that rests on few events has a chance no less than as many coins would. Of all lags and spans that
//! one is told whose chance is least: over a long span a few events may fit better than many do over a short one, and prove
//! less.

use super::trend::order;

/// Points at most; more samples are thinned to means, of which the bytes per unit come out a little too low.
const POINTS_MOST: usize = 2048;
/// Rotations tried at most, as many again with the count's time reversed. They bound the cost.
const ROTATIONS_MOST: usize = 100;
/// Changes before anything is said.
const CHANGES_LEAST: usize = 24;
/// Points that memory may come later by.
const LAGS: usize = 6;
/// Over how many points a change is taken: a short one tells when, a longer one stands higher over the noise.
const SPANS: [usize; 2] = [1, 5];
/// Changes whose median is what happens around that time anyway.
const AROUND: usize = 31;
/// A change of size counts as at most so many times the usual one.
const WILD: f64 = 8.0;
/// Bytes: the least that a resident size changes by.
const PAGE: f64 = 4096.0;
/// Parts that bytes per unit are taken from, where there are enough changes, and the changes of one at most.
const PARTS: usize = 60;
const SPAN_MOST: usize = 10;
/// Deviations of an interval of 95 %.
const INTERVAL: f64 = 1.96;
/// Events below which it is said that there are few: five coins fall alike one time in 32.
const EVENTS_FEW: f64 = 5.0;

/// A size and a count at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Seconds; not later than the one before: dropped.
    pub at: f64,
    pub bytes: f64,
    /// Connections, descriptors or threads.
    pub units: f64,
    /// Where it changes, the process was restarted: no change is taken across.
    pub run: u32,
}

/// Bytes per unit, with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerUnit {
    pub bytes: f64,
    pub low: f64,
    pub high: f64,
}

/// How a size goes with a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// Of the changes, from -1 to 1, at the lag and span where it is the least likely to be an accident.
    pub coefficient: f64,
    /// Seconds by which the size follows.
    pub lag: f64,
    /// The chance of as great a coefficient where the two have nothing to do with each other. Counted among at most 200
    /// rotations, so that it is never below 1 in 201.
    pub p_value: f64,
    /// How many changes it rests on, by their weight in it.
    pub events: f64,
    /// `None` where no two changes of the count differ.
    pub per_unit: Option<PerUnit>,
    /// The changes compared.
    pub changes: usize,
}

impl Correlation {
    /// Whether it rests on so few events that it is an anecdote.
    #[must_use]
    pub fn rests_on_few_events(&self) -> bool {
        self.events < EVENTS_FEW
    }
}

/// Over how many points, and the changes of sizes and of counts over so many.
type Span = (usize, Vec<f64>, Vec<f64>);

/// Compares; `None` where too few samples are left, or the count or the size never changes.
#[must_use]
pub fn correlate(samples: &[Paired]) -> Option<Correlation> {
    let (points, interval) = thinned(&usable(samples));
    let (size_changes, count_changes) = changes(&points);
    if size_changes.len() < CHANGES_LEAST {
        return None;
    }
    let sizes = tamed(&without_usual(&size_changes));
    let counts = without_usual(&count_changes);
    let spans: Vec<Span> = SPANS
        .iter()
        .map(|span| (*span, sums(&sizes, *span), sums(&counts, *span)))
        .collect();
    // Lags compared at rotations must not reach the true ones.
    let nearest = LAGS + SPANS.iter().max()?;
    let by_accident = by_accident(&spans, nearest);
    let candidates = spans.iter().flat_map(|(span, sizes, counts)| {
        (0..=LAGS).filter_map(move |lag| {
            Some(Candidate {
                coefficient: coefficient(sizes, counts, lag)?,
                lag,
                events: events(sizes, counts, lag, *span),
            })
        })
    });
    let (p_value, best) = candidates
        .map(|candidate| (candidate.chance(&by_accident), candidate))
        .min_by(|(one_chance, one), (chance, other)| {
            one_chance
                .total_cmp(chance)
                .then(other.coefficient.total_cmp(&one.coefficient))
        })?;
    Some(Correlation {
        coefficient: best.coefficient,
        lag: best.lag as f64 * interval,
        p_value,
        events: best.events,
        per_unit: per_unit(&size_changes, &count_changes, best.lag),
        changes: sizes.len(),
    })
}

/// A coefficient at one of the lags and spans.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    coefficient: f64,
    lag: usize,
    events: f64,
}

impl Candidate {
    fn chance(&self, by_accident: &[f64]) -> f64 {
        let as_great = by_accident
            .iter()
            .filter(|other| **other >= self.coefficient)
            .count();
        let chance = (1 + as_great) as f64 / (1 + by_accident.len()) as f64;
        chance.max(0.5_f64.powf(self.events))
    }
}

/// The greatest coefficient of all lags and spans at each rotation, forwards and backwards; rotations so small that they
/// reach the true lags are left out.
fn by_accident(spans: &[Span], nearest: usize) -> Vec<f64> {
    let changes = spans.iter().map(|(_, sizes, _)| sizes.len()).max().unwrap_or(0);
    let far = changes.saturating_sub(2 * nearest);
    let rotations = nearest + 1..changes.saturating_sub(nearest);
    rotations
        .step_by(far.div_ceil(ROTATIONS_MOST).max(1))
        .flat_map(|rotation| [(rotation, false), (rotation, true)])
        .map(|(rotation, reversed)| {
            spans
                .iter()
                .filter_map(|(_, sizes, counts)| {
                    let mut turned = counts.clone();
                    turned.rotate_right(rotation % counts.len().max(1));
                    if reversed {
                        turned.reverse();
                    }
                    (0..=LAGS)
                        .filter_map(|lag| coefficient(sizes, &turned, lag))
                        .max_by(f64::total_cmp)
                })
                .fold(f64::NEG_INFINITY, f64::max)
        })
        .collect()
}

fn usable(samples: &[Paired]) -> Vec<Paired> {
    let mut last = f64::NEG_INFINITY;
    samples
        .iter()
        .filter(|sample| {
            let sound = [sample.at, sample.bytes, sample.units]
                .iter()
                .all(|value| value.is_finite());
            let later = sound && sample.at > last;
            if later {
                last = sample.at;
            }
            later
        })
        .copied()
        .collect()
}

/// Means of neighbours of one run, and the seconds from one to the next, the median.
fn thinned(samples: &[Paired]) -> (Vec<Paired>, f64) {
    let each = samples.len().div_ceil(POINTS_MOST).max(1);
    let points: Vec<Paired> = samples
        .chunk_by(|one, next| one.run == next.run)
        .flat_map(|run| run.chunks(each))
        .filter_map(|bin| {
            let first = bin.first()?;
            let mean = |of: fn(&Paired) -> f64| {
                let start = of(first);
                start + bin.iter().map(|sample| of(sample) - start).sum::<f64>() / bin.len() as f64
            };
            Some(Paired {
                at: mean(|sample| sample.at),
                bytes: mean(|sample| sample.bytes),
                units: mean(|sample| sample.units),
                run: first.run,
            })
        })
        .collect();
    let gaps: Vec<f64> = neighbours(&points).map(|(one, next)| next.at - one.at).collect();
    let interval = order::median(&gaps).unwrap_or(0.0);
    (points, interval)
}

fn neighbours(points: &[Paired]) -> impl Iterator<Item = (&Paired, &Paired)> {
    points
        .iter()
        .zip(points.iter().skip(1))
        .filter(|(one, next)| one.run == next.run)
}

fn changes(points: &[Paired]) -> (Vec<f64>, Vec<f64>) {
    neighbours(points)
        .map(|(one, next)| (next.bytes - one.bytes, next.units - one.units))
        .unzip()
}

/// Each change less the median of those around it: a trend is gone, and so is the slackening of a warm-up, which two
/// series may well share.
fn without_usual(changes: &[f64]) -> Vec<f64> {
    let half = AROUND / 2;
    changes
        .iter()
        .enumerate()
        .map(|(index, change)| {
            // At the ends as many, from one side.
            let first = index
                .saturating_sub(half)
                .min(changes.len().saturating_sub(AROUND));
            let around: Vec<f64> = changes.iter().skip(first).take(AROUND).copied().collect();
            change - order::median_of(around).unwrap_or(0.0)
        })
        .collect()
}

fn tamed(changes: &[f64]) -> Vec<f64> {
    let usual = order::spread(changes, 0.0).max(PAGE);
    changes
        .iter()
        .map(|change| change.clamp(-WILD * usual, WILD * usual))
        .collect()
}

/// Of each `span` changes in a row.
fn sums(changes: &[f64], span: usize) -> Vec<f64> {
    changes.windows(span).map(|window| window.iter().sum()).collect()
}

fn lagged<'a>(
    sizes: &'a [f64],
    counts: &'a [f64],
    lag: usize,
) -> impl Iterator<Item = (f64, f64)> + Clone + 'a {
    sizes.iter().skip(lag).copied().zip(counts.iter().copied())
}

/// Pearson's. About the means, though what is usual has been taken away: clumps that only come leave both above zero, and
/// then any two go together. `None` where nothing changes.
fn coefficient(sizes: &[f64], counts: &[f64], lag: usize) -> Option<f64> {
    let pairs = lagged(sizes, counts, lag);
    let number = pairs.clone().count() as f64;
    let (size_sum, count_sum) = pairs
        .clone()
        .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (size_mean, count_mean) = (size_sum / number, count_sum / number);
    let (mut both, mut size, mut count) = (0.0, 0.0, 0.0);
    for (one, other) in pairs {
        let (one, other) = (one - size_mean, other - count_mean);
        both += one * other;
        size += one * one;
        count += other * other;
    }
    let coefficient = both / (size.sqrt() * count.sqrt());
    // Of changes beyond all numbers there is none.
    coefficient.is_finite().then_some(coefficient)
}

/// As how many equal ones the events that speak for the coefficient are.
///
/// The parts that speak for it, as many as would be equal, over how many of them an event takes: at least those that share a
/// change, and as many as they are alike for (a sum of autocorrelations up to the first that is none). A warm-up that both
/// share fades over many changes and is one event.
fn events(sizes: &[f64], counts: &[f64], lag: usize, span: usize) -> f64 {
    let parts: Vec<f64> = lagged(sizes, counts, lag)
        .map(|(one, other)| (one * other).max(0.0))
        .collect();
    let sum: f64 = parts.iter().sum();
    let squares: f64 = parts.iter().map(|part| part * part).sum();
    let mean = sum / parts.len() as f64;
    let alike = |apart: usize| -> f64 {
        let pairs = parts.iter().zip(parts.iter().skip(apart));
        pairs.map(|(one, other)| (one - mean) * (other - mean)).sum()
    };
    let variance = alike(0);
    if squares <= 0.0 || variance <= 0.0 {
        return 0.0;
    }
    let remembered: f64 = (1..parts.len())
        .map(|apart| alike(apart) / variance)
        .take_while(|correlation| *correlation > 0.0)
        .sum();
    sum * sum / squares / (1.0 + 2.0 * remembered).max(span as f64)
}

/// Theil and Sen's slope of the sizes' changes over the counts', with Sen's interval.
///
/// The changes are taken over several points, so that what comes between two lags is in them, and each less the one
/// before: a trend is gone, by the same sum for both. Medians around would differ by noise, and what is in the counts
/// alone draws a slope to zero.
fn per_unit(sizes: &[f64], counts: &[f64], lag: usize) -> Option<PerUnit> {
    let span = (sizes.len() / PARTS).clamp(1, SPAN_MOST);
    let pairs: Vec<(f64, f64)> = lagged(sizes, counts, lag).collect();
    let sums: Vec<(f64, f64)> = pairs
        .chunks_exact(span)
        .map(|chunk| {
            chunk
                .iter()
                .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1))
        })
        .collect();
    let parts: Vec<(f64, f64)> = sums
        .iter()
        .zip(sums.iter().skip(1))
        .map(|(one, next)| (next.0 - one.0, next.1 - one.1))
        .collect();
    let mut slopes = Vec::new();
    let mut rest = parts.as_slice();
    while let Some(((size, count), later)) = rest.split_first() {
        slopes.extend(
            later
                .iter()
                .filter(|(_, other)| other != count)
                .map(|(other_size, other)| (other_size - size) / (other - count)),
        );
        rest = later;
    }
    // Kendall's variance, with the counts' ties taken out.
    let term = |of: f64| of * (of - 1.0) * (2.0 * of + 5.0);
    let mut ties: Vec<f64> = parts.iter().map(|(_, count)| *count).collect();
    ties.sort_unstable_by(f64::total_cmp);
    let tied: f64 = ties
        .chunk_by(|one, next| one == next)
        .map(|equal| term(equal.len() as f64))
        .sum();
    let deviation = ((term(parts.len() as f64) - tied) / 18.0).max(0.0).sqrt();
    // Neighbouring parts share a sum: they tell as much as half as many.
    let reach = 0.5 * INTERVAL * 2.0_f64.sqrt() * deviation / slopes.len().max(1) as f64;
    Some(PerUnit {
        bytes: order::median(&slopes)?,
        low: order::quantile(&slopes, 0.5 - reach)?,
        high: order::quantile(&slopes, 0.5 + reach)?,
    })
}

#[cfg(test)]
#[path = "correlate_tests.rs"]
mod tests;
