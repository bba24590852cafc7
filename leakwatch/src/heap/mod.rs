//! `leakwatch heap`: one picture of a process's heap, without a window and without a probe.

use std::fs;
use std::io;

use crate::census::memory::{Memory as _, ProcessMemory};
use crate::census::reading::{self, Reading};
use crate::census::{Limits, NotTaken, cost};
use crate::diagnose::figures::bytes;
use crate::report::build::{self, origin};
use crate::report::model::{HeapPicture, Losses, SCHEMA_VERSION};
use crate::sampler::ProcRoot;
use crate::sampler::totals;
use crate::target::Target;
use crate::target::allocator::Allocator;

const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Why there is no picture of a heap. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    #[error("the heap of PID {pid} ({comm}) was not read: {why}")]
    NotTaken {
        pid: u32,
        comm: String,
        /// Not a source: it is told already.
        why: NotTaken,
    },
    #[error(
        "the heap of PID {pid} ({comm}) was not read: the kernel refuses its memory ({reason}): {advice}"
    )]
    Refused {
        pid: u32,
        comm: String,
        reason: io::Error,
        advice: String,
    },
    #[error(
        "the heap of PID {pid} ({comm}) was not read: {} of the process are swapped out, and reading would bring its \
         heap back into RAM; --force reads it all the same",
        bytes(*.swapped)
    )]
    Swapped { pid: u32, comm: String, swapped: u64 },
    #[error("PID {pid} ({comm}) exited while its heap was read")]
    Exited { pid: u32, comm: String },
}

/// Reads the heap of a process. With `force` even if much of the process is swapped out.
///
/// Needs `CAP_SYS_PTRACE`, or the same user where neither the target nor Yama forbids it.
///
/// # Errors
///
/// See [`HeapError`]. What was read under the number of a process that is gone meanwhile is dropped: it may be another's.
pub fn picture(target: &Target, force: bool) -> Result<HeapPicture, HeapError> {
    let root = ProcRoot::default();
    let (pid, comm) = (target.pid, target.comm.clone());
    readable(target)?;
    if let Some(swapped) = totals::read_status(&root, pid)
        .ok()
        .and_then(|totals| cost::swapped_too_much(&totals))
        .filter(|_| !force)
    {
        return Err(HeapError::Swapped { pid, comm, swapped });
    }
    let taken_at = jiff::Timestamp::now();
    // A reading takes some milliseconds: fractions of a second would say more than is known.
    let taken_at = jiff::Timestamp::from_second(taken_at.as_second()).unwrap_or(taken_at);
    let reading = reading::read(&root, pid, Limits::default(), &[]);
    if target.exited() {
        return Err(HeapError::Exited { pid, comm });
    }
    let reading = reading.map_err(|why| HeapError::NotTaken { pid, comm, why })?;
    Ok(HeapPicture {
        schema_version: SCHEMA_VERSION,
        tool: origin::tool(),
        host: origin::host(),
        target: origin::target(target),
        taken_at: taken_at.to_string(),
        heap: build::heap::heap(None, &reading),
        losses: Losses {
            counters: build::heap::losses(&reading),
            ..Losses::default()
        },
        notes: notes(&reading),
    })
}

/// Asks before anything is looked for: the kernel decides on the permission before it looks at the address, and the
/// census could say less clearly what is missing.
fn readable(target: &Target) -> Result<(), HeapError> {
    let (pid, comm) = (target.pid, target.comm.clone());
    let refused = match ProcessMemory::of(pid).read(1, &mut [0]) {
        Err(reason) if reason.raw_os_error() != Some(libc::EFAULT) => reason,
        // No process has memory there; yet it was allowed to ask.
        _ => return Ok(()),
    };
    if target.exited() {
        return Err(HeapError::Exited { pid, comm });
    }
    Err(HeapError::Refused {
        pid,
        comm,
        reason: refused,
        advice: advice(&fs::read_to_string(YAMA).unwrap_or_default()),
    })
}

/// What to do about a refusal, where Yama's setting is this text.
fn advice(yama: &str) -> String {
    let root = "run as root, or with CAP_SYS_PTRACE";
    match yama.trim() {
        "3" => "kernel.yama.ptrace_scope is 3, which forbids it to everybody until the next boot".to_owned(),
        scope @ ("1" | "2") => format!("{root} (kernel.yama.ptrace_scope is {scope})"),
        _ => root.to_owned(),
    }
}

/// What a reader should know of this picture.
fn notes(reading: &Reading) -> Vec<String> {
    let mut notes = Vec::new();
    if !matches!(reading.allocator, Allocator::Glibc { version: Some(_) }) {
        notes.push(
            "The version of glibc could not be read: the heap's own lists proved its layout.".to_owned(),
        );
    }
    if reading.kept.is_none() {
        notes.push("pagemap could not be read: which of the pages are resident is not known.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(advice("").ends_with("CAP_SYS_PTRACE"));
        assert!(advice("0\n").ends_with("CAP_SYS_PTRACE"));
        assert!(advice("1\n").ends_with("(kernel.yama.ptrace_scope is 1)"));
        assert!(!advice("3\n").contains("root"));
    }

    #[test]
    fn every_message_is_one_line() {
        let (pid, comm) = (4242, "x".to_owned());
        for error in [
            HeapError::NotTaken {
                pid,
                comm: comm.clone(),
                why: NotTaken::OtherAllocator(Allocator::Jemalloc),
            },
            HeapError::Refused {
                pid,
                comm: comm.clone(),
                reason: io::Error::from_raw_os_error(libc::EPERM),
                advice: advice("1"),
            },
            HeapError::Swapped {
                pid,
                comm: comm.clone(),
                swapped: 3 << 19,
            },
            HeapError::Exited { pid, comm },
        ] {
            let line = error.to_string();
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
            assert!(line.contains("PID 4242 (x)"), "{line}");
        }
    }
}
