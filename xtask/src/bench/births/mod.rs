//! What watching births costs: uprobes on the allocator, in bursts that are spread over a recording's window.
//!
//! A short window says little of them, so that whole recordings are measured here, from leakwatch's start to its end.
//! The peers slow their target all the time: short windows do for them, each peer on a process of its own, since some
//! do not leave it alive.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::redis;
use super::rounds::{self, Outcome, Plan};
use super::table::{self, Line};
use super::tracers::Tracer;
use super::workloads::{self, Measure};
use super::yardstick::Yardstick;
use crate::run;

mod accounts;
mod beside;
mod rates;
mod whole;

use accounts::Accounts;

/// How long and how often, of each part.
struct Plans {
    /// Of recordings.
    whole: Plan,
    /// Of peers.
    short: Plan,
    /// Of a recording at one rate of malloc.
    rate: Plan,
}

impl Plans {
    fn new(quick: bool, rounds: Option<u32>) -> Self {
        let plan = |rounds, seconds, settle| Plan {
            rounds,
            window: Duration::from_secs(seconds),
            settle: Duration::from_millis(settle),
        };
        let mut plans = if quick {
            Self {
                whole: plan(1, 5, 100),
                short: plan(1, 1, 100),
                rate: plan(1, 2, 100),
            }
        } else {
            Self {
                whole: plan(6, 30, 250),
                short: plan(1, 5, 250),
                rate: plan(3, 10, 250),
            }
        };
        if let Some(rounds) = rounds {
            plans.whole.rounds = rounds;
            plans.rate.rounds = rounds;
        }
        plans
    }
}

/// What is measured and told of one workload.
struct Part {
    lines: Vec<Line>,
    accounts: Accounts,
    /// Of peers: which, at what, and why.
    failures: Vec<Failure>,
}

struct Failure {
    peer: &'static str,
    workload: &'static str,
    why: String,
}

/// What is recorded with births.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// One thread mallocs and frees small blocks as fast as it can.
    Storm,
    /// A C++ server of 8 threads at full speed.
    Server,
    /// The same at 30 % of the full speed, which is measured first.
    Calm,
    /// redis on libc's malloc, where it is at hand.
    Redis,
}

/// What of the recordings with births is asked for.
pub struct Chosen<'a> {
    /// None: all.
    pub parts: &'a [PartName],
    pub quick: bool,
    /// How often each workload is recorded, where that was asked for.
    pub rounds: Option<u32>,
}

impl Chosen<'_> {
    fn has(&self, part: PartName) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// Measures and prints. `peers` are those of `Peer::OF_BIRTHS`.
