//! What an event does to owners and accounts.

use super::*;

/// Rule 2: a glibc thread arena reserves 128 MiB to have 64 MiB aligned, trims both ends, and grows by `mprotect`.
#[test]
fn arena_grows_by_what_becomes_writable() {
    let mut target = Target::new();
    let arena = A + 20 * MIB;
    target
        .map(1, at(A, 128 * MIB), Protection::NONE, OTHER)
        .release(1, A..arena, How::Unmap)
        .release(1, arena + 64 * MIB..A + 128 * MIB, How::Unmap);
    assert_eq!(target.ledger.accounts().count(), 0, "a reservation is no growth");
    target.protect(1, at(arena, 33 * PAGE), Protection::READ_WRITE, OTHER);
    for step in 33..133 {
        target.protect(1, at(arena + step * PAGE, PAGE), Protection::READ_WRITE, LEAK);
    }
    assert_eq!(target.held(LEAK), 100 * PAGE);
    assert_eq!(target.held(OTHER), 33 * PAGE);
    let account = target.ledger.account(LEAK).unwrap();
    assert_eq!((account.events, account.last_seen), (100, target.time));
    // 100 steps of one site are one piece: two committed ones and the reservation's rest.
    assert_eq!(target.ledger.pieces().count(), 3);
    let held: Vec<_> = target.ledger.held_ranges().collect();
    assert_eq!(
        held,
        [
            (at(arena, 33 * PAGE), OTHER),
            (at(arena + 33 * PAGE, 100 * PAGE), LEAK)
        ]
    );
}

/// Rule 2: the owner is who made memory writable; a later change of protection is no acquisition, `PROT_NONE` a release.
#[test]
fn protection_changes_keep_the_owner_until_none() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, LEAK)
        .protect(1, at(A, MIB), Protection::READ, OTHER)
        .protect(1, at(A, MIB), Protection::READ_WRITE, OTHER);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (MIB, 0));
    target.release(1, at(A, MIB / 2), How::Decommit);
    assert_eq!(target.held(LEAK), MIB / 2);
    assert!(!target.ledger.piece_at(A).unwrap().committed());
    target.protect(1, at(A, MIB / 2), Protection::READ_WRITE, OTHER);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (MIB / 2, MIB / 2));
    assert_eq!(target.ledger.account(LEAK).unwrap().committed_bytes, MIB);
}

/// Rule 2: file mappings, shared memory and memory that can only be read are no growth.
#[test]
fn only_writable_private_anonymous_memory_is_growth() {
    let mut target = Target::new();
    for (start, protection, backing) in [
        (A, Protection::READ_WRITE, Backing::PrivateFile),
        (B, Protection::READ_WRITE, Backing::Shared),
        (HEAP, Protection::READ, Backing::Anonymous),
    ] {
        target.apply(
            1,
            Action::Map {
                range: at(start, MIB),
                protection,
                backing,
                site: Some(LEAK),
            },
        );
    }
    assert_eq!(target.ledger.totals(), Totals::default());
    assert_eq!(target.ledger.pieces().count(), 3);
}

/// Rule 1: thread 2 gets the range that thread 1 is giving up. The release was entered before the kernel could hand the
/// range out, so it is the first in the ring, however late thread 1 comes back.
#[test]
fn range_handed_from_thread_to_thread_is_the_second_ones() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, OTHER)
        .release(1, at(A, MIB), How::Unmap)
        .map(2, at(A, MIB), Protection::READ_WRITE, LEAK);
    assert_eq!((target.held(OTHER), target.held(LEAK)), (0, MIB));
    assert_eq!(target.owner(A), Some(Owner::Site(LEAK)));
}

