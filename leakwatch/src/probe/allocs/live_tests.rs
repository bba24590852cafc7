//! Births of real programs, against what they say of themselves. They need root, BPF and a C compiler.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::alloc::cut;
use leakwatch_ebpf::wire::{Counter, Kind, SAMPLE_ALL, block_in_sample, flags};

use super::*;
use crate::probe::ProbeOptions;
use crate::sampler::{ProcRoot, maps};
use crate::target::entry_points::{function, safe_to_probe};
use crate::target::{Proc, allocator};
use crate::unwind::{Ending, Frame, Snapshot, Unwinder};

/// Does as its argument says when it is sent a byte, and prints a line for each birth: function, calling function, size,
/// address and the block given up.
const MAKER: &str = r#"
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define SITE __attribute__((noinline, noclone))
typedef void *(*maker)(void);
static void *old, *made;
static struct { const char *name; void *site; size_t size; void *block, *old; } told[4096];
static int births;
static void tell(const char *name, maker site, size_t size) {
    old = 0;
    void *block = site();
    int at = __atomic_fetch_add(&births, 1, __ATOMIC_RELAXED);
    told[at].name = name; told[at].site = site; told[at].size = size; told[at].block = block; told[at].old = old;
}
static volatile int zero;
SITE static void *plain(void) { void *p = malloc(1000); zero = 0; return p; }
SITE static void *cleared(void) { void *p = calloc(10, 30); zero = 0; return p; }
SITE static void *from_none(void) { made = realloc(0, 50); zero = 0; return made; }
SITE static void *grown(void) { old = made; made = realloc(made, 100000); zero = 0; return made; }
SITE static void *shrunk(void) { old = made; made = realloc(made, 60000); zero = 0; return made; }
SITE static void *mapped(void) { old = made; made = realloc(made, 3000000); zero = 0; return made; }
SITE static void *array(void) { old = made; made = reallocarray(made, 7, 900000); zero = 0; return made; }
SITE static void *aligned(void) { void *p = memalign(64, 200); zero = 0; return p; }
SITE static void *barely(void) { void *p = aligned_alloc(16, 320); zero = 0; return p; }
SITE static void *stored(void) { void *p = 0; zero = posix_memalign(&p, 128, 500); return p; }
SITE static void *paged(void) { void *p = valloc(100); zero = 0; return p; }
SITE static void *whole(void) { void *p = pvalloc(100); zero = 0; return p; }
SITE static void fail(void) {
    void *p = 0;
    volatile size_t huge = PTRDIFF_MAX, none = 0;
    p = malloc(huge); if (p) abort();
    p = calloc(huge, huge); if (p) abort();
    if (posix_memalign(&p, 3, 64) == 0) abort();
    p = malloc(64); p = realloc(p, none); if (p) abort();
}
static void kinds(void) {
    for (int i = 0; i < 5; i++) tell("malloc", plain, 1000);
    tell("calloc", cleared, 300);
    tell("realloc", from_none, 50);
    tell("realloc", grown, 100000);
    tell("realloc", shrunk, 60000);
    tell("realloc", mapped, 3000000);
    tell("reallocarray", array, 6300000);
    tell("memalign", aligned, 200);
    tell("memalign", barely, 320);
    tell("posix_memalign", stored, 500);
    tell("valloc", paged, 100);
    tell("pvalloc", whole, 100);
    fail();
}
SITE static void *deep(void) { void *p = malloc(777); zero = 0; return p; }
SITE static void descend(int depth) { volatile char room[300]; room[0] = 1; if (depth) descend(depth - 1); else tell("malloc", deep, 777); room[1] = 2; }
static void *worker(void *p) { for (int i = 0; i < 200; i++) descend((long)p * 5); return 0; }
static volatile int stop;
static volatile long calls[4];
static void *storm(void *p) {
    void *kept[64] = {0};
    unsigned x = (long)p + 1;
    while (!stop) {
        x = x * 1664525 + 1013904223;
        unsigned i = x >> 26;
        free(kept[i]);
        kept[i] = x & 0x100 ? realloc(0, 16 + (x >> 20)) : malloc(16 + (x >> 20));
        calls[(long)p]++;
    }
    return 0;
}
static void *fiber_stack_call(void *stack) {
    void *p;
    /* The stack pointer goes elsewhere for the length of one call. */
    __asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; mov $4000, %%edi; call malloc; mov %%rbx, %%rsp"
        : "=a"(p) : "r"((char *)stack + 65536 - 64)
        : "rbx", "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
    return p;
}
int main(int argc, char **argv) {
    static char out[1 << 16];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    const char *how = argv[1];
    pthread_t t[4];
    void *fiber = strcmp(how, "fiber") ? 0 : malloc(65536);
    int busy = !strcmp(how, "storm");
    if (busy) for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, storm, (void *)i);
    puts("ready"); fflush(stdout);
    char c;
    if (read(0, &c, 1) != 1) return 1;
    if (!strcmp(how, "kinds")) kinds();
    if (!strcmp(how, "threads")) {
        for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, worker, (void *)(i + 1));
        for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    }
    if (fiber) { fiber_stack_call(fiber); for (int i = 0; i < 5; i++) tell("malloc", plain, 1000); }
    if (busy) { stop = 1; for (int i = 0; i < 4; i++) pthread_join(t[i], 0); printf("%ld\n", calls[0] + calls[1] + calls[2] + calls[3]); }
    for (int i = 0; i < births; i++)
        printf("%s %zu %zu %zu %zu\n", told[i].name, (size_t)told[i].site, told[i].size, (size_t)told[i].block, (size_t)told[i].old);
    puts("end"); fflush(stdout);
    if (read(0, &c, 1) != 1) return 1;
    return 0;
}
"#;

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

