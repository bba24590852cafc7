//! The peers: tools that do a comparable job, each as an engineer would start it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

/// A tool, at one job: the first two watch who touches pages, as leakwatch does; the others who allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Bpftrace,
    Perf,
    /// bpftrace with probes on malloc and free.
    Uprobes,
    Heaptrack,
    /// memleak of the BPF compiler collection.
    Memleak,
}

/// How many blocks the uprobes of bpftrace remember. Its default of 4,096 would soon be full, and the figure too kind.
const LIVE_BLOCKS: &str = "262144";

impl Peer {
    /// Those that watch pages.
    pub const OF_PAGES: [Self; 2] = [Self::Bpftrace, Self::Perf];
    /// Those that watch births and deaths of blocks, all of them, all the time.
    pub const OF_BIRTHS: [Self; 3] = [Self::Heaptrack, Self::Uprobes, Self::Memleak];

    /// The head of its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Perf => "perf record",
            Self::Uprobes => "bpftrace uprobes",
            Self::Heaptrack => "heaptrack",
            Self::Memleak => "bcc memleak",
        }
    }

    pub fn program(self) -> &'static str {
        match self {
            Self::Bpftrace | Self::Uprobes => "bpftrace",
            Self::Perf => "perf",
            Self::Heaptrack => "heaptrack",
            Self::Memleak => "memleak-bpfcc",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Bpftrace | Self::Uprobes => "bpftrace",
            Self::Perf => "linux-perf",
            Self::Heaptrack => "heaptrack gdb",
            Self::Memleak => "bpfcc-tools",
        }
    }

    /// The line that its own version option prints; of memleak, which has none, its name.
    pub fn version(self) -> Option<String> {
        let option = match self {
            Self::Memleak => "--help",
            _ => "--version",
        };
        let output = Command::new(self.program()).arg(option).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().next().filter(|_| output.status.success())?;
        Some(match self {
            Self::Memleak => self.name().to_owned(),
            _ => line.trim().to_owned(),
        })
    }

    /// What to say and do where it is not installed.
    pub fn missing(self) -> Option<String> {
        self.version().is_none().then(|| {
            format!(
                "{} is not installed and left out; to have it (Debian): sudo apt-get install {}",
                self.program(),
                self.package()
            )
        })
    }

    /// The command that traces this process; its files go to `folder`.
    ///
    /// # Errors
    /// When a file cannot be written there, or the process has no C library to put probes in.
    pub fn command(self, pid: u32, folder: &Path) -> Result<Command> {
        match self {
            Self::Bpftrace => bpftrace_of_pages(pid, folder),
            Self::Perf => Ok(perf(pid, folder)),
            Self::Uprobes => bpftrace_of_births(pid, folder),
            Self::Heaptrack => Ok(heaptrack(pid, folder)),
            Self::Memleak => {
                let mut command = Command::new("memleak-bpfcc");
                // Each second what is outstanding, a minute long at most should the bench be killed.
                command.args(["-p", &pid.to_string(), "1", "60"]);
                command.env("PYTHONUNBUFFERED", "1");
                Ok(command)
            }
        }
    }

    /// The word by which it says that it is attached.
    pub fn attached_word(self) -> &'static str {
        match self {
            Self::Bpftrace | Self::Uprobes => "attached",
            // The answer to what it is told through its pipe.
            Self::Perf => "ack",
            Self::Heaptrack => "injection finished",
            Self::Memleak => "Top ",
        }
    }

    /// Whether it is a shell script that works through children, some of which may outlive it.
    pub fn has_children(self) -> bool {
        self == Self::Heaptrack
    }

    /// What ends it in an orderly way.
    pub fn ending(self) -> Signal {
        match self {
            // To the script alone, which takes the library out then: its children have to live until that is done.
            Self::Heaptrack => Signal::TERM,
            _ => Signal::INT,
        }
    }

    /// Whether it watches page faults, of which some workloads have none.
    pub fn watches_pages(self) -> bool {
        Self::OF_PAGES.contains(&self)
    }

    /// Whether it is at work in this process, where its word that it is attached does not say so.
    pub fn is_within(self, pid: u32) -> bool {
        self != Self::Heaptrack
            || fs::read_to_string(format!("/proc/{pid}/maps"))
                .is_ok_and(|maps| maps.contains("libheaptrack_inject"))
    }

    /// Whether it has seen anything of what it watches, by what it has said to the pipe and to the other file.
    pub fn has_seen(self, said: &str, other: &str) -> bool {
        match self {
            Self::Bpftrace => said.contains("@pages["),
            // It says how many samples it has taken, where it has any.
            Self::Perf => other.contains(" samples)"),
            Self::Uprobes => said.contains("@born: ") && !said.contains("@born: 0"),
            // What the one has seen is in its file, and the other tells of blocks alone that live for half a second.
            Self::Heaptrack | Self::Memleak => true,
        }
    }
}

