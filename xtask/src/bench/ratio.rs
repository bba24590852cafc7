//! From measured values to a slowdown.

use std::fmt;

/// Which way a value goes when the program becomes slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A rate: it falls.
    Falls,
    /// A time: it rises.
    Rises,
}

/// How many times slower the traced window was than the mean of the untraced ones around it. 1 is no slowdown.
pub fn slowdown(direction: Direction, before: f64, traced: f64, after: f64) -> f64 {
    let untraced = f64::midpoint(before, after);
    match direction {
        Direction::Falls => untraced / traced,
        Direction::Rises => traced / untraced,
    }
}

/// The same where what makes the machine faster and slower multiplies: three values that differ by chance alone come to 1 in
/// the geometric mean of many, where [`slowdown`] comes to more.
pub fn slowdown_of_rates(before: f64, traced: f64, after: f64) -> f64 {
    (before * after).sqrt() / traced
}

/// The middle value; between the two middle ones of an even number.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(*lower, *upper))
}

/// The mean of several measurements, and its standard error, which a single one does not tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    pub mean: f64,
    pub error: Option<f64>,
}

impl Mean {
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (!values.is_empty()).then(|| Self {
            mean,
            error: (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt()),
        })
    }

    /// The geometric mean of values near 1.
    pub fn of_ratios(values: &[f64]) -> Option<Self> {
        let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        let Self { mean, error } = Self::of(&logarithms)?;
        let mean = mean.exp();
        Some(Self {
            mean,
            error: error.map(|error| error * mean),
        })
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(into, "{:.3}", self.mean)?;
        self.error.map_or(Ok(()), |error| write!(into, " ± {error:.3}"))
    }
}

/// Several measurements of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Spread {
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values)?,
            lowest: values.iter().copied().min_by(f64::total_cmp)?,
            highest: values.iter().copied().max_by(f64::total_cmp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn slower_is_above_one_for_rates_and_for_times() {
        assert_eq!(slowdown(Direction::Falls, 90.0, 50.0, 110.0), 2.0);
        assert_eq!(slowdown(Direction::Rises, 90.0, 150.0, 110.0), 1.5);
        assert_eq!(slowdown(Direction::Falls, 100.0, 100.0, 100.0), 1.0);
    }

    #[test]
    fn chance_alone_is_no_slowdown_of_rates() {
        // Each of the three is now twice as fast as usual and now half as fast.
        let speeds = [0.5, 2.0];
        let all: Vec<f64> = speeds
            .iter()
            .flat_map(|before| speeds.iter().map(move |after| (before, after)))
            .flat_map(|(before, after)| speeds.map(|traced| slowdown_of_rates(*before, traced, *after)))
            .collect();
        let mean = Mean::of_ratios(&all).unwrap();
        assert!((mean.mean - 1.0).abs() < 1e-12, "{mean:?}");
        // Of the logarithms: once 2 ln 2 below 0 and above, twice ln 2 below and above, twice 0.
        let error = (12.0 * 2f64.ln().powi(2) / 7.0 / 8.0).sqrt();
        assert!((mean.error.unwrap() - error).abs() < 1e-12, "{mean:?}");
        assert_eq!(Mean::of_ratios(&[1.5]).map(|mean| mean.error), Some(None));
        assert_eq!(Mean::of_ratios(&[]), None);
    }

    #[test]
    fn a_spread_holds_its_ends() {
        let spread = Spread::of(&[1.2, 1.0, 1.1]).unwrap();
        assert_eq!((spread.lowest, spread.median, spread.highest), (1.0, 1.1, 1.2));
        assert_eq!(Spread::of(&[]), None);
    }
}
