//! `cargo xtask test`: everything that must pass, in the order in which failures are cheapest to find.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::live::Suites;
use crate::{ebpf, glibcs, requirements, run};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out what needs root and BPF. Without this, such tests fail where they cannot run.
    #[arg(long)]
    no_kernel: bool,

    /// Run one part only: a step (fmt, clippy, unit, live, doc, ebpf), a file of tests/tests (storm), or the live tests
    /// whose name contains NAME.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Clippy,
    Unit,
    Live,
    Doc,
    Ebpf,
}

/// What `--only` chose.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Everything,
    Step(Step),
    /// A file of `tests/tests`.
    LiveFile(String),
    /// Live tests by a part of their name.
    LiveNamed(String),
}

impl Choice {
    fn of(only: Option<&str>, live_files: &[String]) -> Self {
        let Some(name) = only else {
            return Self::Everything;
        };
        if let Ok(step) = Step::from_str(name, true) {
            return Self::Step(step);
        }
        if live_files.iter().any(|file| file == name) {
            return Self::LiveFile(name.to_owned());
        }
        Self::LiveNamed(name.to_owned())
    }

    fn includes(&self, step: Step) -> bool {
        match self {
            Self::Everything => true,
            Self::Step(chosen) => *chosen == step,
            Self::LiveFile(_) | Self::LiveNamed(_) => step == Step::Live,
        }
    }
}

/// Runs the steps and stops at the first that fails. Each step selects the whole workspace: the selection decides on the
/// features of what all depend on, and with every other one it would be built again.
///
/// # Errors
/// What failed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let files = live_files()?;
    let choice = Choice::of(arguments.only.as_deref(), &files);
    let mut live = None;
    for step in Step::value_variants() {
        if !choice.includes(*step) {
            continue;
        }
        match step {
            Step::Fmt => {
                run::heading("Format");
                run::run(&mut run::cargo(&["fmt", "--all", "--check"]))?;
            }
            Step::Clippy => {
                run::heading("Lints");
                let lints = [
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "--deny",
                    "warnings",
                ];
                run::run(&mut run::cargo(&lints))?;
            }
            Step::Unit => {
                run::heading("Unit tests");
                run::run(&mut run::cargo(&["test", "--workspace", "--lib", "--bins"]))?;
                run::run(&mut run::cargo(&["test", "--workspace", "--doc"]))?;
            }
            Step::Live => live = Some(live_tests(arguments, &choice)?),
            Step::Doc => {
                run::heading("Documentation");
                let mut doc = run::cargo(&["doc", "--workspace", "--no-deps"]);
                run::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
            }
            Step::Ebpf => {
                run::heading("The eBPF object");
                ebpf::run(
                    &run::workspace(),
                    ebpf::Args {
                        check: true,
                        ..ebpf::Args::default()
                    },
                )?;
            }
        }
    }
    run::heading("Done");
    if let Some(tally) = live {
        for test in &tally.again {
            eprintln!("UNSTEADY {test}: failed beside others, passed alone");
        }
        eprintln!(
            "{} live tests ran on this kernel, {} were skipped",
            tally.ran,
            tally.skipped.len()
        );
    }
    eprintln!("all passed");
    Ok(())
}

/// How many live tests ran, and why others did not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    ran: usize,
    skipped: Vec<String>,
    /// Those that passed only when they were run again, alone.
    again: Vec<String>,
}

impl Tally {
    /// From the file in which each live test notes what became of it: `ran NAME` or `skipped NAME: why`.
    fn parse(log: &str) -> Self {
        let skipped = log.lines().filter_map(|line| line.strip_prefix("skipped "));
        Self {
            ran: log.lines().filter(|line| line.starts_with("ran ")).count(),
            skipped: skipped.map(str::to_owned).collect(),
            again: Vec::new(),
        }
    }
}

