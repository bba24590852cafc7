//! Frames, each in memory once: the stacks of a recording part near their ends, so most of their frames are in many of them.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Address, names};

// Read back by [`names`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Frame {
    /// In the process; only for code outside every module.
    pub address: Option<Address>,
    pub module: Option<Arc<str>>,
    pub build_id: Option<Arc<str>>,
    /// ELF virtual address in the module.
    pub offset: Option<Address>,
    pub function: Option<Arc<str>>,
    /// Where the function begins, counted as `offset` is. Only without a name, and null where unwind information does
    /// not tell.
    pub function_start: Option<Address>,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
    #[serde(default)]
    pub inlined: bool,
}

/// A frame that other stacks may have too. Written as the frame itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SharedFrame(Arc<Frame>);

impl From<Frame> for SharedFrame {
    fn from(frame: Frame) -> Self {
        Self(Arc::new(frame))
    }
}

impl Deref for SharedFrame {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.0
    }
}

/// Only a test changes a frame of a recording: the one that it has, and not those of other stacks.
#[cfg(test)]
impl std::ops::DerefMut for SharedFrame {
    fn deref_mut(&mut self) -> &mut Frame {
        Arc::make_mut(&mut self.0)
    }
}

impl Borrow<Frame> for SharedFrame {
    fn borrow(&self) -> &Frame {
        self
    }
}

impl<'de> Deserialize<'de> for SharedFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Frame::deserialize(deserializer).map(names::frame)
    }
}

/// The frames that were met.
#[derive(Debug, Default)]
pub struct Frames(HashSet<SharedFrame>);

impl Frames {
    /// The one that is equal, which was met before, else this one.
    pub fn share(&mut self, frame: Frame) -> SharedFrame {
        if let Some(known) = self.0.get(&frame) {
            return known.clone();
        }
        let frame = SharedFrame::from(frame);
        self.0.insert(frame.clone());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(left: &SharedFrame, right: &SharedFrame) -> bool {
        std::ptr::eq(&raw const **left, &raw const **right)
    }

    fn work(line: u32) -> Frame {
        Frame {
            function: Some("work".into()),
            line: Some(line),
            ..Frame::default()
        }
    }

    #[test]
    fn equal_frames_are_one() {
        let mut frames = Frames::default();
        let [first, again, other] = [3, 3, 4].map(|line| frames.share(work(line)));
        assert!(one(&first, &again) && !one(&first, &other));
        assert_eq!((&*again, &*other), (&work(3), &work(4)));
    }

    #[test]
    fn frames_read_back_are_one_until_they_are_forgotten() {
        let text = r#"[{"function": "work", "line": 3}, {"line": 3, "function": "work", "inlined": false}, {"line": 3}]"#;
        let read = || serde_json::from_str::<Vec<SharedFrame>>(text).unwrap();
        let frames = read();
        assert!(one(&frames[0], &frames[1]) && !one(&frames[0], &frames[2]));
        assert_eq!(*frames[1], work(3));
        assert!(one(&frames[0], &read()[0]));
        // Two here, and one where they are remembered.
        assert_eq!(Arc::strong_count(&frames[0].0), 3);
        names::forget();
        assert_eq!(Arc::strong_count(&frames[0].0), 2);
        assert!(!one(&frames[0], &read()[0]));
        names::forget();
    }

    #[test]
    fn a_shared_frame_is_written_as_the_frame() {
        let frame = work(3);
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::to_string(&SharedFrame::from(frame)).unwrap(), text);
    }

    #[test]
    fn what_is_changed_is_no_other_stacks() {
        let first = SharedFrame::from(work(3));
        let mut changed = first.clone();
        changed.line = Some(4);
        assert_eq!((first.line, changed.line), (Some(3), Some(4)));
    }
}
