//! How leakwatch ends: statuses, and the one line that an error is.

use std::process::ExitCode;

use super::printable::printable;

/// The exit statuses, which scripts rely on. 4 (the verdict is inconclusive) is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Done = 0,
    Error = 1,
    Usage = 2,
    /// Done, and what was looked for was found: an alert with `--fail-on-alert`.
    Found = 3,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// The command line cannot be meant: status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The status that an error ends with.
pub fn status_of(error: &anyhow::Error) -> ExitStatus {
    if error.is::<UsageError>() {
        ExitStatus::Usage
    } else {
        ExitStatus::Error
    }
}

/// An error as one line: its causes folded in, whatever it quotes made harmless to the terminal.
pub fn line_of(error: &anyhow::Error) -> String {
    format!("leakwatch: {}", printable(&format!("{error:#}")))
}

/// clap's answer to a wrong command line, which spreads over a paragraph, as one line.
pub fn usage_line(rendered: &str) -> String {
    let mut parts = Vec::new();
    for line in rendered.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if line.is_empty() {
            continue;
        }
        // A tip stands apart from what it follows.
        if line.starts_with("tip:") {
            parts.push("-".to_owned());
        }
        parts.push(printable(line.strip_prefix("error: ").unwrap_or(line)));
    }
    format!("leakwatch: {} (see --help)", parts.join(" "))
}

/// Whether an error is only that the reader of the output has gone (`leakwatch report x.json | head`).
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
