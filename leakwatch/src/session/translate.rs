//! From an event of the wire to changes of the ledger: what each system call means. Pure.

use std::ops::Range;

use leakwatch_ebpf::wire::{Header, Kind};

use crate::ledger::{Action, Backing, Change, How, Protection, SiteId};

/// aarch64 lets programs keep a tag in an address's top byte, and its mapping calls look past it.
const ADDRESS_BITS: u64 = if cfg!(target_arch = "aarch64") {
    u64::MAX >> 8
} else {
    u64::MAX
};

const MAP_TYPE: u32 = 0xf;
const MAP_PRIVATE: u32 = 2;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_HUGETLB: u32 = 0x4_0000;
const MREMAP_FIXED: u32 = 2;
const MREMAP_DONTUNMAP: u32 = 4;

/// The changes behind one event, in order: `mremap` to a fixed address is two. Empty for events that are none of the
/// ledger's business.
pub(super) fn changes(kind: Kind, header: &Header, site: Option<SiteId>) -> Vec<Change> {
    let range = span(header.address, length(kind, header));
    let change = |action| Change {
        time: header.time,
        thread: header.tid,
        action,
    };
    let one = |action| vec![change(action)];
    let release = |range: Range<u64>, how| one(Action::Release { range, how });
    match kind {
        Kind::Map => one(Action::Map {
            range,
            protection: Protection::from_bits(header.protection),
            backing: backing(header.operation),
            site,
        }),
        Kind::BrkUp => one(Action::BrkUp {
            old_end: header.old_address,
            new_end: header.address,
            site,
        }),
        Kind::RemapTo => one(Action::Remap {
            old: span(header.old_address, header.old_length),
            new: range,
            keeps_old: header.operation & MREMAP_DONTUNMAP != 0,
            site,
        }),
        Kind::Protect => one(Action::Protect {
            range,
            protection: Protection::from_bits(header.protection),
            site,
        }),
        Kind::Unmap => release(range, How::Unmap),
        Kind::BrkDown => release(range, How::BrkDown),
        Kind::Discard => release(range, How::Discard),
        Kind::Replace => release(range, How::Replace),
        Kind::Decommit => release(range, How::Decommit),
        Kind::RemapFrom => {
            let old = span(header.old_address, header.old_length);
            let from = change(Action::Release {
                range: old,
                how: How::RemapFrom,
            });
            if header.operation & MREMAP_FIXED != 0 {
                vec![
                    change(Action::Release {
                        range,
                        how: How::Replace,
                    }),
                    from,
                ]
            } else {
                vec![from]
            }
        }
        Kind::ReleaseFailed => failed(header, range).into_iter().map(change).collect(),
        Kind::Fork | Kind::Exec | Kind::Exit | Kind::Fault | Kind::Alloc => Vec::new(),
    }
}

fn failed(header: &Header, range: Range<u64>) -> Vec<Action> {
    let one = |range, how| vec![Action::ReleaseFailed { range, how }];
    match u16::try_from(header.operation).ok().and_then(Kind::from_wire) {
        Some(Kind::Unmap) => one(range, How::Unmap),
        Some(Kind::BrkDown) => one(range, How::BrkDown),
        Some(Kind::Discard) => one(range, How::Discard),
        Some(Kind::Replace) => one(range, How::Replace),
        Some(Kind::Decommit) => one(range, How::Decommit),
        // With an address: it was to a fixed one.
        Some(Kind::RemapFrom) => {
            let old = span(header.old_address, header.old_length);
            let mut both = one(old, How::RemapFrom);
            if header.address != 0 {
                both.extend(one(range, How::Replace));
            }
            both
        }
        _ => Vec::new(),
    }
}

/// An address without a tag.
pub(super) const fn untagged(address: u64) -> u64 {
    address & ADDRESS_BITS
}

fn span(start: u64, length: u64) -> Range<u64> {
    let start = untagged(start);
    // A wild length must not wrap round to a small one: the ledger refuses a range that ends beyond user space.
    start..start.saturating_add(length)
}

