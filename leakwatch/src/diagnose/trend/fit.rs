//! Lines and saturating curves, fitted by least squares under noise whose neighbours correlate. Pure.
//!
//! Every model has a level of its own for each piece. Beside it a *plateau* has one or two saturating curves and no slope,
//! a *leak* has a slope, with or without such curves. All of them come from one table of products, so that trying every
//! pair of curves is cheap.

use super::bins::Piece;
use super::curves::{CURVES, SETTLING, curve, saturates, together};
use super::order;

/// Points from which two curves are tried together: five for each column.
const PAIRS_FROM: usize = 20;
/// A column of which less than this is left beside the others is one of them again.
const NEW: f64 = 1e-7;
/// Size and time are measured in shares of the level and of the time watched: less than this is rounding.
const ROUNDING: f64 = 1e-20;

/// Deviations from a fit, by the median one, beyond which a point is brought nearer to it: least squares would let a few
/// requests that come at once bend everything.
const FAR: f64 = 2.5;
/// ...as long as so many points are nearer: of coarse noise most may be at one value, and the others are its spread.
const NEARER: f64 = 0.75;
/// Fits that each start from what the one before was led astray by.
const TAMINGS: usize = 6;

/// A model that was fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fit {
    /// The sum of squares that it leaves.
    pub rest: f64,
    /// Per unit of time; zero in a plateau.
    pub slope: f64,
    /// Curves, by index, and their heights.
    pub curves: [Option<(usize, f64)>; 2],
}

/// The best of each sort of model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fits {
    pub constant: Fit,
    pub line: Fit,
    /// A plateau that is reached.
    pub plateau: Fit,
    /// A plateau that is not yet.
    pub unsettled: Fit,
    /// A slope beneath one or two curves that come to their plateau.
    pub beneath: Fit,
    /// The standard error of the line's slope in units of the noise's.
    pub line_error: f64,
}

/// The columns that models are made of.
#[derive(Clone, Debug)]
pub struct Design {
    /// Points of each piece.
    lengths: Vec<usize>,
    /// Shares of the level.
    sizes: Vec<f64>,
    /// Shares of the time watched.
    times: Vec<f64>,
    curves: Vec<Vec<f64>>,
}

impl Design {
    /// `level` in bytes and `watched` in seconds, the scales, and `longest` in seconds, that of the curves: all above
    /// zero.
    #[must_use]
    pub fn new(pieces: &[Piece], level: f64, watched: f64, longest: f64) -> Self {
        let points = || pieces.iter().flat_map(|piece| &piece.points);
        let first = points()
            .next()
            .map_or((0.0, 0.0), |point| (point.at, point.bytes));
        let curve_of = |index: usize| {
            pieces
                .iter()
                .flat_map(|piece| {
                    piece
                        .points
                        .iter()
                        .map(move |point| curve(index, (point.at - piece.began) / longest))
                })
                .collect()
        };
        Self {
            lengths: pieces.iter().map(|piece| piece.points.len()).collect(),
            sizes: points().map(|point| (point.bytes - first.1) / level).collect(),
            times: points().map(|point| (point.at - first.0) / watched).collect(),
            curves: (0..CURVES).map(curve_of).collect(),
        }
    }

    /// With what lies far off the richest model brought nearer to it (Huber's weights, by winsorizing).
    #[must_use]
    pub fn tamed(mut self) -> Self {
        for _ in 0..TAMINGS {
            let left = self.off(&self.fit(0.0).beneath);
            let sizes: Vec<f64> = left.iter().map(|left| left.abs()).collect();
            let nearer = order::quantile(&sizes, NEARER).unwrap_or(0.0);
            let most = (FAR * order::spread(&left, 0.0)).max(nearer);
            if !most.is_finite() || most <= 0.0 || sizes.iter().all(|size| *size <= most) {
                break;
            }
            for (size, left) in self.sizes.iter_mut().zip(left) {
                *size -= left - left.clamp(-most, most);
            }
        }
        self
    }

