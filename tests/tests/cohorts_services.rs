//! Leaks of the kind that services have: slow, by the connection or by the statement.

use std::time::Duration;

use leakwatch_tests::allocations;
use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::daemons::{Postgres, resident_bytes};
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::Record;
use leakwatch_tests::target::Target;
use leakwatch_tests::{account, expect, kernel, text};

fn connections(arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(&Program::c("cohort_connections"), arguments);
    // They use a tenth of a processor: of one percent of that a test would have to last a minute.
    watch(&mut target, seconds, &["--allocs-budget", "8"])
}

/// So little is allocated that births can be watched all the time.
fn was_always_on(watched: &Watched) {
    let allocations = watched.recording.allocations.as_ref().expect("it is sound");
    let part = allocations.watched_seconds / watched.recording.window.duration_seconds;
    assert!(
        part > 0.8,
        "watched for {part:.2} of the window\n{}",
        watched.detail()
    );
}

#[test]
fn state_of_connections_that_are_gone() {
    if !kernel::required() {
        return;
    }
    let watched = connections(&[], 10);
    watched.is_true();
    was_always_on(&watched);
    // Every one of them was seen, but those at the very ends.
    let site = watched.recording.sites_of("accept_connection").next();
    let blocks = site.and_then(|site| site.allocations.clone()).expect("births");
    let truth = watched.after.calls - watched.before.calls;
    assert!(
        blocks.survived >= truth * 3 / 4 && blocks.blocks.abs_diff(truth) <= truth / 10,
        "{truth} by its own count: {blocks:?}"
    );
}

#[test]
fn state_of_connections_fixed() {
    if !kernel::required() {
        return;
    }
    let watched = connections(&["--fixed"], 6);
    watched.is_sound();
    was_always_on(&watched);
    watched.nothing_survives();
}

/// Prepared statements stay until the session ends: contexts of their own, which AllocSetAlloc and its kin have of malloc.
#[test]
fn statements_of_a_postgres_backend() {
    if !kernel::required() {
        return;
    }
    let postgres = Postgres::start();
    let mut session = postgres.connect();
    let backend = session.backend();
    let prepare = |session: &mut leakwatch_tests::daemons::Session, from: u32, to: u32| {
        let answer = session.ask(&format!(
            "DO $$ BEGIN FOR i IN {from}..{to} LOOP EXECUTE format('PREPARE p%s AS SELECT c.*, a.* FROM pg_class c \
             JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = $1 AND a.attnum > %s', i, i); END LOOP; END $$; \
             SELECT count(*) FROM pg_prepared_statements;"
        ));
        assert_eq!(answer, to.to_string());
    };
    // Its caches are there before the window.
    prepare(&mut session, 1, 100);
    let before = resident_bytes(backend);
    let running = Record::of(backend)
        .arg("--census")
        .arg("always")
        .arg("--allocs-budget")
        .arg("10")
        .duration("12s")
        .start();
    running.wait_attached();
    for round in 0..20 {
        prepare(&mut session, 101 + round * 100, 200 + round * 100);
        std::thread::sleep(Duration::from_millis(300));
    }
    let outcome = running.finish();
    let grown = resident_bytes(backend) - before;
    assert_eq!(session.ask("SELECT 6 * 7;"), "42");
    assert!(grown > 20_000_000, "the backend grew by {grown} bytes only");

    account::sums_up(&outcome);
    let recording = outcome.recording();
    allocations::heap_closes(&recording).unwrap_or_else(|problem| panic!("{problem}\n{outcome}"));
    let survivors = recording
        .call_sites
        .iter()
        .filter(|site| site.evidence == "survivors");
    let live: u64 = survivors.filter_map(|site| site.live_bytes).sum();
    assert!(
        live > grown / 2,
        "{live} bytes by survivors, {grown} grew\n{outcome}"
    );
    let first = &recording.call_sites[0];
    assert_eq!(first.evidence, "survivors", "{outcome}");
    let culprit = first.culprit.as_ref();
    let module = culprit
        .and_then(|culprit| culprit.module.as_deref())
        .unwrap_or_default();
    assert!(module.contains("postgres"), "{module} is blamed\n{outcome}");
    let function = culprit.and_then(|culprit| culprit.function.as_deref());
    let function = function.unwrap_or_else(|| panic!("nobody is named\n{outcome}"));
    assert!(!function.contains("malloc"), "{function} is blamed\n{outcome}");
    // A stack that the kernel takes inside a watched malloc ends where its return probe stands: not those of births.
    for site in recording
        .call_sites
        .iter()
        .filter(|site| site.live_bytes > Some(0))
    {
        assert!(
            site.evidence != "survivors" || site.stack_complete,
            "{} does not reach its root\n{}",
            site.label,
            expect::table(&recording, &outcome)
        );
    }
    text::wait_clean(backend);
}
