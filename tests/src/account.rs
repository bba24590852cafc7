//! What the page account must say: live bytes function by function, and a total near the kernel's own.
//!
//! A figure from every page is right or wrong. One from a sample has a standard error, which the report states, and is
//! held to three of them: [`agrees_when_sampled`].

use crate::expect::table;
use crate::record::{Outcome, Record};
use crate::recording::{Reconciliation, Recording};
use crate::target::Truth;

const PAGE_BYTES: u64 = 4096;

/// So high a budget that no test program goes over it: every page is looked at.
pub const EVERY_PAGE: &str = "100000000";

/// What a function may err by beyond its 2 %: pages of the C library's own that it happened to touch first.
const STRAY_PAGES: u64 = 4;

/// The account closes to within these parts of the growth.
const LEAST_COVERAGE: f64 = 0.95;
const MOST_COVERAGE: f64 = 1.02;

/// A record that looks at every page, and at nothing else.
#[must_use]
pub fn every_page(pid: u32) -> Record {
    Record::of(pid).pages_alone().budget(EVERY_PAGE)
}

/// Nothing was thinned, so no figure may have an error.
pub fn every_page_was_looked_at(outcome: &Outcome) {
    let recording = outcome.recording();
    assert_eq!(
        recording.cost.sampling_rate,
        Some(1.0),
        "the sample was thinned\n{outcome}"
    );
    let errs = recording
        .call_sites
        .iter()
        .find(|site| site.standard_error_bytes.is_some_and(|error| error > 0.0));
    assert!(
        errs.is_none(),
        "a figure from every page has no error\n{}",
        table(&recording, outcome)
    );
}

/// It was thinned: else what is said of samples was not tested.
pub fn it_was_sampled(outcome: &Outcome) {
    let recording = outcome.recording();
    let rate = recording.cost.sampling_rate.unwrap_or(1.0);
    assert!(
        rate > 0.0 && rate < 1.0,
        "the rate is {rate}: nothing was thinned\n{}",
        table(&recording, outcome)
    );
    let error = recording
        .reconciliation
        .as_ref()
        .and_then(|account| account.standard_error_bytes);
    assert!(
        error.is_some_and(|error| error > 0.0),
        "the account states no error at a rate of {rate}\n{outcome}"
    );
}

/// The program's own books agree with its page map: else its truth is none.
pub fn truth_is_sound(truth: &Truth) {
    assert_eq!(
        truth.number("disagreements"),
        0,
        "the program's books and its page map differ: {truth:?}"
    );
}

/// Each function's live bytes are what the program counted, within 2 % and a few pages.
pub fn every_function(outcome: &Outcome, truth: &Truth) {
    every_page_was_looked_at(outcome);
    let recording = outcome.recording();
    assert!(!truth.functions.is_empty(), "no truth to compare with: {truth:?}");
    for (function, expected) in &truth.functions {
        let live = recording.live_by(function);
        let tolerance = expected / 50 + STRAY_PAGES * PAGE_BYTES;
        assert!(
            live.abs_diff(*expected) <= tolerance,
            "{function} keeps {live} bytes by the report, {expected} by its own count (tolerance {tolerance})\n{}",
            table(&recording, outcome)
        );
    }
}

/// The whole of it agrees with smaps: at rate 1 coverage is 0.95 to 1.02, and a sample may err by three standard errors
/// more.
pub fn closes(outcome: &Outcome) {
    if let Err(problem) = closing(&outcome.recording()) {
        panic!("{problem}\n{}", table(&outcome.recording(), outcome));
    }
}

/// What call sites keep and what the reasons tell is all that grew, to the byte: whatever part of it they are.
pub fn sums_up(outcome: &Outcome) {
    let recording = outcome.recording();
    let account = recording.reconciliation.as_ref();
    let account = account.unwrap_or_else(|| panic!("no account\n{outcome}"));
    if let Err(problem) = summing(account) {
        panic!("{problem}\n{}", table(&recording, outcome));
    }
}

