//! Heaps of releases of glibc other than the machine's own, and heaps that lie or look otherwise than usual: what
//! leakwatch counts is what the program's own mallinfo says.

use std::process::Command;

use leakwatch_tests::glibcs::{self, Glibc};
use leakwatch_tests::heap::{self, Heap};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::target::{Target, Truth};

/// A program in its shape, what it says of itself, and what leakwatch does.
struct Case {
    what: String,
    truth: Truth,
    heap: Result<Heap, String>,
    _target: Target,
}

impl Case {
    fn of(mut command: Command, shape: &str, environment: &[(&str, &str)]) -> Self {
        command.arg(shape).envs(environment.iter().copied());
        let what = format!("{command:?}");
        let mut target = Target::start_command(command);
        target.go();
        let truth = target.truth();
        Self {
            what,
            heap: heap::picture(target.pid()).map(|picture| picture.heap),
            truth,
            _target: target,
        }
    }

    fn version(&self) -> &str {
        self.truth.more["version"].as_str().unwrap_or_default()
    }

    /// Whether leakwatch says that it does not know this release, and then it must be newer than all that it knows.
    fn is_too_new(&self) -> bool {
        let Err(why) = &self.heap else {
            return false;
        };
        let unknown = why.contains("is not known") && why.contains(self.version());
        let minor = self.version().split('.').nth(1).and_then(|it| it.parse().ok());
        unknown && minor.is_some_and(|minor: u32| minor > NEWEST_KNOWN)
    }

    /// The heap, which is what the program says.
    fn agreed(&self) -> &Heap {
        let heap = self
            .heap
            .as_ref()
            .unwrap_or_else(|why| panic!("{}: {why}", self.what));
        let system: u64 = heap.arenas.iter().map(|arena| arena.system_bytes).sum();
        eprintln!(
            "{}: {} in use, {system} in all, {} mapped, {} in fastbins; {:?}",
            self.what,
            heap.uordblks(),
            heap.mapped_bytes,
            heap.free_kinds.fastbins.bytes,
            self.truth.more
        );
        heap::agrees(heap, &self.truth);
        // A break that is not aligned as chunks are costs some bytes.
        let lost = self.truth.number("system").checked_sub(system);
        assert!(
            lost.is_some_and(|lost| lost < 16),
            "{system} bytes: {}",
            self.what
        );
        assert_eq!(
            heap.mapped_count,
            self.truth.number("mapped_count"),
            "{}",
            self.what
        );
        // 2.43 counts a header too many for each block that was moved.
        let more = self.truth.number("mapped_bytes").checked_sub(heap.mapped_bytes);
        assert!(more.is_some_and(|more| more <= 16), "{}", self.what);
        assert_eq!(
            heap.allocator,
            format!("glibc {}", self.version()),
            "{}",
            self.what
        );
        heap
    }
}

/// How many blocks of a chunk's size are in use, and how many free.
fn class(heap: &Heap, chunk: u64) -> (u64, u64) {
    let of_size = heap.classes.iter().filter(|class| class.chunk_bytes == chunk);
    of_size.fold((0, 0), |(in_use, free), class| {
        (in_use + class.count, free + class.free_count.unwrap_or(0))
    })
}

/// The newest release whose layout leakwatch knows.
const NEWEST_KNOWN: u32 = 44;

fn heap_kinds() -> Program {
    glibcs::portable("heap_kinds")
}

/// Each release by its own loader, but those that are newer than leakwatch.
fn each_release(shape: &str, environment: &[(&str, &str)], mut check: impl FnMut(&Glibc, &Case)) {
    let program = heap_kinds();
    let mut versions = Vec::new();
    for glibc in glibcs::all() {
        let case = Case::of(glibc.by_loader(&program), shape, environment);
        if case.is_too_new() {
            eprintln!("{} has glibc {}, which is too new", glibc.suite, case.version());
            continue;
        }
        versions.push(case.version().to_owned());
        check(&glibc, &case);
    }
    versions.sort();
    versions.dedup();
    assert!(versions.len() >= 2, "only these releases: {versions:?}");
}

