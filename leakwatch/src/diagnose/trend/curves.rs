//! Curves that come to a plateau: how warm-ups go. Pure.
//!
//! A curve goes by its index. Times are shares of the longest run, from its start; heights go from 0 to 1.

use std::ops::Range;

/// Time constants, as shares of the longest run, of the curves that come to their plateau inside it: after four time
/// constants 98 % of the way is done. What is slower cannot be told from growth by its end.
const SETTLED: [f64; 10] = [0.02, 0.03, 0.045, 0.065, 0.09, 0.12, 0.15, 0.18, 0.21, 0.25];
/// Shares of the run at which a filling at constant rate comes to its end.
const FILLED: [f64; 14] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7,
];
/// Shares of the run after which half of a store has been found by chance: the more it holds, the more rarely does a
/// request bring anything new.
const FOUND: [f64; 5] = [0.012, 0.02, 0.035, 0.06, 0.1];
/// Shares of the run in the middle of a rise that sets in late, and how long before and after it lasts.
const LATE: [f64; 7] = [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4];
const LATE_HALF: f64 = 0.09;
/// Places that two of them are apart at most: together they stand for a slower one.
const LATE_APART: usize = 3;
/// Curves that still rise at the end, or have just ended.
const UNSETTLED: [f64; 4] = [0.35, 0.5, 0.7, 1.0];
const UNFILLED: [f64; 2] = [0.8, 0.9];
/// Where rises that set in late begin, by index.
const FINDING: usize = SETTLED.len() + FILLED.len() + FOUND.len();
/// Curves that come to their plateau; the others follow them.
pub const SETTLING: usize = FINDING + LATE.len();
/// All curves.
pub const CURVES: usize = SETTLING + UNSETTLED.len() + UNFILLED.len();
/// The longest time constant of what only quickens the start.
const QUICK: f64 = 0.1;

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

/// The time constant of a curve, as a share of the longest run: for one that comes to an end, a quarter of the time it takes.
#[must_use]
pub fn constant(index: usize) -> f64 {
    let place = |of: usize| index.checked_sub(of);
    SETTLED
        .get(index)
        .copied()
        .or_else(|| FILLED.get(place(SETTLED.len())?).map(|end| end / 4.0))
        .or_else(|| FOUND.get(place(SETTLED.len() + FILLED.len())?).copied())
        .or_else(|| LATE.get(place(FINDING)?).map(|middle| (middle + LATE_HALF) / 4.0))
        .or_else(|| UNSETTLED.get(place(SETTLING)?).copied())
        .or_else(|| {
            UNFILLED
                .get(place(SETTLING + UNSETTLED.len())?)
                .map(|end| end / 4.0)
        })
        .unwrap_or(1.0)
}

/// Whether a curve is a rise that sets in late.
#[must_use]
pub fn sets_in_late(index: usize) -> bool {
    (FINDING..SETTLING).contains(&index)
}

/// Whether two curves are tried together, the first one's index being the lower.
///
/// Two of a kind that are neighbours stand for one between them, two settling ones for a quick start and something slow
/// after it. A filling and something slow after it is a slope, for all that can be seen, and is left to the models with
/// one.
#[must_use]
pub fn together(one: usize, other: usize) -> bool {
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
#[must_use]
pub fn saturates(curves: &[Option<(usize, f64)>; 2]) -> bool {
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
    use super::*;

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
    fn all_begin_at_nothing_and_come_to_one() {
        for index in 0..CURVES {
            assert_eq!(curve(index, 0.0), 0.0, "{index}");
            let end = curve(index, 1.0);
            assert!(
                if index < SETTLING { end > 0.9 } else { end > 0.6 },
                "{index}: {end}"
            );
            assert!(constant(index) > 0.0 && constant(index) <= 1.0);
        }
        assert_eq!((curve(CURVES, 0.5), constant(CURVES)), (0.0, 1.0));
    }
}
