//! `/proc/PID/stat`: the few values that identify the process and bound its heap and stack.

use std::io;
use std::time::Duration;

use procfs::FromRead;
use procfs::process::Stat as ProcStat;

use super::{ProcRoot, named};

/// What leakwatch needs of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Clock ticks from boot to the process's start: with the PID its identity.
    pub start_time_ticks: u64,
    /// Processor time of all its threads, those that ended included; in steps of a clock tick.
    pub processor: Duration,
    /// Page faults of all its threads that needed no reading from a disk, and those that did.
    pub minor_faults: u64,
    pub major_faults: u64,
    /// Where the heap begins; `None` when the kernel hides it (it writes 0 without ptrace rights).
    pub start_brk: Option<u64>,
    /// Where the main thread's stack begins (its highest addresses); `None` likewise.
    pub start_stack: Option<u64>,
}

/// Reads `ROOT/PID/stat`.
pub fn read(root: &ProcRoot, pid: u32) -> io::Result<Stat> {
    let path = root.of(pid, "stat");
    let text = std::fs::read(&path).map_err(|error| named(&path, &error))?;
    parse(&text).map_err(|error| named(&path, &error))
}

/// Parses the one line of a stat file.
pub fn parse(text: &[u8]) -> io::Result<Stat> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "not the stat line of a process");
    // The name may hold anything, `) R 1` included: the last `)` ends it, as only numbers follow. It is cut out
    // before the procfs crate sees the line, which slices by position and would panic on a line that is cut short.
    let open = text.iter().position(|&byte| byte == b'(').ok_or_else(malformed)?;
    let close = text
        .iter()
        .rposition(|&byte| byte == b')')
        .ok_or_else(malformed)?;
    let mut line = text.get(..open).ok_or_else(malformed)?.to_vec();
    line.extend(b"(x)");
    line.extend(text.get(close + 1..).ok_or_else(malformed)?);
    // The crate trims the line first, as text is trimmed: of vertical tabs too.
    let rest = std::str::from_utf8(&line).map_err(|_| malformed())?.trim();
    if open < 2 || rest.len() < open + 5 || !line.is_ascii() {
        return Err(malformed());
    }
    let stat = ProcStat::from_read(&line[..]).map_err(|_| malformed())?;
    let known = |address: u64| (address != 0).then_some(address);
    Ok(Stat {
        start_time_ticks: stat.starttime,
        processor: Duration::from_secs_f64(
            stat.utime.saturating_add(stat.stime) as f64
                / rustix::param::clock_ticks_per_second().max(1) as f64,
        ),
        minor_faults: stat.minflt,
        major_faults: stat.majflt,
        start_brk: stat.start_brk.and_then(known),
        start_stack: known(stat.startstack),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str = " S 1 5 5 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 9 0 77001 1000 250 18446744073709551615 1 2 140700000000000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 3 4 94000000000000 5 6 7 8 0\n";

    #[test]
    fn a_name_may_hold_anything() {
        for name in [&b"server"[..], b") R 1 2 (", b"a) b", b"\xff\n\x1b", b""] {
            let mut line = b"42 (".to_vec();
            line.extend(name);
            line.extend(b")");
            line.extend(REST.as_bytes());
            assert_eq!(
                parse(&line).unwrap(),
                Stat {
                    start_time_ticks: 77001,
                    // utime 1, stime 2.
                    processor: Duration::from_millis(30),
                    minor_faults: 100,
                    major_faults: 0,
                    start_brk: Some(94_000_000_000_000),
                    start_stack: Some(140_700_000_000_000),
                }
            );
        }
    }

    #[test]
    fn a_line_of_nothing_but_odd_spaces() {
        assert!(parse(b"00() \x0b").is_err());
    }

    #[test]
    fn this_process() {
        let root = ProcRoot::default();
        let stat = read(&root, std::process::id()).unwrap();
        assert!(stat.start_time_ticks > 0);
        let stack = stat.start_stack.unwrap();
        let maps = super::super::maps::read(&root, std::process::id()).unwrap();
        assert!(
            maps.mappings
                .iter()
                .any(|m| m.path_bytes() == b"[stack]" && m.range.contains(&stack))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_stat_line_or_an_error(text in "[0-9]{0,4} ?\\(.{0,8}\\)? ?.{0,40}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn a_line_cut_anywhere_is_no_panic(at in 0usize..220) {
            let line = format!("42 (x){REST}");
            let _ = parse(&line.as_bytes()[..at.min(line.len())]);
        }
    }
}
