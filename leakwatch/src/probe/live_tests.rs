//! Both sources of page faults, on a child with known pages, and what a probe leaves to forks. They need root and BPF.

use std::io::{PipeWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{Counter, Kind};

use super::*;
use crate::sampler::{ProcRoot, maps};
use crate::unwind::{Ending, Snapshot, Unwinder};

const PAGE: usize = 4096;
const PAGES: usize = 16;
/// The child writes to this page itself, and lets the kernel write to that one.
const WRITTEN: usize = 5;
const READ_INTO: usize = 11;

const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Beyond the largest number that the kernel gives.
const GONE: u32 = 4_194_305;

/// Says why where this test cannot run.
fn skipped() -> bool {
    let why = if std::env::var_os("LEAKWATCH_NO_KERNEL").is_some_and(|value| value == "1") {
        "LEAKWATCH_NO_KERNEL=1"
    } else if !rustix::process::geteuid().is_root() {
        "not root"
    } else {
        return false;
    };
    eprintln!("SKIPPED: {why}");
    true
}

/// A fork of this process that waits for two bytes, takes one fault itself and one in the kernel, calls `pkey_mprotect`,
/// and sleeps.
struct Child {
    pid: u32,
    memory: *mut u8,
    start: PipeWriter,
}

#[inline(never)]
fn touch(at: *mut u8) {
    // SAFETY: inside the mapping that the caller made and alone uses.
    unsafe { at.write_volatile(1) };
}

impl Child {
    fn fork() -> Self {
        // SAFETY: a fresh mapping, wherever the kernel likes.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGES * PAGE,
                PROTECTION,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED);
        // SAFETY: the mapping just made.
        unsafe { libc::madvise(memory, PAGES * PAGE, libc::MADV_NOHUGEPAGE) };
        let memory: *mut u8 = memory.cast();
        let (wait, start) = std::io::pipe().unwrap();
        let (wait_fd, start_fd) = (wait.as_raw_fd(), start.as_raw_fd());
        // SAFETY: the child calls nothing but async-signal-safe functions, whatever threads this process has.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: as above; the pages are inside the mapping, which is the child's own now.
            unsafe {
                libc::close(start_fd);
                let mut byte = 0u8;
                if libc::read(wait_fd, (&raw mut byte).cast(), 1) == 1 {
                    touch(memory.add(WRITTEN * PAGE));
                    libc::read(wait_fd, memory.add(READ_INTO * PAGE).cast(), 1);
                    // Without a key, as `mprotect`: not every processor has keys.
                    libc::syscall(libc::SYS_pkey_mprotect, memory, PAGES * PAGE, PROTECTION, -1);
                    libc::sleep(60);
                }
                libc::_exit(0);
            }
        }
        Self {
            pid: pid.cast_unsigned(),
            memory,
            start,
        }
    }

    fn go(&self) {
        (&self.start).write_all(b"go").unwrap();
    }

    fn address(&self, page: usize) -> u64 {
        (self.memory.expose_provenance() + page * PAGE) as u64
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet reaped; the mapping is this test's own.
        unsafe {
            libc::kill(self.pid.cast_signed(), libc::SIGKILL);
            libc::waitpid(self.pid.cast_signed(), std::ptr::null_mut(), 0);
            libc::munmap(self.memory.cast(), PAGES * PAGE);
        }
    }
}

fn probe() -> Probe {
    let options = ProbeOptions {
        stack_bytes: 32 * 1024,
        ring_bytes: 1024 * 1024,
    };
    Probe::attach(&options).unwrap()
}

struct Seen {
    page: usize,
    registers: Vec<u8>,
    stack_pointer: u64,
    stack: Vec<u8>,
    flags: u16,
}

