//! All processes of the host: their numbers, and what selects among them.

use std::io;

use super::cgroup::Membership;
use super::stat::{self, Stat};
use super::subject::NoSample;
use super::{ProcRoot, SMALL_FILE, named};
use crate::target::proc::Proc;

/// The PIDs of all processes that are visible, ascending. One system call for some thousand of them, so it can be made each
/// round; what is new among them is then looked at by [`describe`].
pub fn list(root: &ProcRoot) -> io::Result<Vec<u32>> {
    let mut pids = Proc::at(root.path())
        .pids()
        .map_err(|error| named(root.path(), &error))?;
    pids.sort_unstable();
    Ok(pids)
}

/// What a process can be selected by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub pid: u32,
    /// The main thread's name: any bytes, at most 15 unless it is a kernel thread's.
    pub comm: Vec<u8>,
    pub stat: Stat,
    /// Empty where it cannot be read.
    pub cgroup: Membership,
}

/// Describes a process: two files, by way of a buffer that many reads can share.
pub fn describe(root: &ProcRoot, pid: u32, buffer: &mut Vec<u8>) -> Result<Description, NoSample> {
    // The cgroup first: when the process is there afterwards, it was its own.
    let cgroup = Membership::read(root, pid, buffer).unwrap_or_default();
    root.read_into(pid, "stat", SMALL_FILE, buffer)
        .map_err(|error| NoSample::of(&error))?;
    let unreadable = || NoSample::Unreadable(io::ErrorKind::InvalidData);
    let comm = stat::name(buffer).ok_or_else(unreadable)?.to_vec();
    Ok(Description {
        pid,
        comm,
        stat: stat::parse(buffer).map_err(|_| unreadable())?,
        cgroup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_among_all() {
        let root = ProcRoot::default();
        let own = std::process::id();
        let pids = list(&root).unwrap();
        assert!(pids.is_sorted() && pids.contains(&own) && pids.contains(&1));
        let described = describe(&root, own, &mut Vec::new()).unwrap();
        let comm = std::fs::read("/proc/self/comm").unwrap();
        assert_eq!(described.comm, comm.trim_ascii_end());
        assert!(!described.stat.is_kernel_thread() && !described.stat.main_thread_ended());
        let cgroup = std::fs::read("/proc/self/cgroup").unwrap();
        assert_eq!(described.cgroup, Membership::parse(&cgroup));
    }

    #[test]
    fn a_hostile_name_and_a_process_without_a_cgroup() {
        let folder = tempfile::tempdir().unwrap();
        for other in ["42", "7", "self", "4294967296"] {
            std::fs::create_dir(folder.path().join(other)).unwrap();
        }
        let line = b"42 (a)\n(\x1b[2J) S 1 2 3 4 5 0 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0\n";
        std::fs::write(folder.path().join("42/stat"), line).unwrap();
        let root = ProcRoot::new(folder.path());
        assert_eq!(list(&root).unwrap(), [7, 42]);
        let mut buffer = Vec::new();
        let described = describe(&root, 42, &mut buffer).unwrap();
        assert_eq!(described.comm, b"a)\n(\x1b[2J");
        assert_eq!(described.cgroup, Membership::default());
        assert_eq!(described.stat.start_time_ticks, 55);
        assert_eq!(describe(&root, 7, &mut buffer), Err(NoSample::Exited));
        std::fs::write(folder.path().join("7/stat"), b"7 (x) S").unwrap();
        let cut = NoSample::Unreadable(io::ErrorKind::InvalidData);
        assert_eq!(describe(&root, 7, &mut buffer), Err(cut));
    }
}
