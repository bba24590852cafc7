//! Another process's memory, read from outside: no pause, no ptrace, no handle held on it.

use std::io;

/// What can be read by address. Memory moves and vanishes while it is read, and its content is hostile.
pub trait Memory {
    /// Fills `into` from `address` on, and returns how many bytes were there: fewer than asked where the mapping
    /// ends. Fails where not even the first can be read.
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize>;

    /// A word of eight bytes.
    fn word(&self, address: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.fill(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// All of `into`, or an error.
    fn fill(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        if self.read(address, into)? == into.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// `length` bytes from each of `addresses` on, one after the other in `into`, which has room for all. Says of each
    /// whether all of it was there.
    fn fill_each(&self, addresses: &[u64], length: usize, into: &mut [u8]) -> Vec<bool> {
        addresses
            .iter()
            .zip(into.chunks_exact_mut(length))
            .map(|(address, into)| self.fill(*address, into).is_ok())
            .collect()
    }
}

/// The memory of a process, by `process_vm_readv`. Needs `CAP_SYS_PTRACE`, or the same user and a dumpable target.
///
/// It holds a bare number. Whoever made it knows by a pidfd that the number still means the same process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    pid: u32,
}

impl ProcessMemory {
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self { pid }
    }
}

impl Memory for ProcessMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        let pid = i32::try_from(self.pid).map_err(io::Error::other)?;
        let address = usize::try_from(address).map_err(io::Error::other)?;
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(address),
            iov_len: into.len(),
        };
        // SAFETY: the local vector is one writable buffer of its length; the remote one is only an address in another
        // process, which the kernel checks.
        let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    fn fill_each(&self, addresses: &[u64], length: usize, into: &mut [u8]) -> Vec<bool> {
        /// `UIO_MAXIOV`.
        const AT_ONCE: usize = 1024;
        let mut there = vec![false; addresses.len()];
        let mut at = 0;
        while let (Some(rest), Some(room)) = (addresses.get(at..), into.get_mut(at * length..)) {
            let count = rest.len().min(AT_ONCE);
            let Some(room) = room.get_mut(..count * length).filter(|_| count > 0) else {
                break;
            };
            let whole = self.read_each(rest.get(..count).unwrap_or_default(), length, room);
            let end = at + whole;
            if let Some(read) = there.get_mut(at..end) {
                read.fill(true);
            }
            // It stops in front of the first that cannot be read as a whole.
            at = if whole < count { end + 1 } else { end };
        }
        there
    }
}

impl ProcessMemory {
    /// How many of the first addresses could be read as wholes.
    fn read_each(self, addresses: &[u64], length: usize, into: &mut [u8]) -> usize {
        let Ok(pid) = i32::try_from(self.pid) else {
            return 0;
        };
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote: Vec<libc::iovec> = addresses
            .iter()
            .map(|address| libc::iovec {
                iov_base: std::ptr::without_provenance_mut(usize::try_from(*address).unwrap_or(0)),
                iov_len: length,
            })
            .collect();
        // SAFETY: the local vector is one writable buffer of its length; the remote ones are only addresses in another
        // process, which the kernel checks.
        let read = unsafe {
            libc::process_vm_readv(
                pid,
                &raw const local,
                1,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        usize::try_from(read).map_or(0, |read| read / length.max(1))
    }
}

/// The eight bytes at an offset of a buffer; `None` beyond its end.
pub(super) fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_ne_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod fake {
    use super::*;
    use std::cell::Cell;

    /// Pieces of memory at addresses of the test's choice.
    #[derive(Default)]
    pub struct Pieces {
        pub pieces: Vec<(u64, Vec<u8>)>,
        pub reads: Cell<u64>,
    }

    impl Pieces {
        pub fn add(&mut self, address: u64, bytes: usize) {
            self.pieces.push((address, vec![0; bytes]));
        }

        pub fn put(&mut self, address: u64, words: &[u64]) {
            for (at, word) in (address..).step_by(8).zip(words) {
                let (start, bytes) = self
                    .pieces
                    .iter_mut()
                    .find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&at))
                    .unwrap();
                let offset = usize::try_from(at - *start).unwrap();
                bytes[offset..offset + 8].copy_from_slice(&word.to_ne_bytes());
            }
        }
    }

    impl Memory for Pieces {
        fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            for (start, bytes) in &self.pieces {
                let Some(offset) = address
                    .checked_sub(*start)
                    .and_then(|it| usize::try_from(it).ok())
                else {
                    continue;
                };
                if let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
                    let length = rest.len().min(into.len());
                    into[..length].copy_from_slice(&rest[..length]);
                    return Ok(length);
                }
            }
            Err(io::Error::from_raw_os_error(libc::EFAULT))
        }
    }
}
