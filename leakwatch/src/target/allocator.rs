//! Which allocator serves a target's `malloc`, told from outside: by the files it has mapped and, where these do not
//! tell, by the names in its executable.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::elf_names::{self, ExecutableNames};
use super::proc::Proc;

/// How much of `/proc/PID/maps` is looked at, in bytes; libraries are among the first some thousand mappings.
const MAPS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The allocator of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// `version` as in `2.36`; `None` where the library could not be read.
    Glibc {
        version: Option<String>,
    },
    Musl,
    Jemalloc,
    Tcmalloc,
    Mimalloc,
    /// Go's own heap.
    Go,
    /// The heap of a Java virtual machine.
    Jvm,
    /// A static executable whose names say nothing.
    UnknownStatic,
    Unknown,
}

impl fmt::Display for Allocator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc {
                version: Some(version),
            } => write!(formatter, "glibc {version}"),
            Self::Glibc { version: None } => formatter.write_str("glibc, version unknown"),
            Self::Musl => formatter.write_str("musl"),
            Self::Jemalloc => formatter.write_str("jemalloc"),
            Self::Tcmalloc => formatter.write_str("tcmalloc"),
            Self::Mimalloc => formatter.write_str("mimalloc"),
            Self::Go => formatter.write_str("Go runtime"),
            Self::Jvm => formatter.write_str("Java virtual machine"),
            Self::UnknownStatic => formatter.write_str("unknown (static executable)"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

/// Libraries that bring a heap of their own, in the order in which they win: a runtime over a `malloc` replacement,
/// that over the C library it replaces. Matched against the file name of each mapped file.
const LIBRARIES: [(&str, Allocator); 8] = [
    ("libjvm.so", Allocator::Jvm),
    ("libjemalloc", Allocator::Jemalloc),
    ("libtcmalloc", Allocator::Tcmalloc),
    ("libmimalloc", Allocator::Mimalloc),
    ("ld-musl-", Allocator::Musl),
    ("libc.musl-", Allocator::Musl),
    ("libc.so.6", Allocator::Glibc { version: None }),
    ("libc-2.", Allocator::Glibc { version: None }),
];

/// Names that an executable has when an allocator is linked into it, in the order in which they win.
const NAMES: [(&str, Allocator); 12] = [
    ("je_malloc", Allocator::Jemalloc),
    ("_rjem_malloc", Allocator::Jemalloc),
    ("_rjem_je_arena_boot", Allocator::Jemalloc),
    ("je_arena_boot", Allocator::Jemalloc),
    ("mallctlbymib", Allocator::Jemalloc),
    ("tc_malloc", Allocator::Tcmalloc),
    ("TCMallocInternalMalloc", Allocator::Tcmalloc),
    ("mi_malloc", Allocator::Mimalloc),
    ("_mi_heap_main", Allocator::Mimalloc),
    ("__malloc_donate", Allocator::Musl),
    ("__libc_mallopt", Allocator::Glibc { version: None }),
    ("_int_malloc", Allocator::Glibc { version: None }),
];

/// The allocator of process `pid`, as well as it can be told. Fails where the process's maps cannot be read.
pub fn identify(proc: &Proc, pid: u32) -> io::Result<Allocator> {
    let maps = proc.read(pid, "maps", MAPS_BYTES_MAX)?;
    let files = mapped_files(&maps);
    let by_library = by_library(&files);
    // A replacement in the executable wins over the C library that is mapped beside it.
    if let Some((_, allocator)) = &by_library
        && !matches!(allocator, Allocator::Musl | Allocator::Glibc { .. })
    {
        return Ok(allocator.clone());
    }
    let names = elf_names::read(&proc.entry(pid, "exe")).unwrap_or_default();
    let by_name = from_names(&names);
    Ok(match (by_library, by_name) {
        (_, Some(own)) if !matches!(own, Allocator::Musl | Allocator::Glibc { .. }) => own,
        (Some((file, Allocator::Glibc { .. })), _) => Allocator::Glibc {
            version: mapped_glibc_version(proc, pid, file),
        },
        (Some((_, allocator)), _) => allocator,
        (None, Some(own)) => own,
        (None, None) if names.dynamic => Allocator::Unknown,
        (None, None) => Allocator::UnknownStatic,
    })
}

fn by_library(files: &[MappedFile]) -> Option<(&MappedFile, Allocator)> {
    let by_prefix = LIBRARIES.iter().find_map(|(prefix, allocator)| {
        let file = files.iter().find(|file| file.name.starts_with(prefix))?;
        Some((file, allocator.clone()))
    });
    by_prefix.or_else(|| {
        // musl's loader is a link to it but on Alpine. Android's C library has the same name.
        let file = files.iter().find(|file| {
            file.name == "libc.so" && !file.path.starts_with("/system/") && !file.path.starts_with("/apex/")
        })?;
        Some((file, Allocator::Musl))
    })
}

fn from_names(names: &ExecutableNames) -> Option<Allocator> {
    if names.go {
        return Some(Allocator::Go);
    }
    NAMES
        .iter()
        .find(|(name, _)| names.found.contains(name))
        .map(|(_, allocator)| allocator.clone())
}

/// Every name that [`identify`] looks for in an executable.
pub(super) fn wanted_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// A mapped file: its name without folders, and its first mapping as `/proc/PID/map_files` names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MappedFile {
    name: String,
    range: String,
    /// The path as the process sees it, and its inode.
    path: String,
    inode: u64,
}

impl MappedFile {
    /// Its link in `/proc/PID/map_files`.
    pub fn range_name(&self) -> Option<String> {
        range_name(&self.range)
    }

