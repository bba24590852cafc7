//! The published JSON Schemas, read by a validator that knows nothing of leakwatch.

use std::path::PathBuf;
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;

/// `docs/NAME.schema.json`.
fn published(name: &str) -> Validator {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{name}.schema.json"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let schema: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{} is no JSON: {error}", path.display()));
    jsonschema::validator_for(&schema)
        .unwrap_or_else(|error| panic!("{} is no schema: {error}", path.display()))
}

/// Checks a recording.
///
/// # Errors
/// What breaks the schema, and where.
pub fn recording(text: &str) -> Result<(), String> {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    check(SCHEMA.get_or_init(|| published("recording")), text)
}

/// Checks a comparison.
///
/// # Errors
/// Likewise.
pub fn diff(text: &str) -> Result<(), String> {
    static SCHEMA: OnceLock<Validator> = OnceLock::new();
    check(SCHEMA.get_or_init(|| published("diff")), text)
}

fn check(schema: &Validator, text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let broken: Vec<String> = schema
        .iter_errors(&value)
        .take(5)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    if broken.is_empty() {
        Ok(())
    } else {
        Err(broken.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_one_and_refuses_what_is_wrong() {
        for name in ["recording", "heap", "history", "scan", "diff"] {
            let schema = published(name);
            assert!(!schema.is_valid(&serde_json::json!({})), "{name}");
            assert!(!schema.is_valid(&serde_json::json!([])), "{name}");
        }
        let refusal = recording(r#"{"schema_version": 1}"#).unwrap_err();
        assert!(refusal.contains("\"window\" is a required property"), "{refusal}");
        let refusal = diff("{").unwrap_err();
        assert!(refusal.starts_with("no JSON"), "{refusal}");
    }
}
