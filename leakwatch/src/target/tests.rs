use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// A process to watch that ends with the test, whatever the test does.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn start() -> Self {
        Self(
            Command::new("sleep")
                .arg("600")
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_sleeping_process_is_opened_and_its_exit_noticed() {
    let mut sleeper = Sleeper::start();
    let pid = sleeper.0.id();
    // Before exec the child shows this program's name, and in the midst of it the new name without arguments.
    let target = loop {
        let target = Target::open(pid).unwrap();
        if target.comm == "sleep" && !target.cmdline.is_empty() {
            break target;
        }
    };
    assert_eq!(target.pid, pid);
    assert_eq!(target.cmdline, ["sleep", "600"]);
    assert!(target.exe.as_ref().unwrap().is_absolute());
    assert!(!target.exe_deleted);
    assert_eq!(target.uid, rustix::process::getuid().as_raw());
    assert!(target.start_time_ticks > 0);
    assert!(!target.exited());
    assert_eq!(target.exit_time(), None);

    sleeper.0.kill().unwrap();
    assert!(target.wait_exit(Duration::from_secs(30)));
    assert!(target.exit_time().is_some());

    // Not reaped yet: a zombie. Then gone.
    assert!(matches!(Target::open(pid), Err(TargetError::Zombie { .. })));
    sleeper.0.wait().unwrap();
    assert!(matches!(
        Target::open(pid),
        Err(TargetError::NoSuchProcess { .. })
    ));
}

#[test]
fn own_process_and_own_threads_are_refused() {
    let own = std::process::id();
    assert!(matches!(Target::open(own), Err(TargetError::OwnProcess { .. })));
    let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get())
        .join()
        .unwrap();
    let thread = u32::try_from(thread).unwrap();
    // The thread has ended, or its number is still known as one of ours.
    assert!(matches!(
        Target::open(thread),
        Err(TargetError::OwnProcess { .. } | TargetError::NoSuchProcess { .. })
    ));
}

