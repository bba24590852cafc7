//! The memory of a process's cgroup, and the limit that it will meet first. Versions 1 and 2.

mod membership;
mod mounts;

use std::io;
use std::path::{Path, PathBuf};

pub use membership::Membership;
use mounts::Mount;

use super::lines::{number, word};
use super::{ProcRoot, SMALL_FILE, named, read_into};

/// Which of the kernel's two interfaces accounts for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    const fn files(self) -> &'static Files {
        match self {
            Self::V1 => &Files {
                usage: "memory.usage_in_bytes",
                limit: "memory.limit_in_bytes",
                anonymous: b"total_rss",
            },
            Self::V2 => &Files {
                usage: "memory.current",
                limit: "memory.max",
                anonymous: b"anon",
            },
        }
    }
}

/// Where a version keeps its figures.
struct Files {
    usage: &'static str,
    limit: &'static str,
    /// The line of `memory.stat`, descendants included.
    anonymous: &'static [u8],
}

/// A limit, and how much of it is used. The usage is that of the cgroup which has the limit, so it can hold other services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub limit: u64,
    /// Bytes, file cache included; `None` where it cannot be read.
    pub used: Option<u64>,
    /// How many levels above the process's own cgroup; 0 is its own.
    pub above: u32,
}

impl Limit {
    /// Bytes left; without a usage all of it. A usage over a limit that was lowered leaves nothing.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used.unwrap_or(0))
    }
}

/// What the kernel accounts to the cgroup of a process and those below it; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupMemory {
    pub version: Version,
    /// `memory.current`: file cache and kernel memory included.
    pub current: u64,
    /// `anon` of `memory.stat` (version 1: `total_rss`, which is the same).
    pub anonymous: Option<u64>,
    /// Of the limits of this cgroup and its ancestors the one with the least room left, the nearer one where two have the
    /// same. That is not always the lowest one: a parent's may be almost used up by others. `None` without any limit.
    pub tightest: Option<Limit>,
}

/// Where the cgroups of this host can be read. One for many processes.
#[derive(Clone, Debug, Default)]
pub struct Cgroups {
    mounts: Vec<Mount>,
}

impl Cgroups {
    /// Looks for the mounts: those that this process sees, and behind them those that the first process sees. A container
    /// that shares the host's PIDs sees its own cgroup at most, while the first process is the host's. The target's own
    /// mounts are never walked: it could lay a file system there that never answers.
    #[must_use]
    pub fn find(root: &ProcRoot) -> Self {
        let mut mounts = mounts::read(root, "self", Path::new(""));
        mounts.extend(mounts::read(root, "1", &root.path().join("1/root")));
        Self { mounts }
    }

    /// Reads the account of the cgroup that `ROOT/PID/cgroup` names.
    ///
    /// Errors: `NotFound` when its memory is not accounted for by cgroup (no controller, the root cgroup, a cgroup that
    /// was removed) or its cgroup is nowhere to be seen.
    pub fn memory(&self, root: &ProcRoot, pid: u32, buffer: &mut Vec<u8>) -> io::Result<CgroupMemory> {
        let member = Membership::read(root, pid, buffer)?;
        let unaccounted = || {
            let error = io::Error::new(io::ErrorKind::NotFound, "no cgroup accounts for its memory");
            named(&root.of(pid, "cgroup"), &error)
        };
        let (version, path) = member.memory().ok_or_else(unaccounted)?;
        let place = self.place(version, path).ok_or_else(unaccounted)?;
        place.memory(version, buffer).ok_or_else(unaccounted)
    }

    /// The folder of a cgroup.
    fn place(&self, version: Version, path: &[u8]) -> Option<Place> {
        self.mounts
            .iter()
            .filter(|mount| mount.version == version)
            .filter_map(|mount| mount.place(path))
            .find(|place| place.folder.is_dir())
    }
}

/// The folder of a cgroup, and how many of its ancestors lie below the same mount.
struct Place {
    folder: PathBuf,
    ancestors: u32,
}

impl Place {
    fn memory(&self, version: Version, buffer: &mut Vec<u8>) -> Option<CgroupMemory> {
        let files = version.files();
        let mut account: Option<CgroupMemory> = None;
        let mut tightest = None;
        let levels = self.folder.ancestors().zip(0..=self.ancestors);
        for (folder, above) in levels {
            let used = value(&folder.join(files.usage), buffer);
            if account.is_none() {
                // Where the controller is not handed down to the cgroup (version 2), its nearest ancestor is charged.
                let Some(current) = used else { continue };
                account = Some(CgroupMemory {
                    version,
                    current,
                    anonymous: line(&folder.join("memory.stat"), files.anonymous, buffer),
                    tightest: None,
                });
            }
            if let Some(limit) = value(&folder.join(files.limit), buffer).filter(|limit| *limit < UNLIMITED) {
                let limit = Limit { limit, used, above };
                if tightest.is_none_or(|tightest: Limit| limit.room() < tightest.room()) {
                    tightest = Some(limit);
                }
            }
            // What a parent without this setting limits is its own processes alone.
            let parent = folder.parent().map(|parent| parent.join("memory.use_hierarchy"));
            if version == Version::V1 && parent.is_some_and(|file| value(&file, buffer) == Some(0)) {
                break;
            }
        }
        account.map(|account| CgroupMemory { tightest, ..account })
    }
}

/// Version 1 writes the greatest number of pages, in bytes, for none: a little under 2^63.
const UNLIMITED: u64 = 1 << 62;

/// The number that a file holds; `None` for `max` and anything else.
fn value(path: &Path, buffer: &mut Vec<u8>) -> Option<u64> {
    read_into(path, SMALL_FILE, buffer).ok()?;
    number(buffer.strip_suffix(b"\n")?, 10)
}

/// The number behind a name, in a file of such lines.
fn line(path: &Path, name: &[u8], buffer: &mut Vec<u8>) -> Option<u64> {
    read_into(path, SMALL_FILE, buffer).ok()?;
    buffer
        .split_inclusive(|&byte| byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
        .find_map(|line| {
            let (first, rest) = word(line);
            (first == name).then(|| number(word(rest).0, 10))
        })?
}

#[cfg(test)]
mod tests;
