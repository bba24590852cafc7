//! Whether the budget of births holds at any rate of malloc: by leakwatch's own count, and by what the target lost.
//!
//! The neighbours here are recordings too, with `--allocs never`: what the target lost between them is what births cost,
//! and not what all the rest of leakwatch costs. It is told by the target's own processor time, which others on its CPUs
//! take nothing of: by its mallocs per second a program on all CPUs seems to lose what leakwatch takes too. How fast the
//! machine is meanwhile is told by a second one of it, at the same rate on the same CPUs: a program that does something else
//! answers to other things, and by that one percent of a storm's time cannot be told.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::beside::{self, Beside};
use super::whole;
use crate::bench::ratio::{Direction, Mean, slowdown};
use crate::bench::recording::{Births, OfBirths};
use crate::bench::rounds::Plan;
use crate::bench::table::{self, aligned, count, figure};
use crate::bench::workloads::{self, Subject};
use crate::run;

/// Mallocs a second, and how that is called; 0 is as fast as they can.
const RATES: [(&str, u32); 6] = [
    ("10/s", 10),
    ("1,000/s", 1000),
    ("100,000/s", 100_000),
    ("1,000,000/s", 1_000_000),
    ("30,000,000/s", 30_000_000),
    ("flat out on all CPUs", 0),
];

/// What the target did in one recording.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    mallocs: f64,
    seconds: f64,
    /// Of its own.
    cpu_seconds: f64,
    /// Of the twin: mallocs in a second of its own processor time.
    speed: f64,
}

impl Stretch {
    fn rate(&self) -> f64 {
        self.mallocs / self.seconds
    }

    /// The processor time that births took from the target in `self`: how much more of its own it needed for its mallocs
    /// than this neighbour without births, at one speed of the machine.
    fn lost_seconds(&self, neighbour: &Self) -> f64 {
        let faster = self.speed / neighbour.speed;
        self.cpu_seconds - self.mallocs * neighbour.cpu_seconds / neighbour.mallocs / faster
    }
}

/// A recording with births, and those without before and after it.
#[derive(Clone, Copy, Debug)]
struct Between {
    before: Stretch,
    during: Stretch,
    after: Stretch,
    births: Births,
}

impl Between {
    /// By both neighbours.
    fn lost_seconds(&self) -> [f64; 2] {
        [&self.before, &self.after].map(|neighbour| self.during.lost_seconds(neighbour))
    }
}

/// What was lost in a recording, seconds of the target's processor time.
#[derive(Clone, Copy, Debug)]
struct Lost {
    mean: f64,
    /// Its standard error.
    error: f64,
}

impl Lost {
    /// `all` follow each other, with a neighbour between two of them that is both's.
    fn of(all: &[Between]) -> Self {
        let halfway: Vec<f64> = all
            .iter()
            .map(|it| it.lost_seconds().iter().sum::<f64>() / 2.0)
            .collect();
        let mean = halfway.iter().sum::<f64>() / halfway.len() as f64;
        let error = match Mean::of(&halfway).and_then(|mean| mean.error) {
            // Each varies by its own window and by half of both neighbours', but these do not cancel in the mean as if they
            // were other ones each time: 2 in place of 3/2 variances of a window.
            Some(error) => error * (4.0_f64 / 3.0).sqrt(),
            // Its own window varies as its neighbours do.
            None => all.first().map_or(f64::NAN, |only| {
                let [one, other] = only.lost_seconds();
                (one - other).abs()
            }),
        };
        Self { mean, error }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, into: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(into, "{:.1} ± {:.1} ms", self.mean * 1e3, self.error * 1e3)
    }
}

/// Recordings at one rate.
struct Trial {
    name: &'static str,
    flat_out: bool,
    /// With the default budget.
    budgeted: Vec<Between>,
    /// With births watched all the time: what was lost is much then, and leakwatch's count of it can be held against it.
    always: Option<Between>,
}

/// Whether what was lost is within the budget, by two standard errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Yes,
    No,
    /// It may be or not.
    Unclear,
}

impl Trial {
    fn mean(&self, read: impl Fn(&Between) -> f64) -> f64 {
        self.budgeted.iter().map(read).sum::<f64>() / self.budgeted.len() as f64
    }

    fn budget(&self) -> f64 {
        self.mean(|it| it.births.budget_seconds.unwrap_or(f64::INFINITY))
    }

