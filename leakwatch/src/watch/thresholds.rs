//! What is too much, and when that is told: once when it begins, once when it is well over. Pure.

use std::time::Duration;

/// Bytes per hour that are told of where nothing else is asked for.
const RATE_USUAL: f64 = 16.0 * 1024.0 * 1024.0;
/// The time to the limit, likewise.
const TIME_TO_LIMIT_USUAL: Duration = Duration::from_secs(24 * 3600);

/// Well within is so far from the bound.
const WELL_WITHIN: f64 = 0.8;
/// Looks in a row beyond the bound that raise an alert, and well within it that clear it.
const IN_A_ROW: u32 = 2;

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Threshold {
    Rate,
    Rise,
    TimeToLimit,
    Descriptors,
    Threads,
    Connections,
}

impl Threshold {
    pub const ALL: [Self; 6] = [
        Self::Rate,
        Self::Rise,
        Self::TimeToLimit,
        Self::Descriptors,
        Self::Threads,
        Self::Connections,
    ];

    /// In alerts, in the environment of a command, in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Rise => "rise",
            Self::TimeToLimit => "time_to_limit",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::Connections => "connections",
        }
    }

    /// What its value counts in.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rate => "bytes_per_hour",
            Self::Rise => "bytes",
            Self::TimeToLimit => "seconds",
            Self::Descriptors | Self::Threads | Self::Connections => "count",
        }
    }

    /// A value below the bound is beyond it.
    const fn is_least(self) -> bool {
        matches!(self, Self::TimeToLimit)
    }

    /// Whether it hangs on the trend, which is judged now and then.
    #[must_use]
    pub const fn is_judged(self) -> bool {
        matches!(self, Self::Rate | Self::TimeToLimit)
    }
}

/// How much over the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rise {
    Bytes(u64),
    /// Of the baseline; 0.5 is half of it.
    Share(f64),
}

/// The bounds; `None` is not watched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Bytes per hour.
    pub rate: Option<f64>,
    pub rise: Option<Rise>,
    pub time_to_limit: Option<Duration>,
    pub descriptors: Option<u64>,
    pub threads: Option<u64>,
    pub connections: Option<u64>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            rate: Some(RATE_USUAL),
            rise: None,
            time_to_limit: Some(TIME_TO_LIMIT_USUAL),
            descriptors: None,
            threads: None,
            connections: None,
        }
    }
}

impl Thresholds {
    /// The bound of one, in its unit; of a rise over so many bytes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
    pub fn bound(&self, threshold: Threshold, baseline: Option<u64>) -> Option<f64> {
        let count = |count: Option<u64>| count.map(|count| count as f64);
        match threshold {
            Threshold::Rate => self.rate,
            Threshold::Rise => match self.rise? {
                Rise::Bytes(bytes) => Some(bytes as f64),
                Rise::Share(share) => Some(share * baseline? as f64),
            },
            Threshold::TimeToLimit => self.time_to_limit.map(|time| time.as_secs_f64()),
            Threshold::Descriptors => count(self.descriptors),
            Threshold::Threads => count(self.threads),
            Threshold::Connections => count(self.connections),
        }
    }
}

/// What became of an alert at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Raised,
    Cleared,
}

/// The state of one threshold of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarm {
    raised: bool,
    /// Looks in a row that speak for a change.
    streak: u32,
}

