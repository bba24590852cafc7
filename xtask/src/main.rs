//! The project's own commands: `cargo xtask test`, `demo`, `bench`, `ebpf`, `dist`, `ci`.

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod dist;
mod ebpf;
mod glibcs;
mod live;
mod requirements;
mod run;
mod test;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "The project's own commands",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that must pass: format, lints, unit tests, live tests, documentation, the eBPF object.
    Test(test::Arguments),
    /// Build leakwatch and let it record its own leaky service for a few seconds.
    Demo(demo::Arguments),
    /// Measure what leakwatch and its peers cost a traced program, as ratios to the same program untraced.
    Bench(bench::Arguments),
    /// Build the eBPF object from source, or check the committed one.
    Ebpf(ebpf::Args),
    /// Make a static binary and a Debian package.
    Dist(dist::Arguments),
    /// Run what CI runs: .ci/run.
    Ci,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Ebpf(arguments) => ebpf::run(&run::workspace(), arguments),
        Task::Ci => run::run(&mut Command::new(run::workspace().join(".ci/run"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
