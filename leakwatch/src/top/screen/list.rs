//! The ranking.

use ratatui::layout::Rect;

use super::super::order::Sort;
use super::super::state::{Mode, State};
use super::super::view::{Row, View};
use super::paint::{Look, Painter};
use crate::diagnose::figures;

/// A column at the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Surviving,
    Held,
    Share,
    Rate,
    Kept,
    Events,
    Module,
    Seen,
}

/// In the order in which they come as there is room, with their widths, and what the name must have left then.
const COLUMNS: [(Column, u16, u16); 8] = [
    (Column::Held, 11, 16),
    (Column::Surviving, 11, 20),
    (Column::Share, 6, 20),
    (Column::Rate, 13, 24),
    (Column::Kept, 6, 28),
    (Column::Events, 9, 36),
    (Column::Module, 25, 40),
    (Column::Seen, 10, 40),
];
/// As they stand.
const PLACES: [Column; 8] = [
    Column::Module,
    Column::Surviving,
    Column::Held,
    Column::Share,
    Column::Kept,
    Column::Rate,
    Column::Events,
    Column::Seen,
];
fn columns(width: u16, view: &View) -> Vec<(Column, u16)> {
    let mut left = width;
    let mut taken = Vec::new();
    for (column, width, name) in COLUMNS {
        if column == Column::Surviving && !view.births.watched {
            continue;
        }
        if left < width + name {
            break;
        }
        left -= width;
        taken.push((column, width));
    }
    taken.sort_by_key(|(column, _)| PLACES.iter().position(|place| place == column));
    taken
}

pub fn draw(state: &State, area: Rect, painter: &mut Painter<'_>) {
    if area.is_empty() || !state.has_view() {
        return;
    }
    let columns = columns(area.width, state.view());
    let right: u16 = columns.iter().map(|(_, width)| width).sum();
    let name = area.width - right;
    heading(state, area, name, &columns, painter);
    let rows: Vec<&Row> = state.rows().collect();
    if rows.is_empty() {
        painter.line(area, 1, &[(nothing(state), Look::Faint)]);
        return;
    }
    let selected = state.selected_index();
    for (row, at) in (1..area.height).zip(state.list_from..) {
        let Some(shown) = rows.get(at) else { break };
        let is_selected = selected == Some(at);
        let mark = if is_selected { "> " } else { "  " };
        let from = painter.line(area, row, &[(mark, Look::Plain)]);
        painter.text(
            area,
            (from, row),
            name.saturating_sub(3),
            &shown.label,
            Look::Plain,
        );
        let mut to = name;
        for (column, width) in &columns {
            to += width;
            let text = cell(*column, shown, state.view(), state.sort());
            painter.right(area, (to, row), width - 1, &text, Look::Plain);
        }
        if is_selected {
            painter.row(area, row, Look::Selected);
        }
    }
}

fn nothing(state: &State) -> &'static str {
    if state.filter.is_empty() {
        "nothing that was added is held yet"
    } else {
        "no call site has this in a name (Esc takes the filter away)"
    }
}

fn heading(state: &State, area: Rect, name: u16, columns: &[(Column, u16)], painter: &mut Painter<'_>) {
    let view = state.view();
    let filter = match (&state.mode, state.filter.as_str()) {
        (Mode::Filter { .. }, filter) => format!("  /{filter}_"),
        (_, "") => String::new(),
        (_, filter) => format!("  /{filter}"),
    };
    let named: u64 = view.rows.iter().map(|row| row.stacks.len() as u64).sum();
    let more = match view.holding.saturating_sub(named) {
        0 => String::new(),
        smaller => format!(", {smaller} smaller"),
    };
    let mark = if state.reversed { "▲" } else { "▼" };
    let sorted = sorted_by(state.sort());
    let by = match sorted {
        Some(column) if columns.iter().any(|(shown, _)| *shown == column) => String::new(),
        Some(_) => format!(" by {}{mark}", state.sort().name()),
        None => mark.to_owned(),
    };
    // What is being typed is more than how many there are.
    let title = if filter.is_empty() {
        format!("CALL SITE{by} {}{more}", state.rows().len())
    } else {
        format!("CALL SITE{by}{filter}")
    };
    painter.row(area, 0, Look::Heading);
    painter.text(area, (0, 0), name.saturating_sub(1), &title, Look::Heading);
    let mut to = name;
    for (column, width) in columns {
        to += width;
        let mark = if sorted == Some(*column) { mark } else { "" };
        let title = format!("{}{mark}", title_of(*column, view));
        painter.right(area, (to, 0), width - 1, &title, Look::Heading);
    }
}

/// The column that shows what is sorted by; `None`: the name.
const fn sorted_by(sort: Sort) -> Option<Column> {
    match sort {
        Sort::Surviving => Some(Column::Surviving),
        Sort::Held => Some(Column::Held),
        Sort::Rate => Some(Column::Rate),
        Sort::Kept => Some(Column::Kept),
        Sort::Recent => Some(Column::Seen),
        Sort::Name => None,
    }
}

fn title_of(column: Column, view: &View) -> &'static str {
    match column {
        Column::Surviving => "SURVIVING",
        Column::Held if view.by_pages => "PAGES",
        Column::Held => "MAPPED",
        Column::Share => "SHARE",
        Column::Rate => "RATE",
        Column::Kept => "KEPT",
        Column::Events if view.by_pages => "FAULTS",
        Column::Events => "CALLS",
        Column::Module => "MODULE",
        Column::Seen => "SEEN",
    }
}

fn cell(column: Column, row: &Row, view: &View, sort: Sort) -> String {
    let unknown = || "-".to_owned();
    match column {
        Column::Surviving => row
            .surviving
            .map_or_else(unknown, |(bytes, _)| format!("~{}", figures::bytes(bytes))),
        Column::Held if row.bytes == 0 => unknown(),
        Column::Held => figures::bytes(row.bytes),
        Column::Share => {
            let (part, all) = if sort == Sort::Surviving {
                (row.surviving_bytes(), view.surviving_bytes)
            } else {
                (row.bytes, view.held_bytes)
            };
            if all == 0 {
                unknown()
            } else {
                figures::whole_percent(part as f64 / all as f64)
            }
        }
        Column::Rate => row.rate.map_or_else(unknown, figures::per_second),
        Column::Kept => row.kept().map_or_else(unknown, figures::whole_percent),
        Column::Events => row.events.to_string(),
        Column::Module => row.module.to_string(),
        Column::Seen => {
            let ago = (view.elapsed - row.last_seen).max(0.0);
            if ago < 2.0 {
                "now".to_owned()
            } else {
                let ago = figures::duration(ago.floor());
                let mut words = ago.split(' ');
                let (count, unit) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                format!("{count} {unit} ago")
            }
        }
    }
}
