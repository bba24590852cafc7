//! Entries of `/proc/PID/pagemap`, one word a page.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page belongs to a file or to shared memory: not anonymous.
const FILE_OR_SHARED: u64 = 1 << 61;
/// A guard of `MADV_GUARD_INSTALL`, which counts as swapped and holds nothing; always 0 before Linux 6.15.
const GUARD: u64 = 1 << 58;

/// One read of pagemap: 256 KiB of entries, which is 128 MiB of 4 KiB pages.
pub(super) const ENTRIES: usize = 32 * 1024;

/// Reads entries of pagemap for `span` (page-aligned), one run at a time to `tally`.
pub(super) fn read(
    file: &File,
    span: Range<u64>,
    page: u64,
    entries: &mut [u8],
    tally: &mut impl FnMut(Range<u64>, bool),
) -> io::Result<()> {
    let mut address = span.start;
    while address < span.end {
        let wanted = usize::try_from((span.end - address) / page)
            .unwrap_or(usize::MAX)
            .saturating_mul(8);
        let length = entries.len().min(wanted);
        let chunk = entries.get_mut(..length).unwrap_or_default();
        let read = match file.read_at(chunk, address / page * 8) {
            // Past the end of the address space, or the process is gone.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (whole, _) = chunk.get(..read).unwrap_or_default().as_chunks::<8>();
        if whole.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut run: Option<(Range<u64>, bool)> = None;
        for entry in whole {
            let entry = u64::from_ne_bytes(*entry);
            let counts = entry & (PRESENT | SWAPPED) != 0 && entry & (FILE_OR_SHARED | GUARD) == 0;
            let swapped = entry & SWAPPED != 0;
            match &mut run {
                Some((pages, kind)) if counts && *kind == swapped => pages.end += page,
                _ => {
                    if let Some((pages, kind)) = run.take() {
                        tally(pages, kind);
                    }
                    run = counts.then_some((address..address + page, swapped));
                }
            }
            address += page;
        }
        if let Some((pages, kind)) = run {
            tally(pages, kind);
        }
    }
    Ok(())
}
