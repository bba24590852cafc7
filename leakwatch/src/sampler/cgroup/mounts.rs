//! Where cgroup file systems are mounted, from `/proc/PID/mountinfo`.

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Place, Version};
use crate::sampler::ProcRoot;
use crate::sampler::lines::for_each_line;

/// More than any host has; there to bound memory.
const MOUNTS_MAX: usize = 64;

/// A mount of version 2, or of the hierarchy of version 1 that has the memory controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub version: Version,
    /// Which cgroup is mounted: as `/proc/PID/cgroup` writes paths.
    root: Vec<u8>,
    /// Where it can be reached.
    point: PathBuf,
}

/// The mounts that a process (`self`, or a PID) sees, those that show the most ancestors first. `reached_by` is put before
/// each mount point: the way into that process's file systems.
pub(super) fn read(root: &ProcRoot, process: &str, reached_by: &Path) -> Vec<Mount> {
    let mut mounts = Vec::new();
    if let Ok(file) = File::open(root.path().join(process).join("mountinfo")) {
        // A reading that fails halfway leaves those before.
        let _ = for_each_line(BufReader::new(file), |line| {
            mounts.extend(parse_line(line).map(|mount| mount.below(reached_by)));
            mounts.len() < MOUNTS_MAX
        });
    }
    mounts.sort_by_key(|mount| components(&mount.root).count());
    mounts
}

/// `30 24 0:26 /ROOT /MOUNT/POINT rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ');
    let root = words.nth(3)?;
    let point = words.next()?;
    // Any number of optional fields ends with a dash.
    words.find(|&field| field == b"-")?;
    let version = match words.next()? {
        b"cgroup2" => Version::V2,
        b"cgroup" => {
            let options = words.nth(1)?;
            options
                .split(|&byte| byte == b',')
                .find(|&option| option == b"memory")?;
            Version::V1
        }
        _ => return None,
    };
    Some(Mount {
        version,
        root: unescape(root),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
    })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits: `\040`.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        let escaped = rest
            .split_at_checked(3)
            .filter(|_| byte == b'\\')
            .and_then(|(digits, after)| {
                let value = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
                Some((value, after))
            });
        match escaped {
            Some((value, after)) => {
                plain.push(value);
                text = after;
            }
            None => plain.push(byte),
        }
    }
    plain
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

impl Mount {
    fn below(mut self, way: &Path) -> Self {
        if way != Path::new("") {
            let point = self.point.strip_prefix("/").unwrap_or(&self.point);
            self.point = way.join(point);
        }
        self
    }

    /// The folder of the cgroup with this path; `None` where it lies outside of the mount, or nobody can tell: of what lies
    /// between two cgroups outside of the own namespace the kernel writes no names, only `..`.
    pub fn place(&self, path: &[u8]) -> Option<Place> {
        let mut path = components(path);
        for part in components(&self.root) {
            if path.next() != Some(part) {
                return None;
            }
        }
        let mut place = Place {
            folder: self.point.clone(),
            ancestors: 0,
        };
        for part in path {
            if part == b".." {
                return None;
            }
            place.folder.push(std::ffi::OsStr::from_bytes(part));
            place.ancestors += 1;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, point: &str) -> Mount {
        parse_line(format!("30 24 0:26 {root} {point} rw shared:9 master:1 - cgroup2 cgroup2 rw").as_bytes())
            .unwrap()
    }

    #[test]
    fn the_mounts_that_account_for_memory() {
        let v1 =
            |options: &str| parse_line(format!("35 31 0:32 / /m rw - cgroup cgroup {options}").as_bytes());
        assert_eq!(v1("rw,hugetlb,memory").unwrap().version, Version::V1);
        assert_eq!(v1("rw,name=memory"), None);
        assert_eq!(mount("/", "/sys/fs/cgroup").version, Version::V2);
        for line in [
            "",
            "1 2 3",
            "30 24 0:26 / /m rw - ext4 x rw",
            "30 24 0:26 / /m rw cgroup2 cgroup2 rw",
        ] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn names_are_unescaped() {
        let mount = mount("/a\\040b", "/mnt/\\134x\\011\\9");
        assert_eq!(mount.root, b"/a b");
        assert_eq!(mount.point, Path::new("/mnt/\\x\t\\9"));
        assert_eq!(unescape(b"\\777\\1"), b"\\777\\1");
    }

    #[test]
    fn a_cgroup_below_a_mount() {
        let of = |root: &str, path: &str| {
            let place = mount(root, "/c").place(path.as_bytes())?;
            Some((place.folder.to_str()?.to_owned(), place.ancestors))
        };
        let at = |folder: &str, ancestors| Some((folder.to_owned(), ancestors));
        assert_eq!(of("/", "/a/b"), at("/c/a/b", 2));
        assert_eq!(of("/", "/"), at("/c", 0));
        assert_eq!(of("/a", "/a/b"), at("/c/b", 1));
        assert_eq!(of("/a", "/ab"), None);
        // Outside of the own namespace, seen by a mount of the host's root, by its own, and by none that tells.
        assert_eq!(of("/../..", "/../../x"), at("/c/x", 1));
        assert_eq!(of("/", "/../x"), None);
        assert_eq!(of("/../..", "/../x"), None);
        assert_eq!(of("/../..", "/x"), None);
    }
}
