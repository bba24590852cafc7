//! What a recording says on stderr while it runs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printable::printable;
use crate::session::Progress;

/// One line on stderr that is kept current on a terminal, and nothing but notes elsewhere.
pub struct ProgressLine {
    bar: ProgressBar,
    total: Duration,
}

impl ProgressLine {
    #[must_use]
    pub fn new(total: Duration) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("attaching");
        bar.tick();
        Self { bar, total }
    }
}

impl Progress for ProgressLine {
    fn attached(&mut self, took: Duration) {
        self.note(&format!("attached in {} ms", took.as_millis()));
        self.bar.set_message(line(Duration::ZERO, self.total, 0, None));
        self.bar.tick();
    }

    fn tick(&mut self, elapsed: Duration, events: u64, growth_bytes: Option<i64>) {
        self.bar
            .set_message(line(elapsed, self.total, events, growth_bytes));
        self.bar.tick();
    }

    fn note(&mut self, line: &str) {
        let line = printable(line);
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "leakwatch: {line}");
        });
    }

    fn done(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for ProgressLine {
    /// An error must not be printed into the middle of the line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(elapsed: Duration, total: Duration, events: u64, growth_bytes: Option<i64>) -> String {
    let growth = growth_bytes.map_or_else(|| "not measured".to_owned(), signed_size);
    format!(
        "{} of {}, {events} events, growth so far {growth} (Ctrl-C ends the window)",
        clock(elapsed),
        clock(total)
    )
}

/// Whole seconds below two minutes, else `H:MM:SS` or `M:SS`.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        _ if seconds < 120 => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Bytes with a sign, in the largest unit that leaves a whole number before the point.
fn signed_size(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    let size = bytes.unsigned_abs();
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if size >> shift > 0 {
            let tenths = (size >> (shift - 10)) * 10 / 1024;
            return format!("{sign}{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{sign}{size} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_time_events_and_growth() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line(seconds(7), seconds(60), 1234, Some(3 * 1024 * 1024 / 2)),
            "7 s of 60 s, 1234 events, growth so far +1.5 MiB (Ctrl-C ends the window)"
        );
        assert!(line(seconds(1), seconds(2), 0, None).contains("not measured"));
        assert_eq!(clock(seconds(119)), "119 s");
        assert_eq!(clock(seconds(125)), "2:05");
        assert_eq!(clock(seconds(7 * 24 * 3600)), "168:00:00");
    }

    #[test]
    fn sizes_keep_their_sign_and_never_overflow() {
        assert_eq!(signed_size(0), "+0 B");
        assert_eq!(signed_size(-1536), "-1.5 KiB");
        assert_eq!(signed_size(1 << 30), "+1.0 GiB");
        assert_eq!(signed_size(i64::MIN), "-8589934592.0 GiB");
        assert_eq!(signed_size(i64::MAX), "+8589934591.9 GiB");
    }
}
