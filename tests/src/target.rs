//! A running target program, by the protocol of `programs/truth.h`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::programs::Program;

/// How long a target may take for one step of the protocol. Generous: it only bounds a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a program says of itself once its work is done.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// The function that keeps the memory; `None` where none does.
    pub site: Option<String>,
    /// Address space that it committed in the window and still holds, in bytes.
    pub committed_bytes: u64,
    /// System calls by which it did so, at most.
    pub calls: u64,
    /// Functions that took memory and gave it back.
    #[serde(default)]
    pub innocents: Vec<String>,
    /// Live bytes by the function that touched them first: of every function that has a part in the work, 0 where it
    /// keeps none.
    #[serde(default)]
    pub functions: BTreeMap<String, u64>,
    /// The same by process, PIDs as text.
    #[serde(default)]
    pub processes: BTreeMap<String, u64>,
    /// Whatever else this program tells.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Truth {
    /// A further number that this program tells.
    ///
    /// # Panics
    /// Where it does not tell it.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.more
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_else(|| panic!("the program's truth has no number {name}: {self:?}"))
    }
}

/// A target that this test started. Dropped, it is killed (itself alone) and reaped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    name: String,
}

impl Target {
    /// Starts the program and waits until it is ready.
    #[must_use]
    pub fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).args(arguments);
        Self::start_command(command)
    }

    /// Starts any command that follows the protocol on its stdin and stdout.
    #[must_use]
    pub fn start_command(mut command: Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout was asked for");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut target = Self {
            child,
            stdin,
            lines,
            name,
        };
        let ready = target.line("ready");
        let value: serde_json::Value = serde_json::from_str(&ready).unwrap_or_default();
        assert_eq!(
            value.get("ready"),
            Some(&serde_json::Value::Bool(true)),
            "{} said {ready:?}",
            target.name
        );
        target
    }

    /// PID of the process that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it work.
    pub fn go(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is open until the end");
        stdin
            .write_all(b"go\n")
            .unwrap_or_else(|error| panic!("cannot say go to {}: {error}", self.name));
    }

    /// Waits for what it says of itself.
    #[must_use]
    pub fn truth(&mut self) -> Truth {
        let line = self.line("truth");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{} said {line:?}: {error}", self.name))
    }

    /// Asks what it keeps by now: for programs that tell at any time, see `programs/cohort.h`.
    #[must_use]
    pub fn count(&mut self) -> Truth {
        let stdin = self.stdin.as_mut().expect("stdin is open until the end");
        stdin
            .write_all(b"count\n")
            .unwrap_or_else(|error| panic!("cannot ask {}: {error}", self.name));
        self.truth()
    }

    /// Is it there, and neither a zombie nor stopped?
    #[must_use]
    pub fn is_well(&mut self) -> bool {
        let running = self.child.try_wait().is_ok_and(|status| status.is_none());
        // Its name, which may be any bytes, stands here too.
        let status = std::fs::read(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let state = status
            .lines()
            .find_map(|line| line.strip_prefix("State:\t"))
            .unwrap_or("gone");
        let traced = status.lines().any(|line| {
            line.strip_prefix("TracerPid:\t")
                .is_some_and(|tracer| tracer != "0")
        });
        running && !traced && (state.starts_with('S') || state.starts_with('R'))
    }

    /// Closes its stdin and waits for its end.
    pub fn finish(&mut self) -> ExitStatus {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                other => panic!("{} does not end: {other:?}", self.name),
            }
        }
    }

    fn line(&mut self, what: &str) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} did not say its {what} within {PATIENCE:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => {
                panic!(
                    "{} ended before it said its {what}: {:?}",
                    self.name,
                    self.child.wait()
                )
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
