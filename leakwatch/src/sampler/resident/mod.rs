//! Which bytes of given address ranges are there: resident or swapped out, and anonymous.
//!
//! By the `PAGEMAP_SCAN` ioctl where the kernel has it (6.7 and newer), else by reading `/proc/PID/pagemap`. They
//! differ in one point: the scan leaves the zero page out (memory that was read and never written costs nothing), in
//! pagemap it is a present page like any other, so there such memory counts. Neither reads any content.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::ProcRoot;
use scan::{SWAPPED, Scan};

pub mod anonymous;
mod pagemap;
mod scan;

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
    Ok(read_by(Pages::of(&file), page_bytes(), ranges))
}

fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// Runs of anonymous pages, by whichever way this kernel has.
enum Pages<'a> {
    Scan(&'a File, Scan),
    Pagemap(&'a File, Vec<u8>),
}

impl<'a> Pages<'a> {
    /// Of the process behind an open pagemap.
    fn of(file: &'a File) -> Self {
        match Scan::new(file) {
            Ok(scan) => Self::Scan(file, scan),
            Err(_) => Self::by_pagemap(file),
        }
    }

    fn by_pagemap(file: &'a File) -> Self {
        Self::Pagemap(file, vec![0; pagemap::ENTRIES * 8])
    }

    fn method(&self) -> Method {
        match self {
            Self::Scan(..) => Method::Scan,
            Self::Pagemap(..) => Method::Pagemap,
        }
    }

    /// Hands the runs of `span` (bytes, page-aligned) that are there to `tally`, ascending: addresses, and those of
    /// the categories `told` that they have. A run may come in parts.
    fn runs(
        &mut self,
        span: Range<u64>,
        page: u64,
        told: u64,
        mut tally: impl FnMut(Range<u64>, u64),
    ) -> io::Result<()> {
        match self {
            Self::Scan(file, scan) => scan.runs(file, span, 0, told, tally),
            Self::Pagemap(file, entries) => {
                pagemap::read(file, span, page, entries, &mut |pages, swapped| {
                    tally(pages, if swapped { SWAPPED & told } else { 0 });
                })
            }
        }
    }

    /// Err where the memory is gone. A scan of memory that is torn down (the process exited, or replaced its image)
    /// succeeds and finds nothing; a read of pagemap says end of file then. Alive now is alive at every scan before.
    fn still_there(&self) -> io::Result<()> {
        match self {
            Self::Scan(file, _) => is_alive(file),
            Self::Pagemap(..) => Ok(()),
        }
    }
}

fn is_alive(file: &File) -> io::Result<()> {
    match file.read_at(&mut [0; 8], 0) {
        Ok(8) => Ok(()),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the process exited, or replaced its image",
        )),
        Err(error) => Err(error),
    }
}

