//! The options of `top`.

use std::time::Duration;

use clap::Args;

use super::args::{EXIT_STATUSES, GroupByArgument, OutputArguments, SelectorArguments};
use super::values;
use super::watching_args::WatchingArguments;

/// Watch a process live, in the terminal, until you quit
///
/// The same recording as that of `record`, shown while it goes on: the verdict so far, memory over time, and the call
/// sites that hold what was added, ranked anew each second, with the stack of the selected one. When you quit (q) the
/// report is printed, as `record` does; w or the question at the end writes the recording to a file. The recording also ends
/// when the process exits or replaces its image: that is shown, and the screen stays until you quit.
///
/// While it goes on the ranking is by pages: it names who extended the heap, which may be a victim. For a process on
/// glibc's malloc, SURVIVING tells whose blocks were still in use at the latest check; the heap itself is read at the end
/// only, and decides. The screen costs a hundredth of the time at most: it is drawn more rarely where that takes longer.
///
/// Needs a terminal, and root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE: `leakwatch doctor` tells what is missing.
/// Without a terminal: `leakwatch record`. Keys: ? in the terminal.
///
/// Example: leakwatch top --pid 4242
///
/// Example: leakwatch top --name redis-server --duration 10m -o leak.json
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUSES)]
pub struct TopArguments {
    #[command(flatten)]
    pub selector: SelectorArguments,

    /// End by itself after so long
    ///
    /// Without it you say when. What reading the heap and smaps may cost is then measured by half a minute, or by what it has
    /// come to. A bare number is seconds; at most 7 days. Example: --duration 10m
    #[arg(
        short,
        long,
        value_name = "DURATION",
        value_parser = values::duration,
        allow_hyphen_values = true
    )]
    pub duration: Option<Duration>,

    #[command(flatten)]
    pub output: OutputArguments,

    /// How many call sites to show in the printed report
    ///
    /// On the screen there are as many as fit. Example: --top 25
    #[arg(
        long,
        value_name = "N",
        default_value = "10",
        value_parser = values::rows,
        env = "LEAKWATCH_TOP",
        hide_env_values = true
    )]
    pub top: usize,

    /// What makes two stacks one row
    ///
    /// On the screen and in the report. A function that is called from many places fills the ranking with rows by stack; by
    /// function it is one, by module each library is one. Example: --group-by function
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t = GroupByArgument::Stack,
        env = "LEAKWATCH_GROUP_BY",
        hide_env_values = true
    )]
    pub group_by: GroupByArgument,

    #[command(flatten)]
    pub watching: WatchingArguments,
}
