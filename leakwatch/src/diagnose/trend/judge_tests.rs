use super::made_series::{Random, samples, sawing};
use super::series::{Sample, Series};
use super::{Kind, Trend, judge};

const LEVEL: f64 = 1e9;

fn of(shares: impl IntoIterator<Item = f64>) -> Trend {
    let shares: Vec<f64> = shares.into_iter().collect();
    judge(&Series::new(&samples(&shares, LEVEL, 1.0)))
}

/// 200 samples of a shape over a window from 0 to 1, with a little noise.
fn shaped(shape: impl Fn(f64) -> f64) -> Trend {
    let mut random = Random::new(11);
    of((0..200).map(|at| 1.0 + shape(f64::from(at) / 200.0) + 0.002 * random.normal()))
}

#[test]
fn each_kind() {
    let steady = shaped(|time| 0.05 * time);
    assert_eq!(steady.kind, Kind::SteadyGrowth);
    // 5 % of the level in 200 s.
    let truth = 0.05 * LEVEL / 200.0;
    assert!(
        steady.interval.0 < truth && truth < steady.interval.1 && (steady.slope / truth - 1.0).abs() < 0.05,
        "{steady:?}"
    );
    assert!(
        steady.p_value < 1e-6 && steady.tau > 0.8 && !steady.beneath_curve,
        "{steady:?}"
    );
    let warm = |time: f64| 0.5 * (1.0 - (-time / 0.1).exp());
    assert_eq!(shaped(warm).kind, Kind::WarmUp);
    assert_eq!(shaped(warm).watch_longer, None);
    let beneath = shaped(|time| warm(time) + 0.1 * time);
    assert_eq!((beneath.kind, beneath.beneath_curve), (Kind::SteadyGrowth, true));
    let filling = shaped(|time| 0.5 * (1.0 - (-time / 0.8).exp()));
    assert_eq!(filling.kind, Kind::WarmUp);
    assert!(
        filling.watch_longer.is_some_and(|more| more > 60.0),
        "{filling:?}"
    );
    let step = shaped(|time| if time > 0.4 { 0.1 } else { 0.0 });
    assert_eq!((step.kind, step.steps.len()), (Kind::Step, 1));
    assert!((step.steps[0].bytes / LEVEL - 0.1).abs() < 0.01, "{step:?}");
    assert_eq!(shaped(|_| 0.0).kind, Kind::Flat);
    assert_eq!(shaped(|time| -0.1 * time).kind, Kind::Shrinking);
    let saw = sawing(200, 10.0, &mut Random::new(3));
    assert_eq!(of(saw.iter().map(|saw| 1.0 + 0.2 * saw)).kind, Kind::Sawtooth);
    let rising = of(saw
        .iter()
        .zip(0..)
        .map(|(saw, at)| 1.0 + 0.2 * saw + 0.1 * f64::from(at) / 200.0));
    assert_eq!(rising.kind, Kind::RisingSawtooth);
    assert!((rising.slope / (2.0 * truth) - 1.0).abs() < 0.2, "{rising:?}");
}

#[test]
fn too_few_samples_say_how_many_more() {
    let few = of([1.0, 1.1, 1.2, 1.3]);
    assert_eq!((few.kind, few.watch_longer), (Kind::Unknown, Some(8.0)));
    assert_eq!(of([]).kind, Kind::Unknown);
    // Three floors of eight, 20 s each.
    let saws = of((0..75).map(|at| 1.0 + 0.2 * f64::from(at % 20) / 20.0));
    assert_eq!(saws.kind, Kind::Unknown);
    assert!(
        saws.watch_longer
            .is_some_and(|more| (80.0..120.0).contains(&more)),
        "{saws:?}"
    );
}

#[test]
fn the_time_asked_for_is_enough() {
    // Half the noise again as high as what the leak grows by in the window.
    let noisy = |count: i32, seed: u64| {
        let mut random = Random::new(seed);
        of((0..count).map(move |at| 1.0 + 0.05 * f64::from(at) / 60.0 + 0.06 * random.normal()))
    };
    let asked: Vec<f64> = (0..50).filter_map(|seed| noisy(60, seed).watch_longer).collect();
    assert!(asked.len() > 20, "{}", asked.len());
    let longest = asked.iter().copied().fold(0.0, f64::max);
    assert!(longest < 600.0, "{longest}");
    let longer = (60..).find(|count| f64::from(*count) >= 60.0 + longest).unwrap();
    let found = (0..50).filter(|seed| noisy(longer, *seed).kind.grows()).count();
    assert!(found >= 48, "{found} after {longest} s more");
}

#[test]
fn exact_values_are_no_certainty_of_nothing() {
    // Without any noise, and with growth below what /proc counts to.
    assert_eq!(of(vec![1.0; 100]).kind, Kind::Flat);
    let pages = |each: f64| of((0..100).map(|at| 1.0 + each * 4096.0 / LEVEL * f64::from(at)));
    assert_eq!(pages(0.5).kind, Kind::Flat);
    assert_eq!(pages(50.0).kind, Kind::SteadyGrowth);
}

#[test]
fn restarts_divide() {
    // It leaks, and is restarted each time: the level never gets high.
    let mut random = Random::new(5);
    let samples: Vec<Sample> = (0..300)
        .map(|at| Sample {
            at: f64::from(at),
            bytes: LEVEL * (1.0 + 0.001 * f64::from(at % 100) + 0.002 * random.normal()),
            run: at / 100,
        })
        .collect();
    let trend = judge(&Series::new(&samples));
    assert_eq!((trend.kind, trend.restarts), (Kind::SteadyGrowth, 2));
    assert!((trend.slope / (0.001 * LEVEL) - 1.0).abs() < 0.1, "{trend:?}");
}

#[test]
fn no_input_is_too_wild() {
    let wild = [
        0.0,
        -1.0,
        1.0,
        1e-300,
        1e300,
        f64::MAX,
        f64::NAN,
        f64::INFINITY,
        4096.0,
    ];
    let mut random = Random::new(17);
    for length in [0, 1, 2, 13, 40, 200, 700] {
        for _ in 0..20 {
            let samples: Vec<Sample> = (0..length)
                .map(|at| Sample {
                    at: if random.unit() < 0.1 {
                        random.one_of(&wild)
                    } else {
                        f64::from(at)
                    },
                    bytes: if random.unit() < 0.5 {
                        random.one_of(&wild)
                    } else {
                        random.unit()
                    },
                    run: u32::from(random.unit() < 0.05),
                })
                .collect();
            let trend = judge(&Series::new(&samples));
            assert!(trend.watch_longer.is_none_or(|more| more >= 0.0), "{trend:?}");
        }
    }
}
