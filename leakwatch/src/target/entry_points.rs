//! The functions by which a process takes blocks from its allocator: which they are, where they are in its files, and
//! whether they may be watched at all.
//!
//! A return probe replaces a return address. That is safe where calls return in order and on the stack that they came on,
//! as all calls of C's allocator do, whatever stack the caller runs on: the allocator does not give the processor away to
//! another stack, throws nothing and jumps out of nothing. It is not where the processor itself keeps a second record
//! of return addresses, or where the kernel's way back is a system call that a filter of the process kills it for. And
//! it is no use where the heap cannot be read.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use leakwatch_ebpf::wire::alloc::Cookie;

use super::allocator::{self, Allocator};
use super::elf_names;
use super::elf_symbols::{self, Functions};
use super::proc::Proc;

/// A function that returns a block: its names, and where its arguments are.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// The name in reports.
    pub name: &'static str,
    /// All names; those that lead to one address are one function.
    names: &'static [&'static str],
    size: u8,
    count: Option<u8>,
    old: Option<u8>,
    store: Option<u8>,
}

impl Function {
    const fn of(name: &'static str, names: &'static [&'static str], size: u8) -> Self {
        Self {
            name,
            names,
            size,
            count: None,
            old: None,
            store: None,
        }
    }
}

/// Every function that takes a block, the most used first. `operator new` and whatever else calls one of these needs no row.
pub const FUNCTIONS: [Function; 8] = [
    Function::of("malloc", &["malloc", "__libc_malloc"], 0),
    Function {
        count: Some(0),
        ..Function::of("calloc", &["calloc", "__libc_calloc"], 1)
    },
    Function {
        old: Some(0),
        ..Function::of("realloc", &["realloc", "__libc_realloc"], 1)
    },
    Function {
        old: Some(0),
        count: Some(1),
        ..Function::of("reallocarray", &["reallocarray", "__libc_reallocarray"], 2)
    },
    Function::of("memalign", &["memalign", "__libc_memalign", "aligned_alloc"], 1),
    Function {
        store: Some(0),
        ..Function::of("posix_memalign", &["posix_memalign", "__posix_memalign"], 2)
    },
    Function::of("valloc", &["valloc", "__libc_valloc"], 0),
    Function::of("pvalloc", &["pvalloc", "__libc_pvalloc"], 0),
];

/// `malloc`, to which others are alike.
#[must_use]
pub fn malloc() -> &'static Function {
    let [malloc, ..] = &FUNCTIONS;
    malloc
}

/// The function of this number, as births name it.
#[must_use]
pub fn function(number: u32) -> Option<&'static Function> {
    FUNCTIONS.get(usize::try_from(number).ok()?)
}

/// Where a function begins in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    pub function: &'static Function,
    /// In the file, bytes.
    pub offset: u64,
    /// The kernel does not emulate its first instruction: a hit costs several times as much.
    pub stepped: bool,
}

impl EntryPoint {
    /// What the kernel side is told of it.
    #[must_use]
    pub fn cookie(&self) -> Cookie {
        let &Function {
            size,
            count,
            old,
            store,
            ..
        } = self.function;
        let number = FUNCTIONS.iter().position(|function| function == self.function);
        Cookie {
            function: number
                .and_then(|number| u8::try_from(number).ok())
                .unwrap_or(u8::MAX),
            size,
            count,
            old,
            store,
            stepped: self.stepped,
        }
    }
}

/// The entry points of a process, all in one file.
#[derive(Debug)]
pub struct EntryPoints {
    /// The very file that is mapped, whatever stands under its name by now.
    pub file: OwnedFd,
    /// In the order of [`FUNCTIONS`].
    pub points: Vec<EntryPoint>,
    /// The deepest that a thread's own stack can be thought to go, bytes.
    pub stack_bytes_max: u64,
}

/// Why the functions must not be watched, or need not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its heap cannot be read, so that nobody could say which blocks were freed.
    OtherAllocator(Allocator),
    /// Another library's or the executable's own `malloc` stands before glibc's.
    Interposed,
    /// A static executable that names no function.
    NoSymbols,
    /// Not a 64-bit process of this machine.
    OtherMachine,
    /// Its return addresses are kept on a shadow stack as well.
    ShadowStack,
    /// Its system calls are filtered, and this kernel's return probes make one on its behalf.
    FilteredSystemCalls,
    /// What could not be read.
    Unreadable(String),
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherAllocator(allocator) => write!(
                formatter,
                "the heap of this allocator cannot be read: {allocator}"
            ),
            Self::Interposed => formatter.write_str("it brings a malloc of its own before glibc's"),
            Self::NoSymbols => formatter.write_str("it is static and names no malloc"),
            Self::OtherMachine => formatter.write_str("it is no 64-bit process of this machine"),
            Self::ShadowStack => formatter.write_str("it runs with a shadow stack"),
            Self::FilteredSystemCalls => formatter.write_str(
                "it filters its system calls, and the return probes of Linux 6.11 to 6.13 make one",
            ),
            Self::Unreadable(what) => write!(formatter, "cannot read {what}"),
        }
    }
}

