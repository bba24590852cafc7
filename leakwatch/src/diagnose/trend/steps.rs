//! Steps: a size that changes at once, and stays. Pure.

use super::bins::Piece;
use super::order;
use super::series::Point;

/// Samples on either side that a level is taken from,
const LEVEL: usize = 5;
/// and in a run of fewer samples than this: more would leave too little between two steps.
const LEVEL_SHORT: usize = 3;
const SHORT: usize = 100;
/// A step is this many times the spread of all changes over the same distance: a trend's own changes are all alike, and
/// a walk's are normal.
const STANDS_OUT: f64 = 8.0;
/// ...and this many times what nine of ten samples change by: a noise of few coarse values has no spread.
const OVER_JITTER: f64 = 3.0;
/// Of the change between the levels, what part happens from one sample to the second after it. What takes longer is a
/// fast rise.
const AT_ONCE: f64 = 0.7;
/// What part of a step the medians of all that lies before and after differ by.
const LASTS: f64 = 0.5;
/// More steps than this are a way of growing (or noise that jumps), and are left in,
const STEPS_MOST: usize = 3;
/// but for those that are less than this part of the largest: edges of bursts.
const OF_LARGEST: f64 = 1.0 / 3.0;

/// A change of level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// When the new level was first seen, seconds.
    pub at: f64,
    /// Up or down.
    pub bytes: f64,
}

/// The steps of one run that are at least `least` bytes, a few at most.
#[must_use]
pub fn steps(points: &[Point], least: f64) -> Vec<Step> {
    let values: Vec<f64> = points.iter().map(|point| point.bytes).collect();
    let level = if values.len() < SHORT { LEVEL_SHORT } else { LEVEL };
    if values.len() < 4 * level {
        return Vec::new();
    }
    let changes: Vec<f64> = values
        .windows(2 * level)
        .map(|both| change(both, level))
        .collect();
    let usual = order::median(&changes).unwrap_or(0.0);
    let near: Vec<f64> = values
        .iter()
        .zip(values.iter().skip(1))
        .map(|(one, next)| (next - one).abs())
        .collect();
    let jitter = order::quantile(&near, 0.9).unwrap_or(0.0);
    let threshold = (STANDS_OUT * order::spread(&changes, usual))
        .max(OVER_JITTER * jitter)
        .max(least);
    let mut found: Vec<Step> = Vec::new();
    let mut peak: Option<(usize, f64)> = None;
    let mut finish = |peak: &mut Option<(usize, f64)>| {
        let Some((index, bytes)) = peak.take() else { return };
        // Medians do not say to the sample where it is.
        let sharpest = (index + level - 3..=index + level + 3)
            .filter_map(|middle| {
                let near: Vec<f64> = values
                    .iter()
                    .skip(middle.saturating_sub(2))
                    .take(4)
                    .copied()
                    .collect();
                Some((points.get(middle)?.at, change(&near, 2) / bytes))
            })
            .max_by(|one, other| one.1.total_cmp(&other.1));
        if let Some((at, share)) = sharpest
            && share >= AT_ONCE
        {
            found.push(Step { at, bytes });
        }
    };
    for (index, change) in changes.iter().enumerate() {
        if (change - usual).abs() < threshold {
            finish(&mut peak);
        } else if peak.is_none_or(|(_, greatest)| change.abs() > f64::abs(greatest)) {
            peak = Some((index, *change));
        }
    }
    finish(&mut peak);
    // The least go first: what a burst left of its edges.
    while !stay(points, &found, 2 * level) {
        let least = found
            .iter()
            .map(|step| step.bytes.abs())
            .fold(f64::INFINITY, f64::min);
        found.retain(|step| step.bytes.abs() > least);
    }
    if found.len() > STEPS_MOST {
        let largest = found.iter().map(|step| step.bytes.abs()).fold(0.0, f64::max);
        found.retain(|step| step.bytes.abs() >= OF_LARGEST * largest);
    }
    if found.len() > STEPS_MOST {
        Vec::new()
    } else {
        found
    }
}

/// Whether the levels between steps last, and differ as a whole.
fn stay(points: &[Point], steps: &[Step], least: usize) -> bool {
    if steps.is_empty() {
        return true;
    }
    let pieces: Vec<Vec<f64>> = cut(points, steps.iter().map(|step| step.at))
        .into_iter()
        .map(|piece| piece.points.iter().map(|point| point.bytes).collect())
        .collect();
    let levels: Vec<f64> = pieces.iter().filter_map(|piece| order::median(piece)).collect();
    pieces.iter().all(|piece| piece.len() >= least)
        && levels
            .iter()
            .zip(levels.iter().skip(1))
            .zip(steps)
            .all(|((before, after), step)| (after - before) / step.bytes >= LASTS)
}

/// The median of what comes after the first `half` values less that of those.
fn change(values: &[f64], half: usize) -> f64 {
    let (before, after) = values.split_at_checked(half).unwrap_or((values, &[]));
    order::median(after).unwrap_or(0.0) - order::median(before).unwrap_or(0.0)
}

/// Cuts a run at the given times, which ascend.
#[must_use]
pub fn cut(points: &[Point], times: impl IntoIterator<Item = f64>) -> Vec<Piece> {
    let began = points.first().map_or(0.0, |point| point.at);
    let mut pieces = Vec::new();
    let mut rest = points;
    for time in times {
        let (before, after) = rest.split_at(rest.partition_point(|point| point.at < time));
        pieces.push(before);
        rest = after;
    }
    pieces.push(rest);
    pieces
        .into_iter()
        .filter(|points| !points.is_empty())
        .map(|points| Piece {
            began,
            points: points.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::made_series::{jitter, points};
    use super::*;

    #[test]
    fn a_step_is_found_where_it_is() {
        let run = points((0..60).map(|at| jitter(at) + if at < 25 { 100.0 } else { 180.0 }));
        let found = steps(&run, 10.0);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            (found[0].bytes - 80.0).abs() < 2.0 && found[0].at == 25.0,
            "{found:?}"
        );
        let pieces = cut(&run, found.iter().map(|step| step.at));
        assert_eq!((pieces[0].points.len(), pieces[1].points.len()), (25, 35));
        assert_eq!(pieces[1].began, 0.0);
    }

    #[test]
    fn slopes_ramps_and_staircases_are_none() {
        assert_eq!(
            steps(&points((0..60).map(|at| jitter(at) + 5.0 * f64::from(at))), 1.0),
            []
        );
        let ramp = |at: i32| jitter(at) + 8.0 * f64::from(at.clamp(20, 32));
        assert_eq!(steps(&points((0..60).map(ramp)), 1.0), []);
        let stairs = |at: i32| jitter(at) + f64::from(at / 20) * 80.0;
        assert_eq!(steps(&points((0..200).map(stairs)), 1.0), []);
        assert_eq!(steps(&points([1.0, 1.0, 9.0, 9.0]), 1.0), []);
    }
}
