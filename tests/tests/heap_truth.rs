//! The heap at rest, against what the process says of itself: its `mallinfo2` and `malloc_info`, and its own count of
//! what it holds, block by block.

use std::process::Command;
use std::time::{Duration, Instant};

use leakwatch_tests::daemons::{Postgres, Redis, Session, resident_bytes};
use leakwatch_tests::heap::{self, Heap, TOLERANCE_BYTES};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::target::{Target, Truth};

/// Lets a target make its heap and say what it is.
fn at_rest(mut target: Target) -> (Target, Truth) {
    target.go();
    let truth = target.truth();
    (target, truth)
}

fn start(program: &Program, arguments: &[&str]) -> (Target, Truth) {
    at_rest(Target::start(program, arguments))
}

/// Its picture, which agrees with its `mallinfo2` and `malloc_info`.
fn picture(target: &mut Target, truth: &Truth) -> Heap {
    let heap = heap::of_quiet(target.pid());
    assert!(target.is_well(), "the target did not survive being looked at");
    heap::agrees(&heap, truth);
    heap::arenas_agree(&heap, truth);
    heap::mapped_agree(&heap, truth);
    heap
}

/// The same, and in use is what the program counted by its own hand.
fn picture_of_kept(target: &mut Target, truth: &Truth) -> Heap {
    let heap = picture(target, truth);
    heap::kept_is_in_use(&heap, truth);
    heap
}

#[test]
fn mixed_sizes_of_which_every_second_is_freed() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_mixed"), &[]);
    let heap = picture_of_kept(&mut target, &truth);
    assert_eq!(heap.arenas.len(), 1);
    assert!(heap.allocator.starts_with("glibc 2."), "{}", heap.allocator);
    let count = truth.number("kept_count");
    assert!(
        (count..count + 100).contains(&heap.in_use_count),
        "{} blocks in use, {count} kept",
        heap.in_use_count
    );
}

#[test]
fn eight_threads_on_arenas_of_their_own() {
    if !kernel::required() {
        return;
    }
    let mut command = Command::new(Program::c("heap_mixed").path);
    // Whatever the number of CPUs, by which glibc limits them.
    command
        .args(["--threads", "8"])
        .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=9");
    let (mut target, truth) = at_rest(Target::start_command(command));
    let heap = picture_of_kept(&mut target, &truth);
    assert_eq!(heap.arenas.len(), 9);
    assert_eq!(heap.arenas.iter().filter(|arena| arena.main).count(), 1);
    // Each thread has a tcache, and it has freed every second block of all sizes.
    assert!(
        heap.free_kinds.tcache.count >= 8 * 64 * 7 * 9 / 10,
        "{:?}",
        heap.free_kinds
    );
}

#[test]
fn one_arena_for_all_threads() {
    if !kernel::required() {
        return;
    }
    let mut command = Command::new(Program::c("heap_mixed").path);
    command.args(["--threads", "8"]).env("MALLOC_ARENA_MAX", "1");
    let (mut target, truth) = at_rest(Target::start_command(command));
    let heap = picture_of_kept(&mut target, &truth);
    assert_eq!(heap.arenas.len(), 1);
    assert!(
        heap.free_kinds.tcache.count >= 8 * 64 * 7 * 9 / 10,
        "{:?}",
        heap.free_kinds
    );
}

/// What malloc_trim(0) gives back is what was foretold of it.
fn trims_as_foretold(target: &mut Target, foretold: &Heap) -> (Truth, Heap) {
    target.go();
    let truth = target.truth();
    let trimmed = truth.number("trimmed_bytes");
    let trim = foretold.trim_bytes.expect("pagemap can be read");
    assert!(
        trim.abs_diff(trimmed) <= trimmed / 50 + TOLERANCE_BYTES,
        "malloc_trim was said to give back {trim} bytes at most, and gave {trimmed}"
    );
    let heap = picture_of_kept(target, &truth);
    let left = heap.trim_bytes.expect("pagemap can be read");
    assert!(
        left <= trimmed / 50,
        "{left} bytes to trim after a trim of {trimmed}"
    );
    (truth, heap)
}

/// Resident in the heap is what the program's own page map says.
fn resident_agrees(heap: &Heap, truth: &Truth) {
    let resident = heap.resident_bytes.expect("pagemap can be read");
    let own = truth.number("own_bytes");
    heap::near("resident", resident, own, heap);
}

