//! The open descriptors of a process: how many, and which of them are sockets.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::lines::number;
use super::{ProcRoot, named};

/// Descriptors whose kind is looked up at most: what is beyond is counted, and no more.
const LOOKED_UP_MOST: usize = 1 << 17;

/// The sockets among a process's descriptors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnSockets {
    /// Their inodes: one socket may have several descriptors.
    pub inodes: HashSet<u64>,
    /// Descriptors that were not looked at.
    pub beyond: u64,
}

/// How many descriptors a process has open. The kernel tells it by the size of the folder since Linux 6.2; before that
/// they are listed.
///
/// # Errors
///
/// When the folder cannot be read: the process is gone, or another user's.
pub fn count(root: &ProcRoot, pid: u32) -> io::Result<u64> {
    let folder = root.of(pid, "fd");
    let size = fs::metadata(&folder)
        .map_err(|error| named(&folder, &error))?
        .size();
    // The size of a folder that stands in for it says nothing of its entries.
    if size > 0 && is_proc(&folder) {
        return Ok(size);
    }
    let entries = fs::read_dir(&folder).map_err(|error| named(&folder, &error))?;
    Ok(entries.count() as u64)
}

fn is_proc(folder: &std::path::Path) -> bool {
    rustix::fs::statfs(folder).is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The sockets among the descriptors of a process: each descriptor's name is read.
///
/// # Errors
///
/// When the folder cannot be read. Descriptors that are closed meanwhile are left out.
pub fn sockets(root: &ProcRoot, pid: u32) -> io::Result<OwnSockets> {
    let folder = root.of(pid, "fd");
    let entries = fs::read_dir(&folder).map_err(|error| named(&folder, &error))?;
    let mut own = OwnSockets::default();
    for (index, entry) in entries.flatten().enumerate() {
        if index >= LOOKED_UP_MOST {
            own.beyond += 1;
            continue;
        }
        if let Ok(name) = fs::read_link(entry.path())
            && let Some(inode) = inode(name.as_os_str().as_bytes())
        {
            own.inodes.insert(inode);
        }
    }
    Ok(own)
}

/// Of `socket:[123]`.
fn inode(name: &[u8]) -> Option<u64> {
    number(name.strip_prefix(b"socket:[")?.strip_suffix(b"]")?, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_this_process() {
        let (root, own) = (ProcRoot::default(), std::process::id());
        let before = count(&root, own).unwrap();
        let files: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with = count(&root, own).unwrap();
        // Other tests open and close some meanwhile.
        assert!(with.abs_diff(before + 500) < 200, "{before}, then {with}");
        let listed = fs::read_dir(root.of(own, "fd")).unwrap().count() as u64;
        assert!(listed.abs_diff(with) < 200, "{with}, listed {listed}");
        drop(files);
    }

    #[test]
    fn names_that_are_no_sockets() {
        assert_eq!(inode(b"socket:[123]"), Some(123));
        for name in [
            &b"/socket:[1]"[..],
            b"socket:[]",
            b"socket:[1",
            b"socket:[99999999999999999999]",
            b"pipe:[3]",
        ] {
            assert_eq!(inode(name), None);
        }
    }
}
