//! The kernel's tracing file system and the tracepoints in it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use super::Finding;
use crate::target::Proc;
use crate::target::privileges::{Capability, Privileges};

const NEED: &str = "tracefs";
/// Where it is mounted when leakwatch mounts it; the kernel makes the folder.
const PLACE: &str = "/sys/kernel/tracing";

/// A tracepoint that a recording attaches to.
#[derive(Clone, Copy, Debug)]
pub struct Tracepoint {
    pub category: &'static str,
    pub name: &'static str,
    /// What is lost without it; `None` where nothing can be recorded then.
    pub optional: Option<&'static str>,
}

const fn required(category: &'static str, name: &'static str) -> Tracepoint {
    Tracepoint {
        category,
        name,
        optional: None,
    }
}

const fn optional(category: &'static str, name: &'static str, loss: &'static str) -> Tracepoint {
    Tracepoint {
        category,
        name,
        optional: Some(loss),
    }
}

const PKEY_LOSS: &str = "memory made accessible by pkey_mprotect has no call site";

/// What is attached to.
pub const TRACEPOINTS: [Tracepoint; 17] = [
    required("syscalls", "sys_enter_mmap"),
    required("syscalls", "sys_exit_mmap"),
    required("syscalls", "sys_enter_munmap"),
    required("syscalls", "sys_exit_munmap"),
    required("syscalls", "sys_enter_mremap"),
    required("syscalls", "sys_exit_mremap"),
    required("syscalls", "sys_enter_brk"),
    required("syscalls", "sys_exit_brk"),
    required("syscalls", "sys_enter_mprotect"),
    required("syscalls", "sys_exit_mprotect"),
    required("syscalls", "sys_enter_madvise"),
    required("syscalls", "sys_exit_madvise"),
    optional("syscalls", "sys_enter_pkey_mprotect", PKEY_LOSS),
    optional("syscalls", "sys_exit_pkey_mprotect", PKEY_LOSS),
    required("sched", "sched_process_exec"),
    required("sched", "sched_process_exit"),
    required("sched", "sched_process_fork"),
];

/// Finds tracefs, mounting it where it is not and leakwatch may; then each tracepoint in it.
pub fn examine(proc: &Proc, privileges: &Privileges) -> Vec<Finding> {
    let mounts = proc
        .read_global("self/mounts", 4 * 1024 * 1024)
        .unwrap_or_default();
    let (place, detail) = match find(&mounts) {
        Some(place) => {
            let detail = format!("mounted at {}", place.display());
            (place, detail)
        }
        None if !privileges.has(Capability::SysAdmin) => {
            return vec![Finding::missing(
                NEED,
                "not mounted, and CAP_SYS_ADMIN to mount it is missing",
                "as root: mount -t tracefs tracefs /sys/kernel/tracing",
            )];
        }
        None => match mount_at(Path::new(PLACE)) {
            Ok(()) => (
                PathBuf::from(PLACE),
                format!("was not mounted: mounted now at {PLACE}"),
            ),
            Err(error) => {
                return vec![Finding::missing(
                    NEED,
                    format!("not mounted, and mounting it at {PLACE} failed: {error}"),
                    "a kernel built with CONFIG_FTRACE and CONFIG_FTRACE_SYSCALLS is needed; in a container, its host's",
                )];
            }
        },
    };
    if let Err(error) = fs::metadata(place.join("events")) {
        return vec![Finding::missing(
            NEED,
            format!("{detail}, but not readable: {error}"),
            "run as root, or with CAP_DAC_READ_SEARCH",
        )];
    }
    let mut findings = vec![Finding::ok(NEED, detail)];
    findings.extend(tracepoints(&place));
    findings
}

/// The place of the first tracefs in the text of `/proc/self/mounts`; the one inside debugfs serves as well.
fn find(mounts: &[u8]) -> Option<PathBuf> {
    mounts.split(|&byte| byte == b'\n').find_map(|line| {
        let mut words = line.split(|&byte| byte == b' ');
        let place = words.nth(1)?;
        (words.next()? == b"tracefs").then(|| PathBuf::from(unescaped(place)))
    })
}

/// Blanks in paths stand as octal escapes there.
fn unescaped(path: &[u8]) -> std::ffi::OsString {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() {
            rest.get(4..).unwrap_or_default()
        } else {
            tail
        };
    }
    std::ffi::OsString::from_vec(out)
}

fn mount_at(place: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("tracefs", place, "tracefs", flags, None)?)
}

/// One line when all are there, else one for each that is not.
fn tracepoints(tracefs: &Path) -> Vec<Finding> {
    const NEED: &str = "tracepoints";
    let absent: Vec<(Tracepoint, io::Error)> = TRACEPOINTS
        .into_iter()
        .filter_map(|point| {
            let folder = tracefs.join("events").join(point.category).join(point.name);
            fs::read(folder.join("format"))
                .and_then(|_| fs::read(folder.join("id")))
                .err()
                .map(|error| (point, error))
        })
        .collect();
    if absent.is_empty() {
        let detail = format!("all {}, their formats readable", TRACEPOINTS.len());
        return vec![Finding::ok(NEED, detail)];
    }
    absent
        .into_iter()
        .map(|(point, error)| {
            let what = format!("{}:{}: {error}", point.category, point.name);
            match (point.optional, error.kind()) {
                (Some(loss), _) => Finding::degraded(NEED, what, loss),
                (None, io::ErrorKind::PermissionDenied) => {
                    Finding::missing(NEED, what, "run as root, or with CAP_DAC_READ_SEARCH")
                }
                (None, _) => Finding::missing(
                    NEED,
                    what,
                    "a kernel built with CONFIG_FTRACE_SYSCALLS is needed",
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_first_tracefs_among_the_mounts() {
        let mounts = b"proc /proc proc rw 0 0\n\
            tracefs /sys/my\\040tracing tracefs rw 0 0\n\
            tracefs /sys/kernel/debug/tracing tracefs rw 0 0\n";
        assert_eq!(find(mounts), Some(PathBuf::from("/sys/my tracing")));
        assert_eq!(find(b"tracefs /tracefs proc rw 0 0\nx\n\n"), None);
    }

    #[test]
    fn absent_tracepoints_are_told_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |point: &Tracepoint| {
            folder
                .path()
                .join("events")
                .join(point.category)
                .join(point.name)
        };
        for point in &TRACEPOINTS {
            fs::create_dir_all(at(point)).unwrap();
            fs::write(at(point).join("format"), "name: x\n").unwrap();
            fs::write(at(point).join("id"), "1\n").unwrap();
        }
        let all = tracepoints(folder.path());
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].state, State::Ok);

        for name in ["sys_enter_brk", "sys_exit_pkey_mprotect"] {
            fs::remove_dir_all(folder.path().join("events/syscalls").join(name)).unwrap();
        }
        let states: Vec<State> = tracepoints(folder.path())
            .iter()
            .map(|finding| finding.state)
            .collect();
        assert_eq!(states, [State::Missing, State::Degraded]);
    }
}
