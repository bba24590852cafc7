//! The later half of a window by itself, where the whole of it is a curve that comes to its end. Pure.
//!
//! A slope beneath a warm-up has to beat every curve that warm-ups are known to go by, and warm-ups go by others too: what
//! such a curve leaves at its start hides the slope. In the later half the start is over. But by itself that half would
//! take the end of a slow warm-up for a slope, so it is asked only where the whole window hints at one ([`super::claim::hints`]).

use super::bins::Piece;
use super::claim::{Claim, LINE, Look, Scale, claim, looks};
use super::judge::SAMPLES_LEAST;
use super::series::{Point, span};

/// From which part of the longest run on.
const HALF: f64 = 0.5;

/// What a part of the window says.
#[derive(Clone, Debug)]
pub struct Part {
    pub pieces: Vec<Piece>,
    pub scale: Scale,
    /// The finest first.
    pub looks: Vec<Look>,
    pub claim: Claim,
}

/// The later half of each piece's run, if it rises by more than a curve that comes to its end, and by `least` bytes.
#[must_use]
pub fn rising(pieces: &[Piece], scale: &Scale, least: f64) -> Option<Part> {
    let pieces: Vec<Piece> = pieces
        .iter()
        .filter_map(|piece| later(piece, piece.began + HALF * scale.longest))
        .collect();
    let spans = || pieces.iter().map(|piece| span(&piece.points));
    let samples: usize = pieces.iter().map(|piece| piece.points.len()).sum();
    let scale = Scale {
        level: scale.level,
        watched: spans().sum(),
        longest: spans().fold(0.0, f64::max),
        samples: samples as f64,
    };
    if samples < SAMPLES_LEAST || scale.longest <= 0.0 {
        return None;
    }
    let looks = looks(&pieces, &scale);
    let claim = claim(&looks, LINE);
    let slope = match claim {
        Claim::Line => looks.first()?.fits.line.slope,
        Claim::Beneath(fit) => fit.slope,
        Claim::Curve(_) | Claim::None => 0.0,
    };
    (slope * scale.level >= least).then_some(Part {
        pieces,
        scale,
        looks,
        claim,
    })
}

/// What of a piece lies after `from`, seconds.
fn later(piece: &Piece, from: f64) -> Option<Piece> {
    let points: Vec<Point> = piece
        .points
        .iter()
        .copied()
        .filter(|point| point.at >= from)
        .collect();
    (!points.is_empty()).then_some(Piece { began: from, points })
}

#[cfg(test)]
mod tests {
    use super::super::made_series::{jitter, points};
    use super::*;

    fn part(size: impl Fn(f64) -> f64) -> Option<Part> {
        let piece = Piece {
            began: 0.0,
            points: points((0..=200).map(|at| 1e8 * size(f64::from(at) / 200.0) + 1e4 * jitter(at))),
        };
        let scale = Scale {
            level: 1e8,
            watched: 200.0,
            longest: 200.0,
            samples: 201.0,
        };
        rising(&[piece], &scale, 1e5)
    }

    #[test]
    fn a_slope_after_a_rise_that_is_over() {
        let sudden = |t: f64| 1.0 + 0.5 * f64::from(t > 0.31);
        let found = part(|t| sudden(t) + 0.1 * t).unwrap();
        assert_eq!(found.claim, Claim::Line);
        assert_eq!((found.scale.watched, found.pieces[0].began), (100.0, 100.0));
        assert!(found.pieces[0].points.iter().all(|point| point.at >= 100.0));
        assert!(part(sudden).is_none());
        assert!(part(|t| sudden(t) - 0.1 * t).is_none(), "down");
        assert!(rising(&[], &found.scale, 1e5).is_none());
    }
}
