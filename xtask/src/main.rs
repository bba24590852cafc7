//! The project's own commands: `cargo xtask COMMAND`.

mod ebpf;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Parser;

#[derive(Parser)]
#[command(about = "The project's own commands")]
enum Command {
    /// Build or check the BPF object.
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace has no root")?;
    match Command::parse() {
        Command::Ebpf(args) => ebpf::run(root, args),
    }
}
