//! Command lines and recordings that a hurried user can get wrong: one clear line, the right exit status, nothing left
//! behind.
//!
//! Status 2 is a wrong command line, 1 an error in what it asked for. No privileges are needed to refuse any of this.

use std::fs;
use std::path::Path;

use leakwatch_tests::expect;
use leakwatch_tests::record::{Outcome, run};
use leakwatch_tests::refusal::{entries, folder, record};

// The command line.

#[test]
fn no_target_at_all() {
    expect::refused(&record(&["-d", "1s"]), 2, &["--pid"]);
}

#[test]
fn both_a_pid_and_a_name() {
    expect::refused(&record(&["-p", "1", "--name", "x"]), 2, &["--name"]);
}

#[test]
fn a_pid_that_is_none() {
    for wrong in ["0", "-1", "abc", "12x", "", "1.5", "99999999999", "4294967297"] {
        let outcome = record(&[&format!("--pid={wrong}")]);
        expect::refused(&outcome, 2, &["pid"]);
    }
}

#[test]
fn a_duration_that_is_none() {
    for wrong in [
        "0s",
        "0",
        "-1s",
        "abc",
        "",
        "1e999s",
        "99999999999999999h",
        "1000000d",
    ] {
        let outcome = record(&["-p", "1", &format!("--duration={wrong}")]);
        expect::refused(&outcome, 2, &["duration"]);
    }
}

#[test]
fn sizes_and_counts_that_are_none() {
    for (option, wrong) in [
        ("--ring-bytes", "abc"),
        ("--ring-bytes", "-1"),
        ("--stack-bytes", "abc"),
        ("--stack-bytes", "99999999999999999999"),
        ("--min-bytes", "-1"),
        ("--top", "many"),
        ("--group-by", "colour"),
    ] {
        let outcome = record(&["-p", "1", &format!("{option}={wrong}")]);
        expect::refused(&outcome, 2, &[option]);
    }
}

#[test]
fn an_output_of_unknown_format() {
    for name in ["x.doc", "x", "x.json.bak"] {
        let outcome = run(&["record", "-p", "1", "-d", "1s", "-o", name]);
        expect::refused(&outcome, 2, &[name]);
        assert!(!Path::new(name).exists());
    }
}

#[test]
fn an_unknown_command_and_an_unknown_option() {
    expect::refused(&run(&["rekord"]), 2, &["rekord"]);
    expect::refused(&run(&["record", "-p", "1", "--fast"]), 2, &["--fast"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        vec!["--help"],
        vec!["--version"],
        vec!["record", "--help"],
        vec!["doctor", "--help"],
    ] {
        let outcome = run(&arguments);
        assert_eq!(outcome.status.code(), Some(0), "{arguments:?}: {outcome}");
        assert!(
            outcome.stderr.is_empty() && !outcome.stdout.is_empty(),
            "{arguments:?}: {outcome}"
        );
    }
}

// Recordings to be rendered.

/// `report` of a file with this content.
fn report(content: &[u8]) -> Outcome {
    let folder = folder();
    let (file, output) = (folder.path().join("x.json"), folder.path().join("y.txt"));
    fs::write(&file, content).expect("it is ours");
    let outcome = run(&[
        "report".as_ref(),
        file.as_os_str(),
        "-o".as_ref(),
        output.as_os_str(),
    ]);
    assert_eq!(entries(folder.path()), [file], "{outcome}");
    outcome
}

#[test]
fn a_recording_that_is_not_there() {
    expect::refused(
        &run(&["report", "/nonexistent/x.json"]),
        1,
        &["/nonexistent/x.json"],
    );
    expect::refused(&run(&["report"]), 2, &["file"]);
}

#[test]
fn a_recording_that_is_none() {
    let inputs: [&[u8]; 7] = [
        b"",
        b"{}",
        b"[]",
        b"not json",
        b"{\"schema_version\":1}",
        b"{\"schema_version\":\"one\"}",
        b"\xff\xfe\x00",
    ];
    for content in inputs {
        expect::refused(&report(content), 1, &["x.json"]);
    }
}

#[test]
fn a_recording_that_nests_without_end() {
    let mut content = b"{\"schema_version\":1,\"call_sites\":".to_vec();
    content.extend(std::iter::repeat_n(b'[', 1_000_000));
    expect::refused(&report(&content), 1, &["x.json"]);
}

#[test]
fn a_recording_of_a_newer_leakwatch() {
    let newer = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recording.json"))
        .expect("it is there")
        .replace("\"schema_version\": 1", "\"schema_version\": 99");
    expect::refused(&report(newer.as_bytes()), 1, &["99", "newer"]);
}

#[test]
fn a_recording_that_may_not_be_read() {
    expect::refused(&run(&["report", "/proc/self/mem"]), 1, &["/proc/self/mem"]);
    expect::refused(&run(&["report", "/"]), 1, &["/"]);
}

/// What leakwatch itself writes, somebody else may have edited: names in a recording are as hostile as the target's.
#[test]
fn a_recording_with_escape_sequences() {
    let hostile = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recording.json"))
        .expect("it is there")
        .replace("arenas", "\\u001b[2J\\u0007\\nleak: no\\u202e");
    let folder = folder();
    let file = folder.path().join("x.json");
    fs::write(&file, hostile).expect("it is ours");
    let outcome = run(&["report".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    expect::printable(&outcome);
    assert!(
        !outcome.stdout.lines().any(|line| line.starts_with("leak: no")),
        "{outcome}"
    );
}
