//! How memory goes over the window, and what it goes with.

use std::time::Duration;

use leakwatch_tests::heap::Verdict;
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record, Running};
use leakwatch_tests::recording::Recording;
use leakwatch_tests::target::Target;
use leakwatch_tests::trends::Correlation;

/// What `trend_server --keep` has for each connection, bytes.
const STATE_BYTES: f64 = 24.0 * 1024.0;
/// By so much the bytes for each may be off.
const TOLERANCE: f64 = 0.25;
/// A greater chance to be none, of all counts together, is no correlation.
const CHANCE_MOST: f64 = 0.05;

fn start(arguments: &[&str]) -> (Target, Running) {
    let mut target = Target::start(&Program::c("trend_server"), arguments);
    target.go();
    let running = Record::of(target.pid()).duration("60s").start();
    (target, running)
}

fn goes_with<'a>(recording: &'a Recording, name: &str) -> Option<&'a Correlation> {
    let correlations = recording.correlations.as_ref().expect("samples were taken");
    correlations
        .iter()
        .find(|it| it.with == name && it.p_value_corrected.is_some_and(|chance| chance <= CHANCE_MOST))
}

fn verdict<'a>(recording: &'a Recording, kind: &str, outcome: &Outcome) -> &'a Verdict {
    let verdict = recording
        .verdict
        .as_ref()
        .unwrap_or_else(|| panic!("no verdict\n{outcome}"));
    assert_eq!(verdict.kind, kind, "{verdict:?}\n{outcome}");
    verdict
}

fn kind<'a>(recording: &'a Recording, outcome: &Outcome) -> &'a str {
    let trend = recording
        .trend
        .as_ref()
        .unwrap_or_else(|| panic!("no trend\n{outcome}"));
    assert!(trend.samples >= 50, "{trend:?}");
    &trend.kind
}

/// One minute for all three: who keeps state for each connection goes with connections, who keeps requests at stable
/// connections grows and does not, and who keeps nothing is flat.
#[test]
fn a_leak_by_the_connection_one_by_the_request_and_none() {
    if !kernel::required() {
        return;
    }
    let (_by_connection, one) = start(&["--keep"]);
    let (_by_request, two) = start(&["--requests"]);
    let (_steady, three) = start(&[]);

    // They end by themselves.
    std::thread::sleep(Duration::from_secs(55));
    let outcome = one.finish();
    let recording = outcome.recording();
    let found =
        goes_with(&recording, "connections").unwrap_or_else(|| panic!("not with connections\n{outcome}"));
    let each = found.bytes_per_unit.expect("they are of many sizes");
    assert!(
        (each - STATE_BYTES).abs() < TOLERANCE * STATE_BYTES,
        "{each} bytes for each connection\n{outcome}"
    );
    assert!(goes_with(&recording, "threads").is_none(), "{outcome}");
    let words = verdict(&recording, "leak", &outcome).suggestions.join("\n");
    assert!(words.contains("timeouts"), "{words}\n{outcome}");

    let outcome = two.finish();
    let recording = outcome.recording();
    assert_eq!(kind(&recording, &outcome), "steady growth", "{outcome}");
    let slope = recording
        .trend
        .as_ref()
        .and_then(|trend| trend.slope_bytes_per_second);
    let slope = slope.expect("its noise is known");
    // 12 of 3 KiB in each tenth of a second, which take a little longer.
    assert!(
        (250_000.0..=400_000.0).contains(&slope),
        "{slope} a second\n{outcome}"
    );
    for name in ["connections", "fds", "threads"] {
        assert!(
            goes_with(&recording, name).is_none(),
            "it goes with {name}\n{outcome}"
        );
    }
    // The handler is named, and nothing is said of connections but that it does not go with them.
    let words = verdict(&recording, "leak", &outcome).suggestions.join("\n");
    assert!(
        words.contains("keep_request") && !words.contains("timeouts"),
        "{words}\n{outcome}"
    );

    let outcome = three.finish();
    let recording = outcome.recording();
    assert_eq!(kind(&recording, &outcome), "flat", "{outcome}");
    verdict(&recording, "flat", &outcome);
}
