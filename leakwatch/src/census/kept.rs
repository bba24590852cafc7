//! Free memory that the allocator keeps resident: whole pages of it, which the kernel could have back.
//!
//! What is free between blocks in use shares their pages, and no trim gives it back: the difference of the two is
//! fragmentation.

use std::io;
use std::ops::Range;

use super::Census;
use crate::sampler::ProcRoot;
use crate::sampler::resident::anonymous::{Run, anonymous_pages};

/// Resident or swapped bytes of a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of all arenas' heaps; chunks with a mapping of their own are apart.
    pub heap_bytes: u64,
    /// Of pages that hold nothing but free memory.
    pub free_pages_bytes: u64,
    /// Of those, what `malloc_trim(0)` would give back at most. It also consolidates fastbins, which may make a few
    /// more pages whole: these are not in it.
    pub trim_bytes: u64,
}

/// Looks up what is resident of the heaps that a census has found, in some 12 ms/GiB.
///
/// # Errors
///
/// When pagemap cannot be read: no privilege, or the process is gone.
pub fn look_up(root: &ProcRoot, pid: u32, census: &Census) -> io::Result<Kept> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut kept = Kept::default();
    let mut rest = census.free_pages.runs.as_slice();
    let spans: Vec<Range<u64>> = spans(&census.extents, page);
    anonymous_pages(root, pid, &spans, &mut |_, Run { pages, .. }| {
        let bytes = pages.start.saturating_mul(page)..pages.end.saturating_mul(page);
        kept.add(&bytes, &mut rest);
    })?;
    Ok(kept)
}

/// Whole pages, apart from each other.
fn spans(extents: &[Range<u64>], page: u64) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for extent in extents {
        let start = extent.start - extent.start % page;
        let end = extent.end.checked_next_multiple_of(page).unwrap_or(extent.end);
        match spans.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => spans.push(start..end),
        }
    }
    spans
}

impl Kept {
    /// A resident run. `free` is what was not passed yet, by address: runs come in that order too.
    fn add(&mut self, resident: &Range<u64>, free: &mut &[(Range<u64>, bool)]) {
        self.heap_bytes += resident.end - resident.start;
        while let Some(((run, trimmable), after)) = free.split_first() {
            if run.start >= resident.end {
                return;
            }
            let both = run.start.max(resident.start)..run.end.min(resident.end);
            let bytes = both.end.saturating_sub(both.start);
            self.free_pages_bytes += bytes;
            self.trim_bytes += if *trimmable { bytes } else { 0 };
            // The next resident run may have the rest of it.
            if run.end > resident.end {
                return;
            }
            *free = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::FreePages;

    #[test]
    fn free_runs_meet_resident_ones() {
        let free = [(10..20, true), (30..60, false), (70..80, true), (90..95, true)];
        let mut rest = &free[..];
        let mut kept = Kept::default();
        for resident in [0..5, 12..35, 40..45, 50..75, 76..78, 100..110] {
            kept.add(&resident, &mut rest);
        }
        assert_eq!(kept.heap_bytes, 5 + 23 + 5 + 25 + 2 + 10);
        // 12..20, 30..35, 40..45, 50..60, 70..75, 76..78.
        assert_eq!(kept.free_pages_bytes, 8 + 5 + 5 + 10 + 5 + 2);
        assert_eq!(kept.trim_bytes, 8 + 5 + 2);
    }

    #[test]
    fn runs_go_on_from_window_to_window_and_small_ones_go() {
        let mut windows = [FreePages::default(), FreePages::default()];
        for run in [0x1000..0x1800, 0x1900..0x1a00, 0x1b00..0x4000] {
            windows[0].add(run, true);
        }
        for run in [0x4000..0x4100, 0x4200..0x4300, 0x4400..0x6500] {
            windows[1].add(run, true);
        }
        windows[1].add(0x6500..0x9010, false);
        let [mut all, second] = windows;
        all.append(second);
        let runs: Vec<_> = all.runs.iter().map(|(run, _)| run.clone()).collect();
        // The first may have begun earlier, so it is kept whatever its size.
        assert_eq!(
            runs,
            [0x1000..0x1800, 0x1b00..0x4100, 0x4400..0x6500, 0x6500..0x9010]
        );
        all.shrink_to_pages(0x1000, 0x30);
        let pages = [
            (0x2000..0x4000, true),
            (0x5000..0x6000, true),
            (0x7000..0x9000, false),
        ];
        assert_eq!(all.runs, pages);
    }

    #[test]
    fn spans_are_whole_pages_and_apart() {
        let extents = [0x1010..0x2ff0, 0x2ff8..0x4000, 0x6000..0x6008];
        assert_eq!(spans(&extents, 0x1000), [0x1000..0x4000, 0x6000..0x7000]);
    }
}
