//! The `PAGEMAP_SCAN` ioctl: runs of pages by category.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Regions that one call can return.
pub(super) const REGIONS: usize = 1024;

/// `struct page_region` of linux/fs.h.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Region {
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

/// `_IOWR('f', 16, struct pm_scan_arg)`. C libraries differ in the type, and in its sign.
const PAGEMAP_SCAN: libc::Ioctl =
    (3_u32 << 30 | SCAN_ARGUMENTS_BYTES << 16 | (b'f' as u32) << 8 | 16) as libc::Ioctl;

const FILE: u64 = 1 << 2;
const PRESENT: u64 = 1 << 3;
/// Swapped out, or being moved by the kernel just now.
pub(super) const SWAPPED: u64 = 1 << 4;
const ZERO_PAGE: u64 = 1 << 5;
/// Mapped by one entry of the page middle directory.
pub(super) const HUGE: u64 = 1 << 6;
/// A guard that `MADV_GUARD_INSTALL` left in the page table. It holds nothing, yet counts as swapped.
const GUARD: u64 = 1 << 8;

/// Looks through a process's memory, by its open pagemap, for pages that are anonymous and there.
pub(super) struct Scan {
    /// Categories that a page must not have.
    unwanted: u64,
    regions: Vec<Region>,
}

impl Scan {
    /// What this kernel can do, asked of any process's pagemap. [`io::ErrorKind::Unsupported`] before Linux 6.7.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let mut scan = Self {
            unwanted: FILE | ZERO_PAGE | GUARD,
            regions: Vec::new(),
        };
        // An empty scan tells what the kernel knows: ENOTTY without the ioctl, EINVAL without a category.
        let mut known = scan.call(file, &(0..0), 0, 0);
        if known
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
        {
            // Linux 6.15 told guards apart; the two releases before had them and counted them.
            scan.unwanted = FILE | ZERO_PAGE;
            known = scan.call(file, &(0..0), 0, 0);
        }
        known.map_err(|error| {
            let reason = format!("the kernel has no PAGEMAP_SCAN ({error})");
            io::Error::new(io::ErrorKind::Unsupported, reason)
        })?;
        scan.regions.resize(REGIONS, Region::default());
        Ok(scan)
    }

    /// Hands the runs of `span` (page-aligned) that have all categories of `wanted` to `tally`, ascending: addresses,
    /// and which of `told` they have. A run may come in parts.
    pub(super) fn runs(
        &mut self,
        file: &File,
        span: Range<u64>,
        wanted: u64,
        told: u64,
        mut tally: impl FnMut(Range<u64>, u64),
    ) -> io::Result<()> {
        let mut start = span.start;
        loop {
            let (filled, walked) = match self.call(file, &(start..span.end), wanted, told) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            };
            let mut last_end = start;
            for region in self.regions.iter().take(filled) {
                tally(region.start..region.end, region.categories & told);
                last_end = last_end.max(region.end);
            }
            // When the vector fills exactly at the end of a region, `walk_end` can lie before that end: going on from
            // there would count its pages twice.
            let next = walked.max(last_end);
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

    /// One call. Returns how many regions it filled, and the address up to which it looked.
    fn call(&mut self, file: &File, span: &Range<u64>, wanted: u64, told: u64) -> io::Result<(usize, u64)> {
        let returns = !self.regions.is_empty();
        let mut arguments = ScanArguments {
            size: u64::from(SCAN_ARGUMENTS_BYTES),
            start: span.start,
            end: span.end,
            vec: if returns {
                self.regions.as_mut_ptr().expose_provenance() as u64
            } else {
                0
            },
            vec_len: self.regions.len() as u64,
            category_inverted: self.unwanted,
            category_mask: self.unwanted | wanted,
            category_anyof_mask: PRESENT | SWAPPED,
            // Something must be asked for when there is a vector, and may not be when there is none.
            return_mask: if returns { PRESENT | told } else { 0 },
            ..ScanArguments::default()
        };
        // SAFETY: the argument has the layout and size it states; `vec` points at `vec_len` regions that outlive the
        // call and that nothing else looks at meanwhile; the kernel writes no more than that, and any bits are a
        // valid `Region`.
        let filled = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) };
        match usize::try_from(filled) {
            Ok(filled) => Ok((filled, arguments.walk_end)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::ProcRoot;

    /// A constant of the interface that no test elsewhere would miss.
    #[test]
    fn the_kernel_knows_the_categories() {
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        match Scan::new(&file) {
            Ok(mut scan) => {
                scan.runs(&file, 0x1000..0x2000, HUGE, HUGE | SWAPPED, |_, _| {})
                    .unwrap();
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
        let no_pagemap = File::open("/proc/self/maps").unwrap();
        let refused = Scan::new(&no_pagemap).map(drop).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }
}