#[test]
fn forty_rounds_of_shrinking_blocks() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_holes"), &["--consolidated"]);
    let heap = picture_of_kept(&mut target, &truth);
    assert!(heap.in_use_bytes < 3 << 20, "{heap:?}");
    assert!(heap.free_bytes > 270 << 20, "{heap:?}");
    resident_agrees(&heap, &truth);
    let largest = *heap.largest_free_bytes.first().expect("there are holes");
    assert!(
        (20 << 10..1 << 20).contains(&largest),
        "a hole of {largest} bytes"
    );
    let (truth, trimmed) = trims_as_foretold(&mut target, &heap);
    resident_agrees(&trimmed, &truth);
}

/// The same with the small rests in fastbins: they look in use, and keep the holes apart. malloc_trim consolidates them.
#[test]
fn shrinking_blocks_with_rests_in_fastbins() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_holes"), &[]);
    let heap = picture_of_kept(&mut target, &truth);
    assert!(heap.in_use_bytes < 3 << 20, "{heap:?}");
    assert!(heap.free_kinds.fastbins.count > 200_000, "{heap:?}");
    resident_agrees(&heap, &truth);
    trims_as_foretold(&mut target, &heap);
}

#[test]
fn large_blocks_with_mappings_of_their_own() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_mapped"), &[]);
    let heap = picture(&mut target, &truth);
    assert_eq!(heap.mapped_count, truth.number("block_count"));
    // Each by its size.
    assert_eq!(
        heap.mapped_rows(),
        (heap.mapped_count, heap.mapped_bytes),
        "{heap:?}"
    );
}

/// Of memalign and posix_memalign: the header that counts does not stand where the mapping begins.
#[test]
fn large_aligned_blocks() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_mapped"), &["--aligned"]);
    let heap = picture(&mut target, &truth);
    assert_eq!(heap.mapped_count, truth.number("block_count"));
    // Each by its size.
    assert_eq!(
        heap.mapped_rows(),
        (heap.mapped_count, heap.mapped_bytes),
        "{heap:?}"
    );
}

#[test]
fn full_lists_of_small_chunks() {
    if !kernel::required() {
        return;
    }
    for threads in ["0", "4"] {
        let (mut target, truth) = start(&Program::c("heap_lists"), &["--threads", threads]);
        let heap = picture_of_kept(&mut target, &truth);
        let (tcache, fastbins) = (heap.free_kinds.tcache, heap.free_kinds.fastbins);
        assert_eq!(tcache.count, truth.number("tcache_count"));
        assert_eq!(fastbins.count, truth.number("fastbin_count"));
        // The sizes of its own: a library's few blocks may have the same.
        let kept = truth.number("kept_of_a_size");
        for bytes in (0..truth.number("sizes")).map(|index| 24 + 16 * index) {
            let count = heap.count_of(bytes);
            assert!(
                (kept..kept + 12).contains(&count),
                "{count} blocks of {bytes} bytes, {kept} kept"
            );
        }
    }
}

#[test]
fn a_heap_whose_top_was_given_back() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = start(&Program::c("heap_top"), &["--keep-top"]);
    let kept = picture_of_kept(&mut target, &truth);
    assert_eq!(kept.free_kinds.top.bytes, truth.number("keepcost"));
    let trim = kept.trim_bytes.expect("pagemap can be read");
    assert!(
        trim.abs_diff(truth.number("keepcost")) <= TOLERANCE_BYTES,
        "{trim} bytes to trim of a top of {}",
        truth.number("keepcost")
    );
    for how in [&[][..], &["--keep-top", "--trim"]] {
        let (mut target, truth) = start(&Program::c("heap_top"), how);
        let heap = picture_of_kept(&mut target, &truth);
        assert_eq!(heap.free_kinds.top.bytes, truth.number("keepcost"));
        assert!(heap.free_bytes < 256 << 10, "{how:?}: {heap:?}");
        assert!(
            heap.trim_bytes.is_some_and(|bytes| bytes < 256 << 10),
            "{how:?}: {heap:?}"
        );
    }
}

/// No picture, and the reason is the allocator by its name.
fn abstains(pid: u32, name: &str) {
    let why = match heap::picture(pid) {
        Ok(picture) => panic!("a picture of a heap of {name}: {:?}", picture.heap),
        Err(why) => why,
    };
    assert!(
        why.to_lowercase().contains(name),
        "the reason does not name {name}: {why}"
    );
}

#[test]
fn other_allocators_are_named_and_left_alone() {
    if !kernel::required() {
        return;
    }
    for (library, name) in [("libjemalloc.so.2", "jemalloc"), ("libmimalloc.so.2", "mimalloc")] {
        let mut command = Command::new(Program::c("heap_mixed").path);
        command.args(["--threads", "2"]).env("LD_PRELOAD", library);
        let (mut target, _) = at_rest(Target::start_command(command));
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap_or_default();
        assert!(maps.contains(name), "{library} was not loaded");
        abstains(target.pid(), name);
        assert!(target.is_well());
    }
    // As its distribution builds it.
    let redis = Redis::start();
    abstains(redis.pid(), "jemalloc");
}

