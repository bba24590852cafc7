//! Every anonymous page that is there, one by one rather than in sums; and which of them are huge.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::scan::{HUGE, SWAPPED, Scan};
use super::{Method, Pages, is_alive, page_bytes};
use crate::sampler::ProcRoot;

/// Pages nearer to each other than this are looked up in one call. A huge page's worth: walking that costs less.
const NEAR_PAGES: u64 = 512;

/// Addresses from here on are the kernel's. `maps` lists one mapping there (`[vsyscall]`), which no look-up reaches.
const KERNEL_HALF: u64 = 1 << 63;

/// A run of consecutive anonymous pages that are there, in page numbers. As long as it can be: the page before and the
/// page after are not there, or of another kind, or outside the span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub pages: Range<u64>,
    /// Swapped out (or being moved by the kernel just now), not resident.
    pub swapped: bool,
    /// Part of a huge page that one entry of the page middle directory maps. Always false by [`Method::Pagemap`], which
    /// cannot tell.
    pub huge: bool,
}

/// Streams every anonymous page of the spans (bytes, page-aligned, ascending, apart from each other), present or
/// swapped out, to `visit(index of the span, run)`, ascending. Memory is bounded, whatever the spans hold.
///
/// Not among them are pages of files and of shared memory, guards, and with [`Method::Scan`] the zero page. By
/// [`Method::Pagemap`] the zero page is a page like any other. Memory that has no page structure in the kernel
/// (`[vvar]`, that of devices) looks anonymous either way, and so do private pages of the huge page pool, which smaps
/// does not count as anonymous: leave such mappings out of the spans.
///
/// # Errors
///
/// When pagemap cannot be opened, when the process exited or replaced its image before the end, or when a span is
/// outside its address space. What was visited until then is no answer.
pub fn anonymous_pages(
    root: &ProcRoot,
    pid: u32,
    spans: &[Range<u64>],
    visit: &mut dyn FnMut(usize, Run),
) -> io::Result<Method> {
    let file = root.open(pid, "pagemap")?;
    stream(Pages::of(&file), page_bytes(), spans, visit)
}

fn stream(
    mut pages_of: Pages<'_>,
    page: u64,
    spans: &[Range<u64>],
    visit: &mut dyn FnMut(usize, Run),
) -> io::Result<Method> {
    for (index, span) in spans.iter().enumerate() {
        if span.start >= KERNEL_HALF || span.start >= span.end {
            continue;
        }
        let mut pending: Option<Run> = None;
        pages_of.runs(span.clone(), page, SWAPPED | HUGE, |bytes, categories| {
            let run = Run {
                pages: bytes.start / page..bytes.end / page,
                swapped: categories & SWAPPED != 0,
                huge: categories & HUGE != 0,
            };
            match &mut pending {
                Some(before) if before.is_continued_by(&run) => before.pages.end = run.pages.end,
                _ => {
                    if let Some(before) = pending.replace(run) {
                        visit(index, before);
                    }
                }
            }
        })?;
        if let Some(last) = pending {
            visit(index, last);
        }
    }
    pages_of.still_there()?;
    Ok(pages_of.method())
}

impl Run {
    fn is_continued_by(&self, next: &Self) -> bool {
        self.pages.end == next.pages.start && (self.swapped, self.huge) == (next.swapped, next.huge)
    }
}

/// Whether pages are part of a huge page, for repeated small questions about one process.
///
/// It holds the memory that the process had when it was opened: after an exec every answer is an error, and it must be
/// opened anew.
pub struct HugeLookup {
    file: File,
    scan: Scan,
    page: u64,
}

impl HugeLookup {
    /// # Errors
    ///
    /// When `ROOT/PID/pagemap` cannot be opened; [`io::ErrorKind::Unsupported`] where the kernel has no `PAGEMAP_SCAN`.
    pub fn open(root: &ProcRoot, pid: u32) -> io::Result<Self> {
        let file = root.open(pid, "pagemap")?;
        Ok(Self {
            scan: Scan::new(&file)?,
            file,
            page: page_bytes(),
        })
    }

