//! The heap of a process at work: what is said of it holds or is withheld, and the process does not feel it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leakwatch_tests::heap;
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::Target;

const THREADS: usize = 4;
const LINE_BYTES: usize = 64;
const WALKS: u32 = 100;

/// A program that mallocs and frees flat out, and publishes what it holds.
struct Busy {
    target: Target,
    counts: File,
    _folder: tempfile::TempDir,
}

impl Busy {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("counts");
        drop(File::create(&path).expect("the folder is ours"));
        let mut command = Command::new(Program::c("heap_busy").path);
        command.arg("--counts").arg(&path);
        let mut target = Target::start_command(command);
        target.go();
        Self {
            counts: File::open(&path).expect("the program has it too"),
            target,
            _folder: folder,
        }
    }

    /// Bytes and blocks that all of its threads hold, now.
    fn holds(&self) -> (u64, u64) {
        let mut bytes = [0; THREADS * LINE_BYTES];
        self.counts
            .read_exact_at(&mut bytes, 0)
            .expect("the program has made it");
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let lines = (0..THREADS).map(|thread| thread * LINE_BYTES);
        lines.fold((0, 0), |(sum, count), at| (sum + word(at), count + word(at + 8)))
    }
}

#[test]
fn a_hundred_pictures_of_a_heap_under_full_load() {
    if !kernel::required() {
        return;
    }
    let mut busy = Busy::start();
    let mut given_up = Vec::new();
    let (mut furthest, mut longest) = (0.0_f64, Duration::ZERO);
    for _ in 0..WALKS {
        let before = busy.holds();
        let started = Instant::now();
        let picture = heap::picture(busy.target.pid());
        longest = longest.max(started.elapsed());
        let after = busy.holds();
        let heap = match picture {
            Ok(picture) => picture.heap,
            Err(why) => {
                assert!(why.contains("contradicts itself"), "{why}");
                given_up.push(why);
                continue;
            }
        };
        for (what, told, low, high) in [
            (
                "bytes",
                heap.in_use_bytes,
                before.0.min(after.0),
                before.0.max(after.0),
            ),
            (
                "blocks",
                heap.in_use_count,
                before.1.min(after.1),
                before.1.max(after.1),
            ),
        ] {
            assert!(
                (low - low / 20..=high + high / 20).contains(&told),
                "{told} {what} in use by leakwatch, {low} to {high} by the program's own count: {heap:?}"
            );
            #[expect(clippy::cast_precision_loss, reason = "a share, not a count")]
            let off = told.abs_diff(u64::midpoint(low, high)) as f64 / low as f64;
            furthest = furthest.max(off);
        }
    }
    assert!(busy.target.is_well());
    eprintln!(
        "{} of {WALKS} given up; the others are off by {:.2} % at most; the longest took {longest:?}: {:?}",
        given_up.len(),
        furthest * 100.0,
        given_up.first()
    );
    // To abstain is honest, but not always.
    assert!(
        given_up.len() < WALKS as usize / 2,
        "{} of {WALKS} were given up: {}",
        given_up.len(),
        given_up[0]
    );
}

/// The number behind a key of `/proc/PID/status`, bytes.
fn status_bytes(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the target is there");
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("no {key} in {text}")) * 1024
}

/// The states of all of its threads, as letters; and whether anybody traces it.
fn states(pid: u32) -> (String, bool) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let mut letters = String::new();
    let mut traced = false;
    for thread in threads {
        let text = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
        };
        letters.extend(field("State:").and_then(|state| state.chars().next()));
        traced |= field("TracerPid:").is_some_and(|tracer| tracer != "0");
    }
    (letters, traced)
}

#[test]
fn a_busy_process_is_not_stopped_and_does_not_grow() {
    if !kernel::required() {
        return;
    }
    let mut busy = Busy::start();
    let pid = busy.target.pid();
    // Anonymous memory and swap, least and most while `work` runs.
    let extent_of = |work: &mut dyn FnMut()| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let (mut least, mut most) = (u64::MAX, 0);
                while !stop.load(Ordering::Relaxed) {
                    let bytes = status_bytes(pid, "RssAnon:") + status_bytes(pid, "VmSwap:");
                    (least, most) = (least.min(bytes), most.max(bytes));
                    let (letters, traced) = states(pid);
                    let stopped = letters.contains(['t', 'T']);
                    assert!(!stopped && !traced, "states {letters}, traced: {traced}");
                    std::thread::sleep(Duration::from_millis(2));
                }
                (least, most)
            });
            work();
            stop.store(true, Ordering::Relaxed);
            watcher.join().expect("the watcher has nothing to complain of")
        })
    };
    let alone = extent_of(&mut || std::thread::sleep(Duration::from_millis(1500)));
    let watched = extent_of(&mut || {
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            let _ = heap::picture(pid);
        }
    });
    assert!(busy.target.is_well());
    eprintln!("anonymous memory alone {alone:?}, watched {watched:?}");
    // Its heap drifts a little by itself, as fragmentation goes. What is read here is some 30 MiB.
    assert!(
        watched.1 <= alone.1 + (2 << 20),
        "it grew from {alone:?} bytes to {watched:?} while it was looked at"
    );
}

/// A field of the `[heap]` in smaps, bytes.
fn heap_field(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the target is there");
    let own = text
        .lines()
        .skip_while(|line| !line.ends_with("[heap]"))
        .find_map(|line| line.strip_prefix(key));
    let number = own.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("no {key} of a [heap] in {text}")) * 1024
}

/// Pages inside free chunks that were given back stay given back, though the walk passes over them.
#[test]
fn a_trimmed_heap_does_not_come_back() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("heap_holes"), &["--consolidated"]);
    target.go();
    let _ = target.truth();
    target.go();
    let truth = target.truth();
    assert!(truth.number("trimmed_bytes") > 200 << 20, "{truth:?}");
    let pid = target.pid();
    let fields = ["Anonymous:", "Rss:", "Swap:", "Private_Dirty:", "AnonHugePages:"];
    let now = || fields.map(|field| heap_field(pid, field));
    let before = (now(), status_bytes(pid, "RssAnon:"), page_faults(pid));
    for _ in 0..3 {
        let heap = heap::of_quiet(pid);
        heap::agrees(&heap, &truth);
        assert!(heap.free_bytes > 270 << 20, "{heap:?}");
    }
    let after = (now(), status_bytes(pid, "RssAnon:"), page_faults(pid));
    assert_eq!(before, after, "{fields:?} of the heap, RssAnon, page faults");
    assert!(target.is_well());
}

/// Minor and major page faults of a process.
fn page_faults(pid: u32) -> (u64, u64) {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(Path::new(&path)).expect("the target is there");
    let (_, fields) = text.rsplit_once(')').expect("its name is in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields[index].parse().expect("a count");
    (number(7), number(9))
}
