//! One timestamped sample of a process: all that /proc says of it, joined.
//!
//! ```no_run
//! use leakwatch::sampler::ProcRoot;
//! use leakwatch::sampler::sample::{Parts, Sampler};
//!
//! let mut sampler = Sampler::new(ProcRoot::default());
//! let mut subject = sampler.subject(4242)?;
//! let sample = sampler.sample(&mut subject, Parts::ALL)?;
//! println!("{:?} bytes in RAM", sample.totals.rss);
//! # Ok::<(), leakwatch::sampler::subject::NoSample>(())
//! ```

use std::io;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::cgroup::{CgroupMemory, Cgroups};
use super::cost::ReadBudget;
use super::sockets::{self, Sockets};
use super::stat::{self, Stat};
use super::subject::{NoSample, Subject};
use super::totals::{self, Rollup, Totals};
use super::{ProcRoot, descriptors};

/// The longest that one listing of descriptors or sockets may go on. The next one then waits a hundred times as long.
const LISTING_MAX: Duration = Duration::from_secs(1);

/// The dear parts of a sample that are asked for. Without any a sample is two small files and a call: 20 µs, of which the
/// kernel takes 14 (Linux 6.18, a virtual machine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// `smaps_rollup`: walks the page tables under the process's mmap lock.
    pub rollup: bool,
    /// Lists the descriptors, and the tables of sockets of the network namespace.
    pub sockets: bool,
    /// Some ten files of the cgroup and its ancestors.
    pub cgroup: bool,
}

impl Parts {
    /// What is cheap, alone.
    pub const NONE: Self = Self {
        rollup: false,
        sockets: false,
        cgroup: false,
    };
    /// Everything, as the cost rule allows.
    pub const ALL: Self = Self {
        rollup: true,
        sockets: true,
        cgroup: true,
    };

    fn any(self) -> bool {
        self != Self::NONE
    }
}

/// Why a part of a sample is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Lack {
    #[error("not asked for")]
    NotAsked,
    /// The cost rule: the last one took so long that the next has to wait.
    #[error("put off, as the last one took long")]
    PutOff,
    /// It was given up halfway, being too long.
    #[error("too many to be listed")]
    TooDear,
    #[error("permission denied")]
    Forbidden,
    /// The kernel, or the process, has no such thing.
    #[error("there is none")]
    Absent,
    #[error("unreadable: {0}")]
    Unreadable(io::ErrorKind),
}

impl Lack {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::FileTooLarge | io::ErrorKind::TimedOut => Self::TooDear,
            other => Self::Unreadable(other),
        }
    }
}

/// A part, or why it is not there.
pub type Part<T> = Result<T, Lack>;

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since boot, time in suspend included: it never jumps, and start times of processes are told by it.
    pub since_boot: Duration,
    /// The clock on the wall, which may be set.
    pub wall: SystemTime,
}

impl Moment {
    /// By both clocks.
    #[must_use]
    pub fn now() -> Self {
        Self {
            since_boot: clock(ClockId::Boottime),
            wall: SystemTime::now(),
        }
    }
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What a sample cost whoever took it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub wall: Duration,
    /// Processor time, the kernel's included.
    pub processor: Duration,
}

/// What /proc says of a process at a moment. All of it is of the same process; the parts are read one after another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub at: Moment,
    pub totals: Totals,
    pub stat: Stat,
    /// Open descriptors.
    pub descriptors: Part<u64>,
    pub rollup: Part<Rollup>,
    pub sockets: Part<Sockets>,
    pub cgroup: Part<CgroupMemory>,
    pub cost: Cost,
}

/// Takes samples of any number of processes.
#[derive(Debug)]
pub struct Sampler {
    root: ProcRoot,
    buffer: Vec<u8>,
    counted_by_kernel: bool,
    cgroups: Cgroups,
}

