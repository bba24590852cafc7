//! The totals of a process: `/proc/PID/status` and `/proc/PID/smaps_rollup`.
//!
//! Parsed here and not by the procfs crate: it fails on the whole file for one field that it cannot read, multiplies
//! sizes without a check, and makes a map of all sixty lines, which would cost more than the kernel takes to write them.

use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use super::lines::{for_each_line, kib, number, word};
use super::{ProcRoot, SMALL_FILE, named};

/// From `/proc/PID/status`; bytes. `None` where the process has no memory of its own (kernel thread, zombie), and
/// where the figure is no number of bytes.
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
    /// `VmPTE`: page tables, which no other figure contains.
    pub page_tables: Option<u64>,
    /// `HugetlbPages`: pages of hugetlbfs, which no other figure contains.
    pub hugetlb: Option<u64>,
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
    read_status_into(root, pid, &mut Vec::new())
}

/// Reads `ROOT/PID/status` by way of a buffer that many reads can share.
pub fn read_status_into(root: &ProcRoot, pid: u32, buffer: &mut Vec<u8>) -> io::Result<Totals> {
    root.read_into(pid, "status", SMALL_FILE, buffer)?;
    parse_status(buffer).map_err(|error| named(&root.of(pid, "status"), &error))
}

/// Parses the text of a status file. An error when it has no whole line of threads, which comes after the sizes: then
/// it is cut short, or no status at all.
pub fn parse_status(text: &[u8]) -> io::Result<Totals> {
    let mut totals = Totals::default();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        // A number that the end of the text cuts would be another number.
        let Some(line) = line.strip_suffix(b"\n") else {
            break;
        };
        let (name, rest) = word(line);
        let field = match name {
            b"VmRSS:" => &mut totals.rss,
            b"VmHWM:" => &mut totals.peak_rss,
            b"RssAnon:" => &mut totals.rss_anonymous,
            b"RssFile:" => &mut totals.rss_file,
            b"RssShmem:" => &mut totals.rss_shmem,
            b"VmSwap:" => &mut totals.swap,
            b"VmData:" => &mut totals.data,
            b"VmPTE:" => &mut totals.page_tables,
            b"HugetlbPages:" => &mut totals.hugetlb,
            b"Threads:" => {
                totals.threads = number(word(rest).0, 10);
                // Some forty lines of signals, capabilities and processors follow.
                break;
            }
            _ => continue,
        };
        *field = kib(rest);
    }
    match totals.threads {
        Some(_) => Ok(totals),
        None => Err(malformed("status")),
    }
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

/// Parses the text of a `smaps_rollup` file; an error when it does not begin with the line of its one mapping.
pub fn parse_rollup(reader: impl io::BufRead) -> io::Result<Rollup> {
    let mut rollup = Rollup::default();
    let mut lines = 0_u32;
    let mut headed = false;
    for_each_line(reader, |line| {
        lines += 1;
        if lines == 1 {
            headed = line.ends_with(b"[rollup]");
            return headed;
        }
        let (name, rest) = word(line);
        let field = match name {
            b"Rss:" => &mut rollup.rss,
            b"Pss:" => &mut rollup.pss,
            b"Private_Dirty:" => &mut rollup.private_dirty,
            b"Anonymous:" => &mut rollup.anonymous,
            b"Swap:" => &mut rollup.swap,
            _ => return true,
        };
        *field = kib(rest);
        true
    })?;
    if headed {
        Ok(rollup)
    } else {
        Err(malformed("smaps_rollup"))
    }
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

    #[test]
    fn absurd_numbers_are_none_and_leave_the_others() {
        let totals = parse_status(
            b"Name:\tx\nVmRSS:\t18446744073709551615 kB\nVmData:\t-1 kB\nVmSwap:\t8 kB\nVmPTE:\t4\nThreads:\t3\n",
        )
        .unwrap();
        let expected = Totals {
            swap: Some(8192),
            threads: Some(3),
            ..Totals::default()
        };
        assert_eq!(totals, expected);
        let text = b"0-1 ---p 00000000 00:00 0    [rollup]\nRss: 18446744073709551615 kB\nPss: 4 kB\n";
        let rollup = parse_rollup(&text[..]).unwrap();
        assert_eq!((rollup.rss, rollup.pss), (None, Some(4096)));
    }

    #[test]
    fn a_number_cut_short_is_no_number() {
        assert!(parse_status(b"Name:\tx\nVmRSS:\t8 kB\nThreads:\t12").is_err());
    }
}