#[test]
fn a_flat_out_target_survives_bursts_and_the_counters_add_up() {
    if skipped() {
        return;
    }
    for method in methods() {
        let mut probe = probe();
        probe.load_allocs_by(method).unwrap();
        let mut maker = Maker::start("storm", &[]);
        let points = maker.points();
        let code = code_of(&points);
        // Perf events take their time.
        let bursts = if method == AllocMethod::Events { 5 } else { 50 };
        for burst in 0..bursts {
            let before = probe.counts().unwrap();
            probe
                .begin_burst(&BurstLimits {
                    threshold: SAMPLE_ALL / 16,
                    ..all(&points)
                })
                .unwrap();
            let links = probe.attach_allocs(maker.pid(), &points).unwrap();
            // On a busy machine it may not run for a while.
            let patience = Instant::now() + Duration::from_secs(20);
            while probe.counts().unwrap().since(&before).get(Counter::AllocBirths) == 0 {
                assert!(Instant::now() < patience, "{method:?}, burst {burst}: no birth");
                std::thread::sleep(Duration::from_millis(3));
            }
            drop(links);
            probe.end_burst().unwrap();
            assert_eq!(code_in(maker.pid(), &points), code, "{method:?}, burst {burst}");
            let mut events = 0;
            probe.drain(usize::MAX, |event| events += u64::from(event.kind == Kind::Alloc));
            let counts = probe.counts().unwrap().since(&before);
            let get = |counter| counts.get(counter);
            assert_eq!(
                get(Counter::AllocSampled),
                events + get(Counter::LostAllocs),
                "{counts:?}"
            );
            let answered =
                get(Counter::AllocBirths) + get(Counter::AllocNested) + get(Counter::AllocReturnsMissed);
            // Four threads may be in a call when the probes go.
            assert!(answered <= get(Counter::AllocHits), "{counts:?}");
            assert!(answered + 4 >= get(Counter::AllocHits), "{counts:?}");
            assert_eq!(get(Counter::AllocOffStack), 0);
            assert_eq!(get(Counter::AllocReturnsMissed), 0);
        }
        maker.go();
        let calls: u64 = maker.line().parse().unwrap();
        assert!(calls > 1000, "it went on");
        assert_eq!(maker.line(), "end");
    }
}

#[test]
fn a_burst_is_cut_at_its_last_hit_and_at_a_strange_stack() {
    if skipped() {
        return;
    }
    let mut probe = probe();
    probe.load_allocs().unwrap();
    let maker = Maker::start("storm", &[]);
    let points = maker.points();
    let hits_max = 5000;
    probe
        .begin_burst(&BurstLimits {
            hits_max,
            threshold: 0,
            ..all(&points)
        })
        .unwrap();
    let links = probe.attach_allocs(maker.pid(), &points).unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while probe.burst_state().unwrap().cut == 0 {
        assert!(Instant::now() < patience, "{:?}", probe.burst_state());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(5));
    drop(links);
    let state = probe.burst_state().unwrap();
    assert_eq!(state.cut, cut::HITS);
    let counts = probe.counts().unwrap();
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    let hits = counts.get(Counter::AllocHits);
    // A CPU tells its hits in steps, and a call that has begun on each is still counted.
    assert!(
        hits + cpus * 64 >= hits_max && hits <= hits_max + cpus * 65,
        "{hits}"
    );
    assert!(counts.get(Counter::AllocIdle) > 0);
    drop(maker);

    let mut maker = Maker::start("fiber", &[]);
    let points = maker.points();
    let before = probe.counts().unwrap();
    probe.begin_burst(&all(&points)).unwrap();
    assert_eq!(probe.burst_state().unwrap(), BurstState::default());
    let links = probe.attach_allocs(maker.pid(), &points).unwrap();
    maker.go();
    assert_eq!(maker.told().len(), 5, "it lives");
    drop(links);
    assert_eq!(probe.burst_state().unwrap().cut, cut::OFF_STACK);
    let counts = probe.counts().unwrap().since(&before);
    assert_eq!(counts.get(Counter::AllocOffStack), 1);
    assert_eq!(counts.get(Counter::AllocBirths), 0);
}

