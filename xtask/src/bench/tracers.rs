//! leakwatch and its peers, each as an engineer would start it, and waited for until it is attached.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::filter::Mode;
use super::programs;
use super::recording::Account;
use crate::run;

/// How long a tracer may take to attach or to end. Only bounds one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A recording ends by itself should the bench be killed.
const LONGEST_RECORDING: &str = "120s";

/// What traces the target in a traced window.
#[derive(Clone, Debug)]
pub enum Tracer {
    /// `leakwatch record`, by the path of leakwatch.
    Leakwatch(PathBuf),
    Peer(Peer),
    /// A peer that is not on this machine.
    Missing(Peer),
    /// The example that opens nothing but the fault event, by its path.
    FaultEvent(PathBuf, Mode),
}

/// Tools that do a comparable job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Bpftrace,
    Perf,
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "perf",
        }
    }

    /// The line that its own version option prints.
    pub fn version(self) -> Option<String> {
        let output = Command::new(self.program()).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().filter(|_| output.status.success())?;
        Some(line.trim().to_owned())
    }

    /// What to say and do where it is not installed.
    pub fn missing(self) -> Option<String> {
        let package = match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "linux-perf",
        };
        let program = self.program();
        self.version().is_none().then(|| {
            format!(
                "{program} is not installed and left out; to have it (Debian): sudo apt-get install {package}"
            )
        })
    }
}

impl Tracer {
    /// The head of its column.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Leakwatch(_) => "leakwatch",
            Self::Peer(Peer::Bpftrace) | Self::Missing(Peer::Bpftrace) => "bpftrace",
            Self::Peer(Peer::Perf) | Self::Missing(Peer::Perf) => "perf record",
            Self::FaultEvent(_, mode) => mode.name(),
        }
    }

    /// Starts to trace this process, and returns when the tracer says that it is attached.
    ///
    /// # Errors
    /// When it cannot be started, or ends or hangs instead; its own words are in the error.
    pub fn attach(&self, pid: u32) -> Result<Running> {
        let folder = scratch()?;
        let mut command = match self {
            Self::Leakwatch(program) => {
                let mut command = Command::new(program);
                command
                    .args([
                        "record",
                        "--duration",
                        LONGEST_RECORDING,
                        "--pid",
                        &pid.to_string(),
                    ])
                    .arg("-o")
                    .arg(folder.path().join("recording.json"));
                command
            }
            Self::Peer(Peer::Bpftrace) => bpftrace(pid, folder.path())?,
            Self::Peer(Peer::Perf) => perf(pid, folder.path()),
            Self::FaultEvent(program, mode) => {
                let mut command = Command::new(program);
                command.args([mode.argument(), &pid.to_string()]);
                command
            }
            Self::Missing(peer) => bail!("{} is not installed", peer.program()),
        };
        // leakwatch says it on stderr; what the others say on stderr is kept for an error.
        let other = File::create(folder.path().join("other.txt")).context("cannot make a temporary file")?;
        if matches!(self, Self::Leakwatch(_)) {
            command.stdout(other).stderr(Stdio::piped());
        } else {
            command.stdout(Stdio::piped()).stderr(other);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
        let input = child.stdin.take();
        let said = Said::by(&mut child);
        let mut running = Running {
            tracer: self.clone(),
            child,
            input,
            said,
            folder,
        };
        running.wait_attached()?;
        Ok(running)
    }
}

/// On the disk of the target folder: what perf writes may be too much for a /tmp in memory.
pub fn scratch() -> Result<TempDir> {
    tempfile::tempdir_in(run::target_directory()?).context("cannot make a temporary folder")
}

/// Stacks by frame pointers of page faults and of the calls that gain memory, counted in the kernel; of the calls that
/// give it up the number.
fn bpftrace(pid: u32, folder: &Path) -> Result<Command> {
    let mut script = format!("software:page-faults:1 /pid == {pid}/ {{ @pages[ustack] = count(); }}\n");
    for call in ["mmap", "mremap", "brk", "mprotect"] {
        script.push_str(&format!(
            "tracepoint:syscalls:sys_exit_{call} /pid == {pid}/ {{ @{call}[ustack] = count(); }}\n"
        ));
    }
    for call in ["munmap", "madvise"] {
        script.push_str(&format!(
            "tracepoint:syscalls:sys_enter_{call} /pid == {pid}/ {{ @{call} = count(); }}\n"
        ));
    }
    // BEGIN comes before the other probes are attached. By this time they are, too.
    script.push_str("interval:ms:700 /!@ready/ { @ready = 1; printf(\"attached\\n\"); }\n");
    let path = folder.join("peer.bt");
    fs::write(&path, script).context("cannot write the script of bpftrace")?;

    let mounted = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];
    let mut command = if mounted.iter().any(|folder| Path::new(folder).is_dir()) {
        Command::new("bpftrace")
    } else {
        // bpftrace does not find tracepoints without it. Mounted for bpftrace alone: the host stays as it is.
        let mut command = Command::new("unshare");
        let script = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", "bpftrace"]);
        command
    };
    command.args(["-B", "line"]).arg(path);
    Ok(command)
}

