//! The JSON Schemas in `docs/`: made from the model, published as files. Test code: the program itself carries none of it.
//!
//! A schema says what this version writes: every field is there, what is absent is null. What an earlier version 1 wrote
//! may lack the fields that came later.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::model::diff::DiffReport;
use super::model::history::{HistoryReport, ScanReport};
use super::model::{Address, Frame, HeapPicture, Recording, SCHEMA_VERSION, SharedFrame};

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "0x and lower-case hexadecimal digits: a JSON number is not exact to all readers.",
            "type": "string",
            "pattern": "^0x[0-9a-f]{1,16}$"
        })
    }
}

/// That frames are shared is no matter of the format.
impl JsonSchema for SharedFrame {
    fn schema_name() -> Cow<'static, str> {
        Frame::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        Frame::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Frame::json_schema(generator)
    }
}

fn schema<T: JsonSchema>(name: &str, title: &str) -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .with_transform(without_links)
        .into_generator()
        .into_root_schema_for::<T>();
    schema.insert(
        "$id".to_owned(),
        format!("urn:leakwatch:{name}:{SCHEMA_VERSION}").into(),
    );
    schema.insert("title".to_owned(), title.into());
    if let Some(version) = schema.pointer_mut("/properties/schema_version") {
        *version = serde_json::json!({ "const": SCHEMA_VERSION });
    }
    serde_json::to_string_pretty(&schema).unwrap() + "\n"
}

/// Links of the source's documentation lead nowhere from a schema.
fn without_links(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace("[`", "`").replace("`]", "`");
    }
    transform_subschemas(&mut without_links, schema);
}

/// The file beside the sources, which must be what the model says.
#[track_caller]
fn published(name: &str, made: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/{name}.schema.json"));
    if std::env::var_os("LEAKWATCH_WRITE_SCHEMAS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "docs/{name}.schema.json is not what the model says. Write it anew with LEAKWATCH_WRITE_SCHEMAS=1, and say in \
         CHANGELOG.md what changed for readers of the format"
    );
}

#[test]
fn the_published_schemas_are_the_models() {
    for (name, made) in [
        (
            "recording",
            schema::<Recording>("recording", "A recording of leakwatch"),
        ),
        (
            "heap",
            schema::<HeapPicture>("heap", "A picture of a heap, by leakwatch heap"),
        ),
        (
            "history",
            schema::<HistoryReport>("history", "A history, by leakwatch history"),
        ),
        (
            "diff",
            schema::<DiffReport>("diff", "What changed between two recordings, by leakwatch diff"),
        ),
        (
            "scan",
            schema::<ScanReport>("scan", "A look at all processes, by leakwatch scan"),
        ),
    ] {
        published(name, &made);
    }
}

#[test]
fn a_schema_asks_for_every_field_and_knows_every_type() {
    let schema: Value = serde_json::from_str(&schema::<Recording>("recording", "x")).unwrap();
    let required = schema["required"].as_array().unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(required.len(), properties.len());
    assert_eq!(schema["properties"]["schema_version"]["const"], SCHEMA_VERSION);
    let frame = &schema["$defs"]["Frame"]["properties"];
    assert_eq!(frame["function"]["type"], serde_json::json!(["string", "null"]));
}
