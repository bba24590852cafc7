//! Runs `leakwatch watch`, reads what it says while it runs, and what its history holds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;

use crate::heap::Verdict;
use crate::programs;
use crate::record::run;

/// How long one step of a watch may take. Generous: it only bounds a test that hangs.
const PATIENCE: Duration = Duration::from_secs(90);

type Lines = Arc<Mutex<Vec<String>>>;

/// A watch that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Watching {
    child: Child,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

fn reader(from: impl Read + Send + 'static, into: &Lines) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().expect("no reader panics").push(line);
        }
    })
}

/// Waits until something is there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not come within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Watching {
    /// `leakwatch watch` with these arguments.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(programs::leakwatch());
        command.arg("watch").args(arguments);
        Self::start_command(command)
    }

    /// The command that is the watch, or becomes it.
    #[must_use]
    pub fn start_command(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            reader(child.stdout.take().expect("it was asked for"), &stdout),
            reader(child.stderr.take().expect("it was asked for"), &stderr),
        ];
        Self {
            child,
            stdout,
            stderr,
            readers,
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().expect("no reader panics").clone()
    }

    /// What it has said beside that.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().expect("no reader panics").clone()
    }

    /// The first line on stdout that has all of these words.
    pub fn alert(&mut self, words: &[&str]) -> String {
        self.line(words, Self::stdout)
    }

    /// The same on stderr.
    pub fn note(&mut self, words: &[&str]) -> String {
        self.line(words, Self::stderr)
    }

    fn line(&mut self, words: &[&str], of: fn(&Self) -> Vec<String>) -> String {
        wait_for(&format!("a line with {words:?}"), || {
            let found = of(self)
                .into_iter()
                .find(|line| words.iter().all(|word| line.contains(word)));
            if found.is_none() {
                let ended = self.child.try_wait().expect("it is a child");
                assert!(ended.is_none(), "it ended ({ended:?}) without {words:?}\n{self}");
            }
            found
        })
    }

    /// The port of `--listen 0`.
    pub fn port(&mut self) -> u16 {
        let line = self.note(&["listening on http://127.0.0.1:"]);
        let port = line.rsplit(':').next().and_then(|rest| rest.split('/').next());
        port.and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in {line:?}"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it has a number"), signal).expect("it is a child that was not reaped");
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Ends it in the midst of whatever it does.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.ended();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let status = wait_for("its end", || self.child.try_wait().expect("it is a child"));
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        status
    }
}

impl std::fmt::Display for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stdout: {:#?}\nstderr: {:#?}", self.stdout(), self.stderr())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `leakwatch history -o x.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct History {
    pub services: Vec<Service>,
    pub alerts: Vec<Alert>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    pub name: String,
    pub runs: Vec<Run>,
    pub samples: u64,
    pub verdict: Option<Verdict>,
    pub points: Points,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    pub pid: u32,
    pub ended_at: Option<String>,
    pub ending: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Points {
    pub at_seconds: Vec<f64>,
    pub run: Vec<u32>,
    pub metrics: BTreeMap<String, Column>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    pub least: Vec<Option<u64>>,
    pub most: Vec<Option<u64>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    pub event: String,
    pub threshold: String,
    pub line: String,
}

/// Reads a history as a user does.
#[must_use]
pub fn history(file: &Path, arguments: &[&str]) -> History {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let json = folder.path().join("x.json");
    let mut words: Vec<&OsStr> = vec!["history".as_ref(), file.as_os_str()];
    words.extend(arguments.iter().map(OsStr::new));
    words.extend(["-o".as_ref(), json.as_os_str()]);
    let outcome = run(&words);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    let text = fs::read_to_string(&json).expect("it was written");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The answer to a request by a plain client: its head, and its body.
pub fn get(port: u16, path: &str, accept: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other(format!("no answer of HTTP: {answer:?}")))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The value of a sample whose line begins so.
#[must_use]
pub fn sample(page: &str, beginning: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(beginning))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A folder in place of /proc with so many processes, that can be made to change.
#[derive(Debug)]
pub struct FakeProc {
    folder: TempDir,
}

impl FakeProc {
    /// Numbers above those of real processes.
    pub const FIRST: u32 = 4_000_000;

    #[must_use]
    pub fn new(processes: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let random = folder.path().join("sys/kernel/random");
        fs::create_dir_all(&random).expect("it is ours");
        let made = Self { folder };
        made.write(
            "sys/kernel/random/boot_id",
            "01234567-89ab-cdef-0123-456789abcdef\n",
        );
        made.write("meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n");
        for number in 0..processes {
            let pid = Self::FIRST + number;
            fs::create_dir_all(made.folder.path().join(format!("{pid}/fd"))).expect("it is ours");
            made.write(
                &format!("{pid}/stat"),
                &format!("{pid} (fake) S 1 2 3 4 5 0 0 0 0 0 0 0 0 0 20 0 1 0 {number} 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"),
            );
            made.write(&format!("{pid}/cgroup"), "0::/fake.service\n");
            made.set(number, 1000, 3);
        }
        made
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("it is ours");
    }

    /// Sets the size and the number of threads of a process.
    pub fn set(&self, number: u32, kib: u64, threads: u64) {
        let pid = Self::FIRST + number;
        // Renamed, so that it is never seen half written.
        let text = format!("VmRSS:\t{kib} kB\nRssAnon:\t{kib} kB\nVmSwap:\t0 kB\nThreads:\t{threads}\n");
        self.write(&format!("{pid}/status.new"), &text);
        let at = |name: &str| self.folder.path().join(format!("{pid}/{name}"));
        fs::rename(at("status.new"), at("status")).expect("it is ours");
    }

    #[must_use]
    pub fn root(&self) -> &str {
        self.folder.path().to_str().expect("a temporary name is plain")
    }
}

/// A program under a name of its own, so that no other test's process has it.
#[must_use]
pub fn program_named(folder: &Path, original: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    programs::copy(original, &path);
    path
}