impl Sampler {
    /// Looks at what this kernel can count, and where its cgroups are.
    #[must_use]
    pub fn new(root: ProcRoot) -> Self {
        Self {
            buffer: Vec::new(),
            counted_by_kernel: descriptors::counted_by_kernel(&root),
            cgroups: Cgroups::find(&root),
            root,
        }
    }

    /// Takes note of who process `pid` is.
    pub fn subject(&mut self, pid: u32) -> Result<Subject, NoSample> {
        Subject::new(pid, &self.stat(pid)?)
    }

    /// A sample of now.
    pub fn sample(&mut self, subject: &mut Subject, parts: Parts) -> Result<Sample, NoSample> {
        self.sample_at(Moment::now(), subject, parts)
    }

    /// A sample of which `at` is the moment, as the cost rule counts too.
    pub fn sample_at(&mut self, at: Moment, subject: &mut Subject, parts: Parts) -> Result<Sample, NoSample> {
        let begun = (Instant::now(), clock(ClockId::ThreadCPUTime));
        let now = at.since_boot;
        let pid = subject.pid;
        let root = &self.root;
        let totals =
            totals::read_status_into(root, pid, &mut self.buffer).map_err(|error| NoSample::of(&error))?;
        let descriptors = if self.counted_by_kernel {
            descriptors::count(root, pid).map_err(|error| Lack::of(&error))
        } else {
            paced(&mut subject.descriptors, now, Dear::Work, || {
                descriptors::count_by_listing(root, pid, Instant::now() + LISTING_MAX)
            })
        };
        let stat = self.stat(pid)?;
        subject.check(&stat)?;

        let mut sample = Sample {
            at,
            totals,
            stat,
            descriptors,
            rollup: Err(Lack::NotAsked),
            sockets: Err(Lack::NotAsked),
            cgroup: Err(Lack::NotAsked),
            cost: Cost::default(),
        };
        if parts.any() {
            self.dear_parts(&mut sample, subject, parts);
            let after = self.stat(pid)?;
            subject.check(&after)?;
        }
        sample.cost = Cost {
            wall: begun.0.elapsed(),
            processor: clock(ClockId::ThreadCPUTime).saturating_sub(begun.1),
        };
        Ok(sample)
    }

    fn dear_parts(&mut self, sample: &mut Sample, subject: &mut Subject, parts: Parts) {
        let now = sample.at.since_boot;
        let root = &self.root;
        let pid = subject.pid;
        if parts.cgroup {
            sample.cgroup = paced(&mut subject.cgroup, now, Dear::Work, || {
                self.cgroups.memory(root, pid, &mut self.buffer)
            });
        }
        if parts.sockets {
            sample.sockets = paced(&mut subject.sockets, now, Dear::Work, || {
                sockets::read(root, pid, Instant::now() + LISTING_MAX)
            });
        }
        if parts.rollup {
            sample.rollup = paced(&mut subject.rollup, now, Dear::Time, || {
                totals::read_rollup(root, pid)
            });
        }
    }

    fn stat(&mut self, pid: u32) -> Result<Stat, NoSample> {
        stat::read_into(&self.root, pid, &mut self.buffer).map_err(|error| NoSample::of(&error))
    }
}

/// What of a read is dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dear {
    /// The process waits for a lock for as long as it takes.
    Time,
    /// The host's processor time: on a busy host it takes longer, and costs no more.
    Work,
}

/// Reads what the budget allows. A read that failed has cost what it took as well.
fn paced<T>(
    budget: &mut ReadBudget,
    now: Duration,
    dear: Dear,
    read: impl FnOnce() -> io::Result<T>,
) -> Part<T> {
    if !budget.may_read(now) {
        return Err(Lack::PutOff);
    }
    let (started, before) = (Instant::now(), clock(ClockId::ThreadCPUTime));
    let part = read();
    let time = started.elapsed();
    let cost = match dear {
        Dear::Time => time,
        Dear::Work => clock(ClockId::ThreadCPUTime).saturating_sub(before),
    };
    budget.note(now.saturating_add(time), cost);
    part.map_err(|error| Lack::of(&error))
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
