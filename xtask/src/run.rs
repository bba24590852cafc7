//! Running other programs, loudly: what is run is shown, and a failure says what failed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    // Without a `..` in it: the path is mapped away in what the compiler writes.
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// The cargo that runs this, in the workspace's folder.
#[must_use]
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Where cargo builds to: this very program lies in `TARGET/PROFILE/`.
///
/// # Errors
/// When the running file is not known.
pub fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the running xtask")?;
    let folder = program.ancestors().nth(2);
    Ok(folder
        .with_context(|| format!("{} does not lie in a target folder", program.display()))?
        .to_owned())
}

/// The command as a shell would take it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Shows the command, runs it, and expects success.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// A heading that is found again in a long log.
pub fn heading(text: &str) {
    eprintln!("\n==> {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 7"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`sh -c exit 7`") && error.contains('7'), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot run `program`"), "{error:#}");
    }
}
