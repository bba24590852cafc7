//! What the bench reads from a recording of leakwatch.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Absent and null are the same: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// Part of the growth that has a call site.
    pub coverage: Option<f64>,
    /// Part of the pages that is watched.
    pub sampling_rate: Option<f64>,
}

impl Account {
    pub fn of(json: &str) -> Result<Self> {
        let recording: Value = serde_json::from_str(json)?;
        let number = |path: &str| recording.pointer(path).and_then(Value::as_f64);
        Ok(Self {
            coverage: number("/reconciliation/coverage"),
            sampling_rate: number("/cost/sampling_rate"),
        })
    }
}

/// How births were watched in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Births {
    pub bursts: f64,
    pub watched_seconds: f64,
    /// Blocks that were in use when their burst ended.
    pub followed: f64,
    /// Processor time of the target, by leakwatch's own count.
    pub spent_seconds: f64,
    /// What it could not work meanwhile, by its own clock.
    pub withheld_seconds: f64,
    /// `None`: they were watched all the time, cost it what it may.
    pub budget_seconds: Option<f64>,
}

/// What a recording says of births.
#[derive(Clone, Debug, PartialEq)]
pub enum OfBirths {
    Watched(Births),
    /// And why.
    NotWatched(String),
}

impl OfBirths {
    /// # Errors
    /// When it is no JSON, or births were watched and a field of theirs is missing.
    pub fn of(json: &str) -> Result<Self> {
        let recording: Value = serde_json::from_str(json)?;
        let Some(births) = recording.get("allocations").filter(|births| births.is_object()) else {
            let why = recording.get("allocations_not_watched").and_then(Value::as_str);
            return Ok(Self::NotWatched(why.unwrap_or("not asked for").to_owned()));
        };
        let number = |name: &str| {
            let value = births.get(name).and_then(Value::as_f64);
            value.with_context(|| format!("the recording's allocations have no {name}"))
        };
        Ok(Self::Watched(Births {
            bursts: number("bursts")?,
            watched_seconds: number("watched_seconds")?,
            followed: number("followed")?,
            spent_seconds: number("cost_seconds")?,
            withheld_seconds: number("withheld_seconds")?,
            budget_seconds: births.get("budget_seconds").and_then(Value::as_f64),
        }))
    }

    /// Of births that were watched.
    pub fn watched(&self) -> Option<Births> {
        match self {
            Self::Watched(births) => Some(*births),
            Self::NotWatched(_) => None,
        }
    }
}

impl Births {
    /// What is paid for out of the budget, seconds of processor time.
    pub fn paid_seconds(&self) -> f64 {
        self.spent_seconds + self.withheld_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_not_known() {
        let account =
            Account::of(r#"{"reconciliation": {"coverage": 0.97}, "cost": {"sampling_rate": null}}"#);
        assert_eq!(
            account.unwrap(),
            Account {
                coverage: Some(0.97),
                sampling_rate: None
            }
        );
        assert_eq!(Account::of("{}").unwrap(), Account::default());
        assert!(Account::of("no JSON").is_err());
    }
    #[test]
    fn births_were_watched_or_there_is_a_reason() {
        let watched = OfBirths::of(
            r#"{"allocations": {"bursts": 12, "watched_seconds": 0.25, "followed": 340,
                "cost_seconds": 0.011, "withheld_seconds": 0.004, "budget_seconds": 0.02},
                "allocations_not_watched": null}"#,
        );
        let births = watched.unwrap().watched().unwrap();
        assert_eq!((births.bursts, births.followed), (12.0, 340.0));
        assert_eq!((births.spent_seconds, births.budget_seconds), (0.011, Some(0.02)));
        assert_eq!(births.withheld_seconds, 0.004);
        let not = OfBirths::of(r#"{"allocations": null, "allocations_not_watched": "jemalloc"}"#);
        assert_eq!(not.unwrap(), OfBirths::NotWatched("jemalloc".to_owned()));
        assert_eq!(OfBirths::of("{}").unwrap().watched(), None);
        let error = OfBirths::of(r#"{"allocations": {"bursts": 12}}"#).unwrap_err();
        assert!(error.to_string().contains("no watched_seconds"), "{error}");
        assert!(OfBirths::of("no JSON").is_err());
    }
}
