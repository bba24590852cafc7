//! What is asked of a comparison.

use std::path::PathBuf;

use clap::Args;

use super::args::EXIT_STATUSES;
use super::values;

/// Tell what changed between two recordings
///
/// Call sites are matched by where they are in the same builds, else by the names of their functions; the report says
/// which. It tells what appeared, grew, shrank and went, by bytes per second of each window: windows may differ in length.
/// Needs neither root nor the process.
///
/// Example: leakwatch diff monday.json friday.json -o change.html
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct DiffArguments {
    /// The earlier recording: a .json that `record -o` wrote
    pub before: PathBuf,

    /// The later one
    pub after: PathBuf,

    /// Also write the comparison to a file, in the format of its ending
    ///
    /// .json has every figure; .html is a page for a browser; .txt the text as printed; .svg a flame graph of the growth
    /// after, red where it grew and blue where it shrank; .folded one stack a line with two figures, in bytes per hour;
    /// .pb.gz a profile for pprof, above 0 what grew and below 0 what shrank; .csv a line for each call site. May be given
    /// several times. Example: -o change.html -o change.svg
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,

    /// Say more: whole stacks, what each figure rests on, which files were rebuilt
    ///
    /// The text is cut to what answers the question first; this is the rest of it. Example: -v
    #[arg(short, long)]
    pub verbose: bool,

    /// How many call sites to show
    ///
    /// The files hold all of them; this is for the printed text. Example: --top 25
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// Leave out call sites that keep less than this in both
    ///
    /// They stay in the totals. Example: --min-bytes 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "0",
        value_parser = values::size,
        env = "LEAKWATCH_MIN_BYTES",
        hide_env_values = true
    )]
    pub min_bytes: u64,
}
