//! Programs that nobody wrote for a test. Their truth is not known to the byte, so what is asked is what every report
//! owes: whole stacks, a recording by the schema, an account near the kernel's, and a target that keeps serving.

use leakwatch_tests::daemons::{Postgres, Redis, resident_bytes};
use leakwatch_tests::programs;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

/// Records while `work` runs.
fn watch(pid: u32, work: impl FnOnce()) -> Outcome {
    let running = Record::of(pid).start();
    running.wait_attached();
    work();
    running.interrupt();
    running.finish()
}

/// What is committed and kept covers most of what became resident: it can be less by what was mapped before.
fn accounts_for(outcome: &Outcome, grown: u64, share: f64) {
    let held = outcome.recording().held();
    #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
    let found = held as f64 / grown as f64;
    assert!(
        found >= share,
        "{held} bytes held of {grown} that grew\n{outcome}"
    );
}

#[test]
fn redis_being_filled() {
    if !kernel::required() {
        return;
    }
    let mut redis = Redis::start();
    let before = resident_bytes(redis.pid());
    let outcome = watch(redis.pid(), || redis.fill(40_000, 1000));
    let grown = resident_bytes(redis.pid()) - before;
    assert_eq!(redis.ask(&["GET", "no such key"]), "$-1");
    assert_eq!(redis.ask(&["DBSIZE"]), ":40000");

    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    assert!(grown > 30_000_000, "redis grew by {grown} bytes only");
    accounts_for(&outcome, grown, 0.8);
    let first = &outcome.recording().call_sites[0];
    assert!(
        first.frames.len() > 3,
        "a stack from the allocator down to main\n{outcome}"
    );
}

#[test]
fn a_postgres_backend() {
    if !kernel::required() {
        return;
    }
    let postgres = Postgres::start();
    let mut session = postgres.connect();
    let backend = session.backend();
    let before = resident_bytes(backend);
    // Prepared statements stay until the session ends: the classic growth of a backend.
    let outcome = watch(backend, || {
        let answer = session.ask(
            "DO $$ BEGIN FOR i IN 1..1500 LOOP EXECUTE format('PREPARE p%s AS SELECT c.*, a.* FROM pg_class c \
             JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = $1 AND a.attnum > %s', i, i); END LOOP; END $$; \
             SELECT count(*) FROM pg_prepared_statements;",
        );
        assert_eq!(answer, "1500");
    });
    let grown = resident_bytes(backend) - before;
    assert_eq!(session.ask("SELECT 6 * 7;"), "42");

    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    assert!(grown > 20_000_000, "the backend grew by {grown} bytes only");
    accounts_for(&outcome, grown, 0.6);
}

/// Python as people use it: a growing structure of small objects, from the interpreter's own arenas.
#[test]
fn python_building_a_structure() {
    if !kernel::required() {
        return;
    }
    let script = "
import json, os, sys
print(json.dumps({'ready': True, 'pid': os.getpid()}), flush=True)
sys.stdin.readline()
kept = [{'name': str(i), 'values': list(range(i, i + 8))} for i in range(60000)]
print(json.dumps({'site': None, 'committed_bytes': 0, 'calls': 0}), flush=True)
sys.stdin.read()
";
    let mut command = std::process::Command::new(programs::python());
    command.args(["-c", script]);
    let mut target = Target::start_command(command);
    let before = resident_bytes(target.pid());
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    let grown = resident_bytes(target.pid()) - before;
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
    assert!(grown > 15_000_000, "python grew by {grown} bytes only");
    accounts_for(&outcome, grown, 0.8);
}

#[test]
fn found_by_name() {
    if !kernel::required() {
        return;
    }
    // A name of its own, so that no other process of the machine answers to it.
    let name = format!("lw{}", std::process::id());
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let link = folder.path().join(&name);
    let program = programs::Program::c("mmap_leak");
    // A link, no copy: a process that another test forks meanwhile would hold the copy open for writing, and a file so
    // held cannot be executed.
    std::os::unix::fs::symlink(&program.path, &link).expect("the program can be linked");
    let mut target = Target::start_command(std::process::Command::new(&link));
    let (_, outcome) = Record::with(&["--name", &name]).watch(&mut target);
    assert_eq!(outcome.recording().target.pid, target.pid());
    expect::first(&outcome, "map_and_forget");

    // Two of that name: they are listed, none is chosen.
    let other = Target::start_command(std::process::Command::new(&link));
    let refusal = leakwatch_tests::record::run(&["record", "--name", &name, "-d", "1s"]);
    assert!(!refusal.status.success(), "{refusal}");
    for pid in [target.pid(), other.pid()] {
        assert!(
            refusal.stderr.contains(&pid.to_string()),
            "{pid} is not listed: {refusal}"
        );
    }
}
