//! Private, writable, anonymous address space: the kernel's view and the ledger's, to be compared page by page.

use std::path::Path;

use serde_json::Value;

/// A half-open range of addresses.
pub type Range = (u64, u64);

/// The ranges of a process by `/proc/PID/maps`: private, writable, without a file. The main thread's stack is left out,
/// because it grows by faults and not by calls; so is what the kernel put there by itself.
#[must_use]
pub fn of_process(pid: u32) -> Vec<Range> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    normalised(text.lines().filter_map(parse_line).collect())
}

/// The `[stack]` of a process.
#[must_use]
pub fn main_stack(pid: u32) -> Option<Range> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    text.lines()
        .find(|line| line.ends_with("[stack]"))
        .and_then(addresses)
}

fn addresses(line: &str) -> Option<Range> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    ))
}

fn parse_line(line: &str) -> Option<Range> {
    let mut fields = line.split_whitespace();
    let (_, protection) = (fields.next()?, fields.next()?);
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or("");
    let counts = protection.as_bytes().get(1) == Some(&b'w')
        && protection.as_bytes().get(3) == Some(&b'p')
        && inode == "0"
        && name != "[stack]";
    counts.then(|| addresses(line)).flatten()
}

/// The ledger that `record --dump-ledger FILE` wrote: one JSON object a line, with `start`, `end`, `protection`
/// (`PROT_*` bits or `rw-p`), `backing` and `owner`. Taken are the writable ranges of anonymous backing.
#[must_use]
pub fn of_ledger(path: &Path) -> Vec<Range> {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let ranges = text.lines().filter_map(|line| {
        let entry: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("ledger line {line:?}: {error}"));
        let address = |name: &str| {
            entry[name]
                .as_u64()
                .unwrap_or_else(|| panic!("ledger line {line:?}: {name} is no address"))
        };
        let writable = match &entry["protection"] {
            Value::Number(bits) => bits.as_u64().is_some_and(|bits| bits & 2 != 0),
            Value::String(letters) => letters.as_bytes().get(1) == Some(&b'w'),
            other => panic!("ledger line {line:?}: protection is {other}"),
        };
        let anonymous = entry["backing"].as_str().is_some_and(|backing| {
            backing.eq_ignore_ascii_case("anonymous") || backing.eq_ignore_ascii_case("heap")
        });
        (writable && anonymous).then(|| (address("start"), address("end")))
    });
    normalised(ranges.collect())
}

/// Sorted, touching ranges joined: how either side cuts its ranges does not matter.
#[must_use]
pub fn normalised(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// `ranges` without what lies in `hole`.
#[must_use]
pub fn without(ranges: &[Range], hole: Range) -> Vec<Range> {
    let parts = ranges
        .iter()
        .flat_map(|(start, end)| [(*start, (*end).min(hole.0)), ((*start).max(hole.1), *end)]);
    parts.filter(|(start, end)| start < end).collect()
}

/// Panics with each range that only one side has.
pub fn assert_equal(kernel: &[Range], ledger: &[Range]) {
    let minus = |from: &[Range], others: &[Range]| {
        let mut left = from.to_vec();
        for other in others {
            left = without(&left, *other);
        }
        left
    };
    let show = |ranges: Vec<Range>| {
        let lines = ranges
            .iter()
            .take(20)
            .map(|(start, end)| format!("  {start:x}-{end:x} ({} pages)", (end - start) / 4096));
        lines.collect::<Vec<_>>().join("\n")
    };
    let (missing, invented) = (minus(kernel, ledger), minus(ledger, kernel));
    assert!(
        missing.is_empty() && invented.is_empty(),
        "ledger and /proc/PID/maps differ\nonly in maps:\n{}\nonly in the ledger:\n{}",
        show(missing),
        show(invented)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_are_joined() {
        assert_eq!(normalised(vec![(3, 5), (1, 3), (7, 9), (4, 6)]), [(1, 6), (7, 9)]);
    }

    #[test]
    fn a_hole_is_cut_out() {
        assert_eq!(without(&[(1, 10), (20, 30)], (5, 22)), [(1, 5), (22, 30)]);
        assert_eq!(without(&[(1, 10)], (0, 11)), []);
        assert_eq!(without(&[(1, 10)], (20, 30)), [(1, 10)]);
    }

    #[test]
    fn only_private_writable_anonymous_lines_count() {
        assert_eq!(
            parse_line("1000-2000 rw-p 00000000 00:00 0 "),
            Some((0x1000, 0x2000))
        );
        assert_eq!(
            parse_line("1000-2000 rw-p 00000000 00:00 0     [heap]"),
            Some((0x1000, 0x2000))
        );
        for other in [
            "1000-2000 r--p 00000000 00:00 0",
            "1000-2000 rw-s 00000000 00:00 0",
            "1000-2000 rw-p 00000000 fe:00 77 /lib/libc.so.6",
            "1000-2000 rw-p 00000000 00:00 0     [stack]",
            "1000-2000 ---p 00000000 00:00 0",
        ] {
            assert_eq!(parse_line(other), None, "{other}");
        }
    }

    #[test]
    #[should_panic(expected = "only in the ledger:\n  2000-3000 (1 pages)")]
    fn a_page_of_difference_is_told() {
        assert_equal(&[(0x1000, 0x2000)], &[(0x1000, 0x3000)]);
    }
}
