//! The eBPF object: built from source, or the committed one checked.

/// Arguments of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Fail when the committed object does not come from these sources.
    #[arg(long)]
    pub check: bool,
    /// Install what is missing of the toolchain first (Debian, as root).
    #[arg(long)]
    pub install: bool,
}

/// Builds, installs or checks, as the arguments say.
///
/// # Errors
/// What cannot be built or does not agree.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!(
        "ebpf (check: {}, install: {}) is not built yet",
        arguments.check,
        arguments.install
    )
}
