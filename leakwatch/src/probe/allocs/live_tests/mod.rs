//! Births of real programs, against what they say of themselves. They need root, BPF and a C compiler.

mod bursts;
mod measure;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{Counter, Kind, SAMPLE_ALL, block_in_sample, flags};

use super::*;
use crate::probe::ProbeOptions;
use crate::sampler::{ProcRoot, maps};
use crate::target::entry_points::{Why, function, safe_to_probe};
use crate::target::{Proc, allocator};
use crate::unwind::{Ending, Frame, Snapshot, Unwinder};

/// Does as its argument says when it is sent a byte, and prints a line for each birth: function, calling function, size,
/// address and the block given up.
const MAKER: &str = include_str!("maker.c");

/// One of these tests at a time: what one attaches another's fork would hold.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says why where these tests cannot run.
fn skipped() -> bool {
    let why = if std::env::var_os("LEAKWATCH_NO_KERNEL").is_some_and(|value| value == "1") {
        "LEAKWATCH_NO_KERNEL=1"
    } else if !rustix::process::geteuid().is_root() {
        "not root"
    } else if cfg!(not(all(target_env = "gnu", target_arch = "x86_64"))) {
        "not glibc on x86-64"
    } else {
        return false;
    };
    eprintln!("SKIPPED: {why}");
    true
}

