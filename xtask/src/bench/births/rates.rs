//! Whether the budget of births holds at any rate of malloc: by leakwatch's own count, and by what the target lost.
//!
//! The neighbours here are recordings too, with `--allocs never`: what the target lost between them is what births cost,
//! and not what all the rest of leakwatch costs.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::whole;
use crate::bench::processor_time;
use crate::bench::ratio::{Direction, slowdown};
use crate::bench::recording::{Births, OfBirths};
use crate::bench::rounds::Plan;
use crate::bench::table::{self, aligned, count, figure};
use crate::bench::workloads::{self, Subject};
use crate::run;

/// Mallocs a second, and how that is called; 0 is as fast as they can.
const RATES: [(&str, u32); 5] = [
    ("10/s", 10),
    ("1,000/s", 1000),
    ("100,000/s", 100_000),
    ("1,000,000/s", 1_000_000),
    ("flat out on all CPUs", 0),
];

/// What the target did in one recording.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    mallocs: f64,
    seconds: f64,
    /// Of its own.
    cpu_seconds: f64,
}

impl Stretch {
    fn rate(&self) -> f64 {
        self.mallocs / self.seconds
    }

    /// The processor time that births took from the target in `self`, by this neighbour without births. Where it runs
    /// flat out that is the mallocs that it did not come to, at the neighbour's pace; at a given rate it comes to all of
    /// them, and needs more time for them.
    fn lost_seconds(&self, neighbour: &Self, flat_out: bool) -> f64 {
        if flat_out {
            let usual = neighbour.cpu_seconds * self.seconds / neighbour.seconds;
            usual * (1.0 - self.rate() / neighbour.rate())
        } else {
            self.cpu_seconds - self.mallocs * neighbour.cpu_seconds / neighbour.mallocs
        }
    }
}

/// A recording with births between two without.
struct Trial {
    name: &'static str,
    flat_out: bool,
    before: Stretch,
    during: Stretch,
    after: Stretch,
    births: Births,
}

/// Whether what was lost is within the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Yes,
    No,
    /// It may be or not.
    Unclear,
}

impl Trial {
    /// What was lost, seconds of processor time: from and to. The neighbours' mean may be as wrong as they differ, since
    /// the window between them varies as they do.
    fn lost_seconds(&self) -> (f64, f64) {
        let [one, other] =
            [&self.before, &self.after].map(|neighbour| self.during.lost_seconds(neighbour, self.flat_out));
        let (mean, doubt) = (f64::midpoint(one, other), (one - other).abs());
        (mean - doubt, mean + doubt)
    }

    fn held(&self) -> Held {
        let (budget, (lower, higher)) = (self.births.budget_seconds, self.lost_seconds());
        if self.births.spent_seconds > budget || lower > budget {
            Held::No
        } else if higher <= budget {
            Held::Yes
        } else {
            Held::Unclear
        }
    }

    fn row(&self) -> Vec<String> {
        let milliseconds = |seconds: f64| format!("{:.1}", seconds * 1e3);
        let (lower, higher) = self.lost_seconds();
        vec![
            self.name.to_owned(),
            format!("{}/s", figure(self.before.rate())),
            count(self.births.bursts),
            format!("{} ms", figure(self.births.watched_seconds * 1e3)),
            format!("{} ms", milliseconds(self.births.budget_seconds)),
            format!("{} ms", milliseconds(self.births.spent_seconds)),
            format!("{} to {} ms", milliseconds(lower), milliseconds(higher)),
            format!(
                "{:.3}",
                slowdown(
                    Direction::Falls,
                    self.before.rate(),
                    self.during.rate(),
                    self.after.rate()
                )
            ),
            match self.held() {
                Held::Yes => "yes",
                Held::No => "no",
                Held::Unclear => "within noise",
            }
            .to_owned(),
        ]
    }
}

