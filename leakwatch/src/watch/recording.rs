//! A recording that an alert begins: leakwatch itself, as a child, for a bounded window.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::alert::Alert;

/// One service is not recorded again for so long.
const SAME_AGAIN: Duration = Duration::from_secs(3600);
/// Nor is any within so long.
const ANY_AGAIN: Duration = Duration::from_secs(300);
/// Files that one watch leaves at most: weeks of alerts must not fill the disk.
const FILES_MAX: u32 = 100;
/// What a recording takes over its window: attaching, reading heaps, symbols.
const OVER_WINDOW: Duration = Duration::from_secs(300);
/// At the end of the watch it is asked to end early, and gets so long for its report.
const FAREWELL: Duration = Duration::from_secs(20);
/// Bytes of what it says on stderr that are looked at.
const SAID_MAX: u64 = 64 * 1024;

#[derive(Debug)]
struct Running {
    child: Child,
    alert: Alert,
    file: PathBuf,
    deadline: Instant,
}

/// Starts them, one at a time, and not too often.
#[derive(Debug)]
pub struct Recorder {
    window: Duration,
    folder: PathBuf,
    program: PathBuf,
    running: Option<Running>,
    /// By service; of the last hour only.
    last: HashMap<String, Instant>,
    last_of_any: Option<Instant>,
    files: u32,
}

impl Recorder {
    /// Recordings of so long a window, into a folder.
    #[must_use]
    pub fn new(window: Duration, folder: PathBuf) -> Self {
        Self {
            window,
            folder,
            // This very program, also when its file was replaced since.
            program: PathBuf::from("/proc/self/exe"),
            running: None,
            last: HashMap::new(),
            last_of_any: None,
            files: 0,
        }
    }

    /// Begins one for an alert, where it may; the file that it will be in.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn begin(&mut self, alert: &Alert) -> Result<Option<PathBuf>, String> {
        let now = Instant::now();
        let within = |last: Instant, span: Duration| now.duration_since(last) < span;
        self.last.retain(|_, last| within(*last, SAME_AGAIN));
        let too_soon = self.running.is_some()
            || self.files >= FILES_MAX
            || self.last.contains_key(&alert.service)
            || self.last_of_any.is_some_and(|last| within(last, ANY_AGAIN));
        if too_soon {
            return Ok(None);
        }
        let file = self.folder.join(file_name(alert));
        let mut command = Command::new(&self.program);
        command
            .args(["record", "--pid", &alert.pid.to_string(), "--duration"])
            .arg(format!("{}ms", self.window.as_millis()))
            .arg("--output")
            .arg(&file);
        // What its options default to is not for the environment of the watch to say.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"LEAKWATCH_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("leakwatch record cannot be started: {error}"))?;
        self.last.insert(alert.service.clone(), now);
        self.last_of_any = Some(now);
        self.files += 1;
        self.running = Some(Running {
            child,
            alert: alert.clone(),
            file: file.clone(),
            deadline: now + self.window + OVER_WINDOW,
        });
        Ok(Some(file))
    }

    /// The alert of a recording that has ended, with its file or why there is none.
    pub fn ended(&mut self) -> Option<(Alert, Result<PathBuf, String>)> {
        let running = self.running.as_mut()?;
        let outcome = match running.child.try_wait() {
            Ok(None) if Instant::now() < running.deadline => return None,
            Ok(None) => {
                let _ = running.child.kill();
                let _ = running.child.wait();
                Err("it took too long and was killed".to_owned())
            }
            Ok(Some(_)) if running.file.exists() => Ok(running.file.clone()),
            Ok(Some(status)) => {
                Err(said(&mut running.child).unwrap_or_else(|| format!("it failed ({status})")))
            }
            Err(error) => Err(format!("it cannot be waited for: {error}")),
        };
        let running = self.running.take()?;
        Some((running.alert, outcome))
    }

    /// Asks the one that runs to end with what it has, and waits a while for it.
    pub fn finish(&mut self) -> Option<(Alert, Result<PathBuf, String>)> {
        let running = self.running.as_mut()?;
        let pid = i32::try_from(running.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::INT);
        }
        running.deadline = running.deadline.min(Instant::now() + FAREWELL);
        loop {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The last line that it said, which is its error.
fn said(child: &mut Child) -> Option<String> {
    let mut said = Vec::new();
    child.stderr.take()?.take(SAID_MAX).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.strip_prefix("leakwatch: ").unwrap_or(line).to_owned())
}

/// `leakwatch-server-4242-2026-11-27T035106Z.json`: no letter of the name that a shell or a file system would mind.
fn file_name(alert: &Alert) -> String {
    let name: String = alert
        .service
        .chars()
        .take(40)
        .map(|letter| {
            if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-') {
                letter
            } else {
                '_'
            }
        })
        .collect();
    let at = alert.at.text().replace(':', "");
    format!("leakwatch-{name}-{}-{at}.json", alert.pid)
}

#[cfg(test)]
mod tests {
    use super::super::alert::{Event, Growth};
    use super::super::thresholds::Threshold;
    use super::*;
    use crate::history::At;
    use crate::history::figures::Figures;

    fn alert(service: &str) -> Alert {
        Alert {
            at: At(1_795_751_466_000),
            event: Event::Raised,
            threshold: Threshold::Rate,
            service: service.to_owned(),
            cgroup: String::new(),
            pid: 4242,
            value: None,
            bound: 1.0,
            figures: Figures::default(),
            growth: Growth::default(),
            recording: None,
            reason: None,
        }
    }

    fn recorder(script: &str, folder: &std::path::Path) -> Recorder {
        use std::os::unix::fs::PermissionsExt;
        let program = folder.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        Recorder {
            program,
            ..Recorder::new(Duration::from_secs(1), folder.to_owned())
        }
    }

    fn end_of(recorder: &mut Recorder) -> Result<PathBuf, String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some((_, outcome)) = recorder.ended() {
                return outcome;
            }
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn hostile_names_make_tame_files() {
        assert_eq!(
            file_name(&alert("../a b\x1b;rm")),
            "leakwatch-___a_b__rm-4242-2026-11-27T035106Z.json"
        );
        assert!(file_name(&alert(&"é".repeat(500))).len() < 100);
    }

    #[test]
    fn one_at_a_time_and_not_too_often() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = recorder("for last; do :; done; echo {} > \"$last\"", folder.path());
        let file = recorder.begin(&alert("a")).unwrap().unwrap();
        assert_eq!(recorder.begin(&alert("b")).unwrap(), None, "one is running");
        assert_eq!(end_of(&mut recorder).unwrap(), file);
        assert_eq!(recorder.begin(&alert("b")).unwrap(), None, "one has just been");
        recorder.last_of_any = None;
        assert_eq!(
            recorder.begin(&alert("a")).unwrap(),
            None,
            "the same has just been"
        );
        assert!(recorder.begin(&alert("b")).unwrap().is_some());
        end_of(&mut recorder).unwrap();
        recorder.files = FILES_MAX;
        recorder.last_of_any = None;
        assert_eq!(recorder.begin(&alert("c")).unwrap(), None, "there are enough");
    }

    #[test]
    fn a_recording_that_fails_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = recorder("echo 'leakwatch: no BPF here' >&2; exit 1", folder.path());
        recorder.begin(&alert("a")).unwrap().unwrap();
        assert_eq!(end_of(&mut recorder), Err("no BPF here".to_owned()));
        assert!(recorder.finish().is_none());
    }
}
