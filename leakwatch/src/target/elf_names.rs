//! Names in an executable or library of the target. The file is hostile: reads are bounded, nothing is mapped (a
//! file that shrinks under a mapping would kill the reader).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use memchr::memmem;
use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};

use super::allocator::wanted_names;

/// The largest single piece of an executable that is read, in bytes. A larger string table is passed over.
const PIECE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// How much of a library is searched for its banner, in bytes.
const SEARCH_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What an executable's sections and names tell of its allocator.
#[derive(Debug, Default)]
pub struct ExecutableNames {
    /// It has Go's build information.
    pub go: bool,
    /// It names an interpreter or has dynamic symbols.
    pub dynamic: bool,
    /// Those of the allocators' names that it has.
    pub found: HashSet<&'static str>,
}

pub fn read(path: &Path) -> io::Result<ExecutableNames> {
    let cache = ReadCache::new(open(path)?);
    parse(Bounded(&cache)).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn parse<'data, R: ReadRef<'data>>(data: R) -> object::Result<ExecutableNames> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let wanted: HashSet<&'static str> = wanted_names().collect();
    let mut names = ExecutableNames::default();
    for section in sections.iter() {
        match sections.section_name(endian, section) {
            Ok(b".go.buildinfo" | b".gopclntab") => names.go = true,
            Ok(b".interp" | b".dynamic") => names.dynamic = true,
            Ok(b".strtab" | b".dynstr") => {
                let Ok(strings) = section.data(endian, data) else {
                    continue;
                };
                names.found.extend(
                    strings
                        .split(|&byte| byte == 0)
                        .filter_map(|name| std::str::from_utf8(name).ok())
                        .filter_map(|name| wanted.get(name).copied()),
                );
            }
            _ => {}
        }
    }
    Ok(names)
}

/// The `length` bytes that follow the first `needle` in a file, fewer at its end.
pub fn find_after(path: &Path, needle: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)
        .ok()?
        .take(SEARCH_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    let at = memmem::find(&bytes, needle)?;
    let rest = bytes.get(at + needle.len()..)?;
    Some(rest.get(..length).unwrap_or(rest).to_vec())
}

/// A device or pipe behind the name must not block the reader or be woken by it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Refuses single reads of more than [`PIECE_BYTES_MAX`]: sizes in the headers are the file's own claim.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'a>(pub &'a ReadCache<File>);

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > PIECE_BYTES_MAX {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_executable_is_dynamic_and_no_go_program() {
        let names = read(Path::new("/proc/self/exe")).unwrap();
        assert!(!names.go);
        assert_eq!(names.dynamic, cfg!(target_env = "gnu"));
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("exe");
        for bytes in [&b""[..], b"\x7fELF", &[0xff; 4096], b"#!/bin/sh\n"] {
            std::fs::write(&file, bytes).unwrap();
            assert!(read(&file).is_err());
        }
        assert!(read(folder.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_header_that_claims_huge_sections_reads_nothing_huge() {
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        bytes.truncate(64);
        // e_shoff, then a section count that is only told by the first section.
        bytes[40..48].copy_from_slice(&64_u64.to_le_bytes());
        bytes[60..62].copy_from_slice(&0_u16.to_le_bytes());
        let mut section = [0_u8; 64];
        section[32..40].copy_from_slice(&u64::from(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&section);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exe");
        std::fs::write(&path, &bytes).unwrap();
        // Sparse, so that the claim is inside the file.
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn the_bytes_after_a_needle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib");
        std::fs::write(&path, b"..version 2.36.\n").unwrap();
        assert_eq!(find_after(&path, b"version ", 4).unwrap(), b"2.36");
        assert_eq!(find_after(&path, b"version ", 99).unwrap(), b"2.36.\n");
        assert_eq!(find_after(&path, b"absent", 4), None);
    }
}
