//! Lines of a /proc file as bytes, one buffer for all of them.

use std::io::{self, BufRead};

/// The longest line that is kept, bytes. The kernel bounds a path at one page, and escaping (`\012`) makes at most
/// four bytes of one.
const LINE_BYTES_MAX: usize = 32 * 1024;

/// Calls `each` with every line, its newline cut off. A line over the bound is handed on cut: its numbers come first.
/// `each` returns `false` to stop.
pub(super) fn for_each_line(mut reader: impl BufRead, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut line = Vec::with_capacity(256);
    loop {
        line.clear();
        let mut ended = false;
        while !ended {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                if !line.is_empty() {
                    each(&line);
                }
                return Ok(());
            }
            let newline = chunk.iter().position(|&byte| byte == b'\n');
            let (part, used) = match newline {
                Some(at) => (chunk.get(..at).unwrap_or_default(), at + 1),
                None => (chunk, chunk.len()),
            };
            let room = LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            ended = newline.is_some();
            reader.consume(used);
        }
        if !each(&line) {
            return Ok(());
        }
    }
}

/// Splits off the first word: (word, rest with its leading blanks).
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = trim_start(text);
    let end = text
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t'))
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'))
        .unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

/// A whole number in `radix`; `None` for anything else, an overflow included.
pub(super) fn number(text: &[u8], radix: u32) -> Option<u64> {
    // `from_str_radix` takes a leading `+`, which the kernel never writes.
    if text.first() == Some(&b'+') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

/// The bytes of a field whose name was split off: ` 12 kB`. `None` for anything else, an overflow included.
pub(super) fn kib(rest: &[u8]) -> Option<u64> {
    let (value, unit) = word(rest);
    let bytes = number(value, 10)?.checked_mul(1024)?;
    (word(unit).0 == b"kB").then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_over_the_bound_is_cut_and_the_next_one_is_whole() {
        let mut text = vec![b'a'; LINE_BYTES_MAX + 5000];
        text.extend(b"\nnext\n\nlast");
        let mut lines = Vec::new();
        for_each_line(io::BufReader::with_capacity(7, &text[..]), |line| {
            lines.push(line.to_vec());
            true
        })
        .unwrap();
        assert_eq!(lines[0].len(), LINE_BYTES_MAX);
        assert_eq!(&lines[1..], [b"next".to_vec(), vec![], b"last".to_vec()]);
    }

    #[test]
    fn numbers_refuse_signs_and_overflow() {
        assert_eq!(number(b"ff", 16), Some(255));
        assert_eq!(number(b"+1", 10), None);
        assert_eq!(number(b"-1", 10), None);
        assert_eq!(number(b"99999999999999999999", 10), None);
        assert_eq!(number(b"", 10), None);
    }

    #[test]
    fn sizes_are_kibibytes_or_nothing() {
        assert_eq!(kib(b"\t   12 kB"), Some(12 << 10));
        assert_eq!(kib(b" 12"), None);
        assert_eq!(kib(b" 12 MB"), None);
        assert_eq!(kib(b" 18446744073709551615 kB"), None);
    }
}
