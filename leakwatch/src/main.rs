//! The command: everything is in the library.

/// The static binary's: with musl's own malloc the report of a large recording takes half as long again.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    leakwatch::cli::main()
}
