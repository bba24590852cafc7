//! Findings as an aligned table of 80 columns.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::{Finding, State, can_record};
use crate::cli::printable::printable;

const WIDTH: usize = 80;
const NEED_WIDTH: usize = 15;
const STATE_WIDTH: usize = 10;
const DETAIL_WIDTH: usize = WIDTH - NEED_WIDTH - STATE_WIDTH;

/// The table, and a last line on what it means. Styled: whoever prints it strips that where it is not wanted.
#[must_use]
pub fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let (word, colour) = match finding.state {
            State::Ok => ("ok", AnsiColor::Green),
            State::Degraded => ("degraded", AnsiColor::Yellow),
            State::Missing => ("missing", AnsiColor::Red),
        };
        let style = Style::new().fg_color(Some(colour.into()));
        let mut lines = wrap(&printable(&finding.detail));
        if let Some(advice) = finding.advice {
            lines.extend(wrap(&format!("-> {advice}")));
        }
        for (index, line) in lines.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = if index == 0 {
                writeln!(
                    out,
                    "{:<NEED_WIDTH$}{style}{word:<STATE_WIDTH$}{style:#}{line}",
                    finding.need
                )
            } else {
                writeln!(out, "{:indent$}{line}", "", indent = WIDTH - DETAIL_WIDTH)
            };
        }
    }
    out.push('\n');
    let degraded = findings.iter().any(|one| one.state == State::Degraded);
    out.push_str(match (can_record(findings), degraded) {
        (true, false) => "`leakwatch record` will work here.\n",
        (true, true) => "`leakwatch record` will work here, and say less where it is degraded.\n",
        (false, _) => "`leakwatch record` will not work here: see what is missing.\n",
    });
    out
}

/// Breaks text at blanks; a word that is too long for a line (a path) is broken where the line ends.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.width() + 1 + word.width() > DETAIL_WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            if line.width() + unicode_width::UnicodeWidthChar::width(letter).unwrap_or(0) > DETAIL_WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            line.push(letter);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(findings: &[Finding]) -> String {
        anstream::adapter::strip_str(&render(findings)).to_string()
    }

    #[test]
    fn a_host_where_all_is_well() {
        insta::assert_snapshot!(plain(&[
            Finding::ok("privileges", "root"),
            Finding::ok("kernel", "Linux 6.18.44 on x86_64"),
            Finding::ok("self-test", "a mapping of 1 MiB came back with 9 frames"),
        ]));
    }

    #[test]
    fn a_host_where_much_is_not() {
        let findings = [
            Finding::missing(
                "privileges",
                "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE are missing",
                "run as root (sudo leakwatch ...)",
            ),
            Finding::degraded(
                "lockdown",
                "unknown: securityfs is not mounted",
                "mount -t securityfs securityfs /sys/kernel/security",
            ),
            Finding::ok("target", format!("PID 7 (evil\x1b[2J), /{}", "x".repeat(120))),
        ];
        insta::assert_snapshot!(plain(&findings));
        assert!(!can_record(&findings));
        assert!(can_record(&findings[1..]));
        assert!(plain(&findings[1..]).contains("say less"));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let words = Finding::ok("x", "進程 ".repeat(80) + &"進".repeat(200));
        for line in plain(&[words]).lines() {
            assert!(line.width() <= WIDTH, "{line}");
        }
    }
}
