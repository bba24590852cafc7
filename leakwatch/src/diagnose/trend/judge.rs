//! From a series to its trend. Pure.

use super::bins::{Piece, binned, without_spikes};
use super::claim::{Claim, FINEST, LINE, LINE_OF_FLOORS, Look, Scale, claim, height, hints, looks, slowest};
use super::curves::curve;
use super::cycle::without_wave;
use super::fit::Fit;
use super::floors::{FLOORS_LEAST, Saw, saw};
use super::kind::Kind;
use super::later::{self, Part};
use super::mann_kendall::Kendall;
use super::series::{Dropped, Point, Series, span};
use super::steps::{Step, cut, steps};
use super::{normal, order, theil_sen};

/// Growth over the window that would matter, as a share of the level: less, for sure, is flat.
const MATTERS: f64 = 0.05;
/// Samples before anything is said. With ten, a line and its noise leave eight to know the noise from.
pub const SAMPLES_LEAST: usize = 12;
/// Growth below this, in bytes, is none: the kernel counts the pages of a process in batches per thread or CPU, and
/// `/proc` is off by as many as 64 of them.
const COUNTED: f64 = 64.0 * 4096.0;
/// Nor is growth below this share of the level.
const LEAST: f64 = 0.001;
/// A step, or a drop of a saw, is at least this share of the level.
const STEP_LEAST: f64 = 0.01;
/// A saw's floors may saw once more: small collections within large ones.
const SAWS: usize = 2;
/// A least-squares or Theil-Sen slope has a standard error up to this much greater than the best estimate's, whatever the
/// noise remembers: the square root of 6/5, that of a walk.
const ERROR: f64 = 1.096;
/// Deviations of an interval of 95 %.
const INTERVAL: f64 = 1.96;
/// Deviations more than a claim needs, for it to be made 19 times of 20.
const FOR_SURE: f64 = 1.65;
/// Times the window that are asked for at most: beyond it the estimate is none.
const LONGER_MOST: f64 = 100.0;

/// What a series does, and how well that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Trend {
    pub kind: Kind,
    /// Bytes per second, by Theil-Sen: of the floors where it saws, between steps where there are any, beneath the curve
    /// where growth lies beneath one.
    pub slope: f64,
    /// An interval of 95 % about the slope, bytes per second; without bounds where nothing is known of the noise.
    pub interval: (f64, f64),
    /// Mann-Kendall's, two-sided, with the autocorrelation in. It says that there is order, not of which kind: a warm-up
    /// has it too. 1 where nothing is known.
    pub p_value: f64,
    /// Kendall's, from -1 to 1.
    pub tau: f64,
    /// The median size, bytes.
    pub level: f64,
    /// How much neighbouring points correlate about the line, from 0 to 1, on the safe side.
    pub correlation: f64,
    /// Seconds, without those between runs and in gaps.
    pub watched: f64,
    /// The samples that were used.
    pub samples: usize,
    /// Growth lies beneath a curve that comes to its end: what is said of it may be of the window's later half alone.
    pub beneath_curve: bool,
    pub steps: Vec<Step>,
    pub restarts: usize,
    /// Seconds more that would tell, by the noise seen so far; where there is something left to tell.
    pub watch_longer: Option<f64>,
    pub dropped: Dropped,
}

