//! One sample of a process: all that `/proc` says of it at one time.
//!
//! What is cheap is read each time. What costs by the size of the process or of the host, `smaps_rollup` and the sockets, is
//! read as often as its share of the time allows ([`super::cost`]), and is absent in the samples between.

use std::io;
use std::time::{Duration, Instant};

use super::ProcRoot;
use super::cgroup::{self, CgroupMemory, CgroupRoot};
use super::cost::Pace;
use super::descriptors;
use super::sockets::{self, Sockets};
use super::stat;
use super::totals::{self, Rollup, Totals};

/// What is read beside the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// `smaps_rollup`: it holds the target's mmap lock.
    pub rollup: bool,
    pub sockets: bool,
    pub cgroup: bool,
}

impl Depth {
    pub const ALL: Self = Self {
        rollup: true,
        sockets: true,
        cgroup: true,
    };
    /// `status`, `stat` and the number of descriptors.
    pub const CHEAP: Self = Self {
        rollup: false,
        sockets: false,
        cgroup: false,
    };
}

/// Of one process at one time. `None` is what was not read or is not known, never 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Since the sampler began.
    pub at: Duration,
    pub totals: Totals,
    pub rollup: Option<Rollup>,
    pub descriptors: Option<u64>,
    pub sockets: Option<Sockets>,
    pub cgroup: Option<CgroupMemory>,
    /// Page faults since its start that needed no reading from a disk, and those that did.
    pub minor_faults: u64,
    pub major_faults: u64,
    /// Processor time since its start.
    pub processor: Duration,
    /// How long this sample took.
    pub took: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    Sample(Box<Sample>),
    /// It has ended; who has its number by now is another.
    Gone,
}

/// Samples one process.
#[derive(Clone, Debug)]
pub struct Sampler {
    root: ProcRoot,
    cgroups: CgroupRoot,
    pid: u32,
    start_time_ticks: u64,
    depth: Depth,
    began: Instant,
    rollups: Pace,
    socket_tables: Pace,
    samples: u64,
    spent: Duration,
}

impl Sampler {
    /// For the process of this number, which is known by its start time from now on.
    ///
    /// # Errors
    ///
    /// When there is no such process, or its `stat` cannot be read.
    pub fn new(root: ProcRoot, cgroups: CgroupRoot, pid: u32, depth: Depth) -> io::Result<Self> {
        let start_time_ticks = stat::read(&root, pid)?.start_time_ticks;
        Ok(Self {
            root,
            cgroups,
            pid,
            start_time_ticks,
            depth,
            began: Instant::now(),
            rollups: Pace::default(),
            socket_tables: Pace::of_own(),
            samples: 0,
            spent: Duration::ZERO,
        })
    }

