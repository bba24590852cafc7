//! The table of what the recordings themselves say of births.

use super::whole::Whole;
use crate::bench::ratio::{Mean, median};
use crate::bench::recording::{Births, OfBirths};
use crate::bench::table::{aligned, count, figure, with_notes};

/// Of one workload.
pub struct Accounts {
    name: &'static str,
    /// Of each recording.
    told: Vec<OfBirths>,
    /// leakwatch's own processor time in each of them, as a part of one CPU.
    cpu: Vec<f64>,
    /// How many times slower the first figure was in each, by what works beside it where it is a rate.
    slowdowns: Vec<f64>,
    /// The same by what varies less, where the target takes all processor time that it can get.
    reckoned: Vec<f64>,
}

impl Accounts {
    pub fn new(name: &'static str, wholes: &[Whole]) -> Self {
        let slowdown = |whole: &Whole| {
            whole
                .steadied
                .or_else(|| whole.pass.slowdowns.first().copied().flatten())
        };
        Self {
            name,
            told: wholes.iter().map(|whole| whole.births.clone()).collect(),
            cpu: wholes.iter().map(|whole| whole.pass.cpu).collect(),
            slowdowns: wholes.iter().filter_map(slowdown).collect(),
            reckoned: wholes.iter().filter_map(|whole| whole.reckoned).collect(),
        }
    }

    /// Of the recordings that watched births.
    fn median(&self, read: impl Fn(&Births) -> Option<f64>) -> Option<f64> {
        let births = self.told.iter().filter_map(OfBirths::watched);
        median(&births.filter_map(|births| read(&births)).collect::<Vec<_>>())
    }

    fn row(&self) -> Vec<String> {
        let shown = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{}{unit}", figure(value)))
        };
        let mean =
            |values: &[f64]| Mean::of_ratios(values).map_or_else(|| "-".to_owned(), |mean| mean.to_string());
        let counted = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), count);
        vec![
            self.name.to_owned(),
            mean(&self.slowdowns),
            mean(&self.reckoned),
            counted(self.median(|births| Some(births.bursts))),
            shown(self.median(|births| Some(births.watched_seconds * 1e3)), " ms"),
            counted(self.median(|births| Some(births.followed))),
            shown(self.median(|births| Some(births.spent_seconds * 1e3)), " ms"),
            shown(self.median(|births| Some(births.withheld_seconds * 1e3)), " ms"),
            shown(self.median(|births| Some(births.budget_seconds? * 1e3)), " ms"),
            shown(median(&self.cpu).map(|part| part * 100.0), " %"),
        ]
    }

    /// Why some recordings did without.
    fn reasons(&self) -> impl Iterator<Item = String> {
        self.told.iter().filter_map(|of_births| match of_births {
            OfBirths::Watched(_) => None,
            OfBirths::NotWatched(why) => Some(format!("{}: births were not watched: {why}", self.name)),
        })
    }
}

/// The table, with what is missing in it told below.
pub fn markdown(accounts: &[&Accounts]) -> String {
    let heads = [
        "recordings of",
        "slowdown",
        "reckoned",
        "bursts",
        "watched",
        "followed blocks",
        "spent",
        "withheld",
        "budget",
        "leakwatch's CPU",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(accounts.iter().map(|account| account.row()));
    let reasons: Vec<String> = accounts.iter().flat_map(|account| account.reasons()).collect();
    with_notes(aligned(&rows), &reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_recordings_that_watched() {
        let births = |bursts, spent_seconds| {
            OfBirths::Watched(Births {
                bursts,
                watched_seconds: 0.0125,
                followed: 3000.0,
                spent_seconds,
                withheld_seconds: 0.05,
                budget_seconds: Some(0.3),
            })
        };
        let some = Accounts {
            name: "storm",
            told: vec![births(4.0, 0.1), births(6.0, 0.2)],
            cpu: vec![0.02, 0.04],
            slowdowns: vec![1.0, 1.02, 1.04],
            reckoned: vec![1.02, 1.03],
        };
        let none = Accounts {
            name: "x",
            told: vec![OfBirths::NotWatched("jemalloc".to_owned())],
            cpu: vec![0.01],
            slowdowns: vec![1.01],
            reckoned: Vec::new(),
        };
        assert_eq!(
            markdown(&[&some, &none]),
            "\
| recordings of |      slowdown |      reckoned | bursts | watched | followed blocks |  spent | withheld | budget | leakwatch's CPU |
|---------------|--------------:|--------------:|-------:|--------:|----------------:|-------:|---------:|-------:|----------------:|
| storm         | 1.020 ± 0.012 | 1.025 ± 0.005 |      5 | 12.5 ms |           3,000 | 150 ms |  50.0 ms | 300 ms |           3.0 % |
| x             |         1.010 |             - |      - |       - |               - |      - |        - |      - |           1.0 % |

- x: births were not watched: jemalloc
"
        );
    }
}
