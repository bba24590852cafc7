//! What has become of blocks at given addresses.

use super::What;
use super::glibc::layout::{FLAGS, IS_MMAPPED, LEAST_CHUNK, Layout, PREV_INUSE};
use super::memory::{Memory, word_at};
use crate::census::glibc;

/// How many words of a block are read.
pub const WORDS: usize = 8;

/// What the walk found at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Found {
    /// No chunk begins there.
    #[default]
    Nothing,
    /// In a bin, a fastbin or a tcache.
    Free,
    InUse {
        /// With its header.
        chunk_bytes: u64,
        what: Option<What>,
    },
    /// In use, with a mapping of its own of so many bytes.
    Mapped { bytes: u64 },
}

/// What a look at the headers alone told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glimpse {
    /// Free, or no chunk by its header, or its memory is gone.
    NotInUse,
    /// It looks in use: what lies there may still be what is left of a chunk that was merged with another.
    InUse {
        /// With its header, or its mapping.
        chunk_bytes: u64,
        mapped: bool,
        /// The first words that the user was given; 0 beyond the block's end.
        words: [u64; WORDS],
    },
}

/// What of a heap must be known to tell a chunk on a free list without a walk. A census tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    pub layout: Layout,
    /// The addresses of the arenas' states, and which is the main one.
    pub arenas: Vec<(u64, bool)>,
    /// Second words of blocks that lie in a tcache (glibc 2.29 and later): one key for all since 2.34, before that the
    /// addresses of the tcaches.
    pub tcache_keys: Vec<u64>,
}

/// Looks at the blocks at `addresses` (as the user has them, ascending), as fast as can be: some thousands within some
/// milliseconds. In the same order.
#[must_use]
pub fn glimpse(memory: &impl Memory, lists: &Lists, addresses: &[u64]) -> Vec<Glimpse> {
    const HEAD: usize = 16 + 8 * WORDS;
    let fast = glibc::in_fastbins(memory, lists);
    let mut heads = vec![0; HEAD * addresses.len()];
    let places: Vec<u64> = addresses
        .iter()
        .map(|address| address.saturating_sub(16))
        .collect();
    let there = memory.fill_each(&places, HEAD, &mut heads);
    let mut found: Vec<Glimpse> = Vec::with_capacity(addresses.len());
    // Whether a chunk of an arena is in use stands in the header after it.
    let (mut waiting, mut nexts) = (Vec::new(), Vec::new());
    for (index, ((chunk, head), there)) in places.iter().zip(heads.chunks_exact(HEAD)).zip(there).enumerate()
    {
        let seen = there.then(|| head_of(lists, *chunk, head)).flatten();
        let free = seen.is_some_and(|seen| is_on_a_list(lists, &fast, *chunk, &seen));
        match seen.filter(|_| !free) {
            Some(head) => {
                if !head.mapped {
                    waiting.push(index);
                    nexts.push(chunk.saturating_add(head.bytes).saturating_add(8));
                }
                found.push(Glimpse::InUse {
                    chunk_bytes: head.bytes,
                    mapped: head.mapped,
                    words: head.words,
                });
            }
            None => found.push(Glimpse::NotInUse),
        }
    }
    let mut words = vec![0; 8 * nexts.len()];
    let there = memory.fill_each(&nexts, 8, &mut words);
    for ((index, word), there) in waiting.into_iter().zip(words.chunks_exact(8)).zip(there) {
        let in_use = there && word_at(word, 0).is_some_and(|word| word & PREV_INUSE != 0);
        if !in_use && let Some(glimpse) = found.get_mut(index) {
            *glimpse = Glimpse::NotInUse;
        }
    }
    found
}

/// The first words of blocks: (address as the user has it, bytes of its chunk). `None` where they could not be read.
#[must_use]
pub fn words(memory: &impl Memory, blocks: &[(u64, u64)]) -> Vec<Option<[u64; WORDS]>> {
    let addresses: Vec<u64> = blocks.iter().map(|(address, _)| *address).collect();
    let mut bytes = vec![0; 8 * WORDS * addresses.len()];
    let there = memory.fill_each(&addresses, 8 * WORDS, &mut bytes);
    let bodies = bytes.chunks_exact(8 * WORDS);
    blocks
        .iter()
        .zip(bodies)
        .zip(there)
        .map(|(((_, chunk_bytes), body), there)| there.then(|| words_of(body, *chunk_bytes)))
        .collect()
}

/// A header that is a chunk's.
#[derive(Clone, Copy)]
struct Head {
    bytes: u64,
    mapped: bool,
    words: [u64; WORDS],
}

fn head_of(lists: &Lists, chunk: u64, head: &[u8]) -> Option<Head> {
    let word = word_at(head, 8)?;
    let size = word & !FLAGS;
    if !chunk.is_multiple_of(16) || size < LEAST_CHUNK || !size.is_multiple_of(16) {
        return None;
    }
    let body = head.get(16..)?;
    if word & IS_MMAPPED == 0 {
        return Some(Head {
            bytes: size,
            mapped: false,
            words: words_of(body, size),
        });
    }
    let bytes = glibc::mapping_bytes(&lists.layout, chunk, head)?;
    Some(Head {
        bytes,
        mapped: true,
        words: words_of(body, size),
    })
}

/// A block has up to the size of the next chunk; what is beyond is not its own.
fn words_of(body: &[u8], chunk_bytes: u64) -> [u64; WORDS] {
    let own = usize::try_from(chunk_bytes.saturating_sub(8) / 8).unwrap_or(WORDS);
    std::array::from_fn(|index| {
        if index < own {
            word_at(body, 8 * index).unwrap_or(0)
        } else {
            0
        }
    })
}

fn is_on_a_list(lists: &Lists, fast: &[u64], chunk: u64, head: &Head) -> bool {
    let [_, second, ..] = head.words;
    // The second word of a block in a tcache is its key; one in a fastbin was met on its list.
    lists.tcache_keys.contains(&second) || !head.mapped && fast.binary_search(&chunk).is_ok()
}
