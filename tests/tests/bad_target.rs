//! Targets, privileges, kernels and outputs that will not do: one clear line, exit status 1, nothing left behind.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::{run, run_command};
use leakwatch_tests::refusal::{
    Bystander, a_kernel_thread, entries, folder, in_own_mounts, record, sleeper, thirty_two_bit,
};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

// The target.

#[test]
fn a_process_that_is_gone() {
    if !kernel::required() {
        return;
    }
    let mut child = Command::new("true").spawn().expect("true runs");
    let pid = child.id().to_string();
    child.wait().expect("true ends");
    expect::refused(&record(&["-p", &pid, "-d", "1s"]), 1, &[&pid]);
}

#[test]
fn a_process_that_is_a_zombie() {
    if !kernel::required() {
        return;
    }
    // Not waited for until the guard is dropped, it stays a zombie.
    let zombie = Bystander::start(Command::new("true"));
    let state = || fs::read_to_string(format!("/proc/{}/stat", zombie.pid())).unwrap_or_default();
    while !state().contains(") Z ") {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    expect::refused(&record(&["-p", &zombie.pid(), "-d", "1s"]), 1, &[&zombie.pid()]);
}

#[test]
fn a_thread_that_is_no_process() {
    if !kernel::required() {
        return;
    }
    let target = Target::start(&Program::cpp("arenas"), &[]);
    let tasks = fs::read_dir(format!("/proc/{}/task", target.pid()))
        .expect("it is there")
        .flatten();
    let threads = tasks.filter_map(|task| task.file_name().into_string().ok());
    let thread = threads
        .into_iter()
        .find(|tid| *tid != target.pid().to_string())
        .expect("it has threads");
    // The message may well say which process the thread belongs to.
    expect::refused(&record(&["-p", &thread, "-d", "1s"]), 1, &[&thread, "thread"]);
}

#[test]
fn kernel_threads() {
    if !kernel::required() {
        return;
    }
    let Some(pid) = a_kernel_thread() else {
        // Inside a PID namespace there is none to point at.
        eprintln!("SKIPPED: no kernel thread is visible here");
        return;
    };
    expect::refused(&record(&["-p", &pid, "-d", "1s"]), 1, &[&pid, "kernel thread"]);
}

#[test]
fn itself() {
    if !kernel::required() {
        return;
    }
    // The shell's PID stays when it becomes leakwatch.
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" record -p $$ -d 1s"])
        .arg(programs::leakwatch());
    expect::refused(&run_command(command), 1, &["itself"]);
}

#[test]
fn a_name_that_nobody_has() {
    if !kernel::required() {
        return;
    }
    expect::refused(
        &record(&["--name", "no such name", "-d", "1s"]),
        1,
        &["no such name"],
    );
}

/// A 32-bit process has other registers and another stack: it is refused rather than misread.
#[test]
fn a_32_bit_process() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let Some(process) = thirty_two_bit(folder.path()) else {
        return;
    };
    expect::refused(
        &record(&["-p", &process.pid(), "-d", "1s"]),
        1,
        &[&process.pid(), "32-bit"],
    );
}

/// Seen from a PID namespace of its own, numbers mean other processes than the kernel's probes see: leakwatch must
/// watch the right one or say that it cannot, and must not report an empty window.
#[test]
fn from_within_another_pid_namespace() {
    if !kernel::required() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
    command
        .arg("sleep 600 & exec \"$0\" record -p $! -d 1s")
        .arg(programs::leakwatch());
    let outcome = run_command(command);
    expect::refused(&outcome, 1, &["namespace"]);
}

// The privileges and the kernel.

#[test]
fn no_privileges() {
    let process = sleeper();
    let folder = folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    // The target folder may lie where only root can look.
    let copy = folder.path().join("leakwatch");
    programs::copy(programs::leakwatch(), &copy);
    let mut command = Command::new(&copy);
    command
        .args(["record", "-p", &process.pid(), "-d", "1s", "-o", "x.json"])
        .current_dir(folder.path());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let outcome = run_command(command);
    expect::refused(&outcome, 1, &["root"]);
    assert_eq!(entries(folder.path()), [copy], "{outcome}");
}