struct Maker {
    child: Child,
    out: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Maker {
    fn start(how: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(folder.path(), flags);
        let mut child = Command::new(&program)
            .arg(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut maker = Self {
            child,
            out,
            _folder: folder,
        };
        assert_eq!(maker.line(), "ready");
        maker
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"g").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// What it made, by its own account.
    fn told(&mut self) -> Vec<Birth> {
        let mut births = Vec::new();
        loop {
            let line = self.line();
            if line == "end" {
                return births;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse().unwrap();
            births.push(Birth {
                function: words[0].to_owned(),
                site: number(1),
                size: number(2),
                block: number(3),
                old: number(4),
            });
        }
    }

    fn points(&self) -> EntryPoints {
        let allocator = allocator::identify(&Proc::host(), self.pid()).unwrap();
        safe_to_probe(&Proc::host(), self.pid(), &allocator).unwrap()
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compile(folder: &Path, flags: &[&str]) -> std::path::PathBuf {
    let (source, program) = (folder.join("maker.c"), folder.join("maker"));
    std::fs::write(&source, MAKER).unwrap();
    let compiled = Command::new("cc")
        .args([
            "-O1",
            "-fno-builtin",
            "-fno-optimize-sibling-calls",
            "-w",
            "-pthread",
            "-no-pie",
            "-o",
        ])
        .args([&program, &source])
        .args(flags)
        .status()
        .unwrap();
    assert!(compiled.success());
    program
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Birth {
    function: String,
    /// Of the function that called.
    site: u64,
    size: u64,
    block: u64,
    old: u64,
}

fn probe() -> Probe {
    let options = ProbeOptions {
        stack_bytes: 32 * 1024,
        ring_bytes: 32 * 1024 * 1024,
    };
    Probe::attach(&options).unwrap()
}

fn all(points: &EntryPoints) -> BurstLimits {
    BurstLimits {
        threshold: SAMPLE_ALL,
        hits_max: u64::MAX,
        stack_bytes_max: points.stack_bytes_max,
    }
}

/// Unwinds what waits in the ring. The site is the caller's address here.
fn births(probe: &mut Probe, pid: u32) -> Vec<Birth> {
    let mut unwinder = Unwinder::new();
    unwinder.refresh(pid, &maps::read(&ProcRoot::default(), pid).unwrap().mappings);
    let mut births = Vec::new();
    probe.drain(usize::MAX, |event| {
        if event.kind != Kind::Alloc || event.header.tgid != pid {
            return;
        }
        let header = event.header;
        let id = unwinder.unwind(
            pid,
            &Snapshot {
                registers: event.registers.unwrap(),
                stack_pointer: header.stack_pointer,
                stack: event.stack,
                flags: header.flags,
            },
        );
        let stack = unwinder.stack(id).unwrap();
        assert_eq!(stack.ending, Ending::Root, "{header:?} {:?}", stack.frames);
        let [_, Frame::Module { offset, .. }, ..] = stack.frames[..] else {
            panic!("{:?}", stack.frames);
        };
        births.push(Birth {
            function: function(header.protection).unwrap().name.to_owned(),
            site: offset,
            size: header.length,
            block: header.address,
            old: header.old_address,
        });
    });
    births
}

/// The order is that of the returns; a function of these is shorter than 256 bytes.
#[track_caller]
fn assert_same(mut seen: Vec<Birth>, mut told: Vec<Birth>) {
    seen.sort_by_key(|birth| birth.block);
    told.sort_by_key(|birth| birth.block);
    assert_eq!(seen.len(), told.len(), "{seen:#?} {told:#?}");
    for (seen, told) in seen.into_iter().zip(told) {
        assert!(
            (told.site..told.site + 256).contains(&seen.site),
            "{seen:?} {told:?}"
        );
        assert_eq!(
            Birth {
                site: told.site,
                ..seen
            },
            told
        );
    }
}

fn methods() -> Vec<AllocMethod> {
    let mut probe = probe();
    let methods: Vec<AllocMethod> = AllocMethod::ALL
        .into_iter()
        .filter(|method| match probe.load_allocs_by(*method) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{method:?}: {error}");
                false
            }
        })
        .collect();
    assert!(methods.contains(&AllocMethod::Events));
    methods
}

#[test]
fn every_birth_is_seen_with_its_size_its_block_and_its_caller() {
    if skipped() {
        return;
    }
    let _alone = alone();
    for method in methods() {
        for linked in [&[][..], &["-static"]] {
            let mut probe = probe();
            probe.load_allocs_by(method).unwrap();
            let mut maker = Maker::start("kinds", linked);
            let points = maker.points();
            probe.begin_burst(&all(&points)).unwrap();
            let links = probe.attach_allocs(maker.pid(), &points).unwrap();
            maker.go();
            let told = maker.told();
            drop(links);
            let mut seen = births(&mut probe, maker.pid());
            // Before the last call of `fail`, which gives it up.
            let (given_up, seen_then): (Vec<_>, Vec<_>) = seen.drain(..).partition(|birth| birth.size == 64);
            assert_eq!(given_up.len(), 1, "{method:?} {linked:?} {given_up:?}");
            // Functions in place: no block is told twice but by a realloc that left it where it was.
            let latest: BTreeMap<u64, Birth> =
                told.iter().map(|birth| (birth.block, birth.clone())).collect();
            let seen_latest: BTreeMap<u64, Birth> = seen_then
                .iter()
                .map(|birth| (birth.block, birth.clone()))
                .collect();
            assert_eq!(
                seen_then.len(),
                told.len(),
                "{method:?} {linked:?} {seen_then:#?}"
            );
            assert_same(
                seen_latest.into_values().collect(),
                latest.into_values().collect(),
            );
            let counts = probe.counts().unwrap();
            assert_eq!(counts.get(Counter::AllocBirths), told.len() as u64 + 1);
            assert_eq!(counts.get(Counter::AllocSampled), told.len() as u64 + 1);
            assert!(counts.get(Counter::AllocNested) >= 2, "{counts:?}");
            for never in [
                Counter::LostAllocs,
                Counter::AllocReturnsMissed,
                Counter::AllocUnmatched,
                Counter::AllocOffStack,
                Counter::AllocThreadsOver,
                Counter::NoScratch,
            ] {
                assert_eq!(counts.get(never), 0, "{method:?} {never:?}");
            }
        }
    }
}

#[test]
fn threads_have_their_own_stacks_and_calls() {
    if skipped() {
        return;
    }
    let _alone = alone();
    let mut probe = probe();
    probe.load_allocs().unwrap();
    let mut maker = Maker::start("threads", &[]);
    let points = maker.points();
    probe.begin_burst(&all(&points)).unwrap();
    let links = probe.attach_allocs(maker.pid(), &points).unwrap();
    maker.go();
    let told = maker.told();
    drop(links);
    assert_eq!(told.len(), 800);
    // Making threads takes blocks as well.
    let seen: Vec<Birth> = births(&mut probe, maker.pid())
        .into_iter()
        .filter(|birth| birth.size == 777)
        .collect();
    assert_same(seen, told);
}

#[test]
fn the_sample_is_by_address() {
    if skipped() {
        return;
    }
    let _alone = alone();
    let mut probe = probe();
    probe.load_allocs().unwrap();
    let mut maker = Maker::start("kinds", &[]);
    let points = maker.points();
    let threshold = SAMPLE_ALL / 2;
    probe
        .begin_burst(&BurstLimits {
            threshold,
            ..all(&points)
        })
        .unwrap();
    let links = probe.attach_allocs(maker.pid(), &points).unwrap();
    maker.go();
    let told = maker.told();
    drop(links);
    let (mut whole, mut moved) = (0, 0);
    probe.drain(usize::MAX, |event| {
        if event.kind != Kind::Alloc {
            return;
        }
        let (sampled, stack) = (
            block_in_sample(event.header.address, threshold),
            event.header.flags & flags::STACK != 0,
        );
        assert_eq!(sampled, stack);
        if sampled {
            whole += 1;
        } else {
            assert!(event.header.flags & flags::THINNED != 0);
            assert!(block_in_sample(event.header.old_address, threshold));
            moved += 1;
        }
    });
    let expected = |birth: &&Birth| block_in_sample(birth.block, threshold);
    // The one that `fail` gives up may be in it.
    let told_whole = told.iter().filter(expected).count();
    assert!(
        whole == told_whole || whole == told_whole + 1,
        "{whole} {told:#?}"
    );
    let told_moved = told
        .iter()
        .filter(|birth| !block_in_sample(birth.block, threshold) && birth.old != 0)
        .filter(|birth| block_in_sample(birth.old, threshold))
        .count();
    assert_eq!(moved, told_moved);
}