    fn held(&self) -> Held {
        // What was withheld is no part of the target's processor time.
        let left = self.budget() - self.mean(|it| it.births.withheld_seconds);
        let lost = Lost::of(&self.budgeted);
        let overspent = |it: &Between| {
            it.births
                .budget_seconds
                .is_some_and(|budget| it.births.paid_seconds() > budget)
        };
        if self.budgeted.iter().any(overspent) || lost.mean - 2.0 * lost.error > left {
            Held::No
        } else if lost.mean + 2.0 * lost.error <= left {
            Held::Yes
        } else {
            Held::Unclear
        }
    }

    fn row(&self) -> Vec<String> {
        let milliseconds = |seconds: f64| format!("{:.1}", seconds * 1e3);
        let slower = |it: &Between| {
            let faster = |it: &Stretch| if self.flat_out { it.speed } else { 1.0 };
            let [before, during, after] =
                [&it.before, &it.during, &it.after].map(|it| it.rate() / faster(it));
            slowdown(Direction::Falls, before, during, after)
        };
        let (counted, lost) = match &self.always {
            Some(always) => (
                format!("{} ms", milliseconds(always.births.spent_seconds)),
                Lost::of(&[*always]).to_string(),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        vec![
            self.name.to_owned(),
            format!("{}/s", figure(self.mean(|it| it.before.rate()))),
            count(self.mean(|it| it.births.bursts)),
            format!("{} ms", figure(self.mean(|it| it.births.watched_seconds) * 1e3)),
            format!("{} ms", milliseconds(self.budget())),
            format!("{} ms", milliseconds(self.mean(|it| it.births.spent_seconds))),
            format!("{} ms", milliseconds(self.mean(|it| it.births.withheld_seconds))),
            Lost::of(&self.budgeted).to_string(),
            format!("{:.3}", self.mean(slower)),
            match self.held() {
                Held::Yes => "yes",
                Held::No => "no",
                Held::Unclear => "within noise",
            }
            .to_owned(),
            counted,
            lost,
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
        "\nThe budget of births over rates of malloc: means of {} recordings of {:.0} s. *Lost* is what the target took more \
         of its own processor time for its work, at one speed of the machine (as a second one of it tells, at the same rate on \
         the same CPUs), than beside it in recordings with `--allocs never`, with its standard error. *Spent* is leakwatch's count \
         of that; *withheld* of a target that has no processor to spare comes to it. The budget holds where spent and withheld are within it in \
         each recording, and so are, by two standard errors, lost and withheld. In one more recording births are watched all \
         the time (`--allocs always`): what leakwatch counts then can be held against what is lost.",
        plan.rounds,
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
    let (mut subject, mut twin) = beside::twins(&workloads::mallocs_at_rate(name, rate), false)?;
    std::thread::sleep(plan.settle);
    let mut trial = Trial {
        name,
        flat_out: rate == 0,
        budgeted: Vec::new(),
        always: None,
    };
    let mut stretch = |mode| stretch(&mut subject, &mut twin, leakwatch, plan, mode);
    let (mut before, _) = stretch("never")?;
    let autos = (0..plan.rounds).map(|_| "auto");
    for mode in autos.chain(["always"]) {
        let (during, of_births) = stretch(mode)?;
        let (after, _) = stretch("never")?;
        let births = match of_births {
            OfBirths::Watched(births) => births,
            OfBirths::NotWatched(why) => return Ok(Err(why)),
        };
        let between = Between {
            before,
            during,
            after,
            births,
        };
        if mode == "always" {
            trial.always = Some(between);
        } else {
            trial.budgeted.push(between);
        }
        before = after;
    }
    Ok(Ok(trial))
}

fn stretch(
    subject: &mut Subject,
    twin: &mut Beside<'_>,
    leakwatch: &Path,
    plan: &Plan,
    mode: &str,
) -> Result<(Stretch, OfBirths)> {
    let recorded = whole::record(subject, twin, leakwatch, plan.window, &["--allocs", mode])?;
    let done = &recorded.stretch;
    let stretch = Stretch {
        mallocs: done.window.units().context("the program has not worked")?,
        seconds: done.window.seconds(),
        cpu_seconds: done.cpu_seconds,
        speed: done.beside.speed,
    };
    eprintln!(
        "  births {mode}: {} mallocs in {:.2} s, {:.4} s of processor time",
        count(stretch.mallocs),
        stretch.seconds,
        stretch.cpu_seconds
    );
    Ok((stretch, recorded.births))
}

fn markdown(trials: &[Trial]) -> String {
    let heads = [
        "mallocs",
        "measured",
        "bursts",
        "watched",
        "budget",
        "spent",
        "withheld",
        "lost",
        "slowdown",
        "held",
        "always: counted",
        "always: lost",
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
            speed: 500.0,
        }
    }

    fn between(before: Stretch, during: Stretch, after: Stretch) -> Between {
        Between {
            before,
            during,
            after,
            births: Births {
                bursts: 3.0,
                watched_seconds: 0.01,
                followed: 7.0,
                spent_seconds: 0.15,
                withheld_seconds: 0.01,
                budget_seconds: Some(0.2),
            },
        }
    }

    fn trial(flat_out: bool, budgeted: &[Between]) -> Trial {
        Trial {
            name: "x",
            flat_out,
            budgeted: budgeted.to_vec(),
            always: None,
        }
    }

    fn is_near(lost: Lost, mean: f64, error: f64) {
        assert!(
            (lost.mean - mean).abs() < 1e-6 && (lost.error - error).abs() < 1e-6,
            "{lost:?}"
        );
    }

    #[test]
    fn more_time_for_the_same_is_lost() {
        let one = between(stretch(1e6, 2.0), stretch(1e6, 2.1), stretch(1e6, 1.9));
        // 0.1 s by the one, 0.2 s by the other.
        is_near(Lost::of(&[one]), 0.15, 0.1);
        assert_eq!(trial(false, &[one]).held(), Held::Unclear);
        // Another came to 0.05 s by both: the middle of the two, which are 0.1 s apart.
        let other = between(stretch(1e6, 1.9), stretch(1e6, 1.95), stretch(1e6, 1.9));
        let error = 0.05 * (4.0_f64 / 3.0).sqrt();
        is_near(Lost::of(&[one, other]), 0.1, error);
        assert_eq!(trial(false, &[one, other]).held(), Held::Unclear);
        assert_eq!(trial(false, &[one, other].repeat(3)).held(), Held::Yes);
    }

    #[test]
    fn fewer_mallocs_in_the_same_time_are_lost() {
        // 1 % fewer than before and 2 % fewer than after, of 20 s on two CPUs.
        let one = between(
            stretch(1e9, 20.0),
            stretch(0.99e9, 20.0),
            stretch(0.99e9 / 0.98, 20.0),
        );
        is_near(Lost::of(&[one]), 0.3, 0.2);
    }

    #[test]
    fn what_others_or_a_slower_machine_take_is_not_lost() {
        let same = || stretch(1e6, 2.0);
        is_near(
            Lost::of(&[between(same(), stretch(0.9e6, 1.8), same())]),
            0.0,
            0.0,
        );
        let slower = Stretch {
            cpu_seconds: 2.5,
            speed: 400.0,
            ..same()
        };
        is_near(Lost::of(&[between(same(), slower, same())]), 0.0, 0.0);
    }

    #[test]
    fn it_holds_by_both_counts_or_not_at_all() {
        let same = || stretch(1e6, 2.0);
        let within = between(same(), same(), same());
        assert_eq!(trial(false, &[within]).held(), Held::Yes);
        let mut withheld = within;
        withheld.during.cpu_seconds = 2.195;
        assert_eq!(
            trial(false, &[withheld]).held(),
            Held::No,
            "with the 0.01 s withheld"
        );
        let mut overspent = within;
        overspent.births.spent_seconds = 0.191;
        assert_eq!(trial(false, &[within, overspent]).held(), Held::No);
        let mut lost = within;
        lost.during.cpu_seconds = 2.5;
        assert_eq!(trial(false, &[lost]).held(), Held::No);
    }

    #[test]
    fn the_table_says_what_was_lost() {
        let one = between(stretch(1e6, 2.0), stretch(1e6, 2.1), stretch(1e6, 1.98));
        let mut always = between(stretch(1e6, 2.0), stretch(1e6, 3.0), stretch(1e6, 2.0));
        always.births.spent_seconds = 0.98;
        always.births.budget_seconds = None;
        let trial = Trial {
            always: Some(always),
            ..trial(false, &[one])
        };
        assert_eq!(
            markdown(&[trial]),
            "\
| mallocs |  measured | bursts | watched |   budget |    spent | withheld |            lost | slowdown | held | always: counted |    always: lost |
|---------|----------:|-------:|--------:|---------:|---------:|---------:|----------------:|---------:|-----:|----------------:|----------------:|
| x       | 100,000/s |      3 | 10.0 ms | 200.0 ms | 150.0 ms |  10.0 ms | 110.0 ± 20.0 ms |    1.000 |  yes |        980.0 ms | 1000.0 ± 0.0 ms |
"
        );
    }
}
