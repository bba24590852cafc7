//! Which bytes of given address ranges are there: resident or swapped out, and anonymous.
//!
//! By the `PAGEMAP_SCAN` ioctl where the kernel has it (6.7 and newer), else by reading `/proc/PID/pagemap`. They
//! differ in one point: the scan leaves the zero page out (memory that was read and never written costs nothing), in
//! pagemap it is a present page like any other, so there such memory counts. Neither reads any content.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::ProcRoot;

/// Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page belongs to a file or to shared memory: not anonymous.
const FILE_OR_SHARED: u64 = 1 << 61;

/// One read of pagemap: 256 KiB of entries, which is 128 MiB of 4 KiB pages.
const ENTRIES: usize = 32 * 1024;
/// Regions that one scan can return.
const REGIONS: usize = 1024;
/// Ranges nearer to each other than this are looked up in one go: the empty pages between cost less than a call.
const GAP_BYTES: u64 = 256 * 1024;

/// What is there of one range, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residence {
    pub resident: u64,
    pub swapped: u64,
}

impl Residence {
    /// Both together: the pages that the range keeps.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.resident.saturating_add(self.swapped)
    }
}

/// How it was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `PAGEMAP_SCAN`: the zero page is not counted.
    Scan,
    /// Entries of pagemap: the zero page is counted.
    Pagemap,
}

/// The answer for each range, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidentReading {
    /// `None` where the look-up failed (the process exited, or the address is outside its address space).
    pub ranges: Vec<Option<Residence>>,
    /// How many are `None`.
    pub failures: u64,
    pub method: Method,
}

/// Looks the ranges (bytes, any order, any size) up in `ROOT/PID/pagemap`. The error is that of opening it.
pub fn read(root: &ProcRoot, pid: u32, ranges: &[Range<u64>]) -> io::Result<ResidentReading> {
    let file = root.open(pid, "pagemap")?;
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    // An empty scan tells whether there is one: ENOTTY before 6.7.
    let method = if scan(&file, 0..0, &mut [], &mut |_, _| {}).is_ok() {
        Method::Scan
    } else {
        Method::Pagemap
    };
    Ok(read_by(method, &file, page, ranges))
}

fn read_by(method: Method, file: &File, page: u64, ranges: &[Range<u64>]) -> ResidentReading {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| ranges.get(index).map(|range| range.start));
    let mut found = vec![Some(Residence::default()); ranges.len()];
    let mut regions = vec![Region::default(); if method == Method::Scan { REGIONS } else { 0 }];
    let mut entries = vec![
        0u8;
        if method == Method::Pagemap {
            ENTRIES * 8
        } else {
            0
        }
    ];

    let mut rest = order.as_slice();
    while let Some(&first) = rest.first() {
        let Some(Range { start, mut end }) = ranges.get(first).cloned() else {
            break;
        };
        let count = 1 + rest
            .iter()
            .skip(1)
            .filter_map(|&index| ranges.get(index))
            .take_while(|next| {
                let near = next.start <= end.saturating_add(GAP_BYTES);
                if near {
                    end = end.max(next.end);
                }
                near
            })
            .count();
        let (batch, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = others;
        if start >= end {
            continue;
        }
        let Some(span_end) = end.checked_next_multiple_of(page) else {
            forget(&mut found, batch);
            continue;
        };
        let span = start / page * page..span_end;

        let mut at = 0;
        let mut tally = |pages: Range<u64>, swapped: bool| {
            share_out(batch, &mut at, ranges, &mut found, &pages, swapped)
        };
        let outcome = match method {
            Method::Scan => scan(file, span, &mut regions, &mut tally),
            Method::Pagemap => pagemap(file, span, page, &mut entries, &mut tally),
        };
        if outcome.is_err() {
            forget(&mut found, batch);
        }
    }
    // A scan of memory that is torn down (the process exited, or replaced its image) succeeds and finds nothing; a read
    // of pagemap says end of file then. Alive now is alive at every scan before.
    if method == Method::Scan && !matches!(file.read_at(&mut [0; 8], 0), Ok(8)) {
        found.fill(None);
    }
    let failures = found.iter().filter(|range| range.is_none()).count() as u64;
    ResidentReading {
        ranges: found,
        failures,
        method,
    }
}

