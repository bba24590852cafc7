//! Series whose answer is known, made from a seed, for tests.

use std::f64::consts::TAU;

use super::series::{Point, Sample};

/// One each second, from 0.
pub fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
    (0..)
        .zip(values)
        .map(|(at, bytes)| Point {
            at: f64::from(at),
            bytes,
        })
        .collect()
}

/// Between -1 and 1, without a pattern to speak of.
pub fn jitter(at: i32) -> f64 {
    f64::from((at * 7919 + 13) % 101) / 50.0 - 1.0
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to 1, neither.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos()
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.next() % of.len() as u64).unwrap()]
    }
}

/// About the trend, of standard deviation one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Noise {
    White,
    /// Each value remembers this much of the one before.
    Wander(f64),
    /// Wander of 0.95 beneath as much white noise.
    Mixed,
    /// Student's, with three degrees of freedom.
    Heavy,
    /// In a few coarse steps.
    Coarse,
    /// Requests that come in bursts: up for a few samples, one time in twenty.
    Bursts,
    /// As load by the day, two to ten days, with a little white noise.
    Daily,
}

impl Noise {
    pub fn make(self, count: usize, random: &mut Random) -> Vec<f64> {
        match self {
            Self::White => (0..count).map(|_| random.normal()).collect(),
            Self::Wander(memory) => wander(count, memory, random),
            Self::Mixed => wander(count, 0.95, random)
                .into_iter()
                .map(|value| (value + random.normal()) * 0.5_f64.sqrt())
                .collect(),
            Self::Heavy => (0..count)
                .map(|_| {
                    let squares: f64 = (0..3).map(|_| random.normal().powi(2)).sum();
                    random.normal() / squares.sqrt()
                })
                .collect(),
            Self::Coarse => wander(count, 0.5, random)
                .into_iter()
                .map(|value| (value / 1.5).round() * 1.5)
                .collect(),
            Self::Bursts => {
                let mut up = 0.0;
                (0..count)
                    .map(|_| {
                        if up > 0.0 && random.unit() < 0.3 {
                            up = 0.0;
                        } else if up == 0.0 && random.unit() < 0.016 {
                            up = random.between(2.0, 6.0);
                        }
                        up + 0.3 * random.normal()
                    })
                    .collect()
            }
            Self::Daily => {
                let (days, phase) = (random.between(2.0, 10.0), random.between(0.0, TAU));
                (0..count)
                    .map(|at| {
                        (TAU * days * at as f64 / count as f64 + phase).sin() * 2.0_f64.sqrt()
                            + 0.3 * random.normal()
                    })
                    .collect()
            }
        }
    }
}

fn wander(count: usize, memory: f64, random: &mut Random) -> Vec<f64> {
    let fresh = (1.0 - memory * memory).sqrt();
    let mut value = random.normal();
    (0..count)
        .map(|_| {
            value = memory * value + fresh * random.normal();
            value
        })
        .collect()
}

/// Samples of one run at the given interval in seconds, of shares of a level; in whole pages.
pub fn samples(shares: &[f64], level: f64, interval: f64) -> Vec<Sample> {
    shares
        .iter()
        .enumerate()
        .map(|(at, share)| Sample {
            at: at as f64 * interval,
            bytes: ((share * level).max(0.0) / 4096.0).round() * 4096.0,
            run: 0,
        })
        .collect()
}

/// How memory comes to its plateau, 0 to 1 over a window from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warming {
    /// Slower the fuller it is.
    Settling,
    /// At a constant rate until it is full.
    Filling,
    /// What is asked for by chance is new ever more rarely.
    Finding,
    /// Quick at first, and something slower beside it.
    TwoFold,
    /// Slower the fuller it is, and not full by the window's end.
    Slow,
    /// Nothing, then fast, then full.
    Late,
}

impl Warming {
    /// Draws one, all but over by the window's end unless it is slow.
    pub fn make(self, random: &mut Random) -> impl Fn(f64) -> f64 + use<> {
        let (one, other) = (random.unit(), random.unit());
        let between = move |low: f64, high: f64| low + (high - low) * one;
        move |time: f64| match self {
            Self::Settling => 1.0 - (-time / between(0.02, 0.2)).exp(),
            Self::Slow => 1.0 - (-time / between(0.25, 0.8)).exp(),
            Self::Filling => (time / between(0.1, 0.6)).min(1.0),
            Self::Finding => time / (time + between(0.01, 0.1)),
            Self::TwoFold => 1.0 - other * (-time / 0.03).exp() - (1.0 - other) * (-time / 0.2).exp(),
            Self::Late => 1.0 / (1.0 + ((between(0.1, 0.35) - time) / (0.02 + 0.04 * other)).exp()),
        }
    }
}

/// Rises from 0 to 1 and falls at once, in cycles of about as many samples, each a little different.
pub fn sawing(count: usize, cycle: f64, random: &mut Random) -> Vec<f64> {
    let mut place = random.unit();
    let mut step = 1.0 / cycle;
    (0..count)
        .map(|_| {
            place += step;
            if place >= 1.0 {
                step = random.between(0.85, 1.15) / cycle;
                place = step * random.unit();
            }
            place
        })
        .collect()
}