/// Pages of the huge page pool are given whole, and the call's length says less.
fn length(kind: Kind, header: &Header) -> u64 {
    /// Where the size is in the flags, as a power of two; 0 is the machine's default.
    const MAP_HUGE_SHIFT: u32 = 26;
    const DEFAULT_BITS: u32 = 21;
    if kind != Kind::Map || header.operation & MAP_HUGETLB == 0 {
        return header.length;
    }
    let bits = header.operation >> MAP_HUGE_SHIFT;
    let mask = (1u64 << if bits == 0 { DEFAULT_BITS } else { bits }) - 1;
    header.length.saturating_add(mask) & !mask
}

/// As a reading of maps tells it too: there the huge page pool is a file system, and `MAP_SHARED` wins over all.
fn backing(flags: u32) -> Backing {
    if flags & MAP_TYPE != MAP_PRIVATE {
        Backing::Shared
    } else if flags & (MAP_ANONYMOUS | MAP_HUGETLB) == MAP_ANONYMOUS {
        Backing::Anonymous
    } else {
        Backing::PrivateFile
    }
}

#[cfg(test)]
mod tests {
    use leakwatch_ebpf::wire::COMM_BYTES;

    use super::*;

    fn header() -> Header {
        Header {
            kind: 0,
            flags: 0,
            stack_length: 0,
            time: 7,
            tgid: 1,
            tid: 2,
            address: 0x7000_0000,
            length: 0x3000,
            old_address: 0x6000_0000,
            old_length: 0x1000,
            protection: 3,
            operation: 0,
            fd: -1,
            stack_wanted: 0,
            stack_pointer: 0,
            comm: [0; COMM_BYTES],
        }
    }

    #[test]
    fn a_shared_or_file_mapping_is_no_anonymous_growth() {
        for (flags, expected) in [
            (0x22, Backing::Anonymous),
            (0x02, Backing::PrivateFile),
            (0x21, Backing::Shared),
            (0x01, Backing::Shared),
            // MAP_SHARED_VALIDATE
            (0x03, Backing::Shared),
            // glibc's arenas: MAP_NORESERVE as well.
            (0x4022, Backing::Anonymous),
            // MAP_HUGETLB
            (0x4_0022, Backing::PrivateFile),
        ] {
            assert_eq!(backing(flags), expected, "{flags:#x}");
        }
    }

    #[test]
    fn a_fixed_mremap_replaces_before_it_moves() {
        let header = Header {
            operation: MREMAP_FIXED | 1,
            ..header()
        };
        let actions: Vec<_> = changes(Kind::RemapFrom, &header, None)
            .into_iter()
            .map(|change| change.action)
            .collect();
        assert_eq!(
            actions,
            [
                Action::Release {
                    range: 0x7000_0000..0x7000_3000,
                    how: How::Replace
                },
                Action::Release {
                    range: 0x6000_0000..0x6000_1000,
                    how: How::RemapFrom
                },
            ]
        );
    }

    #[test]
    fn a_failure_names_what_failed() {
        let header = Header {
            operation: Kind::RemapFrom as u32,
            ..header()
        };
        let actions: Vec<_> = changes(Kind::ReleaseFailed, &header, None)
            .into_iter()
            .map(|change| change.action)
            .collect();
        assert_eq!(
            actions,
            [
                Action::ReleaseFailed {
                    range: 0x6000_0000..0x6000_1000,
                    how: How::RemapFrom
                },
                Action::ReleaseFailed {
                    range: 0x7000_0000..0x7000_3000,
                    how: How::Replace
                },
            ]
        );
        assert!(
            changes(
                Kind::ReleaseFailed,
                &Header {
                    operation: 999,
                    ..header
                },
                None
            )
            .is_empty()
        );
    }

    #[test]
    fn a_wild_length_does_not_wrap() {
        let header = Header {
            length: u64::MAX,
            ..header()
        };
        let [change] = &changes(Kind::Unmap, &header, None)[..] else {
            panic!("one change")
        };
        assert_eq!(
            change.action,
            Action::Release {
                range: 0x7000_0000..u64::MAX,
                how: How::Unmap
            }
        );
    }
}