/// A failed look-up tells nothing of its ranges: what was counted before the failure is not an answer.
fn forget(found: &mut [Option<Residence>], batch: &[usize]) {
    for &index in batch {
        if let Some(range) = found.get_mut(index) {
            *range = None;
        }
    }
}

/// Gives a run of pages to the ranges it lies in. Runs come in ascending order, `at` remembers the first range that
/// can still be met.
fn share_out(
    batch: &[usize],
    at: &mut usize,
    ranges: &[Range<u64>],
    found: &mut [Option<Residence>],
    pages: &Range<u64>,
    swapped: bool,
) {
    let range = |position: usize| {
        batch
            .get(position)
            .and_then(|&index| Some((index, ranges.get(index)?)))
    };
    while range(*at).is_some_and(|(_, range)| range.end <= pages.start) {
        *at += 1;
    }
    let mut position = *at;
    while let Some((index, range)) = range(position)
        && range.start < pages.end
    {
        let bytes = range
            .end
            .min(pages.end)
            .saturating_sub(range.start.max(pages.start));
        if let Some(Some(residence)) = found.get_mut(index) {
            let sum = if swapped {
                &mut residence.swapped
            } else {
                &mut residence.resident
            };
            *sum += bytes;
        }
        position += 1;
    }
}

/// Reads entries of pagemap for `span` (page-aligned), one run at a time to `tally`.
fn pagemap(
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
            let counts = entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0;
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

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong =
    (3 << 30) | ((SCAN_ARGUMENTS_BYTES as libc::c_ulong) << 16) | (0x66 << 8) | 16;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// Scans `span` (page-aligned), one run at a time to `tally`.
fn scan(
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
            tally(
                region.start..region.end,
                region.categories & PAGE_IS_SWAPPED != 0,
            );
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

#[cfg(test)]
mod tests {
    use std::ptr::{null_mut, with_exposed_provenance_mut};

    use super::*;

    const PAGE: u64 = 4096;

    /// Private anonymous memory of this process, not huge, nothing touched.
    struct Memory(Range<u64>);

    impl Memory {
        fn new(pages: u64, shared: bool) -> Self {
            let length = (pages * PAGE) as usize;
            let kind = if shared {
                libc::MAP_SHARED
            } else {
                libc::MAP_PRIVATE
            };
            let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a fresh mapping, wherever the kernel likes.
            let at = unsafe {
                libc::mmap(
                    null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    flags,
                    -1,
                    0,
                )
            };
            assert_ne!(at, libc::MAP_FAILED);
            // SAFETY: the mapping just made.
            unsafe { libc::madvise(at, length, libc::MADV_NOHUGEPAGE) };
            let start = at.expose_provenance() as u64;
            Self(start..start + pages * PAGE)
        }

        fn write(&self, page: u64) {
            let at = self.0.start + page * PAGE;
            assert!(at < self.0.end);
            // SAFETY: inside the mapping, which this test owns.
            unsafe { with_exposed_provenance_mut::<u8>(at as usize).write_volatile(1) };
        }

        fn read(&self, page: u64) {
            // SAFETY: inside the mapping, which this test owns.
            unsafe {
                with_exposed_provenance_mut::<u8>((self.0.start + page * PAGE) as usize)
                    .read_volatile()
            };
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, which nothing points into any more.
            unsafe {
                libc::munmap(
                    with_exposed_provenance_mut(self.0.start as usize),
                    (self.0.end - self.0.start) as usize,
                )
            };
        }
    }

    fn both(ranges: &[Range<u64>]) -> [Option<ResidentReading>; 2] {
        let file = ProcRoot::default()
            .open(std::process::id(), "pagemap")
            .unwrap();
        let has_scan = scan(&file, 0..0, &mut [], &mut |_, _| {}).is_ok();
        [
            has_scan.then(|| read_by(Method::Scan, &file, PAGE, ranges)),
            Some(read_by(Method::Pagemap, &file, PAGE, ranges)),
        ]
    }

    fn resident(ranges: &[Range<u64>]) -> Vec<u64> {
        let mut answers = both(ranges).into_iter().flatten().map(|reading| {
            assert_eq!(reading.failures, 0);
            reading
                .ranges
                .into_iter()
                .map(|range| range.unwrap().live())
                .collect::<Vec<_>>()
        });
        let first = answers.next().unwrap();
        for other in answers {
            assert_eq!(first, other, "the scan and pagemap disagree");
        }
        first
    }

    #[test]
    fn both_ways_count_what_was_written() {
        let memory = Memory::new(1000, false);
        for page in (0..1000).step_by(3) {
            memory.write(page);
        }
        let start = memory.0.start;
        let pages = |from: u64, to: u64| start + from * PAGE..start + to * PAGE;
        assert_eq!(
            resident(&[
                pages(0, 1000),
                pages(999, 1000),
                pages(1, 3),
                pages(3, 4),
                pages(0, 6),
                pages(5, 5)
            ]),
            [334, 1, 0, 1, 2, 0].map(|pages| pages * PAGE)
        );
        // Parts of a page: the brk heap ends anywhere.
        assert_eq!(resident(&[start + 100..start + PAGE + 7]), [PAGE - 100]);
    }

    #[test]
    fn the_scan_resumes_where_its_vector_filled() {
        // Every second page written: as many regions as fill the vector several times, once exactly at the end.
        for regions in [REGIONS as u64, 3 * REGIONS as u64 + 5] {
            let memory = Memory::new(2 * regions, false);
            (0..regions).for_each(|index| memory.write(2 * index));
            assert_eq!(resident(&[memory.0.clone()]), [regions * PAGE]);
        }
        // And runs of several pages.
        let memory = Memory::new(REGIONS as u64 * 8, false);
        (0..REGIONS as u64 * 8)
            .filter(|page| page % 4 != 3)
            .for_each(|page| memory.write(page));
        assert_eq!(resident(&[memory.0.clone()]), [REGIONS as u64 * 6 * PAGE]);
    }

    #[test]
    fn shared_memory_is_not_anonymous() {
        let memory = Memory::new(16, true);
        (0..16).for_each(|page| memory.write(page));
        assert_eq!(resident(&[memory.0.clone()]), [0]);
    }

    #[test]
    fn only_the_scan_tells_the_zero_page() {
        let memory = Memory::new(8, false);
        memory.read(2);
        memory.write(5);
        let [by_scan, by_pagemap] =
            both(&[memory.0.clone()]).map(|reading| Some(reading?.ranges[0]?.resident / PAGE));
        assert_eq!(by_pagemap, Some(2));
        assert!(by_scan.is_none_or(|pages| pages == 1), "{by_scan:?}");
    }

    #[test]
    fn many_ranges_over_a_vast_span() {
        // 4 TiB are reserved, some pages of them touched; 100,000 small ranges asked for beside the whole.
        let memory = Memory::new(1 << 30, false);
        let file = ProcRoot::default()
            .open(std::process::id(), "pagemap")
            .unwrap();
        let has_scan = scan(&file, 0..0, &mut [], &mut |_, _| {}).is_ok();
        (0..100).for_each(|index| memory.write(index * 1_000_000));
        let start = memory.0.start;
        let mut ranges: Vec<_> = (0..100_000)
            .map(|index| start + index * 4 * PAGE..start + (index * 4 + 1) * PAGE)
            .collect();
        if has_scan {
            ranges.push(memory.0.clone());
        }
        let method = if has_scan {
            Method::Scan
        } else {
            Method::Pagemap
        };
        let reading = read_by(method, &file, PAGE, &ranges);
        assert_eq!(reading.failures, 0);
        assert_eq!(reading.ranges[0].unwrap().resident, PAGE);
        assert_eq!(reading.ranges[1].unwrap().resident, 0);
        if has_scan {
            assert_eq!(reading.ranges[100_000].unwrap().resident, 100 * PAGE);
        }
    }

    #[test]
    fn a_range_outside_the_address_space_is_a_failure_and_not_a_zero() {
        let memory = Memory::new(1, false);
        memory.write(0);
        for reading in both(&[u64::MAX - 8 * PAGE..u64::MAX, memory.0.clone()])
            .into_iter()
            .flatten()
        {
            assert_eq!(reading.failures, 1, "{:?}", reading.method);
            assert_eq!(
                reading.ranges,
                [
                    None,
                    Some(Residence {
                        resident: PAGE,
                        swapped: 0
                    })
                ]
            );
        }
    }

    #[test]
    fn a_process_that_exited_is_a_failure() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let file = ProcRoot::default().open(child.id(), "pagemap").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for method in [Method::Scan, Method::Pagemap] {
            let reading = read_by(method, &file, PAGE, &[0x1000..0x2000]);
            assert_eq!((reading.failures, reading.ranges), (1, vec![None]));
        }
    }
}
