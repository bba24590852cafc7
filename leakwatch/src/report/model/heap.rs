//! What the census says of the target's heap. A chunk's bytes are with its header, as the allocator counts them.

use serde::{Deserialize, Serialize};

use super::Address;

/// The heap at the window's end; alone, now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Heap {
    /// `glibc 2.36`.
    pub allocator: String,
    /// Chunks of the arenas in use. Those with a mapping of their own are apart.
    pub in_use_bytes: u64,
    pub in_use_count: u64,
    /// Sum of `free_kinds`.
    pub free_bytes: u64,
    pub free_kinds: FreeKinds,
    /// The allocator's own headers of heaps, and their end marks.
    pub overhead_bytes: u64,
    /// Chunks with a mapping of their own, all in use.
    pub mapped_bytes: u64,
    pub mapped_count: u64,
    /// Of these, known by the allocator's own count alone: they are in no class.
    #[serde(default)]
    pub mapped_without_size: u64,
    /// Resident or swapped bytes of the arenas' heaps. Null, as the two below, where pagemap could not be read.
    pub resident_bytes: Option<u64>,
    /// Of those, pages that hold nothing but free memory.
    pub free_pages_bytes: Option<u64>,
    /// What `malloc_trim(0)` would give back at most.
    pub trim_bytes: Option<u64>,
    /// Of `free_bytes`, what shares its pages with blocks in use, resident or not: no trim gives it back. The rest of
    /// `free_bytes` is whole pages: `free_pages_bytes` of them resident.
    #[serde(default)]
    pub fragmentation_bytes: u64,
    /// The largest chunks in bins, the largest first.
    #[serde(default)]
    pub largest_free_bytes: Vec<u64>,
    #[serde(default)]
    pub arenas: Vec<HeapArena>,
    /// With growth, the greatest growth first; else what holds most.
    #[serde(default)]
    pub classes: Vec<HeapClass>,
    /// Null where there is no earlier census to compare with.
    pub growth: Option<HeapGrowth>,
    /// Of all its readings.
    pub took_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FreeKinds {
    /// Coalesced chunks, found again by any `malloc` that fits.
    pub bins: FreeKind,
    /// Rests at the ends of the heaps.
    pub top: FreeKind,
    /// Kept by a thread for its own next `malloc` of the size.
    pub tcache: FreeKind,
    /// Small chunks that were not coalesced.
    pub fastbins: FreeKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FreeKind {
    pub bytes: u64,
    pub count: u64,
}

/// The main heap, or the heaps that some threads share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapArena {
    /// Of its `malloc_state`.
    pub address: Address,
    pub main: bool,
    /// How many pieces it is made of.
    pub heaps: u64,
    /// In use, free and overhead.
    pub system_bytes: u64,
    pub in_use_bytes: u64,
    pub in_use_count: u64,
    pub free_bytes: u64,
    pub free_kinds: FreeKinds,
    /// Null as [`Heap::growth`], and for an arena that is new 0 to what it is.
    pub growth_in_use_bytes: Option<i64>,
    pub growth_free_bytes: Option<i64>,
}

/// Blocks of one size, and of one type or content where that is known. What is not told apart is a row of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapClass {
    /// The largest request that such a chunk serves.
    pub bytes: u64,
    /// With its header: what one block costs.
    pub chunk_bytes: u64,
    /// In use.
    pub count: u64,
    pub in_use_bytes: u64,
    /// Free chunks of the size, in bins, tcache and fastbins. Only in the row without type and content: a free chunk
    /// has neither.
    pub free_count: Option<u64>,
    /// The C++ class of the objects, or the constant that blocks begin with the address of.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// `rtti`, `vtable` or `constant`: what the type was told by.
    pub type_told_by: Option<String>,
    /// `zero` or `text`.
    pub content: Option<String>,
    /// Each has a mapping of its own: what `mapped_bytes` counts, not `in_use_bytes`.
    #[serde(default)]
    pub mapped: bool,
    pub growth_count: Option<i64>,
    pub growth_bytes: Option<i64>,
}

/// End minus start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeapGrowth {
    pub in_use_bytes: i64,
    pub in_use_count: i64,
    pub free_bytes: i64,
    pub mapped_bytes: i64,
    pub mapped_count: i64,
    pub resident_bytes: Option<i64>,
    pub free_pages_bytes: Option<i64>,
    /// Growth of `resident_bytes` that is not growth in use: the allocator keeps it, free. Negative where free memory
    /// was used again or given back.
    pub kept_bytes: Option<i64>,
}
