//! What has become of blocks at given addresses.

use super::What;
use super::memory::Memory;
use crate::census::glibc::layout::Layout;

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
pub fn glimpse(_memory: &impl Memory, _lists: &Lists, _addresses: &[u64]) -> Vec<Glimpse> {
    todo!()
}
