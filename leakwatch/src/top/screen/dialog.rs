//! Questions, and the keys at the foot.

use ratatui::layout::Rect;

use super::super::state::{Mode, State};
use super::paint::{Look, Painter};

const KEYS: &[(&str, &str)] = &[
    ("q", "quit"),
    ("?", "help"),
    ("/", "filter"),
    ("s", "sort"),
    ("p", "pause"),
    ("Enter", "stack"),
    ("Tab", "pane"),
    ("w", "write"),
    ("r", "reverse"),
];

pub fn footer(state: &State, area: Rect, painter: &mut Painter<'_>) {
    if area.is_empty() {
        return;
    }
    let keys: &[(&str, &str)] = match &state.mode {
        Mode::Filter { .. } => &[("Enter", "keep"), ("Esc", "as before")],
        Mode::Save { .. } => &[("Enter", "this name"), ("Esc", "not")],
        Mode::Quit => &[("Enter", "quit"), ("s", "save and quit"), ("Esc", "go on")],
        Mode::Help { .. } => &[("Esc", "close")],
        Mode::Browse => KEYS,
    };
    let note = state.save.as_ref().map(|save| format!("writes {save}"));
    // A path of any length leaves half of the keys.
    let reserved = note
        .as_ref()
        .map_or(0, |note| u16::try_from(note.len() + 1).unwrap_or(u16::MAX));
    let room = area.width - reserved.min(area.width / 2);
    let mut at = 0;
    for (key, what) in keys {
        let width = u16::try_from(key.len() + what.len() + 3).unwrap_or(u16::MAX);
        if at + width > room {
            break;
        }
        at = painter.text(area, (at, 0), width, key, Look::Strong);
        at = painter.text(area, (at + 1, 0), width, what, Look::Faint) + 2;
    }
    if let Some(note) = note {
        let left = area.width.saturating_sub(at);
        painter.right(area, (area.width, 0), left, &note, Look::Accent);
    }
}

pub fn quit(state: &State, area: Rect, painter: &mut Painter<'_>) {
    let what = if state.ended.is_some() {
        "Print the report?"
    } else {
        "End the recording and print the report?"
    };
    let save = match &state.save {
        Some(name) => format!("It will be written to {name}."),
        None => "Enter or q: yes   s: save it to a file too   Esc: go on".to_owned(),
    };
    let inside = painter.window(area, (58, 2), "quit");
    painter.line(inside, 0, &[(what, Look::Plain)]);
    painter.line(inside, 1, &[(&save, Look::Plain)]);
}

pub fn save(name: &str, problem: Option<&str>, area: Rect, painter: &mut Painter<'_>) {
    let inside = painter.window(area, (70, 3), "write the recording at the end");
    let at = painter.line(inside, 0, &[("file: ", Look::Plain)]);
    let left = inside.width.saturating_sub(at);
    painter.text(inside, (at, 0), left, &format!("{name}_"), Look::Strong);
    match problem {
        Some(problem) => painter.line(inside, 1, &[(problem, Look::Bad)]),
        None => painter.line(
            inside,
            1,
            &[(
                ".json can be read again; a file that is there is not replaced",
                Look::Faint,
            )],
        ),
    };
    painter.line(inside, 2, &[("Enter: this name   Esc: not", Look::Faint)]);
}
