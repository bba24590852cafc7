//! Traced windows between untraced ones.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::counters::{Counters, Window};
use super::peers::Peer;
use super::programs::Program;
use super::ratio::slowdown;
use super::recording::Account;
use super::tracers::{Running, Tracer};
use super::workloads::{Measure, Subject};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rounds: u32,
    pub window: Duration,
    /// Between a change of tracer and the window after it.
    pub settle: Duration,
}

/// One traced window between its neighbours. Values are in the order of [`Measure::figures`].
#[derive(Debug)]
pub struct Pass {
    /// The mean of the neighbours.
    pub untraced: Vec<Option<f64>>,
    pub traced: Vec<Option<f64>>,
    /// How many times slower; nothing where the program has not worked in one of the windows.
    pub slowdowns: Vec<Option<f64>>,
    /// The tracer's own processor time by the window.
    pub cpu: f64,
    pub account: Account,
}

/// What became of one tracer on one workload.
#[derive(Debug)]
pub enum Outcome {
    Passes(Vec<Pass>),
    Missing,
    /// And why.
    Failed(String),
}

/// Runs all rounds on one process: an untraced window, then each tracer's with another untraced one behind it. Returns
/// an outcome for each tracer.
///
/// # Errors
/// When the program ends, or leakwatch fails. A peer that fails is left out from then on, and stderr says why.
pub fn run(
    subject: &mut Subject,
    measure: &Measure,
    tracers: &[Tracer],
    plan: &Plan,
) -> Result<Vec<Outcome>> {
    let target = subject.target();
    let mut outcomes: Vec<Outcome> = tracers
        .iter()
        .map(|tracer| match tracer {
            Tracer::Missing(_) => Outcome::Missing,
            _ => Outcome::Passes(Vec::new()),
        })
        .collect();
    let values = |window: &Window| values(measure, window);
    std::thread::sleep(plan.settle);
    let mut before = values(&untraced(&mut subject.program, plan)?);
    for round in 1..=plan.rounds {
        for (tracer, outcome) in tracers.iter().zip(&mut outcomes) {
            let Outcome::Passes(passes) = outcome else {
                continue;
            };
            match traced(&mut subject.program, target, measure, tracer, plan) {
                Ok((window, cpu, account)) => {
                    std::thread::sleep(plan.settle);
                    let after = values(&untraced(&mut subject.program, plan)?);
                    let pass = pass(measure, &before, &values(&window), &after, cpu, account);
                    eprintln!(
                        "  round {round} of {}, {}: {}",
                        plan.rounds,
                        tracer.name(),
                        told(&pass.slowdowns)
                    );
                    passes.push(pass);
                    before = after;
                }
                Err(error) if matches!(tracer, Tracer::Peer(_)) => {
                    eprintln!("  {} is left out here: {error:#}", tracer.name());
                    *outcome = Outcome::Failed(format!("{error:#}"));
                    std::thread::sleep(plan.settle);
                    before = values(&untraced(&mut subject.program, plan)?);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(outcomes)
}

/// What the measure reads from a window.
pub fn values(measure: &Measure, window: &Window) -> Vec<Option<f64>> {
    let figures = measure.figures.iter();
    figures.map(|figure| (figure.read)(window)).collect()
}

/// A traced window between its neighbours.
pub fn pass(
    measure: &Measure,
    before: &[Option<f64>],
    traced: &[Option<f64>],
    after: &[Option<f64>],
    cpu: f64,
    account: Account,
) -> Pass {
    let mut untraced = Vec::new();
    let mut slowdowns = Vec::new();
    for (((figure, before), traced), after) in measure.figures.iter().zip(before).zip(traced).zip(after) {
        untraced.push(
            before
                .zip(*after)
                .map(|(before, after)| f64::midpoint(before, after)),
        );
        let known = before.zip(*traced).zip(*after);
        slowdowns
            .push(known.map(|((before, traced), after)| slowdown(figure.direction, before, traced, after)));
    }
    Pass {
        untraced,
        traced: traced.to_vec(),
        slowdowns,
        cpu,
        account,
    }
}

/// The slowdowns of a pass, for stderr.
pub fn told(slowdowns: &[Option<f64>]) -> String {
    let each = slowdowns.iter().map(|slowdown| match slowdown {
        Some(ratio) => format!("{ratio:.3}x"),
        None => "no figure".to_owned(),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// A window in which nothing but the program works.
///
/// # Errors
/// When the program has ended.
pub fn untraced(program: &mut Program, plan: &Plan) -> Result<Window> {
    let before = program.counters()?;
    std::thread::sleep(plan.window);
    Ok(Window::between(&before, &program.counters()?))
}

/// The window, the tracer's processor time by it, and what the recording says.
fn traced(
    program: &mut Program,
    target: u32,
    measure: &Measure,
    tracer: &Tracer,
    plan: &Plan,
) -> Result<(Window, f64, Account)> {
    let running = tracer.attach(target)?;
    std::thread::sleep(plan.settle);
    let started = moment(program, &running)?;
    std::thread::sleep(plan.window);
    let stopped = moment(program, &running)?;
    let ended = running.finish()?;
    let nothing_to_see = tracer.peer().is_some_and(Peer::watches_pages) && !measure.faults;
    ensure!(
        ended.has_seen || nothing_to_see,
        "{} has seen nothing of what it watches: it did not do the job",
        tracer.name()
    );
    let window = Window::between(&started.0, &stopped.0);
    let cpu = (stopped.1 - started.1) / window.seconds();
    Ok((window, cpu, ended.account))
}

fn moment(program: &mut Program, tracer: &Running) -> Result<(Counters, f64)> {
    Ok((program.counters()?, tracer.cpu_seconds()?))
}
