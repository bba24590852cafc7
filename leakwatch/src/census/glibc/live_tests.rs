//! Heaps of real processes, against what they say of themselves.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::census::memory::{Memory, ProcessMemory};
use crate::census::{Census, Limits, NotTaken, take};
use crate::sampler::{ProcRoot, maps};
use crate::target::allocator;
use crate::target::proc::Proc;

/// Does as its argument says, prints `uordblks hblkhd hblks fsmblks` of mallinfo2 and waits.
const HOLDER: &str = r#"
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define THREADS 8
static void *kept[400000];
static pthread_barrier_t ready, leave;
static volatile int stop;
static void *worker(void *p) {
    long me = (long)p;
    void **mine = calloc(20000, sizeof *mine);
    for (int i = 0; i < 20000; i++) mine[i] = malloc(40 + (i * 7 + me) % 900);
    for (int i = 0; i < 20000; i += 2) free(mine[i]);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&leave);
    return mine;
}
static void *churn(void *p) {
    unsigned x = 12345 + (unsigned)(long)p;
    void **mine = calloc(2000, sizeof *mine);
    while (!stop) {
        x = x * 1664525 + 1013904223;
        unsigned i = (x >> 8) % 2000;
        free(mine[i]);
        mine[i] = malloc(16 + (x >> 20) % 1500);
    }
    return 0;
}
int main(int argc, char **argv) {
    pthread_t t[THREADS];
    const char *how = argv[1];
    int threads = !strcmp(how, "threads"), busy = !strcmp(how, "busy");
    pthread_barrier_init(&ready, 0, THREADS + 1);
    pthread_barrier_init(&leave, 0, THREADS + 1);
    if (!strcmp(how, "plain") || busy) {
        for (int i = 0; i < 100000; i++) kept[i] = malloc(536);
        for (int i = 0; i < 100000; i += 2) free(kept[i]);
    }
    if (!strcmp(how, "many")) for (int i = 0; i < 2000000; i++) kept[i % 400000] = malloc(216);
    if (!strcmp(how, "cached")) {
        for (int c = 0; c < 20; c++) for (int i = 0; i < 200; i++) kept[c * 200 + i] = malloc(24 + 16 * c);
        for (int c = 0; c < 20; c++) for (int i = 0; i < 150; i++) free(kept[c * 200 + i]);
    }
    if (!strcmp(how, "large")) for (int i = 0; i < 50; i++) memset(kept[i] = malloc(300000 + i * 5000), 1, 100);
    if (!strcmp(how, "merged")) {
        for (int i = 0; i < 20; i++) kept[i] = malloc(24);
        for (int i = 0; i < 20; i++) free(kept[i]);
        for (int i = 0; i < 5; i++) kept[i] = malloc(300000 + i * 50000);
        /* The kernel puts it right below, and makes one mapping of them. */
        memset(mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 1, 65536);
    }
    if (!strcmp(how, "shrunk")) {
        for (int i = 0; i < 400000; i++) kept[i] = malloc(600);
        for (int i = 0; i < 400000; i++) if (i % 100) kept[i] = realloc(kept[i], 24);
        for (int i = 0; i < 400000; i++) if (i % 100) free(kept[i]);
        malloc_trim(0);
    }
    if (threads) {
        for (long i = 0; i < THREADS; i++) pthread_create(&t[i], 0, worker, (void *)i);
        pthread_barrier_wait(&ready);
    }
    if (busy) for (long i = 0; i < 4; i++) pthread_create(&t[i], 0, churn, (void *)i);
    static char out[4096];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    struct mallinfo2 m = mallinfo2();
    printf("%zu %zu %zu %zu\n", m.uordblks, m.hblkhd, m.hblks, m.fsmblks);
    fflush(stdout);
    char c;
    read(0, &c, 1);
    return 0;
}
"#;

struct Holder {
    child: Child,
    uordblks: u64,
    mapped_bytes: u64,
    mapped: u64,
    fastbins: u64,
}

impl Holder {
    fn start(directory: &Path, how: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = directory.join(format!("holder{}", arguments.concat()));
        if !program.exists() {
            let source = directory.join("holder.c");
            std::fs::write(&source, HOLDER).unwrap();
            let compiled = Command::new("cc")
                .args(["-O1", "-fno-builtin", "-w", "-pthread", "-o"])
                .args([&program, &source])
                .args(arguments)
                .status()
                .unwrap();
            assert!(compiled.success());
        }
        Self::of(Command::new(&program).arg(how).envs(environment.iter().copied()))
    }