#[test]
fn a_thread_of_another_process_names_that_process() {
    // Any process with more than one thread will do; a host without one shows nothing.
    let proc = Proc::host();
    let own = std::process::id();
    let found = proc.pids().unwrap().into_iter().find_map(|pid| {
        let tid = std::fs::read_dir(proc.entry(pid, "task"))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .find(|&tid: &u32| tid != pid && pid != own)?;
        Some((pid, tid))
    });
    let Some((pid, tid)) = found else { return };
    match Target::open(tid) {
        Err(TargetError::Thread { tgid, .. }) => assert_eq!(tgid, pid),
        // It may end between the search and the opening.
        Err(TargetError::NoSuchProcess { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_kernel_thread_daemon_is_refused() {
    // Only where PID 2 is visible and is kthreadd (not in a container).
    if Proc::host().stat(2).is_ok_and(|stat| stat.comm == "kthreadd") {
        assert!(matches!(Target::open(2), Err(TargetError::KernelThread { .. })));
    }
}

#[test]
fn numbers_that_are_no_process_are_gone() {
    for pid in [0, 4_194_305, u32::MAX] {
        assert!(matches!(
            Target::open(pid),
            Err(TargetError::NoSuchProcess { .. })
        ));
    }
}

#[test]
fn every_message_is_one_line() {
    let comm = "x".to_owned();
    for error in [
        TargetError::NoSuchProcess { pid: 4242 },
        TargetError::Hidden { pid: 1 },
        TargetError::Thread { pid: 7, tgid: 6 },
        TargetError::KernelThread {
            pid: 2,
            comm: comm.clone(),
        },
        TargetError::OwnProcess { pid: 1 },
        TargetError::Zombie {
            pid: 1,
            comm: comm.clone(),
        },
        TargetError::LeaderExited {
            pid: 1,
            comm: comm.clone(),
        },
        TargetError::ThirtyTwoBit { pid: 1, comm },
        TargetError::NestedNamespace,
        TargetError::NoSuchName { name: "x".to_owned() },
    ] {
        let line = error.to_string();
        assert!(!line.contains('\n') && !line.contains("  "), "{line}");
    }
}

/// A `/proc` of a test's own.
struct FakeProc(tempfile::TempDir);

impl FakeProc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn proc(&self) -> Proc {
        Proc::at(self.0.path())
    }

    /// A process whose executable is a file with these bytes.
    fn process(&self, pid: u32, comm: &str, state: char, flags: u64, exe: (&str, &[u8])) {
        let folder = self.0.path().join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        let stat = format!("{pid} ({comm}) {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0\n");
        std::fs::write(folder.join("stat"), stat).unwrap();
        let status = format!("Name:\t{comm}\nTgid:\t{pid}\nUid:\t33\t33\t33\t33\nNSpid:\t{pid}\t1\n");
        std::fs::write(folder.join("status"), status).unwrap();
        std::fs::write(folder.join("cmdline"), format!("{comm}\0--flag\0\0\0")).unwrap();
        let binary = folder.join(exe.0);
        std::fs::write(&binary, exe.1).unwrap();
        symlink(&binary, folder.join("exe")).unwrap();
    }

    fn write(&self, path: impl AsRef<Path>, text: &str) {
        std::fs::write(self.0.path().join(path), text).unwrap();
    }
}

const ELF64: &[u8] = b"\x7fELF\x02\x01\x01";
const ELF32: &[u8] = b"\x7fELF\x01\x01\x01";

#[test]
fn identity_from_a_laid_out_proc() {
    let fake = FakeProc::new();
    fake.process(70, "server", 'S', 0, ("server-bin (deleted)", ELF64));
    fake.write("70/cgroup", &format!("0::/docker/{}\n", "ab12".repeat(16)));
    let identity = identity::read(&fake.proc(), 70).unwrap();
    assert_eq!(identity.comm, "server");
    assert_eq!(identity.start_time_ticks, 500);
    assert_eq!(identity.cmdline, ["server", "--flag"]);
    assert_eq!(identity.uid, 33);
    assert_eq!(identity.inner_pid, Some(1));
    assert_eq!(identity.container, Some("ab12".repeat(16)));
    assert!(identity.exe_deleted);
    assert!(identity.exe.unwrap().ends_with("server-bin"));
}

#[test]
fn processes_without_readable_memory_are_told_apart() {
    let fake = FakeProc::new();
    fake.process(2, "kthreadd", 'S', 0x0020_0000, ("exe-file", ELF64));
    fake.process(3, "dead", 'Z', 0, ("exe-file", ELF64));
    fake.process(4, "old", 'S', 0, ("exe-file", ELF32));
    fake.process(5, "thread", 'S', 0, ("exe-file", ELF64));
    fake.write("5/status", "Tgid:\t4\n");
    fake.process(7, "led", 'Z', 0, ("exe-file", ELF64));
    fake.write(
        "7/stat",
        "7 (led) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 500 0 0\n",
    );
    let read = |pid| identity::read(&fake.proc(), pid).unwrap_err();
    assert!(matches!(read(2), TargetError::KernelThread { .. }));
    assert!(matches!(read(3), TargetError::Zombie { .. }));
    assert!(matches!(read(4), TargetError::ThirtyTwoBit { .. }));
    assert!(matches!(read(5), TargetError::Thread { tgid: 4, .. }));
    assert!(matches!(read(6), TargetError::NoSuchProcess { .. }));
    assert!(matches!(read(7), TargetError::LeaderExited { .. }));
}

#[test]
fn a_name_is_the_exact_comm_or_the_whole_file_name() {
    let fake = FakeProc::new();
    fake.write("uptime", "1000.50 1.00\n");
    fake.process(10, "very-long-serve", 'S', 0, ("very-long-server-name", ELF64));
    fake.process(11, "worker", 'S', 0, ("runtime", ELF64));
    fake.process(12, "worker", 'Z', 0, ("runtime", ELF64));
    fake.process(13, "worker", 'S', 0x0020_0000, ("runtime", ELF64));
    let find = |name| name::find(&fake.proc(), name);
    assert_eq!(find("very-long-server-name").unwrap(), 10);
    assert_eq!(find("very-long-serve").unwrap(), 10);
    assert_eq!(find("worker").unwrap(), 11);
    assert_eq!(find("runtime").unwrap(), 11);
    for name in ["very-long", "work", "", "Worker", "kthreadd"] {
        assert!(matches!(find(name), Err(TargetError::NoSuchName { .. })));
    }
}

#[test]
fn several_of_one_name_are_listed_up_to_a_bound() {
    let fake = FakeProc::new();
    fake.write("uptime", "1000.50 1.00\n");
    for pid in 100..125 {
        fake.process(pid, "many", 'S', 0, ("many", ELF64));
    }
    let error = name::find(&fake.proc(), "many").unwrap_err();
    assert!(error.to_string().starts_with("25 processes are named 'many'"));
    let TargetError::Ambiguous { candidates, more, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(candidates.len(), name::CANDIDATES_MAX);
    assert_eq!(more, 5);
    assert_eq!(
        candidates[0],
        Candidate {
            pid: 100,
            uid: Some(33),
            age_seconds: Some(1000 - 500 / procfs::ticks_per_second()),
            cmdline: "many --flag".to_owned(),
        }
    );
}

#[test]
fn another_pid_namespace_is_noticed() {
    let fake = FakeProc::new();
    assert!(namespace::is_initial_pid_namespace(&fake.proc()));
    std::fs::create_dir_all(fake.0.path().join("self/ns")).unwrap();
    fake.write("self/ns/pid", "");
    assert!(!namespace::is_initial_pid_namespace(&fake.proc()));
}
