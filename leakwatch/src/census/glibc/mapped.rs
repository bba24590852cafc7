//! Chunks with a mapping of their own: what is asked for above the mmap threshold.

use std::ops::Range;

use super::layout::{FLAGS, IS_MMAPPED};
use crate::census::memory::{Memory, word_at};
use crate::census::{Amount, Budget, NotTaken};
use crate::sampler::maps::Mapping;

const PAGE: u64 = 4096;

/// The kernel merges neighbouring mappings, so one can hold many chunks, each beginning where the one before ends. A
/// mapping that does not begin with a chunk is something else's. Left out so: an aligned chunk (`memalign`), whose
/// header is not where its mapping begins, and chunks above a foreign mapping that was merged with theirs.
pub fn count(
    memory: &impl Memory,
    mappings: &[Mapping],
    heaps: &[Range<u64>],
    budget: &Budget,
) -> Result<Amount, NotTaken> {
    let mut sum = Amount::default();
    for mapping in mappings {
        let anonymous = mapping.inode == 0
            && (mapping.path.is_none() || mapping.path_bytes().starts_with(b"[anon:"))
            && mapping.readable
            && mapping.writable
            && !mapping.shared;
        let heap = |heap: &Range<u64>| heap.start < mapping.range.end && mapping.range.start < heap.end;
        if !anonymous || heaps.iter().any(heap) {
            continue;
        }
        budget.check()?;
        let mut at = mapping.range.start;
        let mut seen = 0_u32;
        while at < mapping.range.end {
            let mut words = [0; 16];
            if memory.fill(at, &mut words).is_err() {
                break;
            }
            let (before, word) = (word_at(&words, 0).unwrap_or(0), word_at(&words, 8).unwrap_or(0));
            let size = word & !FLAGS;
            let next = at.checked_add(size).filter(|next| *next <= mapping.range.end);
            let (Some(next), true) = (
                next,
                before == 0 && word & FLAGS == IS_MMAPPED && size != 0 && size.is_multiple_of(PAGE),
            ) else {
                break;
            };
            sum.add(Amount {
                count: 1,
                bytes: size,
            });
            at = next;
            seen += 1;
            if seen.is_multiple_of(1024) {
                budget.check()?;
            }
        }
    }
    Ok(sum)
}