#[test]
fn what_is_attached_goes_with_whoever_attached_it() {
    if skipped() {
        return;
    }
    // A child of this process attaches, and is killed.
    let maker = Maker::start("storm", &[]);
    let points = maker.points();
    let code = code_of(&points);
    for method in methods() {
        let mut probe = probe();
        probe.load_allocs_by(method).unwrap();
        probe.begin_burst(&all(&points)).unwrap();
        let links = probe.attach_allocs(maker.pid(), &points).unwrap();
        assert_ne!(code_in(maker.pid(), &points), code, "{method:?}");
        let holders = fork_holder();
        drop(links);
        // The fork has the descriptors still.
        assert_ne!(code_in(maker.pid(), &points), code, "{method:?}");
        for file in [
            "/sys/kernel/tracing/uprobe_events",
            "/sys/kernel/debug/tracing/uprobe_events",
        ] {
            assert_eq!(
                std::fs::read_to_string(file).unwrap_or_default(),
                "",
                "{method:?}"
            );
        }
        drop(holders);
        let patience = Instant::now() + Duration::from_secs(10);
        while code_in(maker.pid(), &points) != code {
            assert!(Instant::now() < patience, "{method:?}: left in the text");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A fork of this process that only waits to be killed, as the drop does.
struct Holder(libc::pid_t);

fn fork_holder() -> Holder {
    // SAFETY: the child calls nothing but async-signal-safe functions.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(600);
            libc::_exit(0);
        }
    }
    Holder(pid)
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet reaped.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// The first bytes of each function in the file.
fn code_of(points: &EntryPoints) -> Vec<[u8; 8]> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::from(points.file.try_clone().unwrap());
    let read = |point: &crate::target::entry_points::EntryPoint| {
        let mut code = [0; 8];
        file.read_exact_at(&mut code, point.offset).unwrap();
        code
    };
    points.points.iter().map(read).collect()
}

/// And in the process's memory.
fn code_in(pid: u32, points: &EntryPoints) -> Vec<[u8; 8]> {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let inode = std::fs::File::from(points.file.try_clone().unwrap())
        .metadata()
        .unwrap()
        .ino();
    let mappings = maps::read(&ProcRoot::default(), pid).unwrap().mappings;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let read = |point: &crate::target::entry_points::EntryPoint| {
        let mapping = mappings
            .iter()
            .find(|mapping| {
                let length = mapping.range.end - mapping.range.start;
                mapping.inode == inode
                    && mapping.executable
                    && (mapping.offset..mapping.offset + length).contains(&point.offset)
            })
            .unwrap();
        let mut code = [0; 8];
        memory
            .read_exact_at(&mut code, mapping.range.start + point.offset - mapping.offset)
            .unwrap();
        code
    };
    points.points.iter().map(read).collect()
}

#[test]
fn a_hit_costs_something_and_an_instruction_out_of_line_more() {
    if skipped() {
        return;
    }
    let cost = probe().calibrate_allocs().unwrap();
    eprintln!("{cost:?}");
    assert!(cost.plain > Duration::from_nanos(50) && cost.plain < Duration::from_millis(1));
    assert!(cost.sampled > Duration::ZERO);
    assert!(cost.stepped > Duration::ZERO);
}

/// Prints what the report on the method wants: not a test, for times are no truth.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let measured = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    };
    for method in methods() {
        let mut probe = probe();
        probe.load_allocs_by(method).unwrap();
        let cost = probe.calibrate_allocs().unwrap();
        {
            let child = calibrate::Child::fork().unwrap();
            let own = calibrate::own_entry_points().unwrap();
            let free = child.median(b'e', || {}).unwrap();
            let links = probe.attach_allocs(child.pid, &own).unwrap();
            eprintln!(
                "free {free:?}, between bursts {:?}",
                child.median(b'e', || {}).unwrap()
            );
            probe
                .begin_burst(&BurstLimits {
                    threshold: 0,
                    ..all(&own)
                })
                .unwrap();
            eprintln!("unsampled {:?}", child.median(b'e', || {}).unwrap());
            drop(links);
        }
        let mut maker = Maker::start("storm", &[]);
        let points = maker.points();
        let code = code_of(&points);
        let (mut attach, mut detach, mut clean) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..20 {
            probe
                .begin_burst(&BurstLimits {
                    threshold: 0,
                    ..all(&points)
                })
                .unwrap();
            let before = Instant::now();
            let links = probe.attach_allocs(maker.pid(), &points).unwrap();
            attach.push(before.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(Duration::from_millis(3));
            let before = Instant::now();
            let detaching = std::thread::spawn(move || drop(links));
            while code_in(maker.pid(), &points) != code {}
            clean.push(before.elapsed().as_secs_f64() * 1e3);
            detaching.join().unwrap();
            detach.push(before.elapsed().as_secs_f64() * 1e3);
        }
        eprintln!(
            "{method:?}: {cost:?}; attach ms (median, most) {:?}, text clean {:?}, detached {:?}",
            measured(&mut attach),
            measured(&mut clean),
            measured(&mut detach)
        );
        maker.go();
        eprintln!("storm: {} calls", maker.line());
    }
}