/// Stacks by frame pointers of page faults and of the calls that gain memory, counted in the kernel; of the calls that
/// give it up the number.
fn bpftrace_of_pages(pid: u32, folder: &Path) -> Result<Command> {
    let mut script = format!("software:page-faults:1 /pid == {pid}/ {{ @pages[ustack] = count(); }}\n");
    for call in ["mmap", "mremap", "brk", "mprotect"] {
        script.push_str(&format!(
            "tracepoint:syscalls:sys_exit_{call} /pid == {pid}/ {{ @{call}[ustack] = count(); }}\n"
        ));
    }
    for call in ["munmap", "madvise"] {
        script.push_str(&format!(
            "tracepoint:syscalls:sys_enter_{call} /pid == {pid}/ {{ @{call} = count(); }}\n"
        ));
    }
    bpftrace(&script, folder)
}

/// Of each live block the size and the stack of its birth.
fn bpftrace_of_births(pid: u32, folder: &Path) -> Result<Command> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let library = c_library(&maps).with_context(|| format!("no C library in {path}"))?;
    let script = format!(
        "uprobe:{library}:malloc /pid == {pid}/ {{ @size[tid] = arg0; }}
uretprobe:{library}:malloc /pid == {pid} && @size[tid]/ {{
    @born = count();
    @bytes[retval] = @size[tid];
    @stack[retval] = ustack;
    delete(@size[tid]);
}}
uprobe:{library}:free /pid == {pid} && @bytes[arg0]/ {{ delete(@bytes[arg0]); delete(@stack[arg0]); }}
END {{ clear(@size); clear(@bytes); clear(@stack); }}
"
    );
    let mut command = bpftrace(&script, folder)?;
    command.args(["-p", &pid.to_string()]);
    command.env("BPFTRACE_MAP_KEYS_MAX", LIVE_BLOCKS);
    Ok(command)
}

/// The path of the C library among the mappings of a process.
fn c_library(maps: &str) -> Option<&str> {
    let paths = maps.lines().filter_map(|line| {
        let (_, path) = line.split_once('/')?;
        line.get(line.len() - path.len() - 1..)
    });
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut found = paths.filter(|path| {
        let name = name(path);
        name.starts_with("libc.so") || name.starts_with("libc-2")
    });
    found.next()
}

fn bpftrace(script: &str, folder: &Path) -> Result<Command> {
    let path = folder.join("peer.bt");
    // BEGIN comes before the other probes are attached. By this time they are, too.
    let script = format!("{script}interval:ms:700 /!@ready/ {{ @ready = 1; printf(\"attached\\n\"); }}\n");
    fs::write(&path, script).context("cannot write the script of bpftrace")?;

    let mounted = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];
    let mut command = if mounted.iter().any(|folder| Path::new(folder).is_dir()) {
        Command::new("bpftrace")
    } else {
        // bpftrace does not find tracepoints without it. Mounted for bpftrace alone: the host stays as it is.
        let mut command = Command::new("unshare");
        let script = "mount -t tracefs tracefs /sys/kernel/tracing && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", "bpftrace"]);
        command
    };
    command.args(["-B", "line"]).arg(path);
    Ok(command)
}

/// A shell script that injects its library with gdb, and takes it out again when it is ended: by bash. dash leaves the
/// target injected then, with nobody to read what it writes.
fn heaptrack(pid: u32, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec bash \"$(command -v heaptrack)\" \"$@\"", "sh", "-o"])
        .arg(folder.join("heaptrack"))
        .args(["-p", &pid.to_string()]);
    command
}

/// Started with its event off, and told to turn it on once it listens: then it says when that is done.
fn perf(pid: u32, folder: &Path) -> Command {
    let mut command = Command::new("perf");
    command
        .args([
            "record",
            "--call-graph",
            "dwarf",
            "-e",
            "page-faults",
            "-p",
            &pid.to_string(),
        ])
        .args(["--delay", "-1", "--control", "fd:0,1", "-o"])
        .arg(folder.join("perf.data"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_found_among_others() {
        let maps = "\
55d0c0a00000-55d0c0a01000 r-xp 00000000 fe:00 12 /opt/libc.so.d/server
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
7f12a0000000-7f12a0020000 r--p 00000000 fe:00 13 /lib/x86_64-linux-gnu/libcrypto.so.3
7f12a4000000-7f12a4020000 r--p 00000000 fe:00 14 /lib/x86_64-linux-gnu/libc.so.6
";
        assert_eq!(c_library(maps), Some("/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(
            c_library("7f0000000000-7f0000100000 rw-p 00000000 00:00 0 [heap]\n"),
            None
        );
    }

    #[test]
    fn a_peer_that_counted_nothing_has_seen_nothing() {
        assert!(Peer::Uprobes.has_seen("attached\n\n@born: 12\n", ""));
        assert!(!Peer::Uprobes.has_seen("attached\n\n@born: 0\n", ""));
        assert!(!Peer::Uprobes.has_seen("attached\n", ""));
    }
}
