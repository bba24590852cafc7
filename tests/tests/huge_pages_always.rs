//! The account closes on a host that gives huge pages to whoever is large enough, and on one that gives none. The setting
//! is the host's: it is put back at the end.

use std::fs;

use leakwatch_tests::account::{self, EVERY_PAGE};
use leakwatch_tests::daemons::Redis;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// The host's setting, put back when it is dropped.
struct Setting(String);

impl Setting {
    /// `None` on a host without huge pages.
    fn set(word: &str) -> Option<Self> {
        let text = fs::read_to_string(SETTING).ok()?;
        let before = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?
            .to_owned();
        fs::write(SETTING, word).unwrap_or_else(|error| panic!("cannot set {SETTING} to {word}: {error}"));
        Some(Self(before))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(SETTING, &self.0);
    }
}

fn closes(outcome: &Outcome, what: &str) {
    eprintln!("{what}");
    account::every_page_was_looked_at(outcome);
    account::closes(outcome);
    expect::complete_stacks(outcome);
}

fn program(program: &Program, budgets: &[&str], first: Option<&str>) {
    for budget in budgets {
        let mut target = Target::start(program, &[]);
        let (_, outcome) = Record::of(target.pid())
            .pages_alone()
            .budget(budget)
            .watch(&mut target);
        if *budget == EVERY_PAGE {
            closes(&outcome, &format!("{program:?}"));
        } else {
            account::closes(&outcome);
        }
        if let Some(first) = first {
            expect::first(&outcome, first);
        }
    }
}

/// One test, not several: they would change the setting under each other.
#[test]
fn the_account_closes_whatever_the_host_says_of_huge_pages() {
    if !kernel::required() {
        return;
    }
    for (word, budgets) in [("always", &[EVERY_PAGE, "500"][..]), ("never", &[EVERY_PAGE])] {
        let Some(_setting) = Setting::set(word) else {
            eprintln!("this host has no huge pages");
            return;
        };
        program(&Program::c("big_malloc"), budgets, Some("keep_big"));
        program(&Program::c("before_attach"), budgets, Some("fill_old_buffer"));
        program(&Program::cpp("arenas"), budgets, None);
        program(&Program::rust("session_service"), budgets, None);
        program(&Program::python("leak_request"), budgets, None);
        let mut redis = Redis::start();
        let running = Record::of(redis.pid()).pages_alone().budget(EVERY_PAGE).start();
        running.wait_attached();
        redis.fill(40_000, 1000);
        running.interrupt();
        closes(&running.finish(), "redis-server");
    }
}
