//! Chunks with a mapping of their own: what is asked for above the mmap threshold.

use std::collections::BTreeMap;
use std::ops::Range;

use super::counters;
use super::layout::{FLAGS, HEADER, IS_MMAPPED, LEAST_CHUNK, Layout};
use crate::census::memory::{Memory, word_at};
use crate::census::watched::Found;
use crate::census::{Amount, Budget, Census, NotTaken};
use crate::sampler::maps::Mapping;

/// Alignments that `memalign` is looked for with.
const ALIGNMENTS: Range<u32> = 5..31;

/// Whether an allocator's memory may lie there: private, to read and write, of no file. Huge pages that were asked for
/// as such are a file of the kernel's.
pub fn is_anonymous(mapping: &Mapping) -> bool {
    let path = mapping.path_bytes();
    let unnamed = mapping.inode == 0 && (path.is_empty() || path.starts_with(b"[anon:"));
    (unnamed || path.starts_with(b"/anon_hugepage"))
        && mapping.readable
        && mapping.writable
        && !mapping.shared
}

/// Fills in what a census says of them: how many by the allocator's own count, where that is found, and of which sizes
/// by their headers.
pub fn take(
    memory: &impl Memory,
    layout: &Layout,
    mappings: &[Mapping],
    census: &mut Census,
    budget: &Budget,
) -> Result<(), NotTaken> {
    let sizes = find(memory, layout, mappings, &census.extents, budget)?;
    let mut found = Amount::default();
    for (bytes, count) in &sizes {
        found.add(Amount {
            count: *count,
            bytes: bytes.saturating_mul(*count),
        });
    }
    // Where every one was found their headers tell the bytes: the allocator's sum can be too large by a few pages.
    census.mmapped = match counters::read(memory, layout, mappings, &census.extents) {
        Some(told) if told.count != found.count => told,
        _ => found,
    };
    census.mmapped_unlocated = census.mmapped.count.saturating_sub(found.count);
    census.mmapped_classes = sizes;
    Ok(())
}

/// Fills in what is found at watched addresses outside of all heaps: a chunk with a mapping of its own, by its header
/// alone. So it is found beside foreign mappings too, where [`find`] does not get to.
pub fn watched(
    memory: &impl Memory,
    layout: &Layout,
    mappings: &[Mapping],
    watched: &[u64],
    census: &mut Census,
) {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let (extents, found) = (&census.extents, &mut census.found);
    for (user, found) in watched.iter().zip(found) {
        // A tcache may keep it.
        let after = extents.partition_point(|heap| heap.start <= *user);
        let in_heap = after
            .checked_sub(1)
            .and_then(|index| extents.get(index))
            .is_some_and(|heap| heap.contains(user));
        let Some(chunk) = user
            .checked_sub(HEADER)
            .filter(|_| !in_heap && *found == Found::Nothing)
        else {
            continue;
        };
        let before = mappings.partition_point(|mapping| mapping.range.end <= chunk);
        let anonymous = |mapping: &&Mapping| mapping.range.contains(&chunk) && is_anonymous(mapping);
        let mut words = [0; 16];
        if let Some(mapping) = mappings.get(before).filter(anonymous)
            && memory.fill(chunk, &mut words).is_ok()
            && let Some(range) = chunk_at(layout, chunk, &words, page)
            && mapping.range.start <= range.start
            && range.end <= mapping.range.end
        {
            *found = Found::Mapped {
                bytes: range.end - range.start,
            };
        }
    }
}

/// The mapping of a chunk that is known to begin at `chunk`, by the words of its header: `None` where it says otherwise.
pub fn chunk_at(layout: &Layout, chunk: u64, words: &[u8], page: u64) -> Option<Range<u64>> {
    let huge = u64::from(layout.mapped_unsized > 0);
    let lead = word_at(words, 0)? & !huge;
    let start = chunk
        .checked_sub(lead)
        .filter(|start| start.is_multiple_of(page))?;
    let end = chunk_end_with(layout, start, lead, words, u64::MAX, page)?;
    Some(start..end)
}

/// How many there are of each size, which is that of their mappings, bytes.
///
/// The kernel merges neighbouring mappings, so one can hold many chunks, each beginning where the one before ends, or
/// where a heap ends. A mapping that does not begin with a chunk is something else's. So chunks above a foreign
/// mapping that was merged with theirs are not found.
fn find(
    memory: &impl Memory,
    layout: &Layout,
    mappings: &[Mapping],
    heaps: &[Range<u64>],
    budget: &Budget,
) -> Result<BTreeMap<u64, u64>, NotTaken> {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut sizes = BTreeMap::new();
    for mapping in mappings.iter().filter(|mapping| is_anonymous(mapping)) {
        budget.check()?;
        for gap in gaps(&mapping.range, heaps) {
            let mut at = gap.start;
            let mut seen = 0_u32;
            while let Some(end) = chunk_end(memory, layout, at, gap.end, page) {
                *sizes.entry(end - at).or_default() += 1;
                at = end;
                seen += 1;
                if seen.is_multiple_of(1024) {
                    budget.check()?;
                }
            }
        }
    }
    Ok(sizes)
}

/// What of a range is in no heap; `heaps` are in the order of their addresses.
fn gaps(range: &Range<u64>, heaps: &[Range<u64>]) -> Vec<Range<u64>> {
    let first = heaps.partition_point(|heap| heap.end <= range.start);
    let mut gaps = Vec::new();
    let mut at = range.start;
    for heap in heaps.iter().skip(first).take_while(|heap| heap.start < range.end) {
        gaps.push(at..heap.start);
        at = heap.end;
    }
    gaps.push(at..range.end);
    gaps.retain(|gap| gap.start < gap.end);
    gaps
}

