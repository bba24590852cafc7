//! How memory went over the window, and how sure that is. Pure.
//!
//! The trend says it, where there are samples enough. Where there are too few two halves of the window are compared: that
//! is no more than a look, and only believed where the heap says by itself how much of the growth is in use. Where there
//! are enough and noise hides the trend, halves are noise as well, and only believed where blocks were seen to survive.

use super::facts::Facts;
use crate::diagnose::trend::{Kind, SAMPLES_LEAST, Trend, normal};

/// Growth of the window's second half over that of the first: from here on it is steady...
const STEADY: f64 = 0.5;
/// ...and below this it has come to its end.
const ENDED: f64 = 0.15;
/// Fewer points have no halves.
const POINTS_LEAST: usize = 5;
/// The part of what is in use more that survivors name, for it to be seen that it stays.
const SURVIVORS: f64 = 0.5;
/// A curve is claimed where it fits better than a line by as much as happens by chance one time in twenty.
const CURVE: f64 = 0.95;
/// What two halves say. They have no error of their own; it is below what any claim of a trend has.
const HALVES: f64 = 0.7;
/// The trend's own tests hold it to one false alarm in a hundred: nothing is surer than that.
pub(super) const SUREST: f64 = 0.99;
/// Deviations of an interval of 95 %.
const INTERVAL: f64 = 1.96;
/// Growth over the window that would matter, as a share of the level. The trend's own.
pub(super) const MATTERS: f64 = 0.05;
/// So many steps up, and none down, are stairs and no single event.
const STAIRS: usize = 3;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Up, with no end in sight.
    Steady,
    /// Up, less and less, and not at its end.
    Slackening,
    /// Up, to its end.
    Ended,
    /// Up at once, and level otherwise.
    AtOnce,
    /// Up and down, and back to where it was.
    Saws,
    Level,
    Falling,
    Unknown,
}

/// A course, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub course: Course,
    /// That it is so, 0 to 1.
    pub chance: f64,
    /// By the trend, not by halves.
    pub by_trend: bool,
    /// Bytes of the first and of the second half of the window.
    pub halves: Option<(i64, i64)>,
}

impl Seen {
    /// Of all that was measured.
    pub fn of(facts: &Facts<'_>) -> Self {
        let halves = halves(facts.series);
        if let Some(trend) = facts.trend.filter(|trend| trend.kind != Kind::Unknown) {
            return Self {
                course: of_trend(trend, halves),
                chance: chance(trend).clamp(0.5, SUREST),
                by_trend: true,
                halves,
            };
        }
        let course = match halves {
            Some((first, second)) if believed(facts) => of_halves(first, second),
            _ => Course::Unknown,
        };
        Self {
            course,
            chance: HALVES,
            by_trend: false,
            halves,
        }
    }
}

/// Whether halves count.
fn believed(facts: &Facts<'_>) -> bool {
    let Some(heap) = &facts.heap else {
        return false;
    };
    let few = facts.trend.is_none_or(|trend| trend.samples < SAMPLES_LEAST);
    let named = facts
        .births
        .filter(|births| births.tell)
        .is_some_and(|births| births.named as f64 >= SURVIVORS * heap.in_use.max(1) as f64);
    few || named
}

fn of_trend(trend: &Trend, halves: Option<(i64, i64)>) -> Course {
    match trend.kind {
        Kind::SteadyGrowth | Kind::RisingSawtooth => Course::Steady,
        // Until four time constants are over the trend asks for more time; what is left may be next to nothing by then.
        Kind::WarmUp => match halves {
            Some((first, second)) if (second as f64) < ENDED * first as f64 => Course::Ended,
            _ if trend.watch_longer.is_none() => Course::Ended,
            _ => Course::Slackening,
        },
        Kind::Step => {
            let up = trend.steps.iter().filter(|step| step.bytes > 0.0).count();
            let sum: f64 = trend.steps.iter().map(|step| step.bytes).sum();
            if up >= STAIRS && up == trend.steps.len() {
                Course::Unknown
            } else if sum > 0.0 {
                Course::AtOnce
            } else {
                Course::Level
            }
        }
        Kind::Sawtooth => Course::Saws,
        Kind::Flat => Course::Level,
        Kind::Shrinking => Course::Falling,
        Kind::Unknown => Course::Unknown,
    }
}

