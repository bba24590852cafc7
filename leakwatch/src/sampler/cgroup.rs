//! The memory of a process's control group, and how much it may have: version 2, or the memory controller of version 1.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::ProcRoot;
use super::lines::{number, word};

/// Where control groups are mounted on nearly every host.
const USUAL: &str = "/sys/fs/cgroup";
/// Groups above one another that are looked at.
const DEPTH_MOST: usize = 64;
/// Version 1 writes its largest number of whole pages where there is no limit.
const NO_LIMIT_V1: u64 = 1 << 62;

/// What a group says, bytes. `None` where it does not: the file is not there, or not for us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupMemory {
    /// The group's path below the mount.
    pub path: PathBuf,
    /// Of all its processes: anonymous memory, page cache and kernel memory.
    pub current: Option<u64>,
    /// The tightest limit of the group and those above it; `None` without any.
    pub limit: Option<u64>,
    /// Anonymous memory of all its processes.
    pub anonymous: Option<u64>,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot(PathBuf);

impl CgroupRoot {
    /// A folder that stands in for `/sys/fs/cgroup`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }
}

impl Default for CgroupRoot {
    fn default() -> Self {
        Self::new(USUAL)
    }
}

/// The group of a process. `None` where there is none that accounts memory, or it lies outside of what this process may see
/// (another namespace's).
#[must_use]
pub fn read(proc: &ProcRoot, cgroups: &CgroupRoot, pid: u32) -> Option<CgroupMemory> {
    let text = fs::read(proc.of(pid, "cgroup")).ok()?;
    let groups = Groups::parse(&text);
    if let Some(path) = groups.memory {
        let mount = cgroups.0.join("memory");
        if let Some(found) = read_v1(&mount, path) {
            return Some(found);
        }
    }
    let path = groups.unified?;
    // Beside version 1 it is mounted one below.
    [cgroups.0.clone(), cgroups.0.join("unified")]
        .iter()
        .find_map(|mount| read_v2(mount, path))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Groups<'a> {
    /// Version 2.
    unified: Option<&'a Path>,
    /// Version 1's memory controller.
    memory: Option<&'a Path>,
}

impl<'a> Groups<'a> {
    /// Of lines `number:controllers:path`. A path may hold colons.
    fn parse(text: &'a [u8]) -> Self {
        let mut groups = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut parts = line.splitn(3, |byte| *byte == b':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let path = Path::new(OsStr::from_bytes(path));
            if controllers.is_empty() {
                groups.unified = Some(path);
            } else if controllers
                .split(|byte| *byte == b',')
                .any(|name| name == b"memory")
            {
                groups.memory = Some(path);
            }
        }
        groups
    }
}

/// Below the mount; `None` for a path that leads out of it.
fn below(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => below.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(below)
}

fn read_v2(mount: &Path, path: &Path) -> Option<CgroupMemory> {
    let path = below(path)?;
    let folder = mount.join(&path);
    let current = value(&folder.join("memory.current"));
    let anonymous = stat(&folder.join("memory.stat"), b"anon");
    // The root group has no current, and tells what all of the host has.
    if current.is_none() && anonymous.is_none() {
        return None;
    }
    let limits = path
        .ancestors()
        .take(DEPTH_MOST)
        .filter_map(|path| value(&mount.join(path).join("memory.max")));
    Some(CgroupMemory {
        limit: limits.min(),
        current,
        anonymous,
        path,
    })
}

fn read_v1(mount: &Path, path: &Path) -> Option<CgroupMemory> {
    let path = below(path)?;
    let folder = mount.join(&path);
    let statistics = folder.join("memory.stat");
    let current = value(&folder.join("memory.usage_in_bytes"))?;
    let limit = stat(&statistics, b"hierarchical_memory_limit")
        .or_else(|| value(&folder.join("memory.limit_in_bytes")))
        .filter(|limit| *limit < NO_LIMIT_V1);
    Some(CgroupMemory {
        current: Some(current),
        limit,
        anonymous: stat(&statistics, b"total_rss").or_else(|| stat(&statistics, b"rss")),
        path,
    })
}

/// A file of one number; `None` for `max`.
fn value(path: &Path) -> Option<u64> {
    number(fs::read(path).ok()?.trim_ascii(), 10)
}

/// A value of a file of names and numbers.
fn stat(path: &Path, name: &[u8]) -> Option<u64> {
    let text = fs::read(path).ok()?;
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, rest) = word(line);
        (found == name).then(|| number(word(rest).0, 10)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn with(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        fn read(&self) -> Option<CgroupMemory> {
            let proc = ProcRoot::new(self.0.path().join("proc"));
            read(&proc, &CgroupRoot::new(self.0.path().join("cgroup")), 42)
        }
    }

    #[test]
    fn version_2_and_the_tightest_limit_above() {
        let fake = Fake::with(&[
            ("proc/42/cgroup", "0::/system.slice/a:b.service\n"),
            ("cgroup/system.slice/a:b.service/memory.current", "5000\n"),
            ("cgroup/system.slice/a:b.service/memory.max", "max\n"),
            (
                "cgroup/system.slice/a:b.service/memory.stat",
                "anon 4096\nanon_thp 7\nfile 100\n",
            ),
            ("cgroup/system.slice/memory.max", "70000\n"),
            ("cgroup/memory.stat", "anon 1\n"),
        ]);
        let expected = CgroupMemory {
            path: "system.slice/a:b.service".into(),
            current: Some(5000),
            limit: Some(70000),
            anonymous: Some(4096),
        };
        assert_eq!(fake.read(), Some(expected));
    }

    #[test]
    fn version_1() {
        let fake = Fake::with(&[
            (
                "proc/42/cgroup",
                "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/y\n",
            ),
            ("cgroup/memory/docker/abc/memory.usage_in_bytes", "9000"),
            (
                "cgroup/memory/docker/abc/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "cgroup/memory/docker/abc/memory.stat",
                "rss 1\nhierarchical_memory_limit 9223372036854771712\ntotal_rss 8000\n",
            ),
        ]);
        let found = fake.read().unwrap();
        assert_eq!(
            (found.current, found.limit, found.anonymous),
            (Some(9000), None, Some(8000))
        );
    }

    #[test]
    fn both_at_once_where_version_2_has_the_memory() {
        let fake = Fake::with(&[
            ("proc/42/cgroup", "1:name=systemd:/s\n0::/s\n"),
            ("cgroup/unified/s/memory.current", "12\n"),
        ]);
        assert_eq!(fake.read().unwrap().current, Some(12));
    }

    #[test]
    fn what_lies_outside_is_not_read() {
        let fake = Fake::with(&[
            ("proc/42/cgroup", "0::/../../other\n"),
            ("cgroup/memory.current", "1\n"),
            ("other/memory.current", "2\n"),
        ]);
        assert_eq!(fake.read(), None);
        assert_eq!(Fake::with(&[]).read(), None);
        assert_eq!(Fake::with(&[("proc/42/cgroup", "\n:\n::::\n0\n")]).read(), None);
    }

    #[test]
    fn numbers_that_are_none() {
        let fake = Fake::with(&[
            ("proc/42/cgroup", "0::/a\n"),
            ("cgroup/a/memory.current", "99999999999999999999999\n"),
            ("cgroup/a/memory.stat", "anon -4\n"),
        ]);
        assert_eq!(fake.read(), None);
    }
}
