//! The command line.

use std::process::ExitCode;

/// Parses the arguments, runs the command, turns its outcome into an exit status.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
