//! The Mann-Kendall test: does it rise, whatever the shape. Pure.
//!
//! S counts the pairs that rise less those that fall. Its variance without autocorrelation is Kendall's, with ties; with
//! it that of Hamed and Rao (1998), who add the correlation of the ranks. They estimate that correlation lag by lag, and
//! with it false alarms are far over their level in short, persistent series: a sum of many noisy terms, each biased
//! towards none. Here it is the one coefficient of [`super::noise`], which has its bias taken out, at every lag. A block
//! bootstrap needs blocks longer than the wander, and many of them; a window seldom holds those.

use std::f64::consts::PI;

use super::normal;

/// Of one series, or of the pieces of one: pairs are taken inside pieces alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kendall {
    /// Pairs that rise less pairs that fall.
    pub s: f64,
    /// Pairs.
    pub pairs: f64,
    /// Of S, if nothing rose and values were independent.
    pub variance: f64,
    /// Of S, with the autocorrelation that was given.
    pub corrected: f64,
}

impl Kendall {
    /// `pieces` hold values in the order of time, at most a few hundred: the cost is quadratic. `correlation` is that of
    /// neighbours, from 0 to 1.
    #[must_use]
    pub fn of(pieces: &[Vec<f64>], correlation: f64) -> Self {
        let mut sum = Self {
            s: 0.0,
            pairs: 0.0,
            variance: 0.0,
            corrected: 0.0,
        };
        for values in pieces {
            let count = values.len() as f64;
            let variance = variance(values);
            sum.s += score(values);
            sum.pairs += count * (count - 1.0) / 2.0;
            sum.variance += variance;
            sum.corrected += variance * inflation(values.len(), correlation);
        }
        sum
    }

    /// From -1 to 1: the share of pairs that rise less that of those that fall.
    #[must_use]
    pub fn tau(&self) -> f64 {
        if self.pairs > 0.0 {
            self.s / self.pairs
        } else {
            0.0
        }
    }

    /// The chance that S is as far from zero, on either side, when nothing rises or falls.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        if self.corrected <= 0.0 || self.s == 0.0 {
            return 1.0;
        }
        // S goes in steps of two: half a step back.
        let z = (self.s.abs() - 1.0) / self.corrected.sqrt();
        (2.0 * normal::upper_tail(z)).min(1.0)
    }
}

fn score(values: &[f64]) -> f64 {
    let mut score = 0_i64;
    let mut rest = values;
    while let Some((first, later)) = rest.split_first() {
        for value in later {
            score += match value.partial_cmp(first) {
                Some(std::cmp::Ordering::Greater) => 1,
                Some(std::cmp::Ordering::Less) => -1,
                _ => 0,
            };
        }
        rest = later;
    }
    score as f64
}

/// Kendall's, with groups of equal values taken out.
fn variance(values: &[f64]) -> f64 {
    let term = |count: f64| count * (count - 1.0) * (2.0 * count + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|one, next| one == next)
        .map(|equal| term(equal.len() as f64))
        .sum();
    (term(values.len() as f64) - ties) / 18.0
}

/// By how much the variance of S is greater where neighbours correlate: Hamed and Rao's sum, at least 1.
fn inflation(count: usize, correlation: f64) -> f64 {
    let n = count as f64;
    if count < 3 || correlation <= 0.0 {
        return 1.0;
    }
    let mut power = 1.0;
    let mut sum = 0.0;
    for lag in 1..count.saturating_sub(2) {
        power *= correlation.min(1.0);
        if power < 1e-9 {
            break;
        }
        let left = n - lag as f64;
        // Of ranks, where the values are normal.
        let ranks = 6.0 / PI * (power / 2.0).asin();
        sum += left * (left - 1.0) * (left - 2.0) * ranks;
    }
    1.0 + 2.0 * sum / (n * (n - 1.0) * (n - 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_and_its_variance_by_hand() {
        // 5 values, all rising: 10 pairs, 5 * 4 * 15 / 18.
        let rising = Kendall::of(&[vec![1.0, 2.0, 3.0, 4.0, 5.0]], 0.0);
        assert_eq!((rising.s, rising.pairs, rising.tau()), (10.0, 10.0, 1.0));
        assert!((rising.variance - 16.666_666).abs() < 1e-4);
        // Ties of two and of three: (7*6*19 - 2*1*9 - 3*2*11) / 18. Rising pairs: 1 of the two 2s with each of
        // 3, 3, 3 and so on, counted by hand: 17, and none falls.
        let tied = Kendall::of(&[vec![1.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0]], 0.0);
        assert_eq!(tied.s, 17.0);
        assert!((tied.variance - (798.0 - 18.0 - 66.0) / 18.0).abs() < 1e-9);
        let flat = Kendall::of(&[vec![3.0; 20]], 0.5);
        assert_eq!((flat.s, flat.variance, flat.p_value()), (0.0, 0.0, 1.0));
    }

    #[test]
    fn an_example_of_gilbert() {
        // Gilbert (1987), Statistical Methods for Environmental Pollution Monitoring, section 16.4.1: of 10, 15, 14, 20
        // five pairs rise and one falls.
        let four = Kendall::of(&[vec![10.0, 15.0, 14.0, 20.0]], 0.0);
        assert_eq!(four.s, 4.0);
        assert!((four.variance - 4.0 * 3.0 * 13.0 / 18.0).abs() < 1e-9);
    }

    #[test]
    fn pieces_add_up_and_are_not_compared() {
        let pieces = Kendall::of(&[vec![1.0, 2.0, 3.0], vec![-9.0, -8.0, -7.0]], 0.0);
        assert_eq!((pieces.s, pieces.pairs), (6.0, 6.0));
        assert!((pieces.variance - 2.0 * 3.0 * 2.0 * 11.0 / 18.0).abs() < 1e-9);
    }

    #[test]
    fn correlation_widens() {
        assert_eq!(inflation(50, 0.0), 1.0);
        // A long series tends to the sum of the ranks' correlations: 1 + 2 * sum.
        let sum: f64 = (1..200)
            .map(|lag| 6.0 / PI * (0.8_f64.powi(lag) / 2.0).asin())
            .sum();
        assert!((inflation(100_000, 0.8) - (1.0 + 2.0 * sum)).abs() < 0.01);
        let values: Vec<f64> = (0..40).map(f64::from).collect();
        let one = Kendall::of(std::slice::from_ref(&values), 0.0).p_value();
        let two = Kendall::of(&[values], 0.9).p_value();
        assert!(one < 1e-10 && two > 1e-3, "{one} {two}");
    }
}
