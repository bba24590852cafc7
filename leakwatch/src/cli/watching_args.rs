//! The options of every command that attaches to a process: how it is watched, and what that may cost.

use clap::{Args, ValueEnum};

use super::values;

#[derive(Debug, Args)]
pub struct WatchingArguments {
    /// Follow the processes that it starts
    ///
    /// Without it a child's memory is left out, which for a pre-forking server is most of it. Example: --children
    #[arg(long)]
    pub children: bool,

    /// The most stack to copy per event
    ///
    /// Stacks are copied up to their real end, mostly 1 to 5 KiB; this caps deep ones. A stack that hit the cap is
    /// shown as truncated and counted: raise it then. At most 64KiB. Example: --stack-bytes 64KiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "32KiB",
        value_parser = values::stack_bytes,
        env = "LEAKWATCH_STACK_BYTES",
        hide_env_values = true
    )]
    pub stack_bytes: u32,

    /// Size of the buffer between kernel and leakwatch
    ///
    /// A power of two. It bridges the moments in which leakwatch does not get to run; events that find it full are
    /// lost, and the report counts them: raise it then. Example: --ring-bytes 256MiB
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = values::ring_bytes,
        env = "LEAKWATCH_RING_BYTES",
        hide_env_values = true
    )]
    pub ring_bytes: u32,

    /// Stack snapshots a second before fewer pages are sampled
    ///
    /// Every page of the process is watched until its page faults and mapping calls bring more snapshots than this, or
    /// they take more than 1 % of its time; then every second page, every fourth, and so on. The report gives the rate and
    /// the standard error that comes with it. Raise it to know more, at the process's cost. Example: --sample-budget 500
    #[arg(
        long,
        value_name = "N",
        default_value = "2000",
        value_parser = values::sample_budget,
        env = "LEAKWATCH_SAMPLE_BUDGET",
        hide_env_values = true
    )]
    pub sample_budget: u32,

    /// How to see which pages the process touches first
    ///
    /// Without it only the calls that extend memory tell who keeps it, and memory that was mapped before has no call
    /// site. Example: --faults never
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t = FaultsArgument::Auto,
        env = "LEAKWATCH_FAULTS",
        hide_env_values = true
    )]
    pub faults: FaultsArgument,

    /// When to read the process's heap
    ///
    /// At both ends of the window the allocator's own metadata tells what is in use and what is free but kept, and which
    /// sizes and types grew. It is read from outside, for a process on glibc's malloc. Auto does so where it is
    /// predicted to take at most 1 % of the window. Example: --census always
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t = CensusArgument::Auto,
        env = "LEAKWATCH_CENSUS",
        hide_env_values = true
    )]
    pub census: CensusArgument,

    /// When to watch births of blocks
    ///
    /// Probes on malloc and its kin tell which call sites allocate; the heap, read at the window's end, tells which of
    /// the blocks are still in use. The probes are in the process's text only for short bursts at random times, which
    /// together keep to --allocs-budget; a low rate of allocation is watched all the time. For a process on glibc's
    /// malloc whose heap is read. Example: --allocs never
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t = AllocsArgument::Auto,
        env = "LEAKWATCH_ALLOCS",
        hide_env_values = true
    )]
    pub allocs: AllocsArgument,

    /// What watching births may cost, in percent of the process's own processor time
    ///
    /// More of it sees more births, and names what leaks rarely. Example: --allocs-budget 3
    #[arg(
        long,
        value_name = "PERCENT",
        default_value = "1",
        value_parser = values::allocs_budget,
        env = "LEAKWATCH_ALLOCS_BUDGET",
        hide_env_values = true
    )]
    pub allocs_budget: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AllocsArgument {
    /// Where it is safe, within the budget
    Auto,
    /// Where it is safe: the whole window, whatever it costs
    Always,
    /// Not at all
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CensusArgument {
    /// Where it is cheap
    Auto,
    /// Whatever it takes, a minute at most
    Always,
    /// Not at all
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultsArgument {
    /// The software event, else the tracepoint
    Auto,
    /// The page-fault software event of each of its threads
    Event,
    /// The kernel's tracepoint: user-mode faults only, and dearer for every process of the host
    Tracepoint,
    /// Not at all
    Never,
}
