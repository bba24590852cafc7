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
    /// Clumps come in one sample of three, and stay.
    Clumps,
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
                    Self::Clumps => {
                        if random.unit() < 0.35 {
                            units += random.between(10.0, 70.0).round();
                        }
                        units
                    }
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
    const SERIES: u64 = 300;
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
    for course in [
        Course::Line,
        Course::WarmUp,
        Course::Arrivals,
        Course::Level,
        Course::Jump,
        Course::Clumps,
    ] {
        let rate = found(|random| paired(course, 0.0, 0, 240, random));
        println!("apart, {course:?}: {rate}");
        // At a p-value of 1 %: of 300 series 3, and by chance hardly 7.
        assert!(rate <= 0.022, "{course:?}: {rate}");
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
    assert!(rate <= 0.022, "{rate}");
    // A minute in which both do.
    let rate = found(|random| {
        let mut samples = minute(0.0, 65_536.0, random);
        for sample in &mut samples {
            let warm = 1.0 - (-sample.at / 5.0).exp();
            sample.bytes += 5e6 * warm;
            sample.units += (300.0 * warm).round();
        }
        samples
    });
    println!("apart, both warm up in a minute: {rate}");
    assert!(rate <= 0.022, "{rate}");
}

#[test]
fn what_goes_together_is_found_with_its_bytes() {
    let each = 16_384.0;
    for (course, lag, count, least) in [
        (Course::Arrivals, 0, 240, 0.95),
        (Course::Arrivals, 3, 240, 0.95),
        (Course::Level, 0, 240, 0.95),
        (Course::Level, 2, 1000, 0.95),
        // Half as many changes: what arrives varies by as much as the noise in two thirds of them.
        (Course::Arrivals, 0, 120, 0.9),
    ] {
        let rate = found(|random| paired(course, each, lag, count, random));
        let answers: Vec<Correlation> = (0..200)
            .filter_map(|seed| correlate(&paired(course, each, lag, count, &mut Random::new(50_000 + seed))))
            .collect();
        let per_unit: Vec<PerUnit> = answers.iter().filter_map(|answer| answer.per_unit).collect();
        let within = per_unit
            .iter()
            .filter(|unit| (unit.low..=unit.high).contains(&each))
            .count();
        let errors: Vec<f64> = per_unit
            .iter()
            .map(|unit| (unit.bytes / each - 1.0).abs())
            .collect();
        let error = order::quantile(&errors, 0.95).unwrap();
        println!(
            "{course:?}, lag {lag}, of {count}: found {rate}, within {within} of 200, 95 % off by up to {error:.3}"
        );
        assert!(
            rate >= least && within >= 180 && error < 0.25,
            "{course:?} {lag} {count}"
        );
        let late = order::median(&answers.iter().map(|answer| answer.lag).collect::<Vec<_>>()).unwrap();
        assert!((late - 5.0 * lag as f64).abs() <= 5.0, "{course:?} {lag}: {late}");
    }
}

/// One minute of a server, a sample a second: clumps of connections with `each` bytes, and as much noise in bytes beside a
/// steady growth.
fn minute(each: f64, noise: f64, random: &mut Random) -> Vec<Paired> {
    const SAMPLES: usize = 54;
    let units = Course::Clumps.make(SAMPLES, random);
    let wander = Noise::White.make(SAMPLES, random);
    (0..SAMPLES)
        .map(|at| Paired {
            at: at as f64,
            bytes: 1e6
                + each * units[at]
                + ((36_000.0 * at as f64 + noise * wander[at]) / PAGE).round() * PAGE,
            units: units[at],
            run: 0,
        })
        .collect()
}

/// So few samples have few events over a long span, however well it fits there; those over a short one must count.
#[test]
fn one_minute_is_enough_for_clumps() {
    let told = |each: f64, noise: f64| {
        let answers = (0..300).map(|seed| correlate(&minute(each, noise, &mut Random::new(7000 + seed))));
        answers
            .filter(|answer| answer.is_some_and(|answer| answer.p_value <= 0.05))
            .count()
    };
    let each = 24_576.0;
    let (exact, noisy) = (told(each, 0.0), told(each, 65_536.0));
    println!("of 300: exact {exact}, beside noise {noisy}");
    assert!(exact >= 295 && noisy >= 295, "{exact} {noisy}");
    // One in 20 by chance, which is 15, and hardly 25.
    let apart = told(0.0, 65_536.0);
    println!("of 300 by accident: {apart}");
    assert!(apart <= 25, "{apart}");
}

#[test]
fn one_event_is_an_anecdote() {
    let answer = correlate(&paired(Course::Jump, 65_536.0, 0, 240, &mut Random::new(5))).unwrap();
    let per_unit = answer.per_unit.unwrap();
    assert!((per_unit.bytes / 65_536.0 - 1.0).abs() < 0.1, "{answer:?}");
    assert!(
        answer.rests_on_few_events() && answer.p_value >= 0.3,
        "{answer:?}"
    );
}

#[test]
fn a_restart_is_no_event() {
    // Both begin anew at once: without the runs, the greatest change of either.
    let mut samples = paired(Course::Arrivals, 0.0, 0, 240, &mut Random::new(8));
    for sample in samples.iter_mut().skip(120) {
        sample.bytes -= 0.5 * LEVEL;
        sample.units -= 400.0;
        sample.run = 1;
    }
    assert!(correlate(&samples).unwrap().p_value > 0.05);
}

#[test]
fn what_cannot_be_compared_is_not() {
    let line = |units: f64| -> Vec<Paired> {
        (0..100)
            .map(|at| Paired {
                at: f64::from(at),
                bytes: f64::from(at) * 4096.0,
                units,
                run: 0,
            })
            .collect()
    };
    assert_eq!(correlate(&[]), None);
    assert_eq!(correlate(&line(7.0)), None);
    assert_eq!(correlate(&line(f64::NAN)), None);
    let mut wild = line(1.0);
    for (index, sample) in wild.iter_mut().enumerate() {
        sample.units = if index % 3 == 0 { f64::MAX } else { -1e300 };
        sample.bytes = if index % 5 == 0 { f64::MAX } else { 0.0 };
    }
    assert_eq!(correlate(&wild), None);
}