/// Where the mapping of a chunk ends that begins at `at`, if one does. Of a chunk from `memalign` the header is not
/// where its mapping begins but before the first address with the alignment; how far from the beginning it says itself.
fn chunk_end(memory: &impl Memory, layout: &Layout, at: u64, limit: u64, page: u64) -> Option<u64> {
    if let Some(end) = chunk_end_by_first_page(memory, layout, at, limit, page) {
        return Some(end);
    }
    let mut last = None;
    leads(at)
        .skip_while(|lead| *lead < page)
        .take_while(|lead| *lead < limit - at)
        .find_map(|lead| {
            // One address has many alignments.
            if last.replace(lead) == Some(lead) {
                return None;
            }
            let mut words = [0; 16];
            memory.fill(at + lead, &mut words).ok()?;
            chunk_end_with(layout, at, lead, &words, limit, page)
        })
}

/// The same for alignments of up to a page, by one read.
pub fn chunk_end_by_first_page(
    memory: &impl Memory,
    layout: &Layout,
    at: u64,
    limit: u64,
    page: u64,
) -> Option<u64> {
    if at >= limit || !at.is_multiple_of(page) {
        return None;
    }
    let mut first = vec![0; usize::try_from(page).ok()?];
    memory.fill(at, &mut first).ok()?;
    let within = leads(at).take_while(|lead| *lead < page);
    std::iter::once(0).chain(within).find_map(|lead| {
        let words = first.get(usize::try_from(lead).ok()?..)?;
        chunk_end_with(layout, at, lead, words, limit, page)
    })
}

/// How far the headers of aligned chunks may be from the beginning of their mapping, never less from one to the next.
fn leads(at: u64) -> impl Iterator<Item = u64> {
    ALIGNMENTS.filter_map(move |bits| {
        let user = at.checked_add(HEADER)?.checked_next_multiple_of(1 << bits)?;
        user.checked_sub(at)?.checked_sub(HEADER)
    })
}

/// By the words of a header that is `lead` bytes from the beginning.
fn chunk_end_with(layout: &Layout, at: u64, lead: u64, words: &[u8], limit: u64, page: u64) -> Option<u64> {
    let (before, word) = (word_at(words, 0)?, word_at(words, 8)?);
    // Since 2.43, which leaves the header out of the size, the lowest bit tells huge pages.
    let huge = u64::from(layout.mapped_unsized > 0);
    let size = word & !FLAGS;
    let total = lead.checked_add(size)?.checked_add(layout.mapped_unsized)?;
    let end = at.checked_add(total)?;
    let is_chunk = before & !huge == lead
        && word & FLAGS == IS_MMAPPED
        && size >= LEAST_CHUNK
        && total.is_multiple_of(page)
        && end <= limit;
    is_chunk.then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::Limits;
    use crate::census::memory::fake::Pieces;
    use crate::sampler::maps::parse_line;

    const START: u64 = 0x7d00_0000_1000;

    fn counted(version: (u32, u32), words: &[(u64, u64)], heaps: &[Range<u64>]) -> Vec<(u64, u64)> {
        let mut memory = Pieces::default();
        memory.add(START, 0x4_0000);
        for (at, word) in words {
            memory.put(START + at, &[*word]);
        }
        let line = b"7d0000001000-7d0000041000 rw-p 00000000 00:00 0";
        let budget = Budget::new(Limits::default());
        let layout = Layout::of(version).unwrap();
        let mappings = [parse_line(line).unwrap()];
        let sizes = find(&memory, &layout, &mappings, heaps, &budget).unwrap();
        sizes.into_iter().collect()
    }

    #[test]
    fn one_after_the_other() {
        let words = [(8, 0x3002), (0x3008, 0x1002), (0x4008, 0x5001)];
        assert_eq!(counted((2, 36), &words, &[]), [(0x1000, 1), (0x3000, 1)]);
        // Without their headers.
        let words = [(8, 0x2ff2), (0x3000, 1), (0x3008, 0xff2)];
        assert_eq!(counted((2, 43), &words, &[]), [(0x1000, 1), (0x3000, 1)]);
        assert_eq!(counted((2, 36), &words, &[]), []);
    }

    #[test]
    fn a_header_that_is_not_where_its_mapping_begins() {
        // Aligned to 64, to a page, to two pages: the second and third begin after the one before.
        let words = [
            (0x30, 0x30),
            (0x38, (0x3000 - 0x30) | 2),
            (0x3ff0, 0xff0),
            (0x3ff8, (0x2000 - 0xff0) | 2),
            (0x6ff0, 0x1ff0),
            (0x6ff8, (0x4000 - 0x1ff0) | 2),
        ];
        assert_eq!(
            counted((2, 36), &words, &[]),
            [(0x2000, 1), (0x3000, 1), (0x4000, 1)]
        );
        let mut shorter = words;
        for word in [1, 3, 5] {
            shorter[word].1 -= 16;
        }
        assert_eq!(
            counted((2, 44), &shorter, &[]),
            [(0x2000, 1), (0x3000, 1), (0x4000, 1)]
        );
        // A lead that is not where the header is, an end within a page, one beyond the mapping, other flags.
        for (index, wrong) in [(0, 0x20), (1, 0x2fe0 | 2), (1, 0x4_0fd0 | 2), (1, 0x2fd0 | 6)] {
            let mut words = words;
            words[index].1 = wrong;
            assert_eq!(counted((2, 36), &words, &[]), [], "{wrong:#x}");
        }
    }

    #[test]
    fn beside_a_heap_in_the_same_mapping() {
        let words = [(8, 0x1002), (0x4008, 0x3002)];
        let heap = START + 0x1000..START + 0x4000;
        assert_eq!(counted((2, 36), &words, &[heap]), [(0x1000, 1), (0x3000, 1)]);
    }
}