    /// Any program that prints the line and waits.
    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|it| it.parse().unwrap()).collect();
        let &[uordblks, mapped_bytes, mapped, fastbins] = numbers.as_slice() else {
            panic!("{line}");
        };
        Self {
            child,
            uordblks,
            mapped_bytes,
            mapped,
            fastbins,
        }
    }

    fn census(&self) -> Result<Census, NotTaken> {
        let pid = self.child.id();
        let allocator = allocator::identify(&Proc::host(), pid).unwrap();
        let mappings = maps::read(&ProcRoot::default(), pid).unwrap().mappings;
        take(
            &ProcessMemory::of(pid),
            &allocator,
            &mappings,
            Limits::default(),
            &[],
        )
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.stdin.take().map(|mut stdin| stdin.write_all(b"x"));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says why where this test cannot run.
fn skipped(holder: &Holder) -> bool {
    if cfg!(not(target_env = "gnu")) {
        eprintln!("SKIPPED: no glibc");
        return true;
    }
    match maps::read(&ProcRoot::default(), holder.child.id()) {
        Ok(reading) if !reading.mappings.is_empty() => {
            let address = reading.mappings[0].range.start;
            match ProcessMemory::of(holder.child.id()).word(address) {
                Ok(_) => return false,
                Err(error) => eprintln!("SKIPPED: memory of a child cannot be read: {error}"),
            }
        }
        other => eprintln!("SKIPPED: maps of a child cannot be read: {other:?}"),
    }
    true
}

/// Of `mallinfo2`: what is in use with tcache, heads of heaps and end marks.
#[track_caller]
fn assert_agrees(holder: &Holder, census: &Census) {
    let overhead: u64 = census.arenas.iter().map(|it| it.overhead_bytes).sum();
    let counted = census.in_use_bytes + census.free.tcache.bytes + overhead;
    eprintln!(
        "uordblks {} counted {counted}: in use {} in {}, {:?}, {} arenas, took {:?}, torn {}",
        holder.uordblks,
        census.in_use_bytes,
        census.in_use_chunks,
        census.free,
        census.arenas.len(),
        census.took,
        census.torn_retries
    );
    // printf takes nothing more: it has its buffer.
    let off = counted.abs_diff(holder.uordblks);
    assert!(
        off * 1000 <= holder.uordblks,
        "{counted} counted, {} said",
        holder.uordblks
    );
    assert_eq!(census.free.fastbins.bytes, holder.fastbins);
    assert_eq!(
        (census.mmapped.count, census.mmapped.bytes),
        (holder.mapped, holder.mapped_bytes)
    );
    assert_eq!(census.broken_lists, 0);
    for arena in &census.arenas {
        assert_eq!(
            arena.in_use.bytes + arena.free.bytes() + arena.overhead_bytes,
            arena.system_bytes,
            "{arena:?}"
        );
    }
}

#[test]
fn every_second_block_freed() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["-s"], &["-static"], &["-static", "-s"]] {
        let holder = Holder::start(directory.path(), "plain", arguments, &[]);
        if skipped(&holder) {
            return;
        }
        let census = holder.census().unwrap();
        assert_agrees(&holder, &census);
        let class = census.classes[&544];
        assert_eq!(class.in_use.count, 50_000, "{class:?}");
        // The first seven freed are in the tcache, the others in bins, alone between two that are in use.
        assert_eq!(class.free.count, 50_000);
        assert_eq!(census.free.bins.count, 50_000 - 7);
        // A static program's start has freed a few small blocks of its own.
        assert!((7..20).contains(&census.free.tcache.count), "{:?}", census.free);
    }
}

#[test]
fn lists_of_small_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let holder = Holder::start(directory.path(), "cached", &[], &[]);
    if skipped(&holder) {
        return;
    }
    let census = holder.census().unwrap();
    assert_agrees(&holder, &census);
    assert_eq!(census.free.tcache.count, 20 * 7);
    // Up to 128 bytes; of each 150 freed the tcache has seven.
    assert_eq!(census.free.fastbins.count, 7 * 143);
    for class in (0..20).map(|index| 32 + 16 * index) {
        let count = census.classes[&class].in_use.count;
        assert!((50..60).contains(&count), "{count} of {class}");
    }
}

#[test]
fn arenas_of_threads() {
    let directory = tempfile::tempdir().unwrap();
    for environment in [
        &[][..],
        &[("MALLOC_ARENA_MAX", "1")],
        &[("MALLOC_ARENA_MAX", "3")],
    ] {
        let holder = Holder::start(directory.path(), "threads", &[], environment);
        if skipped(&holder) {
            return;
        }
        let census = holder.census().unwrap();
        assert_agrees(&holder, &census);
        let wanted = environment.first().map_or(9, |(_, most)| most.parse().unwrap());
        assert_eq!(census.arenas.len(), wanted);
        // Each of the eight threads has its own tcache, and every one of them is full of freed blocks.
        assert!(census.free.tcache.count > 8 * 7 * 50, "{:?}", census.free.tcache);
    }
}

