//! `/proc/PID/maps`: where each mapping lies, what it may do, what stands behind it.
//!
//! Parsed here and not by the procfs crate: its reader takes lines as UTF-8 and fails on the whole file for one path
//! that is not, and a path is any bytes that the target liked (spaces, a trailing ` (deleted)` of its own, `\012`
//! escapes). Here a path stays bytes, and a line that cannot be read is counted while the others stand.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::lines::{for_each_line, number, trim_start, word};
use super::{ProcRoot, named};

/// The most mappings that are kept of one process: far above the kernel's default `vm.max_map_count` (65,530; the
/// largest in practice is 2^20 or so), there to bound memory.
pub const MAPPINGS_MAX: usize = 4 << 20;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses, page-aligned.
    pub range: Range<u64>,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    /// `MAP_SHARED` (an `s` in the fourth column).
    pub shared: bool,
    /// Offset in the file, bytes; 0 for anonymous memory.
    pub offset: u64,
    /// (major, minor) of the file's device; (0, 0) for anonymous memory.
    pub device: (u32, u32),
    /// Inode of the file; 0 for anonymous memory.
    pub inode: u64,
    /// The last column as the kernel wrote it (`\n` is escaped as `\012` there), e.g. `/usr/lib/libc.so.6`,
    /// `/tmp/gone (deleted)`, `[heap]`, `[stack]`, `[vdso]`, `[anon:name]`; `None` for none. Untrusted bytes.
    pub path: Option<OsString>,
}

impl Mapping {
    /// Nothing is allowed there: a reservation or a guard (`---p`).
    #[must_use]
    pub fn inaccessible(&self) -> bool {
        !self.readable && !self.writable && !self.executable
    }

    /// The path column as bytes, empty for none.
    #[must_use]
    pub fn path_bytes(&self) -> &[u8] {
        self.path.as_deref().map_or(&[], OsStrExt::as_bytes)
    }
}

/// All mappings of a process, and what could not be read of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapsReading {
    /// By address, as the kernel gives them. Read in several pieces while the target runs: neighbours can be from
    /// slightly different moments.
    pub mappings: Vec<Mapping>,
    /// Lines that are no mapping as far as this parser can tell.
    pub unreadable_lines: u64,
    /// Mappings beyond [`MAPPINGS_MAX`].
    pub dropped: u64,
}

/// Reads `ROOT/PID/maps`. Empty (and not an error) for a kernel thread or a zombie.
pub fn read(root: &ProcRoot, pid: u32) -> io::Result<MapsReading> {
    let file = root.open(pid, "maps")?;
    parse(BufReader::with_capacity(64 * 1024, file)).map_err(|error| named(&root.of(pid, "maps"), &error))
}

/// Parses the text of a maps file.
pub fn parse(reader: impl BufRead) -> io::Result<MapsReading> {
    let mut reading = MapsReading::default();
    for_each_line(reader, |line| {
        if line.is_empty() {
            return true;
        }
        match parse_line(line) {
            None => reading.unreadable_lines += 1,
            Some(_) if reading.mappings.len() >= MAPPINGS_MAX => reading.dropped += 1,
            Some(mapping) => reading.mappings.push(mapping),
        }
        true
    })?;
    Ok(reading)
}