    /// What a model leaves of each point, each less its piece's median.
    fn off(&self, fit: &Fit) -> Vec<f64> {
        let mut left = Vec::with_capacity(self.sizes.len());
        for piece in self.residuals(fit) {
            let centre = order::median(&piece).unwrap_or(0.0);
            left.extend(piece.iter().map(|value| value - centre));
        }
        left
    }

    #[must_use]
    pub fn points(&self) -> usize {
        self.sizes.len()
    }

    #[must_use]
    pub fn pieces(&self) -> usize {
        self.lengths.len()
    }

    /// What a model leaves of each point, by pieces, each less its mean.
    #[must_use]
    pub fn residuals(&self, fit: &Fit) -> Vec<Vec<f64>> {
        let mut left: Vec<f64> = self
            .sizes
            .iter()
            .zip(&self.times)
            .map(|(size, time)| size - fit.slope * time)
            .collect();
        for (index, height) in fit.curves.iter().flatten() {
            for (value, curve) in left.iter_mut().zip(self.curves.get(*index).into_iter().flatten()) {
                *value -= height * curve;
            }
        }
        self.by_piece(&left)
            .map(|piece| {
                let mean = piece.iter().sum::<f64>() / piece.len().max(1) as f64;
                piece.iter().map(|value| value - mean).collect()
            })
            .collect()
    }

    /// The most columns that a model has, a level among them. Pairs of curves are left out where points are few: they
    /// would draw the noise.
    #[must_use]
    pub fn columns(&self) -> usize {
        if self.points() >= PAIRS_FROM { 4 } else { 3 }
    }

    /// Fits every model, with noise of which neighbours correlate by `correlation`, 0 to 1.
    #[must_use]
    pub fn fit(&self, correlation: f64) -> Fits {
        let whiten = |column: &[f64]| self.whitened(column, correlation);
        let sizes = whiten(&self.sizes);
        let columns: Vec<Vec<f64>> = std::iter::once(&self.times)
            .chain(&self.curves)
            .map(|column| whiten(column))
            .collect();
        Products::new(&sizes, &columns).fits(self.points() >= PAIRS_FROM)
    }

    /// Fits a line alone: its slope, the standard error of that in units of the noise's, and what it leaves.
    #[must_use]
    pub fn line(&self, correlation: f64) -> Fits {
        let sizes = self.whitened(&self.sizes, correlation);
        Products::new(&sizes, &[self.whitened(&self.times, correlation)]).fits(false)
    }

    fn by_piece<'a>(&'a self, mut column: &'a [f64]) -> impl Iterator<Item = &'a [f64]> {
        self.lengths.iter().map(move |length| {
            let (piece, rest) = column.split_at_checked(*length).unwrap_or((column, &[]));
            column = rest;
            piece
        })
    }

    /// Takes the correlation out (Prais and Winsten), and then each piece's level.
    fn whitened(&self, column: &[f64], correlation: f64) -> Vec<f64> {
        let first = (1.0 - correlation * correlation).max(0.0).sqrt();
        let rest = 1.0 - correlation;
        let mut white = Vec::with_capacity(column.len());
        for piece in self.by_piece(column) {
            let start = white.len();
            let mut before = None;
            for value in piece {
                white.push(before.map_or(first * value, |before: f64| value - correlation * before));
                before = Some(*value);
            }
            let level = |index: usize| if index == 0 { first } else { rest };
            let Some(own) = white.get_mut(start..) else {
                continue;
            };
            let norm: f64 = (0..own.len()).map(|index| level(index) * level(index)).sum();
            if norm > 0.0 {
                let share = own
                    .iter()
                    .enumerate()
                    .map(|(index, value)| level(index) * value)
                    .sum::<f64>()
                    / norm;
                for (index, value) in own.iter_mut().enumerate() {
                    *value -= share * level(index);
                }
            }
        }
        white
    }
}

/// Products of the columns that are in a model together; column 0 is time.
struct Products {
    width: usize,
    table: Vec<f64>,
    with_sizes: Vec<f64>,
    sizes: f64,
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

impl Products {
    fn new(sizes: &[f64], columns: &[Vec<f64>]) -> Self {
        Self {
            width: columns.len(),
            table: columns
                .iter()
                .enumerate()
                .flat_map(|(index, one)| {
                    let needed = move |other: usize| match (other.checked_sub(1), index.checked_sub(1)) {
                        (Some(other), Some(index)) => other == index || together(other, index),
                        _ => true,
                    };
                    let others = columns.iter().take(index + 1).enumerate();
                    others.map(move |(place, other)| if needed(place) { dot(one, other) } else { 0.0 })
                })
                .collect(),
            with_sizes: columns.iter().map(|column| dot(column, sizes)).collect(),
            sizes: dot(sizes, sizes),
        }
    }

