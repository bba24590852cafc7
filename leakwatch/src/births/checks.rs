//! When candidates are looked at between the window's ends. Pure.

use std::time::Duration;

/// In a window whose end is known, as parts of it.
const PARTS: [f64; 2] = [1.0 / 3.0, 2.0 / 3.0];
/// In one that somebody is to end, the first; and each is so many times as late as the one before it. Whenever the end
/// comes, two are then behind it at some third and two thirds of the window, and of days there are two dozen.
const FIRST: Duration = Duration::from_secs(4);
const LATER: f64 = 1.6;

/// The checks that are still to come.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The next one last.
    planned: Vec<Duration>,
    /// There is always another.
    open: bool,
}

impl Checks {
    /// `window`: `None` where its end is not known.
    #[must_use]
    pub fn of(window: Option<Duration>) -> Self {
        let planned = window.map_or_else(
            || vec![FIRST],
            |window| PARTS.iter().rev().map(|part| window.mul_f64(*part)).collect(),
        );
        Self {
            planned,
            open: window.is_none(),
        }
    }

    /// When the next one is due, as time of the window.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.planned.last().copied()
    }

    /// The next one has begun.
    pub fn begun(&mut self) {
        let Some(at) = self.planned.pop() else { return };
        if self.open {
            self.planned.push(at.mul_f64(LATER));
        }
    }

    /// There are to be none any more.
    pub fn end(&mut self) {
        self.planned.clear();
        self.open = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(mut checks: Checks, until: f64) -> Vec<f64> {
        let mut times = Vec::new();
        while let Some(next) = checks.next().filter(|next| next.as_secs_f64() < until) {
            times.push(next.as_secs_f64());
            checks.begun();
        }
        times
    }

    #[test]
    fn a_window_has_two_and_an_open_one_two_near_its_thirds_whenever_it_ends() {
        let fixed = times(Checks::of(Some(Duration::from_secs(30))), f64::INFINITY);
        assert_eq!(fixed.len(), 2);
        assert!(
            (fixed[0] - 10.0).abs() < 0.1 && (fixed[1] - 20.0).abs() < 0.1,
            "{fixed:?}"
        );
        for end in [12.0, 60.0, 100.0, 3600.0, 86_400.0] {
            let times = times(Checks::of(None), end);
            let parts: Vec<f64> = times.iter().rev().take(2).map(|at| at / end).collect();
            assert!(
                (0.6..1.0).contains(&parts[0]) && (0.35..0.7).contains(&parts[1]),
                "{end}: {parts:?}"
            );
        }
        assert!(times(Checks::of(None), 7.0 * 86_400.0).len() < 30);
    }

    #[test]
    fn an_end_is_an_end() {
        let mut checks = Checks::of(None);
        checks.end();
        checks.begun();
        assert_eq!(checks.next(), None);
    }
}
