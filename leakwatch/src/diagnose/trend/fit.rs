//! Lines and saturating curves, fitted by least squares under noise whose neighbours correlate. Pure.
//!
//! Every model has a level of its own for each piece. Beside it a *plateau* has one or two saturating curves and no slope,
//! a *leak* has a slope, with or without such curves. All of them come from one table of products, so that trying every
//! pair of curves is cheap.

use std::ops::Range;

use super::bins::Piece;

/// Time constants, as shares of the longest run, of the curves that come to their plateau inside it: after three time
/// constants 95 % of the way is done. What is slower cannot be told from growth by its end.
const SETTLED: [f64; 10] = [0.02, 0.03, 0.045, 0.065, 0.09, 0.12, 0.15, 0.18, 0.21, 0.25];
/// Shares of the run at which a filling at constant rate comes to its end.
const FILLED: [f64; 14] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7,
];
/// Shares of the run after which half of a store has been found by chance: the more it holds, the more rarely does a
/// request bring anything new.
const FOUND: [f64; 3] = [0.02, 0.05, 0.1];
/// Shares of the run in the middle of a rise that sets in late, and how long before and after it lasts.
const LATE: [f64; 7] = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4];
const LATE_HALF: f64 = 0.09;
/// Places that two of them are apart at most: together they stand for a slower one.
const LATE_APART: usize = 3;
/// Curves that still rise at the end, or have just ended.
const UNSETTLED: [f64; 4] = [0.35, 0.5, 0.7, 1.0];
const UNFILLED: [f64; 2] = [0.8, 0.9];
const FINDING: usize = SETTLED.len() + FILLED.len() + FOUND.len();
const SETTLING: usize = FINDING + LATE.len();
/// The longest time constant of what only quickens the start.
const QUICK: f64 = 0.1;
/// Points from which two curves are tried together: five for each column.
const PAIRS_FROM: usize = 20;
/// A column of which less than this is left beside the others is one of them again.
const NEW: f64 = 1e-7;
/// Size and time are measured in shares of the level and of the time watched: less than this is rounding.
const ROUNDING: f64 = 1e-20;

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

/// How far a saturating curve has come, 0 to 1; `time` and the answer's scale are shares of the longest run.
#[must_use]
pub fn curve(index: usize, time: f64) -> f64 {
    let settle = |constant: &f64| -(-time / constant).exp_m1();
    let fill = |end: &f64| (time / end).min(1.0);
    let late = |middle: &f64| {
        let way = (0.5 + 0.5 * (time - middle) / LATE_HALF).clamp(0.0, 1.0);
        way * way * (3.0 - 2.0 * way)
    };
    let place = |of: usize| index.checked_sub(of);
    SETTLED
        .get(index)
        .map(settle)
        .or_else(|| FILLED.get(place(SETTLED.len())?).map(fill))
        .or_else(|| {
            FOUND
                .get(place(SETTLED.len() + FILLED.len())?)
                .map(|half| time / (time + half))
        })
        .or_else(|| LATE.get(place(FINDING)?).map(late))
        .or_else(|| UNSETTLED.get(place(SETTLING)?).map(settle))
        .or_else(|| UNFILLED.get(place(SETTLING + UNSETTLED.len())?).map(fill))
        .unwrap_or(0.0)
}

/// The time constant of a curve, as a share of the longest run: for a filling, a third of the time it takes.
#[must_use]
pub fn constant(index: usize) -> f64 {
    let place = |of: usize| index.checked_sub(of);
    SETTLED
        .get(index)
        .copied()
        .or_else(|| FILLED.get(place(SETTLED.len())?).map(|end| end / 3.0))
        .or_else(|| FOUND.get(place(SETTLED.len() + FILLED.len())?).copied())
        .or_else(|| LATE.get(place(FINDING)?).map(|middle| (middle + LATE_HALF) / 3.0))
        .or_else(|| UNSETTLED.get(place(SETTLING)?).copied())
        .or_else(|| {
            UNFILLED
                .get(place(SETTLING + UNSETTLED.len())?)
                .map(|end| end / 3.0)
        })
        .unwrap_or(1.0)
}

/// Whether one of a model's curves is a rise that sets in late.
#[must_use]
pub fn sets_in_late(fit: &Fit) -> bool {
    let mut curves = fit.curves.iter().flatten();
    curves.any(|(index, _)| (FINDING..SETTLING).contains(index))
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
            curves: (0..SETTLING + UNSETTLED.len() + UNFILLED.len())
                .map(curve_of)
                .collect(),
        }
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

/// Whether two curves are tried together, the first one's index being the lower.
///
/// Two of a kind that are neighbours stand for one between them, two settling ones for a quick start and something slow
/// after it. A filling and something slow after it is a slope, for all that can be
/// seen, and is left to the models with one.
fn together(one: usize, other: usize) -> bool {
    let filled = SETTLED.len()..SETTLED.len() + FILLED.len();
    let found = filled.end..FINDING;
    let late = FINDING..SETTLING;
    let unsettled = SETTLING..SETTLING + UNSETTLED.len();
    let settled = one < SETTLED.len();
    if settled && (other < SETTLED.len() || unsettled.contains(&other)) {
        return true;
    }
    if settled {
        return constant(one) <= QUICK && other < SETTLING;
    }
    let both = |kind: &Range<usize>, most: usize| {
        kind.contains(&one) && kind.contains(&other) && other - one <= most
    };
    both(&filled, 1) || both(&found, 1) || both(&late, LATE_APART)
}

/// Whether curves together go one way: two that work against each other could draw anything. Two fillings may, as long
/// as neither of their two rates is against the other.
fn saturates(curves: &[Option<(usize, f64)>; 2]) -> bool {
    let [Some((one, first)), Some((other, second))] = *curves else {
        return true;
    };
    let end = |index: usize| {
        index
            .checked_sub(SETTLED.len())
            .and_then(|place| FILLED.get(place))
    };
    match (end(one), end(other)) {
        (Some(early), Some(late)) => (first / early + second / late) * second >= 0.0,
        _ => first * second >= 0.0,
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
    fn curves_do_not_work_against_each_other() {
        assert!(saturates(&[Some((0, 1.0)), Some((3, 2.0))]));
        assert!(!saturates(&[Some((0, -1.0)), Some((3, 2.0))]));
        // Fillings, the ends by FILLED: 0.2 and 0.4 of the run. Level at first, then up to the end.
        let (early, late) = (SETTLED.len() + 3, SETTLED.len() + 7);
        assert!((curve(early, 0.1) - 0.5).abs() < 1e-9 && (curve(late, 0.2) - 0.5).abs() < 1e-9);
        assert!(saturates(&[Some((early, -1.0)), Some((late, 2.0))]));
        // Down and then up.
        assert!(!saturates(&[Some((early, -1.5)), Some((late, 2.0))]));
    }

    #[test]
    fn which_curves_go_together() {
        assert!(together(0, SETTLED.len() - 1));
        let filling = SETTLED.len() + 4;
        assert!(together(0, filling) && !together(SETTLED.len() - 1, filling));
        assert!(together(filling, filling + 1) && !together(filling, filling + 3));
        // A filling, and then what is nearly a line.
        assert!(!together(filling, SETTLING) && !together(filling, SETTLING + UNSETTLED.len()));
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