/// Rule 1: a failed release is put back, but not over what somebody else has got meanwhile, nor where it was freed again.
#[test]
fn failed_release_is_put_back_where_nobody_came() {
    let mut target = Target::new();
    target
        .map(1, at(A, 4 * PAGE), Protection::READ_WRITE, LEAK)
        .release(1, at(A, 4 * PAGE), How::Unmap);
    assert_eq!(target.held(LEAK), 0);
    target
        .map(2, at(A + PAGE, PAGE), Protection::READ_WRITE, OTHER)
        .map(2, at(A + 2 * PAGE, PAGE), Protection::READ_WRITE, OTHER)
        .release(2, at(A + 2 * PAGE, PAGE), How::Unmap)
        .fail(1, at(A, 4 * PAGE), How::Unmap);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (2 * PAGE, PAGE));
    assert_eq!(target.owner(A + PAGE), Some(Owner::Site(OTHER)));
    assert_eq!(target.owner(A + 2 * PAGE), None);
    assert_eq!(
        target.ledger.account(LEAK).unwrap().committed_bytes,
        4 * PAGE,
        "nothing was acquired anew"
    );
    // A second failure of the same call is none.
    target.fail(1, at(A, 4 * PAGE), How::Unmap);
    assert_eq!(target.ledger.losses().failures_without_start, 1);
}

/// Rule 1: the same for what only changes what is in a range.
#[test]
fn failed_discard_and_decommit_are_put_back() {
    let mut target = Target::new();
    target.map(1, at(A, MIB), Protection::READ_WRITE, LEAK);
    for how in [
        How::Discard,
        How::Decommit,
        How::BrkDown,
        How::Replace,
        How::RemapFrom,
    ] {
        target.release(1, at(A, MIB / 2), how);
        assert_eq!(target.held(LEAK), MIB / 2, "{how:?}");
        target.fail(1, at(A, MIB / 2), how);
        assert_eq!(target.held(LEAK), MIB, "{how:?}");
        assert_eq!(target.ledger.pieces().count(), 1, "{how:?}");
    }
    assert_eq!(target.ledger.totals().discarded.held_bytes(), 0);
}

/// `mremap` with `MREMAP_FIXED` gives two ranges up; both come back when it fails, in whatever order it says so.
#[test]
fn failed_fixed_mremap_puts_both_ranges_back() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, LEAK)
        .map(1, at(B, MIB), Protection::READ_WRITE, OTHER)
        .release(1, at(B, MIB), How::Replace)
        .release(1, at(A, MIB), How::RemapFrom);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (0, 0));
    target
        .fail(1, at(B, MIB), How::Replace)
        .fail(1, at(A, MIB), How::RemapFrom);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (MIB, MIB));
}

/// `mremap` carries the owners along; only what is longer belongs to its own site.
#[test]
fn mremap_moves_owners_and_adds_its_own() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, OTHER)
        .map(1, at(A + MIB, MIB), Protection::READ_WRITE, SiteId(3))
        .remap(at(A, 2 * MIB), at(B, 3 * MIB), false, LEAK);
    assert_eq!(target.owner(A), None);
    assert_eq!(target.owner(B), Some(Owner::Site(OTHER)));
    assert_eq!(target.owner(B + MIB), Some(Owner::Site(SiteId(3))));
    assert_eq!(target.owner(B + 2 * MIB), Some(Owner::Site(LEAK)));
    let account = target.ledger.account(OTHER).unwrap();
    assert_eq!(
        (account.committed_bytes, account.released_bytes),
        (MIB, 0),
        "moving is neither"
    );
    // Grows where it is, then shrinks.
    target.remap(at(B, 3 * MIB), at(B, 4 * MIB), false, LEAK);
    assert_eq!(target.held(LEAK), 2 * MIB);
    target.remap(at(B, 4 * MIB), at(B, MIB / 2), false, LEAK);
    assert_eq!(
        (target.held(OTHER), target.held(SiteId(3)), target.held(LEAK)),
        (MIB / 2, 0, 0)
    );
    assert_eq!(
        target.ledger.account(LEAK).unwrap().events,
        2,
        "a shrink commits nothing"
    );
}