impl std::error::Error for Why {}

/// The functions of process `pid`, whose allocator is as [`allocator::identify`] tells it.
///
/// # Errors
///
/// Why they must not be watched.
pub fn safe_to_probe(proc: &Proc, pid: u32, allocator: &Allocator) -> Result<EntryPoints, Why> {
    if !matches!(allocator, Allocator::Glibc { .. }) {
        return Err(match allocator {
            Allocator::UnknownStatic => Why::NoSymbols,
            other => Why::OtherAllocator(other.clone()),
        });
    }
    let status = read_text(proc, pid, "status")?;
    allowed(&status, kernel_version())?;
    let unreadable = |what: &str, error: &io::Error| Why::Unreadable(format!("{what}: {error}"));
    let exe = proc.entry(pid, "exe");
    let library = allocator::mapped_glibc(proc, pid).map_err(|error| unreadable("its maps", &error))?;
    let file = match &library {
        Some(library) => {
            let own = functions_of(&exe, "its executable")?;
            if own.dynamic.iter().any(|symbol| symbol.name == malloc().name) {
                return Err(Why::Interposed);
            }
            open_library(proc, pid, library).map_err(|error| unreadable("its C library", &error))?
        }
        None => elf_names::open(&exe).map_err(|error| unreadable("its executable", &error))?,
    };
    let functions = elf_symbols::read(&file, &wanted()).map_err(|error| {
        if error.kind() == io::ErrorKind::Unsupported {
            Why::OtherMachine
        } else {
            unreadable("its functions' names", &error)
        }
    })?;
    let points = points(&functions);
    if !points.iter().any(|point| point.function == malloc()) {
        return Err(Why::NoSymbols);
    }
    Ok(EntryPoints {
        file: file.into(),
        points,
        stack_bytes_max: stack_bytes_max(&read_text(proc, pid, "limits")?),
    })
}

