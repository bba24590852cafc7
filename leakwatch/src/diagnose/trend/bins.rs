//! Few points from many: single spikes out, then means of neighbours. Pure.
//!
//! It bounds the cost of what compares all pairs, and does it better than a choice of pairs: each sample has its part in
//! a bin, short noise averages out, and longer noise shows as correlation of the bins.

use super::order;
use super::series::Point;

/// Samples on either side that a spike is judged by.
const NEIGHBOURS: usize = 3;
/// In standard deviations of its neighbours: normal noise has one such in a hundred thousand, and it costs nothing if it
/// is taken for a spike.
const SPIKE: f64 = 5.0;

/// A stretch of one run with no step in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// When the run began, seconds.
    pub began: f64,
    pub points: Vec<Point>,
}

/// Puts the neighbours' median where a value stands out of them (Hampel's filter). A step stays where it is: it is not
/// alone.
#[must_use]
pub fn without_spikes(points: &[Point]) -> Vec<Point> {
    points
        .iter()
        .enumerate()
        .map(|(index, point)| {
            let window: Vec<f64> = points
                .iter()
                .skip(index.saturating_sub(NEIGHBOURS))
                .take(NEIGHBOURS + 1 + index.min(NEIGHBOURS))
                .map(|point| point.bytes)
                .collect();
            let whole = window.len() == 2 * NEIGHBOURS + 1;
            let amid = window.iter().any(|other| *other > point.bytes)
                && window.iter().any(|other| *other < point.bytes);
            if !whole || amid {
                return *point;
            }
            let centre = order::median(&window).unwrap_or(point.bytes);
            let stands_out = (point.bytes - centre).abs() > SPIKE * order::spread(&window, centre);
            Point {
                at: point.at,
                bytes: if stands_out { centre } else { point.bytes },
            }
        })
        .collect()
}

/// As many points as are asked for at most, each of the same number of samples but for a piece's last: the middle of
/// their values at their mean time.
#[must_use]
pub fn binned(pieces: &[Piece], most: usize) -> Vec<Piece> {
    let count: usize = pieces.iter().map(|piece| piece.points.len()).sum();
    let each = count.div_ceil(most.max(1)).max(1);
    pieces
        .iter()
        .map(|piece| {
            // Evenly: a last bin of one sample would be the noisiest, and at the end weighs the most.
            let bins = (piece.points.len() / each).max(1);
            let size = piece.points.len().div_ceil(bins).max(1);
            Piece {
                began: piece.began,
                points: piece.points.chunks(size).filter_map(bin).collect(),
            }
        })
        .collect()
}

fn bin(points: &[Point]) -> Option<Point> {
    let first = points.first()?.at;
    let values: Vec<f64> = points.iter().map(|point| point.bytes).collect();
    Some(Point {
        at: first + points.iter().map(|point| point.at - first).sum::<f64>() / points.len() as f64,
        bytes: order::midmean(&values)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_series::points;
    use super::*;

    #[test]
    fn spikes_go_and_steps_stay() {
        let mut values = vec![1.0, 2.0, 3.0, 2.0, 1.0, 90.0, 3.0, 2.0, 1.0, 2.0];
        let filtered = without_spikes(&points(values.clone()));
        assert_eq!(filtered[5].bytes, 2.0);
        values[5] = 2.0;
        assert_eq!(filtered, points(values));
        let step = points([1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0]);
        assert_eq!(without_spikes(&step), step);
    }

    #[test]
    fn bins_are_even_and_of_one_piece() {
        let piece = |count: u32| Piece {
            began: 0.0,
            points: points((0..count).map(f64::from)),
        };
        let bins = binned(&[piece(300), piece(50)], 100);
        assert_eq!(bins[0].points.len(), 75);
        // Twelve bins of four would leave two samples for one more.
        assert_eq!(bins[1].points.len(), 10);
        assert_eq!(bins[0].points[0], Point { at: 1.5, bytes: 1.5 });
        assert_eq!(binned(&[piece(20)], 100), [piece(20)]);
    }
}
