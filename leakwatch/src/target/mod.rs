//! Who is watched: (pid, start time) held by a pidfd, never the bare number.

pub mod allocator;
pub mod container;
pub mod entry_points;
pub mod namespace;
pub mod privileges;
pub mod proc;

mod elf_names;
mod elf_symbols;
mod identity;
mod name;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub use name::Candidate;
pub use proc::Proc;

/// A process that leakwatch may watch. Its strings come from the target: they are escaped where they are shown.
#[derive(Debug)]
pub struct Target {
    /// The process's number in the initial PID namespace.
    pub pid: u32,
    /// Clock ticks from boot to its start.
    pub start_time_ticks: u64,
    /// The main thread's name.
    pub comm: String,
    /// As the kernel names it, without the mark of a deleted file; `None` where the link cannot be read.
    pub exe: Option<PathBuf>,
    /// The file behind [`Target::exe`] was deleted or replaced since it was started.
    pub exe_deleted: bool,
    /// Arguments, at most 64 KiB in all; empty where the process wiped them.
    pub cmdline: Vec<String>,
    /// Real user ID.
    pub uid: u32,
    /// Its number in the innermost PID namespace, when that is not the initial one (a container).
    pub inner_pid: Option<u32>,
    /// Container ID (64 hexadecimal digits) by its cgroup.
    pub container: Option<String>,
    pidfd: OwnedFd,
    exit_noticed: OnceLock<Instant>,
}

/// Why a process cannot be watched. Each message is one line and says what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("no process {pid}: it exited, or the number is from another PID namespace")]
    NoSuchProcess { pid: u32 },
    #[error(
        "process {pid} exists but /proc hides it: run as root, or see the hidepid option of the /proc mount"
    )]
    Hidden { pid: u32 },
    #[error("{pid} is a thread of process {tgid}: watch the process, with --pid {tgid}")]
    Thread { pid: u32, tgid: u32 },
    #[error("{pid} ({comm}) is a kernel thread: kernel threads have no user memory")]
    KernelThread { pid: u32, comm: String },
    #[error("{pid} is leakwatch itself: it cannot watch its own memory while it records")]
    OwnProcess { pid: u32 },
    #[error(
        "process {pid} ({comm}) is a zombie: it has exited and its memory is gone; its parent has not reaped it"
    )]
    Zombie { pid: u32, comm: String },
    #[error(
        "the main thread of process {pid} ({comm}) has exited while others run on: /proc/{pid} no longer shows its memory"
    )]
    LeaderExited { pid: u32, comm: String },
    #[error("process {pid} ({comm}) is a 32-bit program: leakwatch reads 64-bit ones only")]
    ThirtyTwoBit { pid: u32, comm: String },
    #[error(
        "this is a PID namespace of its own, whose PIDs are not the kernel's: run leakwatch on the host itself, or in a \
         container started with `docker run --pid=host`"
    )]
    NestedNamespace,
    #[error("cannot read /proc/{pid}/{entry}: run as root, or with CAP_SYS_PTRACE")]
    Unreadable {
        pid: u32,
        entry: &'static str,
        source: io::Error,
    },
    #[error("cannot hold process {pid} by a pidfd (Linux 5.3 or newer is needed)")]
    Pidfd { pid: u32, source: io::Error },
    #[error("cannot list /proc")]
    List { source: io::Error },
    #[error(
        "no process is named '{name}' (the exact name, or the exact file name of its executable, is asked for)"
    )]
    NoSuchName { name: String },
    #[error("{} processes are named '{name}': choose one with --pid", .candidates.len() + .more)]
    Ambiguous {
        name: String,
        /// At most 20, by PID.
        candidates: Vec<Candidate>,
        /// How many more there are.
        more: usize,
    },
}

impl Target {
    /// Takes hold of process `pid`.
    ///
    /// The pidfd is opened before anything is read, and asked again after: so everything read belongs to the process
    /// that the pidfd holds, even when the number is reused meanwhile.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let proc = Proc::host();
        if !namespace::is_initial_pid_namespace(&proc) {
            return Err(TargetError::NestedNamespace);
        }
        if pid == std::process::id() {
            return Err(TargetError::OwnProcess { pid });
        }
        let pidfd = open_pidfd(&proc, pid)?;
        let read = identity::read(&proc, pid);
        if is_ready(&pidfd, Duration::ZERO) {
            // An exited process is readable until its parent reaps it; what was read of it tells which it is.
            return Err(match read {
                Err(zombie @ TargetError::Zombie { .. }) => zombie,
                Ok(identity) => TargetError::Zombie {
                    pid,
                    comm: identity.comm,
                },
                Err(_) => TargetError::NoSuchProcess { pid },
            });
        }
        let identity = read.map_err(|error| match error {
            // Alive and yet without a folder. With one, it is in the midst of exiting.
            TargetError::NoSuchProcess { pid } if !proc.entry(pid, "stat").exists() => {
                TargetError::Hidden { pid }
            }
            other => other,
        })?;
        Ok(Self {
            pid,
            start_time_ticks: identity.start_time_ticks,
            comm: identity.comm,
            exe: identity.exe,
            exe_deleted: identity.exe_deleted,
            cmdline: identity.cmdline,
            uid: identity.uid,
            inner_pid: identity.inner_pid,
            container: identity.container,
            pidfd,
            exit_noticed: OnceLock::new(),
        })
    }

    /// Takes hold of the one process whose name, or whose executable's file name, is exactly `name`.
    pub fn by_name(name: &str) -> Result<Self, TargetError> {
        let proc = Proc::host();
        if !namespace::is_initial_pid_namespace(&proc) {
            return Err(TargetError::NestedNamespace);
        }
        Self::open(name::find(&proc, name)?)
    }

    /// Readable, for poll and its kin, once the process has exited.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the process has exited (a zombie has).
    #[must_use]
    pub fn exited(&self) -> bool {
        self.wait_exit(Duration::ZERO)
    }

    /// Waits until the process exits, at most `timeout`; whether it has.
    #[must_use]
    pub fn wait_exit(&self, timeout: Duration) -> bool {
        if self.exit_noticed.get().is_some() {
            return true;
        }
        let ready = is_ready(&self.pidfd, timeout);
        if ready {
            let _ = self.exit_noticed.set(Instant::now());
        }
        ready
    }

    /// When the exit was first noticed by [`Target::exited`] or [`Target::wait_exit`]; `None` as long as it was not.
    #[must_use]
    pub fn exit_time(&self) -> Option<Instant> {
        self.exit_noticed.get().copied()
    }
}

fn open_pidfd(proc: &Proc, pid: u32) -> Result<OwnedFd, TargetError> {
    let gone = || TargetError::NoSuchProcess { pid };
    let raw = i32::try_from(pid).map_err(|_| gone())?;
    let handle = Pid::from_raw(raw).ok_or_else(gone)?;
    pidfd_open(handle, PidfdFlags::empty()).map_err(|errno| match errno {
        Errno::SRCH => gone(),
        // EINVAL, and ENOENT from 6.16 on: the number is a thread's, not a process's.
        Errno::INVAL | Errno::NOENT => match proc.status(pid).ok().and_then(|status| status.tgid) {
            Some(tgid) if tgid == std::process::id() => TargetError::OwnProcess { pid },
            Some(tgid) if tgid != pid => TargetError::Thread { pid, tgid },
            _ => gone(),
        },
        errno => TargetError::Pidfd {
            pid,
            source: errno.into(),
        },
    })
}

fn is_ready(pidfd: &OwnedFd, timeout: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0)
}

#[cfg(test)]
mod tests;
