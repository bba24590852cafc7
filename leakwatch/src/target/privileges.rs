//! What leakwatch may do on this host: capabilities, user namespace, lockdown.

use std::fmt;
use std::fs;
use std::path::Path;

use super::namespace;
use super::proc::Proc;

/// A capability that leakwatch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Loading programs and maps (Linux 5.8; before that part of `CAP_SYS_ADMIN`).
    Bpf,
    /// Attaching to tracepoints and perf events (Linux 5.8; before that part of `CAP_SYS_ADMIN`).
    Perfmon,
    /// Another user's `/proc/PID/maps`, `smaps`, `exe`, and its memory.
    SysPtrace,
    /// `/proc/PID/map_files`, by which deleted and replaced files are read (Linux 5.9; else `CAP_SYS_ADMIN`).
    CheckpointRestore,
    /// Mounting tracefs.
    SysAdmin,
    /// tracefs belongs to root alone.
    DacReadSearch,
}

impl Capability {
    /// Its number in `include/uapi/linux/capability.h`.
    const fn bit(self) -> u32 {
        match self {
            Self::DacReadSearch => 2,
            Self::SysPtrace => 19,
            Self::SysAdmin => 21,
            Self::Perfmon => 38,
            Self::Bpf => 39,
            Self::CheckpointRestore => 40,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bpf => "CAP_BPF",
            Self::Perfmon => "CAP_PERFMON",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
        })
    }
}

/// Without these there is no recording.
pub const REQUIRED: [Capability; 3] = [Capability::Bpf, Capability::Perfmon, Capability::SysPtrace];
/// Without these something is missing from it.
pub const USEFUL: [Capability; 2] = [Capability::CheckpointRestore, Capability::DacReadSearch];

/// The kernel's lockdown mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    None,
    /// Does not touch leakwatch.
    Integrity,
    /// Forbids programs to read the memory of processes.
    Confidentiality,
    /// securityfs is not mounted, or the kernel has no lockdown.
    Unknown,
}

impl Lockdown {
    /// From `/sys/kernel/security/lockdown`, where the mode in force stands in brackets.
    #[must_use]
    pub fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        match mode.map(|(mode, _)| mode) {
            Some("none") => Self::None,
            Some("integrity") => Self::Integrity,
            Some("confidentiality") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }
}

/// What this process may do.
#[derive(Clone, Copy, Debug)]
pub struct Privileges {
    /// Bits of the effective capabilities; `None` where `/proc/self/status` does not tell.
    pub effective: Option<u64>,
    pub initial_user_namespace: bool,
    pub lockdown: Lockdown,
}

impl Privileges {
    /// This process's own.
    #[must_use]
    pub fn own() -> Self {
        Self::read(&Proc::host(), Path::new("/sys/kernel/security/lockdown"))
    }

    #[must_use]
    pub fn read(proc: &Proc, lockdown: &Path) -> Self {
        Self {
            effective: proc
                .own_status()
                .ok()
                .and_then(|status| status.effective_capabilities),
            initial_user_namespace: namespace::is_initial_user_namespace(proc),
            lockdown: Lockdown::read(lockdown),
        }
    }

    /// Whether `capability` is held, by itself or through `CAP_SYS_ADMIN`, of which the newer ones were split off.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        let held = |one: Capability| self.effective.is_some_and(|bits| bits >> one.bit() & 1 == 1);
        held(capability)
            || (matches!(
                capability,
                Capability::Bpf | Capability::Perfmon | Capability::CheckpointRestore
            ) && held(Capability::SysAdmin))
    }

    /// Those of [`REQUIRED`] that are not held.
    #[must_use]
    pub fn missing(&self) -> Vec<Capability> {
        REQUIRED.into_iter().filter(|&one| !self.has(one)).collect()
    }

    /// Those of [`USEFUL`] that are not held.
    #[must_use]
    pub fn missing_useful(&self) -> Vec<Capability> {
        USEFUL.into_iter().filter(|&one| !self.has(one)).collect()
    }

    /// One line on why nothing can be recorded with these privileges; `None` where it can.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        if self.lockdown == Lockdown::Confidentiality {
            return Some(
                "the kernel is locked down to confidentiality, which forbids reading a process's stack: boot with \
                 lockdown=integrity or none"
                    .to_owned(),
            );
        }
        let missing = self.missing();
        if !missing.is_empty() {
            return Some(format!(
                "not enough privileges ({} missing): run as root",
                list(&missing)
            ));
        }
        if !self.initial_user_namespace {
            return Some(
                "leakwatch runs in a user namespace of its own, where root's capabilities do not count for BPF: run it as \
                 the host's root"
                    .to_owned(),
            );
        }
        None
    }
}

/// `CAP_A, CAP_B`.
#[must_use]
pub fn list(capabilities: &[Capability]) -> String {
    capabilities
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(bits: &[u32]) -> Privileges {
        Privileges {
            effective: Some(bits.iter().fold(0, |all, bit| all | 1 << bit)),
            initial_user_namespace: true,
            lockdown: Lockdown::None,
        }
    }

    #[test]
    fn sys_admin_stands_for_what_was_split_off_it_but_not_for_ptrace() {
        assert!(privileges(&[39, 38, 19]).obstacle().is_none());
        assert!(privileges(&[21, 19]).obstacle().is_none());
        assert_eq!(privileges(&[21]).missing(), [Capability::SysPtrace]);
        let line = privileges(&[39]).obstacle().unwrap();
        assert!(line.contains("CAP_PERFMON, CAP_SYS_PTRACE missing"), "{line}");
        assert_eq!(privileges(&[39, 38, 19]).missing_useful(), USEFUL);
    }

    #[test]
    fn capabilities_in_a_user_namespace_or_under_lockdown_do_not_suffice() {
        let mut all = privileges(&[21, 19]);
        all.initial_user_namespace = false;
        assert!(all.obstacle().unwrap().contains("user namespace"));
        all.initial_user_namespace = true;
        all.lockdown = Lockdown::Confidentiality;
        assert!(all.obstacle().unwrap().contains("confidentiality"));
        all.lockdown = Lockdown::Integrity;
        assert!(all.obstacle().is_none());
        all.effective = None;
        assert_eq!(all.missing(), REQUIRED);
    }

    #[test]
    fn the_mode_in_brackets_is_the_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lockdown");
        assert_eq!(Lockdown::read(&file), Lockdown::Unknown);
        for (text, mode) in [
            ("[none] integrity confidentiality\n", Lockdown::None),
            ("none [integrity] confidentiality\n", Lockdown::Integrity),
            ("none integrity [confidentiality]\n", Lockdown::Confidentiality),
            ("something else", Lockdown::Unknown),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(Lockdown::read(&file), mode);
        }
    }
}
