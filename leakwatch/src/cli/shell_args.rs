//! What a shell and a reader of manuals ask for.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::args::EXIT_STATUSES;

/// Print what a shell completes the command line with
///
/// Examples:
///   leakwatch completions bash > /etc/bash_completion.d/leakwatch
///   leakwatch completions zsh > \"${fpath[1]}/_leakwatch\"
///   leakwatch completions fish > ~/.config/fish/completions/leakwatch.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUSES)]
pub struct CompletionsArguments {
    /// Which shell
    pub shell: Shell,
}

/// Print the manual, or write its pages
///
/// The page of leakwatch itself, or of one of its commands, as man(7) reads it.
///
/// Examples:
///   leakwatch man | man -l -
///   leakwatch man record | man -l -
///   leakwatch man --dir /usr/local/share/man/man1
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = EXIT_STATUSES)]
pub struct ManArguments {
    /// The command whose page it is
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,

    /// Write all pages into this folder instead
    ///
    /// As leakwatch.1, leakwatch-record.1 and so on. Those that are there are replaced. Example: --dir man1
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}
