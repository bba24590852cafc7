//! `/proc/PID/smaps`: the sizes of each mapping.
//!
//! The read walks every page table of the target under its mmap lock; [`super::cost`] says when it may happen.

use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

use super::lines::{for_each_line, kib, word};
use super::maps::{self, MAPPINGS_MAX, Mapping};
use super::{ProcRoot, named};

/// One mapping with its sizes, all in bytes. Every field is there since Linux 4.4, older than any kernel with a BPF
/// ring buffer, so a 0 is a measured 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSizes {
    pub mapping: Mapping,
    pub size: u64,
    pub rss: u64,
    pub pss: u64,
    pub shared_clean: u64,
    pub shared_dirty: u64,
    pub private_clean: u64,
    pub private_dirty: u64,
    /// Resident anonymous pages, those of a private file mapping that were written included.
    pub anonymous: u64,
    pub anon_huge_pages: u64,
    pub swap: u64,
    pub vm_flags: VmFlags,
}

impl MappingSizes {
    fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            size: 0,
            rss: 0,
            pss: 0,
            shared_clean: 0,
            shared_dirty: 0,
            private_clean: 0,
            private_dirty: 0,
            anonymous: 0,
            anon_huge_pages: 0,
            swap: 0,
            vm_flags: VmFlags::default(),
        }
    }

    fn field(&mut self, name: &[u8]) -> Option<&mut u64> {
        Some(match name {
            b"Size:" => &mut self.size,
            b"Rss:" => &mut self.rss,
            b"Pss:" => &mut self.pss,
            b"Shared_Clean:" => &mut self.shared_clean,
            b"Shared_Dirty:" => &mut self.shared_dirty,
            b"Private_Clean:" => &mut self.private_clean,
            b"Private_Dirty:" => &mut self.private_dirty,
            b"Anonymous:" => &mut self.anonymous,
            b"AnonHugePages:" => &mut self.anon_huge_pages,
            b"Swap:" => &mut self.swap,
            _ => return None,
        })
    }
}

/// The two-letter flags of the `VmFlags` line, e.g. `gd` for a mapping that grows downward (a stack), `dd` for
/// `MADV_DONTDUMP`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmFlags(Box<[[u8; 2]]>);

impl VmFlags {
    #[must_use]
    pub fn has(&self, flag: [u8; 2]) -> bool {
        self.0.contains(&flag)
    }

    fn parse(mut text: &[u8]) -> Self {
        let mut flags = Vec::new();
        loop {
            let (flag, rest) = word(text);
            match <[u8; 2]>::try_from(flag) {
                Ok(flag) if flags.len() < 64 => flags.push(flag),
                _ if flag.is_empty() || flags.len() >= 64 => return Self(flags.into()),
                _ => {}
            }
            text = rest;
        }
    }
}

/// A full reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmapsReading {
    /// By address.
    pub mappings: Vec<MappingSizes>,
    /// How long the read took: how long, at most, the target could be kept from changing its mappings.
    pub took: Duration,
    pub unreadable_lines: u64,
    /// Mappings beyond [`MAPPINGS_MAX`].
    pub dropped: u64,
}

/// Reads `ROOT/PID/smaps`, streamed.
pub fn read(root: &ProcRoot, pid: u32) -> io::Result<SmapsReading> {
    let started = Instant::now();
    let file = root.open(pid, "smaps")?;
    let mut reading = parse(BufReader::with_capacity(64 * 1024, file))
        .map_err(|error| named(&root.of(pid, "smaps"), &error))?;
    reading.took = started.elapsed();
    Ok(reading)
}

