//! Where glibc keeps what, by version. 64-bit only: words of eight bytes, chunks aligned to 16.
//!
//! From `malloc/malloc.c` and `malloc/arena.c` of each release.

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
/// 2.42 rebuilt `tcache_perthread_struct`.
pub const NEWEST: Version = (2, 41);

/// One release of each layout, the newest first.
pub const LAYOUTS: [Version; 7] = [NEWEST, (2, 34), (2, 31), (2, 29), (2, 26), (2, 25), (2, 22)];

/// A version as the library's banner has it: `2.36`, `2.31.9000`.
pub fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Offsets in a `malloc_state` (an arena), bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub fastbins: u64,
    pub top: u64,
    pub next: u64,
    pub system_mem: u64,
    pub state_bytes: u64,
    /// Bytes of a `heap_info` with its padding: where the arena, or the first chunk, of a heap is.
    pub heap_info: u64,
    pub tcache: Option<Tcache>,
    /// Links of fastbins and tcache are mangled with their own address ("safe-linking").
    pub mangled: bool,
}

/// A `tcache_perthread_struct`: counts, then the heads of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcache {
    pub chunk_bytes: u64,
    /// 1 or 2.
    pub count_bytes: u64,
}

/// `TCACHE_MAX_BINS`: class `i` has chunks of 32 + 16 i bytes.
pub const TCACHE_BINS: u64 = 64;

impl Tcache {
    pub fn entries(self) -> u64 {
        TCACHE_BINS * self.count_bytes
    }
}

impl Layout {
    /// `None` for a version outside [`OLDEST`] to [`NEWEST`].
    pub fn of(version: Version) -> Option<Self> {
        if !(OLDEST..=NEWEST).contains(&version) {
            return None;
        }
        // `have_fastchunks`, and padding after it.
        let fastbins = if version >= (2, 27) { 16 } else { 8 };
        let top = fastbins + 8 * FASTBINS;
        // After `last_remainder`, the bins and the four 32-bit words of `binmap`.
        let next = top + 16 + 16 * BINS + 16;
        // `next_free`, and since 2.23 `attached_threads`.
        let system_mem = next + if version >= (2, 23) { 24 } else { 16 };
        Some(Self {
            fastbins,
            top,
            next,
            system_mem,
            state_bytes: system_mem + 16,
            // `pagesize`, and padding.
            heap_info: if version >= (2, 35) { 48 } else { 32 },
            tcache: match version {
                (2, ..26) => None,
                (2, 26..30) => Some(Tcache {
                    chunk_bytes: 0x250,
                    count_bytes: 1,
                }),
                _ => Some(Tcache {
                    chunk_bytes: 0x290,
                    count_bytes: 2,
                }),
            },
            mangled: version >= (2, 32),
        })
    }

    /// The address that an empty bin points at. The list heads are chunks whose header overlaps what lies before.
    pub fn bin(&self, state: u64, index: u64) -> u64 {
        state + self.top + 16 * index
    }

    /// The link that is stored at `place`.
    pub fn link(&self, place: u64, stored: u64) -> u64 {
        if self.mangled {
            (place >> 12) ^ stored
        } else {
            stored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_the_releases() {
        let now = Layout::of((2, 36)).unwrap();
        assert_eq!((now.fastbins, now.top, now.next), (16, 96, 2160));
        assert_eq!((now.system_mem, now.state_bytes), (2184, 2200));
        // The first chunk of a thread arena lies at 0x8d0.
        assert_eq!((now.heap_info + now.state_bytes).next_multiple_of(16), 0x8d0);
        let old = Layout::of((2, 17)).unwrap();
        assert_eq!(
            (old.fastbins, old.top, old.next, old.system_mem),
            (8, 88, 2152, 2168)
        );
        assert_eq!((old.tcache, old.mangled), (None, false));
        assert_eq!(Layout::of((2, 16)), None);
        assert_eq!(Layout::of((2, 42)), None);
        assert_eq!(version("2.31.9000"), Some((2, 31)));
        assert_eq!(version("2"), None);
    }

    #[test]
    fn a_mangled_link_is_undone() {
        let now = Layout::of((2, 32)).unwrap();
        let (place, to) = (0x5555_5555_6010, 0x5555_5555_7010);
        assert_eq!(now.link(place, (place >> 12) ^ to), to);
        assert_eq!(Layout::of((2, 31)).unwrap().link(place, to), to);
    }
}
