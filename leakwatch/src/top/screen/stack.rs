//! The stack of the selected row.

use ratatui::layout::Rect;

use super::super::state::{Focus, State};
use super::super::view::{Row, RowStack};
use super::paint::{Look, Painter};
use crate::diagnose::culprit::frame_label;
use crate::diagnose::rank::Evidence;
use crate::symbolize::SymbolizedFrame;

pub fn draw(state: &State, area: Rect, painter: &mut Painter<'_>) {
    if area.is_empty() {
        return;
    }
    let Some((row, stack)) = state.selected().and_then(|row| Some((row, row.stacks.first()?))) else {
        return;
    };
    painter.row(area, 0, Look::Heading);
    let at = painter.line(area, 0, &[(&title(row, stack), Look::Heading)]);
    let hint = if state.focus == Focus::Stack {
        " arrows scroll"
    } else {
        " Tab to scroll"
    };
    let left = area.width.saturating_sub(at);
    if usize::from(left) >= hint.len() {
        painter.right(area, (area.width, 0), left, hint, Look::Heading);
    }
    let frames = &stack.named.frames;
    if frames.is_empty() {
        painter.line(area, 1, &[("no stack came with it", Look::Faint)]);
        return;
    }
    let culprit = stack.named.culprit;
    let mut line = 1;
    for (index, frame) in frames.iter().enumerate().skip(state.stack_from) {
        if line >= area.height {
            return;
        }
        let blamed = culprit == Some(index);
        draw_frame(area, line, index, frame, blamed, painter);
        line += 1;
    }
    if !stack.complete && line < area.height {
        painter.line(area, line, &[("    (it does not reach its root)", Look::Warning)]);
    }
}

fn title(row: &Row, stack: &RowStack) -> String {
    let naming = if stack.named.pending {
        ", names are being looked up"
    } else {
        ""
    };
    let more = match row.stacks.len() {
        0 | 1 => String::new(),
        stacks => format!(", the largest of {stacks}"),
    };
    let blocks = row
        .surviving
        .map(|(_, blocks)| format!(", {}/{} blocks alive", blocks.alive, blocks.followed))
        .unwrap_or_default();
    let threads = if row.threads.is_empty() {
        String::new()
    } else {
        format!(", on {}", row.threads.join(" "))
    };
    let what = match stack.evidence {
        Evidence::Survivors => "of a birth",
        Evidence::Pages => "of a first touch",
        Evidence::Mappings => "of a call",
    };
    format!(
        "STACK {what} by {}{naming}{more}{blocks}{threads}",
        stack.via.name()
    )
}

fn draw_frame(
    area: Rect,
    line: u16,
    index: usize,
    frame: &SymbolizedFrame,
    blamed: bool,
    painter: &mut Painter<'_>,
) {
    let mark = if blamed { "=>" } else { "  " };
    let look = if blamed { Look::Strong } else { Look::Plain };
    let from = painter.line(area, line, &[(&format!("{index:>3} {mark} "), look)]);
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!(" {}:{line}", super::super::naming::file_name(file)),
        (Some(file), None) => format!(" {}", super::super::naming::file_name(file)),
        _ => String::new(),
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let module = frame
        .module
        .as_deref()
        .map(|module| format!(" [{}]", super::super::naming::file_name(module)))
        .unwrap_or_default();
    let left = area.width.saturating_sub(from);
    // Where it lies matters less than what it is called.
    let rest = format!("{inlined}{place}{module}");
    let room = left.saturating_sub(left / 3);
    let after = painter.text(area, (from, line), room, &frame_label(frame), look);
    painter.text(
        area,
        (after, line),
        area.width.saturating_sub(after),
        &rest,
        Look::Faint,
    );
}