#[test]
fn a_kernel_without_btf() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let outcome = in_own_mounts(
        "mount -t tmpfs tmpfs /sys/kernel/btf && exec \"$0\" record -p \"$1\" -d 1s",
        &[process.pid().as_ref()],
    );
    expect::refused(&outcome, 1, &["BTF"]);
}

/// tracefs need not be mounted beforehand, and is not left mounted for the host by a run in a namespace of its own.
#[test]
fn tracefs_not_mounted() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let outcome = in_own_mounts(
        "umount -l /sys/kernel/debug 2>/dev/null; umount -l /sys/kernel/tracing 2>/dev/null; \
         exec \"$0\" record -p \"$1\" -d 1s",
        &[process.pid().as_ref()],
    );
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
}

/// Neither mounted nor mountable: something else lies over both places, and mounting is refused.
#[test]
fn tracefs_not_mountable() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    // Without CAP_SYS_ADMIN nothing can be mounted; BPF and perf have capabilities of their own.
    let outcome = in_own_mounts(
        "umount -l /sys/kernel/debug 2>/dev/null; umount -l /sys/kernel/tracing 2>/dev/null; \
         exec setpriv --bounding-set -sys_admin --inh-caps -sys_admin \"$0\" record -p \"$1\" -d 1s",
        &[process.pid().as_ref()],
    );
    expect::refused(&outcome, 1, &["tracefs"]);
}

// The output.

#[test]
fn an_output_folder_that_is_not_there() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let outcome = run(&[
        "record",
        "-p",
        &process.pid(),
        "-d",
        "600s",
        "-o",
        "/nonexistent/x.json",
    ]);
    expect::refused(&outcome, 1, &["/nonexistent/x.json"]);
}

/// Refused before the window, not after: nobody waits ten minutes to learn it.
#[test]
fn an_output_that_is_a_symlink() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let folder = folder();
    let (precious, link) = (folder.path().join("precious"), folder.path().join("x.json"));
    fs::write(&precious, "precious").expect("it is ours");
    symlink(&precious, &link).expect("it is ours");
    let outcome = run(&[
        "record".as_ref(),
        "-p".as_ref(),
        OsStr::new(&process.pid()),
        "-d".as_ref(),
        "600s".as_ref(),
        "-o".as_ref(),
        link.as_os_str(),
    ]);
    expect::refused(&outcome, 1, &["x.json"]);
    assert_eq!(fs::read_to_string(&precious).expect("it is there"), "precious");
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(entries(folder.path()).len(), 2, "{outcome}");
}

#[test]
fn an_output_that_is_a_folder() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let folder = folder();
    let output = folder.path().join("x.json");
    fs::create_dir(&output).expect("it is ours");
    let pid = process.pid();
    let words: [&OsStr; 7] = [
        "record".as_ref(),
        "-p".as_ref(),
        pid.as_ref(),
        "-d".as_ref(),
        "600s".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ];
    expect::refused(&run(&words), 1, &["x.json"]);
    assert_eq!(entries(&output), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let folder = folder();
    // One page of space, taken: the first byte of a recording fails. What is left is listed on stdout.
    let outcome = in_own_mounts(
        "mount -t tmpfs -o size=4k tmpfs \"$1\" && head -c 4096 /dev/zero > \"$1/filler\" || exit 99; \
         \"$0\" record -p \"$2\" -d 1s -o \"$1/x.json\" > /dev/null; status=$?; ls -A \"$1\"; exit $status",
        &[folder.path().as_os_str(), process.pid().as_ref()],
    );
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert_eq!(outcome.stdout, "filler\n", "{outcome}");
    let errors: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| !line.contains("attached"))
        .collect();
    assert!(
        errors.len() == 1 && errors[0].contains("x.json") && errors[0].contains("space"),
        "{outcome}"
    );
}

/// stdout may be full or closed as well: `leakwatch record | head` is no reason to panic.
#[test]
fn a_stdout_that_cannot_be_written() {
    if !kernel::required() {
        return;
    }
    let process = sleeper();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" record -p \"$1\" -d 1s > /dev/full"]);
    let outcome = run_command({
        command.arg(programs::leakwatch()).arg(process.pid());
        command
    });
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}
