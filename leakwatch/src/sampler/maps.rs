//! `/proc/PID/maps`: where each mapping lies, what it may do, what stands behind it.

use std::ffi::OsString;
use std::ops::Range;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses, page-aligned.
    pub range: Range<u64>,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    /// `MAP_SHARED` (an `s` in the fourth column).
    pub shared: bool,
    /// Offset in the file, bytes; 0 for anonymous memory.
    pub offset: u64,
    /// (major, minor) of the file's device; (0, 0) for anonymous memory.
    pub device: (u32, u32),
    /// Inode of the file; 0 for anonymous memory.
    pub inode: u64,
    /// The last column as the kernel wrote it (`\n` is escaped as `\012` there), e.g. `/usr/lib/libc.so.6`,
    /// `/tmp/gone (deleted)`, `[heap]`, `[stack]`, `[vdso]`, `[anon:name]`; `None` for none. Untrusted bytes.
    pub path: Option<OsString>,
}
