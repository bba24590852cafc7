//! Everything `/proc` says of who a process is, and whether it can be watched at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::proc::Proc;
use super::{TargetError, container};

/// The longest command line that is kept, in bytes.
const CMDLINE_BYTES_MAX: u64 = 64 * 1024;
const CGROUP_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug)]
pub struct Identity {
    pub start_time_ticks: u64,
    pub comm: String,
    pub exe: Option<PathBuf>,
    pub exe_deleted: bool,
    pub cmdline: Vec<String>,
    pub uid: u32,
    pub inner_pid: Option<u32>,
    pub container: Option<String>,
}

pub fn read(proc: &Proc, pid: u32) -> Result<Identity, TargetError> {
    let stat = proc.stat(pid).map_err(|source| failed(pid, "stat", source))?;
    let comm = stat.comm.clone();
    if stat.is_kernel_thread() {
        return Err(TargetError::KernelThread { pid, comm });
    }
    if stat.is_dead() {
        // A dead leader counts itself among the threads until it is reaped, so one means that it is alone.
        return Err(if stat.threads > 1 {
            TargetError::LeaderExited { pid, comm }
        } else {
            TargetError::Zombie { pid, comm }
        });
    }
    let status = proc.status(pid).map_err(|source| failed(pid, "status", source))?;
    if let Some(tgid) = status.tgid.filter(|&tgid| tgid != pid) {
        return Err(TargetError::Thread { pid, tgid });
    }
    if is_thirty_two_bit(&proc.entry(pid, "exe")).map_err(|source| failed(pid, "exe", source))? {
        return Err(TargetError::ThirtyTwoBit { pid, comm });
    }
    let (exe, exe_deleted) = match proc.link(pid, "exe") {
        Ok(link) => {
            let (path, deleted) = without_deleted_mark(&link);
            (Some(path), deleted)
        }
        Err(_) => (None, false),
    };
    let cmdline = proc
        .read(pid, "cmdline", CMDLINE_BYTES_MAX)
        .map_err(|source| failed(pid, "cmdline", source))?;
    let cgroup = proc.read(pid, "cgroup", CGROUP_BYTES_MAX).unwrap_or_default();
    Ok(Identity {
        start_time_ticks: stat.start_time_ticks,
        comm,
        exe,
        exe_deleted,
        cmdline: arguments(&cmdline),
        uid: status.uid.unwrap_or(u32::MAX),
        inner_pid: match status.namespace_pids.as_slice() {
            [_, .., innermost] => Some(*innermost),
            _ => None,
        },
        container: container::id_from_cgroup(&String::from_utf8_lossy(&cgroup)),
    })
}

/// An entry that has vanished means that the process has.
fn failed(pid: u32, entry: &'static str, source: io::Error) -> TargetError {
    let vanished = source.kind() == io::ErrorKind::NotFound
        || source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if vanished {
        TargetError::NoSuchProcess { pid }
    } else {
        TargetError::Unreadable { pid, entry, source }
    }
}

/// `EI_CLASS` of the ELF header. x32 programs are of class 32 as well.
fn is_thirty_two_bit(exe: &Path) -> io::Result<bool> {
    const ELFCLASS32: u8 = 1;
    let mut start = Vec::new();
    File::open(exe)?.take(5).read_to_end(&mut start)?;
    Ok(start.starts_with(b"\x7fELF") && start.get(4) == Some(&ELFCLASS32))
}

/// `/proc/PID/exe` of a deleted file ends in ` (deleted)`.
pub(super) fn without_deleted_mark(link: &Path) -> (PathBuf, bool) {
    match link.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => (PathBuf::from(OsStr::from_bytes(path)), true),
        None => (link.to_path_buf(), false),
    }
}

/// The arguments are NUL-terminated; a process that rewrote its title leaves padding behind, which is dropped.
pub(super) fn arguments(cmdline: &[u8]) -> Vec<String> {
    let end = cmdline
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let Some(used) = cmdline.get(..end).filter(|used| !used.is_empty()) else {
        return Vec::new();
    };
    used.split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}