///
/// # Errors
/// When a program or leakwatch fails. A peer that is missing or fails is told of in the table instead.
pub fn run(leakwatch: &Path, peers: &[Tracer], chosen: &Chosen, load: &str) -> Result<()> {
    let plans = Plans::new(chosen.quick, chosen.rounds);
    let mut yardstick = Yardstick::start()?;
    let mut part =
        |measure: &Measure, peers: &[Tracer]| part(measure, &mut yardstick, leakwatch, peers, &plans);
    let mut parts = Vec::new();
    if chosen.has(PartName::Storm) {
        parts.push(part(&workloads::malloc_storm_with_stalls(), peers)?);
    }
    if chosen.has(PartName::Server) {
        parts.push(part(&workloads::busy_server_at_full_speed(), peers)?);
    }
    if chosen.has(PartName::Calm) {
        // Of one that has all CPUs to itself.
        let full_speed = whole::full_speed(&workloads::busy_server_at_full_speed(), &plans.short)?;
        // At full speed the peers make it so slow that requests at this rate would only pile up.
        let mut calm = part(&workloads::busy_server_at_rate(full_speed), &[])?;
        for line in &mut calm.lines {
            line.cells.resize(1 + peers.len(), table::Cell::NoFigure);
        }
        parts.push(calm);
    }
    if chosen.has(PartName::Redis) {
        match redis::at_hand() {
            Ok(server) => parts.push(part(&workloads::redis(&server), peers)?),
            Err(why) => eprintln!("{why}"),
        }
    }

    let columns = [Tracer::Leakwatch(leakwatch.to_owned())];
    let columns: Vec<&str> = columns.iter().chain(peers).map(Tracer::name).collect();
    let lines: Vec<Line> = parts.iter().flat_map(|part| part.lines.clone()).collect();
    for doubt in table::doubts(&columns, &lines) {
        eprintln!("noise: {doubt}: windows differ by more than two times; try again on a quiet machine");
    }
    let notes = notes(parts.iter().flat_map(|part| &part.failures));
    let text = table::with_notes(table::markdown(&columns, &lines), &notes);
    table::print(&head(&plans, peers, load, chosen.has(PartName::Server)), &text);
    let accounts: Vec<&Accounts> = parts.iter().map(|part| &part.accounts).collect();
    table::print(
        "\nOf these recordings: *slowdown* of the first figure, mean and standard error; of a rate it is by the speed of a \
         yardstick: a program beside it that does the same again and again for two hundredths of the time, since the \
         machine itself is now faster and now slower; of redis, which waits for its clients, by the clock. *Reckoned*: the \
         same by what varies less, of a program that takes all processor time it can get: how much less of that it had, \
         and what births cost within it, as leakwatch counts. The server grows, and is the slower the older it is: its \
         yardstick is a second server of the same age at full speed; reckoned, both had less processor time together, the \
         recorded one needed more of it for a request than the other, and what was withheld from it is as leakwatch \
         counts. The others are medians: *spent* is leakwatch's own count of the target's time, *withheld* what the target \
         could not work while probes came and went; both are paid out of the budget.",
        &accounts::markdown(&accounts),
    );
    Ok(())
}

/// Measures whether the budget holds, and prints. `rounds` is how often at each rate, where that was asked for.
///
/// # Errors
/// When a program or leakwatch fails.
pub fn budget(leakwatch: &Path, quick: bool, rounds: Option<u32>) -> Result<()> {
    rates::run(leakwatch, &Plans::new(quick, rounds).rate)
}

fn head(plans: &Plans, peers: &[Tracer], load: &str, has_twin: bool) -> String {
    let whole = &plans.whole;
    let mut text = format!(
        "\n{}. Times slower than the same program untraced: median (lowest to highest) of {} {} of {:.0} s, whole \
         recordings with all that leakwatch does.",
        table::machine(peers, load),
        whole.rounds,
        if whole.rounds == 1 { "window" } else { "windows" },
        whole.window.as_secs_f64(),
    );
    if !peers.is_empty() {
        text.push_str(&format!(
            " Peers: one window of {:.0} s while they are attached.",
            plans.short.window.as_secs_f64()
        ));
    }
    if has_twin {
        text.push_str(
            " By the clock, but leakwatch's slowdown of the server at full speed: that is by a second server beside it, since \
             what grows is slower in a recording than in the mean of the windows before and after, recorded or not.",
        );
    }
    text
}

fn part(
    measure: &Measure,
    yardstick: &mut Yardstick,
    leakwatch: &Path,
    peers: &[Tracer],
    plans: &Plans,
) -> Result<Part> {
    run::heading(measure.title);
    let wholes = whole::all(measure, yardstick, leakwatch, &plans.whole)?;
    let accounts = Accounts::new(measure.title, &wholes);
    let passes = wholes.into_iter().map(|whole| whole.of_table(measure)).collect();
    let mut tracers = vec![Tracer::Leakwatch(leakwatch.to_owned())];
    let mut outcomes = vec![Outcome::Passes(passes)];
    let mut failures = Vec::new();
    for peer in peers {
        let outcome = short(measure, peer, &plans.short);
        if let Outcome::Failed(why) = &outcome {
            failures.push(Failure {
                peer: peer.name(),
                workload: measure.title,
                why: brief(why),
            });
        }
        tracers.push(peer.clone());
        outcomes.push(outcome);
    }
    let mut lines = table::lines(measure, &tracers, &outcomes);
    for line in &mut lines {
        // They say how pages are sampled, and this is of births.
        line.own = table::Own::default();
    }
    // By the neighbours of leakwatch's windows alone: the peers' are short, and their targets may have stood still.
    let own = table::lines(
        measure,
        tracers.get(..1).unwrap_or_default(),
        outcomes.get(..1).unwrap_or_default(),
    );
    for (line, own) in lines.iter_mut().zip(own) {
        line.untraced = own.untraced;
    }
    Ok(Part {
        lines,
        accounts,
        failures,
    })
}