/// Parses the text of a smaps file.
pub fn parse(reader: impl BufRead) -> io::Result<SmapsReading> {
    let mut reading = SmapsReading::default();
    let mut current: Option<MappingSizes> = None;
    for_each_line(reader, |line| {
        if line.is_empty() {
            return true;
        }
        // A mapping starts with a lower-case hexadecimal digit, a field with a capital; a path cannot start a line.
        if !line.first().is_some_and(u8::is_ascii_uppercase) {
            keep(&mut reading, current.take());
            match maps::parse_line(line) {
                Some(mapping) => current = Some(MappingSizes::new(mapping)),
                None => reading.unreadable_lines += 1,
            }
            return true;
        }
        let (name, rest) = word(line);
        // Fields under a mapping that could not be read have no place to go; that line is counted already.
        let Some(current) = current.as_mut() else {
            return true;
        };
        if name == b"VmFlags:" {
            current.vm_flags = VmFlags::parse(rest);
        } else if let Some(field) = current.field(name) {
            match kib(rest) {
                Some(bytes) => *field = bytes,
                None => reading.unreadable_lines += 1,
            }
        }
        true
    })?;
    keep(&mut reading, current);
    Ok(reading)
}

fn keep(reading: &mut SmapsReading, mapping: Option<MappingSizes>) {
    match mapping {
        None => {}
        Some(_) if reading.mappings.len() >= MAPPINGS_MAX => reading.dropped += 1,
        Some(mapping) => reading.mappings.push(mapping),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a real process (Linux 6.18), the second path made hostile.
    const TEXT: &[u8] = b"\
55d0c0a2b000-55d0c0a4c000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                  12 kB
Pss:                  11 kB
Pss_Dirty:            11 kB
Shared_Clean:          1 kB
Shared_Dirty:          2 kB
Private_Clean:         3 kB
Private_Dirty:         8 kB
Referenced:           12 kB
Anonymous:            12 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
Swap:                 20 kB
SwapPss:              20 kB
Locked:                0 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac sd gd
7f0000000000-7f0000001000 r--p 00000000 fe:01 12 /tmp/\xff\x1b[2J Rss: 9 kB
Size:                  4 kB
Rss:                   4 kB
VmFlags: rd mr mw me sd
";

    #[test]
    fn the_fields_of_each_mapping() {
        let reading = parse(TEXT).unwrap();
        assert_eq!((reading.mappings.len(), reading.unreadable_lines), (2, 0));
        let heap = &reading.mappings[0];
        let kib = [
            heap.size,
            heap.rss,
            heap.pss,
            heap.shared_clean,
            heap.shared_dirty,
            heap.private_clean,
            heap.private_dirty,
            heap.anonymous,
            heap.anon_huge_pages,
            heap.swap,
        ]
        .map(|bytes| bytes / 1024);
        assert_eq!(kib, [132, 12, 11, 1, 2, 3, 8, 12, 2048, 20]);
        assert!(heap.vm_flags.has(*b"gd") && !heap.vm_flags.has(*b"ex"));
        assert_eq!(reading.mappings[1].rss, 4096);
        assert!(
            reading.mappings[1]
                .mapping
                .path_bytes()
                .starts_with(b"/tmp/\xff\x1b")
        );
    }

    #[test]
    fn nonsense_is_counted() {
        let text = b"Rss: 1 kB\n1000-2000 rw-p 0 00:00 0\nRss: x kB\nPss: 99999999999999999999 kB\nSwap: 1\nhello\nRss: 2 kB\n";
        let reading = parse(&text[..]).unwrap();
        assert_eq!(reading.mappings.len(), 1);
        assert_eq!(reading.unreadable_lines, 4);
        assert_eq!(reading.mappings[0].rss, 0);
    }

    #[test]
    fn this_process_agrees_with_its_maps() {
        let root = ProcRoot::default();
        let reading = read(&root, std::process::id()).unwrap();
        assert_eq!((reading.unreadable_lines, reading.dropped), (0, 0));
        assert!(reading.took > Duration::ZERO);
        // vsyscall is in both; sizes are what the addresses say.
        for sizes in &reading.mappings {
            assert_eq!(sizes.size, sizes.mapping.range.end - sizes.mapping.range.start);
            assert!(sizes.rss <= sizes.size && sizes.anonymous <= sizes.rss);
        }
        assert!(reading.mappings.iter().map(|sizes| sizes.anonymous).sum::<u64>() > 0);
    }
}