fn summing(account: &Reconciliation) -> Result<(), String> {
    let reasons: i64 = account.reasons.iter().map(|reason| reason.bytes).sum();
    if account.attributed_bytes + reasons == account.smaps_growth_bytes {
        return Ok(());
    }
    Err(format!("the account does not sum up: {account:?}"))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a test are far below 2^53")]
fn closing(recording: &Recording) -> Result<(), String> {
    let account = recording
        .reconciliation
        .as_ref()
        .ok_or("the recording has no account")?;
    summing(account)?;
    let coverage = account
        .coverage
        .ok_or_else(|| format!("nothing grew: {account:?}"))?;
    let growth = account.smaps_growth_bytes as f64;
    if (coverage * growth - account.attributed_bytes as f64).abs() > 1.0 {
        return Err(format!("coverage is not attributed by growth: {account:?}"));
    }
    let slack = 3.0 * account.standard_error_bytes.unwrap_or(0.0) / growth;
    if !(LEAST_COVERAGE - slack..=MOST_COVERAGE + slack).contains(&coverage) {
        return Err(format!(
            "coverage is {coverage:.3}, its slack {slack:.3}: {account:?}"
        ));
    }
    Ok(())
}

/// All sites together keep no more than smaps itself shows, 2 % and a few pages aside: for programs that keep nothing,
/// and for those whose allocator keeps what they gave back.
pub fn nothing_beyond_smaps(outcome: &Outcome) {
    let recording = outcome.recording();
    let account = recording
        .reconciliation
        .clone()
        .unwrap_or_else(|| panic!("no account\n{outcome}"));
    let growth = u64::try_from(account.smaps_growth_bytes).unwrap_or(0);
    let limit = growth + growth / 50 + 8 * PAGE_BYTES;
    assert!(
        recording.live() <= limit,
        "{} bytes are blamed, smaps shows {growth}\n{}",
        recording.live(),
        table(&recording, outcome)
    );
}

/// Functions that touched much and kept nothing do not look like a leak: what they keep by the report is a small part
/// of what they touched.
pub fn churn_is_not_retained(outcome: &Outcome, function: &str, least_touched: u64) {
    let recording = outcome.recording();
    let touched = recording.touched_by(function);
    assert!(
        touched >= least_touched,
        "{function} touched {touched} bytes by the report, {least_touched} at least by its own count\n{}",
        table(&recording, outcome)
    );
    for site in recording.sites_of(function) {
        assert!(
            site.retention.is_some_and(|kept| kept < 0.05),
            "{function} is said to retain {:?}\n{}",
            site.retention,
            table(&recording, outcome)
        );
    }
}

/// Every site of this function says that pages are its evidence.
pub fn rests_on_pages(outcome: &Outcome, function: &str) {
    let recording = outcome.recording();
    let mut sites = recording.sites_of(function).peekable();
    assert!(
        sites.peek().is_some(),
        "{function} has no site\n{}",
        table(&recording, outcome)
    );
    for site in sites.filter(|site| site.live_bytes.unwrap_or(0) > 0) {
        assert_eq!(
            site.evidence,
            "pages",
            "{function}\n{}",
            table(&recording, outcome)
        );
    }
}

/// Compares a sampled recording with the truth, function by function and as a whole.
///
/// # Errors
/// What is more than three standard errors off.
///
/// # Panics
/// Where the recording is no sample at all, for then the comparison would prove nothing; where it gives a figure no
/// error; and where a figure is six standard errors off.
#[expect(clippy::cast_precision_loss, reason = "bytes of a test are far below 2^53")]
fn compare_sampled(truth: &Truth, outcome: &Outcome) -> Result<(), String> {
    let recording = outcome.recording();
    let detail = || table(&recording, outcome);
    it_was_sampled(outcome);
    let rate = recording.cost.sampling_rate.unwrap_or(1.0);
    assert!(!truth.functions.is_empty(), "no truth to compare with: {truth:?}");
    let mut misses = Vec::new();
    for (function, expected) in &truth.functions {
        let (live, error) = (recording.live_by(function), recording.standard_error_by(function));
        // An error of 0 is a claim to know. Only a mapping can: all that is there of it is its site's.
        let claims = recording.sites_of(function).find(|site| {
            site.evidence == "pages"
                && site.live_bytes.unwrap_or(0) > 0
                && site.standard_error_bytes.unwrap_or(0.0) <= 0.0
        });
        assert!(
            claims.is_none(),
            "{function} has no standard error at a rate of {rate}: {claims:?}\n{}",
            detail()
        );
        // Where no page was drawn the report has no site to give an error to. By the rule of three, less than three
        // pages of the sample were to be expected then.
        let error = error.max(PAGE_BYTES as f64 / rate);
        // What the program cannot know of itself to the page stays out of the comparison, as at rate 1.
        let known_to = if *expected == 0 {
            0.0
        } else {
            (STRAY_PAGES * PAGE_BYTES) as f64
        };
        let off = ((live as f64 - *expected as f64).abs() - known_to) / error;
        let figure = format!(
            "{function} keeps {live} bytes by the report, {expected} by its own count: {off:.1} standard errors of {error:.0}"
        );
        assert!(off <= 6.0, "{figure}\n{}", detail());
        if off > 3.0 {
            misses.push(figure);
        }
    }
    misses.extend(closing(&recording).err());
    if misses.is_empty() {
        Ok(())
    } else {
        Err(format!("{}\n{}", misses.join("\n"), detail()))
    }
}

/// Records until every figure is within three standard errors, twice at most.
///
/// One figure in 370 lies outside of three standard errors by right, and the tests ask for many: a second recording,
/// whose addresses and thus whose sample are others, must then agree as a whole. An estimate that is biased, or an
/// error that is stated too small, fails both.
pub fn agrees_when_sampled(mut record: impl FnMut() -> (Truth, Outcome)) {
    let mut attempt = || {
        let (truth, outcome) = record();
        compare_sampled(&truth, &outcome)
    };
    if let Err(first) = attempt()
        && let Err(second) = attempt()
    {
        panic!("twice in a row: {first}\n{second}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(attributed: i64, standard_error: f64) -> Recording {
        let mut value: serde_json::Value =
            serde_json::from_str(include_str!("../fixtures/recording.json")).unwrap();
        let account = &mut value["reconciliation"];
        account["attributed_bytes"] = attributed.into();
        account["reasons"][0]["bytes"] = (38_200_000 - attributed).into();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let coverage = attributed as f64 / 38_200_000.0;
        account["coverage"] = coverage.into();
        account["standard_error_bytes"] = standard_error.into();
        Recording::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn an_account_closes_within_its_bounds_and_its_error() {
        assert_eq!(closing(&with(38_133_760, 0.0)), Ok(()));
        for open in [36_000_000, 39_100_000] {
            assert!(closing(&with(open, 0.0)).unwrap_err().contains("coverage"));
            assert_eq!(closing(&with(open, 1_000_000.0)), Ok(()));
        }
        assert!(closing(&with(30_000_000, 1_000_000.0)).is_err());
    }

    #[test]
    fn an_account_that_does_not_sum_up_is_none() {
        let mut recording = with(38_133_760, 0.0);
        if let Some(account) = &mut recording.reconciliation {
            account.reasons.clear();
        }
        assert!(closing(&recording).unwrap_err().contains("sum up"));
    }
}