impl Alarm {
    /// Looks at a value. A value that is not known changes nothing.
    pub fn look(&mut self, threshold: Threshold, value: Option<f64>, bound: f64) -> Option<Change> {
        let value = value.filter(|value| !value.is_nan())?;
        let (beyond, well_within) = if threshold.is_least() {
            (value <= bound, value > bound / WELL_WITHIN)
        } else {
            (value >= bound, value < bound * WELL_WITHIN)
        };
        let for_a_change = if self.raised { well_within } else { beyond };
        if !for_a_change {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        if self.streak < IN_A_ROW {
            return None;
        }
        self.streak = 0;
        self.raised = !self.raised;
        Some(if self.raised {
            Change::Raised
        } else {
            Change::Cleared
        })
    }

    #[must_use]
    pub fn is_raised(self) -> bool {
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn looks(threshold: Threshold, bound: f64, values: &[f64]) -> Vec<Option<Change>> {
        let mut alarm = Alarm::default();
        values
            .iter()
            .map(|value| alarm.look(threshold, Some(*value), bound))
            .collect()
    }

    #[test]
    fn it_is_raised_once_and_cleared_when_well_below() {
        use Change::{Cleared, Raised};
        let changes = looks(
            Threshold::Descriptors,
            100.0,
            &[
                99.0, 100.0, 101.0, 150.0, 150.0, 90.0, 85.0, 79.0, 81.0, 79.0, 78.0, 70.0,
            ],
        );
        let mut expected = vec![None; 12];
        expected[2] = Some(Raised);
        // 90 and 85 are below the bound, but not well; and one look is none.
        expected[10] = Some(Cleared);
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_value_about_the_bound_does_not_flap() {
        let values: Vec<f64> = (0..1000)
            .map(|look| 100.0 + 10.0 * f64::from(look % 7 - 3) / 3.0)
            .collect();
        let changes = looks(Threshold::Threads, 100.0, &values);
        assert_eq!(changes.iter().flatten().count(), 1);
    }

    #[test]
    fn a_single_outlier_raises_nothing() {
        assert!(
            looks(Threshold::Connections, 10.0, &[1.0, 500.0, 1.0, 500.0, 1.0])
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn time_to_a_limit_is_beyond_when_it_is_short() {
        let hour = 3600.0;
        let changes = looks(
            Threshold::TimeToLimit,
            24.0 * hour,
            &[
                f64::INFINITY,
                23.0 * hour,
                22.0 * hour,
                28.0 * hour,
                f64::INFINITY,
                f64::INFINITY,
            ],
        );
        assert_eq!(changes[2], Some(Change::Raised));
        assert_eq!(changes[3], None);
        assert_eq!(changes[5], Some(Change::Cleared));
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        let mut alarm = Alarm::default();
        for value in [Some(200.0), None, Some(f64::NAN)] {
            assert_eq!(alarm.look(Threshold::Threads, value, 100.0), None);
        }
        assert_eq!(
            alarm.look(Threshold::Threads, Some(200.0), 100.0),
            Some(Change::Raised)
        );
        assert_eq!(alarm.look(Threshold::Threads, None, 100.0), None);
        assert!(alarm.is_raised());
    }

    #[test]
    fn a_rise_is_in_bytes_or_by_the_baseline() {
        let of = |rise| Thresholds {
            rise: Some(rise),
            ..Thresholds::default()
        };
        assert_eq!(of(Rise::Bytes(5)).bound(Threshold::Rise, None), Some(5.0));
        assert_eq!(
            of(Rise::Share(0.5)).bound(Threshold::Rise, Some(200)),
            Some(100.0)
        );
        assert_eq!(of(Rise::Share(0.5)).bound(Threshold::Rise, None), None);
        assert_eq!(Thresholds::default().bound(Threshold::Threads, None), None);
    }

    proptest! {
        /// Whatever comes, an alert is raised and cleared in turn, and never within one look of each other.
        #[test]
        fn raised_and_cleared_alternate(values in proptest::collection::vec(proptest::option::of(0.0..200.0), 0..200)) {
            let mut alarm = Alarm::default();
            let mut last: Option<(usize, Change)> = None;
            for (index, value) in values.iter().enumerate() {
                if let Some(change) = alarm.look(Threshold::Threads, *value, 100.0) {
                    if let Some((before, other)) = last {
                        prop_assert!(other != change && index - before >= IN_A_ROW as usize);
                    } else {
                        prop_assert_eq!(change, Change::Raised);
                    }
                    last = Some((index, change));
                }
            }
        }
    }
}
