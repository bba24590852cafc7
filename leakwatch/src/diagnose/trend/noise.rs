//! How wildly a series goes about its trend, and how long it remembers. Pure.

/// How much neighbours correlate, 0 to 1, with what short series hide added; the values are what a fit has left, by pieces.
///
/// Of a persistent series a fit takes part of the wander for trend, and what is left looks less persistent than it is: by
/// about `(columns + (columns + 2) * correlation) / points` (Kendall 1954 and Marriott and Pope 1954 for a mean, carried on
/// to a trend and curves). That is added back, and a standard error of the estimate too: a correlation estimated too low
/// is a false alarm, one too high only asks for a longer look.
#[must_use]
pub fn correlation(residuals: &[Vec<f64>], columns: usize) -> f64 {
    let points: usize = residuals.iter().map(Vec::len).sum();
    let product = |lag: usize| -> f64 {
        let pairs = residuals
            .iter()
            .flat_map(|piece| piece.iter().zip(piece.iter().skip(lag)));
        pairs.map(|(one, next)| one * next).sum()
    };
    let squares = product(0);
    let (points, columns) = (points as f64, columns as f64);
    if squares <= 0.0 || points <= columns + 2.0 {
        return 0.0;
    }
    let [first, second, third] = [1, 2, 3].map(|lag| product(lag) / squares);
    // Fresh noise on top of a wander hides it from neighbours, not from the way in which lags fall off; they tell it
    // where there is anything to fall off.
    let mut seen = first;
    if first + second > 2.0 * (2.0 / points).sqrt() {
        seen = seen.max((second + third) / (first + second));
    }
    let likely = ((seen + columns / points) / (1.0 - (columns + 2.0) / points)).clamp(-1.0, 1.0);
    let error = ((1.0 - likely * likely) / points).sqrt();
    (likely + error).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_known_residuals() {
        assert_eq!(correlation(&[], 2), 0.0);
        assert_eq!(correlation(&[vec![0.0; 50]], 2), 0.0);
        // It alternates: no correlation is taken from it.
        let alternating: Vec<f64> = (0..100).map(|at| if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert_eq!(correlation(&[alternating], 2), 0.0);
        // Halves of one sign each: as good as a walk.
        let halves: Vec<f64> = (0..100).map(|at| if at < 50 { 1.0 } else { -1.0 }).collect();
        assert_eq!(correlation(&[halves], 4), 1.0);
        // Neighbours of different pieces are none.
        let pairs: Vec<Vec<f64>> = (0..50).map(|_| vec![1.0, -1.0]).collect();
        assert_eq!(correlation(&pairs, 2), 0.0);
    }
}
