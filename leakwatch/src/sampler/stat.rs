//! `/proc/PID/stat`: what identifies the process, says what state it is in, and counts its faults and its time.
//!
//! Parsed here and not by the procfs crate, which slices by position, and so panics on a line that is cut short.

use std::io;
use std::time::Duration;

use super::lines::number;
use super::{ProcRoot, SMALL_FILE, named};

/// What leakwatch needs of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The main thread's state: `R`, `S`, `D`, `Z`...
    pub state: u8,
    /// `PF_*` bits of the main thread.
    flags: u64,
    /// Faults that needed no disk, of all its threads, those that ended included.
    pub minor_faults: u64,
    /// Faults that waited for one.
    pub major_faults: u64,
    /// Processor time of all its threads, those that ended included; in steps of a clock tick.
    pub processor: Duration,
    /// A main thread that has exited while others run on counts as one.
    pub threads: u64,
    /// Clock ticks from boot to the process's start: with the PID its identity.
    pub start_time_ticks: u64,
    /// Where the heap begins; `None` when the kernel hides it (it writes 0 without ptrace rights).
    pub start_brk: Option<u64>,
    /// Where the main thread's stack begins (its highest addresses); `None` likewise. Addresses are random by default, so
    /// another one in a process of the same start time tells that it executed another program.
    pub start_stack: Option<u64>,
}

impl Stat {
    const PF_EXITING: u64 = 0x4;
    const PF_KTHREAD: u64 = 0x0020_0000;

    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & Self::PF_KTHREAD != 0
    }

    /// The main thread has exited, or is about to: then nothing of the process's memory is to be seen here.
    #[must_use]
    pub fn main_thread_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') || self.flags & Self::PF_EXITING != 0
    }
}

/// Reads `ROOT/PID/stat`.
pub fn read(root: &ProcRoot, pid: u32) -> io::Result<Stat> {
    read_into(root, pid, &mut Vec::new())
}

/// Reads `ROOT/PID/stat` by way of a buffer that many reads can share.
pub fn read_into(root: &ProcRoot, pid: u32, buffer: &mut Vec<u8>) -> io::Result<Stat> {
    root.read_into(pid, "stat", SMALL_FILE, buffer)?;
    parse(buffer).map_err(|error| named(&root.of(pid, "stat"), &error))
}

/// The main thread's name in the text of a stat file: any bytes; at most 15 unless it is a kernel thread's.
#[must_use]
pub fn name(text: &[u8]) -> Option<&[u8]> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    text.get(open + 1..end_of_name(text)?)
}

/// The name may hold anything, `) R 1` included: the last `)` ends it, as only numbers follow.
fn end_of_name(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|&byte| byte == b')')
}

/// Parses the one line of a stat file. An error when it does not end with a newline: a number that is cut short is
/// another number, and one of them is the identity.
pub fn parse(text: &[u8]) -> io::Result<Stat> {
    fields(text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not the stat line of a process"))
}

fn fields(text: &[u8]) -> Option<Stat> {
    let rest = text.strip_suffix(b"\n")?.get(end_of_name(text)? + 1..)?;
    let mut words = rest.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
    // proc(5) counts from 1, with the PID and the name before these.
    let &[state] = words.next()? else {
        return None;
    };
    let mut at = 3;
    let mut field = |wanted: usize| {
        let word = words.nth(wanted.checked_sub(at + 1)?)?;
        at = wanted;
        number(word, 10)
    };
    let flags = field(9)?;
    let minor_faults = field(10)?;
    let major_faults = field(12)?;
    let ticks = field(14)?.saturating_add(field(15)?);
    let threads = field(20)?;
    let start_time_ticks = field(22)?;
    let known = |address: &u64| *address != 0;
    Some(Stat {
        state,
        flags,
        minor_faults,
        major_faults,
        processor: of_ticks(ticks),
        threads,
        start_time_ticks,
        start_stack: field(28).filter(known),
        start_brk: field(47).filter(known),
    })
}

/// A span of clock ticks.
#[must_use]
pub fn of_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let nanoseconds = u128::from(ticks % per_second) * 1_000_000_000 / u128::from(per_second);
    Duration::new(ticks / per_second, u32::try_from(nanoseconds).unwrap_or(0))
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
                    state: b'S',
                    flags: 4194560,
                    minor_faults: 100,
                    major_faults: 0,
                    threads: 9,
                    start_time_ticks: 77001,
                    // utime 1, stime 2.
                    processor: Duration::from_millis(30),
                    start_brk: Some(94_000_000_000_000),
                    start_stack: Some(140_700_000_000_000),
                }
            );
            assert_eq!(super::name(&line), Some(name));
        }
    }

    #[test]
    fn a_line_cut_anywhere_is_an_error() {
        let line = format!("42 (x){REST}");
        for at in 0..line.len() {
            assert!(parse(&line.as_bytes()[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn states_and_absurd_times() {
        let of = |state: &str, flags: u64, ticks: u64| {
            let line =
                format!("7 (x) {state} 1 2 3 4 5 {flags} 0 0 0 0 {ticks} {ticks} 0 0 20 0 1 0 5 0 0\n");
            parse(line.as_bytes()).unwrap()
        };
        assert!(of("Z", 0, 0).main_thread_ended() && of("R", 4, 0).main_thread_ended());
        assert!(!of("S", 0x40_0000, 0).main_thread_ended());
        assert!(of("I", 0x20_8040, 0).is_kernel_thread() && !of("S", 0x40_0000, 0).is_kernel_thread());
        assert!(of("S", 0, u64::MAX).processor > Duration::from_secs(1 << 50));
        assert_eq!(of("S", 0, 0).start_brk, None);
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
    }
}
