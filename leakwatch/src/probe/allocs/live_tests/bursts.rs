//! Bursts: that a target outlives them, that they end when they should, and that nothing is left behind.

use leakwatch_ebpf::wire::alloc::cut;

use super::*;

#[test]
fn a_flat_out_target_survives_bursts_and_the_counters_add_up() {
    if skipped() {
        return;
    }
    let _alone = alone();
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
            probe.end_burst().unwrap();
            drop(links);
            wait_for_code(maker.pid(), &points, &code);
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
            // Four threads may be in a call when the burst ends.
            assert!(answered <= get(Counter::AllocHits), "{counts:?}");
            assert!(answered + 4 >= get(Counter::AllocHits), "{counts:?}");
            assert_eq!(get(Counter::AllocOffStack), 0);
            assert_eq!(
                get(Counter::AllocReturnsMissed),
                0,
                "{method:?}, burst {burst}: {counts:?}"
            );
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
    let _alone = alone();
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
fn what_must_not_be_watched_is_refused() {
    if skipped() {
        return;
    }
    let _alone = alone();
    let proc = Proc::host();
    let stripped = Maker::start("kinds", &["-static", "-s"]);
    let allocator = allocator::identify(&proc, stripped.pid()).unwrap();
    let refused = safe_to_probe(&proc, stripped.pid(), &allocator).unwrap_err();
    assert_eq!(refused, Why::NoSymbols);

    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.c");
    std::fs::write(
        &own,
        "#include <stddef.h>\nstatic char room[1 << 20]; static size_t used;\n\
         void *malloc(size_t n) { void *p = room + used; used += (n + 15) & ~15ul; return p; }\n\
         void free(void *p) {}\nvoid *calloc(size_t a, size_t b) { return malloc(a * b); }\n\
         void *realloc(void *p, size_t n) { return malloc(n); }\n",
    )
    .unwrap();
    let interposed = Maker::start("none", &[own.to_str().unwrap()]);
    let allocator = allocator::identify(&proc, interposed.pid()).unwrap();
    let refused = safe_to_probe(&proc, interposed.pid(), &allocator).unwrap_err();
    assert_eq!(refused, Why::Interposed);

    let gone = safe_to_probe(&proc, 4_194_305, &allocator).unwrap_err();
    assert!(matches!(gone, Why::Unreadable(_)), "{gone}");
}

#[test]
fn a_fork_of_the_owner_keeps_nothing_attached() {
    if skipped() {
        return;
    }
    let _alone = alone();
    let maker = Maker::start("storm", &[]);
    let points = maker.points();
    let code = code_of(&points);
    for method in methods() {
        let mut probe = probe();
        probe.load_allocs_by(method).unwrap();
        probe.begin_burst(&all(&points)).unwrap();
        let links = probe.attach_allocs(maker.pid(), &points).unwrap();
        assert_ne!(code_in(maker.pid(), &points), code, "{method:?}");
        let fork = Fork::waiting();
        drop(links);
        wait_for_code(maker.pid(), &points, &code);
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
        drop(fork);
    }
}

/// A fork of this process, with all that it has, that only waits to be killed, as the drop does.
struct Fork(libc::pid_t);

impl Fork {
    fn waiting() -> Self {
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
        Self(pid)
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet reaped.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Until the text is as the file says. At once, but for the forks of other tests, which share descriptors for a while.
#[track_caller]
fn wait_for_code(pid: u32, points: &EntryPoints, code: &[[u8; 8]]) {
    let patience = Instant::now() + Duration::from_secs(30);
    while code_in(pid, points) != code {
        assert!(Instant::now() < patience, "left in the text");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first bytes of each function in the file.
pub(super) fn code_of(points: &EntryPoints) -> Vec<[u8; 8]> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::from(points.file.try_clone().unwrap());
    let read = |point: &EntryPoint| {
        let mut code = [0; 8];
        file.read_exact_at(&mut code, point.offset).unwrap();
        code
    };
    points.points.iter().map(read).collect()
}

/// And in the process's memory.
pub(super) fn code_in(pid: u32, points: &EntryPoints) -> Vec<[u8; 8]> {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    let inode = std::fs::File::from(points.file.try_clone().unwrap())
        .metadata()
        .unwrap()
        .ino();
    let mappings = maps::read(&ProcRoot::default(), pid).unwrap().mappings;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let read = |point: &EntryPoint| {
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
    let _alone = alone();
    let cost = probe().calibrate_allocs().unwrap();
    eprintln!("{cost:?}");
    assert!(cost.plain > Duration::from_nanos(50) && cost.plain < Duration::from_millis(1));
    assert!(cost.sampled > Duration::ZERO);
    // Without these three the time of an entry would tell nothing, and every hit be counted as one of a tight loop.
    assert!(cost.cold > Duration::ZERO && cost.cold < Duration::from_millis(1));
    assert!(cost.entry > Duration::ZERO && cost.entry < cost.cold_entry);
    assert!(cost.stepped > Duration::ZERO);
}
