//! leakwatch and its peers, each as an engineer would start it, and waited for until it is attached.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::filter::Mode;
use super::peers::Peer;
use super::recording::Account;
use super::{processor_time, programs};
use crate::run;

/// How long a tracer may take to attach or to end. Only bounds one that hangs.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long after its end what a tracer has said is read, and how long one that failed may take to clean up.
const LAST_WORDS: Duration = Duration::from_secs(3);
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

impl Tracer {
    /// The head of its column.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Leakwatch(_) => "leakwatch",
            Self::Peer(peer) | Self::Missing(peer) => peer.name(),
            Self::FaultEvent(_, mode) => mode.name(),
        }
    }

    /// The peer that works on this machine, if it is one.
    pub fn peer(&self) -> Option<Peer> {
        match self {
            Self::Peer(peer) => Some(*peer),
            Self::Leakwatch(_) | Self::Missing(_) | Self::FaultEvent(..) => None,
        }
    }

    fn has_children(&self) -> bool {
        self.peer().is_some_and(Peer::has_children)
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
            Self::Peer(peer) => peer.command(pid, folder.path())?,
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
        if self.has_children() {
            command.process_group(0);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
        let input = child.stdin.take();
        let said = Said::by(&mut child);
        let mut running = Running {
            tracer: self.clone(),
            target: pid,
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

    /// All that is said up to the pipe's end, which a child that lives on may put off: not for long.
    fn rest(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        while let Ok(text) = self
            .more
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.text.push_str(&text);
        }
    }
}

/// A tracer at work. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Running {
    tracer: Tracer,
    /// Its PID.
    target: u32,
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
    /// Whether it has seen anything of what it watches.
    pub has_seen: bool,
}

impl Running {
    fn wait_attached(&mut self) -> Result<()> {
        if matches!(self.tracer, Tracer::Peer(Peer::Perf)) {
            let input = self.input.as_mut().context("perf has no pipe")?;
            writeln!(input, "enable").context("perf does not listen")?;
        }
        let word = self.tracer.peer().map_or("attached", Peer::attached_word);
        let attached = self.said.wait_for(word);
        ensure!(
            attached && self.tracer.peer().is_none_or(|peer| peer.is_within(self.target)),
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
        processor_time::of(self.child.id())
    }

    /// Ends it as Ctrl-C does and waits for what it does then.
    ///
    /// # Errors
    /// When it fails or does not end.
    pub fn finish(mut self) -> Result<Ended> {
        self.end_orderly()
            .with_context(|| format!("{} cannot be ended", self.tracer.name()))?;
        let status = programs::wait(&mut self.child, PATIENCE)?
            .with_context(|| format!("{} does not end; it said: {}", self.tracer.name(), self.words()))?;
        self.said.rest();
        // perf and the example die of the signal in the end; the example ends by itself only where it fails.
        let well = match &self.tracer {
            Tracer::Leakwatch(_) | Tracer::Peer(Peer::Bpftrace | Peer::Uprobes) => status.success(),
            Tracer::FaultEvent(..) => status.code().is_none(),
            // heaptrack's shell likewise, and what it has seen is asked below. memleak ends well, or with the signal.
            Tracer::Peer(_) | Tracer::Missing(_) => true,
        };
        ensure!(well, "{} failed ({status}): {}", self.tracer.name(), self.words());
        let mut ended = Ended {
            account: Account::default(),
            has_seen: true,
        };
        match &self.tracer {
            Tracer::Leakwatch(_) => {
                let path = self.folder.path().join("recording.json");
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("leakwatch left no recording: {}", self.words()))?;
                ended.account = Account::of(&text).context("leakwatch's recording is no JSON")?;
            }
            Tracer::Peer(peer) => ended.has_seen = peer.has_seen(&self.said.text, &self.other()),
            Tracer::Missing(_) | Tracer::FaultEvent(..) => {}
        }
        Ok(ended)
    }

    /// Asks it to end.
    fn end_orderly(&self) -> Result<()> {
        let signal = self.tracer.peer().map_or(Signal::INT, Peer::ending);
        // Not reaped yet, so the number is still its own.
        kill_process(self.number()?, signal)?;
        Ok(())
    }

    fn number(&self) -> Result<Pid> {
        let number = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        number.context("a child has a PID")
    }

    /// What it has said elsewhere than to the pipe.
    fn other(&self) -> String {
        let other = fs::read(self.folder.path().join("other.txt")).unwrap_or_default();
        String::from_utf8_lossy(&other).into_owned()
    }

    /// All that it has said, what it says on stderr first: there are the reasons.
    fn words(&self) -> String {
        let text = if matches!(self.tracer, Tracer::Leakwatch(_)) {
            format!("{} {}", self.said.text, self.other())
        } else {
            format!("{} {}", self.other(), self.said.text)
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.tracer.has_children()
            && let Ok(number) = self.number()
        {
            // What it has put into /tmp it removes itself. Each of these fails only where there is nothing left to end.
            if matches!(self.child.try_wait(), Ok(None)) && self.end_orderly().is_ok() {
                let _ = programs::wait(&mut self.child, LAST_WORDS);
            }
            let _ = kill_process_group(number, Signal::KILL);
        }
        programs::end(&mut self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
