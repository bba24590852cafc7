//! Lines, tables and figures of the text report.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::Options;
use crate::report::escape;

pub use crate::diagnose::figures::{
    amount, bytes, duration, per_second, reckoned, reckoned_range, seconds, signed, whole_percent,
};

pub const PLAIN: Style = Style::new();
pub const STRONG: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const HEADING: Style = AnsiColor::Cyan.on_default().bold();
pub const BLAMED: Style = AnsiColor::Red.on_default().bold();

/// The text as it grows, and what every line must keep to.
pub struct Page {
    out: String,
    pub width: usize,
    /// The option that tells more.
    pub more: &'static str,
    colour: bool,
    unicode: bool,
}

impl Page {
    pub fn new(options: &Options) -> Self {
        Self {
            out: String::new(),
            width: options.width.clamp(80, 400),
            more: "-v",
            colour: options.colour,
            unicode: options.unicode,
        }
    }

    pub fn finish(self) -> String {
        self.out
    }

    pub fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    pub fn plus_minus(&self) -> &'static str {
        if self.unicode { "±" } else { "+/-" }
    }

    /// What bars are made of: what counts, and the rest.
    pub fn bar_marks(&self) -> (&'static str, &'static str) {
        if self.unicode { ("█", "░") } else { ("#", ".") }
    }

    /// Text of the target, made inert, at most `columns` wide.
    pub fn fit(&self, text: &str, columns: usize) -> String {
        let fitted = escape::fit(text, columns, self.ellipsis());
        if self.unicode || fitted.is_ascii() {
            return fitted;
        }
        // A terminal without UTF-8 would show bytes.
        let ascii: String = fitted
            .chars()
            .map(|character| if character.is_ascii() { character } else { '?' })
            .collect();
        escape::fit(&ascii, columns, self.ellipsis())
    }

    /// A blank line and a heading, with a remark beside it.
    pub fn heading(&mut self, title: &str, remark: &str) {
        self.out.push('\n');
        let title = self.paint(HEADING, title);
        let line = if remark.is_empty() {
            title
        } else {
            format!("{title}  {}", self.paint(DIM, remark))
        };
        self.line(&line);
    }

    /// A line that is known to fit.
    pub fn line(&mut self, text: &str) {
        self.out.push_str(text.trim_end());
        self.out.push('\n');
    }

    /// Words wrapped to the width, all lines indented by `indent`.
    pub fn paragraph(&mut self, indent: usize, text: &str, style: Style) {
        for line in self.wrapped(indent, text) {
            self.indented(indent, &line, style);
        }
    }

    /// The same behind a mark of one column.
    pub fn item(&mut self, indent: usize, mark: &str, text: &str) {
        let beside = indent + 2;
        for (index, line) in self.wrapped(beside, text).into_iter().enumerate() {
            if index == 0 {
                self.line(&format!("{}{mark} {line}", " ".repeat(indent)));
            } else {
                self.indented(beside, &line, PLAIN);
            }
        }
    }

    fn wrapped(&self, indent: usize, text: &str) -> Vec<String> {
        let room = self.width.saturating_sub(indent).max(20);
        let mut lines = Vec::new();
        let mut line = String::new();
        for word in words(text) {
            let word = escape::fit(word, room, self.ellipsis());
            if !line.is_empty() && line.width() + 1 + word.width() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }

    fn indented(&mut self, indent: usize, line: &str, style: Style) {
        let line = format!("{}{}", " ".repeat(indent), self.paint(style, line));
        self.line(&line);
    }

    pub fn paint(&self, style: Style, text: &str) -> String {
        if self.colour && style != PLAIN && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// What a line does not break: words, and a figure with its unit.
fn words(text: &str) -> impl Iterator<Item = &str> {
    const UNITS: [&str; 10] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "s", "ms", "%"];
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        let word = rest.split(' ').next().unwrap_or_default();
        let mut end = word.len();
        if word.ends_with(|last: char| last.is_ascii_digit()) {
            let after = rest.get(end..).unwrap_or_default().trim_start_matches(' ');
            let unit = after.split(' ').next().unwrap_or_default();
            let figure_and_unit = rest.len() - after.len() + unit.len();
            if UNITS.contains(&unit.trim_end_matches([',', ';', '.', ':', ')'])) {
                end = figure_and_unit;
            }
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Fills up with blanks on the right, by display width.
pub fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// Fills up with blanks on the left.
pub fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(text.width())))
}