#[test]
fn static_programs() {
    if !kernel::required() {
        return;
    }
    for flags in [&["-static"][..], &["-static", "-s"]] {
        let program = Program::c_with("heap_mixed", flags);
        for arguments in [&[][..], &["--threads", "3"]] {
            let (mut target, truth) = start(&program, arguments);
            picture_of_kept(&mut target, &truth);
        }
        let (mut target, truth) = start(&Program::c_with("heap_lists", flags), &[]);
        let heap = picture_of_kept(&mut target, &truth);
        assert_eq!(heap.free_kinds.fastbins.count, truth.number("fastbin_count"));
    }
}

/// With every object from malloc, and with the interpreter's own arenas, which it maps beside the heap.
#[test]
fn a_python_of_many_objects() {
    if !kernel::required() {
        return;
    }
    for malloc in [Some("malloc"), None] {
        let program = Program::python("heap_objects");
        let mut command = Command::new(&program.path);
        command.args(&program.arguments);
        if let Some(which) = malloc {
            command.env("PYTHONMALLOC", which);
        }
        let (mut target, truth) = at_rest(Target::start_command(command));
        let heap = heap::of_quiet(target.pid());
        assert!(target.is_well());
        heap::agrees(&heap, &truth);
        heap::mapped_agree(&heap, &truth);
        // 13,300 dictionaries, with texts of 1,500 bytes each.
        assert!(heap.in_use_bytes > 10 << 20, "{malloc:?}: {heap:?}");
    }
}

/// A backend that tells its `mallinfo2` at a signal.
struct Backend<'a> {
    session: Session,
    pid: u32,
    folder: &'a std::path::Path,
}

impl Backend<'_> {
    fn truth(&self) -> Truth {
        let path = self.folder.join(self.pid.to_string());
        let _ = std::fs::remove_file(&path);
        let signal = libc::SIGRTMIN() + 3;
        let pid = libc::pid_t::try_from(self.pid).expect("a PID");
        // SAFETY: plain arguments; the backend is a child of a server that this test started, and is alive: it has a
        // session here.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(text) = std::fs::read_to_string(&path) {
                return serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            assert!(Instant::now() < deadline, "the backend does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A server that nobody wrote for this test, on libc's malloc.
#[test]
fn a_postgres_backend_tells_the_same_of_its_heap() {
    if !kernel::required() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everyone).expect("it is ours");
    // In a folder that its user can search.
    let teller = folder.path().join("heap_teller.so");
    programs::copy(&Program::preload("heap_teller"), &teller);
    let environment = [
        ("LD_PRELOAD", teller.as_os_str()),
        ("HEAP_TELLER", folder.path().as_os_str()),
    ];
    let postgres = Postgres::start_with(&environment);
    let mut session = postgres.connect();
    let pid = session.backend();
    let mut backend = Backend {
        session,
        pid,
        folder: folder.path(),
    };
    let before = backend.truth().number("uordblks");
    let load = "DO $$ BEGIN FOR i IN 1..600 LOOP EXECUTE format('PREPARE p%s AS SELECT c.*, a.* FROM pg_class c \
                JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = $1 AND a.attnum > %s', i, i); END LOOP; \
                END $$; SELECT count(*) FROM pg_prepared_statements;";
    assert_eq!(backend.session.ask(load), "600");
    let truth = backend.truth();
    let heap = heap::of_quiet(backend.pid);
    heap::agrees(&heap, &truth);
    heap::mapped_agree(&heap, &truth);
    assert!(truth.number("uordblks") > before + (10 << 20), "{truth:?}");
    let resident = heap.resident_bytes.expect("pagemap can be read");
    assert!(resident <= resident_bytes(backend.pid), "{heap:?}");

    // At work: the sums hold, and it works on.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (taken, given_up) = std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let (mut taken, mut given_up) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match heap::picture(pid) {
                    Ok(_) => taken += 1,
                    Err(why) => {
                        assert!(why.contains("contradicts itself"), "{why}");
                        given_up += 1;
                    }
                }
            }
            (taken, given_up)
        });
        for _ in 0..4 {
            assert_eq!(
                backend.session.ask(
                    "SELECT count(*) FROM (SELECT i, repeat('x', i % 3000) t FROM generate_series(1, 60000) i ORDER BY 2) s;"
                ),
                "60000"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        looker.join().expect("the looker does not panic")
    });
    eprintln!("a backend at work: {taken} pictures, {given_up} given up");
    assert!(taken > given_up, "{taken} pictures, {given_up} given up");
    assert_eq!(backend.session.ask("SELECT 6 * 7;"), "42");
}
