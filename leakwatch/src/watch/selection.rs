//! Which processes are watched, and how new ones among them are found.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

use crate::history::service::stable_cgroup;
use crate::report::escape::text_of;
use crate::sampler::ProcRoot;
use crate::sampler::processes::{self, Description};
use crate::sampler::subject::NoSample;

/// Rounds between two looks at a process that was not meant, at most. One that replaces its image (`exec`) may be meant
/// afterwards, and its number may come to belong to another.
const GAP_MAX: u64 = 16;

/// Who is meant: whoever meets one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    pub pids: Vec<u32>,
    /// The main thread's name or the file name of the executable, exactly.
    pub names: Vec<String>,
    /// A path (`/system.slice/x.service`), and everything below it; or one part of a path (`x.service`).
    pub cgroups: Vec<String>,
    /// Every process, as for tests of load.
    pub all: bool,
}

impl Selectors {
    /// Processes that come later may be meant as well.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.all || !self.names.is_empty() || !self.cgroups.is_empty()
    }

    fn meets(&self, root: &ProcRoot, process: &Description) -> bool {
        self.all
            || self.pids.contains(&process.pid)
            || self.cgroups.iter().any(|wanted| in_cgroup(process, wanted))
            || self.has_name(root, process)
    }

    fn has_name(&self, root: &ProcRoot, process: &Description) -> bool {
        if self.names.is_empty() {
            return false;
        }
        let named = |name: &[u8]| self.names.iter().any(|wanted| wanted.as_bytes() == name);
        if named(&process.comm) {
            return true;
        }
        // The kernel cuts its own name at 15 bytes; the executable's is whole. Without rights it is not to be read.
        let Ok(link) = std::fs::read_link(root.of(process.pid, "exe")) else {
            return false;
        };
        let bytes = link.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        bytes.rsplit(|&byte| byte == b'/').next().is_some_and(named)
    }
}

fn in_cgroup(process: &Description, wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    let paths = [&process.cgroup.unified, &process.cgroup.memory_v1];
    paths.into_iter().flatten().any(|path| {
        if wanted.starts_with(b"/") {
            let wanted = wanted.strip_suffix(b"/").unwrap_or(wanted);
            path.strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        } else {
            path.split(|&byte| byte == b'/').any(|part| part == wanted)
        }
    })
}

/// A process that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pid: u32,
    /// Plain text of hostile origin.
    pub name: String,
    /// As it will be after a restart.
    pub cgroup: String,
    pub start_time_ticks: u64,
}

