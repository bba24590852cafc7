//! `leakwatch scan`: who grows, among all processes.

use std::fs;

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::run;
use leakwatch_tests::refusal::folder;
use leakwatch_tests::target::Target;
use leakwatch_tests::watching::FakeProc;
use leakwatch_tests::{expect, kernel};

#[test]
fn the_one_that_leaks_is_among_the_first() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let file = folder.path().join("x.json");
    let mut target = Target::start(&Program::c("trend_server"), &["--requests"]);
    target.go();
    let outcome = run(&[
        "scan",
        "--duration",
        "5s",
        "--top",
        "50",
        "-o",
        file.to_str().expect("plain"),
    ]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    expect::printable(&outcome);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("it was written")).expect("it is JSON");
    let rows = report["rows"].as_array().expect("there are rows");
    let row = rows
        .iter()
        .find(|row| row["pid"] == target.pid())
        .unwrap_or_else(|| panic!("it is not among them\n{outcome}"));
    let growth = row["anonymous_growth_bytes"].as_i64().expect("it is a number");
    // Some 360 KB a second.
    assert!((1 << 20..=4 << 20).contains(&growth), "{growth}\n{outcome}");
    assert!(outcome.stdout.contains(&target.pid().to_string()), "{outcome}");
    assert!(report["processes"].as_u64().expect("it is a number") > 2);
}

#[test]
fn thousands_of_processes_are_cheap() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let file = folder.path().join("x.json");
    let host = FakeProc::new(3000);
    let outcome = run(&[
        "scan",
        "--duration",
        "100ms",
        "--proc-root",
        host.root(),
        "-o",
        file.to_str().expect("plain"),
    ]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).expect("it was written")).expect("it is JSON");
    assert_eq!(report["processes"], 3000);
    let seconds = report["processor_seconds"].as_f64().expect("it is a number");
    // Two looks at 3,000: 6,000 samples of far less than a millisecond, in a build that is hardly optimised.
    assert!(seconds < 3.0, "{seconds} s of processor time");
}