fn read_text(proc: &Proc, pid: u32, entry: &'static str) -> Result<String, Why> {
    let bytes = proc
        .read(pid, entry, 64 * 1024)
        .map_err(|error| Why::Unreadable(format!("its {entry}: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn functions_of(path: &Path, what: &str) -> Result<Functions, Why> {
    elf_names::open(path)
        .and_then(|file| elf_symbols::read(&file, &wanted()))
        .map_err(|error| {
            if error.kind() == io::ErrorKind::Unsupported {
                Why::OtherMachine
            } else {
                Why::Unreadable(format!("{what}: {error}"))
            }
        })
}

fn wanted() -> Vec<&'static str> {
    FUNCTIONS
        .iter()
        .flat_map(|function| function.names)
        .copied()
        .collect()
}

/// By the mapping itself; where that is not allowed, by its name as the process sees it, if that is still the same file.
fn open_library(proc: &Proc, pid: u32, library: &allocator::MappedFile) -> io::Result<File> {
    let by_range = library
        .range_name()
        .map(|range| elf_names::open(&proc.entry(pid, "map_files").join(range)));
    match by_range {
        Some(Ok(file)) => Ok(file),
        _ => library.open_by_name(&proc.entry(pid, "root")),
    }
}

/// From the names that were found, each address once.
fn points(functions: &Functions) -> Vec<EntryPoint> {
    let mut points: Vec<EntryPoint> = Vec::new();
    for function in &FUNCTIONS {
        let found = functions
            .dynamic
            .iter()
            .chain(&functions.others)
            .find(|symbol| function.names.contains(&symbol.name));
        if let Some(symbol) = found
            && !points.iter().any(|point| point.offset == symbol.offset)
        {
            points.push(EntryPoint {
                function,
                offset: symbol.offset,
                stepped: symbol.stepped,
            });
        }
    }
    points
}

/// What `/proc/PID/status` and the kernel's version say against it.
fn allowed(status: &str, kernel: Option<(u32, u32)>) -> Result<(), Why> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    if field("x86_Thread_features")
        .is_some_and(|features| features.split(' ').any(|feature| feature == "shstk"))
    {
        return Err(Why::ShadowStack);
    }
    // The trampoline of a return probe is a system call since 6.11; only since 6.14 do filters let it pass.
    let asks_the_filter = kernel.is_none_or(|kernel| ((6, 11)..(6, 14)).contains(&kernel));
    if asks_the_filter && field("Seccomp").is_some_and(|mode| mode != "0") {
        return Err(Why::FilteredSystemCalls);
    }
    Ok(())
}

fn kernel_version() -> Option<(u32, u32)> {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().ok()?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// From `/proc/PID/limits`. The main thread's stack may grow to its limit, and other threads' are made so large unless
/// the program says otherwise.
fn stack_bytes_max(limits: &str) -> u64 {
    const LEAST: u64 = 8 << 20;
    const MOST: u64 = 64 << 20;
    limits
        .lines()
        .find_map(|line| {
            line.strip_prefix("Max stack size")?
                .split_ascii_whitespace()
                .next()
        })
        .and_then(|soft| soft.parse::<u64>().ok())
        .unwrap_or(MOST)
        .clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_cookie_of_its_own_that_says_what_it_is() {
        let mut seen = std::collections::BTreeSet::new();
        for (number, function) in FUNCTIONS.iter().enumerate() {
            for stepped in [false, true] {
                let cookie = EntryPoint {
                    function,
                    offset: 0,
                    stepped,
                }
                .cookie();
                assert_eq!(usize::from(cookie.function), number);
                assert_eq!(Cookie::from_bits(cookie.to_bits()), cookie);
                assert!(cookie.to_bits() != 0 && seen.insert(cookie.to_bits()));
            }
        }
        assert_eq!(function(2).map(|function| function.name), Some("realloc"));
        assert_eq!(function(8), None);
    }

    #[test]
    fn shadow_stacks_and_filters_speak_against_it() {
        let plain = "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\nx86_Thread_features:\t\n";
        assert_eq!(allowed(plain, Some((6, 12))), Ok(()));
        let shadowed = plain.replace("features:\t", "features:\tshstk wrss ");
        assert_eq!(allowed(&shadowed, Some((6, 18))), Err(Why::ShadowStack));
        let filtered = plain.replace("Seccomp:\t0", "Seccomp:\t2");
        for (kernel, refused) in [
            ((5, 15), false),
            ((6, 10), false),
            ((6, 11), true),
            ((6, 13), true),
            ((6, 14), false),
        ] {
            assert_eq!(allowed(&filtered, Some(kernel)).is_err(), refused, "{kernel:?}");
        }
        assert_eq!(allowed(&filtered, None), Err(Why::FilteredSystemCalls));
        assert!(kernel_version().is_some_and(|(major, _)| major >= 5));
    }

    #[test]
    fn the_stack_is_as_deep_as_its_limit() {
        let limits =
            |soft: &str| format!("Limit   Soft   Hard   Units\nMax stack size   {soft}   unlimited  bytes\n");
        assert_eq!(stack_bytes_max(&limits("16777216")), 16 << 20);
        assert_eq!(stack_bytes_max(&limits("65536")), 8 << 20);
        assert_eq!(stack_bytes_max(&limits("unlimited")), 64 << 20);
        assert_eq!(stack_bytes_max(""), 64 << 20);
    }

    #[test]
    fn this_very_process_has_them_all() {
        let (proc, own) = (Proc::host(), std::process::id());
        let found = allocator::identify(&proc, own).unwrap();
        let points = safe_to_probe(&proc, own, &found).unwrap();
        let names: Vec<&str> = points.points.iter().map(|point| point.function.name).collect();
        assert_eq!(names.first(), Some(&"malloc"));
        for name in ["calloc", "realloc", "memalign", "posix_memalign"] {
            assert!(names.contains(&name), "{names:?}");
        }
    }

    #[test]
    fn other_allocators_are_refused() {
        let (proc, own) = (Proc::host(), std::process::id());
        for other in [
            Allocator::Go,
            Allocator::Jemalloc,
            Allocator::Musl,
            Allocator::Jvm,
            Allocator::Unknown,
        ] {
            assert_eq!(
                safe_to_probe(&proc, own, &other).unwrap_err(),
                Why::OtherAllocator(other)
            );
        }
        let refused = safe_to_probe(&proc, own, &Allocator::UnknownStatic).unwrap_err();
        assert_eq!(refused, Why::NoSymbols);
    }
}
