//! What may happen to the target or to leakwatch in the middle of a window.

use std::process::Command;

use leakwatch_tests::kernel::BpfObjects;
use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::Record;
use leakwatch_tests::recording::Recording;
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};
use rustix::process::Signal;

#[test]
fn a_child_is_followed_when_asked() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["fork"]);
    let (truth, outcome) = Record::of(target.pid()).arg("--children").watch(&mut target);
    expect::first(&outcome, "leak_in_child");
    expect::held_within_a_page_per_call(&outcome, &truth);
    expect::complete_stacks(&outcome);
    expect::no_losses(&outcome);
}

#[test]
fn a_child_is_left_alone_when_not_asked() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["fork"]);
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    assert_eq!(outcome.recording().held_by("leak_in_child"), 0, "{outcome}");
}

#[test]
fn an_honest_child_is_not_blamed() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["fork", "--honest"]);
    let (_, outcome) = Record::of(target.pid()).arg("--children").watch(&mut target);
    expect::nothing_held_over(&outcome, 256 * 1024);
}

/// The new program owns nothing of the old one's memory: the window ends with what was gathered up to then.
#[test]
fn exec_ends_the_window_with_what_was_gathered() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["exec"]);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    target.go();
    // Said by the new program: nobody tells leakwatch.
    let truth = target.truth();
    let outcome = running.finish();
    let recording = outcome.recording();
    assert_eq!(recording.window.ended_by, "target_exec", "{outcome}");
    expect::first(&outcome, "leak_before_exec");
    let before = truth.number("committed_before_exec_bytes");
    assert_eq!(recording.held_by("leak_before_exec"), before, "{outcome}");
    assert_eq!(recording.held_by("leak_after_exec"), 0, "{outcome}");
    assert!(
        outcome.stdout.contains("exec"),
        "the report tells of it\n{outcome}"
    );
    assert!(target.is_well());
}

#[test]
fn exit_ends_the_window_with_what_was_gathered() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["exit"]);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    target.go();
    let truth = target.truth();
    // The target is gone by itself; nobody tells leakwatch.
    assert!(target.finish().success());
    let outcome = running.finish();
    assert_eq!(outcome.recording().window.ended_by, "target_exit", "{outcome}");
    expect::first(&outcome, "leak_before_exit");
    expect::held_within_a_page_per_call(&outcome, &truth);
    expect::complete_stacks(&outcome);
}

#[test]
fn a_target_that_exits_at_once() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("lifecycle"), &["exit", "--steps", "0"]);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    target.go();
    let outcome = running.finish();
    let recording = outcome.recording();
    assert_eq!(recording.window.ended_by, "target_exit", "{outcome}");
    // A page of its stack or of libc's own may be touched on the way out: no memory was taken for it.
    assert_eq!(recording.held(), 0, "{outcome}");
    assert!(recording.live() <= 16 * 4096, "{outcome}");
}

#[test]
fn the_deadline_ends_the_window() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &[]);
    let running = Record::of(target.pid()).duration("1s").start();
    running.wait_attached();
    let outcome = running.finish();
    let recording = outcome.recording();
    assert_eq!(recording.window.ended_by, "deadline", "{outcome}");
    assert!(recording.window.duration_seconds >= 1.0, "{outcome}");
    assert!(recording.call_sites.is_empty(), "{outcome}");
    assert!(target.is_well());
}

#[test]
fn one_interrupt_ends_the_window_and_reports() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &[]);
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    let recording = outcome.recording();
    assert_eq!(recording.window.ended_by, "interrupt", "{outcome}");
    assert_eq!(recording.target.pid, target.pid());
    assert!(outcome.stdout.contains("map_and_forget"), "{outcome}");
}

/// The second of two interrupts may come before the report is made or after: either way nothing is half done.
#[test]
fn interrupted_twice_it_quits() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &[]);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    let objects = BpfObjects::of(running.pid());
    running.interrupt();
    running.interrupt();
    let outcome = running.finish();
    if outcome.file("x.json").exists() {
        // Written whole, even if leakwatch was then quit before it printed the report.
        let recording = Recording::parse(&outcome.text_of("x.json"));
        assert!(
            recording.is_ok_and(|recording| recording.call_sites.is_empty()),
            "{outcome}"
        );
    }
    objects.wait_gone();
    assert!(target.is_well());
}

