//! Whole recordings of leakwatch between untraced windows.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::beside::{self, Beside, Done};
use crate::bench::counters::Window;
use crate::bench::ratio::slowdown_of_rates;
use crate::bench::recording::{Account, OfBirths};
use crate::bench::rounds::{self, Pass, Plan};
use crate::bench::workloads::{Measure, Subject};
use crate::bench::yardstick::Yardstick;
use crate::bench::{processor_time, programs, tracers};
use crate::run;

/// How much longer than its window a recording may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the target did between two moments.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub window: Window,
    /// The target's processor time.
    pub cpu_seconds: f64,
    /// What works beside it.
    pub beside: Done,
}

impl Stretch {
    /// Begins a stretch, has `meanwhile` happen, and ends the stretch.
    ///
    /// # Errors
    /// When the program has ended, or what happens meanwhile fails.
    pub fn of<T>(
        subject: &mut Subject,
        beside: &mut Beside<'_>,
        meanwhile: impl FnOnce(&mut Subject) -> Result<T>,
    ) -> Result<(Self, T)> {
        let mark = beside.mark()?;
        let (before, cpu_before) = (
            subject.program.counters()?,
            processor_time::of_threads(subject.target())?,
        );
        let result = meanwhile(subject)?;
        let window = Window::between(&before, &subject.program.counters()?);
        let stretch = Self {
            window,
            cpu_seconds: processor_time::of_threads(subject.target())? - cpu_before,
            beside: beside.since(&mark)?,
        };
        Ok((stretch, result))
    }

    /// In which nothing is recorded.
    fn untraced(subject: &mut Subject, beside: &mut Beside<'_>, window: Duration) -> Result<Self> {
        let (stretch, ()) = Self::of(subject, beside, |_| {
            std::thread::sleep(window);
            Ok(())
        })?;
        Ok(stretch)
    }

    /// Processor time of the target, and of its twin, by the second.
    fn cpus(&self) -> f64 {
        (self.cpu_seconds + self.beside.cpu_seconds) / self.window.seconds()
    }
}

/// One recording, from leakwatch's start to its end.
pub struct Recorded {
    pub stretch: Stretch,
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
    beside: &mut Beside<'_>,
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
    let cpu_before = processor_time::of_children()?;
    let (stretch, status) = Stretch::of(subject, beside, |_| {
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
        // It cannot have ended well before, and looking costs time that the program may want.
        std::thread::sleep(window);
        let status = programs::wait(&mut child, PATIENCE);
        if !matches!(status, Ok(Some(_))) {
            programs::end(&mut child);
        }
        status
    })?;
    let said = || fs::read_to_string(&words).unwrap_or_default().trim().to_owned();
    let status = status.with_context(|| format!("leakwatch does not end; it said: {}", said()))?;
    ensure!(status.success(), "leakwatch failed ({status}): {}", said());
    let text = fs::read_to_string(&path).context("leakwatch left no recording")?;
    Ok(Recorded {
        cpu: (processor_time::of_children()? - cpu_before) / stretch.window.seconds(),
        account: Account::of(&text).context("leakwatch's recording is no JSON")?,
        births: OfBirths::of(&text)?,
        stretch,
    })
}

/// One recording beside its neighbours.
pub struct Whole {
    pub pass: Pass,
    pub births: OfBirths,
    /// How many times slower the first figure was, where it is a rate, by the speed of what works beside the target in each
    /// window.
    pub steadied: Option<f64>,
    /// The same by what has next to no noise, where the target takes all processor time that it can get.
    pub reckoned: Option<f64>,
}

impl Whole {
    fn of(measure: &Measure, before: &Stretch, recorded: Recorded, after: &Stretch) -> Self {
        let during = &recorded.stretch;
        let values = |stretch: &Stretch| rounds::values(measure, &stretch.window);
        let pass = rounds::pass(
            measure,
            &values(before),
            &values(during),
            &values(after),
            recorded.cpu,
            recorded.account,
        );
        Self {
            steadied: steadied(measure, [before, during, after]),
            reckoned: reckoned(measure, [before, during, after], &recorded.births),
            births: recorded.births,
            pass,
        }
    }

    /// As the table by the clock has it. What grows is slower in a recording than in the mean of the windows before and
    /// after it, recorded or not: the first figure of it is by its twin, which grows alike.
    pub fn of_table(mut self, measure: &Measure) -> Pass {
        if measure.has_twin()
            && let Some(first) = self.pass.slowdowns.first_mut()
        {
            *first = self.steadied;
        }
        self.pass
    }
}

/// How many times slower the first figure was in the second stretch, where it is a rate, by the speed of what works beside
/// the target. Not of a process that waits for others: the caches that it shares with them slow the yardstick more than it.
fn steadied(measure: &Measure, stretches: [&Stretch; 3]) -> Option<f64> {
    if measure.is_client() {
        return None;
    }
    let rate = |stretch: &Stretch| Some((measure.rate()?.read)(&stretch.window)? / stretch.beside.speed);
    let [before, during, after] = stretches.map(rate);
    Some(slowdown_of_rates(before?, during?, after?))
}