#[test]
fn large_blocks_and_a_heap_of_holes() {
    let directory = tempfile::tempdir().unwrap();
    let holder = Holder::start(directory.path(), "large", &[], &[]);
    if skipped(&holder) {
        return;
    }
    let census = holder.census().unwrap();
    assert_eq!(census.mmapped.count, 50);
    let sizes = (0..50).map(|index| (300_000_u64 + index * 5000 + 16).next_multiple_of(4096));
    let mut expected = std::collections::BTreeMap::new();
    for bytes in sizes {
        *expected.entry(bytes).or_insert(0) += 1;
    }
    assert_eq!(
        (census.mmapped_classes.clone(), census.mmapped_unlocated),
        (expected, 0)
    );
    assert_agrees(&holder, &census);

    let holder = Holder::start(directory.path(), "shrunk", &[], &[]);
    let census = holder.census().unwrap();
    assert_agrees(&holder, &census);
    assert_eq!(census.classes[&608].in_use.count, 4000);
    assert!(
        census.free.bins.bytes > 200 << 20 && census.in_use_bytes < 3 << 20,
        "{census:?}"
    );
}

/// Chunks above memory that is not the allocator's, in one mapping with it: only the allocator's own count knows them.
#[test]
fn large_blocks_above_a_foreign_mapping() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["-static"], &["-static", "-s"]] {
        let holder = Holder::start(directory.path(), "merged", arguments, &[]);
        if skipped(&holder) {
            return;
        }
        let census = holder.census().unwrap();
        assert_agrees(&holder, &census);
        let located: u64 = census.mmapped_classes.values().sum();
        assert_eq!((census.mmapped.count, located), (5, 0), "{arguments:?}");
        assert_eq!(census.mmapped_unlocated, 5);
    }
}

/// An interpreter that has not been written for this: PYTHONMALLOC has every object from malloc.
#[test]
fn a_python_of_many_objects() {
    const CODE: &str = "import ctypes\n\
        class Info(ctypes.Structure):\n \
            _fields_ = [(name, ctypes.c_size_t) for name in 'abcdefghij']\n\
        ask = ctypes.CDLL(None).mallinfo2\n\
        ask.restype = Info\n\
        kept = [{i: str(i) * 9} for i in range(30000)]\n\
        del kept[::3]\n\
        info = ask()\n\
        print(info.h, info.e, info.d, info.g, flush=True)\n\
        input()\n";
    let holder = Holder::of(
        Command::new("python3")
            .args(["-c", CODE])
            .env("PYTHONMALLOC", "malloc"),
    );
    if skipped(&holder) {
        return;
    }
    let census = holder.census().unwrap();
    let overhead: u64 = census.arenas.iter().map(|it| it.overhead_bytes).sum();
    let counted = census.in_use_bytes + census.free.tcache.bytes + overhead;
    eprintln!(
        "python: uordblks {} counted {counted}, {:?}",
        holder.uordblks, census.free
    );
    assert!(
        counted.abs_diff(holder.uordblks) < 64 << 10,
        "{counted}, {} said",
        holder.uordblks
    );
    assert_eq!(census.mmapped.count, holder.mapped);
}

/// Four threads that allocate and free flat out: none of the walks hangs or fails for want of trying.
#[test]
fn a_heap_under_load() {
    let directory = tempfile::tempdir().unwrap();
    let holder = Holder::start(directory.path(), "busy", &[], &[]);
    if skipped(&holder) {
        return;
    }
    let (mut taken, mut torn) = (0, 0);
    for _ in 0..30 {
        match holder.census() {
            Ok(census) => {
                taken += 1;
                torn += census.torn_retries;
                // The main heap is quiet, and the threads hold some MiB.
                let main = census.classes[&544].in_use.count;
                assert!((50_000..51_000).contains(&main), "{main}");
                let sum = census.in_use_bytes + census.free.bytes();
                assert!((54 << 20..120 << 20).contains(&sum), "{sum}");
            }
            Err(error) => {
                assert!(matches!(error, NotTaken::Inconsistent { .. }), "{error}");
            }
        }
    }
    eprintln!("{taken} of 30 taken, {torn} windows read again");
    assert!(taken >= 15, "{taken} of 30");
}

/// Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_of_two_million_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let holder = Holder::start(directory.path(), "many", &[], &[]);
    for _ in 0..5 {
        let census = holder.census().unwrap();
        println!(
            "{} bytes in {} chunks: {:?}",
            census.in_use_bytes, census.in_use_chunks, census.took
        );
    }
}