    fn of(&self, one: usize, other: usize) -> f64 {
        let (low, high) = (one.min(other), one.max(other));
        self.table
            .get(high * (high + 1) / 2 + low)
            .copied()
            .unwrap_or(0.0)
    }

    fn size(&self, column: usize) -> f64 {
        self.with_sizes.get(column).copied().unwrap_or(0.0)
    }

    fn fits(&self, pairs: bool) -> Fits {
        let constant = Fit {
            rest: self.sizes,
            ..Fit::default()
        };
        let time = self.of(0, 0);
        let mut fits = Fits {
            constant,
            line: constant,
            plateau: constant,
            unsettled: constant,
            beneath: constant,
            line_error: f64::INFINITY,
        };
        if time > ROUNDING {
            fits.line.slope = self.size(0) / time;
            fits.line.rest = (self.sizes - self.size(0) * fits.line.slope).max(0.0);
            fits.line_error = time.sqrt().recip();
        }
        fits.beneath = fits.line;
        for one in 1..self.width {
            let settled = one <= SETTLING;
            let plateau = if settled {
                &mut fits.plateau
            } else {
                &mut fits.unsettled
            };
            take_better(plateau, self.solve(&[one]));
            if settled {
                take_better(&mut fits.beneath, self.solve(&[one, 0]));
            }
            for other in one + 1..self.width {
                if !settled || !pairs {
                    continue;
                }
                if !together(one - 1, other - 1) {
                    continue;
                }
                let both = other <= SETTLING;
                let plateau = if both {
                    &mut fits.plateau
                } else {
                    &mut fits.unsettled
                };
                take_better(plateau, self.solve(&[one, other]));
                if both {
                    take_better(&mut fits.beneath, self.solve(&[one, other, 0]));
                }
            }
        }
        fits
    }

    /// Least squares for up to three columns, by elimination; `None` where one is made of the others, or the curves
    /// are no plateau.
    fn solve(&self, columns: &[usize]) -> Option<Fit> {
        // Rows of the upper triangle, the sizes last.
        let mut rows: [[f64; 4]; 3] = [[0.0; 4]; 3];
        for (row, one) in rows.iter_mut().zip(columns) {
            for (cell, other) in row.iter_mut().zip(columns) {
                *cell = self.of(*one, *other);
            }
            row[3] = self.size(*one);
        }
        let [mut a, mut b, mut c] = rows;
        let mut rest = self.sizes;
        let (aa, bb, cc) = (a[0], b[1], c[2]);
        if aa <= ROUNDING {
            return None;
        }
        rest -= a[3] * a[3] / aa;
        a = a.map(|cell| cell / aa);
        let mut heights = [a[3], 0.0, 0.0];
        if columns.len() > 1 {
            b = eliminated(b, b[0], &a);
            if b[1] <= NEW * bb || bb <= ROUNDING {
                return None;
            }
            rest -= b[3] * b[3] / b[1];
            let pivot = b[1];
            b = b.map(|cell| cell / pivot);
            heights[1] = b[3];
            if columns.len() > 2 {
                c = eliminated(c, c[0], &a);
                c = eliminated(c, c[1], &b);
                if c[2] <= NEW * cc || cc <= ROUNDING {
                    return None;
                }
                rest -= c[3] * c[3] / c[2];
                heights[2] = c[3] / c[2];
                heights[1] -= b[2] * heights[2];
            }
            heights[0] -= a[1] * heights[1] + a[2] * heights[2];
        }
        let mut fit = Fit {
            rest: rest.max(0.0),
            ..Fit::default()
        };
        let mut curves = fit.curves.iter_mut();
        for (column, height) in columns.iter().zip(heights) {
            if *column == 0 {
                fit.slope = height;
            } else if let Some(place) = curves.next() {
                *place = Some((column - 1, height));
            }
        }
        saturates(&fit.curves).then_some(fit)
    }
}

fn eliminated(row: [f64; 4], factor: f64, by: &[f64; 4]) -> [f64; 4] {
    let mut cells = row;
    for (cell, other) in cells.iter_mut().zip(by) {
        *cell -= factor * other;
    }
    cells
}

fn take_better(best: &mut Fit, fit: Option<Fit>) {
    if let Some(fit) = fit.filter(|fit| fit.rest < best.rest) {
        *best = fit;
    }
}

#[cfg(test)]
mod tests {
    use super::super::series::Point;
    use super::*;

