//! Which pages were there already: a bitmap over the address space, as sparse as the address space is.

use std::collections::BTreeMap;
use std::ops::Range;

/// Pages in a chunk: as many as a huge page has on machines with 4 KiB pages.
pub const CHUNK_PAGES: u64 = 512;
/// Words of a chunk's bits.
pub const WORDS: usize = 8;

/// A set of page numbers. 64 bytes for each 512 pages of which one is in it: 4 MiB for 100 GiB of dense memory.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    chunks: BTreeMap<u64, [u64; WORDS]>,
}

impl Presence {
    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        self.chunks
            .get(&(page / CHUNK_PAGES))
            .and_then(|words| words.get(word_of(page)))
            .is_some_and(|word| word & bit_of(page) != 0)
    }

    /// Adds a range of page numbers.
    pub fn insert(&mut self, pages: Range<u64>) {
        for (chunk, part) in by_chunk(pages) {
            let words = self.chunks.entry(chunk).or_insert([0; WORDS]);
            each_word(part, |index, mask| {
                if let Some(word) = words.get_mut(index) {
                    *word |= mask;
                }
            });
        }
    }

    /// Removes a range of page numbers; one of any length costs no more than what is in it.
    pub fn remove(&mut self, pages: Range<u64>) {
        if pages.start >= pages.end {
            return;
        }
        let first = pages.start / CHUNK_PAGES;
        let last = (pages.end - 1) / CHUNK_PAGES;
        let met: Vec<u64> = self.chunks.range(first..=last).map(|(chunk, _)| *chunk).collect();
        for chunk in met {
            let from = pages.start.max(chunk * CHUNK_PAGES);
            let to = pages.end.min((chunk + 1) * CHUNK_PAGES);
            let mut empty = false;
            if let Some(words) = self.chunks.get_mut(&chunk) {
                each_word(from..to, |index, mask| {
                    if let Some(word) = words.get_mut(index) {
                        *word &= !mask;
                    }
                });
                empty = words.iter().all(|word| *word == 0);
            }
            if empty {
                self.chunks.remove(&chunk);
            }
        }
    }

    /// The bits of the chunk whose first page is `chunk * CHUNK_PAGES`.
    #[must_use]
    pub fn words(&self, chunk: u64) -> [u64; WORDS] {
        self.chunks.get(&chunk).copied().unwrap_or_default()
    }

    /// The runs of pages in it that lie in `pages`, ascending, cut at the chunks' borders.
    #[must_use]
    pub fn runs(&self, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        if pages.start >= pages.end {
            return runs;
        }
        let (first, last) = (pages.start / CHUNK_PAGES, (pages.end - 1) / CHUNK_PAGES);
        for (chunk, words) in self.chunks.range(first..=last) {
            for run in runs_of(words) {
                let run = (chunk * CHUNK_PAGES + run.start).max(pages.start)
                    ..(chunk * CHUNK_PAGES + run.end).min(pages.end);
                if run.start < run.end {
                    runs.push(run);
                }
            }
        }
        runs
    }

    /// How many pages are in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.chunks
            .values()
            .flatten()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// The runs of ones in a chunk's bits, by their place in the chunk.
pub fn runs_of(words: &[u64; WORDS]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (word, index) in words.iter().zip(0u64..) {
        let mut rest = *word;
        while rest != 0 {
            let start = u64::from(rest.trailing_zeros());
            let length = u64::from((!(rest >> start)).trailing_zeros());
            let run = index * 64 + start..index * 64 + start + length;
            match runs.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => runs.push(run.clone()),
            }
            rest = if start + length >= 64 {
                0
            } else {
                rest & (u64::MAX << (start + length))
            };
        }
    }
    runs
}

const fn word_of(page: u64) -> usize {
    (page % CHUNK_PAGES / 64) as usize
}

const fn bit_of(page: u64) -> u64 {
    1 << (page % 64)
}

/// The range cut at the chunks' borders.
pub(super) fn by_chunk(pages: Range<u64>) -> impl Iterator<Item = (u64, Range<u64>)> {
    let mut next = pages.start;
    std::iter::from_fn(move || {
        if next >= pages.end {
            return None;
        }
        let chunk = next / CHUNK_PAGES;
        let end = ((chunk + 1) * CHUNK_PAGES).min(pages.end);
        let part = next..end;
        next = end;
        Some((chunk, part))
    })
}

/// The words of one chunk that a range within it meets, with the bits that it meets.
pub(super) fn each_word(pages: Range<u64>, mut visit: impl FnMut(usize, u64)) {
    let mut page = pages.start;
    while page < pages.end {
        let end = ((page / 64 + 1) * 64).min(pages.end);
        let count = end - page;
        let ones = if count == 64 { u64::MAX } else { (1 << count) - 1 };
        visit(word_of(page), ones << (page % 64));
        page = end;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_pages(steps in prop::collection::vec((any::<bool>(), 0u64..3000, 0u64..1200), 1..40)) {
            let mut presence = Presence::default();
            let mut model = BTreeSet::new();
            for (insert, start, length) in steps {
                let pages = start..start + length;
                if insert {
                    presence.insert(pages.clone());
                    model.extend(pages);
                } else {
                    presence.remove(pages.clone());
                    model.retain(|page| !pages.contains(page));
                }
            }
            prop_assert_eq!(presence.len(), model.len() as u64);
            prop_assert_eq!(presence.is_empty(), model.is_empty());
            for page in 0..4300 {
                prop_assert_eq!(presence.contains(page), model.contains(&page), "page {}", page);
            }
            for part in [0..4300, 100..1111, 511..513, 70..71] {
                let pages: Vec<u64> = presence.runs(part.clone()).into_iter().flatten().collect();
                prop_assert_eq!(pages, model.range(part).copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn removing_the_whole_address_space_is_cheap() {
        let mut presence = Presence::default();
        presence.insert(5..7);
        presence.remove(0..u64::MAX / 4096);
        assert!(presence.is_empty());
    }
}