    /// Opens it by its path below `root`.
    ///
    /// # Errors
    ///
    /// Also when another file stands there by now.
    pub fn open_by_name(&self, root: &Path) -> io::Result<File> {
        let file = elf_names::open(&root.join(self.path.trim_start_matches('/')))?;
        if file.metadata()?.ino() != self.inode {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was replaced"));
        }
        Ok(file)
    }
}

/// The C library of a process, where that is glibc and is mapped.
pub(super) fn mapped_glibc(proc: &Proc, pid: u32) -> io::Result<Option<MappedFile>> {
    let files = mapped_files(&proc.read(pid, "maps", MAPS_BYTES_MAX)?);
    let is_glibc = |file: &MappedFile| {
        LIBRARIES.iter().any(|(prefix, allocator)| {
            matches!(allocator, Allocator::Glibc { .. }) && file.name.starts_with(prefix)
        })
    };
    Ok(files.into_iter().find(is_glibc))
}

/// The files in the text of `/proc/PID/maps`, each once.
fn mapped_files(maps: &[u8]) -> Vec<MappedFile> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for line in String::from_utf8_lossy(maps).lines() {
        let Some((range, path)) = line
            .split_once(' ')
            .zip(line.find('/'))
            .and_then(|((range, _), slash)| Some((range, line.get(slash..)?)))
        else {
            continue;
        };
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if seen.insert(path.to_owned()) {
            files.push(MappedFile {
                name: path.rsplit('/').next().unwrap_or(path).to_owned(),
                range: range.to_owned(),
                path: path.to_owned(),
                inode: line
                    .split_ascii_whitespace()
                    .nth(4)
                    .and_then(|word| word.parse().ok())
                    .unwrap_or(0),
            });
        }
    }
    files
}

/// The version of a mapped glibc, which the name carries up to 2.33 where its contents cannot be read.
fn mapped_glibc_version(proc: &Proc, pid: u32, file: &MappedFile) -> Option<String> {
    range_name(&file.range)
        .and_then(|range| glibc_version(&proc.entry(pid, "map_files").join(range)))
        .or_else(|| version_number(file.name.strip_prefix("libc-")?.as_bytes()))
}

/// The library says its version in a banner among its constants. A static executable has none.
fn glibc_version(path: &Path) -> Option<String> {
    version_number(&elf_names::find_after(path, b"stable release version ", 16)?)
}

/// `maps` pads addresses to eight digits, `map_files` does not.
fn range_name(range: &str) -> Option<String> {
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    Some(format!("{start:x}-{end:x}"))
}

fn version_number(bytes: &[u8]) -> Option<String> {
    let text: String = bytes
        .iter()
        .map(|&byte| char::from(byte))
        .take_while(|letter| letter.is_ascii_digit() || *letter == '.')
        .collect();
    let text = text.trim_end_matches('.');
    (text.contains('.') && text.starts_with(|first: char| first.is_ascii_digit())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_once_and_without_the_mark_of_deletion() {
        let maps = b"00400000-00401000 r-xp 00000000 08:01 12 /usr/bin/a b\n\
            7f0000000000-7f0000001000 r--p 00000000 08:01 13   /lib/libc.so.6 (deleted)\n\
            7f0000001000-7f0000002000 r-xp 00001000 08:01 13   /lib/libc.so.6 (deleted)\n\
            7ffc00000000-7ffc00001000 rw-p 00000000 00:00 0    [stack]\n\
            garbage\n\xff\xfe /\n";
        let files = mapped_files(maps);
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a b", "libc.so.6", ""]);
        assert_eq!(range_name(&files[0].range).unwrap(), "400000-401000");
        assert_eq!(range_name(&files[2].range), None);
    }

    #[test]
    fn libraries_tell_by_their_names() {
        let told = |paths: &[&str]| {
            let maps: String = paths
                .iter()
                .map(|path| format!("7f0000000000-7f0000001000 r-xp 00000000 08:01 13 {path}\n"))
                .collect();
            by_library(&mapped_files(maps.as_bytes())).map(|(_, allocator)| allocator)
        };
        let glibc = || Some(Allocator::Glibc { version: None });
        assert_eq!(
            told(&["/usr/bin/a", "/usr/lib/x86_64-linux-gnu/libc.so.6"]),
            glibc()
        );
        assert_eq!(
            told(&["/lib/libc-2.31.so", "/usr/lib/libjemalloc.so.2"]),
            Some(Allocator::Jemalloc)
        );
        // Alpine's, Debian's, and none.
        assert_eq!(told(&["/lib/ld-musl-x86_64.so.1"]), Some(Allocator::Musl));
        assert_eq!(
            told(&["/usr/lib/x86_64-linux-musl/libc.so"]),
            Some(Allocator::Musl)
        );
        assert_eq!(told(&["/apex/com.android.runtime/lib64/bionic/libc.so"]), None);
    }

    #[test]
    fn versions_end_where_the_number_does() {
        assert_eq!(version_number(b"2.36.\nCopyright"), Some("2.36".to_owned()));
        assert_eq!(version_number(b"2.31.so"), Some("2.31".to_owned()));
        assert_eq!(version_number(b"x"), None);
        assert_eq!(version_number(b""), None);
    }

    #[test]
    fn this_very_process_uses_the_c_library_it_was_built_for() {
        let found = identify(&Proc::host(), std::process::id()).unwrap();
        if cfg!(target_env = "gnu") {
            assert!(matches!(found, Allocator::Glibc { .. }), "{found}");
        } else {
            assert_eq!(found, Allocator::Musl);
        }
    }
}