    /// For each page number, in the order asked: is it now part of an anonymous huge page that one entry of the page
    /// middle directory maps? The huge zero page is none. One call to the kernel for each group of pages near to each
    /// other.
    ///
    /// # Errors
    ///
    /// When the process exited or replaced its image, or a page is outside its address space.
    pub fn are_huge(&mut self, pages: &[u64]) -> io::Result<Vec<bool>> {
        let mut order: Vec<(u64, usize)> = pages.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut answers = vec![false; pages.len()];
        let page = self.page;
        for group in order.chunk_by(|(before, _), (next, _)| next - before <= NEAR_PAGES) {
            let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else {
                continue;
            };
            let bytes = |number: u64| {
                number
                    .checked_mul(page)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
            };
            let span = bytes(*first)?..bytes(last.saturating_add(1))?;
            let mut rest = group;
            self.scan.runs(&self.file, span, HUGE, HUGE, |run, _| {
                let within = |number: u64| number.saturating_mul(page) < run.end;
                let (met, after) = rest.split_at(rest.partition_point(|(number, _)| within(*number)));
                for (number, index) in met {
                    if number.saturating_mul(page) >= run.start
                        && let Some(answer) = answers.get_mut(*index)
                    {
                        *answer = true;
                    }
                }
                rest = after;
            })?;
        }
        is_alive(&self.file)?;
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::with_exposed_provenance_mut;

    use super::super::tests::{Memory, PAGE, by_scan, size};
    use super::*;

    const HUGE_PAGES: u64 = 512;

    fn run(pages: Range<u64>) -> Run {
        Run {
            pages,
            swapped: false,
            huge: false,
        }
    }

    fn visited(pages: Pages<'_>, spans: &[Range<u64>]) -> Vec<(usize, Run)> {
        let mut runs = Vec::new();
        stream(pages, PAGE, spans, &mut |index, run| runs.push((index, run))).unwrap();
        runs
    }

    /// What both ways say of this process; they must agree.
    fn own(spans: &[Range<u64>]) -> Vec<(usize, Run)> {
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        let by_pagemap = visited(Pages::by_pagemap(&file), spans);
        if let Some(scan) = by_scan(&file) {
            assert_eq!(visited(scan, spans), by_pagemap, "the scan and pagemap disagree");
        }
        by_pagemap
    }

    #[test]
    fn exactly_the_pages_that_were_written() {
        let [one, other] = [Memory::new(64, false), Memory::new(64, false)];
        for page in [0, 1, 2, 7, 40, 41, 63] {
            one.write(page);
            other.write(63 - page);
        }
        let (low, high) = if one.0.start < other.0.start {
            (&one, &other)
        } else {
            (&other, &one)
        };
        // The second span ends inside a run.
        let spans = [low.0.clone(), high.0.start..high.0.start + PAGE];
        let first = low.0.start / PAGE;
        let of_low = if std::ptr::eq(low, &raw const one) {
            [0..3, 7..8, 40..42, 63..64]
        } else {
            [0..1, 22..24, 56..57, 61..64]
        };
        let mut expected: Vec<_> = of_low
            .into_iter()
            .map(|pages| (0, run(first + pages.start..first + pages.end)))
            .collect();
        let second = high.0.start / PAGE;
        expected.push((1, run(second..second + 1)));
        assert_eq!(own(&spans), expected);
    }

    #[test]
    fn spans_that_touch_are_told_apart() {
        let memory = Memory::new(8, false);
        (0..8).for_each(|page| memory.write(page));
        let (start, middle) = (memory.0.start, memory.0.start + 3 * PAGE);
        let first = start / PAGE;
        assert_eq!(
            own(&[start..middle, middle..middle, middle..memory.0.end]),
            [(0, run(first..first + 3)), (2, run(first + 3..first + 8))]
        );
    }

    #[test]
    fn a_run_is_whole_where_a_buffer_ended() {
        // More entries than one read of pagemap takes, and more runs than one scan returns.
        let memory = Memory::new(80_000, false);
        (0..40_000).for_each(|page| memory.write(page));
        (40_000..80_000).step_by(2).for_each(|page| memory.write(page));
        let runs = own(std::slice::from_ref(&memory.0));
        let first = memory.0.start / PAGE;
        assert_eq!(runs.first(), Some(&(0, run(first..first + 40_001))));
        assert_eq!(runs.len(), 20_000);
    }

    #[test]
    fn neither_shared_memory_nor_files_nor_the_zero_page() {
        let shared = Memory::new(4, true);
        shared.write(1);
        assert_eq!(own(std::slice::from_ref(&shared.0)), []);

        let memory = Memory::new(4, false);
        memory.read(1);
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        if let Some(scan) = by_scan(&file) {
            assert_eq!(visited(scan, std::slice::from_ref(&memory.0)), []);
        }
        let first = memory.0.start / PAGE;
        assert_eq!(
            visited(Pages::by_pagemap(&file), std::slice::from_ref(&memory.0)),
            [(0, run(first + 1..first + 2))],
            "pagemap cannot tell the zero page"
        );

        let code = exactly_the_pages_that_were_written as fn() as *const u8;
        let code = code.expose_provenance() as u64 / PAGE * PAGE;
        assert_eq!(own(std::slice::from_ref(&(code..code + PAGE))), []);
    }

    #[test]
    fn the_kernels_half_holds_nothing_of_the_process() {
        let memory = Memory::new(1, false);
        memory.write(0);
        let first = memory.0.start / PAGE;
        let vsyscall = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
        assert_eq!(own(&[memory.0.clone(), vsyscall]), [(0, run(first..first + 1))]);
    }

    #[test]
    fn a_process_that_exited_is_an_error() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let file = ProcRoot::default().open(child.id(), "pagemap").unwrap();
        let lookup = HugeLookup::open(&ProcRoot::default(), child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let span = std::slice::from_ref(&(0x1000..0x2000));
        for pages in [by_scan(&file), Some(Pages::by_pagemap(&file))]
            .into_iter()
            .flatten()
        {
            assert!(stream(pages, PAGE, span, &mut |_, _| {}).is_err());
        }
        if let Ok(mut lookup) = lookup {
            assert!(lookup.are_huge(&[1]).is_err());
            assert!(lookup.are_huge(&[]).is_err());
        }
    }

    #[test]
    fn ordinary_pages_are_not_huge() {
        let memory = Memory::new(8, false);
        memory.write(3);
        let first = memory.0.start / PAGE;
        match HugeLookup::open(&ProcRoot::default(), std::process::id()) {
            Ok(mut lookup) => {
                assert_eq!(lookup.are_huge(&[first + 3, first]).unwrap(), [false, false]);
                assert!(lookup.are_huge(&[u64::MAX]).is_err());
                assert!(lookup.are_huge(&[u64::MAX / PAGE]).is_err());
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
    }

    #[test]
    fn a_huge_page_is_told_from_small_ones() {
        let file = ProcRoot::default().open(std::process::id(), "pagemap").unwrap();
        let Some(scan) = by_scan(&file) else {
            eprintln!("SKIPPED: no PAGEMAP_SCAN here");
            return;
        };
        let memory = Memory::new(4 * HUGE_PAGES, false);
        let block = memory.0.start.next_multiple_of(HUGE_PAGES * PAGE);
        let at = with_exposed_provenance_mut(size(block));
        // SAFETY: two blocks inside the mapping, which this test owns; the advice changes no content.
        unsafe { libc::madvise(at, size(2 * HUGE_PAGES * PAGE), libc::MADV_HUGEPAGE) };
        // The huge page comes with the first touch; the page after the advised blocks is small.
        let in_memory = (block - memory.0.start) / PAGE;
        memory.write(in_memory + 5);
        memory.write(in_memory + 2 * HUGE_PAGES);
        let first = block / PAGE;
        let runs = visited(scan, std::slice::from_ref(&memory.0));
        if runs.iter().all(|(_, run)| !run.huge) {
            let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
            eprintln!("SKIPPED: the kernel gave no huge page (its setting: {setting:?})");
            return;
        }
        let huge = Run {
            huge: true,
            ..run(first..first + HUGE_PAGES)
        };
        let small = run(first + 2 * HUGE_PAGES..first + 2 * HUGE_PAGES + 1);
        assert_eq!(runs, [(0, huge), (0, small)]);
        // Pagemap sees the same pages, and none of them huge.
        assert_eq!(
            visited(Pages::by_pagemap(&file), std::slice::from_ref(&memory.0)),
            [
                (0, run(first..first + HUGE_PAGES)),
                (0, run(first + 2 * HUGE_PAGES..first + 2 * HUGE_PAGES + 1))
            ]
        );

        let mut lookup = HugeLookup::open(&ProcRoot::default(), std::process::id()).unwrap();
        let asked = [
            first + 2 * HUGE_PAGES,
            first + HUGE_PAGES - 1,
            0x1000,
            first,
            first - 1,
            first + HUGE_PAGES,
            first,
        ];
        assert_eq!(
            lookup.are_huge(&asked).unwrap(),
            [false, true, false, true, false, false, true]
        );

        // Once one page of it is given back the rest is mapped page by page, and only so.
        let discarded = with_exposed_provenance_mut(size(block + 9 * PAGE));
        // SAFETY: a page inside the mapping, which nothing else looks at.
        unsafe { libc::madvise(discarded, size(PAGE), libc::MADV_DONTNEED) };
        assert_eq!(lookup.are_huge(&[first, first + 9]).unwrap(), [false, false]);
    }
}
