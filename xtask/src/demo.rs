//! `cargo xtask demo`: builds as whoever calls, runs as root.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::run;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// What to hand on to `leakwatch demo`, as in `cargo xtask demo -- -d 5s`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds leakwatch in release and becomes `leakwatch demo`, through sudo where it is not root already.
///
/// # Errors
/// When it does not build or cannot be started.
pub fn run(arguments: &Arguments) -> Result<()> {
    run::run(&mut run::cargo(&["build", "--release", "--package", "leakwatch"]))?;
    let program = run::target_directory()?.join("release/leakwatch");
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        // Only the finished program runs as root: nothing in the target folder comes to belong to root.
        let mut sudo = Command::new("sudo");
        sudo.arg(program);
        sudo
    };
    command.arg("demo").args(&arguments.rest);
    let line = run::shown(&command);
    eprintln!("$ {line}");
    // Replaced rather than waited for: Ctrl-C, the terminal and the exit status are then leakwatch's own.
    Err(anyhow!(command.exec()).context(format!("cannot run `{line}`")))
}
