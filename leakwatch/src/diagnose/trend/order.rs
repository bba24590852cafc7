//! Order statistics: what a few wild values do not move. Pure.

/// From the median absolute deviation to the standard deviation of a normal distribution.
const NORMAL: f64 = 1.4826;

/// `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    median_of(values.to_vec())
}

/// As [`median`], of values whose order may go.
#[must_use]
pub fn median_of(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let half = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *middle;
    if !even {
        return Some(upper);
    }
    below
        .iter()
        .copied()
        .max_by(f64::total_cmp)
        .map(|lower| f64::midpoint(lower, upper))
}

/// The median absolute deviation from `centre`, as a standard deviation; zero of nothing.
#[must_use]
pub fn spread(values: &[f64], centre: f64) -> f64 {
    NORMAL * median_of(values.iter().map(|value| (value - centre).abs()).collect()).unwrap_or(0.0)
}

/// The mean of the middle half: near the mean's precision under normal noise, and a quarter of the values on either
/// side may be anything. `None` of nothing.
#[must_use]
pub fn midmean(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let cut = sorted.len() / 4;
    let kept = sorted.len() - 2 * cut;
    let sum: f64 = sorted.iter().skip(cut).take(kept).sum();
    (kept > 0).then(|| sum / kept as f64)
}

/// The value that the given share of the values lies below; `None` of nothing.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = (share.clamp(0.0, 1.0) * last as f64).round();
    sorted
        .iter()
        .enumerate()
        .find(|(index, _)| *index as f64 >= place)
        .map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_small_sets() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 100.0], 3.0), 1.4826);
        assert_eq!(midmean(&[]), None);
        assert_eq!(midmean(&[7.0]), Some(7.0));
        assert_eq!(midmean(&[-100.0, 1.0, 3.0, 100.0]), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[5.0, 1.0, 3.0], 0.0), Some(1.0));
        assert_eq!(quantile(&[5.0, 1.0, 3.0], 1.0), Some(5.0));
    }
}
