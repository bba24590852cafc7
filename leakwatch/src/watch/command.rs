//! The command that alerts are handed to: no shell, one at a time, never for long.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::alert::Alert;
use super::say;

/// Alerts that wait for those before; more are dropped, and told.
const QUEUE: usize = 64;
/// A command that takes longer is killed, with all that it started.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// At the end of the watch the last ones get so long.
const FAREWELL: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

type Environment = Vec<(&'static str, OsString)>;

/// Runs the command for one alert after the other, in a thread of its own: the watch does not wait.
#[derive(Debug)]
pub struct AlertCommand {
    queue: Option<SyncSender<Environment>>,
    thread: Option<JoinHandle<()>>,
    ending: Arc<AtomicBool>,
    dropped: u64,
}

impl AlertCommand {
    /// The program and its arguments; the program is looked for in `PATH`.
    #[must_use]
    pub fn new(words: Vec<OsString>) -> Self {
        Self::with_timeout(words, TIMEOUT)
    }

    fn with_timeout(words: Vec<OsString>, timeout: Duration) -> Self {
        let (queue, waiting) = sync_channel(QUEUE);
        let ending = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name("on-alert".to_owned())
            .spawn(move || run_all(&words, timeout, &waiting, &end))
            .ok();
        Self {
            queue: Some(queue),
            thread,
            ending,
            dropped: 0,
        }
    }

    /// Hands it an alert.
    pub fn hand(&mut self, alert: &Alert) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(alert.environment()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped += 1;
                if self.dropped.is_power_of_two() {
                    say(&format!(
                        "the command of --on-alert is too slow: {} alerts were not handed to it",
                        self.dropped
                    ));
                }
            }
        }
    }
}

impl Drop for AlertCommand {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_all(words: &[OsString], timeout: Duration, waiting: &Receiver<Environment>, ending: &AtomicBool) {
    let mut ends_by = None;
    for environment in waiting {
        if ending.load(Ordering::Acquire) {
            let by = *ends_by.get_or_insert_with(|| Instant::now() + FAREWELL);
            if Instant::now() >= by {
                say("the watch ended before the command of --on-alert was done with all alerts");
                return;
            }
        }
        if let Err(why) = run_one(words, environment, timeout, ending) {
            say(&format!("the command of --on-alert {why}"));
        }
    }
}

/// Runs it once; the error says what became of it.
fn run_one(
    words: &[OsString],
    environment: Environment,
    timeout: Duration,
    ending: &AtomicBool,
) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("is empty")?;
    // stdout belongs to the alerts.
    let output = std::os::fd::AsFd::as_fd(&std::io::stderr())
        .try_clone_to_owned()
        .map_or_else(|_| Stdio::null(), Stdio::from);
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(output)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be run: {}: {error}", program.to_string_lossy()))?;
    let mut deadline = Instant::now() + timeout;
    let mut hurried = false;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("failed ({status})")),
            Ok(None) => {}
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
        if ending.load(Ordering::Acquire) && !hurried {
            hurried = true;
            deadline = deadline.min(Instant::now() + FAREWELL);
        }
        if Instant::now() >= deadline {
            kill(&mut child);
            return Err(if hurried {
                "was killed, as the watch ended".to_owned()
            } else {
                format!("took over {} and was killed", humantime::format_duration(timeout))
            });
        }
        std::thread::sleep(POLL);
    }
}

/// It, and what it started.
fn kill(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn run(command: &[&str], timeout: Duration) -> Result<(), String> {
        let environment = vec![("LEAKWATCH_ALERT_SERVICE", OsString::from("$(false) ; *"))];
        run_one(&words(command), environment, timeout, &AtomicBool::new(false))
    }

    #[test]
    fn values_arrive_as_they_are_and_no_shell_sees_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let script = "printf %s \"$LEAKWATCH_ALERT_SERVICE $1\" > \"$2\"";
        let file_name = file.to_str().unwrap();
        run(&["sh", "-c", script, "sh", "a b;c", file_name], TIMEOUT).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "$(false) ; * a b;c");
    }

    #[test]
    fn a_failure_is_told_in_words() {
        assert!(
            run(&["false"], TIMEOUT)
                .unwrap_err()
                .contains("failed (exit status: 1)")
        );
        assert!(
            run(&["/nowhere/x"], TIMEOUT)
                .unwrap_err()
                .contains("cannot be run: /nowhere/x")
        );
    }

    #[test]
    fn one_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let started = Instant::now();
        let error = run(&["sh", "-c", &script], Duration::from_millis(500)).unwrap_err();
        assert!(error.contains("was killed"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(20));
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z")
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(Instant::now() < deadline, "its child runs on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
