//! The pages of one process: what was there at the start, and whose is what is there at the end.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::process::{Process, monotonic_ns};
use crate::ledger::pages::presence::Presence;
use crate::ledger::pages::settle::{Settled, Settlement};
use crate::ledger::{Owner, SiteId};
use crate::sampler::ProcRoot;
use crate::sampler::maps::Mapping;
use crate::sampler::region::{Region, regions};
use crate::sampler::resident::anonymous::{HugeLookup, Run, anonymous_pages};
use crate::sampler::smaps::SmapsReading;

/// Pages of a huge page (PMD-mapped) with base pages of 4 KiB, and what a fault on one weighs.
const HUGE_PAGES: u32 = 512;
/// First touches that wait to be looked up at most; more are counted.
const LOOKUPS_MAX: usize = 4096;
/// A fault that brings a huge page takes some 0.1 ms: after so long it is done.
const RIPE_AFTER: Duration = Duration::from_millis(3);
/// Sampled pages nearer to each other than this are looked up in one span.
const GAP_PAGES: u64 = 64;

/// Address ranges with the region that each counts for; `None` where regions are not told apart.
pub(super) type Spans = Vec<(Range<u64>, Option<Region>)>;

/// The anonymous pages that a process had at one moment.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    pub pages: Presence,
    pub by_region: BTreeMap<Option<Region>, u64>,
    /// When smaps had been read, and this not yet: nanoseconds of `CLOCK_MONOTONIC`.
    pub read: u64,
}

impl Baseline {
    /// Reads what is there of `spans` now.
    pub fn read(root: &ProcRoot, pid: u32, spans: &Spans) -> io::Result<Self> {
        let mut baseline = Self {
            read: monotonic_ns(),
            ..Self::default()
        };
        each_run(root, pid, spans, &mut |region, run| {
            *baseline.by_region.entry(region).or_default() += run.pages.end - run.pages.start;
            baseline.pages.insert(run.pages);
        })?;
        Ok(baseline)
    }
}

/// The mappings of a reading that have anonymous pages.
pub(super) fn spans_of_smaps(reading: &SmapsReading) -> Spans {
    reading
        .mappings
        .iter()
        .zip(regions(&reading.mappings))
        .filter(|(sizes, _)| !sizes.mapping.shared && sizes.anonymous.saturating_add(sizes.swap) > 0)
        .map(|(sizes, region)| (sizes.mapping.range.clone(), Some(region)))
        .collect()
}

/// The mappings that may have anonymous pages, where nothing more is known of them. Memory that was made inaccessible
/// may too, but reservations are inaccessible as well and can be terabytes.
pub(super) fn spans_of_maps(mappings: &[Mapping]) -> Spans {
    mappings
        .iter()
        .filter(|mapping| !mapping.shared && !mapping.inaccessible())
        // The kernel's own: no pages of the process, though they look so.
        .filter(|mapping| !mapping.path_bytes().starts_with(b"[v"))
        .map(|mapping| (mapping.range.clone(), None))
        .collect()
}

fn each_run(
    root: &ProcRoot,
    pid: u32,
    spans: &Spans,
    visit: &mut dyn FnMut(Option<Region>, Run),
) -> io::Result<()> {
    let ranges: Vec<Range<u64>> = spans.iter().map(|(range, _)| range.clone()).collect();
    anonymous_pages(root, pid, &ranges, &mut |index, run| {
        let region = spans.get(index).and_then(|(_, region)| *region);
        visit(region, run);
    })
    .map(drop)
}

/// First touches in a block that a huge page could fill, to be looked up once the fault is done.
pub(super) struct HugeWatch {
    /// `None` where the kernel cannot tell.
    lookup: Option<HugeLookup>,
    /// Their faults may be under way still.
    waiting: Vec<u64>,
    /// Noted before `turned`.
    ripe: Vec<u64>,
    turned: Instant,
    /// Touches that found no room to wait: a huge page that one of them brought weighs as one page.
    pub dropped: u64,
}

