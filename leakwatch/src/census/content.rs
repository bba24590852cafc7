//! What is in a block, told without keeping any of it. Pure.

/// What the bytes of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Zero,
    Text,
    Other,
}

/// Of the usable bytes of a block.
#[must_use]
pub fn content(body: &[u8]) -> Content {
    if body.iter().all(|byte| *byte == 0) {
        Content::Zero
    } else {
        Content::Other
    }
}
