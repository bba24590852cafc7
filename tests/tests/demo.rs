//! The README's first command.

use std::process::Command;

use leakwatch_tests::record::{Running, run_command};
use leakwatch_tests::{kernel, programs};
use rustix::process::Signal;

#[test]
fn names_its_own_leak() {
    if !kernel::required() {
        return;
    }
    let mark = format!("LEAKWATCH_TEST_MARK=demo-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("written so");
    let mut command = Command::new(programs::leakwatch());
    command.args(["demo", "-d", "3s"]).env(name, value);
    let outcome = run_command(command);
    assert!(outcome.status.success(), "{outcome}");
    let named = outcome.stdout.find("handle_");
    let first = named.map(|at| outcome.stdout.split_at(at).1);
    assert!(
        first.is_some_and(|text| text.starts_with("handle_upload")),
        "handle_upload should come first\n{outcome}"
    );
    assert_eq!(
        kernel::processes_with(&mark),
        [0_u32; 0],
        "the service outlived the demo"
    );
}

#[test]
fn interrupted_it_reports_and_takes_its_service_along() {
    if !kernel::required() {
        return;
    }
    let mark = format!("LEAKWATCH_TEST_MARK=demo-interrupted-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("written so");
    let mut command = Command::new(programs::leakwatch());
    command.args(["demo", "-d", "120s"]).env(name, value);
    let running = Running::start(
        command,
        tempfile::tempdir().expect("a temporary folder can be made"),
    );
    running.wait_attached();
    running.interrupt();
    let outcome = running.finish();
    assert!(outcome.status.success(), "{outcome}");
    assert_eq!(
        kernel::processes_with(&mark),
        [0_u32; 0],
        "the service outlived the demo"
    );
}

#[test]
fn killed_outright_its_service_goes_too() {
    if !kernel::required() {
        return;
    }
    let mark = format!("LEAKWATCH_TEST_MARK=demo-killed-{}", std::process::id());
    let (name, value) = mark.split_once('=').expect("written so");
    let mut command = Command::new(programs::leakwatch());
    command.args(["demo", "-d", "120s"]).env(name, value);
    let running = Running::start(
        command,
        tempfile::tempdir().expect("a temporary folder can be made"),
    );
    running.wait_attached();
    running.signal(Signal::KILL);
    let _ = running.finish();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !kernel::processes_with(&mark).is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "the service outlived a killed demo"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