impl Found {
    #[must_use]
    pub fn of(process: &Description) -> Self {
        let path = process.cgroup.memory().map(|(_, path)| text_of(path));
        Self {
            pid: process.pid,
            name: text_of(&process.comm),
            cgroup: stable_cgroup(&path.unwrap_or_default()),
            start_time_ticks: process.stat.start_time_ticks,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Passed {
    next: u64,
    gap: u64,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    pub found: Vec<Found>,
    /// Processes that could not be described.
    pub unreadable: u64,
}

/// Finds processes again and again; most of them were seen before, and cost nothing.
#[derive(Debug, Default)]
pub struct Discovery {
    passed: HashMap<u32, Passed>,
    round: u64,
    buffer: Vec<u8>,
}

impl Discovery {
    /// The processes that are meant and not in `known`.
    ///
    /// # Errors
    /// When the list of processes cannot be read.
    pub fn look(
        &mut self,
        root: &ProcRoot,
        selectors: &Selectors,
        known: impl Fn(u32) -> bool,
    ) -> std::io::Result<Look> {
        self.round += 1;
        let pids = if selectors.is_open() {
            processes::list(root)?
        } else {
            selectors.pids.clone()
        };
        let mut look = Look::default();
        for &pid in &pids {
            if known(pid) || pid == std::process::id() {
                continue;
            }
            if self
                .passed
                .get(&pid)
                .is_some_and(|passed| self.round < passed.next)
            {
                continue;
            }
            match processes::describe(root, pid, &mut self.buffer) {
                Ok(process) if process.stat.is_kernel_thread() || process.stat.main_thread_ended() => {
                    self.pass(pid);
                }
                Ok(process) if selectors.meets(root, &process) => {
                    self.passed.remove(&pid);
                    look.found.push(Found::of(&process));
                }
                Ok(_) => self.pass(pid),
                Err(NoSample::Exited) => {}
                Err(_) => {
                    look.unreadable += 1;
                    self.pass(pid);
                }
            }
        }
        // Numbers that are gone are forgotten.
        if self.passed.len() > pids.len() {
            let there: HashSet<u32> = pids.iter().copied().collect();
            self.passed.retain(|pid, _| there.contains(pid));
        }
        Ok(look)
    }

    fn pass(&mut self, pid: u32) {
        let round = self.round;
        let passed = self.passed.entry(pid).or_insert(Passed { next: 0, gap: 0 });
        passed.gap = (passed.gap * 2).clamp(1, GAP_MAX);
        // Not all of them in the same round.
        let spread = if passed.gap == GAP_MAX {
            u64::from(pid) % GAP_MAX
        } else {
            0
        };
        passed.next = round + passed.gap + spread;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn process(root: &Path, pid: u32, name: &str, cgroup: &str, exe: &str, start: u64) {
        let folder = root.join(pid.to_string());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let stat = format!("{pid} ({name}) S 1 2 3 4 5 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        symlink(exe, folder.join("exe")).unwrap();
    }

    fn pids(discovery: &mut Discovery, root: &ProcRoot, selectors: &Selectors) -> Vec<u32> {
        let look = discovery.look(root, selectors, |_| false).unwrap();
        look.found.iter().map(|found| found.pid).collect()
    }

    #[test]
    fn by_name_by_executable_by_cgroup_and_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        process(at, 1_000_001, "init", "/init.scope", "/sbin/init", 1);
        process(
            at,
            1_000_002,
            "server",
            "/a.slice/x.service",
            "/usr/bin/server",
            2,
        );
        process(
            at,
            1_000_003,
            "a-name-that-is-",
            "/a.slice/x.service/sub",
            "/opt/a-name-that-is-long (deleted)",
            3,
        );
        process(at, 1_000_004, "other", "/a.slice/x.service2", "/usr/bin/other", 4);
        let root = ProcRoot::new(at);
        let of = |selectors: Selectors| pids(&mut Discovery::default(), &root, &selectors);
        let names = |names: &[&str]| Selectors {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..Selectors::default()
        };
        let cgroups = |path: &str| Selectors {
            cgroups: vec![path.to_owned()],
            ..Selectors::default()
        };
        assert_eq!(of(names(&["server"])), [1_000_002]);
        assert_eq!(
            of(names(&["a-name-that-is-long", "init"])),
            [1_000_001, 1_000_003]
        );
        assert_eq!(of(names(&["serve"])), [0_u32; 0]);
        assert_eq!(of(cgroups("/a.slice/x.service")), [1_000_002, 1_000_003]);
        assert_eq!(of(cgroups("/a.slice/")), [1_000_002, 1_000_003, 1_000_004]);
        assert_eq!(of(cgroups("x.service2")), [1_000_004]);
        let pid = Selectors {
            pids: vec![1_000_004, 1_000_009],
            ..Selectors::default()
        };
        assert_eq!(of(pid), [1_000_004]);
    }

    #[test]
    fn an_image_that_is_replaced_and_a_number_that_is_given_away_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = ProcRoot::new(folder.path());
        let wanted = Selectors {
            names: vec!["server".to_owned()],
            ..Selectors::default()
        };
        let mut discovery = Discovery::default();
        process(folder.path(), 1_000_007, "sh", "/", "/bin/sh", 7);
        for _ in 0..50 {
            assert!(pids(&mut discovery, &root, &wanted).is_empty());
        }
        process(folder.path(), 1_000_007, "server", "/", "/bin/server", 7);
        let after = (0..)
            .find(|_| !pids(&mut discovery, &root, &wanted).is_empty())
            .unwrap();
        assert!(after <= 2 * GAP_MAX, "{after}");
        // Once it is known it is not looked at.
        let look = discovery.look(&root, &wanted, |_| true).unwrap();
        assert!(look.found.is_empty());
        fs::remove_dir_all(folder.path().join("1000007")).unwrap();
        assert!(pids(&mut discovery, &root, &wanted).is_empty());
        assert!(discovery.passed.is_empty());
    }

    #[test]
    fn what_cannot_be_described_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        process(folder.path(), 1_000_008, "x", "/", "/x", 7);
        fs::write(folder.path().join("1000008/stat"), "cut").unwrap();
        let all = Selectors {
            all: true,
            ..Selectors::default()
        };
        let root = ProcRoot::new(folder.path());
        let look = Discovery::default().look(&root, &all, |_| false).unwrap();
        assert_eq!((look.found.len(), look.unreadable), (0, 1));
        let nowhere = ProcRoot::new(folder.path().join("nowhere"));
        assert!(Discovery::default().look(&nowhere, &all, |_| false).is_err());
    }
}
