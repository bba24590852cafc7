//! What /proc says of the target: mappings, sizes, states.
//!
//! Every reader takes a [`ProcRoot`], so a test can put a folder in place of `/proc`. Names and paths in these files
//! are chosen by the target and arrive as bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub mod cgroup;
pub mod cost;
pub mod cpu_clock;
pub mod descriptors;
pub mod growth;
pub mod host;
pub mod kind;
mod lines;
#[cfg(test)]
mod living;
pub mod maps;
pub mod paging;
pub mod processes;
pub mod region;
pub mod resident;
pub mod sample;
pub mod smaps;
pub mod sockets;
pub mod stat;
pub mod subject;
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

    /// Reads `ROOT/PID/FILE` into `buffer` in place of what it held, at most `limit` bytes; the error names the file.
    pub fn read_into(&self, pid: u32, file: &str, limit: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        let path = self.of(pid, file);
        read_into(&path, limit, buffer).map_err(|error| named(&path, &error))
    }
}

impl Default for ProcRoot {
    fn default() -> Self {
        Self::new("/proc")
    }
}

/// Most bytes of a file that holds a few lines of fixed form, such as status.
const SMALL_FILE: u64 = 64 * 1024;

fn read_into(path: &Path, limit: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    // With room the first read gets it all, and no size is asked for that /proc gives as 0.
    buffer.reserve(4096);
    File::open(path)?.take(limit).read_to_end(buffer)?;
    Ok(())
}

/// The error with the file that it befell; the kind stays, so a caller can tell "gone" from "forbidden".
fn named(path: &Path, error: &io::Error) -> io::Error {
    let (kind, reason) = match error.raw_os_error() {
        // What a file of /proc says once its process is reaped; the kind that it comes with has no name.
        Some(libc::ESRCH) => (io::ErrorKind::NotFound, "the process exited".to_owned()),
        _ => (error.kind(), error.to_string()),
    };
    io::Error::new(kind, format!("cannot read {}: {reason}", path.display()))
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
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
