//! What `leakwatch watch` costs with ten thousand processes: processor time, its own memory, and the history's size.
//!
//! They are files in a folder that stands in for /proc, so that any machine can have as many. What the kernel takes to
//! write the true ones is not in that; so a thousand true processes are watched too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{table, tracers};
use crate::run;

/// Numbers above those of real processes.
const FIRST: u32 = 4_000_000;
/// Of the simulated ones so many grow, so that trends are judged that are none of flat lines.
const GROWING: u32 = 200;

/// How many, how long.
struct Plan {
    simulated: u32,
    real: u32,
    every: Duration,
    rounds: u32,
}

const FULL: Plan = Plan {
    simulated: 10_000,
    real: 1000,
    every: Duration::from_secs(2),
    rounds: 60,
};
const QUICK: Plan = Plan {
    simulated: 1000,
    real: 100,
    every: Duration::from_millis(500),
    rounds: 10,
};

/// What one watch cost.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Outcome {
    processes: u32,
    every: Duration,
    rounds: f64,
    samples: u64,
    /// Of the rounds after the first, in which everybody is new.
    processor_seconds: f64,
    processor_rounds: f64,
    first_seconds: f64,
    peak_bytes: u64,
    history_bytes: u64,
}

/// Measures, and prints a table.
///
/// # Errors
/// When leakwatch fails, or does not keep pace.
pub fn run(leakwatch: &Path, quick: bool, load: &str) -> Result<()> {
    let plan = if quick { QUICK } else { FULL };
    run::heading("watch");
    let folder = simulated(plan.simulated)?;
    let root = folder.path().to_string_lossy().into_owned();
    let simulated = measure(
        leakwatch,
        &["--all", "--proc-root", &root],
        plan.simulated,
        &plan,
        |round| grow(folder.path(), round),
    )?;
    drop(folder);
    let real = {
        let sleepers = Sleepers::start(plan.real)?;
        let outcome = measure(leakwatch, &["--name", Sleepers::NAME], plan.real, &plan, |_| {
            Ok(())
        })?;
        drop(sleepers);
        outcome
    };
    table::print(
        &format!("{}; `leakwatch watch` with a history", table::machine(&[], load)),
        &markdown(&[("simulated", simulated), ("true processes", real)]),
    );
    Ok(())
}

/// A folder in place of /proc, in memory where there is such a file system.
fn simulated(processes: u32) -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory).context("cannot make a folder in /dev/shm")?
    } else {
        tracers::scratch()?
    };
    let at = folder.path();
    fs::create_dir_all(at.join("sys/kernel/random"))?;
    fs::write(
        at.join("sys/kernel/random/boot_id"),
        "01234567-89ab-cdef-0123-456789abcdef\n",
    )?;
    fs::write(
        at.join("meminfo"),
        "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n",
    )?;
    for number in 0..processes {
        let pid = FIRST + number;
        let process = at.join(pid.to_string());
        fs::create_dir_all(process.join("fd"))?;
        let stat = format!(
            "{pid} (worker-{}) S 1 {pid} {pid} 0 -1 4194560 {} 0 0 0 900 300 0 0 20 0 4 0 {number} 1000000 250 18446744073709551615 1 2 140700000000000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 3 4 94000000000000 5 6 7 8 0\n",
            number % 50,
            1000 + number
        );
        fs::write(process.join("stat"), stat)?;
        fs::write(
            process.join("cgroup"),
            format!("0::/system.slice/worker-{}.service\n", number % 50),
        )?;
        fs::write(process.join("smaps_rollup"), ROLLUP)?;
        status(&process, number, 40_000)?;
    }
    Ok(folder)
}

const ROLLUP: &str = "00400000-7ffc00000000 ---p 00000000 00:00 0 [rollup]\nRss: 41000 kB\nPss: 30000 kB\nPrivate_Dirty: 25000 kB\nAnonymous: 24000 kB\nSwap: 0 kB\n";

fn status(process: &Path, number: u32, kib: u64) -> Result<()> {
    let text = format!(
        "Name:\tworker\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t{number}\nFDSize:\t64\nVmPeak:\t  500000 kB\nVmSize:\t  480000 kB\nVmLck:\t 0 kB\nVmPin:\t 0 kB\nVmHWM:\t{kib} kB\nVmRSS:\t{} kB\nRssAnon:\t{kib} kB\nRssFile:\t{} kB\nRssShmem:\t0 kB\nVmData:\t{} kB\nVmStk:\t132 kB\nVmExe:\t800 kB\nVmLib:\t9000 kB\nVmPTE:\t200 kB\nVmSwap:\t0 kB\nHugetlbPages:\t0 kB\nThreads:\t{}\n",
        kib + 16_000,
        16_000 + number % 300,
        kib * 2,
        2 + number % 30,
    );
    fs::write(process.join("status.new"), text)?;
    // Never to be seen half written.
    fs::rename(process.join("status.new"), process.join("status"))?;
    Ok(())
}

