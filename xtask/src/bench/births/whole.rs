//! Whole recordings of leakwatch between untraced windows of the same length.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::counters::Window;
use crate::bench::recording::{Account, OfBirths};
use crate::bench::rounds::{self, Pass, Plan};
use crate::bench::workloads::{Measure, Subject};
use crate::bench::{processor_time, programs, tracers};
use crate::run;

/// How much longer than its window a recording may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One recording, from leakwatch's start to its end.
pub struct Recorded {
    pub window: Window,
    /// leakwatch's own processor time, as a part of one CPU.
    pub cpu: f64,
    pub account: Account,
    pub births: OfBirths,
}

/// Records for `window` with `options` beside the default ones, and waits for the end.
///
/// # Errors
/// When the program ends, or leakwatch fails or hangs.
pub fn record(
    subject: &mut Subject,
    leakwatch: &Path,
    window: Duration,
    options: &[&str],
) -> Result<Recorded> {
    let folder = tracers::scratch()?;
    let (path, words) = (
        folder.path().join("recording.json"),
        folder.path().join("words.txt"),
    );
    let mut command = Command::new(leakwatch);
    command
        .args(["record", "--pid", &subject.target().to_string()])
        .args(["--duration", &format!("{}s", window.as_secs())])
        .args(options)
        .arg("-o")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&words).context("cannot make a temporary file")?);
    let (before, cpu_before) = (subject.program.counters()?, processor_time::of_children()?);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
    // It cannot have ended well before, and looking costs time that the program may want.
    std::thread::sleep(window);
    let status = programs::wait(&mut child, PATIENCE);
    if !matches!(status, Ok(Some(_))) {
        programs::end(&mut child);
    }
    let said = || fs::read_to_string(&words).unwrap_or_default().trim().to_owned();
    let status = status?.with_context(|| format!("leakwatch does not end; it said: {}", said()))?;
    let window = Window::between(&before, &subject.program.counters()?);
    ensure!(status.success(), "leakwatch failed ({status}): {}", said());
    let text = fs::read_to_string(&path).context("leakwatch left no recording")?;
    Ok(Recorded {
        cpu: (processor_time::of_children()? - cpu_before) / window.seconds(),
        account: Account::of(&text).context("leakwatch's recording is no JSON")?,
        births: OfBirths::of(&text)?,
        window,
    })
}

/// All rounds: a pass for each recording, and what it says of births. One process serves for all of them, but where it
/// grows each has its own: a recording of a large heap is another than that of a small one.
///
/// # Errors
/// When the program cannot be started or ends, or leakwatch fails.
pub fn passes(measure: &Measure, leakwatch: &Path, plan: &Plan) -> Result<(Vec<Pass>, Vec<OfBirths>)> {
    let (mut passes, mut told) = (Vec::new(), Vec::new());
    let mut at_work: Option<(Subject, Vec<Option<f64>>)> = None;
    for round in 1..=plan.rounds {
        let (mut subject, before) = match at_work.take() {
            Some(at_work) => at_work,
            None => {
                let mut subject = measure.start()?;
                std::thread::sleep(plan.settle);
                let before = rounds::values(measure, &rounds::untraced(&mut subject.program, plan)?);
                (subject, before)
            }
        };
        let recorded = record(&mut subject, leakwatch, plan.window, &[])?;
        std::thread::sleep(plan.settle);
        let after = rounds::values(measure, &rounds::untraced(&mut subject.program, plan)?);
        let during = rounds::values(measure, &recorded.window);
        let pass = rounds::pass(measure, &before, &during, &after, recorded.cpu, recorded.account);
        eprintln!(
            "  round {round} of {}, leakwatch: {}",
            plan.rounds,
            rounds::told(&pass.slowdowns)
        );
        passes.push(pass);
        told.push(recorded.births);
        at_work = (!measure.grows).then_some((subject, after));
    }
    Ok((passes, told))
}
