//! The values that enter the ledger: what the kernel reported, in the ledger's own terms. A stream of them can be
//! written down and replayed.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A call site: a call stack that the session has numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SiteId(pub u32);

impl SiteId {
    /// The site of acquisitions whose stacks were left out on purpose, since none of their pages is in the sample.
    pub const THINNED: Self = Self(u32::MAX);
}

/// What stands behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Private memory without a file: the only kind that is growth.
    Anonymous,
    /// A private mapping of a file. The pages it copies on write are the sampler's to see, not the ledger's.
    PrivateFile,
    /// Shared memory, with a file or without.
    Shared,
}

/// The `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` bits. Others (`PROT_GROWSDOWN`, `PROT_BTI`, `PROT_MTE`) do not show
/// in `/proc/PID/maps`, so that they would make the ledger disagree with it for ever: they are dropped on the way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Protection(u8);

impl Protection {
    /// `PROT_NONE`: address space without memory.
    pub const NONE: Self = Self(0);
    pub const READ: Self = Self(1);
    pub const READ_WRITE: Self = Self(1 | 2);

    /// From the bits that the system call was given.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self((bits & 0b111) as u8)
    }

    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & 2 != 0
    }
}

impl From<u32> for Protection {
    fn from(bits: u32) -> Self {
        Self::from_bits(bits)
    }
}

impl From<Protection> for u32 {
    fn from(protection: Protection) -> Self {
        protection.bits()
    }
}

/// A line of `/proc/PID/maps`, as far as it matters here. Addresses in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub range: Range<u64>,
    pub protection: Protection,
    pub backing: Backing,
}

/// One event, in the order of the ring buffer, which is the order of ownership: what gives memory up is reported when
/// its system call is entered, what gains memory when the call has returned with success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `CLOCK_MONOTONIC`, nanoseconds, when the event was taken.
    pub time: u64,
    /// The thread that made the call.
    pub thread: u32,
    pub action: Action,
}

/// What a thread did. Ranges are as the system call had them, in bytes: the ledger rounds as the kernel does. The site
/// of an acquisition is `None` where its stack was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `mmap` returned `range`.
    Map {
        range: Range<u64>,
        protection: Protection,
        backing: Backing,
        site: Option<SiteId>,
    },
    /// `brk` moved the heap's end up.
    BrkUp {
        old_end: u64,
        new_end: u64,
        site: Option<SiteId>,
    },
    /// `mremap` returned: `old` is now at `new`, longer, shorter or as long. `keeps_old` is `MREMAP_DONTUNMAP`.
    Remap {
        old: Range<u64>,
        new: Range<u64>,
        keeps_old: bool,
        site: Option<SiteId>,
    },
    /// `mprotect` to something accessible returned.
    Protect {
        range: Range<u64>,
        protection: Protection,
        site: Option<SiteId>,
    },
    /// A call that gives `range` up was entered. `mremap` with `MREMAP_FIXED` is two: a `Replace` of its destination
    /// and a `RemapFrom`.
    Release { range: Range<u64>, how: How },
    /// The call behind a `Release` failed: the same range and kind.
    ReleaseFailed { range: Range<u64>, how: How },
}

/// How a range is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// `munmap`.
    Unmap,
    /// `brk` to a lower end: the range is from the new end to the old one.
    BrkDown,
    /// A fixed mapping is about to take the range.
    Replace,
    /// `mremap`: the range is about to move, grow or shrink. Its owners go with it.
    RemapFrom,
    /// `mprotect` with `PROT_NONE`: stays mapped, as a reservation.
    Decommit,
    /// `madvise` with `MADV_DONTNEED`, `MADV_FREE` or `MADV_REMOVE`: stays mapped, its pages go.
    Discard,
}

impl How {
    /// The address range itself goes, not only what is in it.
    pub(super) const fn unmaps(self) -> bool {
        matches!(
            self,
            Self::Unmap | Self::BrkDown | Self::Replace | Self::RemapFrom
        )
    }
}

/// The first address that no user program has, on any machine with 64 bits: x86-64 with five-level tables ends here,
/// aarch64 lower.
pub(super) const USER_END: u64 = 1 << 56;

/// Rounds ranges to pages as the kernel does, and refuses those that it would have refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    mask: u64,
}

impl Pages {
    /// A size that is no power of two cannot come from a kernel: the common one is taken instead.
    pub(super) const fn new(page_bytes: u64) -> Self {
        let bytes = if page_bytes.is_power_of_two() && page_bytes <= 1 << 20 {
            page_bytes
        } else {
            4096
        };
        Self { mask: bytes - 1 }
    }

    fn up(self, address: u64) -> Option<u64> {
        Some(address.checked_add(self.mask)? & !self.mask).filter(|&up| up <= USER_END)
    }

    /// A range of a mapping call: its start must lie on a page (else the kernel says `EINVAL`), its length is rounded
    /// up. `None` for what cannot be: zero or negative length, kernel addresses, overflow.
    pub(super) fn mapping(self, range: &Range<u64>) -> Option<Range<u64>> {
        let end = self.up(range.end)?;
        (range.start < range.end && range.start & self.mask == 0).then_some(range.start..end)
    }

    /// `mremap`'s old range: may be empty, which asks for a second view of a shared mapping.
    pub(super) fn moved(self, range: &Range<u64>) -> Option<Range<u64>> {
        if range.start == range.end && range.start & self.mask == 0 && range.end <= USER_END {
            return Some(range.clone());
        }
        self.mapping(range)
    }

    /// Between two ends of the heap. Both are rounded up, so that a step within a page gives an empty range.
    pub(super) fn heap(self, range: &Range<u64>) -> Option<Range<u64>> {
        (range.start <= range.end).then_some(self.up(range.start)?..self.up(range.end)?)
    }

    pub(super) fn release(self, range: &Range<u64>, how: How) -> Option<Range<u64>> {
        if how == How::BrkDown {
            self.heap(range)
        } else {
            self.mapping(range)
        }
    }

    /// Regions in order, without overlaps. What a reading of maps has beyond the user's part of the address space
    /// (`[vsyscall]`) is nobody's memory and left out.
    pub(super) fn regions(self, regions: &[Region]) -> Vec<Region> {
        let mut sane: Vec<Region> = regions
            .iter()
            .filter_map(|region| {
                Some(Region {
                    range: self.mapping(&region.range)?,
                    ..region.clone()
                })
            })
            .collect();
        sane.sort_by_key(|region| region.range.start);
        let mut end = 0;
        sane.retain(|region| {
            let apart = region.range.start >= end;
            if apart {
                end = region.range.end;
            }
            apart
        });
        sane
    }
}