#[test]
fn killed_outright_it_leaves_nothing_in_the_kernel() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::cpp("arenas"), &[]);
    let record = Record::of(target.pid());
    let json = record.file("x.json");
    let running = record.start();
    running.wait_attached();
    target.go();
    let objects = BpfObjects::of(running.pid());
    assert!(
        !objects.programs.is_empty() && !objects.maps.is_empty(),
        "an attached leakwatch has programs and maps: {objects:?}"
    );
    assert_eq!(objects.left(), objects, "all are there while it runs");
    running.signal(Signal::KILL);
    let outcome = running.finish();
    assert!(outcome.status.code().is_none(), "{outcome}");
    objects.wait_gone();
    assert!(!json.exists(), "a recording is written whole or not at all");
    // The target neither stopped nor slowed to a halt: it comes to its end.
    let _ = target.truth();
    assert!(target.is_well());
    assert!(target.finish().success());
}

#[test]
fn done_it_leaves_nothing_in_the_kernel() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &[]);
    let running = Record::of(target.pid()).start();
    running.wait_attached();
    let objects = BpfObjects::of(running.pid());
    assert!(!objects.programs.is_empty(), "an attached leakwatch has programs");
    target.go();
    let _ = target.truth();
    running.interrupt();
    assert!(running.finish().status.success());
    objects.wait_gone();
    assert!(target.is_well());
}

#[test]
fn two_recordings_of_one_target_agree() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &[]);
    let runs = [(); 2].map(|()| Record::of(target.pid()).start());
    runs.iter().for_each(|running| running.wait_attached());
    target.go();
    let truth = target.truth();
    for running in runs {
        running.interrupt();
        let outcome = running.finish();
        expect::first(&outcome, "map_and_forget");
        assert_eq!(
            outcome.recording().held_by("map_and_forget"),
            truth.committed_bytes
        );
    }
}

/// A container's process, as the host sees it.
#[test]
fn a_target_in_a_pid_namespace_below() {
    if !kernel::required() {
        return;
    }
    let program = Program::c("mmap_leak");
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child"])
        .arg(&program.path);
    let mut unshare = Target::start_command(command);
    let inner = *kernel::children_of(unshare.pid())
        .first()
        .expect("unshare has a child");
    let (truth, outcome) = Record::of(inner).watch(&mut unshare);
    expect::first(&outcome, "map_and_forget");
    assert_eq!(
        outcome.recording().held_by("map_and_forget"),
        truth.committed_bytes
    );
    expect::complete_stacks(&outcome);
}

/// As after an upgrade of its package: the file that it runs from is gone, and another program stands at its path.
#[test]
fn a_target_whose_program_file_was_replaced() {
    if !kernel::required() {
        return;
    }
    let program = Program::c("mmap_leak");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let copy = folder.path().join("server");
    programs::copy(&program.path, &copy);
    let mut target = Target::start_command(Command::new(&copy));
    std::fs::remove_file(&copy).expect("a running program can be deleted");
    programs::copy(&Program::c("brk_leak").path, &copy);
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    expect::first(&outcome, "map_and_forget");
    expect::complete_stacks(&outcome);
}

/// A container's files: its program lies on a mount that only its own namespace has.
#[test]
fn a_target_in_a_mount_namespace_of_its_own() {
    if !kernel::required() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs \"$0\" && cp \"$1\" \"$0/hidden\" && exec \"$0/hidden\"");
    command.arg(folder.path()).arg(Program::c("mmap_leak").path);
    let mut target = Target::start_command(command);
    assert!(
        !folder.path().join("hidden").exists(),
        "it is not to be seen from here"
    );
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    expect::first(&outcome, "map_and_forget");
    expect::complete_stacks(&outcome);
}
