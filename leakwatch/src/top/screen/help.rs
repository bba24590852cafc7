//! What the keys do and what the columns mean.

use ratatui::layout::Rect;

use super::paint::{Look, Painter};

const HELP: &[(&str, &str)] = &[
    ("Up Down j k", "the call site before, the next"),
    ("PgUp PgDn Home End", "a page; the first, the last"),
    ("Enter", "the pane with its stack: open, close"),
    ("Tab", "move in the list, or in the stack"),
    ("/", "show only sites with this in a name"),
    ("s  r", "sort by the next column; the other way round"),
    ("p Space", "the screen stands still, the recording goes on"),
    ("w", "write the recording to a file at the end"),
    ("q Esc Ctrl-C", "end the recording and print the report"),
    ("", ""),
    ("SURVIVING", "blocks in use at the latest check, reckoned up"),
    ("", "to all that were born: who keeps the heap"),
    ("PAGES", "first touched by it and not given up: in a heap,"),
    ("", "who extended it, and that may be a victim"),
    ("MAPPED", "address space asked for and not given up"),
    ("KEPT", "of what it touched: near 100 % stays, near 0 % is"),
    ("", "churn"),
    ("=>", "the frame to blame: the innermost that is neither"),
    ("", "allocator nor library routine"),
    (
        "so far, by sizes",
        "without the heap and the call sites; the report",
    ),
    ("", "at the end has both"),
];
const KEYS: u16 = 20;
const COLUMNS: u16 = 72;

pub fn draw(from: usize, area: Rect, painter: &mut Painter<'_>) {
    let rows = u16::try_from(HELP.len()).unwrap_or(u16::MAX);
    let inside = painter.window(area, (COLUMNS, rows), "help: Esc closes");
    let most = HELP.len().saturating_sub(usize::from(inside.height));
    for (row, (keys, text)) in (0..inside.height).zip(HELP.iter().skip(from.min(most))) {
        painter.text(inside, (0, row), KEYS - 1, keys, Look::Strong);
        let left = inside.width.saturating_sub(KEYS);
        painter.text(inside, (KEYS, row), left, text, Look::Plain);
    }
}
