//! Runs `leakwatch record` on a target.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::recording::Recording;
use crate::target::{Target, Truth};
use crate::{programs, schema};

/// How long leakwatch may take to attach or to report. Generous: it only bounds a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recording to be made. Its files lie in a folder of its own that goes away with the outcome.
#[derive(Debug)]
pub struct Record {
    arguments: Vec<OsString>,
    duration: String,
    brief: bool,
    directory: TempDir,
}

impl Record {
    /// Of the process with this PID, until [`Running::interrupt`] ends the window.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self::with(&["--pid", &pid.to_string()])
    }

    /// Of whatever these arguments name.
    #[must_use]
    pub fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder can be made");
        Self {
            arguments: arguments.iter().map(OsString::from).collect(),
            duration: "600s".to_owned(),
            brief: false,
            directory,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// A window that ends by itself.
    #[must_use]
    pub fn duration(mut self, duration: &str) -> Self {
        duration.clone_into(&mut self.duration);
        self
    }

    /// So many stack snapshots a second before the sample is thinned.
    #[must_use]
    pub fn budget(self, snapshots_a_second: &str) -> Self {
        self.arg("--sample-budget").arg(snapshots_a_second)
    }

    /// Without births: for tests of what mapping calls and page faults tell by themselves.
    #[must_use]
    pub fn pages_alone(self) -> Self {
        self.arg("--allocs").arg("never")
    }

    /// With the text that leakwatch prints when nobody asks for more; else it is the report (`-v`).
    #[must_use]
    pub fn brief(mut self) -> Self {
        self.brief = true;
        self
    }

    /// A file of the recording's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts leakwatch. The recording goes to `x.json`, `x.txt` and `x.folded`.
    #[must_use]
    pub fn start(self) -> Running {
        let mut command = Command::new(programs::leakwatch());
        command
            .arg("record")
            .args(&self.arguments)
            .args(["--duration", &self.duration])
            .args((!self.brief).then_some("-v"));
        for name in ["x.json", "x.txt", "x.folded"] {
            command.arg("-o").arg(self.directory.path().join(name));
        }
        Running::start(command, self.directory)
    }

    /// The whole course: attach, let the target work until it has said its truth, end the window, report.
    #[must_use]
    pub fn watch(self, target: &mut Target) -> (Truth, Outcome) {
        let running = self.start();
        running.wait_attached();
        target.go();
        let truth = target.truth();
        running.interrupt();
        let outcome = running.finish();
        assert!(
            target.is_well(),
            "the target did not survive being watched\n{outcome}"
        );
        (truth, outcome)
    }
}

/// leakwatch at work. Dropped, it is killed (itself alone) and reaped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Arc<Stderr>,
    stderr_reader: Option<JoinHandle<()>>,
    directory: Option<TempDir>,
}

/// What leakwatch has written to stderr so far.
#[derive(Debug, Default)]
struct Stderr {
    state: Mutex<StderrState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StderrState {
    text: String,
    closed: bool,
}

impl Stderr {
    fn text(&self) -> String {
        self.state
            .lock()
            .map(|state| state.text.clone())
            .unwrap_or_default()
    }
}

impl Running {
    /// Starts any command of leakwatch; its files are in `directory`.
    #[must_use]
    pub fn start(mut command: Command, directory: TempDir) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("NO_COLOR")
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut stdout = child.stdout.take().expect("stdout was asked for");
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut pipe = child.stderr.take().expect("stderr was asked for");
        let stderr = Arc::new(Stderr::default());
        let shared = Arc::clone(&stderr);
        let stderr_reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let got = pipe.read(&mut buffer).unwrap_or(0);
                let Ok(mut state) = shared.state.lock() else {
                    return;
                };
                state
                    .text
                    .push_str(&String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()));
                state.closed = got == 0;
                shared.changed.notify_all();
                if state.closed {
                    return;
                }
            }
        });
        Self {
            child,
            stdout: Some(stdout),
            stderr,
            stderr_reader: Some(stderr_reader),
            directory: Some(directory),
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line on stderr that says it is attached.
    pub fn wait_attached(&self) {
        let state = self.stderr.state.lock().expect("its reader does not panic");
        let waiting = |state: &mut StderrState| !state.closed && !state.text.contains("attached");
        let (state, _) = self
            .stderr
            .changed
            .wait_timeout_while(state, PATIENCE, waiting)
            .expect("its reader does not panic");
        assert!(
            state.text.contains("attached"),
            "leakwatch did not attach; its stderr: {}",
            state.text
        );
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Sends a signal to leakwatch itself.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a child has a PID");
        // Not reaped yet, so the number is still its own.
        rustix::process::kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("cannot signal leakwatch: {error}"));
    }

    /// Waits for its end.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                other => {
                    panic!(
                        "leakwatch does not end: {other:?}; its stderr: {}",
                        self.stderr.text()
                    )
                }
            }
        };
        let stdout = self
            .stdout
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        self.stderr_reader.take().map(JoinHandle::join);
        let directory = self.directory.take().expect("taken only here");
        Outcome {
            status,
            stdout,
            stderr: self.stderr.text(),
            directory,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run of leakwatch left.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    directory: TempDir,
}

impl Outcome {
    /// The recording, read by the schema.
    ///
    /// # Panics
    /// Where leakwatch failed, or the file is not what section 7 of the design says.
    #[must_use]
    pub fn recording(&self) -> Recording {
        assert!(self.status.success(), "leakwatch failed: {self}");
        let text = self.text_of("x.json");
        schema::recording(&text)
            .unwrap_or_else(|problem| panic!("x.json breaks docs/recording.schema.json: {problem}\n{self}"));
        Recording::parse(&text)
            .unwrap_or_else(|problem| panic!("x.json breaks the schema: {problem}\n{self}"))
    }

    /// The content of a file that leakwatch wrote.
    #[must_use]
    pub fn text_of(&self, name: &str) -> String {
        let path = self.file(name);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}\n{self}", path.display()))
    }

    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "({})\n--- stdout\n{}\n--- stderr\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

/// Runs a command of leakwatch to its end.
#[must_use]
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Outcome {
    let mut command = Command::new(programs::leakwatch());
    command.args(arguments);
    run_command(command)
}

/// Runs a command that ends in leakwatch (`setpriv`, `unshare`...) to its end.
#[must_use]
pub fn run_command(command: Command) -> Outcome {
    Running::start(
        command,
        tempfile::tempdir().expect("a temporary folder can be made"),
    )
    .finish()
}
