//! `/proc/PID/cgroup`: which cgroups a process is in.

use std::io;

use super::Version;
use crate::sampler::{ProcRoot, SMALL_FILE};

/// The paths of a process's cgroups, as seen from this process's cgroup namespace: `/` is that namespace's root, and what
/// lies outside begins with `/..`. Untrusted bytes without a newline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// In version 2.
    pub unified: Option<Vec<u8>>,
    /// In the hierarchy of version 1 that has the memory controller; `None` where version 2 has it.
    pub memory_v1: Option<Vec<u8>>,
}

impl Membership {
    /// Reads `ROOT/PID/cgroup`, by way of a buffer that many reads can share.
    pub fn read(root: &ProcRoot, pid: u32, buffer: &mut Vec<u8>) -> io::Result<Self> {
        root.read_into(pid, "cgroup", SMALL_FILE, buffer)?;
        Ok(Self::parse(buffer))
    }

    /// Parses lines such as `0::/system.slice/x.service` and `4:memory:/docker/ID`. Any other line is passed over, and so
    /// is one that the end of the text cuts.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut member = Self::default();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            // A path may hold colons.
            let mut parts = line.splitn(3, |&byte| byte == b':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if hierarchy == b"0" && controllers.is_empty() {
                member.unified = Some(path.to_vec());
            } else if controllers
                .split(|&byte| byte == b',')
                .any(|name| name == b"memory")
            {
                member.memory_v1 = Some(path.to_vec());
            }
        }
        member
    }

    /// Which hierarchy accounts for memory, and the path in it. A hybrid host has both, and the controller in one.
    #[must_use]
    pub fn memory(&self) -> Option<(Version, &[u8])> {
        let v1 = self.memory_v1.as_deref().map(|path| (Version::V1, path));
        v1.or_else(|| self.unified.as_deref().map(|path| (Version::V2, path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_of_a_host() {
        let of = |text: &str| {
            let member = Membership::parse(text.as_bytes());
            member
                .memory()
                .map(|(version, path)| (version, String::from_utf8(path.to_vec()).unwrap()))
        };
        let known = |version, path: &str| Some((version, path.to_owned()));
        // One hierarchy; only version 1; hybrid, as systemd made it.
        assert_eq!(of("0::/a.slice/b:c d\n"), known(Version::V2, "/a.slice/b:c d"));
        assert_eq!(
            of("9:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/1\n1:name=systemd:/y\n"),
            known(Version::V1, "/docker/1")
        );
        assert_eq!(
            of("4:memory:/m\n1:name=systemd:/y\n0::/u\n"),
            known(Version::V1, "/m")
        );
        assert_eq!(of("1:name=memory:/y\nrubbish\n"), None);
        assert_eq!(of("0::/cut short"), None);
        let hybrid = Membership::parse(b"4:memory:/m\n0::/u\n");
        assert_eq!(hybrid.unified.as_deref(), Some(&b"/u"[..]));
    }
}