    fn piece(size: impl Fn(f64) -> f64) -> Piece {
        Piece {
            began: 0.0,
            points: (0..=100)
                .map(|at| Point {
                    at: f64::from(at),
                    bytes: 100.0 + size(f64::from(at) / 100.0),
                })
                .collect(),
        }
    }

    fn fits(size: impl Fn(f64) -> f64, correlation: f64) -> Fits {
        Design::new(&[piece(size)], 100.0, 100.0, 100.0).fit(correlation)
    }

    #[test]
    fn each_model_finds_its_own() {
        for correlation in [0.0, 0.6, 1.0] {
            let line = fits(|t| 5.0 * t, correlation);
            assert!(
                line.line.rest < 1e-12 && (line.line.slope - 0.05).abs() < 1e-9,
                "{line:?}"
            );
            assert!(line.plateau.rest > 1e-6 && line.constant.rest > line.plateau.rest);
            let filled = fits(|t| 40.0 * (t / 0.3).min(1.0), correlation);
            assert!(filled.plateau.rest < 1e-12, "{filled:?}");
            let both = fits(|t| 40.0 * curve(4, t) + 5.0 * t, correlation);
            assert!(
                both.beneath.rest < 1e-12 && (both.beneath.slope - 0.05).abs() < 1e-6,
                "{both:?}"
            );
            assert!(both.plateau.rest > 1e-7, "{both:?}");
            let slow = fits(|t| 40.0 * curve(SETTLING + 3, t), correlation);
            assert!(slow.unsettled.rest < 1e-12, "{slow:?}");
        }
    }

    #[test]
    fn a_few_wild_points_bend_nothing_and_coarse_values_are_not_wild() {
        let bursts = |t: f64| {
            5.0 * t
                + if (0.8..0.86).contains(&t) {
                    6.0
                } else {
                    0.3 * (400.0 * t).sin()
                }
        };
        let design = Design::new(&[piece(bursts)], 100.0, 100.0, 100.0);
        let slope = |design: &Design| design.line(0.0).line.slope;
        assert!((slope(&design) - 0.05).abs() > 0.01, "{}", slope(&design));
        let tamed = design.tamed();
        assert!((slope(&tamed) - 0.05).abs() < 0.003, "{}", slope(&tamed));
        let coarse = |t: f64| {
            if (t * 20.0).fract() < 0.3 { 2.0 } else { 0.0 }
        };
        let design = Design::new(&[piece(coarse)], 100.0, 100.0, 100.0);
        let tamed = design.clone().tamed().sizes;
        let moved = tamed
            .iter()
            .zip(&design.sizes)
            .map(|(one, other)| (one - other).abs());
        // Of a step of 0.02.
        assert!(moved.fold(0.0, f64::max) < 0.001, "{tamed:?}");
    }

    #[test]
    fn pieces_have_levels_of_their_own() {
        let mut after = piece(|t| 5.0 * t);
        after.began = 200.0;
        for point in &mut after.points {
            point.at += 200.0;
            point.bytes -= 70.0;
        }
        let design = Design::new(&[piece(|t| 5.0 * t), after], 100.0, 100.0, 100.0);
        let line = design.fit(0.5).line;
        assert!(line.rest < 1e-12 && (line.slope - 0.05).abs() < 1e-9, "{line:?}");
        assert!(
            design
                .residuals(&line)
                .iter()
                .flatten()
                .all(|left| left.abs() < 1e-9)
        );
    }
}