/// Parses one line, without its newline:
/// `7f10c8000000-7f10c8021000 rw-p 00000000 00:00 0                          [anon: x]`.
/// `None` when one of the fixed columns is not what the kernel writes.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (addresses, rest) = word(line);
    let (permissions, rest) = word(rest);
    let (offset, rest) = word(rest);
    let (device, rest) = word(rest);
    let (inode, rest) = word(rest);

    let dash = addresses.iter().position(|&byte| byte == b'-')?;
    let start = number(addresses.get(..dash)?, 16)?;
    let end = number(addresses.get(dash + 1..)?, 16)?;
    if start >= end {
        return None;
    }
    let &[r, w, x, s] = permissions else {
        return None;
    };
    let flag = |byte: u8, set: u8| match byte {
        b'-' => Some(false),
        byte if byte == set => Some(true),
        _ => None,
    };
    let shared = match s {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    let colon = device.iter().position(|&byte| byte == b':')?;
    let major = u32::try_from(number(device.get(..colon)?, 16)?).ok()?;
    let minor = u32::try_from(number(device.get(colon + 1..)?, 16)?).ok()?;
    // The kernel pads with blanks up to the path column, so a path's own leading blanks cannot be told from them; it
    // is absolute or in brackets, so it has none.
    let path = trim_start(rest);
    Some(Mapping {
        range: start..end,
        readable: flag(r, b'r')?,
        writable: flag(w, b'w')?,
        executable: flag(x, b'x')?,
        shared,
        offset: number(offset, 16)?,
        device: (major, minor),
        inode: number(inode, 10)?,
        path: (!path.is_empty()).then(|| OsString::from_vec(path.to_vec())),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_columns_of_a_file_mapping() {
        let line = b"7f10c8000000-7f10c8021000 r-xp 0001c000 103:02 5244 /usr/lib/x86_64-linux-gnu/libc.so.6";
        assert_eq!(
            parse_line(line).unwrap(),
            Mapping {
                range: 0x7f10_c800_0000..0x7f10_c802_1000,
                readable: true,
                writable: false,
                executable: true,
                shared: false,
                offset: 0x1c000,
                device: (0x103, 2),
                inode: 5244,
                path: Some("/usr/lib/x86_64-linux-gnu/libc.so.6".into()),
            }
        );
    }

    #[test]
    fn paths_are_bytes_with_blanks_escapes_and_anything_else() {
        let of = |path: &[u8]| {
            let mut line = b"1000-2000 rw-s 00000000 00:01 7                          ".to_vec();
            line.extend(path);
            parse_line(&line).unwrap().path.map(OsString::into_vec)
        };
        for path in [
            &b"/tmp/a b  c (deleted)"[..],
            b"/tmp/\\012 line",
            b"/tmp/\xff\xfe\x1b[31m",
            b"[anon: my pool]",
            b"/tmp/ends with blank ",
        ] {
            assert_eq!(of(path).as_deref(), Some(path));
        }
        assert_eq!(of(b""), None);
    }

    #[test]
    fn a_broken_line_is_counted_and_the_others_stand() {
        let text =
            b"1000-2000 rw-p 0 00:00 0\nrubbish\n3000-2000 rw-p 0 00:00 0\n3000-4000 rw-p 0 00:00 0 /\xff\n";
        let reading = parse(&text[..]).unwrap();
        assert_eq!(reading.mappings.len(), 2);
        assert_eq!(reading.unreadable_lines, 2);
        assert_eq!(reading.mappings[1].path_bytes(), b"/\xff");
    }

    #[test]
    fn this_process_is_read_whole() {
        let reading = read(&ProcRoot::default(), std::process::id()).unwrap();
        assert_eq!((reading.unreadable_lines, reading.dropped), (0, 0));
        let here = std::ptr::from_ref(&reading).addr() as u64;
        let stack = reading
            .mappings
            .iter()
            .find(|mapping| mapping.range.contains(&here))
            .unwrap();
        assert!(stack.readable && stack.writable && !stack.shared);
        assert!(reading.mappings.is_sorted_by_key(|mapping| mapping.range.start));
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = read(&ProcRoot::new("/nonexistent"), 42).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/42/maps"), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn what_the_kernel_would_write_is_read_back(
            start in 0u64..1 << 47, length in 1u64..1 << 40, bits in 0u8..16, offset: u64, major in 0u32..4096,
            minor: u32, inode: u64, path in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut path: Vec<u8> = path.into_iter().filter(|byte| *byte != b'\n').collect();
            if !path.is_empty() { path.insert(0, b'/'); }
            let flag = |bit: u8, set: char| if bits & bit == 0 { '-' } else { set };
            let mut line = format!("{start:08x}-{:08x} {}{}{}{} {offset:08x} {major:02x}:{minor:02x} {inode} ", start + length,
                flag(1, 'r'), flag(2, 'w'), flag(4, 'x'), if bits & 8 == 0 { 'p' } else { 's' }).into_bytes();
            line.resize(line.len().max(73), b' ');
            line.extend(&path);
            let mapping = parse_line(&line).unwrap();
            prop_assert_eq!(mapping.range, start..start + length);
            prop_assert_eq!((mapping.readable, mapping.writable, mapping.executable, mapping.shared),
                (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0));
            prop_assert_eq!((mapping.offset, mapping.device, mapping.inode), (offset, (major, minor), inode));
            prop_assert_eq!(mapping.path.map(OsString::into_vec).unwrap_or_default(), path);
        }

        #[test]
        fn any_bytes_are_a_mapping_or_none(line in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(mapping) = parse_line(&line) {
                prop_assert!(mapping.range.start < mapping.range.end);
            }
        }
    }
}