/// Builds and runs the live tests. All of them run even when one fails, for the whole picture.
fn live_tests(arguments: &Arguments, choice: &Choice) -> Result<Tally> {
    let target = run::target_directory()?;
    let glibcs = target.join("glibcs");
    if !arguments.no_kernel {
        requirements::ensure()?;
        glibcs::ensure(&glibcs)?;
    }
    run::heading("Live tests");
    run::run(&mut run::cargo(&["build", "--workspace", "--bins", "--tests"]))?;

    let log = target.join("live-tests.log");
    if log.exists() {
        fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
    }
    let files = live_files()?;
    let name = match choice {
        Choice::LiveNamed(name) => Some(name.as_str()),
        _ => None,
    };
    let suites = Suites {
        glibcs,
        program: target.join("debug/leakwatch"),
        no_kernel: arguments.no_kernel,
        log: log.clone(),
    };
    let again = match choice {
        Choice::LiveFile(file) => suites.run(std::slice::from_ref(file), name),
        _ => suites.run(&files, name),
    };
    let mut tally = Tally::parse(&fs::read_to_string(&log).unwrap_or_default());
    tally.again = again?;

    for skipped in &tally.skipped {
        eprintln!("SKIPPED {skipped}");
    }
    let expected = match choice {
        Choice::LiveFile(file) => live_tests_in(std::slice::from_ref(file))?,
        Choice::LiveNamed(_) => tally.ran + tally.skipped.len(),
        Choice::Everything | Choice::Step(_) => live_tests_in(&files)?,
    };
    verify(&tally, expected, arguments.no_kernel, choice)?;
    Ok(tally)
}

/// A run in which live tests did not run must not pass for one in which they did.
fn verify(tally: &Tally, expected: usize, no_kernel: bool, choice: &Choice) -> Result<()> {
    if !no_kernel && !tally.skipped.is_empty() {
        bail!(
            "{} live tests were skipped without --no-kernel",
            tally.skipped.len()
        );
    }
    if tally.ran + tally.skipped.len() != expected {
        bail!(
            "{expected} live tests are written, {} ran and {} were skipped",
            tally.ran,
            tally.skipped.len()
        );
    }
    if expected == 0 && *choice == Choice::Everything {
        bail!("there are no live tests at all");
    }
    Ok(())
}

fn live_folder() -> PathBuf {
    run::workspace().join("tests/tests")
}

/// Names of the files in `tests/tests`.
fn live_files() -> Result<Vec<String>> {
    let folder = live_folder();
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// How many live tests these files hold: each asks once whether it may run.
fn live_tests_in(files: &[String]) -> Result<usize> {
    let mut count = 0;
    for file in files {
        let path = live_folder().join(file).with_extension("rs");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        count += text.matches("kernel::required()").count();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_a_step_a_file_or_a_part_of_a_name() {
        let files = ["storm".to_owned()];
        assert_eq!(Choice::of(None, &files), Choice::Everything);
        assert_eq!(Choice::of(Some("clippy"), &files), Choice::Step(Step::Clippy));
        assert_eq!(
            Choice::of(Some("storm"), &files),
            Choice::LiveFile("storm".to_owned())
        );
        assert_eq!(
            Choice::of(Some("churn"), &files),
            Choice::LiveNamed("churn".to_owned())
        );
        assert!(Choice::LiveNamed("churn".to_owned()).includes(Step::Live));
        assert!(!Choice::LiveNamed("churn".to_owned()).includes(Step::Doc));
    }

    #[test]
    fn a_run_that_skipped_or_missed_tests_does_not_pass() {
        let tally = Tally::parse("ran a\nskipped b: not root\nran c\n");
        assert_eq!(
            tally,
            Tally {
                ran: 2,
                skipped: vec!["b: not root".to_owned()],
                again: Vec::new(),
            }
        );
        assert!(verify(&tally, 3, true, &Choice::Everything).is_ok());
        assert!(verify(&tally, 3, false, &Choice::Everything).is_err());
        assert!(verify(&tally, 4, true, &Choice::Everything).is_err());
        assert!(verify(&Tally::default(), 0, false, &Choice::Everything).is_err());
    }

    #[test]
    fn the_live_tests_are_found() {
        let files = live_files().unwrap();
        assert!(files.iter().any(|file| file == "native"), "{files:?}");
        assert!(live_tests_in(&files).unwrap() > 50);
    }
}