/// Started with its event off, and told to turn it on by `wait_attached`: then it says when that is done.
fn perf(pid: u32, folder: &Path) -> Command {
    let mut command = Command::new("perf");
    command
        .args([
            "record",
            "--call-graph",
            "dwarf",
            "-e",
            "page-faults",
            "-p",
            &pid.to_string(),
        ])
        .args(["--delay", "-1", "--control", "fd:0,1", "-o"])
        .arg(folder.join("perf.data"));
    command
}

/// What a tracer says through its pipe.
#[derive(Debug)]
struct Said {
    text: String,
    more: Receiver<String>,
}

impl Said {
    fn by(child: &mut Child) -> Self {
        let (sender, more) = channel();
        let stdout = child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
        let stderr = child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>);
        if let Some(mut pipe) = stdout.or(stderr) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(got) = pipe.read(&mut buffer)
                    && got > 0
                {
                    let bytes = buffer.get(..got).unwrap_or_default();
                    if sender.send(String::from_utf8_lossy(bytes).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            text: String::new(),
            more,
        }
    }

    /// Waits for a word; whether it came, before the pipe's end and in time.
    fn wait_for(&mut self, word: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.text.contains(word) {
            match self
                .more
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(text) => self.text.push_str(&text),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }

    /// All that is said up to the pipe's end.
    fn rest(&mut self) {
        self.text.extend(self.more.iter());
    }
}

/// A tracer at work. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Running {
    tracer: Tracer,
    child: Child,
    input: Option<ChildStdin>,
    said: Said,
    folder: TempDir,
}

/// What is known of a tracer that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Of leakwatch alone.
    pub account: Account,
    /// Whether it has seen page faults at all.
    pub saw_faults: bool,
}

impl Running {
    fn wait_attached(&mut self) -> Result<()> {
        let word = if matches!(self.tracer, Tracer::Peer(Peer::Perf)) {
            let input = self.input.as_mut().context("perf has no pipe")?;
            writeln!(input, "enable").context("perf does not listen")?;
            "ack"
        } else {
            "attached"
        };
        ensure!(
            self.said.wait_for(word),
            "{} did not attach; it said: {}",
            self.tracer.name(),
            self.words()
        );
        Ok(())
    }

    /// The processor time that it has used so far, in user mode and for itself in the kernel, seconds. What its
    /// programs cost in the target's own context is the target's.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let ticks = cpu_ticks(&text).with_context(|| format!("{path} is not understood"))?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Ends it by Ctrl-C and waits for what it does then.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn finish(mut self) -> Result<Ended> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // Not reaped yet, so the number is still its own.
        kill_process(pid.context("a child has a PID")?, Signal::INT)
            .with_context(|| format!("{} cannot be ended", self.tracer.name()))?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("{} does not end", self.tracer.name());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.said.rest();
        // perf and the example die of the signal in the end; the example ends by itself only where it fails.
        let well = match &self.tracer {
            Tracer::Leakwatch(_) | Tracer::Peer(Peer::Bpftrace) => status.success(),
            Tracer::FaultEvent(..) => status.code().is_none(),
            Tracer::Peer(Peer::Perf) | Tracer::Missing(_) => true,
        };
        ensure!(well, "{} failed ({status}): {}", self.tracer.name(), self.words());
        let mut ended = Ended {
            account: Account::default(),
            saw_faults: true,
        };
        match &self.tracer {
            Tracer::Leakwatch(_) => {
                let path = self.folder.path().join("recording.json");
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("leakwatch left no recording: {}", self.words()))?;
                ended.account = Account::of(&text).context("leakwatch's recording is no JSON")?;
            }
            Tracer::Peer(Peer::Bpftrace) => ended.saw_faults = self.said.text.contains("@pages["),
            // It says how many samples it has taken, where it has any.
            Tracer::Peer(Peer::Perf) => ended.saw_faults = self.words().contains(" samples)"),
            Tracer::Missing(_) | Tracer::FaultEvent(..) => {}
        }
        Ok(ended)
    }

    fn words(&self) -> String {
        let other = fs::read(self.folder.path().join("other.txt")).unwrap_or_default();
        let text = format!("{} {}", self.said.text, String::from_utf8_lossy(&other));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        programs::end(&mut self.child);
    }
}

/// User and system time of a `/proc/PID/stat`, in ticks. The name in it may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 1 0 99";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(cpu_ticks(&own).is_some(), "{own}");
    }

    #[test]
    fn a_tracer_that_ends_instead_of_attaching_is_an_error_with_its_words() {
        let tracer = Tracer::FaultEvent("/bin/ls".into(), Mode::Filter);
        let error = format!("{:#}", tracer.attach(1).unwrap_err());
        assert!(
            error.contains("did not attach; it said:") && error.contains("ls:"),
            "{error}"
        );
    }
}
