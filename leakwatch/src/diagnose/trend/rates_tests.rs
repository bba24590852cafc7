//! How often growth is said to be where there is none, and how often a leak is found: over series made from seeds, with
//! the least-squares line and its R² beside it.
//!
//! The table is printed by `cargo test -p leakwatch rates -- --nocapture`. The thresholds of the modules are argued where
//! they stand; other seeds than these were looked at when they were chosen.

use super::made_series::{Noise, Random, Warming, samples, sawing};
use super::series::{Sample, Series};
use super::{Kind, judge};

/// Series of each row.
const SERIES: u64 = 1000;
/// Where this test's seeds begin.
const SEEDS: u64 = 0x00fe_1100_0000;
/// Lengths, in samples, that the columns part at.
const LENGTHS: [f64; 4] = [30.0, 100.0, 400.0, 3000.0];
/// Samples of a saw, at least.
const SAW_LEAST: f64 = 150.0;
/// Of the window's growth, as a share of the level it started from.
const LEAK: f64 = 0.05;
/// Alarms at most, and leaks found at least.
const ALARMS: f64 = 0.01;
const FOUND: f64 = 0.95;

const NOISES: [Noise; 8] = [
    Noise::White,
    Noise::Wander(0.5),
    Noise::Wander(0.8),
    Noise::Wander(0.95),
    Noise::Mixed,
    Noise::Heavy,
    Noise::Coarse,
    Noise::Bursts,
];

/// What a row's series are made of.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Line,
    Warming(Warming),
    /// One or two at once.
    Steps,
    Saw,
    /// Its peaks rise by half, its floors do not.
    SawOfRisingPeaks,
    /// Down to where it began, and a warm-up each time.
    Restarts,
    /// The clock is set back once, and forward once.
    Clock,
    /// A leak that takes its memory in chunks.
    Chunks,
    Falling,
}

struct Row {
    name: String,
    shape: Shape,
    noise: Option<Noise>,
    /// Growth over the window.
    leak: f64,
    /// Of the noise's standard deviation, shares of the level.
    wild: (f64, f64),
    /// The most alarms, or the least found.
    bound: f64,
}

impl Row {
    fn series(&self, length: f64, random: &mut Random) -> Vec<Sample> {
        let noise = self.noise.unwrap_or_else(|| random.one_of(&NOISES));
        let wild = random.between(self.wild.0, self.wild.1);
        let height = random.between(0.2, 1.0);
        let warming = match self.shape {
            Shape::Warming(warming) => warming,
            _ => Warming::Settling,
        }
        .make(random);
        // A dozen floors at least, and cycles that are seen to rise.
        let cycle = random.between(9.0, (length / 14.0).max(10.0));
        let count = (1..).find(|count| f64::from(*count) >= length).unwrap();
        let count = usize::try_from(count).unwrap();
        let saw = sawing(count, cycle, random);
        let (first, second) = (random.between(0.2, 0.45), random.between(0.55, 0.8));
        let chunk = random.between(0.02, 0.1);
        let level = 10.0_f64.powf(random.between(7.3, 9.5));
        let interval = random.one_of(&[0.1, 1.0, 30.0]);
        let shares: Vec<f64> = noise
            .make(count, random)
            .into_iter()
            .enumerate()
            .map(|(at, noise)| {
                let time = at as f64 / length;
                let own = match self.shape {
                    Shape::Line | Shape::Clock => 0.0,
                    Shape::Warming(_) => height * warming(time),
                    Shape::Steps => {
                        let two = height > 0.6;
                        0.3 * height * (f64::from(time > first) + f64::from(two && time > second))
                    }
                    Shape::Saw => 0.4 * height * saw[at],
                    Shape::SawOfRisingPeaks => 0.4 * height * saw[at] * (1.0 + 0.5 * time),
                    Shape::Restarts => {
                        // By a quarter of the window at the least, each is a window of its own.
                        let run = if time > first { time - first } else { time };
                        let warm = if self.leak > 0.0 {
                            0.0
                        } else {
                            height * warming(run * 2.0)
                        };
                        warm - self.leak * if time > first { first } else { 0.0 }
                    }
                    Shape::Chunks => self.leak * ((time / chunk).floor() * chunk - time),
                    Shape::Falling => -0.3 * height * time,
                };
                1.0 + own + self.leak * time + wild * noise
            })
            .collect();
        let mut samples = samples(&shares, level, interval);
        for (at, sample) in samples.iter_mut().enumerate() {
            let time = at as f64 / length;
            match self.shape {
                Shape::Restarts => sample.run = u32::from(time > first),
                Shape::Clock => {
                    sample.at +=
                        1e6 + length * interval * (f64::from(time > second) - 0.7 * f64::from(time > first));
                }
                _ => {}
            }
        }
        samples
    }
}

