use super::super::trend::made_series::{Noise, Random};
use super::*;

/// What the count does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Course {
    /// Connections come at a rate that varies, and stay.
    Arrivals,
    /// They come and go about a level.
    Level,
    /// It grows by one, steadily.
    Line,
    /// It saturates.
    WarmUp,
    /// It jumps once.
    Jump,
}

impl Course {
    fn make(self, count: usize, random: &mut Random) -> Vec<f64> {
        let place = random.between(0.3, 0.7);
        let mut units = 100.0;
        let rate = Noise::Wander(0.7).make(count, random);
        (0..count)
            .map(|at| {
                let time = at as f64 / count as f64;
                match self {
                    Self::Arrivals => {
                        units += (4.0 + 4.0 * rate[at]).max(0.0).round();
                        units
                    }
                    Self::Level => (100.0 + 10.0 * rate[at]).round(),
                    Self::Line => units + at as f64,
                    Self::WarmUp => (units + 200.0 * (1.0 - (-time / 0.1).exp())).round(),
                    Self::Jump => units + if time > place { 50.0 } else { 0.0 },
                }
            })
            .collect()
    }
}

const LEVEL: f64 = 1e8;

/// Memory that has `each` bytes for every unit, `lag` samples later, and grows by 20 % on its own.
fn paired(course: Course, each: f64, lag: usize, count: usize, random: &mut Random) -> Vec<Paired> {
    let noise = random.one_of(&[Noise::White, Noise::Wander(0.8), Noise::Heavy, Noise::Coarse]);
    let (units, noise) = (course.make(count, random), noise.make(count, random));
    (0..count)
        .map(|at| Paired {
            at: at as f64 * 5.0,
            bytes: LEVEL * (1.0 + 0.2 * at as f64 / count as f64 + 0.0002 * noise[at])
                + each * units[at.saturating_sub(lag)],
            units: units[at],
            run: 0,
        })
        .collect()
}

/// The share of series for which the two are said to go together, by more than an event.
fn found(of: impl Fn(&mut Random) -> Vec<Paired>) -> f64 {
    const SERIES: u64 = 200;
    let hits = (0..SERIES)
        .filter(|seed| {
            let answer = correlate(&of(&mut Random::new(90_000 + seed)));
            answer.is_some_and(|answer| answer.p_value <= 0.01 && !answer.rests_on_few_events())
        })
        .count();
    hits as f64 / SERIES as f64
}

#[test]
fn two_that_trend_are_no_correlation() {
    for course in [Course::Line, Course::WarmUp, Course::Arrivals, Course::Level, Course::Jump] {
        let rate = found(|random| paired(course, 0.0, 0, 240, random));
        println!("apart {course:?}: {rate}");
        assert!(rate <= 0.02, "{course:?}: {rate}");
    }
    // Both saturate alike.
    let rate = found(|random| {
        let mut samples = paired(Course::WarmUp, 0.0, 0, 240, random);
        for sample in &mut samples {
            sample.bytes += 0.5 * LEVEL * (1.0 - (-sample.at / 120.0).exp());
        }
        samples
    });
    println!("apart, both warm up: {rate}");
    assert!(rate <= 0.02, "{rate}");
    // The plain coefficient of two lines is one.
}

#[test]
fn what_goes_together_is_found_with_its_bytes() {
    for (course, lag) in [(Course::Arrivals, 0), (Course::Arrivals, 3), (Course::Level, 0), (Course::Level, 2)] {
        for count in [120, 240, 1000] {
            let each = 16_384.0;
            let rate = found(|random| paired(course, each, lag, count, random));
            let mut within = 0;
            let mut errors = Vec::new();
            for seed in 0..100 {
                let answer = correlate(&paired(course, each, lag, count, &mut Random::new(seed + 7))).unwrap();
                let per_unit = answer.per_unit.unwrap();
                within += usize::from((per_unit.low..=per_unit.high).contains(&each));
                errors.push((per_unit.bytes / each - 1.0).abs());
            }
            let error = order::quantile(&errors, 0.95).unwrap();
            println!("{course:?} lag {lag} of {count}: found {rate}, within {within}/100, 95 % off by less than {error:.3}");
        }
    }
}

#[test]
fn one_event_is_an_anecdote() {
    let answer = correlate(&paired(Course::Jump, 65_536.0, 0, 240, &mut Random::new(5))).unwrap();
    let per_unit = answer.per_unit.unwrap();
    assert!((per_unit.bytes / 65_536.0 - 1.0).abs() < 0.1, "{answer:?}");
    assert!(answer.rests_on_few_events() && answer.p_value >= 0.3, "{answer:?}");
}
