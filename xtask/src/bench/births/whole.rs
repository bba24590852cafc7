//! Whole recordings of leakwatch between untraced windows.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::counters::Window;
use crate::bench::ratio::slowdown_of_rates;
use crate::bench::recording::{Account, OfBirths};
use crate::bench::rounds::{self, Pass, Plan};
use crate::bench::workloads::{Measure, Subject};
use crate::bench::yardstick::{self, Yardstick};
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
    /// What the yardstick did in a second of its own processor time meanwhile.
    pub speed: f64,
}

impl Stretch {
    /// Begins a stretch, has `meanwhile` happen, and ends the stretch.
    ///
    /// # Errors
    /// When the program has ended, or what happens meanwhile fails.
    pub fn of<T>(
        subject: &mut Subject,
        yardstick: &mut Yardstick,
        meanwhile: impl FnOnce(&mut Subject) -> Result<T>,
    ) -> Result<(Self, T)> {
        let yards = yardstick.counters()?;
        let (before, cpu_before) = (
            subject.program.counters()?,
            processor_time::of_threads(subject.target())?,
        );
        let result = meanwhile(subject)?;
        let window = Window::between(&before, &subject.program.counters()?);
        let stretch = Self {
            window,
            cpu_seconds: processor_time::of_threads(subject.target())? - cpu_before,
            speed: yardstick::speed(&Window::between(&yards, &yardstick.counters()?))?,
        };
        Ok((stretch, result))
    }

    /// In which nothing is recorded.
    fn untraced(subject: &mut Subject, yardstick: &mut Yardstick, window: Duration) -> Result<Self> {
        let (stretch, ()) = Self::of(subject, yardstick, |_| {
            std::thread::sleep(window);
            Ok(())
        })?;
        Ok(stretch)
    }

    /// Processor time of the target by the second.
    fn cpus(&self) -> f64 {
        self.cpu_seconds / self.window.seconds()
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
    yardstick: &mut Yardstick,
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
    let (stretch, status) = Stretch::of(subject, yardstick, |_| {
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
    /// How many times slower the first figure was, where it is a rate, by the speed of the yardstick in each window.
    pub steadied: Option<f64>,
    /// How many times less processor time the target had, where it takes all it can get: of it that is a part of the
    /// slowdown that has next to no noise.
    pub deprived: Option<f64>,
    /// What births cost of the processor time that it had, as leakwatch counts.
    pub spent: f64,
}

impl Whole {
    /// As it is where what comes of the process's age is left out, as `control` shows it.
    fn beside(mut self, control: &Control) -> Self {
        let without = |value: Option<f64>, age: Option<f64>| Some(value? / age?);
        self.steadied = without(self.steadied, control.steadied);
        self.deprived = without(self.deprived, control.deprived);
        self
    }

    /// The slowdown by counting.
    pub fn reckoned(&self) -> Option<f64> {
        Some(self.deprived? / (1.0 - self.spent))
    }

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
            deprived: deprived(measure, [before, during, after]),
            spent: recorded
                .births
                .watched()
                .map_or(0.0, |births| births.spent_seconds / during.cpu_seconds),
            births: recorded.births,
            pass,
        }
    }
}

/// How many times slower the first figure was in the second stretch, where it is a rate, by the speed of the yardstick.
fn steadied(measure: &Measure, stretches: [&Stretch; 3]) -> Option<f64> {
    let rate = |stretch: &Stretch| Some((measure.rate()?.read)(&stretch.window)? / stretch.speed);
    let [before, during, after] = stretches.map(rate);
    Some(slowdown_of_rates(before?, during?, after?))
}

/// How many times less processor time the target had in the second stretch, where it takes all it can get.
fn deprived(measure: &Measure, stretches: [&Stretch; 3]) -> Option<f64> {
    let [before, during, after] = stretches.map(Stretch::cpus);
    measure
        .is_at_full_speed()
        .then(|| slowdown_of_rates(before, during, after))
}

/// The same three windows of another process without a recording. One that grows is the faster the younger it is, and more so
/// at its start: the mean of before and after is faster than what lies between, whatever is done to it.
struct Control {
    steadied: Option<f64>,
    deprived: Option<f64>,
}

impl Control {
    /// `between` is as long as a recording takes.
    fn measured(
        measure: &Measure,
        yardstick: &mut Yardstick,
        plan: &Plan,
        between: Duration,
    ) -> Result<Self> {
        let mut subject = measure.start()?;
        std::thread::sleep(plan.settle);
        let before = Stretch::untraced(&mut subject, yardstick, plan.window / 2)?;
        let during = Stretch::untraced(&mut subject, yardstick, between)?;
        std::thread::sleep(plan.settle);
        let after = Stretch::untraced(&mut subject, yardstick, plan.window / 2)?;
        let stretches = [&before, &during, &after];
        Ok(Self {
            steadied: steadied(measure, stretches),
            deprived: deprived(measure, stretches),
        })
    }
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
/// another than that of a small one; and each has a control beside it. An untraced window is half as long as a recording:
/// that has two of them beside it.
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
        let (mut subject, before) = match at_work.take() {
            Some(at_work) => at_work,
            None => {
                let mut subject = measure.start()?;
                std::thread::sleep(plan.settle);
                let before = Stretch::untraced(&mut subject, yardstick, plan.window / 2)?;
                (subject, before)
            }
        };
        let recorded = record(&mut subject, yardstick, leakwatch, plan.window, &[])?;
        std::thread::sleep(plan.settle);
        let after = Stretch::untraced(&mut subject, yardstick, plan.window / 2)?;
        let took = Duration::from_secs_f64(recorded.stretch.window.seconds());
        let mut whole = Whole::of(measure, &before, recorded, &after);
        let told = |of: &str, times: Option<f64>| {
            times.map_or_else(String::new, |times| format!("; {of} {times:.3}x"))
        };
        let mut line = format!(
            "  round {round} of {}, leakwatch: {}{}",
            plan.rounds,
            rounds::told(&whole.pass.slowdowns),
            told("steadied", whole.steadied)
        );
        if measure.grows {
            drop(subject);
            let control = Control::measured(measure, yardstick, plan, took)?;
            whole = whole.beside(&control);
            line.push_str(&told("the same without leakwatch", control.steadied));
        } else {
            at_work = Some((subject, after));
        }
        eprintln!("{line}");
        wholes.push(whole);
    }
    Ok(wholes)
}
