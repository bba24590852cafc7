//! The programs of `xtask/bench`: built as a distribution would build them, and run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use super::counters::Counters;
use crate::run;

/// How long a program may take to warm up. Only bounds one that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program at work. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    counters: File,
    // Removed with the program.
    _folder: TempDir,
}

impl Program {
    /// Builds `xtask/bench/SOURCE`, starts it, and waits until it is warm.
    ///
    /// # Errors
    /// When it cannot be built or started, or ends by itself.
    pub fn start(source: &str, arguments: &[String]) -> Result<Self> {
        let program = build(source)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().join("counters");
        let counters = File::create_new(&path).context("cannot make a file of counters")?;
        drop(counters);
        let counters = File::open(&path).context("cannot open the file of counters")?;
        let child = Command::new(&program)
            .arg(&path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut started = Self {
            child,
            counters,
            _folder: folder,
        };
        let deadline = Instant::now() + PATIENCE;
        while !Counters::read(&started.counters).is_ok_and(|counters| counters.warm()) {
            if let Some(status) = started.child.try_wait()? {
                bail!("{source} ended by itself ({status})");
            }
            if Instant::now() > deadline {
                bail!("{source} does not warm up");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When the program has ended: what its counters say then is no measurement.
    pub fn counters(&mut self) -> Result<Counters> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the measured program ended by itself ({status})");
        }
        Counters::read(&self.counters)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A process that does nothing, to be traced while another one is measured.
#[derive(Debug)]
pub struct Idle(Child);

impl Idle {
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        // It ends by itself should the bench be killed.
        let child = Command::new("sleep").arg("1200").stdin(Stdio::null()).spawn();
        Ok(Self(child.context("cannot run sleep")?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Kills a child of this process, it alone, and reaps it.
pub fn end(child: &mut Child) {
    // Both fail only where it has ended already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for a child of this process to end by itself. Nothing: it has not ended in time.
///
/// # Errors
/// When it cannot be waited for.
pub fn wait(child: &mut Child, patience: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gives each thread of a process a CPU, one after the other.
///
/// # Errors
/// When the process has ended.
pub fn spread(pid: u32) -> Result<()> {
    let all = sched_getaffinity(None).context("cannot tell what CPUs there are")?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    let folder = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let name = entry
            .with_context(|| format!("cannot read {folder}"))?
            .file_name();
        threads.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    threads.sort_unstable();
    for (thread, cpu) in threads.into_iter().zip(cpus.iter().cycle()) {
        let mut only = CpuSet::new();
        only.set(*cpu);
        sched_setaffinity(Pid::from_raw(thread), &only)
            .with_context(|| format!("cannot give thread {thread} a CPU"))?;
    }
    Ok(())
}

/// What was built already. A program is not built again under one that runs.
static BUILT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn build(source: &str) -> Result<PathBuf> {
    let from = run::workspace().join("xtask/bench").join(source);
    let folder = run::target_directory()?.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (name, ending) = source.rsplit_once('.').unwrap_or((source, "c"));
    let (variable, compiler, standard) = match ending {
        "cpp" => ("CXX", "c++", "-std=c++17"),
        _ => ("CC", "cc", "-std=gnu11"),
    };
    let program = folder.join(name);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(&program) {
        return Ok(program);
    }
    let mut command = Command::new(std::env::var(variable).unwrap_or_else(|_| compiler.to_owned()));
    command
        .args([standard, "-O2", "-g", "-Wall", "-pthread", "-o"])
        .arg(&program)
        .arg(&from);
    run::run(&mut command)
        .context("the bench needs a C and a C++ compiler (Debian: apt-get install gcc g++)")?;
    built.insert(program.clone());
    Ok(program)
}
