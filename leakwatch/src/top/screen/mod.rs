//! The screen, from the state to cells: pure, whatever the size.

mod dialog;
mod header;
mod help;
mod list;
mod paint;
mod stack;

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::state::{Mode, State};
use paint::Painter;

pub use paint::Theme;

/// Heights from which there is room for more than the list.
const WITH_HEADER: u16 = 8;
const WITH_CHART: u16 = 20;
const WITH_STACK: u16 = 14;
/// Rows of the chart.
const CHART: u16 = 3;

/// Where the parts are. One without room is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub header: Rect,
    pub chart: Rect,
    /// Its first row says what the columns are.
    pub list: Rect,
    /// Its first row says whose it is.
    pub stack: Rect,
    pub footer: Rect,
}

impl Parts {
    #[must_use]
    pub fn of(area: Rect, state: &State) -> Self {
        let height = area.height;
        let header = match height {
            0..=1 => 0,
            2..WITH_HEADER => 1,
            _ => header::lines(area.width, state),
        };
        let chart = if height >= WITH_CHART { CHART } else { 0 };
        let footer = u16::from(height >= 3);
        let left = height.saturating_sub(header + chart + footer);
        let stack = if state.stack_open && height >= WITH_STACK {
            left / 2
        } else {
            0
        };
        let mut top = area.y;
        let mut next = |height: u16| {
            let part = Rect {
                y: top,
                height,
                ..area
            };
            top += height;
            part
        };
        Self {
            header: next(header),
            chart: next(chart),
            list: next(left - stack),
            stack: next(stack),
            footer: next(footer),
        }
    }

    /// Rows of the list, and lines of the stack, without their headings.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        let rows = |part: Rect| usize::from(part.height.saturating_sub(1));
        (rows(self.list), rows(self.stack))
    }
}

/// Draws all of it.
pub fn draw(state: &State, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    let mut painter = Painter::new(theme, buffer);
    let parts = Parts::of(area, state);
    header::draw(state, parts.header, &mut painter);
    header::chart(state, parts.chart, &mut painter);
    list::draw(state, parts.list, &mut painter);
    stack::draw(state, parts.stack, &mut painter);
    dialog::footer(state, parts.footer, &mut painter);
    match &state.mode {
        Mode::Help { from } => help::draw(*from, area, &mut painter),
        Mode::Quit => dialog::quit(state, area, &mut painter),
        Mode::Save { name, problem, .. } => dialog::save(name, problem.as_deref(), area, &mut painter),
        Mode::Browse | Mode::Filter { .. } => {}
    }
}
