//! Memory that saws: a collector lets it rise and takes it down at once. What is kept shows in the floors. Pure.

use super::order;
use super::series::{Point, span};

/// A drop is this many times the spread of the other changes from sample to sample.
const STANDS_OUT: f64 = 6.0;
/// ...and this many times what all but one in a cycle's length change by: coarse noise has no spread.
const OVER_JITTER: f64 = 2.5;
/// Of as many changes upwards as stand out, there are so many drops at least: noise that jumps does so both ways.
const DOWNWARDS: usize = 2;
/// Samples of a cycle, the median one: of a shorter one the rise is not seen, and the saw is noise like another.
const CYCLE_LEAST: f64 = 7.0;
/// What part of the largest drop another is at least: smaller ones are cycles within a cycle, whose floor is not the
/// whole one's, or noise.
const LARGEST: f64 = 1.0 / 3.0;
/// What part of its drop a cycle has risen by before.
const RISES: f64 = 0.5;
/// Intervals after its least that a cycle's rise is taken from, at least.
const RISE_FROM: usize = 3;
/// Samples that tell the level on either side of a drop, and what part of the drop their medians differ by: of a saw
/// with the shortest cycle, two thirds.
const FEW: usize = 3;
const LASTS: f64 = 0.5;
/// Cycles with a floor from which on the floors may be judged.
pub const FLOORS_LEAST: usize = 8;

/// A saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Saw {
    /// What each cycle leaves, from the first drop on.
    pub floors: Vec<Point>,
    /// Seconds of a cycle, the median one.
    pub period: f64,
}

/// `None` where it does not saw; `least`: bytes of a drop that are worth the name.
#[must_use]
pub fn saw(points: &[Point], least: f64) -> Option<Saw> {
    let changes: Vec<f64> = points
        .windows(2)
        .map(|pair| match pair {
            [one, next] => next.bytes - one.bytes,
            _ => 0.0,
        })
        .collect();
    let usual = order::median(&changes)?;
    let sizes: Vec<f64> = changes.iter().map(|change| (change - usual).abs()).collect();
    let largest = changes.iter().map(|change| usual - change).fold(0.0, f64::max);
    let threshold = [
        STANDS_OUT * order::spread(&changes, usual),
        OVER_JITTER * order::quantile(&sizes, 1.0 - 1.0 / CYCLE_LEAST)?,
        LARGEST * largest,
        least,
    ]
    .into_iter()
    .fold(0.0, f64::max);
    let drops = |change: f64| change - usual <= -threshold;
    let jumps = changes
        .iter()
        .filter(|change| **change - usual >= threshold)
        .count();
    let mut cycles: Vec<Vec<Point>> = vec![Vec::new()];
    let mut dropping = false;
    for (index, point) in points.iter().enumerate() {
        let drop = index
            .checked_sub(1)
            .and_then(|before| Some((before, *changes.get(before)?)))
            .is_some_and(|(before, change)| drops(change) && lasts(points, before + 1, -change));
        // A drop that two samples have parts of is one.
        if drop && !dropping {
            cycles.push(Vec::new());
        }
        dropping = drop;
        if let Some(cycle) = cycles.last_mut() {
            cycle.push(*point);
        }
    }
    let count = cycles.len() - 1;
    if count == 0 || count < DOWNWARDS * jumps {
        return None;
    }
    // Of every cycle that is whole.
    let whole = || cycles.iter().take(count).skip(usize::from(count > 1));
    let lengths: Vec<f64> = whole().map(|cycle| cycle.len() as f64).collect();
    let rises: Vec<f64> = whole()
        .zip(cycles.iter().skip(1 + usize::from(count > 1)))
        .map(risen)
        .collect();
    let saws = order::median(&lengths)? >= CYCLE_LEAST && order::median(&rises)? >= RISES;
    let periods: Vec<f64> = whole().map(|cycle| span(cycle)).collect();
    saws.then(|| Saw {
        floors: cycles.iter().skip(1).filter_map(|cycle| floor(cycle)).collect(),
        period: order::median(&periods).unwrap_or(0.0),
    })
}

/// What a cycle leaves: its least, less half of what it rises by from one sample to the next. It fell at some time between
/// two samples, and so cycles that rise faster would seem to leave more.
fn floor(cycle: &[Point]) -> Option<Point> {
    let (index, least) = cycle
        .iter()
        .enumerate()
        .min_by(|(_, one), (_, other)| one.bytes.total_cmp(&other.bytes))?;
    let last = cycle.last()?;
    let intervals = cycle.len() - 1 - index;
    let rise = if intervals >= RISE_FROM {
        (last.bytes - least.bytes) / intervals as f64
    } else {
        0.0
    };
    Some(Point {
        at: least.at,
        bytes: least.bytes - rise / 2.0,
    })
}

/// Whether the level goes down with a drop, and not a sample alone.
fn lasts(points: &[Point], at: usize, drop: f64) -> bool {
    let level = |from: usize, to: usize| {
        let few: Vec<f64> = points
            .iter()
            .take(to)
            .skip(from)
            .map(|point| point.bytes)
            .collect();
        order::median(&few).unwrap_or(0.0)
    };
    level(at.saturating_sub(FEW), at) - level(at, at + FEW) >= LASTS * drop
}

/// How much a cycle rises as a part of the drop that ends it.
fn risen((cycle, next): (&Vec<Point>, &Vec<Point>)) -> f64 {
    // Thirds, so that the ends' noise is not taken for the rise; their medians are two thirds of it apart.
    let third = (cycle.len() / 3).max(1);
    let values: Vec<f64> = cycle.iter().map(|point| point.bytes).collect();
    let middle = |from: usize| {
        let part: Vec<f64> = values.iter().skip(from).take(third).copied().collect();
        order::median(&part).unwrap_or(0.0)
    };
    let least = next
        .iter()
        .take(2)
        .map(|point| point.bytes)
        .fold(f64::INFINITY, f64::min);
    let drop = values.last().copied().unwrap_or(0.0) - least;
    if drop > 0.0 {
        1.5 * (middle(values.len().saturating_sub(third)) - middle(0)) / drop
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_series::{jitter, points};
    use super::*;

    #[test]
    fn the_floors_of_a_saw() {
        let found = saw(
            &points((0..100).map(|at| 200.0 + f64::from(at % 10) * 6.0 + f64::from(at / 10))),
            1.0,
        )
        .unwrap();
        assert_eq!(found.floors.len(), 9);
        assert_eq!(found.period, 9.0);
        for (index, floor) in found.floors.iter().enumerate() {
            // Sampled at the very least each time; half an interval's rise of 6 is taken off.
            assert_eq!(floor.bytes, 201.0 - 3.0 + index as f64);
        }
        let noisy = saw(
            &points((0..100).map(|at| jitter(at) + f64::from(at % 10) * 6.0)),
            1.0,
        );
        assert_eq!(noisy.unwrap().floors.len(), 9);
    }

    #[test]
    fn noise_spikes_steps_and_lines_are_none() {
        assert_eq!(saw(&points((0..300).map(jitter)), 0.1), None);
        assert_eq!(saw(&points((0..100).map(f64::from)), 0.1), None);
        let spikes = |at: i32| jitter(at) + if at % 17 == 5 { 90.0 } else { 0.0 };
        assert_eq!(saw(&points((0..300).map(spikes)), 0.1), None);
        let down = |at: i32| jitter(at) - if at < 30 { 0.0 } else { 90.0 };
        assert_eq!(saw(&points((0..100).map(down)), 0.1), None);
        assert_eq!(saw(&[], 0.1), None);
    }
}
