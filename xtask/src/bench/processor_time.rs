//! Processor time of processes, as `/proc` tells it, in seconds.

use std::fs;

use anyhow::{Context as _, Result};

const NANOSECONDS: f64 = 1e9;

/// Of one process, in user mode and in the kernel, by hundredths of a second.
///
/// # Errors
/// When it has ended.
pub fn of(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    seconds(ticks(&text, OWN)).with_context(|| format!("{path} is not understood"))
}

/// Of the children of this process that have ended and were waited for, and of their children likewise.
///
/// # Errors
/// When `/proc/self/stat` is not as it should be.
pub fn of_children() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    seconds(ticks(&text, OF_CHILDREN)).context("/proc/self/stat is not understood")
}

/// Of the threads that a process has now, by the nanosecond: for one that works a millisecond in ten seconds. A thread
/// that runs is behind by a tick at most.
///
/// # Errors
/// When the process has ended, or the kernel keeps no such figures.
pub fn of_threads(pid: u32) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut all = 0.0;
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        let path = thread
            .with_context(|| format!("cannot read {folder}"))?
            .path()
            .join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let spent = text.split(' ').next().and_then(|word| word.parse::<u64>().ok());
        all += spent.with_context(|| format!("{} is not understood", path.display()))? as f64;
    }
    Ok(all / NANOSECONDS)
}

/// Where the times stand in `/proc/PID/stat`, counted from the state behind the name.
const OWN: usize = 11;
const OF_CHILDREN: usize = 13;

/// User and system time. The name before them may hold spaces and brackets.
fn ticks(stat: &str, skipped: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(skipped);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn seconds(ticks: Option<u64>) -> Option<f64> {
    Some(ticks? as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::bench::programs;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 1 0 99";
        assert_eq!(ticks(stat, OWN), Some(42));
        assert_eq!(ticks(stat, OF_CHILDREN), Some(11));
        assert_eq!(ticks("7 (a) S 1", OWN), None);
    }

    #[test]
    fn both_counts_agree_on_a_process_that_works() {
        let work = Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        let mut child = work.unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut counts = (0.0, 0.0);
        while counts.0 < 0.1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            counts = (of_threads(child.id()).unwrap(), of(child.id()).unwrap());
        }
        programs::end(&mut child);
        // The one is up to a hundredth behind, the other a little later.
        assert!(
            counts.0 >= 0.1 && (counts.0 - counts.1).abs() < 0.05,
            "{counts:?}"
        );
    }
}