impl HugeWatch {
    pub fn new(root: &ProcRoot, pid: u32) -> Self {
        Self {
            lookup: HugeLookup::open(root, pid).ok(),
            waiting: Vec::new(),
            ripe: Vec::new(),
            turned: Instant::now(),
            dropped: 0,
        }
    }

    pub fn note(&mut self, page: u64) {
        if self.lookup.is_none() {
            return;
        }
        if self.waiting.len() < LOOKUPS_MAX {
            self.waiting.push(page);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

/// Whose the pages are that are there at the end.
pub(super) struct SettledPages {
    pub others: Settled<Option<Region>>,
    /// Those of heaps whose blocks are told by survivors; `None` where none are.
    pub heap: Option<Settled<Option<Region>>>,
}

/// The parts of a range in the heaps (by address, apart from each other) and outside. Not by region: the kernel merges a
/// heap with what else is mapped beside it.
fn split(range: Range<u64>, heap: &[Range<u64>]) -> Vec<(Range<u64>, bool)> {
    let page = super::process::page_bytes();
    let first = heap.partition_point(|it| it.end <= range.start);
    let mut parts = Vec::new();
    let mut at = range.start;
    for own in heap.iter().skip(first).take_while(|own| own.start < range.end) {
        // A heap's first page may be shared with what is in front of it.
        let start = (own.start - own.start % page).clamp(at, range.end);
        let end = own
            .end
            .checked_next_multiple_of(page)
            .unwrap_or(range.end)
            .clamp(start, range.end);
        parts.push((at..start, false));
        parts.push((start..end, true));
        at = end;
    }
    parts.push((at..range.end, false));
    parts.retain(|(part, _)| part.start < part.end);
    parts
}

/// Address ranges of two lists in one, by address and apart from each other.
pub(super) fn union(one: &[Range<u64>], next: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut all: Vec<Range<u64>> = one.iter().chain(next).cloned().collect();
    all.sort_unstable_by_key(|range| range.start);
    let mut apart: Vec<Range<u64>> = Vec::new();
    for range in all {
        match apart.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => apart.push(range),
        }
    }
    apart
}

/// The heaps as they are by a later reading of the mappings, by address: what was added at their upper ends since they were
/// walked is theirs too.
pub(super) fn grown(heaps: Vec<Range<u64>>, mappings: &[Mapping]) -> Vec<Range<u64>> {
    /// A heap of a thread arena never goes beyond; the kernel may merge a full one with what is mapped above it.
    const ARENA_BYTES: u64 = 64 << 20;
    let grown: Vec<Range<u64>> = heaps
        .into_iter()
        .map(|heap| {
            let last = heap.end.saturating_sub(1);
            let of = mappings.partition_point(|mapping| mapping.range.end <= last);
            let end = mappings
                .get(of)
                .filter(|mapping| mapping.range.contains(&last))
                .map_or(heap.end, |mapping| {
                    if mapping.path_bytes() == b"[heap]" {
                        mapping.range.end
                    } else {
                        let limit = (last / ARENA_BYTES + 1).saturating_mul(ARENA_BYTES);
                        mapping.range.end.min(limit.max(heap.end))
                    }
                });
            heap.start..end
        })
        .collect();
    union(&grown, &[])
}

/// Whether the allocator has its arenas there, and little else.
pub(super) fn is_heap(region: Region) -> bool {
    matches!(region, Region::Heap | Region::Arena)
}

impl Process {
    /// Weighs the touches that turned out to have brought huge pages. Soon after the fault, since the kernel also
    /// collapses pages into huge ones that came one by one.
    pub fn weigh_huge_pages(&mut self) {
        let Some(watch) = &mut self.huge else { return };
        if watch.turned.elapsed() < RIPE_AFTER || (watch.waiting.is_empty() && watch.ripe.is_empty()) {
            return;
        }
        watch.turned = Instant::now();
        let next = std::mem::take(&mut watch.waiting);
        let pages = std::mem::replace(&mut watch.ripe, next);
        if pages.is_empty() {
            return;
        }
        let Some(lookup) = &mut watch.lookup else { return };
        match lookup.are_huge(&pages) {
            Ok(answers) => {
                for (page, huge) in pages.iter().zip(answers) {
                    if huge {
                        self.pages.weigh(*page, HUGE_PAGES);
                    }
                }
            }
            // Not this kernel, or the process is gone: the end's reading has the last word.
            Err(_) => watch.lookup = None,
        }
    }

    /// Gives the pages that are there to their owners; `None` where they cannot be looked up any more. `heap`: where the
    /// allocator's heaps lie whose blocks are told by survivors, by address; their pages are settled apart.
    pub fn settle(
        &self,
        root: &ProcRoot,
        has_stack: &dyn Fn(SiteId) -> bool,
        multi_size: bool,
        heap: &[Range<u64>],
    ) -> Option<SettledPages> {
        let arenas = self.arenas.as_ref().map(|arenas| &arenas.sites);
        let settlement =
            || Settlement::new(&self.pages, &self.ledger, has_stack, multi_size).with_arenas(arenas);
        let (mut of_heap, mut others) = (settlement(), settlement());
        let page = super::process::page_bytes();
        each_run(root, self.pid, &self.final_spans(), &mut |region, run| {
            let pages = run.pages.start.saturating_mul(page)..run.pages.end.saturating_mul(page);
            for (part, in_heap) in split(pages, heap) {
                let settlement = if in_heap { &mut of_heap } else { &mut others };
                settlement.add(region, part.start / page..part.end.div_ceil(page), run.huge);
            }
        })
        .ok()?;
        Some(SettledPages {
            others: others.finish(),
            heap: (!heap.is_empty()).then(|| of_heap.finish()),
        })
    }

    /// How many pages of the heaps were there when the window began.
    pub fn note_heap_before(&mut self, heap: &[Range<u64>]) {
        let page = super::process::page_bytes();
        self.heap_before = heap
            .iter()
            .map(|range| self.pages.before_in(range.start / page..range.end.div_ceil(page)))
            .sum();
    }

    /// All anonymous memory where that is known and was affordable, else what the window is known to have added.
    fn final_spans(&self) -> Spans {
        if let Some(smaps) = &self.end.smaps
            && self.pages.before_known()
        {
            return spans_of_smaps(smaps);
        }
        let page = super::process::page_bytes();
        let touched = self.pages.owners().map(|(number, _)| number..number + 1);
        let mapped = self.ledger.pieces().filter_map(|(range, piece)| {
            (matches!(piece.owner, Owner::Site(_)) && piece.committed())
                .then(|| range.start / page..range.end.div_ceil(page))
        });
        let mut ranges: Vec<Range<u64>> = touched.chain(mapped).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut spans: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match spans.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(GAP_PAGES) => {
                    last.end = last.end.max(range.end);
                }
                _ => spans.push(range),
            }
        }
        spans
            .into_iter()
            .map(|range| {
                (
                    range.start.saturating_mul(page)..range.end.saturating_mul(page),
                    None,
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::maps;

    #[test]
    fn heaps_grow_at_their_upper_ends_and_no_further() {
        let text = "555500000000-555500400000 rw-p 00000000 00:00 0 [heap]\n\
            7e0000000000-7e0000300000 rw-p 00000000 00:00 0\n\
            7e0004000000-7e000b000000 rw-p 00000000 00:00 0\n";
        let mappings = maps::parse(text.as_bytes()).unwrap().mappings;
        let heaps = vec![
            0x5555_0000_0000..0x5555_0020_0000,
            0x7e00_0000_0030..0x7e00_0020_0000,
            // Full, and another mapping above it.
            0x7e00_0400_0030..0x7e00_07ff_f000,
            // Gone.
            0x7f00_0000_0000..0x7f00_0000_1000,
        ];
        assert_eq!(
            grown(heaps, &mappings),
            [
                0x5555_0000_0000..0x5555_0040_0000,
                0x7e00_0000_0030..0x7e00_0030_0000,
                0x7e00_0400_0030..0x7e00_0800_0000,
                0x7f00_0000_0000..0x7f00_0000_1000,
            ]
        );
    }
}
