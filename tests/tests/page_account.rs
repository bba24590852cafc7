//! The account closes: on real programs and on other allocators the sites' pages sum up to what smaps shows, whether
//! every page was looked at or a sample of them.

use std::process::Command;

use leakwatch_tests::account::{self, EVERY_PAGE};
use leakwatch_tests::daemons::{Postgres, Redis};
use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{expect, kernel};

/// Snapshots a second: all, and so few that the sample is thinned.
const BUDGETS: [&str; 2] = [EVERY_PAGE, "500"];

/// The account closes and growth is there to speak of; whether it was sampled is as the budget says.
fn closes(outcome: &Outcome, budget: &str, least_growth: i64) {
    let recording = outcome.recording();
    if budget == EVERY_PAGE {
        account::every_page_was_looked_at(outcome);
    } else {
        account::it_was_sampled(outcome);
    }
    let growth = recording
        .reconciliation
        .as_ref()
        .map_or(0, |account| account.smaps_growth_bytes);
    assert!(growth >= least_growth, "only {growth} bytes grew\n{outcome}");
    account::closes(outcome);
    expect::complete_stacks(outcome);
}

/// Records while `work` runs.
fn watch(pid: u32, budget: &str, work: impl FnOnce()) -> Outcome {
    let running = Record::of(pid).pages_alone().budget(budget).start();
    running.wait_attached();
    work();
    running.interrupt();
    running.finish()
}

/// Any frame of the first site carries this name: which of a program's own layers is its culprit is not asked here.
fn first_runs_through(outcome: &Outcome, function: &str) {
    let recording = outcome.recording();
    assert!(
        recording
            .call_sites
            .first()
            .is_some_and(|site| site.runs_through(function)),
        "the first site should run through {function}\n{outcome}"
    );
}

#[test]
fn redis_under_load() {
    if !kernel::required() {
        return;
    }
    for budget in BUDGETS {
        let mut redis = Redis::start();
        let outcome = watch(redis.pid(), budget, || redis.fill(40_000, 1000));
        assert_eq!(redis.ask(&["DBSIZE"]), ":40000");
        closes(&outcome, budget, 30_000_000);
        first_runs_through(&outcome, "readQueryFromClient");
    }
}

#[test]
fn a_postgres_backend_filling_its_plan_cache() {
    if !kernel::required() {
        return;
    }
    let postgres = Postgres::start();
    for budget in BUDGETS {
        let mut session = postgres.connect();
        let outcome = watch(session.backend(), budget, || {
            let answer = session.ask(
                "DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('PREPARE p%s AS SELECT c.*, a.* FROM pg_class c \
                 JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = $1 AND a.attnum > %s', i, i); \
                 PERFORM pg_sleep(0.002); END LOOP; END $$; SELECT count(*) FROM pg_prepared_statements;",
            );
            assert_eq!(answer, "400");
        });
        closes(&outcome, budget, 10_000_000);
        first_runs_through(&outcome, "PrepareQuery");
    }
}

fn watch_program(mut target: Target, budget: &str) -> (Truth, Outcome) {
    Record::of(target.pid())
        .pages_alone()
        .budget(budget)
        .watch(&mut target)
}

#[test]
fn python_building_a_structure_by_pages() {
    if !kernel::required() {
        return;
    }
    let script = "
import json, os, sys, time
print(json.dumps({'ready': True, 'pid': os.getpid()}), flush=True)
sys.stdin.readline()
kept = []
for part in range(40):
    kept += [{'name': str(i), 'values': list(range(i, i + 8))} for i in range(1500)]
    time.sleep(0.02)
print(json.dumps({'site': None, 'committed_bytes': 0, 'calls': 0}), flush=True)
sys.stdin.read()
";
    for budget in BUDGETS {
        let mut command = Command::new(programs::python());
        command.args(["-c", script]);
        let (_, outcome) = watch_program(Target::start_command(command), budget);
        closes(&outcome, budget, 15_000_000);
    }
}

#[test]
fn a_server_on_thread_arenas() {
    if !kernel::required() {
        return;
    }
    for budget in BUDGETS {
        let (_, outcome) = watch_program(Target::start(&Program::cpp("arenas"), &[]), budget);
        closes(&outcome, budget, 30_000_000);
        expect::first(&outcome, "handle_upload");
    }
}

#[test]
fn a_rust_service_by_pages() {
    if !kernel::required() {
        return;
    }
    for budget in BUDGETS {
        let (truth, outcome) = watch_program(Target::start(&Program::rust("session_service"), &[]), budget);
        closes(&outcome, budget, 10_000_000);
        expect::first(&outcome, "retain_session");
        if budget == EVERY_PAGE {
            let live = outcome.recording().live_by("retain_session");
            assert!(
                live.abs_diff(truth.committed_bytes) <= truth.committed_bytes / 50,
                "retain_session keeps {live} bytes by the report, {} by its own count\n{outcome}",
                truth.committed_bytes
            );
        }
    }
}

/// Under an allocator that is put in the place of glibc's.
fn preloaded(library: &str) {
    let start = || {
        let mut command = Command::new(Program::c("keep_blocks").path);
        command.arg("--small-pages").env("LD_PRELOAD", library);
        let target = Target::start_command(command);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap_or_default();
        assert!(
            maps.contains(library.trim_end_matches(char::is_numeric).trim_end_matches('.')),
            "{library} was not loaded"
        );
        target
    };
    let (truth, outcome) = watch_program(start(), EVERY_PAGE);
    account::every_function(&outcome, &truth);
    expect::first(&outcome, "keep_blocks");
    account::rests_on_pages(&outcome, "keep_blocks");
    closes(&outcome, EVERY_PAGE, 20_000_000);

    account::agrees_when_sampled(|| {
        let (truth, outcome) = watch_program(start(), "500");
        expect::first(&outcome, "keep_blocks");
        (truth, outcome)
    });
}

#[test]
fn jemalloc_preloaded() {
    if kernel::required() {
        preloaded("libjemalloc.so.2");
    }
}

#[test]
fn mimalloc_preloaded() {
    if kernel::required() {
        preloaded("libmimalloc.so.2");
    }
}

/// Each process has its own account, and the sites are those of all together.
#[test]
fn children_have_accounts_of_their_own() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(
        &Program::c("forking_server"),
        &["--clients", "4", "--pause-ms", "40"],
    );
    let record = Record::of(target.pid()).arg("--children").budget(EVERY_PAGE);
    let (truth, outcome) = record.watch(&mut target);
    account::every_function(&outcome, &truth);
    let recording = outcome.recording();
    let processes = recording.processes.clone().expect("--children lists processes");
    assert_eq!(
        processes.len(),
        truth.processes.len(),
        "{processes:?} should be {:?}\n{outcome}",
        truth.processes
    );
    let mut sum = 0;
    for (pid, expected) in &truth.processes {
        let process = processes
            .iter()
            .find(|process| process.pid.to_string() == *pid)
            .unwrap_or_else(|| panic!("{pid} is not in {processes:?}\n{outcome}"));
        let live = process
            .live_bytes
            .unwrap_or_else(|| panic!("{pid} has no live bytes\n{outcome}"));
        // A few pages of libc's and the stack that a fresh process copies.
        let tolerance = expected / 50 + 16 * 4096;
        assert!(
            live.abs_diff(*expected) <= tolerance,
            "{pid} keeps {live} bytes by the report, {expected} by its own count: {process:?}\n{outcome}"
        );
        sum += live;
    }
    assert!(
        sum.abs_diff(recording.live()) <= 4096,
        "the processes keep {sum} bytes, the sites {}\n{outcome}",
        recording.live()
    );
}