/// `536 B`: to the byte, as long as that is not wider than other figures.
pub fn exact_bytes(size: u64) -> String {
    if size < 100_000_000 {
        format!("{size} B")
    } else {
        bytes(size)
    }
}

/// How many: all digits below ten millions.
pub fn count(count: u64) -> String {
    if count < 10_000_000 {
        return count.to_string();
    }
    let mut value = count as f64;
    let mut shown = "";
    for unit in ["M", "G", "T", "P", "E"] {
        value /= if shown.is_empty() { 1e6 } else { 1e3 };
        shown = unit;
        // 999.95 and more would be shown as 1000.0.
        if value < 999.95 {
            break;
        }
    }
    format!("{value:.1} {shown}")
}

/// With its sign, `+` too.
pub fn signed_count(change: i64) -> String {
    match change {
        0 => "0".to_owned(),
        1.. => format!("+{}", count(change.unsigned_abs())),
        _ => format!("-{}", count(change.unsigned_abs())),
    }
}

/// What is not known.
pub const UNKNOWN: &str = "-";

pub fn known(figure: Option<u64>) -> String {
    figure.map_or_else(|| UNKNOWN.to_owned(), bytes)
}

pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.05 {
        "<0.1 %".to_owned()
    } else if percent > -0.05 && percent < 0.0 {
        // Not "-0.0 %".
        ">-0.1 %".to_owned()
    } else {
        format!("{percent:.1} %")
    }
}

/// Bytes that were reckoned, as whole ones; at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is only shown"
)]
pub fn rounded(bytes: f64) -> u64 {
    bytes.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_keeps_its_unit() {
        let split: Vec<&str> = words("  in 60.0 s; (96.8 %). 9 stacks  and 3 MiB, x 5").collect();
        assert_eq!(
            split,
            [
                "in",
                "60.0 s;",
                "(96.8 %).",
                "9",
                "stacks",
                "and",
                "3 MiB,",
                "x",
                "5"
            ]
        );
        assert_eq!(words("").count() + words("   ").count(), 0);
    }

    #[test]
    fn figures() {
        let shown = [
            0,
            1023,
            1024,
            1536,
            1 << 20,
            (1 << 20) - 1,
            812 << 20,
            5 << 30,
            u64::MAX,
        ]
        .map(bytes);
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1.0 MiB",
                "1.0 MiB",
                "812.0 MiB",
                "5.0 GiB",
                "16.0 EiB"
            ]
        );
        assert_eq!([-1536, 0, 1536].map(signed), ["-1.5 KiB", "0 B", "+1.5 KiB"]);
        assert_eq!([0.9667, 0.0, 1e-5].map(percent), ["96.7 %", "0.0 %", "<0.1 %"]);
        assert_eq!([-1e-5, -0.5].map(percent), [">-0.1 %", "-50.0 %"]);
        assert_eq!(
            [0.0, 1e-5, 0.985, 1.0].map(whole_percent),
            ["0 %", "<1 %", "98 %", "100 %"]
        );
        assert_eq!(
            [-2048.2, 0.0, 2048.2].map(per_second),
            ["-2.0 KiB/s", "0 B/s", "2.0 KiB/s"]
        );
        assert_eq!(
            [536, 99_999_999, 1 << 30].map(exact_bytes),
            ["536 B", "99999999 B", "1.0 GiB"]
        );
        assert_eq!(
            [0, 9_999_999, 10_000_000, 999_960_000, u64::MAX].map(count),
            ["0", "9999999", "10.0 M", "1.0 G", "18.4 E"]
        );
        assert_eq!([-7, 0, 12_345_678].map(signed_count), ["-7", "0", "+12.3 M"]);
        assert_eq!([-1.0, 1.5, f64::NAN].map(rounded), [0, 2, 0]);
        assert_eq!([seconds(0.0123), seconds(60.0)], ["12.3 ms", "60.0 s"]);
    }
}
