//! What a process lets be read of it.

use std::fs::{self, File};
use std::io::{self, Read};

use super::Finding;
use crate::target::allocator::{self, Allocator};
use crate::target::{Proc, Target};

pub fn examine(proc: &Proc, pid: u32) -> Vec<Finding> {
    let target = match Target::open(pid) {
        Ok(target) => target,
        Err(error) => {
            let detail = format!("{:#}", anyhow::Error::from(error));
            return vec![Finding::missing(
                "target",
                detail,
                "choose a process that can be watched",
            )];
        }
    };
    let mut findings = vec![
        Finding::ok("target", description(&target)),
        Finding::ok("word size", "64 bits"),
        Finding::ok("namespace", namespace(&target)),
    ];
    findings.push(match allocator::identify(proc, pid) {
        Ok(found) => allocator_finding(&found),
        Err(error) => Finding::degraded(
            "allocator",
            format!("not told: {error}"),
            "run as root, or with CAP_SYS_PTRACE",
        ),
    });
    findings.extend(entries(proc, pid));
    findings
}

fn description(target: &Target) -> String {
    let exe = target.exe.as_ref().map_or_else(
        || "its executable unknown".to_owned(),
        |exe| exe.display().to_string(),
    );
    let deleted = if target.exe_deleted { " (deleted)" } else { "" };
    format!(
        "PID {} ({}), {exe}{deleted}, user {}",
        target.pid, target.comm, target.uid
    )
}

fn namespace(target: &Target) -> String {
    let pid = target.inner_pid.map_or_else(
        || "the host's".to_owned(),
        |inner| format!("a container's, in which its PID is {inner}"),
    );
    match &target.container {
        Some(id) => format!("{pid}; container {}", id.get(..12).unwrap_or(id)),
        None => pid,
    }
}

fn allocator_finding(found: &Allocator) -> Finding {
    Finding::ok("allocator", found.to_string())
}

/// What is read of `/proc/PID`, and what its absence means.
fn entries(proc: &Proc, pid: u32) -> Vec<Finding> {
    const ADVICE: &str = "run as root, or with CAP_SYS_PTRACE";
    let readable = |entry: &str| -> io::Result<()> {
        // A page table entry is 8 bytes, and less is refused.
        let mut start = Vec::new();
        File::open(proc.entry(pid, entry))?
            .take(8)
            .read_to_end(&mut start)?;
        Ok(())
    };
    // Opening is what needs the privilege; listing alone shows nothing of it.
    let map_files = || -> io::Result<()> {
        let Some(first) = fs::read_dir(proc.entry(pid, "map_files"))?.next() else {
            return Ok(());
        };
        File::open(first?.path()).map(drop)
    };
    let required = |need, result: io::Result<()>| match result {
        Ok(()) => Finding::ok(need, "readable"),
        Err(error) => Finding::missing(need, error.to_string(), ADVICE),
    };
    let useful = |need, result: io::Result<()>, loss| match result {
        Ok(()) => Finding::ok(need, "readable"),
        Err(error) => Finding::degraded(need, error.to_string(), loss),
    };
    vec![
        required("maps", readable("maps")),
        useful(
            "smaps",
            readable("smaps_rollup").and_then(|()| readable("smaps")),
            "without it the account is not checked against the kernel's",
        ),
        useful(
            "map_files",
            map_files(),
            "without it (CAP_CHECKPOINT_RESTORE) deleted files of the target cannot be read: their frames stay unnamed",
        ),
        useful(
            "pagemap",
            readable("pagemap"),
            "without it resident pages are not told from absent ones",
        ),
        useful(
            "executable",
            readable("exe"),
            "without it stacks through the executable may be cut and stay unnamed",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_process_that_is_not_there_is_one_line() {
        let findings = examine(&Proc::host(), 4_194_305);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].state, State::Missing);
        assert!(findings[0].detail.starts_with("no process 4194305"));
    }

    #[test]
    fn entries_of_a_process_without_any() {
        let folder = tempfile::tempdir().unwrap();
        let states: Vec<State> = entries(&Proc::at(folder.path()), 1)
            .iter()
            .map(|finding| finding.state)
            .collect();
        assert_eq!(states[0], State::Missing);
        assert!(states[1..].iter().all(|&state| state == State::Degraded));
    }

    #[test]
    fn own_entries_are_readable() {
        let findings = entries(&Proc::host(), std::process::id());
        for finding in findings.iter().filter(|one| one.need != "map_files") {
            assert_eq!(finding.state, State::Ok, "{finding:?}");
        }
    }
}
