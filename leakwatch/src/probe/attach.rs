//! One table of everything that leakwatch attaches to.

use std::fmt;

use aya::Ebpf;
use aya::programs::{PerfEvent, ProgramError, RawTracePoint, TracePoint};

use super::{ProbeError, chain, faults, not_permitted};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// A tracepoint, attached by category and name.
    Tracepoint,
    /// The same tracepoint's raw form: the kernel's own arguments instead of the formatted record.
    RawTracepoint,
}

/// A program, where it goes, and since when the kernel has that place.
#[derive(Clone, Copy, Debug)]
pub struct AttachPoint {
    pub program: &'static str,
    pub kind: AttachKind,
    pub category: &'static str,
    pub name: &'static str,
    /// (major, minor) of the first kernel with it.
    pub since: (u32, u32),
    /// What is lost without it; `None` where leakwatch cannot do without.
    pub loss: Option<&'static str>,
}

impl fmt::Display for AttachPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.category, self.name)
    }
}

const fn syscall(program: &'static str, name: &'static str) -> AttachPoint {
    AttachPoint {
        program,
        kind: AttachKind::Tracepoint,
        category: "syscalls",
        name,
        since: (2, 6),
        loss: None,
    }
}

const fn pkey(program: &'static str, name: &'static str) -> AttachPoint {
    AttachPoint {
        since: (4, 9),
        loss: Some("memory that pkey_mprotect makes accessible has no call site"),
        ..syscall(program, name)
    }
}

const fn sched(program: &'static str, kind: AttachKind, name: &'static str) -> AttachPoint {
    AttachPoint {
        program,
        kind,
        category: "sched",
        name,
        since: (3, 4),
        loss: None,
    }
}

/// In the order of attaching: exits before entries, so that no entry is seen whose exit would be missed.
pub const ATTACH_POINTS: &[AttachPoint] = &[
    sched("process_fork", AttachKind::RawTracepoint, "sched_process_fork"),
    sched("process_exec", AttachKind::Tracepoint, "sched_process_exec"),
    sched("process_exit", AttachKind::Tracepoint, "sched_process_exit"),
    syscall("exit_mmap", "sys_exit_mmap"),
    syscall("exit_munmap", "sys_exit_munmap"),
    syscall("exit_mremap", "sys_exit_mremap"),
    syscall("exit_brk", "sys_exit_brk"),
    syscall("exit_mprotect", "sys_exit_mprotect"),
    pkey("exit_mprotect", "sys_exit_pkey_mprotect"),
    syscall("exit_madvise", "sys_exit_madvise"),
    syscall("enter_mmap", "sys_enter_mmap"),
    syscall("enter_munmap", "sys_enter_munmap"),
    syscall("enter_mremap", "sys_enter_mremap"),
    syscall("enter_brk", "sys_enter_brk"),
    syscall("enter_mprotect", "sys_enter_mprotect"),
    pkey("enter_mprotect", "sys_enter_pkey_mprotect"),
    syscall("enter_madvise", "sys_enter_madvise"),
];

/// Loads and attaches every program of the table. Returns the optional points that this kernel lacks.
pub(super) fn all(ebpf: &mut Ebpf) -> Result<Vec<&'static str>, ProbeError> {
    let mut missing = Vec::new();
    for point in ATTACH_POINTS {
        match one(ebpf, point) {
            Ok(()) => {}
            Err(_) if point.loss.is_some() => missing.push(point.name),
            Err(error) => return Err(error),
        }
    }
    load_faults(ebpf)?;
    Ok(missing)
}

/// The page-fault program is loaded with the others and attached to each thread of a target later.
fn load_faults(ebpf: &mut Ebpf) -> Result<(), ProbeError> {
    let failed = |error: &ProgramError| {
        if not_permitted(error) {
            ProbeError::NotPermitted
        } else {
            ProbeError::Load(chain(error))
        }
    };
    let program: &mut PerfEvent = ebpf
        .program_mut(faults::PROGRAM)
        .ok_or_else(|| ProbeError::Object(format!("it has no program {}", faults::PROGRAM)))?
        .try_into()
        .map_err(|error| failed(&error))?;
    program.load().map_err(|error| failed(&error))
}

/// Attaches a program to one point, and loads it before.
pub(super) fn one(ebpf: &mut Ebpf, point: &AttachPoint) -> Result<(), ProbeError> {
    let program = ebpf
        .program_mut(point.program)
        .ok_or_else(|| ProbeError::Object(format!("it has no program {}", point.program)))?;
    let result = match point.kind {
        AttachKind::Tracepoint => {
            let program: &mut TracePoint = program.try_into().map_err(|error| failed(point, &error))?;
            // One that serves several points is loaded for the first.
            let loaded = if program.fd().is_ok() {
                Ok(())
            } else {
                program.load()
            };
            loaded.and_then(|()| program.attach(point.category, point.name).map(drop))
        }
        AttachKind::RawTracepoint => {
            let program: &mut RawTracePoint = program.try_into().map_err(|error| failed(point, &error))?;
            program.load().and_then(|()| program.attach(point.name).map(drop))
        }
    };
    result.map_err(|error| failed(point, &error))
}

fn failed(point: &AttachPoint, error: &ProgramError) -> ProbeError {
    if not_permitted(error) {
        return ProbeError::NotPermitted;
    }
    ProbeError::Attach {
        program: point.program,
        point: point.name,
        reason: chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_attached_before_entries() {
        let first_enter = ATTACH_POINTS
            .iter()
            .position(|point| point.name.starts_with("sys_enter_"));
        let last_exit = ATTACH_POINTS
            .iter()
            .rposition(|point| point.name.starts_with("sys_exit_"));
        assert!(last_exit < first_enter);
    }

    #[test]
    fn every_entry_has_its_exit() {
        for point in ATTACH_POINTS {
            if let Some(call) = point.name.strip_prefix("sys_enter_") {
                let exit = format!("sys_exit_{call}");
                assert!(ATTACH_POINTS.iter().any(|other| other.name == exit), "{exit}");
            }
        }
    }
}
