//! The open descriptors of a process: how many, and which of them are sockets.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::time::Instant;

use rustix::fs::{Dir, PROC_SUPER_MAGIC, readlinkat_raw, statfs};

use super::lines::number;
use super::{ProcRoot, named};

/// The most descriptors that are listed of one process: the kernel's default for the most that one may have
/// (`fs.nr_open`). It bounds memory at some 32 MiB.
pub const DESCRIPTORS_MAX: u64 = 1 << 20;

/// How often the deadline is looked at.
const STRIDE: u64 = 256;

/// Whether the size of the folder `ROOT/PID/fd` is the number of descriptors, as it is since Linux 6.2.
#[must_use]
pub fn counted_by_kernel(root: &ProcRoot) -> bool {
    // The size of a folder elsewhere is something else; and before 6.2 it is 0, though this process has descriptors.
    statfs(root.path()).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC)
        && fs::metadata(root.path().join("self/fd")).is_ok_and(|folder| folder.len() > 0)
}

/// The number of descriptors where [`counted_by_kernel`]: one call, whatever the number. It needs no rights over the
/// process.
pub fn count(root: &ProcRoot, pid: u32) -> io::Result<u64> {
    let path = root.of(pid, "fd");
    let folder = fs::metadata(&path).map_err(|error| named(&path, &error))?;
    Ok(folder.len())
}

/// The number of descriptors, by listing them. Errors as [`sockets`] has them.
pub fn count_by_listing(root: &ProcRoot, pid: u32, deadline: Instant) -> io::Result<u64> {
    let mut count = 0;
    for_each(root, pid, deadline, |_, _| count += 1)?;
    Ok(count)
}

/// The inodes of the sockets that the process holds, each once however many descriptors it has.
///
/// Errors: `PermissionDenied` without ptrace rights, `FileTooLarge` beyond [`DESCRIPTORS_MAX`], `TimedOut` when the
/// deadline passes first.
pub fn sockets(root: &ProcRoot, pid: u32, deadline: Instant) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    let mut link = [MaybeUninit::uninit(); 64];
    for_each(root, pid, deadline, |folder, name| {
        // A descriptor may be closed meanwhile. A target longer than the buffer is a path, and so no socket.
        if let Ok((target, _)) = readlinkat_raw(folder, name, &mut link) {
            inodes.extend(socket_inode(target));
        }
    })?;
    Ok(inodes)
}

fn for_each(
    root: &ProcRoot,
    pid: u32,
    deadline: Instant,
    mut each: impl FnMut(&File, &std::ffi::CStr),
) -> io::Result<()> {
    let path = root.of(pid, "fd");
    let mut walk = || -> io::Result<()> {
        let folder = File::open(&path)?;
        let mut seen = 0_u64;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if number(name.to_bytes(), 10).is_none() {
                continue;
            }
            seen += 1;
            if seen > DESCRIPTORS_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if seen.is_multiple_of(STRIDE) && Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            each(&folder, name);
        }
        Ok(())
    };
    walk().map_err(|error| named(&path, &error))
}

/// `socket:[12345]` -> 12345.
fn socket_inode(link: &[u8]) -> Option<u64> {
    number(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?, 10)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::super::living::Child;
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn process_with(links: &[(&str, &str)]) -> (tempfile::TempDir, ProcRoot) {
        let folder = tempfile::tempdir().unwrap();
        let descriptors = folder.path().join("42/fd");
        fs::create_dir_all(&descriptors).unwrap();
        for (name, target) in links {
            symlink(target, descriptors.join(name)).unwrap();
        }
        let root = ProcRoot::new(folder.path());
        (folder, root)
    }

    #[test]
    fn sockets_are_told_by_their_links() {
        let long = format!("/{}", "x".repeat(200));
        let (_folder, root) = process_with(&[
            ("0", "/dev/null"),
            ("1", "socket:[17]"),
            ("2", "socket:[17]"),
            ("3", "pipe:[18]"),
            ("4", "socket:[18446744073709551615]"),
            ("5", "socket:[18446744073709551616]"),
            ("6", "socket:[]"),
            ("7", "/tmp/socket:[19]"),
            ("8", &long),
            ("not-a-number", "socket:[20]"),
        ]);
        assert_eq!(count_by_listing(&root, 42, soon()).unwrap(), 9);
        assert_eq!(sockets(&root, 42, soon()).unwrap(), HashSet::from([17, u64::MAX]));
        assert!(
            !counted_by_kernel(&root),
            "the size of any other folder is no count"
        );
    }

    #[test]
    fn a_deadline_ends_a_long_listing() {
        let names: Vec<String> = (0..300).map(|name| name.to_string()).collect();
        let links: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "socket:[1]")).collect();
        let (_folder, root) = process_with(&links);
        let error = sockets(&root, 42, Instant::now() - Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("42/fd"), "{error}");
    }

    #[test]
    fn the_kernel_counts_as_a_listing_does() {
        let root = ProcRoot::default();
        // What this process was started with is inherited by both.
        let bare = Child::shell("");
        let child = Child::shell("exec 7</dev/null 8</dev/null 9</dev/null");
        let listed = count_by_listing(&root, child.pid(), soon()).unwrap();
        assert_eq!(listed, 3 + count_by_listing(&root, bare.pid(), soon()).unwrap());
        if counted_by_kernel(&root) {
            assert_eq!(count(&root, child.pid()).unwrap(), listed);
        }
    }

    #[test]
    fn the_inode_is_that_of_the_socket() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let found = sockets(&ProcRoot::default(), std::process::id(), soon()).unwrap();
        assert!(found.contains(&inode));
    }
}