fn read_by(mut pages_of: Pages<'_>, page: u64, ranges: &[Range<u64>]) -> ResidentReading {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| ranges.get(index).map(|range| range.start));
    let mut found = vec![Some(Residence::default()); ranges.len()];

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
        let outcome = pages_of.runs(span, page, SWAPPED, |pages, categories| {
            share_out(
                batch,
                &mut at,
                ranges,
                &mut found,
                &pages,
                categories & SWAPPED != 0,
            );
        });
        if outcome.is_err() {
            forget(&mut found, batch);
        }
    }
    if pages_of.still_there().is_err() {
        found.fill(None);
    }
    let failures = found.iter().filter(|range| range.is_none()).count() as u64;
    ResidentReading {
        ranges: found,
        failures,
        method: pages_of.method(),
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

#[cfg(test)]
mod tests {
    use std::ptr::{null_mut, with_exposed_provenance_mut};

    use super::scan::REGIONS;
    use super::*;

    pub(super) const PAGE: u64 = 4096;

    pub(super) fn size(bytes: u64) -> usize {
        bytes.try_into().unwrap()
    }

    /// Private anonymous memory of this process, not huge, nothing touched.
    pub(super) struct Memory(pub(super) Range<u64>);

    impl Memory {
        pub(super) fn new(pages: u64, shared: bool) -> Self {
            let length = size(pages * PAGE);
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

        pub(super) fn write(&self, page: u64) {
            let at = self.0.start + page * PAGE;
            assert!(at < self.0.end);
            // SAFETY: inside the mapping, which this test owns.
            unsafe { with_exposed_provenance_mut::<u8>(size(at)).write_volatile(1) };
        }

        pub(super) fn read(&self, page: u64) {
            // SAFETY: inside the mapping, which this test owns.
            unsafe { with_exposed_provenance_mut::<u8>(size(self.0.start + page * PAGE)).read_volatile() };
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: the mapping of `new`, which nothing points into any more.
            unsafe {
                libc::munmap(
                    with_exposed_provenance_mut(size(self.0.start)),
                    size(self.0.end - self.0.start),
                )
            };
        }
    }

    /// By the ioctl, where this kernel has it.
    pub(super) fn by_scan(file: &File) -> Option<Pages<'_>> {
        Some(Pages::Scan(file, Scan::new(file).ok()?))
    }

    fn both(ranges: &[Range<u64>]) -> [Option<ResidentReading>; 2] {
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        [by_scan(&file), Some(Pages::by_pagemap(&file))].map(|pages| Some(read_by(pages?, PAGE, ranges)))
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
        assert_eq!(
            resident(std::slice::from_ref(&(start + 100..start + PAGE + 7))),
            [PAGE - 100]
        );
    }

    #[test]
    fn the_scan_resumes_where_its_vector_filled() {
        // Every second page written: as many regions as fill the vector several times, once exactly at the end.
        for regions in [REGIONS as u64, 3 * REGIONS as u64 + 5] {
            let memory = Memory::new(2 * regions, false);
            (0..regions).for_each(|index| memory.write(2 * index));
            assert_eq!(resident(std::slice::from_ref(&memory.0)), [regions * PAGE]);
        }
        // And runs of several pages.
        let memory = Memory::new(REGIONS as u64 * 8, false);
        (0..REGIONS as u64 * 8)
            .filter(|page| page % 4 != 3)
            .for_each(|page| memory.write(page));
        assert_eq!(
            resident(std::slice::from_ref(&memory.0)),
            [REGIONS as u64 * 6 * PAGE]
        );
    }

    #[test]
    fn shared_memory_is_not_anonymous() {
        let memory = Memory::new(16, true);
        (0..16).for_each(|page| memory.write(page));
        assert_eq!(resident(std::slice::from_ref(&memory.0)), [0]);
    }

    #[test]
    fn a_guard_holds_nothing() {
        const MADV_GUARD_INSTALL: libc::c_int = 102;
        let memory = Memory::new(4, false);
        memory.write(0);
        let guarded = with_exposed_provenance_mut(size(memory.0.start + PAGE));
        // SAFETY: a page inside the mapping, which this test owns and does not touch again.
        if unsafe { libc::madvise(guarded, size(PAGE), MADV_GUARD_INSTALL) } != 0 {
            eprintln!("SKIPPED: no guards here: {}", io::Error::last_os_error());
            return;
        }
        assert_eq!(resident(std::slice::from_ref(&memory.0)), [PAGE]);
    }

    #[test]
    fn only_the_scan_tells_the_zero_page() {
        let memory = Memory::new(8, false);
        memory.read(2);
        memory.write(5);
        let [by_scan, by_pagemap] =
            both(std::slice::from_ref(&memory.0)).map(|reading| Some(reading?.ranges[0]?.resident / PAGE));
        assert_eq!(by_pagemap, Some(2));
        assert!(by_scan.is_none_or(|pages| pages == 1), "{by_scan:?}");
    }

    #[test]
    fn many_ranges_over_a_vast_span() {
        // 4 TiB are reserved, some pages of them touched; 100,000 small ranges asked for beside the whole.
        let memory = Memory::new(1 << 30, false);
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        let has_scan = by_scan(&file).is_some();
        (0..100).for_each(|index| memory.write(index * 1_000_000));
        let start = memory.0.start;
        let mut ranges: Vec<_> = (0..100_000)
            .map(|index| start + index * 4 * PAGE..start + (index * 4 + 1) * PAGE)
            .collect();
        if has_scan {
            ranges.push(memory.0.clone());
        }
        let reading = read_by(Pages::of(&file), PAGE, &ranges);
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
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let file = ProcRoot::default().open(child.id(), "pagemap").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for pages in [by_scan(&file), Some(Pages::by_pagemap(&file))]
            .into_iter()
            .flatten()
        {
            let reading = read_by(pages, PAGE, std::slice::from_ref(&(0x1000..0x2000)));
            assert_eq!((reading.failures, reading.ranges), (1, vec![None]));
        }
    }
}
