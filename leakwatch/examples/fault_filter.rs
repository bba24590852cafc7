//! Attaches to a process without recording it, to measure what the fault event costs: `cargo xtask bench --filter`.
//!
//! `fault_filter MODE PID` says "attached" and stays until it is ended. MODE is
//!  - `none`: the mapping tracepoints alone;
//!  - `period`: and the fault event, with a period so long that its program never runs;
//!  - `filter`: and the fault event with period 1, where no page is in the sample.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use leakwatch::probe::{Probe, ProbeOptions};

/// The kernel refuses periods with the highest bit.
const NEVER: u64 = 1 << 62;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, pid] = arguments.as_slice() else {
        bail!("usage: fault_filter none|period|filter PID");
    };
    let pid: u32 = pid.parse().context("PID is no number")?;
    let mut probe = Probe::attach(&ProbeOptions {
        stack_bytes: 32 << 10,
        ring_bytes: 64 << 20,
    })?;
    probe.set_sample_threshold(0)?;
    probe.watch(pid, false)?;
    let period = match mode.as_str() {
        "none" => None,
        "period" => Some(NEVER),
        "filter" => Some(1),
        other => bail!("no such mode: {other}"),
    };
    if let Some(period) = period {
        let coverage = probe.watch_faults_each(period, || threads(pid))?;
        ensure!(coverage.threads > 0, "process {pid} has no thread to watch");
    }
    anstream::println!("attached");
    loop {
        // As leakwatch would: a ring that is never drained makes the programs cheaper than they are.
        while probe.drain(1024, |_| ()) > 0 {}
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(PathBuf::from(format!("/proc/{pid}/task")))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse::<u32>()));
    names
        .filter_map(|name: io::Result<_>| name.map(Result::ok).transpose())
        .collect()
}
