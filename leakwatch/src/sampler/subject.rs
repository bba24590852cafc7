//! A process that is sampled again and again, and why there may be no sample of it.

use std::io;
use std::time::Duration;

use super::cost::ReadBudget;
use super::stat::Stat;

/// Why there is no sample of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSample {
    /// It was there no more, or went away while it was read; or /proc hides it from this user (`hidepid=2`).
    #[error("it has exited")]
    Exited,
    #[error("it has exited, and its number belongs to another process now")]
    Replaced {
        /// Of that other process: clock ticks from boot.
        start_time_ticks: u64,
    },
    #[error("it has exited, and its parent has not reaped it")]
    Zombie,
    #[error("its main thread has exited while others run on: its memory is not to be seen")]
    LeaderExited,
    #[error("it is a kernel thread, which has no user memory")]
    KernelThread,
    /// Hidden from this user, or no file of a process.
    #[error("its files cannot be read: {0}")]
    Unreadable(io::ErrorKind),
}

impl NoSample {
    /// What an error says that befell one of the files which every process has.
    pub(super) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Exited,
            other => Self::Unreadable(other),
        }
    }
}

/// One process by its identity, and when it may next be read in a dear way. Less than 200 bytes, and no open file: a file
/// of /proc that is kept open keeps a page of kernel memory. For the two files of 10,000 processes that is 90 MiB, to save
/// 6 of 20 µs a sample.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    pub(super) pid: u32,
    pub(super) start_time_ticks: u64,
    pub(super) rollup: ReadBudget,
    pub(super) descriptors: ReadBudget,
    pub(super) sockets: ReadBudget,
    pub(super) cgroup: ReadBudget,
}

impl Subject {
    pub(super) fn new(pid: u32, stat: &Stat) -> Result<Self, NoSample> {
        let start_time_ticks = stat.start_time_ticks;
        let subject = Self {
            pid,
            start_time_ticks,
            rollup: ReadBudget::default(),
            descriptors: ReadBudget::default(),
            sockets: ReadBudget::default(),
            cgroup: ReadBudget::default(),
        };
        subject.check(stat)?;
        Ok(subject)
    }

    /// Its number, in the PID namespace of the `/proc` that is read.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Clock ticks from boot to its start.
    #[must_use]
    pub fn start_time_ticks(&self) -> u64 {
        self.start_time_ticks
    }

    /// Reads of smaps_rollup, listings of descriptors and of sockets, and reads of the cgroup, and how long they took in all.
    #[must_use]
    pub fn spent(&self) -> (u64, Duration) {
        [self.rollup, self.descriptors, self.sockets, self.cgroup]
            .iter()
            .map(ReadBudget::spent)
            .fold((0, Duration::ZERO), |(reads, spent), (more, took)| {
                (reads + more, spent.saturating_add(took))
            })
    }

    /// Somebody has read its `smaps_rollup` otherwise, up to `now` (since boot), which took so long.
    pub fn note_rollup(&mut self, now: Duration, took: Duration) {
        self.rollup.note(now, took);
    }

    /// Whether what stat says now is said of this process, alive. Then everything that was read under its number since it was
    /// first seen is its own: a number that was given to another does not come back to it.
    pub(super) fn check(&self, stat: &Stat) -> Result<(), NoSample> {
        if stat.start_time_ticks != self.start_time_ticks {
            Err(NoSample::Replaced {
                start_time_ticks: stat.start_time_ticks,
            })
        } else if stat.is_kernel_thread() {
            Err(NoSample::KernelThread)
        } else if !stat.main_thread_ended() {
            Ok(())
        } else if stat.threads > 1 {
            Err(NoSample::LeaderExited)
        } else {
            Err(NoSample::Zombie)
        }
    }
}
