//! What is read back: equal names are one text in memory, and equal frames are one frame, as they were when the recording
//! was made.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::frames::Frames;
use super::{Address, Culprit, Frame, SharedFrame};

thread_local! {
    /// Of the recording that is being read on this thread.
    static NAMES: RefCell<HashSet<Arc<str>>> = RefCell::default();
    static FRAMES: RefCell<Frames> = RefCell::default();
}

/// Ends the reading of a recording: names and frames that it has no more are given back.
pub fn forget() {
    NAMES.take();
    FRAMES.take();
}

/// A frame that is in memory once.
pub(super) fn frame(frame: Frame) -> SharedFrame {
    FRAMES.with_borrow_mut(|frames| frames.share(frame))
}

/// A text that many have, as names are.
pub(super) fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    Name::deserialize(deserializer).map(|Name(name)| name)
}

/// A name that is in memory once.
struct Name(Arc<str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(NAMES.with_borrow_mut(|names| {
                    if let Some(known) = names.get(text) {
                        return Name(Arc::clone(known));
                    }
                    let name: Arc<str> = text.into();
                    names.insert(Arc::clone(&name));
                    Name(name)
                }))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn name(name: Option<Name>) -> Option<Arc<str>> {
    name.map(|Name(name)| name)
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As [`Frame`].
        #[derive(serde::Deserialize)]
        #[serde(rename = "Frame")]
        struct Written {
            address: Option<Address>,
            module: Option<Name>,
            build_id: Option<Name>,
            offset: Option<Address>,
            function: Option<Name>,
            function_start: Option<Address>,
            file: Option<Name>,
            line: Option<u32>,
            #[serde(default)]
            inlined: bool,
        }
        let written = Written::deserialize(deserializer)?;
        Ok(Self {
            address: written.address,
            module: name(written.module),
            build_id: name(written.build_id),
            offset: written.offset,
            function: name(written.function),
            function_start: written.function_start,
            file: name(written.file),
            line: written.line,
            inlined: written.inlined,
        })
    }
}

impl<'de> Deserialize<'de> for Culprit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As [`Culprit`].
        #[derive(serde::Deserialize)]
        #[serde(rename = "Culprit")]
        struct Written {
            function: Option<Name>,
            module: Option<Name>,
            file: Option<Name>,
            line: Option<u32>,
            frame: Option<usize>,
        }
        let written = Written::deserialize(deserializer)?;
        Ok(Self {
            function: name(written.function),
            module: name(written.module),
            file: name(written.file),
            line: written.line,
            frame: written.frame,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_text() {
        let text = r#"[{"function": "work", "module": "/bin/x", "line": 3}, {"function": "work", "inlined": true}, {}]"#;
        let frames: Vec<Frame> = serde_json::from_str(text).unwrap();
        let of = |index: usize| frames[index].function.as_ref().unwrap();
        assert!(Arc::ptr_eq(of(0), of(1)));
        assert_eq!(
            frames[1],
            Frame {
                function: Some("work".into()),
                inlined: true,
                ..Frame::default()
            }
        );
        assert_eq!(frames[2], Frame::default());
        forget();
        let again: Vec<Frame> = serde_json::from_str(text).unwrap();
        assert!(!Arc::ptr_eq(of(0), again[0].function.as_ref().unwrap()));
        assert!(serde_json::from_str::<Frame>(r#"{"function": 3}"#).is_err());
    }

    #[test]
    fn a_culprit_has_the_names_of_its_frame() {
        let frame: Frame = serde_json::from_str(r#"{"function": "work", "module": "/bin/x"}"#).unwrap();
        let culprit: Culprit =
            serde_json::from_str(r#"{"function": "work", "line": 3, "frame": 1}"#).unwrap();
        assert!(Arc::ptr_eq(
            frame.function.as_ref().unwrap(),
            culprit.function.as_ref().unwrap()
        ));
        assert_eq!(
            culprit,
            Culprit {
                function: Some("work".into()),
                line: Some(3),
                frame: Some(1),
                ..Culprit::default()
            }
        );
        forget();
    }
}
