//! How leakwatch ends: statuses, and the one line that an error is.

use std::process::ExitCode;

use super::printable::printable;

/// The exit statuses, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Done = 0,
    Error = 1,
    Usage = 2,
    /// What was looked for was found, where it was asked for: a leak (`--fail-on-leak`), an alert (`--fail-on-alert`).
    Found = 3,
    /// The verdict excludes none: it is inconclusive, or memory grows and may go on; likewise.
    Inconclusive = 4,
}

impl ExitStatus {
    /// Of a recording's verdict, for who wants to know of a leak by the status. A word that is not known excludes nothing.
    pub fn of_verdict(kind: Option<&str>) -> Self {
        match kind {
            Some("leak") => Self::Found,
            Some("plateau" | "retention" | "churn" | "flat") => Self::Done,
            _ => Self::Inconclusive,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::verdict::Kind;

    #[test]
    fn what_excludes_no_leak_is_not_done() {
        let status = |kind: Kind| ExitStatus::of_verdict(Some(kind.name())) as u8;
        assert_eq!(status(Kind::Leak), 3);
        for kind in [Kind::Growth, Kind::Inconclusive] {
            assert_eq!(status(kind), 4, "{kind:?}");
        }
        for kind in [Kind::Plateau, Kind::Retention, Kind::Churn, Kind::Flat] {
            assert_eq!(status(kind), 0, "{kind:?}");
        }
        assert_eq!(ExitStatus::of_verdict(None) as u8, 4);
        assert_eq!(ExitStatus::of_verdict(Some("of a later version")) as u8, 4);
    }
}
