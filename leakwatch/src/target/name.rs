//! Finding a process by its name.

use std::os::unix::ffi::OsStrExt;

use super::identity::{arguments, without_deleted_mark};
use super::proc::Proc;
use super::{TargetError, namespace};

/// How many processes of one name are listed.
pub const CANDIDATES_MAX: usize = 20;

/// Command lines in a list of candidates are cut here, in bytes: it is for telling them apart.
const CMDLINE_BYTES_MAX: u64 = 512;

/// One of several processes with the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub pid: u32,
    /// Real user ID.
    pub uid: Option<u32>,
    /// Seconds since its start; `None` where the host's uptime cannot be read.
    pub age_seconds: Option<u64>,
    /// Arguments joined by blanks, unescaped, cut at 512 bytes.
    pub cmdline: String,
}

/// The one process named `name`. Processes that come and go while the list is read are passed over.
pub fn find(proc: &Proc, name: &str) -> Result<u32, TargetError> {
    let mut pids: Vec<u32> = proc
        .pids()
        .map_err(|source| TargetError::List { source })?
        .into_iter()
        .filter(|&pid| pid != std::process::id() && is_named(proc, pid, name))
        .collect();
    pids.sort_unstable();
    match pids.as_slice() {
        [] => Err(TargetError::NoSuchName {
            name: name.to_owned(),
        }),
        [pid] => Ok(*pid),
        many => Err(TargetError::Ambiguous {
            name: name.to_owned(),
            candidates: many
                .iter()
                .take(CANDIDATES_MAX)
                .map(|&pid| candidate(proc, pid))
                .collect(),
            more: many.len().saturating_sub(CANDIDATES_MAX),
        }),
    }
}

fn is_named(proc: &Proc, pid: u32, name: &str) -> bool {
    let Ok(stat) = proc.stat(pid) else {
        return false;
    };
    if stat.is_kernel_thread() || stat.is_dead() {
        return false;
    }
    // The kernel cuts its own name at 15 bytes; the executable's file name is whole.
    stat.comm == name
        || proc.link(pid, "exe").is_ok_and(|link| {
            let (path, _) = without_deleted_mark(&link);
            path.file_name()
                .is_some_and(|file| file.as_bytes() == name.as_bytes())
        })
}

fn candidate(proc: &Proc, pid: u32) -> Candidate {
    let age_seconds = proc
        .stat(pid)
        .ok()
        .zip(namespace::uptime_seconds(proc))
        .map(|(stat, uptime)| {
            uptime.saturating_sub(stat.start_time_ticks / procfs::ticks_per_second().max(1))
        });
    let cmdline = proc.read(pid, "cmdline", CMDLINE_BYTES_MAX).unwrap_or_default();
    Candidate {
        pid,
        uid: proc.status(pid).ok().and_then(|status| status.uid),
        age_seconds,
        cmdline: arguments(&cmdline).join(" "),
    }
}
