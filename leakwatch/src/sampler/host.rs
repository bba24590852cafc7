//! The memory of the host: `/proc/meminfo`.

use std::fs;
use std::io;

use super::ProcRoot;
use super::lines::{number, word};

/// Bytes. `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    pub total: Option<u64>,
    /// What could be taken without swapping, as the kernel estimates it.
    pub available: Option<u64>,
    pub swap_total: Option<u64>,
    pub swap_free: Option<u64>,
}

/// Reads `ROOT/meminfo`.
///
/// # Errors
///
/// When it cannot be read.
pub fn read(root: &ProcRoot) -> io::Result<HostMemory> {
    Ok(parse(&fs::read(root.path().join("meminfo"))?))
}

/// Parses the text of a meminfo file. What is not understood is not known.
#[must_use]
pub fn parse(text: &[u8]) -> HostMemory {
    let mut memory = HostMemory::default();
    for line in text.split(|byte| *byte == b'\n') {
        let (name, rest) = word(line);
        let field = match name {
            b"MemTotal:" => &mut memory.total,
            b"MemAvailable:" => &mut memory.available,
            b"SwapTotal:" => &mut memory.swap_total,
            b"SwapFree:" => &mut memory.swap_free,
            _ => continue,
        };
        *field = number(word(rest).0, 10).and_then(|kib| kib.checked_mul(1024));
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host() {
        let memory = read(&ProcRoot::default()).unwrap();
        assert!(memory.total.unwrap() >= memory.available.unwrap());
        assert!(memory.swap_total.unwrap() >= memory.swap_free.unwrap());
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        let memory =
            parse(b"MemTotal:  8 kB\nMemAvailable: x kB\nSwapTotal: 99999999999999999999 kB\nSwapFree");
        assert_eq!(
            memory,
            HostMemory {
                total: Some(8192),
                ..HostMemory::default()
            }
        );
    }
}
