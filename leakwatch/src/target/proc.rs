//! A reader of `/proc` with an injectable root: bounded reads, no interpretation beyond `stat` and `status`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A `/proc` tree: the host's, or one that a test lays out in a folder.
#[derive(Clone, Debug)]
pub struct Proc {
    root: PathBuf,
}

impl Proc {
    #[must_use]
    pub fn host() -> Self {
        Self::at("/proc")
    }

    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `/proc/PID/ENTRY`.
    #[must_use]
    pub fn entry(&self, pid: u32, entry: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(entry)
    }

    /// At most `limit` bytes of `/proc/PID/ENTRY`: what lies beyond is cut off, since the target chooses how long
    /// its command line is.
    pub fn read(&self, pid: u32, entry: &str, limit: u64) -> io::Result<Vec<u8>> {
        read_bounded(&self.entry(pid, entry), limit)
    }

    /// At most `limit` bytes of `/proc/PATH`.
    pub fn read_global(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        read_bounded(&self.root.join(path), limit)
    }

    /// Where the link `/proc/PID/ENTRY` points.
    pub fn link(&self, pid: u32, entry: &str) -> io::Result<PathBuf> {
        fs::read_link(self.entry(pid, entry))
    }

    /// Every process that is visible, in no order.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        Ok(fs::read_dir(&self.root)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }

    pub fn stat(&self, pid: u32) -> io::Result<Stat> {
        let bytes = self.read(pid, "stat", 8 * 1024)?;
        Stat::parse(&bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its form is unknown to leakwatch"))
    }

    pub fn status(&self, pid: u32) -> io::Result<Status> {
        Ok(Status::parse(&self.read(pid, "status", 64 * 1024)?))
    }

    /// This process's own status, also where `/proc` numbers it otherwise than it does itself.
    pub fn own_status(&self) -> io::Result<Status> {
        Ok(Status::parse(&self.read_global("self/status", 64 * 1024)?))
    }
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What leakwatch needs of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The main thread's name, at most 15 bytes, invalid UTF-8 replaced.
    pub comm: String,
    /// `R`, `S`, `D`, `Z`, `X`…
    pub state: char,
    /// `PF_*` bits of the main thread.
    pub flags: u64,
    pub threads: u64,
    /// Clock ticks from boot to the start of the process.
    pub start_time_ticks: u64,
}

impl Stat {
    const PF_KTHREAD: u64 = 0x0020_0000;

    /// The name in parentheses may itself hold parentheses and blanks, so its end is the last `)`.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|&byte| byte == b'(')?;
        let close = bytes.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse().ok();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            flags: number(6)?,
            threads: number(17)?,
            start_time_ticks: number(19)?,
        })
    }

    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & Self::PF_KTHREAD != 0
    }

    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// What leakwatch needs of `/proc/PID/status`. A line that is missing or odd is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub tgid: Option<u32>,
    /// Real user ID.
    pub uid: Option<u32>,
    /// The process's number in each PID namespace from the reader's inward.
    pub namespace_pids: Vec<u32>,
    /// Bits of the effective capabilities.
    pub effective_capabilities: Option<u64>,
}

impl Status {
    fn parse(bytes: &[u8]) -> Self {
        let mut status = Self::default();
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut words = value.split_ascii_whitespace();
            match key {
                "Tgid" => status.tgid = words.next().and_then(|word| word.parse().ok()),
                "Uid" => status.uid = words.next().and_then(|word| word.parse().ok()),
                "NSpid" => {
                    status.namespace_pids = words.filter_map(|word| word.parse().ok()).collect();
                }
                "CapEff" => {
                    status.effective_capabilities =
                        words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
                }
                _ => {}
            }
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let line = b"42 (a) S (b 7) R 1 2 3 4 5 2097152 0 0 0 0 0 0 0 0 20 0 9 0 12345 0 0\n";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat.comm, "a) S (b 7");
        assert_eq!(stat.state, 'R');
        assert_eq!(stat.threads, 9);
        assert_eq!(stat.start_time_ticks, 12345);
        assert!(stat.is_kernel_thread());
    }

    #[test]
    fn a_cut_or_odd_stat_is_no_stat() {
        for line in [
            &b""[..],
            b"42",
            b"42 (x",
            b"42 )x( R 1",
            b"42 (x) R 1 2",
            b"42 (x) R 1 2 3 4 5 six",
        ] {
            assert_eq!(Stat::parse(line), None);
        }
    }

    #[test]
    fn status_gives_what_is_there() {
        let status = Status::parse(
            b"Name:\tx\nTgid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t7\t1\nCapEff:\t00000000a80425fb\n",
        );
        assert_eq!(status.tgid, Some(7));
        assert_eq!(status.uid, Some(1000));
        assert_eq!(status.namespace_pids, [7, 1]);
        assert_eq!(status.effective_capabilities, Some(0xa804_25fb));
        assert_eq!(Status::parse(b"Tgid:\tx\n\xff\n"), Status::default());
    }
}