#[test]
fn small_blocks_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("small", &[], |_, case| {
        let heap = case.agreed();
        let (in_use, free) = class(heap, 544);
        assert_eq!((in_use, free), (50_000, 50_000), "{}", case.what);
        let cached = heap.free_kinds.tcache.count;
        assert!(
            (7..=24).contains(&cached),
            "{cached} in the tcache: {}",
            case.what
        );
    });
}

#[test]
fn lists_of_free_blocks_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("lists", &[], |_, case| {
        let heap = case.agreed();
        // Of each of twenty sizes the tcache keeps as many as it may.
        let cached = heap.free_kinds.tcache.count;
        assert!(
            (140..=340).contains(&cached),
            "{cached} in the tcache: {}",
            case.what
        );
        for chunk in (0..20).map(|class| 32 + 16 * class) {
            let (in_use, _) = class(heap, chunk);
            assert!((50..60).contains(&in_use), "{in_use} of {chunk}: {}", case.what);
        }
    });
}

/// A tcache can be tuned to keep more, or larger blocks, or none.
#[test]
fn a_tuned_tcache_of_each_release() {
    if !kernel::required() {
        return;
    }
    for (tunables, most) in [
        ("glibc.malloc.tcache_count=0", 0),
        ("glibc.malloc.tcache_count=100", 2040),
        ("glibc.malloc.tcache_max=4000000", 400),
        ("glibc.malloc.tcache_max=200:glibc.malloc.tcache_count=50", 600),
    ] {
        each_release("lists", &[("GLIBC_TUNABLES", tunables)], |_, case| {
            let cached = case.agreed().free_kinds.tcache.count;
            assert!(cached <= most, "{cached} in the tcache: {}", case.what);
            assert_eq!(cached > 0, most > 0, "{cached} in the tcache: {}", case.what);
        });
    }
}

#[test]
fn arenas_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("threads", &[], |_, case| {
        let heap = case.agreed();
        let threads = heap.arenas.iter().filter(|arena| !arena.main);
        let arenas = threads.clone().count();
        let heaps: u64 = threads.map(|arena| arena.heaps).sum();
        assert!(
            heaps > arenas as u64,
            "no arena is in several heaps: {}",
            case.what
        );
        assert!(heap.free_kinds.tcache.count > 8 * 7 * 50, "{}", case.what);
    });
    each_release("threads", &[("MALLOC_ARENA_MAX", "1")], |_, case| {
        assert_eq!(case.agreed().arenas.len(), 1, "{}", case.what);
    });
}

#[test]
fn blocks_with_mappings_of_their_own_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("large", &[], |_, case| {
        assert_eq!(case.agreed().mapped_count, 57, "{}", case.what);
    });
    each_release("mapped", &[], |_, case| {
        assert!(case.agreed().mapped_count >= 666, "{}", case.what);
    });
}

#[test]
fn a_main_heap_in_pieces_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("pieces", &[], |_, case| {
        let heap = case.agreed();
        let main = heap.arenas.iter().find(|arena| arena.main);
        let pieces = main.map_or(0, |arena| arena.heaps);
        assert!(pieces > 3, "{pieces} pieces: {}", case.what);
        assert_eq!(heap.mapped_count, 5, "{}", case.what);
    });
}

/// Where a program asks for huge pages, the main heap does not use the break, and heaps are of another size.
#[test]
fn heaps_that_ask_for_huge_pages_of_each_release() {
    if !kernel::required() {
        return;
    }
    for tunable in ["glibc.malloc.hugetlb=1", "glibc.malloc.hugetlb=2"] {
        for shape in ["small", "threads"] {
            each_release(shape, &[("GLIBC_TUNABLES", tunable)], |_, case| {
                case.agreed();
            });
        }
    }
}

/// Another root, with the release's package alone in it.
#[test]
fn a_heap_in_a_chroot_of_each_release() {
    if !kernel::required() {
        return;
    }
    let program = heap_kinds();
    for glibc in glibcs::all() {
        let case = Case::of(
            glibc.in_chroot(&program),
            "small",
            &[("MALLOC_TOP_PAD_", "1000000")],
        );
        if !case.is_too_new() {
            case.agreed();
        }
    }
}