/// A peer on a process of its own, which may not outlive it.
fn short(measure: &Measure, peer: &Tracer, plan: &Plan) -> Outcome {
    let outcomes = measure
        .start()
        .and_then(|mut subject| rounds::run(&mut subject, measure, std::slice::from_ref(peer), plan));
    match outcomes.map(|mut outcomes| outcomes.pop()) {
        Ok(Some(Outcome::Passes(passes))) if stood_still(&passes) => {
            Outcome::Failed("the program stood still while it was attached, or ever after".to_owned())
        }
        Ok(Some(outcome)) => outcome,
        Ok(None) => Outcome::Passes(Vec::new()),
        Err(error) => {
            eprintln!("  {} did harm: {error:#}", peer.name());
            Outcome::Failed(format!("{error:#}"))
        }
    }
}

/// Whether the target did no work in some window: then the first figure, which is a rate, has no slowdown.
fn stood_still(passes: &[rounds::Pass]) -> bool {
    passes
        .iter()
        .any(|pass| pass.slowdowns.first().copied().flatten().is_none())
}

/// A note for each peer and reason.
fn notes<'a>(failures: impl Iterator<Item = &'a Failure>) -> Vec<String> {
    let mut grouped: Vec<(&Failure, Vec<&str>)> = Vec::new();
    for failure in failures {
        let known = grouped
            .iter_mut()
            .find(|(known, _)| (known.peer, &known.why) == (failure.peer, &failure.why));
        match known {
            Some((_, workloads)) => workloads.push(failure.workload),
            None => grouped.push((failure, vec![failure.workload])),
        }
    }
    let note = |(failure, workloads): &(&Failure, Vec<&str>)| {
        format!(
            "{} failed ({}): {}",
            failure.peer,
            workloads.join(", "),
            failure.why
        )
    };
    grouped.iter().map(note).collect()
}

/// How much of a failure's reason the table has room for, in characters.
const REASON: usize = 160;

fn brief(why: &str) -> String {
    let mut text: String = why.chars().take(REASON).collect();
    if text.len() < why.len() {
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::recording::Account;

    #[test]
    fn a_target_without_work_stood_still() {
        let measure = workloads::malloc_storm_with_stalls();
        let pass = |traced| {
            rounds::pass(
                &measure,
                &[Some(2.0), Some(1.0)],
                &[traced, None],
                &[Some(2.0), Some(1.0)],
                0.0,
                Account::default(),
            )
        };
        assert!(!stood_still(&[pass(Some(1.0))]));
        assert!(stood_still(&[pass(Some(1.0)), pass(None)]));
    }

    #[test]
    fn the_same_reason_is_told_once() {
        let failure = |peer, workload, why: &str| Failure {
            peer,
            workload,
            why: why.to_owned(),
        };
        let failures = [
            failure("a", "storm", "no headers"),
            failure("b", "storm", "no headers"),
            failure("a", "server", "no headers"),
            failure("a", "redis", "it died"),
        ];
        assert_eq!(
            notes(failures.iter()),
            [
                "a failed (storm, server): no headers",
                "b failed (storm): no headers",
                "a failed (redis): it died"
            ]
        );
    }

    #[test]
    fn long_reasons_are_cut() {
        assert_eq!(brief("short"), "short");
        let cut = brief(&"ü".repeat(REASON + 1));
        assert_eq!(cut.chars().count(), REASON + 4);
    }
}