/// `MREMAP_DONTUNMAP` takes the pages and leaves the addresses.
#[test]
fn dontunmap_leaves_a_discarded_range_behind() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, LEAK)
        .remap(at(A, MIB), at(B, MIB), true, OTHER);
    assert_eq!(target.owner(A), Some(Owner::Discarded));
    assert_eq!(target.owner(B), Some(Owner::Site(LEAK)));
    assert_eq!((target.held(LEAK), target.held(OTHER)), (MIB, 0));
    assert_eq!(target.ledger.totals().discarded.held_bytes(), MIB);
}

/// An `mremap` whose entry was lost takes the old range as it stands; of what is unknown there nobody is the owner.
#[test]
fn mremap_without_its_entry_takes_what_stands() {
    let mut target = Target::new();
    target.map(1, at(A, MIB), Protection::READ_WRITE, LEAK);
    let remap = |old, new| Action::Remap {
        old,
        new,
        keeps_old: false,
        site: Some(OTHER),
    };
    target.apply(1, remap(at(A, 2 * MIB), at(B, 3 * MIB)));
    assert_eq!((target.held(LEAK), target.held(OTHER)), (MIB, MIB));
    assert_eq!(target.owner(B + MIB), Some(Owner::Unseen));
    assert_eq!(target.ledger.losses().remaps_without_start, 1);
}

/// The heap's end moves by bytes, its memory by pages.
#[test]
fn brk_goes_up_and_down_by_whole_pages() {
    let mut target = Target::new();
    let brk = |old_end, new_end, site| Action::BrkUp {
        old_end,
        new_end,
        site: Some(site),
    };
    target.apply(1, brk(HEAP + 100, HEAP + 5000, OTHER));
    assert_eq!(target.held(OTHER), PAGE, "the first page was there");
    target.apply(1, brk(HEAP + 5000, HEAP + 6000, LEAK));
    assert_eq!(target.held(LEAK), 0, "within a page");
    target.apply(1, brk(HEAP + 6000, HEAP + 4 * PAGE, LEAK));
    assert_eq!(target.held(LEAK), 2 * PAGE);
    target.release(1, HEAP + 2 * PAGE + 1..HEAP + 4 * PAGE, How::BrkDown);
    assert_eq!(target.held(LEAK), PAGE);
    assert_eq!(target.ledger.losses().ignored_changes, 0);
}

/// `madvise`: still mapped, nobody's.
#[test]
fn discarded_memory_is_nobodys_and_committed() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, LEAK)
        .release(1, at(A, MIB / 2), How::Discard);
    assert_eq!(target.owner(A), Some(Owner::Discarded));
    assert_eq!(
        (target.held(LEAK), target.ledger.totals().held_bytes()),
        (MIB / 2, MIB)
    );
    target.release(1, at(A, MIB), How::Unmap);
    assert_eq!(target.ledger.totals().held_bytes(), 0);
}

/// A fixed mapping takes from whatever it covers, at entry; a file can take memory's place.
#[test]
fn fixed_mapping_replaces_what_it_covers() {
    let mut target = Target::new();
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, OTHER)
        .map(1, at(A + MIB, MIB), Protection::READ_WRITE, LEAK)
        .release(1, at(A + MIB / 2, MIB), How::Replace);
    assert_eq!((target.held(OTHER), target.held(LEAK)), (MIB / 2, MIB / 2));
    let (range, protection, backing) = (at(A + MIB / 2, MIB), Protection::READ, Backing::PrivateFile);
    target.apply(
        1,
        Action::Map {
            range,
            protection,
            backing,
            site: Some(OTHER),
        },
    );
    assert_eq!(target.ledger.pieces().count(), 3);
    assert_eq!(
        target.ledger.piece_at(A + MIB).unwrap().backing,
        Backing::PrivateFile
    );
    assert_eq!((target.held(OTHER), target.held(LEAK)), (MIB / 2, MIB / 2));
}
