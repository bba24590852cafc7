//! What /proc says of the target: mappings, sizes, states.
//!
//! Every reader takes a [`ProcRoot`], so a test can put a folder in place of `/proc`. Names and paths in these files
//! are chosen by the target and arrive as bytes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub mod cgroup;
pub mod cost;
pub mod descriptors;
pub mod growth;
pub mod host;
mod lines;
pub mod maps;
pub mod paging;
pub mod region;
pub mod resident;
pub mod sample;
pub mod smaps;
pub mod sockets;
pub mod stat;
pub mod totals;

/// Where the proc file system is: `/proc`, or a folder that stands in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcRoot(PathBuf);

impl ProcRoot {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `ROOT/PID/FILE`.
    #[must_use]
    pub fn of(&self, pid: u32, file: &str) -> PathBuf {
        self.0.join(pid.to_string()).join(file)
    }

    /// Opens `ROOT/PID/FILE` for reading; the error names the file.
    pub fn open(&self, pid: u32, file: &str) -> io::Result<File> {
        let path = self.of(pid, file);
        File::open(&path).map_err(|error| named(&path, &error))
    }
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self::new("/proc")
    }
}

/// The error with the file that it befell; the kind stays, so a caller can tell "gone" from "forbidden".
fn named(path: &Path, error: &io::Error) -> io::Error {
    let reason = match error.raw_os_error() {
        // What a file of /proc says once its process is reaped.
        Some(libc::ESRCH) => "the process exited".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("cannot read {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_can_stand_in_for_proc() {
        let folder = tempfile::tempdir().unwrap();
        let of_pid = folder.path().join("42");
        std::fs::create_dir(&of_pid).unwrap();
        std::fs::write(of_pid.join("maps"), b"1000-2000 rw-p 0 00:00 0 /\xff\n").unwrap();
        std::fs::write(
            of_pid.join("smaps"),
            b"1000-2000 rw-p 0 00:00 0 /\xff\nSwap: 4 kB\n",
        )
        .unwrap();
        let root = ProcRoot::new(folder.path());
        assert_eq!(maps::read(&root, 42).unwrap().mappings[0].path_bytes(), b"/\xff");
        assert_eq!(smaps::read(&root, 42).unwrap().mappings[0].swap, 4096);
        assert_eq!(stat::read(&root, 42).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_reaped_process_is_said_to_have_exited() {
        let error = named(
            Path::new("/proc/42/maps"),
            &io::Error::from_raw_os_error(libc::ESRCH),
        );
        assert_eq!(error.to_string(), "cannot read /proc/42/maps: the process exited");
    }
}
