//! What a mapping is for, in finer words than its [`Region`] has. Pure.
//!
//! A region is what the account is kept by, so it holds what /proc tells for sure. A kind says more and may err: that of a
//! thread's stack or of a library's unnamed data is told by its neighbour.

use std::collections::HashSet;

use super::maps::Mapping;
use super::region::{Region, regions};
use super::smaps::MappingSizes;

/// The greatest guard that is taken for that of a stack. glibc's is one page, up to 64 KiB large.
const GUARD_MAX: u64 = 64 << 10;

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The brk heap.
    Heap,
    /// A heap of a glibc thread arena.
    Arena,
    /// Private memory without a file: what malloc takes by mmap, other allocators' heaps, runtimes.
    Anonymous,
    /// The main thread's stack.
    Stack,
    /// Another thread's: anonymous memory right above a small guard, or so named. An allocator that puts guards below
    /// blocks of its own is taken for it. Not told from other anonymous memory where glibc 2.42 or newer makes guards
    /// without a mapping and Linux before 6.19 does not show them.
    ThreadStack,
    /// What a program or library writes to of its own file: variables, relocations; and right behind those in memory what has
    /// no place in the file (`.bss`).
    LibraryData,
    /// Any other private mapping of a file: code, constants, data files.
    File,
    /// Memory or a file that other processes can have too.
    Shared,
    /// Code made at run time: executable, and of no file on disk.
    Jit,
    /// Nothing is allowed there: reservations and guards, which hold no memory.
    Reserved,
    /// vDSO and the like.
    Other,
}

impl Kind {
    /// In a few words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Arena => "thread arena",
            Self::Anonymous => "anonymous",
            Self::Stack => "stack",
            Self::ThreadStack => "thread stack",
            Self::LibraryData => "library data",
            Self::File => "file",
            Self::Shared => "shared",
            Self::Jit => "JIT code",
            Self::Reserved => "reserved",
            Self::Other => "other",
        }
    }
}

/// A mapping's kind, with what it was told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose<'a> {
    pub region: Region,
    pub kind: Kind,
    /// The path of the file that it is a mapping of, or whose data it is though it has no path. Untrusted bytes.
    pub file: Option<&'a [u8]>,
}

/// The purpose of each mapping, in the order given (by address: neighbours tell).
#[must_use]
pub fn purposes(mappings: &[MappingSizes]) -> Vec<Purpose<'_>> {
    let programs: HashSet<_> = mappings
        .iter()
        .map(|sizes| &sizes.mapping)
        .filter(|mapping| mapping.executable && mapping.inode != 0)
        .map(file_of)
        .collect();
    let mut before: Option<(&Mapping, Purpose<'_>)> = None;
    let mut purposes = Vec::with_capacity(mappings.len());
    for (sizes, region) in mappings.iter().zip(regions(mappings)) {
        let adjoining = before.filter(|(below, _)| below.range.end == sizes.mapping.range.start);
        let purpose = purpose(sizes, region, adjoining, &programs);
        before = Some((&sizes.mapping, purpose));
        purposes.push(purpose);
    }
    purposes
}

type FileId = ((u32, u32), u64);

fn file_of(mapping: &Mapping) -> FileId {
    (mapping.device, mapping.inode)
}

fn purpose<'a>(
    sizes: &'a MappingSizes,
    region: Region,
    below: Option<(&'a Mapping, Purpose<'a>)>,
    programs: &HashSet<FileId>,
) -> Purpose<'a> {
    let mapping = &sizes.mapping;
    let path = mapping.path_bytes();
    let kind = match region {
        Region::Heap => Kind::Heap,
        Region::Arena => Kind::Arena,
        // Before Linux 4.5 the kernel named the stacks of threads: `[stack:4711]`.
        Region::Stack if path.starts_with(b"[stack:") => Kind::ThreadStack,
        Region::Stack => Kind::Stack,
        Region::Other => Kind::Other,
        // A runtime that never has memory writable and executable at once (.NET) maps one such file twice.
        Region::Shared | Region::File
            if path.starts_with(b"/memfd:") && programs.contains(&file_of(mapping)) =>
        {
            Kind::Jit
        }
        Region::Shared => Kind::Shared,
        Region::File if mapping.inaccessible() => Kind::Reserved,
        Region::File
            if programs.contains(&file_of(mapping)) && (mapping.writable || sizes.anonymous != 0) =>
        {
            Kind::LibraryData
        }
        Region::File => Kind::File,
        Region::Anonymous => return anonymous(sizes, below),
    };
    Purpose {
        region,
        kind,
        file: path.starts_with(b"/").then_some(path),
    }
}

