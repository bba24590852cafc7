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

/// More than there are processors.
#[test]
fn eight_workers() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(
        &Program::c("cohort_children"),
        &["--workers", "8", "--requests", "4000"],
    );
    let watched = watch(&mut target, 8, &["--children"]);
    is_sound(&watched);
    watched.names_the_leak();
}
