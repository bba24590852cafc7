//! Real programs from the distribution, each in a folder of its own that goes away with it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A child that is asked to end (SIGTERM: a killed postgres would leave shared memory behind), and killed where it
/// does not.
#[derive(Debug)]
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come up within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// redis-server on a socket of its own, that saves nothing.
#[derive(Debug)]
pub struct Redis {
    server: Daemon,
    connection: BufReader<UnixStream>,
    _folder: TempDir,
}

impl Redis {
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let socket = folder.path().join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(&socket).arg("--dir").arg(folder.path());
        let server = quiet(&mut command).spawn().unwrap_or_else(|error| {
            panic!("cannot start redis-server ({error}): apt-get install redis-server")
        });
        let server = Daemon(server);
        wait_for("redis-server", || UnixStream::connect(&socket).is_ok());
        let stream = UnixStream::connect(&socket).expect("it has just answered");
        let mut redis = Self {
            server,
            connection: BufReader::new(stream),
            _folder: folder,
        };
        assert_eq!(redis.ask(&["PING"]), "+PONG");
        redis
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.0.id()
    }

    /// Sends a command, reads an answer of one line.
    pub fn ask(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.answer()
    }

    /// Sets `count` keys, each to a value of `bytes`, a hundred at a time in flight.
    pub fn fill(&mut self, count: usize, bytes: usize) {
        let value = "v".repeat(bytes);
        for first in (0..count).step_by(100) {
            let keys = first..count.min(first + 100);
            for key in keys.clone() {
                self.send(&["SET", &format!("key:{key}"), &value]);
            }
            for _ in keys {
                assert_eq!(self.answer(), "+OK");
            }
        }
    }

    fn send(&mut self, words: &[&str]) {
        let mut message = format!("*{}\r\n", words.len());
        for word in words {
            message += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.connection
            .get_mut()
            .write_all(message.as_bytes())
            .expect("redis-server reads");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.connection
            .read_line(&mut line)
            .expect("redis-server answers");
        line.trim_end().to_owned()
    }
}

/// A postgres cluster in a folder of its own, on a socket there, run by its own user.
#[derive(Debug)]
pub struct Postgres {
    _server: Daemon,
    binaries: PathBuf,
    folder: TempDir,
}

impl Postgres {
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further variables in the server's environment.
    #[must_use]
    pub fn start_with(environment: &[(&str, &OsStr)]) -> Self {
        let binaries = postgres_binaries();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let owned = Command::new("chown").arg("postgres:").arg(folder.path()).status();
        assert!(
            owned.is_ok_and(|status| status.success()),
            "there is no user postgres"
        );
        let data = folder.path().join("data");

        let mut initdb = as_postgres(&binaries.join("initdb"), folder.path());
        initdb.args([
            "--no-sync",
            "--no-instructions",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "-D",
        ]);
        let output = initdb.arg(&data).output().expect("runuser and initdb are there");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );

        let mut server = as_postgres(&binaries.join("postgres"), folder.path());
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        server.args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_stack_depth=2MB",
        ]);
        server.envs(environment.iter().copied());
        let server = quiet(&mut server)
            .spawn()
            .expect("runuser and postgres are there");
        let postgres = Self {
            _server: Daemon(server),
            binaries,
            folder,
        };
        wait_for("postgres", || {
            let mut probe = Command::new(postgres.binaries.join("pg_isready"));
            probe.arg("--quiet").arg("-h").arg(postgres.folder.path());
            probe.status().is_ok_and(|status| status.success())
        });
        postgres
    }

    /// A session, and with it a backend.
    #[must_use]
    pub fn connect(&self) -> Session {
        let mut command = Command::new(self.binaries.join("psql"));
        command.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-U",
            "postgres",
            "-h",
        ]);
        command.arg(self.folder.path()).arg("postgres");
        let mut psql = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql is there");
        let stdin = psql.stdin.take().expect("stdin was asked for");
        let stdout = psql.stdout.take().expect("stdout was asked for");
        Session {
            _psql: Daemon(psql),
            stdin,
            stdout: BufReader::new(stdout),
        }
    }
}

/// A psql that waits for statements.
#[derive(Debug)]
pub struct Session {
    _psql: Daemon,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    /// Runs statements whose last answer is one line.
    pub fn ask(&mut self, statements: &str) -> String {
        writeln!(self.stdin, "{statements}").expect("psql reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("psql answers");
        line.trim_end().to_owned()
    }

    /// PID of the backend that serves this session.
    pub fn backend(&mut self) -> u32 {
        let answer = self.ask("SELECT pg_backend_pid();");
        answer
            .parse()
            .unwrap_or_else(|_| panic!("postgres says its PID is {answer:?}"))
    }
}

fn postgres_binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    folders
        .filter(|folder| folder.join("initdb").exists())
        .max()
        .unwrap_or_else(|| panic!("no /usr/lib/postgresql/*/bin/initdb: apt-get install postgresql"))
}

/// postgres refuses to be root. `setpriv` executes it in its own place, so that the child's PID is the server's.
fn as_postgres(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    command.arg(program).current_dir(folder).env_remove("LD_PRELOAD");
    command
}

/// Resident memory of a process, in bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let mut text = String::new();
    let read =
        fs::File::open(format!("/proc/{pid}/statm")).and_then(|mut file| file.read_to_string(&mut text));
    read.unwrap_or_else(|error| panic!("cannot read /proc/{pid}/statm: {error}"));
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
