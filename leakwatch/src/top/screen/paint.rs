//! Text into cells, within bounds: what is shown was escaped, and is cut by its width.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Sparkline, Widget as _};
use unicode_width::UnicodeWidthStr as _;

use crate::report::escape::fit;

/// What stands for what was cut out.
const CUT: &str = "…";

/// With colours, or by weight alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    pub colour: bool,
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    Strong,
    Faint,
    /// A heading of columns.
    Heading,
    Selected,
    Good,
    Warning,
    Bad,
    Accent,
}

impl Theme {
    fn style(self, look: Look) -> Style {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let coloured = |style: Style, colour| if self.colour { style.fg(colour) } else { style };
        match look {
            Look::Plain => plain,
            Look::Strong => bold,
            Look::Faint => plain.add_modifier(Modifier::DIM),
            Look::Heading => plain.add_modifier(Modifier::UNDERLINED),
            Look::Selected => plain.add_modifier(Modifier::REVERSED),
            Look::Good => coloured(bold, Color::Green),
            Look::Warning => coloured(bold, Color::Yellow),
            Look::Bad => coloured(bold, Color::Red),
            Look::Accent => coloured(plain, Color::Cyan),
        }
    }
}

/// Puts text into a buffer. Nothing is put outside of it.
pub struct Painter<'a> {
    theme: Theme,
    buffer: &'a mut Buffer,
}

impl<'a> Painter<'a> {
    pub fn new(theme: Theme, buffer: &'a mut Buffer) -> Self {
        Self { theme, buffer }
    }

    /// Text at the left of row `row` of `area`, from column `from` on, escaped and cut in its middle to `columns`; the
    /// column after it.
    pub fn text(&mut self, area: Rect, (from, row): (u16, u16), columns: u16, text: &str, look: Look) -> u16 {
        let columns = columns.min(area.width.saturating_sub(from));
        if row >= area.height || columns == 0 {
            return from;
        }
        let shown = fit(text, usize::from(columns), CUT);
        self.exact(area, (from, row), &shown, look)
    }

    /// The same, ending at column `to`.
    pub fn right(&mut self, area: Rect, (to, row): (u16, u16), columns: u16, text: &str, look: Look) {
        let columns = columns.min(to);
        let shown = fit(text, usize::from(columns), CUT);
        let width = u16::try_from(shown.width()).unwrap_or(columns);
        self.exact(area, (to.saturating_sub(width), row), &shown, look);
    }

    /// Pieces of a line, one after the other.
    pub fn line(&mut self, area: Rect, row: u16, pieces: &[(&str, Look)]) -> u16 {
        let mut from = 0;
        for (text, look) in pieces {
            let left = area.width.saturating_sub(from);
            from = self.text(area, (from, row), left, text, *look);
        }
        from
    }

    /// What is inert and fits already.
    fn exact(&mut self, area: Rect, (from, row): (u16, u16), text: &str, look: Look) -> u16 {
        let inside = area.intersection(self.buffer.area);
        let (x, y) = (area.x.saturating_add(from), area.y.saturating_add(row));
        if row >= inside.height || from >= inside.width {
            return from;
        }
        let room = usize::from(inside.width - from);
        let (end, _) = self.buffer.set_stringn(x, y, text, room, self.theme.style(look));
        end.saturating_sub(area.x)
    }

    /// Looks of a whole row.
    pub fn row(&mut self, area: Rect, row: u16, look: Look) {
        if row < area.height {
            let whole = Rect {
                y: area.y + row,
                height: 1,
                ..area
            };
            self.buffer
                .set_style(whole.intersection(self.buffer.area), self.theme.style(look));
        }
    }

    /// Bars as high as the largest value.
    pub fn bars(&mut self, area: Rect, values: &[u64], look: Look) {
        let area = area.intersection(self.buffer.area);
        if area.is_empty() {
            return;
        }
        Sparkline::default()
            .data(values.iter().copied())
            .style(self.theme.style(look))
            .render(area, self.buffer);
    }

    /// A frame with nothing in it, as large as asked for where there is room, in the middle. What is inside of it.
    pub fn window(&mut self, area: Rect, (columns, rows): (u16, u16), title: &str) -> Rect {
        let width = columns.saturating_add(4).min(area.width);
        let height = rows.saturating_add(2).min(area.height);
        let window = Rect {
            x: area.x + (area.width - width) / 2,
            y: area.y + (area.height - height) / 2,
            width,
            height,
        };
        for row in 0..height {
            self.exact(window, (0, row), &" ".repeat(usize::from(width)), Look::Plain);
            let whole = Rect {
                y: window.y + row,
                height: 1,
                ..window
            };
            self.buffer
                .set_style(whole.intersection(self.buffer.area), Style::reset());
        }
        if width < 4 || height < 3 {
            return window;
        }
        let line = "─".repeat(usize::from(width - 2));
        self.exact(window, (0, 0), &format!("┌{line}┐"), Look::Plain);
        self.exact(window, (0, height - 1), &format!("└{line}┘"), Look::Plain);
        for row in 1..height - 1 {
            self.exact(window, (0, row), "│", Look::Plain);
            self.exact(window, (width - 1, row), "│", Look::Plain);
        }
        self.text(window, (2, 0), width - 4, &format!(" {title} "), Look::Strong);
        Rect {
            x: window.x + 2,
            y: window.y + 1,
            width: width - 4,
            height: height - 2,
        }
    }
}

/// More words are not shown on any screen.
const WORDS_MOST: usize = 256;

/// Words into so many lines at most, of so many columns, the first of which has `first`; what is too much is left to be
/// cut off the last.
pub fn wrapped(text: &str, first: usize, columns: usize, lines: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut words = text.split_whitespace().take(WORDS_MOST);
    while let Some(word) = words.next() {
        let full = out.len() >= lines;
        let columns = if out.len() <= 1 { first } else { columns };
        match out.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) if full => {
                for word in std::iter::once(word).chain(words.by_ref()) {
                    line.push(' ');
                    line.push_str(word);
                }
            }
            _ => out.push(word.to_owned()),
        }
    }
    out
}
