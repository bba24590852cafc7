use super::made_series::{Noise, Random, samples};
use super::series::Series;
use super::{Kind, judge};

#[test]
fn explore() {
    let noises = [
        Noise::White,
        Noise::Wander(0.5),
        Noise::Wander(0.8),
        Noise::Wander(0.95),
        Noise::Mixed,
        Noise::Heavy,
        Noise::Coarse,
        Noise::Bursts,
        Noise::Daily,
    ];
    let reps: u64 = std::env::var("REPS").map_or(300, |v| v.parse().unwrap());
    let mut sum = [0.0; 3];
    for noise in noises {
        let mut out = format!("{:14}", format!("{noise:?}"));
        for n in [30, 60, 120, 300, 1000] {
            out += &format!(" | {n}:");
            for (k, (leak, sigma)) in [(0.0, 0.01), (0.05, 0.01), (0.05, 0.005)].into_iter().enumerate() {
                let (mut grow, mut warm, mut ben) = (0, 0, 0);
                for r in 0..reps {
                    let mut rng = Random::new(r * 7919 + n as u64);
                    let e = noise.make(n, &mut rng);
                    let y: Vec<f64> = e
                        .iter()
                        .enumerate()
                        .map(|(i, e)| 1.0 + sigma * e + leak * i as f64 / n as f64)
                        .collect();
                    let level = 10f64.powf(rng.between(7.3, 9.5));
                    let t = judge(&Series::new(&samples(&y, level, 1.0)));
                    grow += u32::from(matches!(t.kind, Kind::SteadyGrowth | Kind::RisingSawtooth));
                    warm += u32::from(t.kind == Kind::WarmUp);
                    ben += u32::from(t.beneath_curve);
                }
                let pc = |k: u32| 100.0 * f64::from(k) / reps as f64;
                sum[k] += pc(grow);
                out += &format!(" {:.1}({:.0} {:.1})", pc(grow), pc(warm), pc(ben));
            }
        }
        println!("{out}");
    }
    println!("{:?}", sum.map(|s| s / 45.0));
}

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

fn warm(kind: usize, t: f64, r: (f64, f64)) -> f64 {
    let between = |low: f64, high: f64| low + (high - low) * r.0;
    match kind {
        0 => 1.0 - (-t / between(0.02, 0.2)).exp(),
        1 => (t / between(0.1, 0.6)).min(1.0),
        2 => {
            let h = between(0.01, 0.1);
            t / (t + h)
        }
        3 => 1.0 - (r.1 * (-t / 0.03).exp() + (1.0 - r.1) * (-t / 0.2).exp()),
        _ => {
            let c = between(0.1, 0.35);
            let w = 0.02 + 0.04 * r.1;
            1.0 / (1.0 + (-(t - c) / w).exp())
        }
    }
}

#[test]
fn kinds() {
    let reps: u64 = std::env::var("REPS").map_or(300, |v| v.parse().unwrap());
    let sigma: f64 = std::env::var("SIGMA").map_or(0.005, |v| v.parse().unwrap());
    let start = std::time::Instant::now();
    for row in [
        "exp", "fill", "hyper", "two", "late", "step", "saw", "growsaw", "restart", "exp+", "fill+",
        "hyper+", "two+", "late+", "step+", "saw+", "restart+", "chunks+", "slowwarm",
    ] {
        let mut out = format!("{row:10}");
        for n in [30, 60, 120, 300, 1000, 3000] {
            let mut kinds = std::collections::BTreeMap::new();
            for r in 0..reps {
                let mut rng = Random::new(r * 7919 + n as u64 + 17);
                let noise = rng.one_of(&NOISES);
                let e = noise.make(n, &mut rng);
                let leak = if !row.ends_with('+') {
                    0.0
                } else if ["exp+", "fill+", "hyper+", "two+", "late+"].contains(&row) {
                    0.1
                } else {
                    0.05
                };
                let amp = rng.between(0.2, 1.0);
                let rr = (rng.unit(), rng.unit());
                let period = rng.between(9.0, (n as f64 / 12.0).max(10.0));
                let phase = rng.unit();
                let cut = rng.between(0.25, 0.75);
                let which = ["exp", "fill", "hyper", "two", "late"]
                    .iter()
                    .position(|x| row.starts_with(x));
                let cycles: Vec<f64> = {
                    let mut place = phase;
                    (0..n)
                        .map(|_| {
                            place += 1.0 / period;
                            if place >= 1.0 {
                                place = 0.3 * rng.unit() * (1.0 / period).min(1.0);
                            }
                            place
                        })
                        .collect()
                };
                let chunk = rng.between(0.02, 0.1);
                let mut runs = vec![0; n];
                let y: Vec<f64> = e
                    .iter()
                    .enumerate()
                    .map(|(i, e)| {
                        let t = i as f64 / n as f64;
                        let mut y = 1.0 + sigma * e + leak * t;
                        if let Some(k) = which {
                            y += amp * warm(k, t, rr);
                        }
                        if row.starts_with("step") && t > cut {
                            y += amp * 0.3;
                        }
                        if row.contains("saw") {
                            let a = amp * 0.4 * if row == "growsaw" { 0.5 + t } else { 1.0 };
                            y += a * cycles[i];
                        }
                        if row.starts_with("restart") {
                            let (t2, run) = if t > cut { (t - cut, 1) } else { (t, 0) };
                            runs[i] = run;
                            y = 1.0
                                + sigma * e
                                + 2.0 * leak * t2
                                + if leak > 0.0 { 0.0 } else { 1.0 }
                                    * amp
                                    * (1.0 - (-t2 / (0.05 + 0.03 * rr.0)).exp());
                        }
                        if row == "chunks+" {
                            y = 1.0 + sigma * e + leak * (t / chunk).floor() * chunk;
                        }
                        if row == "slowwarm" {
                            y += amp * (1.0 - (-t / (0.35 + 0.65 * rr.0)).exp());
                        }
                        y
                    })
                    .collect();
                let level = 10f64.powf(rng.between(7.3, 9.5));
                let mut s = samples(&y, level, 1.0);
                for (s, run) in s.iter_mut().zip(&runs) {
                    s.run = *run;
                }
                let t = judge(&Series::new(&s));
                if std::env::var("DBG").is_ok() {
                    println!("| ^^ {row} {noise:?} {n} amp {amp:.2} rr {rr:.2?} {:?}", t.kind);
                }
                if std::env::var("WHY").is_ok_and(|w| w == row)
                    && n == 3000
                    && matches!(t.kind, Kind::Unknown | Kind::WarmUp)
                {
                    println!(
                        "| {noise:?} {period} {amp} {:?} longer {:?} corr {} steps {:?}",
                        t.kind, t.watch_longer, t.correlation, t.steps
                    );
                }
                *kinds
                    .entry(format!("{:?}", t.kind).chars().take(4).collect::<String>())
                    .or_insert(0u32) += 1;
            }
            out += &format!(" | {n}:");
            for (k, c) in kinds {
                out += &format!(" {k} {:.1}", 100.0 * f64::from(c) / reps as f64);
            }
        }
        println!("{out}");
    }
    println!("{:?} each", start.elapsed() / reps as u32 / 19 / 6);
}