/// The faults of the child inside its mapping, until `enough` of them came or a while after none does.
fn faults(probe: &mut Probe, child: &Child, enough: usize) -> Vec<Seen> {
    let patience = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    while seen.len() < enough && Instant::now() < patience {
        probe.drain(usize::MAX, |event| {
            let offset = event.header.address.wrapping_sub(child.address(0));
            if event.kind == Kind::Fault && event.header.tgid == child.pid && offset < (PAGES * PAGE) as u64 {
                seen.push(Seen {
                    page: usize::try_from(offset).unwrap() / PAGE,
                    registers: event.registers.unwrap_or_default().to_vec(),
                    stack_pointer: event.header.stack_pointer,
                    stack: event.stack.to_vec(),
                    flags: event.header.flags,
                });
            }
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// The child is a fork of this process, so its code lies where ours does.
fn reaches_the_root(seen: &Seen) {
    let own = std::process::id();
    let mut unwinder = Unwinder::new();
    unwinder.refresh(own, &maps::read(&ProcRoot::default(), own).unwrap().mappings);
    let id = unwinder.unwind(
        own,
        &Snapshot {
            registers: &seen.registers,
            stack_pointer: seen.stack_pointer,
            stack: &seen.stack,
            flags: seen.flags,
        },
    );
    let stack = unwinder.stack(id).unwrap();
    assert_eq!(stack.ending, Ending::Root);
    assert!(stack.frames.len() >= 3, "{:?}", stack.frames);
}

#[test]
fn the_event_gives_faults_of_both_modes_with_their_stacks() {
    if skipped() {
        return;
    }
    let mut probe = probe();
    let child = Child::fork();
    probe.watch(child.pid, false).unwrap();
    let coverage = probe
        .watch_faults(FaultChoice::Auto, || Ok(vec![child.pid, GONE]))
        .unwrap();
    assert_eq!(
        coverage,
        FaultCoverage {
            source: Some(FaultSource::Event),
            threads: 1,
            refused: 0,
            complete: true
        }
    );
    child.go();
    let seen = faults(&mut probe, &child, 2);
    let pages: Vec<usize> = seen.iter().map(|fault| fault.page).collect();
    assert_eq!(pages, [WRITTEN, READ_INTO]);
    seen.iter().for_each(reaches_the_root);
}

#[test]
fn the_tracepoint_stands_in_where_the_event_is_refused() {
    if skipped() {
        return;
    }
    for choice in [FaultChoice::Auto, FaultChoice::Tracepoint] {
        let mut probe = probe();
        let child = Child::fork();
        probe.watch(child.pid, false).unwrap();
        // This number means every process on one CPU that is not named, which no kernel opens.
        let refused = || Ok(vec![u32::MAX]);
        assert!(probe.watch_faults(FaultChoice::Event, refused).is_err());
        let coverage = match probe.watch_faults(choice, refused) {
            Ok(coverage) => coverage,
            Err(error) if cfg!(not(target_arch = "x86_64")) => {
                eprintln!("SKIPPED: no such tracepoint on this machine: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(coverage.source, Some(FaultSource::Tracepoint));
        assert_eq!((coverage.refused, coverage.complete), (0, true));
        // It is remembered: what could be opened is not.
        let again = probe
            .watch_faults(FaultChoice::Auto, || Ok(vec![child.pid]))
            .unwrap();
        assert_eq!((again.source, again.threads), (Some(FaultSource::Tracepoint), 0));
        child.go();
        let seen = faults(&mut probe, &child, 1);
        let pages: Vec<usize> = seen.iter().map(|fault| fault.page).collect();
        assert_eq!(pages, [WRITTEN], "user mode only");
        seen.iter().for_each(reaches_the_root);
    }
}

#[test]
fn a_fork_has_no_mapping_of_the_ring() {
    if skipped() {
        return;
    }
    let rings = |pid| {
        let mappings = maps::read(&ProcRoot::default(), pid).unwrap().mappings;
        let is_ring = |mapping: &maps::Mapping| {
            mapping
                .path
                .as_deref()
                .is_some_and(|path| path == forks::MAP_PATH)
        };
        mappings.iter().filter(|mapping| is_ring(mapping)).count()
    };
    let _probe = probe();
    assert!(rings(std::process::id()) > 0);
    // Other tests of this process attach probes too, whose rings are left out a moment after they are mapped.
    let patience = Instant::now() + Duration::from_secs(10);
    while rings(Child::fork().pid) > 0 {
        assert!(Instant::now() < patience, "forks have the ring");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pkey_mprotect_is_told_by_the_programs_of_mprotect() {
    if skipped() {
        return;
    }
    let mut probe = probe();
    assert!(probe.missing().is_empty(), "{:?}", probe.missing());
    let child = Child::fork();
    probe.watch(child.pid, false).unwrap();
    child.go();
    let patience = Instant::now() + Duration::from_secs(5);
    let mut told = Vec::new();
    while told.is_empty() {
        assert!(Instant::now() < patience, "nothing told");
        std::thread::sleep(Duration::from_millis(5));
        probe.drain(usize::MAX, |event| {
            if event.kind == Kind::Protect && event.header.tgid == child.pid {
                told.push((event.header.address, event.header.length, event.header.protection));
            }
        });
    }
    let all = (PAGES * PAGE) as u64;
    assert_eq!(told, [(child.address(0), all, PROTECTION.cast_unsigned())]);
}

#[test]
fn a_process_that_is_not_watched_is_neither_sent_nor_counted() {
    if skipped() {
        return;
    }
    let mut probe = probe();
    let child = Child::fork();
    probe
        .watch_faults(FaultChoice::Event, || Ok(vec![child.pid]))
        .unwrap();
    child.go();
    // Until it has taken both faults.
    let asleep = Instant::now() + Duration::from_secs(20);
    let call = format!("/proc/{}/syscall", child.pid);
    let sleeping = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(|call| call.to_string());
    while !sleeping.iter().any(|number| {
        std::fs::read_to_string(&call)
            .is_ok_and(|text| text.split_whitespace().next() == Some(number.as_str()))
    }) {
        assert!(Instant::now() < asleep, "the child does not get to sleep");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut events = 0;
    probe.drain(usize::MAX, |_| events += 1);
    assert_eq!(events, 0);
    assert_eq!(probe.counts().unwrap().get(Counter::Faults), 0);
    assert_eq!(
        probe
            .watch_faults(FaultChoice::Never, || panic!("not asked for"))
            .unwrap(),
        FaultCoverage::default()
    );
}