/// Measures and prints.
///
/// # Errors
/// When the program or leakwatch failed at a rate, after all others were measured and printed.
pub fn run(leakwatch: &Path, plan: &Plan) -> Result<()> {
    let (mut trials, mut notes, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for (name, rate) in RATES {
        run::heading(&format!("budget of births, {name}"));
        match measured(name, rate, leakwatch, plan) {
            Ok(Ok(trial)) => trials.push(trial),
            Ok(Err(why)) => notes.push(format!("{name}: births were not watched: {why}")),
            Err(error) => {
                notes.push(format!("{name}: failed: {error:#}"));
                failed.push(name);
            }
        }
    }
    let head = format!(
        "\nThe budget of births over rates of malloc, in recordings of {:.0} s. *Lost* is the target's processor time by \
         its own work, beside recordings with `--allocs never` before and after; it holds where that and what leakwatch \
         counts as *spent* are within the budget.",
        plan.window.as_secs_f64()
    );
    table::print(&head, &table::with_notes(markdown(&trials), &notes));
    ensure!(
        failed.is_empty(),
        "births could not be measured at {}",
        failed.join(", ")
    );
    Ok(())
}

/// A trial at one rate; else why births were not watched.
fn measured(name: &'static str, rate: u32, leakwatch: &Path, plan: &Plan) -> Result<Result<Trial, String>> {
    let mut subject = workloads::mallocs_at_rate(name, rate).start()?;
    std::thread::sleep(plan.settle);
    let (before, _) = stretch(&mut subject, leakwatch, plan, &["--allocs", "never"])?;
    let (during, of_births) = stretch(&mut subject, leakwatch, plan, &[])?;
    let (after, _) = stretch(&mut subject, leakwatch, plan, &["--allocs", "never"])?;
    Ok(match of_births {
        OfBirths::Watched(births) => Ok(Trial {
            name,
            flat_out: rate == 0,
            before,
            during,
            after,
            births,
        }),
        OfBirths::NotWatched(why) => Err(why),
    })
}

fn stretch(
    subject: &mut Subject,
    leakwatch: &Path,
    plan: &Plan,
    options: &[&str],
) -> Result<(Stretch, OfBirths)> {
    let cpu_before = processor_time::of_threads(subject.target())?;
    let recorded = whole::record(subject, leakwatch, plan.window, options)?;
    let stretch = Stretch {
        mallocs: recorded.window.units().context("the program has not worked")?,
        seconds: recorded.window.seconds(),
        cpu_seconds: processor_time::of_threads(subject.target())? - cpu_before,
    };
    eprintln!(
        "  {}: {} mallocs in {:.2} s, {:.4} s of processor time",
        if options.is_empty() { "births" } else { "no births" },
        count(stretch.mallocs),
        stretch.seconds,
        stretch.cpu_seconds
    );
    Ok((stretch, recorded.births))
}

fn markdown(trials: &[Trial]) -> String {
    let heads = [
        "mallocs", "measured", "bursts", "watched", "budget", "spent", "lost", "slowdown", "held",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(trials.iter().map(Trial::row));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(mallocs: f64, cpu_seconds: f64) -> Stretch {
        Stretch {
            mallocs,
            seconds: 10.0,
            cpu_seconds,
        }
    }

    fn trial(flat_out: bool, before: Stretch, during: Stretch, after: Stretch) -> Trial {
        Trial {
            name: "x",
            flat_out,
            before,
            during,
            after,
            births: Births {
                bursts: 3.0,
                watched_seconds: 0.01,
                followed: 7.0,
                spent_seconds: 0.15,
                budget_seconds: 0.2,
            },
        }
    }

    fn near(one: (f64, f64), other: (f64, f64)) -> bool {
        (one.0 - other.0).abs() < 1e-6 && (one.1 - other.1).abs() < 1e-6
    }

    #[test]
    fn at_a_given_rate_more_time_for_the_same_is_lost() {
        let trial = trial(false, stretch(1e6, 2.0), stretch(1e6, 2.1), stretch(1e6, 1.9));
        // 0.1 s by the one, 0.2 s by the other.
        assert!(
            near(trial.lost_seconds(), (0.05, 0.25)),
            "{:?}",
            trial.lost_seconds()
        );
        assert_eq!(trial.held(), Held::Unclear);
    }

    #[test]
    fn flat_out_fewer_mallocs_are_lost() {
        // 1 % fewer than before and 2 % fewer than after, of 20 s on two CPUs.
        let trial = trial(
            true,
            stretch(1e9, 20.0),
            stretch(0.99e9, 20.0),
            stretch(0.99e9 / 0.98, 20.0),
        );
        assert!(
            near(trial.lost_seconds(), (0.1, 0.5)),
            "{:?}",
            trial.lost_seconds()
        );
    }

    #[test]
    fn it_holds_by_both_counts_or_not_at_all() {
        let same = || stretch(1e6, 2.0);
        let mut trial = trial(false, same(), same(), same());
        assert_eq!(trial.held(), Held::Yes);
        trial.births.spent_seconds = 0.201;
        assert_eq!(trial.held(), Held::No);
        trial.births.spent_seconds = 0.1;
        trial.during.cpu_seconds = 2.5;
        assert_eq!(trial.held(), Held::No);
    }

    #[test]
    fn the_table_says_what_was_lost() {
        let trial = trial(false, stretch(1e6, 2.0), stretch(1e6, 2.1), stretch(1e6, 1.98));
        assert_eq!(
            markdown(&[trial]),
            "\
| mallocs |  measured | bursts | watched |   budget |    spent |             lost | slowdown | held |
|---------|----------:|-------:|--------:|---------:|---------:|-----------------:|---------:|-----:|
| x       | 100,000/s |      3 | 10.0 ms | 200.0 ms | 150.0 ms | 90.0 to 130.0 ms |    1.000 |  yes |
"
        );
    }
}
