//! What /proc said each second, in a bounded number of points.

use std::time::Duration;

use super::process::anonymous_of;
use crate::sampler::sample::Sample;
use crate::sampler::totals::{Rollup, Totals};

/// Points kept: more than a screen can show. When they are full every second one goes, and from then on every second
/// sample is left out.
const POINTS_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// Time of the window.
    pub at: Duration,
    pub totals: Totals,
    /// Not read each time.
    pub rollup: Option<Rollup>,
    pub descriptors: Option<u64>,
    /// Not read each time.
    pub connections: Option<u64>,
    /// Anonymous bytes that children which are followed and live have gained since their births.
    pub children: i64,
}

impl Point {
    /// Anonymous bytes of the process, with what its children have gained.
    pub fn anonymous(&self) -> Option<u64> {
        Some(anonymous_of(&self.totals)?.saturating_add_signed(self.children))
    }

    pub fn of(at: Duration, sample: &Sample, children: i64) -> Self {
        Self {
            at,
            totals: sample.totals,
            rollup: sample.rollup.ok(),
            descriptors: sample.descriptors.ok(),
            connections: sample
                .sockets
                .ok()
                .map(|sockets| sockets.tcp.connections().saturating_add(sockets.unix.connected)),
            children,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    points: Vec<Point>,
    /// log2 of the samples for one point.
    thinned: u32,
    samples: u64,
}

impl Series {
    pub fn push(&mut self, point: Point) {
        let index = self.samples;
        self.samples += 1;
        if index & ((1 << self.thinned) - 1) != 0 {
            return;
        }
        if self.points.len() >= POINTS_MAX {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.thinned += 1;
        }
        self.points.push(point);
    }

    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_of_seconds_stays_bounded_and_even() {
        let mut series = Series::default();
        for second in 0..7 * 24 * 3600 {
            series.push(Point {
                at: Duration::from_secs(second),
                ..Point::default()
            });
        }
        let points = series.points();
        assert!(
            points.len() <= POINTS_MAX && points.len() >= POINTS_MAX / 2,
            "{}",
            points.len()
        );
        let step = points[1].at - points[0].at;
        assert_eq!(points[0].at, Duration::ZERO);
        for pair in points[..points.len() - 1].windows(2) {
            assert_eq!(pair[1].at - pair[0].at, step, "evenly spaced");
        }
    }
}
