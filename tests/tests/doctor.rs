//! `leakwatch doctor`: every need and its state.

use std::os::unix::process::CommandExt;
use std::process::Command;

use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::{run, run_command};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

fn says(text: &str, words: &[&str]) {
    let lower = text.to_lowercase();
    for word in words {
        assert!(
            lower.contains(&word.to_lowercase()),
            "doctor does not speak of {word}:\n{text}"
        );
    }
}

#[test]
fn a_machine_that_will_do() {
    if !kernel::required() {
        return;
    }
    let outcome = run(&["doctor"]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    says(&outcome.stdout, &["BTF", "tracefs", "tracepoint", "ring buffer"]);
    expect::printable(&outcome);
}

#[test]
fn a_target_that_will_do() {
    if !kernel::required() {
        return;
    }
    let target = Target::start(&Program::c("brk_leak"), &[]);
    let outcome = run(&["doctor", "-p", &target.pid().to_string()]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    says(&outcome.stdout, &[&target.pid().to_string(), "64", "glibc"]);
}

#[test]
fn a_target_that_is_gone() {
    let mut child = Command::new("true").spawn().expect("true runs");
    let pid = child.id();
    child.wait().expect("true ends");
    let outcome = run(&["doctor", "-p", &pid.to_string()]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    says(
        &format!("{}{}", outcome.stdout, outcome.stderr),
        &[&pid.to_string()],
    );
}

/// Somebody without privileges learns what is missing, not just that something is.
#[test]
fn a_user_without_privileges() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("it is ours");
    // The target folder may lie where only root can look.
    let copy = folder.path().join("leakwatch");
    programs::copy(programs::leakwatch(), &copy);
    let mut command = Command::new(&copy);
    command.arg("doctor").current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let outcome = run_command(command);
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    says(&outcome.stdout, &["root"]);
}
