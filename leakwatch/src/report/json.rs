//! The recording as JSON: lossless, and read back.

use std::io::{BufReader, Cursor, Read, Seek, Write};

use serde::{Deserialize, Serialize};

use super::model::{HeapPicture, Recording, SCHEMA_VERSION, names};

/// Why a recording cannot be read. The text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(
        "{name} is not a recording of leakwatch: {reason}. Give a .json file that `leakwatch record -o FILE.json` wrote"
    )]
    NotARecording { name: String, reason: String },
    #[error(
        "{name} is a recording of schema version {found}; this leakwatch reads up to version {SCHEMA_VERSION}. Read it with the leakwatch that wrote it, or a newer one"
    )]
    Newer { name: String, found: u64 },
    #[error(
        "{name} is the picture of a heap that `leakwatch heap` wrote, and no recording: its figures are in it, and \
         `leakwatch heap -o FILE.txt` writes them as text"
    )]
    Picture { name: String },
    #[error("{name} is a damaged recording: {reason}. If it was copied, copy it again")]
    Damaged { name: String, reason: String },
}

/// Indented, one final newline.
pub fn write(recording: &Recording, mut to: impl Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut to, recording)?;
    to.write_all(b"\n")
}

/// The same of a heap's picture.
pub fn write_picture(picture: &HeapPicture, mut to: impl Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut to, picture)?;
    to.write_all(b"\n")
}

/// The same of anything else that has one.
pub fn write_any(report: &impl Serialize, mut to: impl Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut to, report)?;
    to.write_all(b"\n")
}

/// Parses a recording; `name` (the file) goes into the error.
pub fn read(text: &[u8], name: &str) -> Result<Recording, ReadError> {
    read_from(Cursor::new(text), name)
}

/// How much of a file is in memory at a time, beside what it says.
const BUFFER: usize = 1 << 20;

/// The same from a file, which may be much larger than what it says: it is not in memory as a whole.
pub fn read_from(mut from: impl Read + Seek, name: &str) -> Result<Recording, ReadError> {
    let whole = serde_json::from_reader::<_, Recording>(BufReader::with_capacity(BUFFER, &mut from));
    names::forget();
    match whole {
        Ok(recording) if (1..=SCHEMA_VERSION).contains(&recording.schema_version) => Ok(recording),
        // What it is instead, or what is wrong with it.
        whole => Err(match from.rewind() {
            Ok(()) => why_not(BufReader::with_capacity(BUFFER, from), whole.err(), name),
            Err(error) => ReadError::Damaged {
                name: super::escape::escape(name),
                reason: super::escape::escape(&error.to_string()),
            },
        }),
    }
}

/// Why this is no recording that can be read; `error` is what its parsing said, if it said anything.
fn why_not(from: impl Read, error: Option<serde_json::Error>, name: &str) -> ReadError {
    /// All that every version has.
    #[derive(Deserialize)]
    struct Head {
        schema_version: u64,
        /// Of a heap's picture; a recording has a window instead.
        taken_at: Option<serde::de::IgnoredAny>,
        window: Option<serde::de::IgnoredAny>,
        /// Of a report of a history, and of a look at all processes.
        services: Option<serde::de::IgnoredAny>,
        rows: Option<serde::de::IgnoredAny>,
    }
    let name = || super::escape::escape(name);
    let head: Head = match serde_json::from_reader(from) {
        Ok(head) => head,
        Err(error) => {
            return ReadError::NotARecording {
                name: name(),
                reason: super::escape::escape(&error.to_string()),
            };
        }
    };
    if head.schema_version == 0 {
        return ReadError::NotARecording {
            name: name(),
            reason: "schema version 0 was never written".to_owned(),
        };
    }
    if head.schema_version > u64::from(SCHEMA_VERSION) {
        return ReadError::Newer {
            name: name(),
            found: head.schema_version,
        };
    }
    if head.window.is_none() && (head.services.is_some() || head.rows.is_some()) {
        return ReadError::NotARecording {
            name: name(),
            reason: "`leakwatch history` or `leakwatch scan` wrote it".to_owned(),
        };
    }
    if head.taken_at.is_some() && head.window.is_none() {
        return ReadError::Picture { name: name() };
    }
    ReadError::Damaged {
        name: name(),
        reason: error.map_or_else(
            || "it was changed while it was read".to_owned(),
            |error| super::escape::escape(&error.to_string()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn text(recording: &Recording) -> Vec<u8> {
        let mut text = Vec::new();
        write(recording, &mut text).unwrap();
        text
    }

    #[test]
    fn a_recording_comes_back_as_it_was() {
        for recording in [sample::full(), sample::empty(), sample::hostile()] {
            assert_eq!(read(&text(&recording), "x.json").unwrap(), recording);
        }
    }

    #[test]
    fn the_schema() {
        insta::assert_snapshot!("json", String::from_utf8(text(&sample::full())).unwrap());
    }

    #[test]
    fn a_picture_of_a_heap_is_no_recording_and_comes_back_as_it_was() {
        for picture in [sample::picture(), sample::hostile_picture()] {
            let mut text = Vec::new();
            write_picture(&picture, &mut text).unwrap();
            assert!(text.ends_with(b"}\n"));
            assert_eq!(serde_json::from_slice::<HeapPicture>(&text).unwrap(), picture);
            let error = read(&text, "a.json").unwrap_err();
            assert!(matches!(error, ReadError::Picture { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_absent_is_null() {
        let value: serde_json::Value = serde_json::from_slice(&text(&sample::empty())).unwrap();
        for pointer in [
            "/verdict",
            "/reconciliation",
            "/mappings",
            "/series",
            "/trend",
            "/correlations",
            "/growth/rss_bytes",
        ] {
            assert_eq!(
                value.pointer(pointer),
                Some(&serde_json::Value::Null),
                "{pointer}"
            );
        }
    }

    #[test]
    fn fields_of_a_later_minor_version_are_ignored() {
        let mut value = serde_json::to_value(sample::full()).unwrap();
        value["a_later_section"] = serde_json::json!({"bytes": 1});
        value["call_sites"][0]["colour"] = "red".into();
        value["losses"]["new_thing"] = serde_json::json!([1]);
        assert_eq!(read(value.to_string().as_bytes(), "x").unwrap(), sample::full());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let newer = read(br#"{"schema_version": 2, "whatever": 1}"#, "a\x1b.json")
            .unwrap_err()
            .to_string();
        assert!(
            newer.contains("schema version 2") && newer.contains("a\\x1b.json"),
            "{newer}"
        );
        for text in [
            &b""[..],
            b"{}",
            b"not json",
            b"\xff\xfe",
            b"{\"schema_version\": -1}",
            b"{\"schema_version\":0}",
        ] {
            let error = read(text, "a.json").unwrap_err();
            assert!(matches!(error, ReadError::NotARecording { .. }), "{error}");
        }
        let whole = text(&sample::full());
        let error = read(&whole[..whole.len() / 2], "a.json").unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        let damaged = read(br#"{"schema_version": 1}"#, "a.json").unwrap_err();
        assert!(matches!(damaged, ReadError::Damaged { .. }), "{damaged}");
        // Nesting without end is no stack overflow.
        assert!(read("[".repeat(1 << 20).as_bytes(), "a").is_err());
    }
}
