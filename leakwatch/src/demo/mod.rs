//! A leaky service in a child process: the main job with nothing to prepare.

pub mod service;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use service::{Message, Truth};

/// Warming up takes a fraction of a second; a machine under load is given time.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The running service. It is killed and reaped when this is dropped, and by the kernel should leakwatch be killed.
#[derive(Debug)]
pub struct Service {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Service {
    /// Starts this very executable as the service and waits until its bounded cache is full and its heaps are warm.
    pub fn start() -> anyhow::Result<Self> {
        // By this link a binary that was replaced since it was started is still the right one.
        Self::start_program(Command::new("/proc/self/exe").arg("demo-service"))
    }

    fn start_program(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            // A Ctrl-C at the terminal ends the window, not the service under it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the demo's service")?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let Some(answers) = answers else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("cannot start the demo's service: no pipe to it");
        };
        let mut service = Self {
            child,
            requests,
            answers: BufReader::new(answers),
        };
        match service
            .message(READY_WITHIN)
            .context("the demo's service does not get ready")?
        {
            Message::Ready { .. } => Ok(service),
            Message::Truth(_) => bail!("the demo's service does not get ready: it ended"),
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the service has leaked so far, by its own count.
    pub fn truth(&mut self) -> anyhow::Result<Truth> {
        let requests = self.requests.as_mut().context("the demo's service is stopped")?;
        requests
            .write_all(service::TRUTH_REQUEST)
            .and_then(|()| requests.flush())
            .context("the demo's service has ended")?;
        match self.message(ANSWER_WITHIN)? {
            Message::Truth(truth) => Ok(truth),
            Message::Ready { .. } => bail!("the demo's service answers out of turn"),
        }
    }

    /// Ends the service; what it leaked in all.
    pub fn stop(mut self) -> anyhow::Result<Truth> {
        // It ends when its input does, with its truth as the last word.
        self.requests = None;
        match self.message(ANSWER_WITHIN)? {
            Message::Truth(truth) => Ok(truth),
            Message::Ready { .. } => bail!("the demo's service answers out of turn"),
        }
    }

    /// The next line of the service.
    fn message(&mut self, within: Duration) -> anyhow::Result<Message> {
        const LINE_BYTES_MAX: u64 = 4096;
        let deadline = Instant::now() + within;
        if self.answers.buffer().is_empty() {
            wait_readable(self.answers.get_ref(), deadline)?;
        }
        // The service writes a line at once, so that what has begun to arrive arrives whole.
        let mut line = String::new();
        let read = self
            .answers
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .context("cannot read from the demo's service")?;
        if read == 0 {
            bail!("the demo's service ended by itself");
        }
        serde_json::from_str(&line).context("the demo's service answers in an unknown form")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_readable(pipe: &ChildStdout, deadline: Instant) -> anyhow::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("the demo's service is silent");
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => {
                return Err(std::io::Error::from(errno)).context("cannot wait for the demo's service");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> anyhow::Result<Service> {
        Service::start_program(Command::new("sh").args(["-c", script]))
    }

    fn is_gone(pid: u32) -> bool {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_service_that_is_dropped_is_killed_and_reaped() {
        let service = shell("echo '{\"state\":\"ready\",\"pid\":1}'; exec sleep 600").unwrap();
        let pid = service.pid();
        assert!(!is_gone(pid));
        drop(service);
        assert!(is_gone(pid));
    }

    #[test]
    fn a_service_that_fails_is_told_as_that() {
        for (script, part) in [
            ("exit 3", "ended by itself"),
            ("echo hello", "unknown form"),
            ("head -c 100000 /dev/zero", "unknown form"),
        ] {
            let error = format!("{:#}", shell(script).unwrap_err());
            assert!(error.contains(part), "{script}: {error}");
        }
    }

    #[test]
    fn the_truth_is_asked_for_and_is_the_last_word() {
        let truth = r#"{"state":"truth","leaked_bytes":300,"leaked_buffers":1,"requests":9}"#;
        let mut service = shell(&format!(
            "echo '{{\"state\":\"ready\",\"pid\":1}}'; while read x; do echo '{truth}'; done; echo '{truth}'"
        ))
        .unwrap();
        assert_eq!(service.truth().unwrap().leaked_bytes, 300);
        assert_eq!(service.truth().unwrap().requests, 9);
        assert_eq!(service.stop().unwrap().leaked_buffers, 1);
    }
}