/// Judges a series. Costs the same from some hundred samples on, but for a few passes over them.
#[must_use]
pub fn judge(series: &Series) -> Trend {
    let sizes: Vec<f64> = series.runs.iter().flatten().map(|point| point.bytes).collect();
    let level = order::median(&sizes).unwrap_or(0.0).max(1.0);
    let unknown = Trend {
        kind: Kind::Unknown,
        slope: 0.0,
        interval: (f64::NEG_INFINITY, f64::INFINITY),
        p_value: 1.0,
        tau: 0.0,
        level,
        correlation: 0.0,
        watched: series.watched(),
        samples: sizes.len(),
        beneath_curve: false,
        steps: Vec::new(),
        restarts: series.runs.len().saturating_sub(1),
        watch_longer: None,
        dropped: series.dropped,
    };
    if sizes.len() < SAMPLES_LEAST || unknown.watched <= 0.0 {
        let intervals = sizes.len().saturating_sub(series.runs.len()).max(1);
        let missing = SAMPLES_LEAST.saturating_sub(sizes.len()).max(1);
        return Trend {
            watch_longer: Some(missing as f64 * unknown.watched / intervals as f64),
            ..unknown
        };
    }
    let clean = series.runs.iter().map(|run| without_spikes(run)).collect();
    let (runs, period) = floors_of(clean, STEP_LEAST * level);
    let floors: usize = runs.iter().map(Vec::len).sum();
    if let Some(period) = period
        && floors < FLOORS_LEAST
    {
        return Trend {
            watch_longer: Some(period * (FLOORS_LEAST - floors) as f64),
            ..unknown
        };
    }
    of_runs(&runs, &series.gaps, period.is_some(), unknown)
}

/// The floors of runs that saw, and the seconds of a cycle; the runs as they are where they do not.
fn floors_of(mut runs: Vec<Vec<Point>>, least: f64) -> (Vec<Vec<Point>>, Option<f64>) {
    let mut period = None;
    for _ in 0..SAWS {
        let saws: Vec<Option<Saw>> = runs.iter().map(|run| saw(run, least)).collect();
        let points: usize = runs.iter().map(Vec::len).sum();
        let sawing: usize = runs
            .iter()
            .zip(&saws)
            .map(|(run, saw)| if saw.is_some() { run.len() } else { 0 })
            .sum();
        let floors: usize = saws.iter().flatten().map(|saw| saw.floors.len()).sum();
        // Few floors of floors say less than the floors themselves.
        if 2 * sawing <= points || (period.is_some() && floors < FLOORS_LEAST) {
            break;
        }
        let periods: Vec<f64> = saws.iter().flatten().map(|saw| saw.period).collect();
        period = order::median_of(periods);
        runs = saws
            .into_iter()
            .flatten()
            .map(|saw| saw.floors)
            .filter(|floors| !floors.is_empty())
            .collect();
    }
    (runs, period)
}

fn of_runs(runs: &[Vec<Point>], gaps: &[f64], saws: bool, unknown: Trend) -> Trend {
    let (level, watched) = (unknown.level, unknown.watched);
    let least = COUNTED.max(LEAST * level);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut all_steps = Vec::new();
    for run in runs {
        let found = steps(run, least.max(STEP_LEAST * level));
        let mut times: Vec<f64> = gaps
            .iter()
            .copied()
            .chain(found.iter().map(|step| step.at))
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        pieces.extend(cut(run, times));
        all_steps.extend(found);
    }
    if let Some(without) = without_wave(&pieces, watched) {
        pieces = without;
    }
    let Some(whole) = whole(pieces, runs, saws, &unknown) else {
        return Trend {
            watch_longer: Some(watched),
            steps: all_steps,
            ..unknown
        };
    };
    let later = if !saws && matches!(whole.claim, Claim::Curve(_)) && hints(&whole.looks) {
        later::rising(&whole.pieces, &whole.scale, least)
    } else {
        None
    };
    let trend = Trend {
        beneath_curve: later.is_some() || matches!(whole.claim, Claim::Beneath(_)),
        steps: all_steps,
        ..unknown
    };
    told(&later.unwrap_or(whole), saws, least, trend)
}

/// The whole window; `None` where too few points are left to see the noise.
fn whole(pieces: Vec<Piece>, runs: &[Vec<Point>], saws: bool, trend: &Trend) -> Option<Part> {
    let longest = runs.iter().map(|run| span(run)).fold(0.0, f64::max);
    let samples: usize = pieces.iter().map(|piece| piece.points.len()).sum();
    let scale = Scale {
        level: trend.level,
        watched: trend.watched,
        longest: if longest > 0.0 { longest } else { trend.watched },
        samples: samples as f64,
    };
    let looks = looks(&pieces, &scale);
    looks.first()?;
    let claim = claim(&looks, if saws { LINE_OF_FLOORS } else { LINE });
    Some(Part {
        pieces,
        scale,
        looks,
        claim,
    })
}