/// That a trend of this kind is there: by the slope and its error.
fn chance(trend: &Trend) -> f64 {
    let error = (trend.interval.1 - trend.interval.0) / (2.0 * INTERVAL);
    // An interval without bounds has no error to speak of.
    let above = |slope: f64| {
        if error > 0.0 && error.is_finite() {
            1.0 - normal::upper_tail(slope / error)
        } else {
            0.5
        }
    };
    match trend.kind {
        Kind::SteadyGrowth | Kind::RisingSawtooth => above(trend.slope),
        Kind::Shrinking => above(-trend.slope),
        Kind::WarmUp => CURVE,
        Kind::Flat | Kind::Sawtooth | Kind::Step => {
            let matters = MATTERS * trend.level / trend.watched.max(f64::MIN_POSITIVE);
            above(matters - trend.slope)
        }
        Kind::Unknown => 0.5,
    }
}

fn of_halves(first: i64, second: i64) -> Course {
    let (first, second) = (first as f64, second as f64);
    if first + second <= 0.0 {
        // Whether it stays level cannot be told from so little.
        Course::Unknown
    } else if second >= STEADY * first {
        Course::Steady
    } else if second < ENDED * first {
        Course::Ended
    } else {
        Course::Slackening
    }
}

fn halves(series: &[(f64, u64)]) -> Option<(i64, i64)> {
    let (&(start, first), &(end, last)) = (series.first()?, series.last()?);
    let half = f64::midpoint(start, end);
    let (_, middle) = series
        .iter()
        .min_by(|(one, _), (next, _)| (one - half).abs().total_cmp(&(next - half).abs()))?;
    let grown = |from: u64, to: u64| to.cast_signed().saturating_sub(from.cast_signed());
    (series.len() >= POINTS_LEAST).then(|| (grown(first, *middle), grown(*middle, last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::trend::judge;
    use crate::diagnose::trend::series::{Sample, Series};
    use crate::diagnose::verdict::{BirthFacts, HeapFacts};

    const MIB: f64 = 1024.0 * 1024.0;

    fn seen(size: impl Fn(f64) -> f64) -> Seen {
        let points: Vec<(f64, u64)> = (0_u32..60)
            .map(|at| {
                let at = f64::from(at);
                // A ripple, so that the noise is known.
                let bytes = size(at) * MIB + 8192.0 * (at * 2.7).sin();
                (at, format!("{bytes:.0}").parse().unwrap())
            })
            .collect();
        let samples: Vec<Sample> = points
            .iter()
            .map(|&(at, bytes)| Sample {
                at,
                bytes: bytes as f64,
                run: 0,
            })
            .collect();
        let trend = judge(&Series::new(&samples));
        Seen::of(&Facts {
            series: &points,
            trend: Some(&trend),
            ..Facts::default()
        })
    }

    #[test]
    fn courses_of_trends() {
        assert_eq!(seen(|_| 100.0).course, Course::Level);
        assert_eq!(seen(|at| 100.0 + at).course, Course::Steady);
        assert_eq!(seen(|at| 100.0 - at).course, Course::Falling);
        assert_eq!(
            seen(|at| 100.0 + 40.0 * (1.0 - (-at / 5.0).exp())).course,
            Course::Ended
        );
        assert_eq!(
            seen(|at| 100.0 + 40.0 * (1.0 - (-at / 30.0).exp())).course,
            Course::Slackening
        );
        assert_eq!(
            seen(|at| if at < 20.0 { 100.0 } else { 130.0 }).course,
            Course::AtOnce
        );
        let steady = seen(|at| 100.0 + at);
        assert!(steady.by_trend && steady.chance > 0.95 && steady.chance <= SUREST);
    }

    #[test]
    fn halves_are_believed_beside_a_heap_alone() {
        let series: Vec<(f64, u64)> = (0_u32..6)
            .map(|at| (f64::from(at), (100 + u64::from(at) * 5) << 20))
            .collect();
        let read = Facts {
            series: &series,
            heap: Some(HeapFacts::default()),
            ..Facts::default()
        };
        let seen = Seen::of(&read);
        assert_eq!((seen.course, seen.by_trend), (Course::Steady, false));
        let unread = Facts {
            series: &series,
            ..Facts::default()
        };
        assert_eq!(Seen::of(&unread).course, Course::Unknown);
        let few = Facts {
            series: &series[..4],
            ..read.clone()
        };
        assert_eq!(
            (Seen::of(&few).course, Seen::of(&few).halves),
            (Course::Unknown, None)
        );
        // Noise hid it from many samples.
        let mut noisy = judge(&Series::new(&[]));
        noisy.samples = 60;
        let mut hidden = Facts {
            trend: Some(&noisy),
            ..read
        };
        assert_eq!(Seen::of(&hidden).course, Course::Unknown);
        hidden.births = Some(BirthFacts {
            tell: true,
            named: 1 << 20,
            ..BirthFacts::default()
        });
        assert_eq!(Seen::of(&hidden).course, Course::Steady);
    }
}
