//! What the bench reads from a recording of leakwatch.

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
    pub fn of(json: &str) -> Result<Self, serde_json::Error> {
        let recording: Value = serde_json::from_str(json)?;
        let number = |path: &str| recording.pointer(path).and_then(Value::as_f64);
        Ok(Self {
            coverage: number("/reconciliation/coverage"),
            sampling_rate: number("/cost/sampling_rate"),
        })
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
}
