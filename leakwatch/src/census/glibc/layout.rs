//! Where glibc keeps what, by version. 64-bit only: words of eight bytes, chunks aligned to 16.
//!
//! From `malloc/malloc.c` and `malloc/arena.c` of each release. A distribution puts later changes into an older
//! release: the 2.28 of RHEL 8 and its kin has 16-bit tcache counts (2.30) and mangled links (2.32). So below 2.32 the
//! version alone does not tell these two, and the heap itself must.

/// The 127 bins are in the state as 254 words, forward and backward in turn.
pub const BINS: u64 = 127;
pub const FASTBINS: u64 = 10;
/// `HEAP_MAX_SIZE`: heaps of thread arenas lie at multiples of it.
pub const HEAP_ALIGNMENT: u64 = 64 << 20;
/// Header words of a chunk, and the least a chunk can have.
pub const HEADER: u64 = 16;
pub const LEAST_CHUNK: u64 = 32;

pub const PREV_INUSE: u64 = 1;
pub const IS_MMAPPED: u64 = 2;
pub const NON_MAIN_ARENA: u64 = 4;
pub const FLAGS: u64 = 7;

/// `flags` of a `malloc_state`: `sbrk` did not give one piece.
pub const NONCONTIGUOUS: u64 = 2;

/// Release of the library, as in (2, 36).
pub type Version = (u32, u32);

pub const OLDEST: Version = (2, 17);
pub const NEWEST: Version = (2, 44);

/// One release of each layout, the newest first.
pub const LAYOUTS: [Version; 8] = [
    NEWEST,
    (2, 42),
    (2, 41),
    (2, 34),
    (2, 29),
    (2, 26),
    (2, 25),
    (2, 22),
];

/// A version as the library's banner has it: `2.36`, `2.31.9000`.
pub fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Offsets in a `malloc_state` (an arena), bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// 2.43 has none.
    pub fastbins: Option<u64>,
    pub top: u64,
    pub next: u64,
    pub system_mem: u64,
    /// Where a distribution's older release may have `system_mem` instead.
    pub system_mem_or: Option<u64>,
    pub state_bytes: u64,
    /// Bytes of a `heap_info` with its padding: where the arena, or the first chunk, of a heap is.
    pub heap_info: u64,
    /// [`HEAP_ALIGNMENT`], or what the process uses instead of it: one of `heap_alignments`.
    pub heap_alignment: u64,
    /// With `glibc.malloc.hugetlb` a heap is four huge pages.
    pub heap_alignments: &'static [u64],
    /// What a thread's cache can look like. None below 2.26.
    pub tcaches: &'static [Tcache],
    pub links: Links,
    /// Bytes of a chunk with a mapping of its own that the size in its header leaves out.
    pub mapped_unsized: u64,
}

/// How fastbins and tcache store a link: "safe-linking" mangles it with its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Plain,
    Mangled,
    /// The one or the other: whichever leads through the list to its end.
    Either,
}

/// A `tcache_perthread_struct`: a number for each bin, then the heads of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcache {
    /// Bytes of its chunk: what it needs, or what was found for it.
    pub least_chunk: u64,
    pub most_chunk: u64,
    pub bins: u64,
    /// Of a number: 1 or 2.
    pub number_bytes: u64,
    pub numbers: Numbers,
}

/// What a tcache's number says of its bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// How many chunks are in it.
    Kept,
    /// How many still fit. What fits in an empty one is tunable, and the same for all.
    Room,
}

/// Bins of chunks of one size: bin `i` has those of 32 + 16 i bytes. The ones after these have a range each.
pub const SMALL_TCACHE_BINS: u64 = 64;

/// A chunk can be larger than asked for by 16 bytes: that rest is no chunk.
const fn tcache(chunk: u64, bins: u64, number_bytes: u64, numbers: Numbers) -> Tcache {
    Tcache {
        least_chunk: chunk,
        most_chunk: chunk + 16,
        bins,
        number_bytes,
        numbers,
    }
}

const NARROW: Tcache = tcache(0x250, 64, 1, Numbers::Kept);
const WIDE: Tcache = tcache(0x290, 64, 2, Numbers::Kept);
const WITH_LARGE: Tcache = tcache(0x300, 76, 2, Numbers::Room);
/// 2.43 rounds the size up twice where `malloc` itself starts a thread's cache.
const ROUNDED_TWICE: Tcache = Tcache {
    most_chunk: 0x320,
    ..WITH_LARGE
};

impl Tcache {
    /// Where the heads begin.
    pub fn heads(self) -> u64 {
        (self.bins * self.number_bytes).next_multiple_of(8)
    }

    pub fn bytes(self) -> u64 {
        self.heads() + 8 * self.bins
    }

    /// The smallest and the largest chunk that a bin can have.
    pub fn sizes(self, bin: u64) -> (u64, u64) {
        match bin.checked_sub(SMALL_TCACHE_BINS) {
            None => (LEAST_CHUNK + 16 * bin, LEAST_CHUNK + 16 * bin),
            // By the number of bits of the size; the first begins after the small bins.
            Some(0) => (LEAST_CHUNK + 16 * SMALL_TCACHE_BINS, 2048 - 16),
            Some(above) => (1024 << above, (2048 << above) - 16),
        }
    }
}

const USUAL: &[u64] = &[HEAP_ALIGNMENT];
/// Four huge pages of 2 MiB, 1 GiB (x86-64), 64 KiB, 32 MiB and 512 MiB (aarch64).
const OF_HUGE_PAGES: &[u64] = &[HEAP_ALIGNMENT, 8 << 20, 4 << 30, 256 << 10, 128 << 20, 2 << 30];