    /// Takes a sample now.
    ///
    /// # Errors
    ///
    /// When the process is there and its files cannot be read: not allowed, or not understood.
    pub fn take(&mut self) -> io::Result<Taken> {
        let began = Instant::now();
        let at = began.duration_since(self.began);
        let before = match self.identity() {
            Ok(Some(stat)) => stat,
            Ok(None) => return Ok(Taken::Gone),
            Err(error) => return Err(error),
        };
        let totals = match totals::read_status(&self.root, self.pid) {
            Ok(totals) => totals,
            Err(error) => return self.gone_or(error),
        };
        let mut sample = Sample {
            at,
            totals,
            descriptors: descriptors::count(&self.root, self.pid).ok(),
            minor_faults: before.minor_faults,
            major_faults: before.major_faults,
            processor: before.processor,
            ..Sample::default()
        };
        if self.depth.cgroup {
            sample.cgroup = cgroup::read(&self.root, &self.cgroups, self.pid);
        }
        if self.depth.sockets && self.socket_tables.may_read(at) {
            let read = sockets::read(&self.root, self.pid);
            let took = self.began.elapsed().saturating_sub(at);
            self.socket_tables.note(self.began.elapsed(), took);
            sample.sockets = read.ok().map(|read| read.sockets);
        }
        if self.depth.rollup && self.rollups.may_read(at) {
            sample.rollup = totals::read_rollup(&self.root, self.pid).ok();
            if let Some(rollup) = &sample.rollup {
                self.rollups.note(self.began.elapsed(), rollup.took);
            }
        }
        // Whoever has the number now must be who had it before.
        match self.identity() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Taken::Gone),
            Err(error) => return Err(error),
        }
        sample.took = began.elapsed();
        self.samples += 1;
        self.spent = self.spent.saturating_add(sample.took);
        Ok(Taken::Sample(Box::new(sample)))
    }

    /// Somebody else has just read `smaps_rollup`, which took so long.
    pub fn note_rollup(&mut self, took: Duration) {
        self.rollups.note(self.began.elapsed(), took);
    }

    /// How many samples were taken, and how long they took in all.
    #[must_use]
    pub fn spent(&self) -> (u64, Duration) {
        (self.samples, self.spent)
    }

    /// What `stat` says, if it is still the same process.
    fn identity(&self) -> io::Result<Option<stat::Stat>> {
        match stat::read(&self.root, self.pid) {
            Ok(stat) => Ok(Some(stat).filter(|stat| stat.start_time_ticks == self.start_time_ticks)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn gone_or(&self, error: io::Error) -> io::Result<Taken> {
        match self.identity() {
            Ok(None) => Ok(Taken::Gone),
            _ if is_gone(&error) => Ok(Taken::Gone),
            _ => Err(error),
        }
    }
}

/// Whether it is the error of a file of a process that has ended.
fn is_gone(error: &io::Error) -> bool {
    // `named` keeps the kind alone; ESRCH has none of its own.
    error.kind() == io::ErrorKind::NotFound || error.to_string().ends_with("the process exited")
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).spawn().unwrap()
    }

    fn sampler(pid: u32, depth: Depth) -> Sampler {
        Sampler::new(ProcRoot::default(), CgroupRoot::default(), pid, depth).unwrap()
    }

    fn taken(sampler: &mut Sampler) -> Sample {
        match sampler.take().unwrap() {
            Taken::Sample(sample) => *sample,
            Taken::Gone => panic!("it is there"),
        }
    }

    #[test]
    fn this_process() {
        let mut sampler = sampler(std::process::id(), Depth::ALL);
        let first = taken(&mut sampler);
        assert!(first.totals.rss > Some(0) && first.descriptors > Some(2) && first.minor_faults > 0);
        assert!(first.sockets.is_some() && first.rollup.is_some_and(|rollup| rollup.pss > Some(0)));
        // What is dear is not read again at once.
        let at_once = taken(&mut sampler);
        assert!(at_once.rollup.is_none() && at_once.totals.rss.is_some());
        let grown = vec![1_u8; 64 << 20];
        let second = taken(&mut sampler);
        assert!(second.totals.rss.unwrap() > first.totals.rss.unwrap() + (32 << 20));
        assert!(second.minor_faults > first.minor_faults + 8192 / 512);
        assert!(second.at > first.at && second.processor >= first.processor);
        assert_eq!(sampler.spent().0, 3);
        drop(grown);
    }

    #[test]
    fn the_cheap_one_reads_nothing_dear() {
        let mut child = sleeper();
        let sample = taken(&mut sampler(child.id(), Depth::CHEAP));
        assert!(sample.rollup.is_none() && sample.sockets.is_none() && sample.cgroup.is_none());
        assert_eq!(sample.totals.threads, Some(1));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_ends_is_gone_and_no_error() {
        let mut child = sleeper();
        let mut sampler = sampler(child.id(), Depth::ALL);
        taken(&mut sampler);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sampler.take().unwrap(), Taken::Gone);
        assert!(
            Sampler::new(ProcRoot::default(), CgroupRoot::default(), child.id(), Depth::ALL).is_err(),
            "there is none to begin with"
        );
    }

    #[test]
    fn a_zombie_has_no_memory() {
        let mut child = Command::new("true").spawn().unwrap();
        let mut sampler = sampler(child.id(), Depth::ALL);
        let deadline = Instant::now() + Duration::from_secs(10);
        let sample = loop {
            let sample = taken(&mut sampler);
            if sample.totals.rss.is_none() {
                break sample;
            }
            assert!(Instant::now() < deadline, "{sample:?}");
        };
        assert_eq!(sample.totals.data, None);
        child.wait().unwrap();
        assert_eq!(sampler.take().unwrap(), Taken::Gone);
    }

    #[test]
    fn another_with_its_number_is_not_it() {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("42");
        std::fs::create_dir_all(process.join("fd")).unwrap();
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let status = std::fs::read("/proc/self/status").unwrap();
        std::fs::write(process.join("stat"), &own).unwrap();
        std::fs::write(process.join("status"), status).unwrap();
        let root = ProcRoot::new(folder.path());
        let mut sampler = Sampler::new(root, CgroupRoot::new(folder.path()), 42, Depth::ALL).unwrap();
        let sample = taken(&mut sampler);
        assert_eq!((sample.descriptors, sample.cgroup), (Some(0), None));
        let mut fields: Vec<&str> = own.split(' ').collect();
        fields[21] = "77";
        std::fs::write(process.join("stat"), fields.join(" ")).unwrap();
        assert_eq!(sampler.take().unwrap(), Taken::Gone);
    }

    /// The figures, to read: `cargo test -p leakwatch --lib cost_of_a_sample -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_sample() {
        const SAMPLES: u32 = 10_000;
        for (name, depth) in [("cheap", Depth::CHEAP), ("all", Depth::ALL)] {
            let mut child = sleeper();
            let mut sampler = sampler(child.id(), depth);
            let began = Instant::now();
            for _ in 0..SAMPLES {
                taken(&mut sampler);
            }
            eprintln!("{name}: {:?} a sample", began.elapsed() / SAMPLES);
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