/// What came of a row: by length, then of all.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    series: [u32; 3],
    grows: [u32; 3],
    unknown: u32,
    flat: u32,
    least_squares: u32,
}

impl Outcome {
    fn of(row: &Row, number: u64) -> Self {
        let mut outcome = Self::default();
        for seed in 0..SERIES {
            let mut random = Random::new(SEEDS + (number << 20) + seed);
            let length = random.between(LENGTHS[0].ln(), LENGTHS[3].ln()).exp().round();
            let band = LENGTHS[1..3].iter().filter(|part| length > **part).count();
            // A saw of fewer samples has not floors enough for any answer.
            let length = match row.shape {
                Shape::Saw | Shape::SawOfRisingPeaks => length.max(SAW_LEAST),
                _ => length,
            };
            let series = Series::new(&row.series(length, &mut random));
            let trend = judge(&series);
            outcome.series[band] += 1;
            outcome.grows[band] += u32::from(trend.kind.grows());
            outcome.unknown += u32::from(trend.kind == Kind::Unknown);
            outcome.flat += u32::from(matches!(trend.kind, Kind::Flat | Kind::Sawtooth | Kind::Step));
            outcome.least_squares += u32::from(least_squares(&series));
            assert!(
                trend.kind != Kind::Unknown || trend.watch_longer.is_some_and(|more| more > 0.0),
                "{trend:?}"
            );
        }
        outcome
    }

    fn share(&self) -> f64 {
        f64::from(self.grows.iter().sum::<u32>()) / SERIES as f64
    }
}

/// What peers alert on: a line upwards with R² above 0.8.
fn least_squares(series: &Series) -> bool {
    let points: Vec<_> = series.runs.iter().flatten().collect();
    let count = points.len() as f64;
    let (at, bytes) = (
        points.iter().map(|point| point.at).sum::<f64>() / count,
        points.iter().map(|point| point.bytes).sum::<f64>() / count,
    );
    let (mut both, mut times, mut sizes) = (0.0, 0.0, 0.0);
    for point in points {
        both += (point.at - at) * (point.bytes - bytes);
        times += (point.at - at).powi(2);
        sizes += (point.bytes - bytes).powi(2);
    }
    both > 0.0 && both * both > 0.8 * times * sizes
}

fn row(name: &str, shape: Shape, noise: Option<Noise>, leak: f64, wild: (f64, f64), bound: f64) -> Row {
    Row {
        name: name.to_owned(),
        shape,
        noise,
        leak,
        wild,
        bound,
    }
}