fn grow(root: &Path, round: u32) -> Result<()> {
    for number in 0..GROWING {
        let process = root.join((FIRST + number).to_string());
        if process.is_dir() {
            status(
                &process,
                number,
                40_000 + u64::from(round) * u64::from(64 + number),
            )?;
        }
    }
    Ok(())
}

/// True processes of a name of their own.
struct Sleepers {
    children: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Sleepers {
    const NAME: &str = "lw-bench-sleep";

    fn start(count: u32) -> Result<Self> {
        let folder = tracers::scratch()?;
        let program = folder.path().join(Self::NAME);
        fs::copy("/bin/sleep", &program).context("cannot copy /bin/sleep")?;
        let mut sleepers = Self {
            children: Vec::new(),
            _folder: folder,
        };
        for _ in 0..count {
            let mut command = Command::new(&program);
            command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null());
            sleepers
                .children
                .push(command.spawn().context("cannot start a process to be watched")?);
        }
        Ok(sleepers)
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Runs a watch, and looks at it from outside.
fn measure(
    leakwatch: &Path,
    which: &[&str],
    processes: u32,
    plan: &Plan,
    mut each_round: impl FnMut(u32) -> Result<()>,
) -> Result<Outcome> {
    let folder = tracers::scratch()?;
    let history = folder.path().join("history");
    let every = plan.every;
    let mut command = Command::new(leakwatch);
    command
        .arg("watch")
        .args(which)
        .arg("--every")
        .arg(format!("{}ms", every.as_millis()))
        .arg("--history")
        .arg(&history);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
    let started = Instant::now();
    let watched = watch_it(&mut child, started, plan, &mut each_round);
    let _ = signal(&child);
    let status = child.wait().context("leakwatch cannot be waited for")?;
    let (first_seconds, processor_seconds, processor_rounds, peak_bytes) = watched?;
    ensure!(status.success(), "leakwatch watch failed ({status})");
    let samples = samples(leakwatch, &history, folder.path())?;
    let rounds = samples as f64 / f64::from(processes);
    ensure!(
        rounds >= 0.8 * f64::from(plan.rounds),
        "it did not keep pace: {rounds:.1} rounds of {}",
        plan.rounds
    );
    eprintln!("  {processes} processes: {rounds:.1} rounds");
    Ok(Outcome {
        processes,
        every,
        rounds,
        samples,
        processor_seconds,
        processor_rounds,
        first_seconds,
        peak_bytes,
        // The log beside it was joined to it when it was closed.
        history_bytes: fs::metadata(&history)?.len(),
    })
}

/// Processor time of its first round, that of the later ones, how many these were, and its peak memory.
fn watch_it(
    child: &mut Child,
    started: Instant,
    plan: &Plan,
    each_round: &mut impl FnMut(u32) -> Result<()>,
) -> Result<(f64, f64, f64, u64)> {
    // In the midst between two rounds.
    let middle = |round: u32| plan.every * round + plan.every / 2;
    let mut first = 0.0;
    let mut peak = 0;
    for round in 0..plan.rounds {
        std::thread::sleep(middle(round).saturating_sub(started.elapsed()));
        ensure!(child.try_wait()?.is_none(), "leakwatch watch ended early");
        if round == 0 {
            first = processor_seconds(child.id())?;
        }
        peak = peak_bytes(child.id())?.max(peak);
        each_round(round)?;
    }
    let all = processor_seconds(child.id())?;
    Ok((first, all - first, f64::from(plan.rounds - 1), peak))
}

fn signal(child: &Child) -> Option<()> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok()
}

fn processor_seconds(pid: u32) -> Result<f64> {
    let path = PathBuf::from(format!("/proc/{pid}/schedstat"));
    let of_thread = |text: &str| text.split(' ').next().and_then(|word| word.parse::<f64>().ok());
    if let Some(nanoseconds) = fs::read_to_string(&path).ok().as_deref().and_then(of_thread) {
        // It has one thread that works; the others wait.
        return Ok(nanoseconds / 1e9);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields.get(index).and_then(|word| word.parse::<f64>().ok());
    let sum = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(sum.context("the stat file of leakwatch is not understood")? / 100.0)
}

/// The most that a process ever had in memory.
pub fn peak_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("the status file of leakwatch is not understood")? * 1024)
}

