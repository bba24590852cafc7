//! Several tests at once: the more are tried, the likelier one of them succeeds by chance. Pure.

/// Holm's step-down correction (1979): the chances, in the order given, so that accepting those up to a bound errs with
/// at most that chance in all, however the tests depend on each other.
#[must_use]
pub fn corrected(chances: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = chances.iter().copied().enumerate().collect();
    order.sort_by(|one, next| one.1.total_cmp(&next.1));
    let mut corrected = chances.to_vec();
    let mut least: f64 = 0.0;
    for (left, (at, chance)) in (1..=order.len()).rev().zip(order) {
        least = least.max((chance * left as f64).min(1.0));
        if let Some(slot) = corrected.get_mut(at) {
            *slot = least;
        }
    }
    corrected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_pays_for_all() {
        let found = corrected(&[0.04, 0.01, 0.03]);
        let expected = [0.06, 0.03, 0.06];
        for (one, other) in found.iter().zip(expected) {
            assert!((one - other).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(corrected(&[0.02]), [0.02]);
        assert_eq!(corrected(&[0.7, 0.9]), [1.0, 1.0]);
        assert!(corrected(&[]).is_empty());
    }
}