/// Runs the rows on two threads, prints the table, and says which rows do not hold.
fn table(title: &str, first: u64, rows: &[Row]) -> Vec<String> {
    let half = rows.len().div_ceil(2);
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let parts: Vec<_> = rows
            .chunks(half)
            .zip([first, first + half as u64])
            .map(|(part, first)| {
                scope.spawn(move || {
                    (first..)
                        .zip(part)
                        .map(|(number, row)| Outcome::of(row, number))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    println!("{title:<34} |   all | 30-100 | -400 | -3000 | unknown | no growth | least squares");
    let mut missed = Vec::new();
    for (row, outcome) in rows.iter().zip(&outcomes) {
        let percent = |part: u32, of: u32| 100.0 * f64::from(part) / f64::from(of.max(1));
        let by_length: Vec<String> = (0..3)
            .map(|band| format!("{:5.1}", percent(outcome.grows[band], outcome.series[band])))
            .collect();
        let all: u32 = outcome.series.iter().sum();
        println!(
            "{:<34} | {:5.1} | {} | {:7.1} | {:9.1} | {:13.1}",
            row.name,
            100.0 * outcome.share(),
            by_length.join(" | "),
            percent(outcome.unknown, all),
            percent(outcome.flat, all),
            percent(outcome.least_squares, all),
        );
        let holds = if row.leak > 0.0 {
            outcome.share() >= row.bound && percent(outcome.flat, all) <= 1.0
        } else {
            outcome.share() <= row.bound
        };
        if !holds {
            missed.push(format!("{}: {} against {}", row.name, outcome.share(), row.bound));
        }
    }
    missed
}

const ALL_NOISES: [(&str, Noise); 9] = [
    ("white", Noise::White),
    ("wander 0.5", Noise::Wander(0.5)),
    ("wander 0.8", Noise::Wander(0.8)),
    ("wander 0.95", Noise::Wander(0.95)),
    ("wander 0.95 beneath white", Noise::Mixed),
    ("heavy tails", Noise::Heavy),
    ("coarse steps", Noise::Coarse),
    ("bursts", Noise::Bursts),
    ("load by the day", Noise::Daily),
];

const WARMINGS: [(&str, Warming); 5] = [
    ("settling", Warming::Settling),
    ("filling", Warming::Filling),
    ("finding", Warming::Finding),
    ("two-fold", Warming::TwoFold),
    ("late", Warming::Late),
];

#[test]
fn rates_of_false_alarms() {
    let wild = (0.002, 0.02);
    let mut rows: Vec<Row> = ALL_NOISES
        .iter()
        .map(|(name, noise)| {
            row(
                &format!("level, {name}"),
                Shape::Line,
                Some(*noise),
                0.0,
                wild,
                ALARMS,
            )
        })
        .collect();
    let wild = (0.001, 0.01);
    rows.extend(WARMINGS.iter().map(|(name, warming)| {
        row(
            &format!("warm-up, {name}"),
            Shape::Warming(*warming),
            None,
            0.0,
            wild,
            ALARMS,
        )
    }));
    for (name, shape) in [
        ("steps", Shape::Steps),
        ("saw", Shape::Saw),
        ("saw of rising peaks", Shape::SawOfRisingPeaks),
        ("restarts, each with a warm-up", Shape::Restarts),
        ("clock set back and forward", Shape::Clock),
        ("falling", Shape::Falling),
    ] {
        rows.push(row(name, shape, None, 0.0, wild, ALARMS));
    }
    let missed = table("no leak: alarms, %", 0, &rows);
    assert!(missed.is_empty(), "{missed:#?}");
}

/// A warm-up that is not over is near to a shorter one and a slope, and no window tells which it is: some are told as
/// growth. Bound by what it is, so that it gets no worse.
#[test]
fn rates_of_alarms_before_a_warm_up_is_over() {
    let slow = row(
        "warm-up, not over yet",
        Shape::Warming(Warming::Slow),
        None,
        0.0,
        (0.001, 0.01),
        0.11,
    );
    let missed = table("not to be known: alarms, %", 200, &[slow]);
    assert!(missed.is_empty(), "{missed:#?}");
}

/// What the rows miss is "unknown" or "warm-up", and hardly ever "flat" (asserted): windows of under 100 samples between
/// bursts, steps or saws, and slow curves, which are near to a curve and a slope. Of other seeds the rows of settling, of
/// bursts and of saws found between 94 and 97.
///
/// The load by the day is a sine here, and so found whenever it is; a load of another shape is a walk as before.
#[test]
fn rates_of_leaks_found() {
    let wild = (0.001, 0.005);
    let mut rows: Vec<Row> = ALL_NOISES
        .iter()
        .map(|(name, noise)| {
            row(
                &format!("5 %, {name}"),
                Shape::Line,
                Some(*noise),
                LEAK,
                wild,
                FOUND,
            )
        })
        .collect();
    // Half of it in the window's later half. Slow curves are near to a curve and a slope, and where the noise wanders
    // they cannot be told apart.
    rows.extend(WARMINGS.iter().map(|(name, warming)| {
        row(
            &format!("10 % beneath, {name}"),
            Shape::Warming(*warming),
            None,
            2.0 * LEAK,
            wild,
            FOUND,
        )
    }));
    for (name, shape, leak) in [
        ("5 % and steps", Shape::Steps, LEAK),
        ("5 % beneath a saw", Shape::Saw, LEAK),
        ("5 % in chunks", Shape::Chunks, LEAK),
        ("10 % in two runs", Shape::Restarts, 2.0 * LEAK),
        ("5 %, clock set back and forward", Shape::Clock, LEAK),
    ] {
        rows.push(row(name, shape, None, leak, wild, FOUND));
    }
    let missed = table("a leak: found, %", 100, &rows);
    assert!(missed.is_empty(), "{missed:#?}");
}