/// How many times slower the target was in the second stretch by what has next to no noise, where it takes all processor
/// time it can get.
fn reckoned(measure: &Measure, stretches: [&Stretch; 3], births: &OfBirths) -> Option<f64> {
    if !measure.is_at_full_speed() {
        return None;
    }
    let [_, during, _] = stretches;
    let (spent, withheld) = births.watched().map_or((0.0, 0.0), |births| {
        (
            births.spent_seconds / during.cpu_seconds,
            births.withheld_seconds / during.cpu_seconds,
        )
    });
    let cpus = stretches.map(Stretch::cpus);
    if !measure.has_twin() {
        return Some(alone(cpus, spent));
    }
    let pace = |stretch: &Stretch| Some(stretch.window.units()? / stretch.cpu_seconds / stretch.beside.speed);
    let [before, during, after] = stretches.map(pace);
    Some(beside_twin(cpus, [before?, during?, after?], withheld))
}

/// Of a target by itself: how much less processor time it had, and what births cost within it by leakwatch's count. What was
/// withheld from it is in the first.
fn alone([before, during, after]: [f64; 3], spent: f64) -> f64 {
    slowdown_of_rates(before, during, after) / (1.0 - spent)
}

/// Of one with a twin: how much less processor time both had together, and how much more of it the target took for its work
/// than the twin. What was withheld from the target its twin had: that is leakwatch's count.
fn beside_twin(cpus: [f64; 3], [before, during, after]: [f64; 3], withheld: f64) -> f64 {
    alone(cpus, withheld) * slowdown_of_rates(before, during, after)
}

/// The first figure in one window.
///
/// # Errors
/// When the program cannot be started or ends, or has not worked.
pub fn full_speed(measure: &Measure, plan: &Plan) -> Result<f64> {
    let mut subject = measure.start()?;
    std::thread::sleep(plan.settle);
    let window = rounds::untraced(&mut subject.program, plan)?;
    let first = rounds::values(measure, &window).first().copied().flatten();
    first.context("the program has not worked")
}

/// All rounds. One process serves for all of them, but where it grows each has its own: a recording of a large heap is
/// another than that of a small one. Beside that there is a twin, which grows alike: the mean of the windows before and after a
/// recording is faster than what lies between, the more the younger the process. An untraced window is half as long as a
/// recording: that has two of them beside it.
///
/// # Errors
/// When the program cannot be started or ends, or leakwatch fails.
pub fn all(
    measure: &Measure,
    yardstick: &mut Yardstick,
    leakwatch: &Path,
    plan: &Plan,
) -> Result<Vec<Whole>> {
    let mut wholes = Vec::new();
    let mut at_work: Option<(Subject, Stretch)> = None;
    for round in 1..=plan.rounds {
        let (mut subject, mut beside, before) = if let Some((subject, before)) = at_work.take() {
            (subject, Beside::Yardstick(yardstick), before)
        } else {
            let (mut subject, mut beside) = if measure.has_twin() {
                let twins = beside::twins(measure, round % 2 == 0)?;
                // Each has half of the CPUs: as large as one by itself it is when it is twice as old.
                std::thread::sleep(plan.window / 2);
                twins
            } else {
                (measure.start()?, Beside::Yardstick(yardstick))
            };
            std::thread::sleep(plan.settle);
            let before = Stretch::untraced(&mut subject, &mut beside, plan.window / 2)?;
            (subject, beside, before)
        };
        let recorded = record(&mut subject, &mut beside, leakwatch, plan.window, &[])?;
        std::thread::sleep(plan.settle);
        let after = Stretch::untraced(&mut subject, &mut beside, plan.window / 2)?;
        let whole = Whole::of(measure, &before, recorded, &after);
        let told = |of: &str, times: Option<f64>| {
            times.map_or_else(String::new, |times| format!("; {of} {times:.3}x"))
        };
        eprintln!(
            "  round {round} of {}, leakwatch: {}{}{}",
            plan.rounds,
            rounds::told(&whole.pass.slowdowns),
            told("steadied", whole.steadied),
            told("reckoned", whole.reckoned)
        );
        wholes.push(whole);
        if !measure.grows {
            at_work = Some((subject, after));
        }
    }
    Ok(wholes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-9, "{value} and not {expected}");
    }

    #[test]
    fn what_is_reckoned_is_all_that_slows() {
        is_near(alone([1.96, 1.96, 1.96], 0.0), 1.0);
        is_near(alone([1.9, 1.9, 1.9], 0.01), 1.0 / 0.99);
        is_near(alone([1.9, 0.95, 1.9], 0.0), 2.0);
        is_near(beside_twin([2.0; 3], [1.1, 1.0, 1.1], 0.0), 1.1);
        // Both grow slower and slower, or the machine does: no difference between them.
        is_near(beside_twin([2.0, 1.9, 2.0], [0.9; 3], 0.05), 2.0 / 1.9 / 0.95);
    }
}
