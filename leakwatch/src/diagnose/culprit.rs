//! The blamed frame of a stack.

use crate::symbolize::SymbolizedFrame;

/// The innermost frame that is not allocator, runtime or loader.
#[must_use]
pub fn culprit(frames: &[SymbolizedFrame]) -> Option<usize> {
    frames.iter().position(|frame| {
        !frame
            .function
            .as_deref()
            .is_some_and(|name| matches!(name, "malloc" | "brk" | "mmap" | "mprotect"))
    })
}

/// A short name: the function, else module+offset.
#[must_use]
pub fn frame_label(frame: &SymbolizedFrame) -> String {
    match (&frame.function, &frame.module) {
        (Some(function), _) => function.to_string(),
        (None, Some(module)) => format!(
            "{}+{:#x}",
            module.rsplit('/').next().unwrap_or(module),
            frame.offset
        ),
        (None, None) => format!("{:#x}", frame.offset),
    }
}
