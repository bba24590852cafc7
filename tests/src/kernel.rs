//! What live tests need of the machine, and what leakwatch leaves in the kernel.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

/// May this live test run? Where root or BPF is missing it fails and says so, unless `LEAKWATCH_NO_KERNEL=1`
/// (`cargo xtask test --no-kernel`): then it is skipped, visibly. Each answer is noted in the file that
/// `LEAKWATCH_LIVE_LOG` names, so that a run in which everything was skipped cannot pass for one that tested.
#[must_use]
pub fn required() -> bool {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    match obstacle() {
        None => {
            note(&format!("ran {name}"));
            true
        }
        Some(why) if std::env::var_os("LEAKWATCH_NO_KERNEL").is_some_and(|value| value == "1") => {
            eprintln!("SKIPPED {name}: {why}");
            note(&format!("skipped {name}: {why}"));
            false
        }
        Some(why) => {
            panic!("{name} needs root and BPF: {why} (`cargo xtask test --no-kernel` leaves such tests out)")
        }
    }
}

fn note(line: &str) {
    let Some(path) = std::env::var_os("LEAKWATCH_LIVE_LOG") else {
        return;
    };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    // One write, so that tests that note at once do not mix.
    let noted = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    noted.unwrap_or_else(|error| panic!("cannot note the test in {}: {error}", path.display()));
}

/// Why no BPF program could be loaded here; `None` where it can.
fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("the kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    // Any identifier will do: what matters is that the kernel looks for it rather than refuses.
    match open_by_id(BPF_PROG_GET_FD_BY_ID, u32::MAX) {
        Err(libc::ENOENT) | Ok(()) => None,
        Err(number) => Some(format!(
            "bpf(2) fails: {}",
            std::io::Error::from_raw_os_error(number)
        )),
    }
}

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;

/// The head of `union bpf_attr` for the `*_GET_FD_BY_ID` commands.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
    token_fd: u32,
}

/// Opens and closes a program or map by its identifier.
fn open_by_id(command: libc::c_long, id: u32) -> Result<(), i32> {
    let attributes = ById {
        id,
        next_id: 0,
        open_flags: 0,
        token_fd: 0,
    };
    // SAFETY: the kernel reads `size` bytes of the structure and keeps no pointer to it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<ById>()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    if let Ok(fd) = i32::try_from(fd) {
        // SAFETY: the descriptor was just handed out, and nobody else knows it.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// The BPF programs and maps that a process has open, by the kernel's identifiers. The kernel never gives one twice,
/// so they tell what one leakwatch left behind even while another runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BpfObjects {
    pub programs: BTreeSet<u32>,
    pub maps: BTreeSet<u32>,
}

impl BpfObjects {
    /// Those that this process has open now.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut objects = Self::default();
        let folder = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
        for entry in folder.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            for line in text.lines() {
                if let Some(id) = number_after(line, "prog_id:") {
                    objects.programs.insert(id);
                }
                if let Some(id) = number_after(line, "map_id:") {
                    objects.maps.insert(id);
                }
            }
        }
        objects
    }

    /// Those of them that the kernel still has.
    #[must_use]
    pub fn left(&self) -> Self {
        let still = |command, ids: &BTreeSet<u32>| {
            ids.iter()
                .copied()
                .filter(|id| open_by_id(command, *id) != Err(libc::ENOENT))
                .collect()
        };
        Self {
            programs: still(BPF_PROG_GET_FD_BY_ID, &self.programs),
            maps: still(BPF_MAP_GET_FD_BY_ID, &self.maps),
        }
    }

    /// Waits until the kernel has let go of all. It frees them some time after their last user is gone.
    pub fn wait_gone(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let left = self.left();
            if left == Self::default() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "leakwatch is gone, but these BPF objects are not: {left:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn number_after(line: &str, key: &str) -> Option<u32> {
    line.strip_prefix(key)?.trim().parse().ok()
}

/// PIDs of the processes that inherited this environment variable, as `NAME=value`.
#[must_use]
pub fn processes_with(variable: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == variable.as_bytes())
        })
        .collect()
}

/// PIDs of the children of a process, whichever of its threads started them.
#[must_use]
pub fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
