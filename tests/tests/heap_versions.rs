//! Heaps of releases of glibc other than the machine's own, and heaps that lie or look otherwise than usual: what
//! leakwatch counts is what the program's own mallinfo says.

use std::process::Command;

use leakwatch_tests::glibcs::{self, Glibc};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::{Program, leakwatch};
use leakwatch_tests::target::{Target, Truth};
use serde_json::Value;

/// In use may differ from what the program says by one part in a hundred, or by this much where that is more.
const TOLERANCE_BYTES: u64 = 64 << 10;

/// What `leakwatch heap` says.
struct Heap(Value);

impl Heap {
    /// The picture, or why there is none.
    fn of(pid: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("heap.json");
        let mut command = Command::new(leakwatch());
        command.args(["heap", "-p", &pid.to_string(), "-o"]).arg(&path);
        let output = command.output().expect("leakwatch runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = std::fs::read_to_string(&path).expect("leakwatch wrote it");
        let picture: Value = serde_json::from_str(&text).expect("it is JSON");
        Ok(Self(picture["heap"].clone()))
    }

    fn number(&self, pointer: &str) -> u64 {
        let number = self.0.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no {pointer} in {}", self.0))
    }

    fn arenas(&self) -> &[Value] {
        self.0["arenas"].as_array().map_or(&[], Vec::as_slice)
    }

    /// As mallinfo counts: with what tcaches keep, and with the allocator's own headers.
    fn used(&self) -> u64 {
        self.number("/in_use_bytes")
            + self.number("/free_kinds/tcache/bytes")
            + self.number("/overhead_bytes")
    }

    /// How many blocks of the size class are in use, and how many free.
    fn class(&self, chunk: u64) -> (u64, u64) {
        let classes = self.0["classes"].as_array().map_or(&[][..], Vec::as_slice);
        let of_size = classes.iter().filter(|class| class["chunk_bytes"] == chunk);
        of_size.fold((0, 0), |(in_use, free), class| {
            (
                in_use + class["count"].as_u64().unwrap_or(0),
                free + class["free_count"].as_u64().unwrap_or(0),
            )
        })
    }
}

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
            heap: Heap::of(target.pid()),
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
        let (used, truth) = (heap.used(), self.truth.number("used_bytes"));
        eprintln!(
            "glibc {} {}: {used} in use of {truth}, {} mapped of {}, fastbins {} of {}, {} arenas of {} bytes",
            self.version(),
            self.what.rsplit(' ').next().unwrap_or_default(),
            heap.number("/mapped_bytes"),
            self.truth.number("mapped_bytes"),
            heap.number("/free_kinds/fastbins/bytes"),
            self.truth.number("fastbin_bytes"),
            heap.arenas().len(),
            self.truth.number("arena"),
        );
        let near = |own: u64, said: u64| own.abs_diff(said) <= TOLERANCE_BYTES.max(said / 100);
        assert!(near(used, truth), "{}: {used} in use, {truth} said", self.what);
        // A break that is not aligned as chunks are costs some bytes.
        let arenas = heap.arenas().iter();
        let system: u64 = arenas.filter_map(|arena| arena["system_bytes"].as_u64()).sum();
        let lost = self.truth.number("arena").checked_sub(system);
        assert!(
            lost.is_some_and(|lost| lost < 16),
            "{system} bytes: {} {:?}",
            self.what,
            self.truth
        );
        let fast = heap.number("/free_kinds/fastbins/bytes");
        assert_eq!(fast, self.truth.number("fastbin_bytes"), "{}", self.what);
        assert_eq!(
            heap.number("/mapped_count"),
            self.truth.number("mapped"),
            "{}",
            self.what
        );
        // 2.43 counts a header too many for each block that was moved.
        let mapped = heap.number("/mapped_bytes");
        assert!(near(mapped, self.truth.number("mapped_bytes")), "{}", self.what);
        let allocator = heap.0["allocator"].as_str().unwrap_or_default();
        assert_eq!(allocator, format!("glibc {}", self.version()), "{}", self.what);
        heap
    }
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
        let (in_use, free) = heap.class(544);
        assert_eq!((in_use, free), (50_000, 50_000), "{}", case.what);
        let cached = heap.number("/free_kinds/tcache/count");
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
        let cached = heap.number("/free_kinds/tcache/count");
        assert!(
            (140..=340).contains(&cached),
            "{cached} in the tcache: {}",
            case.what
        );
        for chunk in (0..20).map(|class| 32 + 16 * class) {
            let (in_use, _) = heap.class(chunk);
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
            let cached = case.agreed().number("/free_kinds/tcache/count");
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
        let threads = heap.arenas().iter().filter(|arena| arena["main"] == false);
        let heaps: u64 = threads.filter_map(|arena| arena["heaps"].as_u64()).sum();
        assert!(heaps > 8, "no arena is in several heaps: {}", case.what);
        assert!(
            heap.number("/free_kinds/tcache/count") > 8 * 7 * 50,
            "{}",
            case.what
        );
    });
    each_release("threads", &[("MALLOC_ARENA_MAX", "1")], |_, case| {
        assert_eq!(case.agreed().arenas().len(), 1, "{}", case.what);
    });
}

#[test]
fn blocks_with_mappings_of_their_own_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("large", &[], |_, case| {
        assert_eq!(case.agreed().number("/mapped_count"), 57, "{}", case.what);
    });
    each_release("mapped", &[], |_, case| {
        assert!(case.agreed().number("/mapped_count") >= 666, "{}", case.what);
    });
}

#[test]
fn a_main_heap_in_pieces_of_each_release() {
    if !kernel::required() {
        return;
    }
    each_release("pieces", &[], |_, case| {
        let heap = case.agreed();
        let main = heap.arenas().iter().find(|arena| arena["main"] == true);
        let pieces = main.and_then(|arena| arena["heaps"].as_u64()).unwrap_or(0);
        assert!(pieces > 3, "{pieces} pieces: {}", case.what);
        assert_eq!(heap.number("/mapped_count"), 5, "{}", case.what);
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
