//! Which namespaces leakwatch itself runs in: the kernel's programs see the initial PID namespace's numbers only.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::proc::Proc;

/// Inode numbers that the kernel fixes for the initial namespaces (`include/linux/proc_ns.h`).
const PROC_PID_INIT_INO: u64 = 0xEFFF_FFFC;
const PROC_USER_INIT_INO: u64 = 0xEFFF_FFFD;

/// Whether the PIDs seen here are the kernel's own. A kernel that does not tell (no `ns` folder) has one namespace.
#[must_use]
pub fn is_initial_pid_namespace(proc: &Proc) -> bool {
    inode(proc, "self/ns/pid").is_none_or(|inode| inode == PROC_PID_INIT_INO)
}

/// Whether capabilities held here count on the host: BPF asks for them in the initial user namespace.
#[must_use]
pub fn is_initial_user_namespace(proc: &Proc) -> bool {
    inode(proc, "self/ns/user").is_none_or(|inode| inode == PROC_USER_INIT_INO)
}

fn inode(proc: &Proc, path: &str) -> Option<u64> {
    Some(fs::metadata(proc.root().join(path)).ok()?.ino())
}

/// Seconds since boot, whole ones.
#[must_use]
pub fn uptime_seconds(proc: &Proc) -> Option<u64> {
    let text = String::from_utf8(proc.read_global("uptime", 256).ok()?).ok()?;
    text.split(['.', ' ']).next()?.parse().ok()
}
