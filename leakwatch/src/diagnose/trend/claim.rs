//! What can be claimed of a series: a line, a curve that comes to its end, a slope beneath one, or nothing. Pure.
//!
//! A claim is a comparison of models under the noise that is seen: the best model with what is claimed must be better
//! than the best one without it. A line has to beat what stays level, and must not bend; a slope beneath a curve has to
//! beat every curve that comes to a plateau.

use super::bins::{Piece, binned};
use super::curves::{constant, sets_in_late};
use super::fit::{Design, Fit, Fits};
use super::{noise, normal};

/// Standard deviations that a slope beneath a curve needs: upwards, one false in 390, of curves that are none of those
/// tried.
const CLAIM: f64 = 2.8;
/// ...and where it sets in late, and what the curves leave remembers for most of the window: rises that set in late have
/// more shapes than the one that is tried.
const STRANGE: f64 = 3.1;
/// Deviations that a line needs: upwards, one false in 215 where the noise is as it is taken to be. Services are judged
/// again and again, so it is below the one in a hundred that is aimed at.
pub const LINE: f64 = 2.6;
/// ...and of a saw's floors: what each is off by is bounded and has nothing to do with the next one's, while the noise is
/// taken to remember.
pub const LINE_OF_FLOORS: f64 = 2.0;
/// What a slope beneath a curve needs of the whole window, for its later half to be looked at by itself.
const HINT: f64 = 2.2;
/// Deviations for what a hundred curves are tried for. Few of them differ much, and 4 deviations are one in 30,000.
const CURVED: f64 = 4.0;
/// Deviations by which a curve has to fit better than a line for the line to be given up: the usual one in 20.
const BENT: f64 = 2.0;
/// Points of the finest and of the coarsest look. The finest bounds the cost. At the coarsest a wander shows that fresh
/// noise hides from neighbours at the finest; both have to agree.
pub const FINEST: usize = 128;
const COARSEST: usize = 32;
/// Fewer points than this have no coarser look: half of them would be too few.
const COARSER_FROM: usize = 40;
/// The variance of what is rounded to a page, in squared bytes.
const ROUNDED: f64 = 4096.0 * 4096.0 / 12.0;
/// The variance that a wander of variance one gives to the slope over a window: that of one which remembers for three
/// tenths of the window, for which it is greatest.
const WANDER: f64 = 2.46;
/// The least freedom with which the noise is known, however long it remembers: its correlation is never taken lower than
/// it looks.
const FREEDOM_LEAST: f64 = 10.0;

/// What one look at the points says.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Bins.
    pub points: usize,
    /// Of neighbouring points about a line.
    pub correlation: f64,
    /// Deviations of the line's slope from none.
    line: f64,
    /// The standard error of that slope, in shares of the level in the time watched.
    pub error: f64,
    /// Of every model.
    pub fits: Fits,
    /// Of the noise that is new at each point, as fitted beside curves, in squared shares of the level.
    variance: f64,
    /// Independent values that tell as much of the noise as there is.
    pub freedom: f64,
}

/// The variance of the growth over the window, from a wander that the residuals do not show: a slow one with a part of
/// their variance as large as the standard error of a correlation, `1 / sqrt(freedom)`, looks like none.
fn unseen(rest: f64, freedom: f64) -> f64 {
    WANDER / freedom.sqrt() * rest / freedom
}

impl Look {
    /// `None` where too few points are left to see the noise.
    fn at(pieces: &[Piece], scale: &Scale) -> Option<Self> {
        let design = Design::new(pieces, scale.level, scale.watched, scale.longest).tamed();
        let columns = design.columns();
        let free = |columns: usize| Some(design.points().checked_sub(design.pieces() + columns - 1)? as f64);
        let freedom = free(columns)?;
        if freedom < 3.0 {
            return None;
        }
        let each = design.points() as f64 / scale.samples;
        let rounded = ROUNDED / (scale.level * scale.level) * each;
        let more = design.pieces() - 1;
        let plain = design.fit(0.0);
        // About a line a curve looks like a wander: so that no line is claimed of one.
        let correlation = noise::correlation(&design.residuals(&plain.line), 2 + more);
        let line = design.line(correlation);
        let seen = line.line_error.powi(2) * (line.line.rest / free(2)?).max(rounded);
        let error = (seen + unseen(plain.line.rest, free(2)?)).sqrt();
        let curved = noise::correlation(&design.residuals(&plain.beneath), columns + more);
        let fits = design.fit(curved);
        Some(Self {
            points: design.points(),
            correlation,
            line: normal::from_student(line.line.slope / error, independent(free(2)?, correlation)),
            error,
            fits,
            variance: (fits.beneath.rest / freedom).max(rounded)
                + unseen(plain.beneath.rest, freedom) / fits.line_error.powi(2),
            freedom: independent(freedom, curved),
        })
    }

