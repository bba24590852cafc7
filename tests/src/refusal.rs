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

/// PID of a kernel thread. Inside a PID namespace there is none to point at.
#[must_use]
pub fn a_kernel_thread() -> Option<String> {
    let processes = fs::read_dir("/proc").expect("it is mounted").flatten();
    let mut pids = processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok());
    // PF_KTHREAD among the flags, the ninth field of stat.
    pids.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.to_owned())
            .unwrap_or_default();
        let flags: Option<u64> = after_name.split(' ').nth(6).and_then(|flags| flags.parse().ok());
        flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
    })
}

/// A 32-bit process that waits for ever, its program built in `folder`. `None`, and said so, where none can be had.
///
/// # Panics
/// Where the compiler cannot build it.
#[must_use]
pub fn thirty_two_bit(folder: &Path) -> Option<Bystander> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: only x86-64's compiler makes 32-bit programs by a flag");
        return None;
    }
    // pause() for ever, without any library: no 32-bit headers or libc are needed to build it.
    let source = "void _start(void) { for (;;) { int number = 29; __asm__ volatile(\"int $0x80\" : \"+a\"(number)); } }";
    let (code, program) = (folder.join("pause.c"), folder.join("pause32"));
    fs::write(&code, source).expect("it is ours");
    let mut compiler = Command::new("cc");
    compiler.args([
        "-m32",
        "-O1",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-fno-pic",
        "-no-pie",
        "-o",
    ]);
    let built = compiler.arg(&program).arg(&code).status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "cc -m32 -nostdlib fails"
    );
    let process = Bystander::try_start(Command::new(&program));
    if process.is_none() {
        eprintln!("SKIPPED: this kernel runs no 32-bit program");
    }
    process
}