/// The trend that a part of the window shows.
fn told(part: &Part, saws: bool, least: f64, trend: Trend) -> Trend {
    let scale = &part.scale;
    let (level, watched) = (scale.level, scale.watched);
    let error = part.looks.iter().map(|look| look.error).fold(0.0, f64::max);
    let freedom = part
        .looks
        .iter()
        .map(|look| look.freedom)
        .fold(f64::INFINITY, f64::min);
    let mut points = binned(&part.pieces, FINEST);
    if let Claim::Beneath(fit) = part.claim {
        take_out(&fit, &mut points, scale);
    }
    let points: Vec<Vec<Point>> = points.into_iter().map(|piece| piece.points).collect();
    let sizes: Vec<Vec<f64>> = points
        .iter()
        .map(|piece| piece.iter().map(|point| point.bytes).collect())
        .collect();
    let slope = theil_sen::slope(&points).unwrap_or(0.0);
    let correlation = part.looks.first().map_or(0.0, |finest| finest.correlation);
    let kendall = Kendall::of(&sizes, correlation);
    let half = normal::to_student(INTERVAL, freedom) * error * ERROR * level / watched;
    let interval = (slope - half, slope + half);
    let grown = |slope: f64| slope * watched;
    let growth = if saws {
        Kind::RisingSawtooth
    } else {
        Kind::SteadyGrowth
    };
    let kind = match part.claim {
        Claim::Line | Claim::Beneath(_) if grown(slope) >= least => growth,
        Claim::Line if grown(slope) <= -least => Kind::Shrinking,
        Claim::Curve(fit) if height(&fit) > 0.0 => Kind::WarmUp,
        Claim::Curve(_) => Kind::Shrinking,
        _ if grown(interval.1) > MATTERS * level => Kind::Unknown,
        _ if saws => Kind::Sawtooth,
        _ if !trend.steps.is_empty() => Kind::Step,
        _ => Kind::Flat,
    };
    let watch_longer = match (kind, part.claim) {
        (Kind::Unknown, _) => {
            let finest = part.looks.first();
            finest.map(|finest| longer(finest, error, grown(slope) / level, watched))
        }
        // Until four time constants are over.
        (_, Claim::Curve(fit)) => {
            Some((4.0 * slowest(&fit) - 1.0) * scale.longest).filter(|more| *more > 0.0)
        }
        _ => None,
    };
    Trend {
        kind,
        slope,
        interval,
        p_value: kendall.p_value(),
        tau: kendall.tau(),
        correlation,
        watch_longer,
        ..trend
    }
}

fn take_out(fit: &Fit, pieces: &mut [Piece], scale: &Scale) {
    for piece in pieces {
        let began = piece.began;
        for point in &mut piece.points {
            for (index, height) in fit.curves.iter().flatten() {
                point.bytes -= height * scale.level * curve(*index, (point.at - began) / scale.longest);
            }
        }
    }
}

/// Seconds more until growth that matters, or the growth seen, would be claimed.
///
/// Growth goes with time. Its error falls with the root of time where the noise forgets, and rises with that of a walk:
/// the window has to be longer by the power 2/3, or by the square, of what it lacks.
fn longer(look: &Look, error: f64, growth: f64, watched: f64) -> f64 {
    let lacks = (LINE + FOR_SURE) * error / growth.max(MATTERS);
    let forgets = (1.0 - look.correlation) * look.points as f64 > 10.0;
    let times = if forgets {
        lacks.powf(2.0 / 3.0)
    } else {
        lacks * lacks
    };
    // It did not tell yet: a little more in any case.
    (times.clamp(1.25, LONGER_MOST) - 1.0) * watched
}
