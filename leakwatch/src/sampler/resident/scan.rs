//! The `PAGEMAP_SCAN` ioctl: runs of pages by category.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Regions that one scan can return.
pub(super) const REGIONS: usize = 1024;
/// `struct page_region` of linux/fs.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of linux/fs.h.
#[derive(Debug, Default)]
#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const SCAN_ARGUMENTS_BYTES: u32 = 96;
const _: () = assert!(size_of::<ScanArguments>() == 96 && size_of::<Region>() == 24);

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong =
    (3 << 30) | ((SCAN_ARGUMENTS_BYTES as libc::c_ulong) << 16) | (0x66 << 8) | 16;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// Scans `span` (page-aligned), one run at a time to `tally`.
pub(super) fn scan(
    file: &File,
    span: Range<u64>,
    regions: &mut [Region],
    tally: &mut impl FnMut(Range<u64>, bool),
) -> io::Result<()> {
    let mut start = span.start;
    loop {
        let mut arguments = ScanArguments {
            size: u64::from(SCAN_ARGUMENTS_BYTES),
            start,
            end: span.end,
            vec: if regions.is_empty() {
                0
            } else {
                regions.as_mut_ptr().expose_provenance() as u64
            },
            vec_len: regions.len() as u64,
            category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: if regions.is_empty() {
                0
            } else {
                PAGE_IS_PRESENT | PAGE_IS_SWAPPED
            },
            ..ScanArguments::default()
        };
        // SAFETY: the argument has the layout and size it states; `vec` points at `vec_len` regions that outlive the
        // call and that nothing else looks at meanwhile; the kernel writes no more than that, and any bits are a
        // valid `Region`.
        let filled = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
        let Ok(filled) = usize::try_from(filled) else {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        };
        let mut last_end = start;
        for region in regions.iter().take(filled) {
            tally(region.start..region.end, region.categories & PAGE_IS_SWAPPED != 0);
            last_end = last_end.max(region.end);
        }
        // When the vector fills exactly at the end of a region, `walk_end` can lie before that end: going on from
        // there would count its pages twice.
        let next = arguments.walk_end.max(last_end);
        if next >= span.end {
            return Ok(());
        }
        if next <= start {
            // No progress, for instance an address that is not the process's: better no answer than a hang.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        start = next;
    }
}
