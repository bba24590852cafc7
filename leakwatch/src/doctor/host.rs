//! What the host offers.

use std::fs;

use super::{Finding, tracefs};
use crate::target::privileges::{self, Lockdown, Privileges};
use crate::target::{Proc, namespace};

pub fn examine(proc: &Proc) -> Vec<Finding> {
    let own = Privileges::own();
    let mut findings = privileges(&own);
    findings.push(kernel());
    findings.push(lockdown(own.lockdown));
    findings.push(btf());
    findings.push(pid_namespace(namespace::is_initial_pid_namespace(proc)));
    findings.extend(tracefs::examine());
    findings
}

fn privileges(own: &Privileges) -> Vec<Finding> {
    const NEED: &str = "privileges";
    let missing = own.missing();
    let useful = own.missing_useful();
    let mut findings = vec![if missing.is_empty() {
        Finding::ok(NEED, privileges::list(&privileges::REQUIRED))
    } else {
        Finding::missing(
            NEED,
            format!("missing: {}", privileges::list(&missing)),
            "run as root",
        )
    }];
    if !useful.is_empty() {
        findings.push(Finding::degraded(
            NEED,
            format!("missing: {}", privileges::list(&useful)),
            "without them deleted files of the target, or tracefs, may be unreadable: run as root",
        ));
    }
    if !own.initial_user_namespace {
        findings.push(Finding::missing(
            NEED,
            "held in a user namespace, where they do not count for BPF",
            "run as the host's root",
        ));
    }
    findings
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    kernel_finding(
        &uname.release().to_string_lossy(),
        &uname.machine().to_string_lossy(),
    )
}

/// Ring buffers came with 5.8, user registers in tracepoint programs (`bpf_task_pt_regs`) with 5.15. Vendors carry
/// both back, so that an old number alone is not the last word: the self-test has that.
fn kernel_finding(release: &str, machine: &str) -> Finding {
    const NEED: &str = "kernel";
    let detail = format!("Linux {release} on {machine}");
    if !matches!(machine, "x86_64" | "aarch64") {
        return Finding::missing(NEED, detail, "leakwatch knows x86_64 and aarch64");
    }
    match version(release) {
        Some(version) if version >= (5, 15) => Finding::ok(NEED, detail),
        Some(version) if version >= (5, 8) => Finding::degraded(
            NEED,
            detail,
            "before 5.15 stacks need a vendor's backport: the self-test tells",
        ),
        Some(_) => Finding::missing(NEED, detail, "Linux 5.15 or newer is needed"),
        None => Finding::degraded(NEED, detail, "its version is not understood: the self-test tells"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn lockdown(mode: Lockdown) -> Finding {
    const NEED: &str = "lockdown";
    match mode {
        Lockdown::None => Finding::ok(NEED, "none"),
        Lockdown::Integrity => Finding::ok(NEED, "integrity, which does not touch leakwatch"),
        Lockdown::Unknown => Finding::ok(
            NEED,
            "not told (securityfs is not mounted, or the kernel has none): the self-test tells",
        ),
        Lockdown::Confidentiality => Finding::missing(
            NEED,
            "confidentiality, which forbids programs to read a process's stack",
            "boot with lockdown=integrity or none",
        ),
    }
}

fn btf() -> Finding {
    const NEED: &str = "BTF";
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    match fs::File::open(PATH) {
        Ok(_) => Finding::ok(NEED, PATH),
        Err(error) => Finding::missing(
            NEED,
            format!("{PATH}: {error}"),
            "a kernel built with CONFIG_DEBUG_INFO_BTF is needed",
        ),
    }
}

fn pid_namespace(initial: bool) -> Finding {
    const NEED: &str = "PID namespace";
    if initial {
        Finding::ok(NEED, "the host's")
    } else {
        Finding::missing(
            NEED,
            "one of its own, where PIDs are not the kernel's",
            "run it on the host itself, or in a container started with --pid=host",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn kernels() {
        for (release, machine, state) in [
            ("6.18.44-fc-v595", "x86_64", State::Ok),
            ("5.15.0-91-generic", "aarch64", State::Ok),
            ("5.14.0-362.el9", "x86_64", State::Degraded),
            ("5.7.19", "x86_64", State::Missing),
            ("4.18.0-513.el8", "x86_64", State::Missing),
            ("6.18.0", "riscv64", State::Missing),
            ("odd", "x86_64", State::Degraded),
            ("99999999999999.1", "x86_64", State::Degraded),
        ] {
            assert_eq!(kernel_finding(release, machine).state, state, "{release}");
        }
    }

    #[test]
    fn privileges_that_do_not_suffice_are_named() {
        let none = Privileges {
            effective: Some(0),
            initial_user_namespace: false,
            lockdown: Lockdown::Unknown,
        };
        let findings = privileges(&none);
        let states: Vec<State> = findings.iter().map(|one| one.state).collect();
        assert_eq!(states, [State::Missing, State::Degraded, State::Missing]);
        assert!(findings[0].detail.contains("CAP_BPF"));
        let all = Privileges {
            effective: Some(u64::MAX),
            initial_user_namespace: true,
            ..none
        };
        assert_eq!(privileges(&all).len(), 1);
        assert_eq!(privileges(&all)[0].state, State::Ok);
    }

    #[test]
    fn only_confidentiality_stands_in_the_way() {
        assert_eq!(lockdown(Lockdown::Integrity).state, State::Ok);
        assert_eq!(lockdown(Lockdown::Unknown).state, State::Ok);
        assert_eq!(lockdown(Lockdown::Confidentiality).state, State::Missing);
        assert_eq!(pid_namespace(false).state, State::Missing);
    }
}
