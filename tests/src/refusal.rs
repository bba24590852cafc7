//! Bystanders to point leakwatch at, and what a refusal must not leave behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::programs;
use crate::record::{Outcome, run, run_command};

/// A folder for one test.
#[must_use]
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// What lies in a folder.
#[must_use]
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it can be read").flatten();
    entries.map(|entry| entry.path()).collect()
}

/// `record` with these arguments and an output that must not come to be.
#[must_use]
pub fn record(arguments: &[&str]) -> Outcome {
    let folder = folder();
    let output = folder.path().join("x.json");
    let mut words: Vec<&OsStr> = vec!["record".as_ref()];
    words.extend(arguments.iter().map(OsStr::new));
    words.extend(["-o".as_ref(), output.as_os_str()]);
    let outcome = run(&words);
    assert_eq!(
        entries(folder.path()),
        Vec::<PathBuf>::new(),
        "something is left behind\n{outcome}"
    );
    outcome
}

/// Runs `sh -c SCRIPT` in a mount namespace of its own: what it mounts is gone with it. `$0` is leakwatch.
#[must_use]
pub fn in_own_mounts(script: &str, arguments: &[&OsStr]) -> Outcome {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.arg(programs::leakwatch()).args(arguments);
    run_command(command)
}

/// A process to point at. Dropped, it is killed (itself alone) and reaped.
#[derive(Debug)]
pub struct Bystander(Child);

impl Bystander {
    /// Starts it with nothing to read and nobody to tell.
    #[must_use]
    pub fn start(command: Command) -> Self {
        let name = format!("{command:?}");
        Self::try_start(command).unwrap_or_else(|| panic!("cannot start {name}"))
    }

    /// The same, for a program that this kernel may be unable to run.
    #[must_use]
    pub fn try_start(mut command: Command) -> Option<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .ok()
            .map(Self)
    }

    #[must_use]
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that does nothing.
#[must_use]
pub fn sleeper() -> Bystander {
    let mut command = Command::new("sleep");
    command.arg("600");
    Bystander::start(command)
}
