//! The command: everything is in the library.

fn main() -> std::process::ExitCode {
    leakwatch::cli::main()
}
