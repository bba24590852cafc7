//! What leakwatch takes of the machine, asked of the kernel rather than of leakwatch.

use std::fs;

/// Processor time of a process so far, all its threads, user and system, in seconds.
///
/// # Panics
/// Where the process is gone.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    // The name may hold anything, a closing bracket too: fields are counted from the last one. utime and stime are
    // the 14th and 15th of proc_pid_stat(5).
    let (_, rest) = text.rsplit_once(')').expect("a process has a name");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u32 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u32>().expect("a number"))
        .sum();
    f64::from(ticks) / ticks_a_second()
}

fn ticks_a_second() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a hundred or so")]
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    ticks
}

/// The most memory that a process has had resident, in bytes.
///
/// # Panics
/// Where the process is gone.
#[must_use]
pub fn peak_resident_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_else(|| panic!("{path} has no VmHWM")) * 1024
}
