//! Children that a server starts within the window: the leak is theirs, and so are the births.

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;
use leakwatch_tests::{account, allocations, kernel};

/// Of what they gain, children may gain so much before their heaps are first read.
const UNREAD_PART: f64 = 0.3;

fn server(arguments: &[&str], seconds: u32) -> Watched {
    let mut target = Target::start(&Program::c("cohort_children"), arguments);
    watch(&mut target, seconds, &["--children"])
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a test are far below 2^53")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// As [`Watched::is_sound`], of a server whose own heap does not matter.
fn is_sound(watched: &Watched) {
    let births = watched.recording.allocations.as_ref();
    let births = births.unwrap_or_else(|| panic!("births were not watched\n{}", watched.detail()));
    assert!(births.bursts > 0 && births.hits > 0, "{}", watched.detail());
    allocations::within_budget(births).unwrap_or_else(|problem| panic!("{problem}\n{}", watched.detail()));
    account::sums_up(&watched.outcome);
}

/// Bytes of the account that stand by this reason.
fn by_reason(watched: &Watched, reason: &str) -> f64 {
    let account = watched.recording.reconciliation.as_ref();
    let reasons = account
        .map(|account| account.reasons.as_slice())
        .unwrap_or_default();
    let found = reasons.iter().find(|row| row.reason == reason);
    float(found.map_or(0, |row| u64::try_from(row.bytes).unwrap_or(0)))
}

#[test]
fn workers_that_leak() {
    if !kernel::required() {
        return;
    }
    let watched = server(&[], 12);
    is_sound(&watched);
    watched.names_the_leak();
    watched.shares_are_true();
    watched.innocents_are_not_blamed();
    watched.rests_on_survivors("handle_upload");
    watched.most_is_named();
    let kept = float(watched.kept_by("handle_upload"));
    let (named, unread) = (
        float(watched.recording.live_by("handle_upload")),
        by_reason(&watched, "gained_before_heap_was_read"),
    );
    let unnamed = watched
        .recording
        .allocations
        .as_ref()
        .map_or(0, |all| all.unnamed_bytes);
    let unnamed = float(u64::try_from(unnamed).unwrap_or(0));
    let tolerance = 0.1 * kept + 3.0 * watched.recording.standard_error_by("handle_upload");
    assert!(
        unread <= UNREAD_PART * kept && (named + unread + unnamed - kept).abs() <= tolerance,
        "of {kept} bytes {named} are named, {unnamed} not, {unread} came before the heaps were read (tolerance \
         {tolerance:.0})\n{}",
        watched.detail()
    );
}

#[test]
fn workers_without_a_leak() {
    if !kernel::required() {
        return;
    }
    let watched = server(&["--fixed"], 8);
    is_sound(&watched);
    watched.nothing_survives();
}

/// The probes stay, and who comes later has them too.
#[test]
fn workers_watched_all_the_time() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("cohort_children"), &["--requests", "2000"]);
    let watched = watch(&mut target, 8, &["--children", "--allocs", "always"]);
    account::sums_up(&watched.outcome);
    watched.names_the_leak();
    watched.innocents_are_not_blamed();
    let births = watched.recording.allocations.as_ref();
    let seconds = births.map_or(0.0, |births| births.watched_seconds);
    // They join between one second and three after their birth.
    assert!(
        seconds >= 3.0,
        "births were watched for {seconds} s\n{}",
        watched.detail()
    );
    let site = watched.recording.sites_of("handle_upload").next();
    let born = site
        .and_then(|site| site.allocations.as_ref())
        .map_or(0, |it| it.births);
    // Three workers, 1,500 a second each.
    assert!(
        born >= 3 * 1500 * 2,
        "{born} births of the leak were seen\n{}",
        watched.detail()
    );
}

/// A child whose heap cannot be read is not watched, and that is told; its siblings are.
#[test]
fn a_child_with_another_allocator() {
    if !kernel::required() {
        return;
    }
    let watched = server(&["--stranger", "--workers", "2"], 10);
    is_sound(&watched);
    watched.names_the_leak();
    watched.innocents_are_not_blamed();
    let lost = watched.recording.losses.nonzero();
    let unwatched = lost
        .get("counters.children_whose_births_were_not_watched")
        .copied();
    assert_eq!(unwatched, Some(1), "{lost:?}\n{}", watched.detail());
    let note =
        |said: &String| said.starts_with("Births of 1 child were not watched") && said.contains("jemalloc");
    assert!(
        watched.recording.notes.iter().any(note),
        "{:?}",
        watched.recording.notes
    );
}

/// More than are watched at once: the others are counted, and told of.
#[test]
fn more_workers_than_are_watched() {
    if !kernel::required() {
        return;
    }
    let arguments = ["--workers", "20", "--uploads", "300", "--requests", "2000"];
    // They join for a fifth of the time.
    let watched = server(&arguments, 20);
    is_sound(&watched);
    let losses = &watched.recording.losses;
    let lost = losses.nonzero();
    let unwatched = lost
        .get("counters.children_whose_births_were_not_watched")
        .copied();
    assert_eq!(unwatched, Some(4), "{losses:?}\n{}", watched.detail());
    let note = "Births of 4 children were not watched: those of 16 processes are.";
    assert!(
        watched.recording.notes.iter().any(|said| said == note),
        "{:?}",
        watched.recording.notes
    );
}
