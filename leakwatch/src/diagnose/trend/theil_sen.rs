//! The Theil-Sen line: the median of the slopes of all pairs. Pure.

use super::order;
use super::series::Point;

/// Bytes per second: the median of the slopes of all pairs of points inside one piece, a pair weighing the same
/// whatever its distance. Up to 29 % of the points may be anything. Quadratic: for a few hundred points.
///
/// `None` without a pair at two times.
#[must_use]
pub fn slope(pieces: &[Vec<Point>]) -> Option<f64> {
    let mut slopes = Vec::new();
    for points in pieces {
        let mut rest = points.as_slice();
        while let Some((first, later)) = rest.split_first() {
            slopes.extend(
                later
                    .iter()
                    .filter(|point| point.at > first.at)
                    .map(|point| (point.bytes - first.bytes) / (point.at - first.at)),
            );
            rest = later;
        }
    }
    order::median_of(slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(of: &[(f64, f64)]) -> Vec<Point> {
        of.iter().map(|&(at, bytes)| Point { at, bytes }).collect()
    }

    #[test]
    fn by_hand() {
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[points(&[(0.0, 1.0)])]), None);
        assert_eq!(slope(&[points(&[(0.0, 1.0), (2.0, 5.0)])]), Some(2.0));
        // Slopes 1, 2, 3, 3, 4, 5 of (0,0) (1,1) (2,4) (3,9): median 3.
        assert_eq!(
            slope(&[points(&[(0.0, 0.0), (1.0, 1.0), (2.0, 4.0), (3.0, 9.0)])]),
            Some(3.0)
        );
        // Sen (1968), section 6: x = 1, 2, 3, 4, 10, 12, 18, y = 9, 15, 19, 20, 45, 55, 78: the estimate is 4.
        let sen = points(&[
            (1.0, 9.0),
            (2.0, 15.0),
            (3.0, 19.0),
            (4.0, 20.0),
            (10.0, 45.0),
            (12.0, 55.0),
            (18.0, 78.0),
        ]);
        assert_eq!(slope(&[sen]), Some(4.0));
    }

    #[test]
    fn wild_values_and_steps_between_pieces_do_not_move_it() {
        let mut line: Vec<Point> = (0..40)
            .map(|at| Point {
                at: f64::from(at),
                bytes: 7.0 * f64::from(at),
            })
            .collect();
        for wild in [3, 11, 17, 30, 39] {
            line[wild].bytes += 1e9;
        }
        let mut after = line.clone();
        for point in &mut after {
            point.at += 100.0;
            point.bytes -= 1e6;
        }
        assert_eq!(slope(&[line, after]), Some(7.0));
    }
}
