//! Is a process's code what its files say? A probe is a breakpoint in the text, and must be gone when its owner is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A place where memory and file differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub address: u64,
    pub file: String,
    /// In the file.
    pub offset: u64,
    pub expected: u8,
    pub found: u8,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub files: Vec<String>,
    pub bytes: u64,
    pub differences: Vec<Difference>,
}

/// Places where probes stand while they are there: to be asked often, which takes microseconds.
#[derive(Debug)]
pub struct Places {
    memory: File,
    /// Addresses, and what the file has there.
    bytes: Vec<(u64, u8)>,
}

impl Places {
    /// Where the text of a process differs from its files, now.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let differences = compare(pid).differences;
        assert!(
            !differences.is_empty(),
            "there are no probes in the text of {pid}"
        );
        let bytes = differences.iter().map(|place| (place.address, place.expected));
        Self {
            memory: File::open(format!("/proc/{pid}/mem")).expect("it was just read"),
            bytes: bytes.collect(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn all(&self) -> usize {
        self.bytes.len()
    }

    /// How many of them have a probe.
    ///
    /// # Panics
    /// Where the process is gone.
    #[must_use]
    pub fn taken(&self) -> usize {
        let taken = self.bytes.iter().filter(|(address, expected)| {
            let mut found = [0];
            self.memory
                .read_exact_at(&mut found, *address)
                .expect("the process is there");
            found != [*expected]
        });
        taken.count()
    }
}

/// One executable mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

/// Compares all executable mappings of files with the files. Reading `/proc/PID/mem` shows breakpoints as they stand;
/// the process is not stopped.
///
/// # Panics
/// Where the process is gone, or a file of its cannot be read.
#[must_use]
pub fn compare(pid: u32) -> Comparison {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .unwrap_or_else(|error| panic!("cannot read /proc/{pid}/maps: {error}"));
    let memory =
        File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| panic!("/proc/{pid}/mem: {error}"));
    let mut comparison = Comparison::default();
    for mapping in maps.lines().filter_map(executable) {
        // Not by its name, under which there may be another by now.
        let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        let file = File::open(&link).unwrap_or_else(|error| panic!("{link}: {error}"));
        let length = usize::try_from(mapping.end - mapping.start).expect("a mapping fits in memory");
        let mut found = vec![0; length];
        memory
            .read_exact_at(&mut found, mapping.start)
            .unwrap_or_else(|error| panic!("cannot read {mapping:?} of {pid}: {error}"));
        // Beyond the file's end its last page is zeros.
        let mut expected = vec![0; length];
        let mut filled = 0;
        while let Ok(more @ 1..) = file.read_at(&mut expected[filled..], mapping.offset + filled as u64) {
            filled += more;
        }
        for (at, (expected, found)) in expected.iter().zip(&found).enumerate() {
            if expected != found {
                comparison.differences.push(Difference {
                    address: mapping.start + at as u64,
                    file: mapping.path.clone(),
                    offset: mapping.offset + at as u64,
                    expected: *expected,
                    found: *found,
                });
            }
        }
        comparison.bytes += length as u64;
        comparison.files.push(mapping.path);
    }
    comparison
}

/// Waits until nothing is left in the text of a process: the kernel takes probes out some time after their owner's
/// end.
///
/// # Panics
/// Where something is left after two seconds, or libc (else the program itself, where it is static) was not compared.
pub fn wait_clean(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let comparison = compare(pid);
        assert!(
            comparison.bytes > 100_000,
            "too little was compared: {comparison:?}"
        );
        if comparison.differences.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "left in the text of {pid}: {:?}",
            &comparison.differences[..comparison.differences.len().min(20)]
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A line of maps, where it is code from a file.
fn executable(line: &str) -> Option<Mapping> {
    // start-end perms offset dev inode path
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?;
    let offset = fields.next()?;
    let path = line.split_once('/').map(|(_, path)| format!("/{path}"))?;
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    (permissions.contains('x')).then_some(Mapping {
        start: hexadecimal(start)?,
        end: hexadecimal(end)?,
        offset: hexadecimal(offset)?,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_read() {
        let line = "7f0000028000-7f000017d000 r-xp 00026000 08:01 1234  /usr/lib/x86_64-linux-gnu/libc.so.6";
        let expected = Mapping {
            start: 0x7f00_0002_8000,
            end: 0x7f00_0017_d000,
            offset: 0x26000,
            path: "/usr/lib/x86_64-linux-gnu/libc.so.6".to_owned(),
        };
        assert_eq!(executable(line), Some(expected));
        assert_eq!(executable(&line.replace("r-xp", "rw-p")), None);
        assert_eq!(
            executable("7ffd3a1b6000-7ffd3a1b8000 r-xp 00000000 00:00 0    [vdso]"),
            None
        );
    }

    /// A byte of the text that is not the file's is found, wherever it came from.
    #[test]
    fn a_breakpoint_is_found() {
        let own = std::process::id();
        let path = std::env::current_exe().unwrap();
        let file = File::open(&path).unwrap();
        let before = compare(own);
        assert!(before.bytes > 100_000 && before.files.iter().any(|file| file.contains("libc")));
        // SAFETY: a new private mapping of this program's own file, which nobody runs.
        let page = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
                &file,
                0,
            )
        }
        .unwrap();
        // SAFETY: within the page just mapped, which is writable; then it becomes what is compared.
        unsafe {
            let byte = page.cast::<u8>().add(64);
            *byte = !*byte;
            rustix::mm::mprotect(
                page,
                4096,
                rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::EXEC,
            )
            .unwrap();
        }
        let after = compare(own);
        // SAFETY: nobody has a reference into it.
        unsafe { rustix::mm::munmap(page, 4096) }.unwrap();
        let found: Vec<_> = after
            .differences
            .iter()
            .filter(|difference| difference.offset == 64)
            .collect();
        let [difference] = found.as_slice() else {
            panic!("{after:?}");
        };
        assert_eq!(difference.found, !difference.expected);
    }
}