/// Samples in the history, by its own report.
fn samples(leakwatch: &Path, history: &Path, folder: &Path) -> Result<u64> {
    let json = folder.join("history.json");
    let mut command = Command::new(leakwatch);
    command
        .arg("history")
        .arg(history)
        .args(["--top", "1000000", "--points", "2", "-o"]);
    let output = command
        .arg(&json)
        .output()
        .with_context(|| format!("cannot run `{}`", run::shown(&command)))?;
    ensure!(
        output.status.success(),
        "leakwatch history failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let report: Value = serde_json::from_slice(&fs::read(&json)?)?;
    counted(&report).context("the report of leakwatch history is not understood")
}

fn counted(report: &Value) -> Option<u64> {
    let services = report.get("services")?.as_array()?;
    services
        .iter()
        .map(|service| service.get("samples")?.as_u64())
        .sum()
}

/// A line of the table: its name, and what stands in it.
type Figure = (&'static str, fn(&Outcome) -> String);

fn markdown(columns: &[(&str, Outcome)]) -> String {
    let head = std::iter::once(String::new()).chain(columns.iter().map(|(name, _)| (*name).to_owned()));
    let mut rows: Vec<Vec<String>> = vec![head.collect()];
    let figures: [Figure; 9] = [
        ("processes", |it| it.processes.to_string()),
        ("interval", |it| format!("{:.1} s", it.every.as_secs_f64())),
        ("rounds", |it| format!("{:.0}", it.rounds)),
        ("first round, processor time", |it| {
            format!("{:.0} ms", it.first_seconds * 1e3)
        }),
        ("a later round", |it| {
            format!("{:.0} ms", it.processor_seconds / it.processor_rounds * 1e3)
        }),
        ("of it a process", |it| {
            let each = it.processor_seconds / it.processor_rounds / f64::from(it.processes);
            format!("{:.1} µs", each * 1e6)
        }),
        ("own peak memory", |it| {
            format!("{:.1} MiB", it.peak_bytes as f64 / f64::from(1 << 20))
        }),
        ("history", |it| {
            format!(
                "{:.1} MiB for {} samples",
                it.history_bytes as f64 / f64::from(1 << 20),
                it.samples
            )
        }),
        ("of it a sample", |it| {
            format!("{:.1} bytes", it.history_bytes as f64 / it.samples.max(1) as f64)
        }),
    ];
    for (name, figure) in figures {
        let mut row = vec![name.to_owned()];
        row.extend(columns.iter().map(|(_, outcome)| figure(outcome)));
        rows.push(row);
    }
    let widths: Vec<usize> = (0..=columns.len())
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let fill = " ".repeat(width - cell.chars().count());
            text += &format!("| {cell}{fill} ");
        }
        text += "|\n";
        if index == 0 {
            for width in &widths {
                text += &format!("|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_those_of_all_services() {
        let report = serde_json::json!({"services": [{"samples": 5}, {"samples": 7}]});
        assert_eq!(counted(&report), Some(12));
        assert_eq!(counted(&serde_json::json!({"services": [{}]})), None);
    }

    #[test]
    fn the_table_is_markdown_in_columns() {
        let outcome = Outcome {
            processes: 10_000,
            every: Duration::from_secs(1),
            rounds: 20.0,
            samples: 200_000,
            processor_seconds: 3.8,
            processor_rounds: 19.0,
            first_seconds: 0.5,
            peak_bytes: 64 << 20,
            history_bytes: 12 << 20,
        };
        let table = markdown(&[("simulated", outcome)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 11);
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width), "{table}");
        assert!(table.contains("| 20.0 µs"), "{table}");
        assert!(table.contains("| 62.9 bytes"), "{table}");
    }

    #[test]
    fn a_simulated_process_has_what_is_read_of_it() {
        let folder = simulated(3).unwrap();
        let process = folder.path().join((FIRST + 2).to_string());
        for name in ["stat", "status", "cgroup", "smaps_rollup", "fd"] {
            assert!(process.join(name).exists(), "{name}");
        }
        grow(folder.path(), 5).unwrap();
        let status = fs::read_to_string(process.join("status")).unwrap();
        assert!(status.contains("RssAnon:\t40330 kB"), "{status}");
    }
}
