//! The totals of a process: `/proc/PID/status` and `/proc/PID/smaps_rollup`.
//!
//! Both go through the procfs crate. `status` holds the process's name, any 15 bytes of it, on which the crate's UTF-8
//! lines fail: so the text is made UTF-8 first (the name is not used). `smaps_rollup` has no name in it.

use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use procfs::FromBufRead;
use procfs::process::{SmapsRollup, Status};

use super::{ProcRoot, named};

/// From `/proc/PID/status`; bytes. `None` where the process has no memory of its own (kernel thread, zombie).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub rss: Option<u64>,
    /// `VmHWM`: the most that it ever was.
    pub peak_rss: Option<u64>,
    pub rss_anonymous: Option<u64>,
    pub rss_file: Option<u64>,
    pub rss_shmem: Option<u64>,
    pub swap: Option<u64>,
    /// `VmData`: private writable address space, touched or not.
    pub data: Option<u64>,
    /// Page tables.
    pub page_tables: Option<u64>,
    pub threads: Option<u64>,
}

/// From `/proc/PID/smaps_rollup`; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollup {
    pub rss: Option<u64>,
    pub pss: Option<u64>,
    pub private_dirty: Option<u64>,
    pub anonymous: Option<u64>,
    pub swap: Option<u64>,
    /// How long the read took. It walks the same page tables as full smaps does, and predicts its cost.
    pub took: Duration,
}

impl Rollup {
    /// Anonymous bytes, resident or swapped; `None` when either is unknown.
    #[must_use]
    pub fn anonymous_and_swap(&self) -> Option<u64> {
        self.anonymous?.checked_add(self.swap?)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a {what} file of a process"),
    )
}

/// Reads `ROOT/PID/status`.
pub fn read_status(root: &ProcRoot, pid: u32) -> io::Result<Totals> {
    let path = root.of(pid, "status");
    let text = std::fs::read(&path).map_err(|error| named(&path, &error))?;
    parse_status(&text).map_err(|error| named(&path, &error))
}

/// Parses the text of a status file.
pub fn parse_status(text: &[u8]) -> io::Result<Totals> {
    let text = String::from_utf8_lossy(text);
    let status = Status::from_buf_read(text.as_bytes()).map_err(|_| malformed("status"))?;
    let bytes = |kib: Option<u64>| kib.and_then(|kib| kib.checked_mul(1024));
    Ok(Totals {
        rss: bytes(status.vmrss),
        peak_rss: bytes(status.vmhwm),
        rss_anonymous: bytes(status.rssanon),
        rss_file: bytes(status.rssfile),
        rss_shmem: bytes(status.rssshmem),
        swap: bytes(status.vmswap),
        data: bytes(status.vmdata),
        page_tables: bytes(status.vmpte),
        threads: Some(status.threads),
    })
}

/// Reads `ROOT/PID/smaps_rollup`.
pub fn read_rollup(root: &ProcRoot, pid: u32) -> io::Result<Rollup> {
    let started = Instant::now();
    let file = root.open(pid, "smaps_rollup")?;
    let mut rollup =
        parse_rollup(BufReader::new(file)).map_err(|error| named(&root.of(pid, "smaps_rollup"), &error))?;
    rollup.took = started.elapsed();
    Ok(rollup)
}

/// Parses the text of a `smaps_rollup` file.
pub fn parse_rollup(reader: impl io::BufRead) -> io::Result<Rollup> {
    let SmapsRollup { memory_map_rollup } =
        SmapsRollup::from_buf_read(reader).map_err(|_| malformed("smaps_rollup"))?;
    let map = memory_map_rollup
        .0
        .first()
        .ok_or_else(|| malformed("smaps_rollup"))?;
    let bytes = |name: &str| map.extension.map.get(name).copied();
    Ok(Rollup {
        rss: bytes("Rss"),
        pss: bytes("Pss"),
        private_dirty: bytes("Private_Dirty"),
        anonymous: bytes("Anonymous"),
        swap: bytes("Swap"),
        took: Duration::ZERO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_under_a_hostile_name() {
        let text = std::fs::read("/proc/self/status").unwrap();
        let end = text.iter().position(|&byte| byte == b'\n').unwrap();
        let plain = parse_status(&text).unwrap();
        let mut hostile = b"Name:\t\xff\x1b[2J: VmRSS:\t1 kB".to_vec();
        hostile.extend(&text[end..]);
        assert_eq!(parse_status(&hostile).unwrap(), plain);
        assert!(plain.rss.unwrap() >= plain.rss_anonymous.unwrap());
        assert!(plain.threads.unwrap() >= 1);
    }

    #[test]
    fn a_kernel_thread_has_no_sizes() {
        let text = std::fs::read("/proc/self/status").unwrap();
        let text = String::from_utf8(text).unwrap();
        let without: String = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("Vm") && !line.starts_with("Rss"))
            .collect();
        let totals = parse_status(without.as_bytes()).unwrap();
        assert_eq!((totals.rss, totals.swap, totals.data), (None, None, None));
    }

    #[test]
    fn rollup_of_this_process_is_its_smaps_summed() {
        let root = ProcRoot::default();
        let rollup = read_rollup(&root, std::process::id()).unwrap();
        let smaps = super::super::smaps::read(&root, std::process::id()).unwrap();
        let sum: u64 = smaps.mappings.iter().map(|sizes| sizes.anonymous).sum();
        // Other tests of this binary run meanwhile.
        assert!(rollup.anonymous.unwrap().abs_diff(sum) < 256 << 20);
        assert!(rollup.anonymous_and_swap() >= rollup.anonymous);
        assert!(rollup.took > Duration::ZERO);
    }

    #[test]
    fn rubbish_is_an_error() {
        assert!(parse_status(b"").is_err());
        assert!(parse_status(b"Name:\tx\n").is_err());
        assert!(parse_rollup(&b""[..]).is_err());
        assert!(parse_rollup(&b"Rss: 4 kB\n"[..]).is_err());
    }
}
