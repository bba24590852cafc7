//! The host that the processes share: its memory and its boot.

use std::io;
use std::time::{Duration, SystemTime};

use super::lines::{for_each_line, kib, number, word};
use super::{ProcRoot, SMALL_FILE, named, read_into};

/// From `/proc/meminfo`; bytes. A line that is missing or odd is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: Option<u64>,
    /// What could be given to processes without swapping.
    pub available: Option<u64>,
    pub swap_total: Option<u64>,
    pub swap_free: Option<u64>,
}

impl Memory {
    /// Reads `ROOT/meminfo`.
    pub fn read(root: &ProcRoot) -> io::Result<Self> {
        let path = root.path().join("meminfo");
        let mut text = Vec::new();
        read_into(&path, SMALL_FILE, &mut text).map_err(|error| named(&path, &error))?;
        Ok(Self::parse(&text))
    }

    /// Parses the text of a meminfo file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut memory = Self::default();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let (name, rest) = word(line);
            let field = match name {
                b"MemTotal:" => &mut memory.total,
                b"MemAvailable:" => &mut memory.available,
                b"SwapTotal:" => &mut memory.swap_total,
                b"SwapFree:" => &mut memory.swap_free,
                _ => continue,
            };
            *field = kib(rest);
        }
        memory
    }
}

/// Which boot this is. Start times of processes compare within one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// When, in whole seconds; it moves when the clock is set.
    pub at: Option<SystemTime>,
    /// The kernel's random name for this boot: 36 letters of hexadecimal digits and dashes.
    pub id: Option<String>,
}

impl Boot {
    /// Reads `ROOT/stat` and `ROOT/sys/kernel/random/boot_id`. The first takes milliseconds on a host of many processors:
    /// once is enough.
    #[must_use]
    pub fn read(root: &ProcRoot) -> Self {
        let mut id = Vec::new();
        let id = read_into(
            &root.path().join("sys/kernel/random/boot_id"),
            SMALL_FILE,
            &mut id,
        )
        .ok()
        .and_then(|()| boot_id(&id));
        Self {
            at: boot_time(root),
            id,
        }
    }
}

fn boot_id(text: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(text).ok()?.trim_ascii();
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (id.len() == 36 && id.bytes().all(plain)).then(|| id.to_owned())
}

fn boot_time(root: &ProcRoot) -> Option<SystemTime> {
    let file = std::fs::File::open(root.path().join("stat")).ok()?;
    let mut seconds = None;
    for_each_line(io::BufReader::new(file), |line| {
        let (name, rest) = word(line);
        if name == b"btime" {
            seconds = number(word(rest).0, 10);
        }
        name != b"btime"
    })
    .ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::stat;

    #[test]
    fn a_host_with_and_without_swap() {
        let text = b"MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\nSwapTotal: 0 kB\nSwapFree: x kB\nHugePages_Total: 0\nMemTotal: 4";
        let expected = Memory {
            total: Some(16 << 20),
            available: Some(8 << 20),
            swap_total: Some(0),
            swap_free: None,
        };
        assert_eq!(Memory::parse(text), expected);
        assert_eq!(Memory::parse(b""), Memory::default());
    }

    #[test]
    fn this_host() {
        let root = ProcRoot::default();
        let memory = Memory::read(&root).unwrap();
        assert!(memory.available.unwrap() < memory.total.unwrap());
        assert!(memory.swap_free.unwrap() <= memory.swap_total.unwrap());
        let boot = Boot::read(&root);
        assert_eq!(Boot::read(&root).id, boot.id);
        assert_eq!(boot.id.unwrap().len(), 36);
        // The first process started within seconds of the boot, and before now.
        let first = boot.at.unwrap() + stat::of_ticks(stat::read(&root, 1).unwrap().start_time_ticks);
        assert!(first < SystemTime::now());
    }

    #[test]
    fn a_boot_of_which_nothing_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sys/kernel/random")).unwrap();
        std::fs::write(
            folder.path().join("sys/kernel/random/boot_id"),
            "\u{1b}[2J-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        )
        .unwrap();
        std::fs::write(folder.path().join("stat"), "btime 99999999999999999999\n").unwrap();
        let nothing = Boot { at: None, id: None };
        assert_eq!(Boot::read(&ProcRoot::new(folder.path())), nothing);
        assert!(Memory::read(&ProcRoot::new(folder.path())).is_err());
    }
}