fn anonymous<'a>(sizes: &MappingSizes, below: Option<(&Mapping, Purpose<'a>)>) -> Purpose<'a> {
    let mapping = &sizes.mapping;
    let path = mapping.path_bytes();
    let of = |kind, file| Purpose {
        region: Region::Anonymous,
        kind,
        file,
    };
    if mapping.inaccessible() {
        return of(Kind::Reserved, None);
    }
    if mapping.executable {
        return of(Kind::Jit, None);
    }
    // The names that glibc (`glibc.mem.decorate_maps`) and Android's libc give.
    let named = path.starts_with(b"[anon: glibc: pthread") || path.starts_with(b"[anon:stack_and_tls");
    // A guard within the mapping (`MADV_GUARD_INSTALL`).
    if named || mapping.writable && sizes.vm_flags.has(*b"gu") {
        return of(Kind::ThreadStack, None);
    }
    if path.starts_with(b"[anon: glibc: malloc arena") {
        return of(Kind::Arena, None);
    }
    match below {
        Some((data, purpose))
            if purpose.kind == Kind::LibraryData && data.writable && data.inode != 0 && path.is_empty() =>
        {
            of(Kind::LibraryData, purpose.file)
        }
        Some((guard, purpose))
            if purpose.kind == Kind::Reserved
                && guard.inode == 0
                && guard.range.end - guard.range.start <= GUARD_MAX
                && mapping.writable =>
        {
            of(Kind::ThreadStack, None)
        }
        _ => of(Kind::Anonymous, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::smaps;
    use super::*;

    fn kinds(lines: &[&str]) -> Vec<(Kind, Option<String>)> {
        let text = lines.join("\n");
        let reading = smaps::parse(text.as_bytes()).unwrap();
        assert_eq!(reading.unreadable_lines, 0);
        purposes(&reading.mappings)
            .into_iter()
            .map(|purpose| {
                let file = purpose.file.map(|path| String::from_utf8(path.to_vec()).unwrap());
                (purpose.kind, file)
            })
            .collect()
    }

    fn bare(lines: &[&str]) -> Vec<Kind> {
        kinds(lines).into_iter().map(|(kind, _)| kind).collect()
    }

    /// A program of three threads with a large `.bss` (glibc 2.36, Linux 6.18).
    #[test]
    fn a_real_process() {
        let lines = [
            "559000000000-559000001000 r-xp 00001000 fe:01 9 /srv/server",
            "559000003000-559000004000 r--p 00002000 fe:01 9 /srv/server",
            "Anonymous: 4 kB",
            "559000004000-559000005000 rw-p 00003000 fe:01 9 /srv/server",
            "559000005000-559000305000 rw-p 00000000 00:00 0",
            "559001000000-559001021000 rw-p 00000000 00:00 0 [heap]",
            "7fcb00000000-7fcb00021000 rw-p 00000000 00:00 0",
            "7fcb00021000-7fcb04000000 ---p 00000000 00:00 0",
            "7fcb04746000-7fcb04756000 rwxp 00000000 00:00 0",
            "7fcb04756000-7fcb04757000 ---p 00000000 00:00 0",
            "7fcb04757000-7fcb04f57000 rw-p 00000000 00:00 0",
            "7fcb04f57000-7fcb04f58000 ---p 00000000 00:00 0",
            "7fcb04f58000-7fcb05758000 rw-p 00000000 00:00 0",
            "7fcb05758000-7fcb0575b000 rw-p 00000000 00:00 0",
            "7fcb0575c000-7fcb05782000 r--p 00000000 fe:01 7 /usr/lib/libc.so.6",
            "7fcb05782000-7fcb058d8000 r-xp 00026000 fe:01 7 /usr/lib/libc.so.6",
            "7ffdffc18000-7ffdffc39000 rw-p 00000000 00:00 0 [stack]",
            "7ffdffd00000-7ffdffd02000 r-xp 00000000 00:00 0 [vdso]",
        ];
        use Kind::*;
        let expected = [
            File,
            LibraryData,
            LibraryData,
            LibraryData,
            Heap,
            Arena,
            Reserved,
            Jit,
            Reserved,
            ThreadStack,
            Reserved,
            ThreadStack,
            Anonymous,
            File,
            File,
            Stack,
            Other,
        ];
        let found = kinds(&lines);
        assert_eq!(found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), expected);
        assert_eq!(
            found[3].1.as_deref(),
            Some("/srv/server"),
            "the unnamed data is the program's"
        );
        assert_eq!(found[12].1, None);
    }

    #[test]
    fn names_tell_more() {
        let of = |path: &str| bare(&[&format!("1000-9000 rw-p 0 00:00 0 {path}")])[0];
        assert_eq!(of("[anon: glibc: pthread stack: 77]"), Kind::ThreadStack);
        assert_eq!(of("[anon: glibc: malloc arena]"), Kind::Arena);
        assert_eq!(of("[anon: glibc: malloc]"), Kind::Anonymous);
        assert_eq!(of("[stack:77]"), Kind::ThreadStack);
        let guarded = ["1000-9000 rw-p 0 00:00 0", "VmFlags: rd wr mr mw me ac nh gu"];
        assert_eq!(bare(&guarded), [Kind::ThreadStack]);
    }

    #[test]
    fn code_made_at_run_time() {
        assert_eq!(bare(&["1000-2000 r-xp 0 00:00 0"]), [Kind::Jit]);
        assert_eq!(bare(&["1000-2000 rwxp 0 00:00 0 [anon:js]"]), [Kind::Jit]);
        let twice = [
            "1000-2000 rw-s 0 00:01 5 /memfd:doublemapper (deleted)",
            "3000-4000 r-xs 0 00:01 5 /memfd:doublemapper (deleted)",
            "5000-6000 rw-s 0 00:01 6 /memfd:pool (deleted)",
        ];
        assert_eq!(bare(&twice), [Kind::Jit, Kind::Jit, Kind::Shared]);
    }

    #[test]
    fn what_is_near_and_yet_something_else() {
        // Behind the rest of an arena; behind a gap; behind a reservation too large for a guard; a database's private map.
        assert_eq!(
            bare(&[
                "7f0000021000-7f0004000000 ---p 0 00:00 0",
                "7f0004000000-7f0004001000 rw-p 0 00:00 0"
            ]),
            [Kind::Reserved, Kind::Anonymous]
        );
        assert_eq!(
            bare(&["1000-2000 ---p 0 00:00 0", "3000-9000 rw-p 0 00:00 0"]),
            [Kind::Reserved, Kind::Anonymous]
        );
        assert_eq!(
            bare(&["1000-2000 rw-p 0 fe:01 5 /srv/data", "2000-3000 rw-p 0 00:00 0"]),
            [Kind::File, Kind::Anonymous]
        );
    }
}
