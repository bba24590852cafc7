//! Running the live tests, suite by suite.
//!
//! They measure: parts of a processor, shares of what was sampled, times. Each is right but for a small chance, and there are
//! hundreds. One that fails is run once more, alone on the machine; what fails alone as well has failed, and what does not
//! is told by name at the end.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::run;

/// Tests of a suite that run at once. Each watches a process at work, and more would only fight for the processors;
const AT_ONCE: &str = "2";
/// these wait for windows to pass, most of the time.
const WAITING: [&str; 4] = ["trends", "verdicts", "watch", "scan"];
const AT_ONCE_WAITING: &str = "4";

/// What the suites are run with.
pub struct Suites {
    /// Folder of the C libraries of other suites of the distribution.
    pub glibcs: PathBuf,
    /// The leakwatch under test.
    pub program: PathBuf,
    pub no_kernel: bool,
    /// Where each test notes whether it ran.
    pub log: PathBuf,
}

impl Suites {
    /// Runs every test of these files, or those whose name contains `name`. Returns those that passed only when run again.
    ///
    /// # Errors
    ///
    /// Which tests failed, after all of them ran.
    pub fn run(&self, files: &[String], name: Option<&str>) -> Result<Vec<String>> {
        let mut failed = Vec::new();
        let (mut again, mut broken) = (Vec::new(), Vec::new());
        for file in files {
            let at_once = if WAITING.contains(&file.as_str()) {
                AT_ONCE_WAITING
            } else {
                AT_ONCE
            };
            let mut arguments = vec!["--test-threads", at_once];
            arguments.extend(name);
            let outcome = self.suite(file, &arguments, true)?;
            if !outcome.passed && outcome.failed.is_empty() {
                broken.push(format!("{file} ended before its tests did"));
            }
            failed.extend(outcome.failed.into_iter().map(|test| (file, test)));
        }
        for (file, test) in failed {
            run::heading(&format!("{test} of {file} failed: once more, alone"));
            if self.suite(file, &["--exact", &test], false)?.passed {
                again.push(format!("{file}::{test}"));
            } else {
                broken.push(format!("{file}::{test}"));
            }
        }
        if !broken.is_empty() {
            bail!("live tests failed: {}", broken.join(", "));
        }
        Ok(again)
    }

    fn suite(&self, file: &str, arguments: &[&str], noted: bool) -> Result<Outcome> {
        let mut command = run::cargo(&["test", "--workspace", "--test", file, "--"]);
        command.args(arguments);
        command
            .env("LEAKWATCH_GLIBCS", &self.glibcs)
            .env("LEAKWATCH_BIN", &self.program)
            .env_remove("LEAKWATCH_NO_KERNEL")
            .env_remove("LEAKWATCH_LIVE_LOG");
        if noted {
            command.env("LEAKWATCH_LIVE_LOG", &self.log);
        }
        if self.no_kernel {
            command.env("LEAKWATCH_NO_KERNEL", "1");
        }
        let line = run::shown(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{line}`"))?;
        let mut failed = Vec::new();
        let output = child.stdout.take().context("stdout was asked for")?;
        let mut stdout = std::io::stdout().lock();
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            stdout.write_all(&line)?;
            stdout.write_all(b"\n")?;
            failed.extend(failed_test(&String::from_utf8_lossy(&line)));
        }
        drop(stdout);
        let passed = child.wait()?.success();
        Ok(Outcome { passed, failed })
    }
}

struct Outcome {
    passed: bool,
    /// By name.
    failed: Vec<String>,
}

/// The name of the test that this line of a test program says has failed.
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.strip_suffix(" - should panic").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_known_by_their_lines() {
        assert_eq!(failed_test("test storm ... FAILED"), Some("storm".to_owned()));
        assert_eq!(
            failed_test("test a::b - should panic ... FAILED"),
            Some("a::b".to_owned())
        );
        assert_eq!(failed_test("test storm ... ok"), None);
        assert_eq!(failed_test("a test storm ... FAILED"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed"), None);
    }
}
