//! A load that comes and goes evenly, as by the day: taken out, what is left is the trend and its noise. Pure.
//!
//! Noise that remembers is taken for a walk where it is smooth, and a walk hides any slope. But a wave that repeats is no
//! walk: it is known how it goes on.

use std::f64::consts::TAU;

use super::bins::{Piece, binned};
use super::claim::FINEST;

/// Cycles that the time watched holds at least: one may be anything.
const CYCLES_LEAST: f64 = 2.0;
/// Points that a cycle has at least.
const POINTS_LEAST: f64 = 8.0;
/// Cycles from one wave that is tried to the next.
const EACH: f64 = 0.1;
/// The part of what a line leaves that a wave has to explain. A wander of thirty points can look like a wave of two
/// cycles by three quarters.
const EXPLAINED: f64 = 0.85;

/// A wave, by its cycles in the time watched.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wave {
    cycles: f64,
    sine: f64,
    cosine: f64,
    /// The part of what a line leaves that it explains, 0 to 1.
    explained: f64,
}

impl Wave {
    fn at(&self, time: f64) -> f64 {
        let (sine, cosine) = (TAU * self.cycles * time).sin_cos();
        self.sine * sine + self.cosine * cosine
    }
}

/// The pieces without their wave; `None` where there is none. `watched` is seconds, above zero.
#[must_use]
pub fn without_wave(pieces: &[Piece], watched: f64) -> Option<Vec<Piece>> {
    let first = pieces.iter().flat_map(|piece| &piece.points).next()?.at;
    let points = binned(pieces, FINEST);
    let wave = strongest(&points, first, watched).filter(|wave| wave.explained >= EXPLAINED)?;
    let mut without = pieces.to_vec();
    for point in without.iter_mut().flat_map(|piece| &mut piece.points) {
        point.bytes -= wave.at((point.at - first) / watched);
    }
    Some(without)
}

fn strongest(pieces: &[Piece], first: f64, watched: f64) -> Option<Wave> {
    let count: usize = pieces.iter().map(|piece| piece.points.len()).sum();
    let column =
        |of: &dyn Fn(f64) -> f64| -> Vec<f64> { centred(pieces, &|at, _| of((at - first) / watched)) };
    let sizes = centred(pieces, &|_, bytes| bytes);
    let times = column(&|time| time);
    let along = dot(&times, &times);
    let rest = less(&sizes, &times, ratio(dot(&sizes, &times), along));
    let left = dot(&rest, &rest);
    if left <= 0.0 {
        return None;
    }
    let most = count as f64 / POINTS_LEAST;
    let tried = (0_u32..)
        .map(|step| CYCLES_LEAST + EACH * f64::from(step))
        .take_while(|cycles| *cycles <= most);
    tried
        .map(|cycles| {
            let sine = column(&|time| (TAU * cycles * time).sin());
            let cosine = column(&|time| (TAU * cycles * time).cos());
            // Each less the ones before: the line, then the sine.
            let sine = less(&sine, &times, ratio(dot(&sine, &times), along));
            let cosine = less(&cosine, &times, ratio(dot(&cosine, &times), along));
            let (of_sine, both) = (dot(&sine, &sine), dot(&cosine, &sine));
            let new = less(&cosine, &sine, ratio(both, of_sine));
            let of_new = dot(&new, &new);
            let (by_sine, by_new) = (dot(&rest, &sine), dot(&rest, &new));
            let height = ratio(by_new, of_new);
            Wave {
                cycles,
                sine: ratio(by_sine - height * both, of_sine),
                cosine: height,
                explained: (ratio(by_sine * by_sine, of_sine) + ratio(by_new * by_new, of_new)) / left,
            }
        })
        .max_by(|one, other| one.explained.total_cmp(&other.explained))
}

/// A value of each point, by pieces, each less its mean.
fn centred(pieces: &[Piece], of: &dyn Fn(f64, f64) -> f64) -> Vec<f64> {
    pieces
        .iter()
        .flat_map(|piece| {
            let values: Vec<f64> = piece
                .points
                .iter()
                .map(|point| of(point.at, point.bytes))
                .collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            values.into_iter().map(move |value| value - mean)
        })
        .collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// Without so much of another.
fn less(one: &[f64], other: &[f64], times: f64) -> Vec<f64> {
    one.iter()
        .zip(other)
        .map(|(one, other)| one - times * other)
        .collect()
}

fn ratio(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::trend::made_series::{Noise, Random, jitter, points};

    fn pieces(values: impl IntoIterator<Item = f64>) -> Vec<Piece> {
        vec![Piece {
            began: 0.0,
            points: points(values),
        }]
    }

    #[test]
    fn a_wave_is_taken_out_and_the_slope_stays() {
        let wave = pieces((0..300).map(|at| {
            let time = f64::from(at) / 300.0;
            1e8 + 5e6 * time + 1e6 * (TAU * 3.37 * time + 1.0).sin() + 1e4 * jitter(at)
        }));
        let left = without_wave(&wave, 300.0).unwrap();
        let points = &left[0].points;
        let (early, late) = (&points[..50], &points[250..]);
        let mean = |of: &[crate::diagnose::trend::series::Point]| {
            of.iter().map(|point| point.bytes).sum::<f64>() / of.len() as f64
        };
        let slope = (mean(late) - mean(early)) / 250.0 * 300.0;
        assert!((slope / 5e6 - 1.0).abs() < 0.05, "{slope}");
    }

    #[test]
    fn what_is_no_wave_stays() {
        let mut random = Random::new(7);
        for noise in [Noise::White, Noise::Wander(0.8), Noise::Bursts] {
            let values = noise.make(200, &mut random);
            assert_eq!(without_wave(&pieces(values), 200.0), None, "{noise:?}");
        }
        // A warm-up, less than a cycle, and nothing at all.
        let warm = (0..200).map(|at| 1e8 * (1.0 - (-f64::from(at) / 20.0).exp()));
        assert_eq!(without_wave(&pieces(warm), 200.0), None);
        let half = (0..200).map(|at| (TAU * f64::from(at) / 300.0).sin());
        assert_eq!(without_wave(&pieces(half), 200.0), None);
        assert_eq!(without_wave(&pieces([5.0; 100]), 100.0), None);
        assert_eq!(without_wave(&[], 1.0), None);
    }
}