impl Layout {
    /// `None` for a version outside [`OLDEST`] to [`NEWEST`].
    pub fn of(version: Version) -> Option<Self> {
        if !(OLDEST..=NEWEST).contains(&version) {
            return None;
        }
        // After the lock and the flags; `have_fastchunks` and padding from 2.27 on.
        let fastbins = match version {
            (2, ..27) => Some(8),
            (2, 27..43) => Some(16),
            _ => None,
        };
        let top = fastbins.map_or(8, |fastbins| fastbins + 8 * FASTBINS);
        // After `last_remainder`, the bins and the four 32-bit words of `binmap`.
        let next = top + 16 + 16 * BINS + 16;
        // `next_free`, and since 2.23 `attached_threads`.
        let system_mem = next + if version >= (2, 23) { 24 } else { 16 };
        Some(Self {
            fastbins,
            top,
            next,
            system_mem,
            system_mem_or: (version < (2, 23)).then_some(next + 24),
            state_bytes: system_mem + 16,
            // `pagesize`, and padding.
            heap_info: if version >= (2, 35) { 48 } else { 32 },
            heap_alignment: HEAP_ALIGNMENT,
            heap_alignments: if matches!(version, (2, 35..43)) {
                OF_HUGE_PAGES
            } else {
                USUAL
            },
            tcaches: match version {
                (2, ..26) => &[],
                (2, 26..30) => &[NARROW, WIDE],
                (2, 30..42) => &[WIDE],
                (2, 42) => &[WITH_LARGE],
                _ => &[ROUNDED_TWICE],
            },
            links: match version {
                (2, ..26) => Links::Plain,
                (2, 26..32) => Links::Either,
                _ => Links::Mangled,
            },
            mapped_unsized: if version >= (2, 43) { HEADER } else { 0 },
        })
    }

    /// The address that an empty bin points at. The list heads are chunks whose header overlaps what lies before.
    pub fn bin(&self, state: u64, index: u64) -> u64 {
        state + self.top + 16 * index
    }
}

/// The link that is stored at `place`.
pub fn link(place: u64, stored: u64, mangled: bool) -> u64 {
    if mangled { (place >> 12) ^ stored } else { stored }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_the_releases() {
        let now = Layout::of((2, 36)).unwrap();
        assert_eq!((now.fastbins, now.top, now.next), (Some(16), 96, 2160));
        assert_eq!((now.system_mem, now.state_bytes), (2184, 2200));
        // The first chunk of a thread arena lies at 0x8d0.
        assert_eq!((now.heap_info + now.state_bytes).next_multiple_of(16), 0x8d0);
        let old = Layout::of((2, 17)).unwrap();
        assert_eq!(
            (old.fastbins, old.top, old.next, old.system_mem),
            (Some(8), 88, 2152, 2168)
        );
        assert_eq!((old.tcaches, old.links), (&[][..], Links::Plain));
        let newest = Layout::of(NEWEST).unwrap();
        assert_eq!((newest.fastbins, newest.top, newest.next), (None, 8, 2072));
        assert_eq!((newest.system_mem, newest.state_bytes), (2096, 2112));
        assert_eq!(Layout::of((2, 16)), None);
        assert_eq!(Layout::of((2, NEWEST.1 + 1)), None);
        assert_eq!(Layout::of((3, 0)), None);
        assert_eq!(version("2.31.9000"), Some((2, 31)));
        assert_eq!(version("2"), None);
    }

    /// Each release has the layout of one in the list, so that a heap of any release can tell its own.
    #[test]
    fn the_list_has_every_layout() {
        for minor in OLDEST.1..=NEWEST.1 {
            let own = Layout::of((2, minor)).unwrap();
            let same = |listed: Layout| {
                let tcaches = own.tcaches.iter().all(|it| listed.tcaches.contains(it));
                let links = own.links == listed.links || listed.links == Links::Either;
                let heaps = own.heap_alignments == listed.heap_alignments;
                let offsets = |it: &Layout| (it.fastbins, it.top, it.next, it.heap_info, it.mapped_unsized);
                tcaches && links && heaps && offsets(&own) == offsets(&listed)
            };
            let listed = LAYOUTS.into_iter().filter_map(Layout::of);
            assert!(listed.into_iter().any(same), "2.{minor}: {own:?}");
        }
    }

    #[test]
    fn a_tcache_has_its_bins_and_its_chunk() {
        for (shape, bytes) in [(NARROW, 576), (WIDE, 640), (WITH_LARGE, 760)] {
            assert_eq!(shape.bytes(), bytes);
            // Of the next chunk, eight bytes are the tcache's too.
            assert_eq!((bytes + 8).next_multiple_of(16), shape.least_chunk);
        }
        assert_eq!(WIDE.sizes(0), (32, 32));
        assert_eq!(WIDE.sizes(63), (1040, 1040));
        let mut expected = 1056;
        for bin in SMALL_TCACHE_BINS..WITH_LARGE.bins {
            let (least, most) = WITH_LARGE.sizes(bin);
            assert_eq!(least, expected, "{bin}");
            assert_eq!(most.ilog2(), least.ilog2());
            expected = most + 16;
        }
        assert_eq!(expected, 4 << 20);
    }

    #[test]
    fn a_mangled_link_is_undone() {
        let (place, to) = (0x5555_5555_6010, 0x5555_5555_7010);
        assert_eq!(link(place, (place >> 12) ^ to, true), to);
        assert_eq!(link(place, to, false), to);
    }
}