    /// Deviations by which the better model is better.
    fn better(&self, worse: &Fit, better: &Fit) -> f64 {
        let squares = (worse.rest - better.rest).max(0.0) / self.variance;
        normal::from_student(squares.sqrt(), self.freedom)
    }

    /// What still rises by a curve is no slope beneath one, if the curve fits it better.
    fn rises_yet(&self) -> bool {
        self.fits.unsettled.rest < self.fits.beneath.rest
    }

    /// Deviations of the slope beneath curves that saturate.
    fn beneath(&self) -> f64 {
        self.better(&self.fits.plateau, &self.fits.beneath)
            .copysign(self.fits.beneath.slope)
    }
}

/// How many independent values tell as much: they are what the noise's spread, and how long it remembers, are known from.
fn independent(freedom: f64, correlation: f64) -> f64 {
    (freedom * (1.0 - correlation) / (1.0 + correlation)).max(FREEDOM_LEAST)
}

/// What sizes and times are shares of.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Bytes.
    pub level: f64,
    /// Seconds.
    pub watched: f64,
    /// Seconds of the longest run.
    pub longest: f64,
    /// How many, before they are put into bins.
    pub samples: f64,
}

/// What the looks agree on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Claim {
    /// A line up, or down.
    Line,
    /// Up beneath a curve.
    Beneath(Fit),
    /// A curve, up or down by its heights.
    Curve(Fit),
    /// Neither.
    None,
}

/// The looks at the points, the finest first; none where there are too few.
#[must_use]
pub fn looks(pieces: &[Piece], scale: &Scale) -> Vec<Look> {
    let points: usize = pieces.iter().map(|piece| piece.points.len()).sum();
    let coarser = (points >= COARSER_FROM).then_some(COARSEST.min(points / 2));
    [Some(FINEST), coarser]
        .into_iter()
        .flatten()
        .filter_map(|most| Look::at(&binned(pieces, most), scale))
        .collect()
}

/// Whether a slope beneath a curve is likely enough for the later half of the window to be asked.
#[must_use]
pub fn hints(looks: &[Look]) -> bool {
    !looks.first().is_some_and(Look::rises_yet) && looks.iter().all(|look| look.beneath() >= HINT)
}

/// What can be said of the points. `line`: the deviations that a line needs.
#[must_use]
pub fn claim(looks: &[Look], line: f64) -> Claim {
    let Some(finest) = looks.first() else {
        return Claim::None;
    };
    let fits = &finest.fits;
    let all = |holds: &dyn Fn(&Look) -> bool| looks.iter().all(holds);
    // In one look alone, noise bends it.
    let bent = all(&|look| {
        look.better(&look.fits.line, &look.fits.plateau) >= BENT
            || look.better(&look.fits.line, &look.fits.unsettled) >= BENT
    });
    if !bent && (all(&|look| look.line >= line) || all(&|look| look.line <= -line)) {
        return Claim::Line;
    }
    let curved = |look: &Look| {
        look.better(&look.fits.constant, &look.fits.plateau)
            .max(look.better(&look.fits.constant, &look.fits.unsettled))
    };
    if !all(&|look| curved(look) >= CURVED) {
        return Claim::None;
    }
    let mut curves = fits.beneath.curves.iter().flatten();
    let strange = finest.freedom <= FREEDOM_LEAST && curves.any(|(index, _)| sets_in_late(*index));
    let needed = if strange { STRANGE } else { CLAIM };
    if !finest.rises_yet() && all(&|look| look.beneath() >= needed) {
        return Claim::Beneath(fits.beneath);
    }
    let settles = finest.better(&fits.plateau, &fits.unsettled) < BENT;
    Claim::Curve(if settles { fits.plateau } else { fits.unsettled })
}

/// The height of a curve, as a share of the level.
#[must_use]
pub fn height(fit: &Fit) -> f64 {
    fit.curves.iter().flatten().map(|(_, height)| height).sum()
}

/// The longest time constant of its curves, as a share of the longest run.
#[must_use]
pub fn slowest(fit: &Fit) -> f64 {
    fit.curves
        .iter()
        .flatten()
        .map(|(index, _)| constant(*index))
        .fold(0.0, f64::max)
}
