//! Baseline, checks, losses and bounds.

use super::*;

/// Rule 3: what stood before is *before attach*, also what changes from before the reading say; later ones count.
#[test]
fn changes_from_before_the_baseline_are_not_of_the_window() {
    let mut ledger = Ledger::new(PAGE);
    let rw = |range| region(range, Protection::READ_WRITE, Backing::Anonymous);
    // [vsyscall] is in every maps of x86-64, and no memory of the target.
    let vsyscall = region(
        at(0xffff_ffff_ff60_0000, PAGE),
        Protection::READ,
        Backing::PrivateFile,
    );
    ledger.set_baseline(&[rw(at(A, MIB)), rw(at(B, MIB)), vsyscall], 5 * SECOND);
    assert_eq!(ledger.totals().baseline_bytes, 2 * MIB);
    let mut target = Target {
        ledger,
        time: 4 * SECOND,
    };
    target
        .map(1, at(A, MIB), Protection::READ_WRITE, LEAK)
        // Entered before the reading, done after it.
        .release(2, at(B, MIB), How::Unmap);
    assert_eq!(target.ledger.accounts().count(), 0);
    assert_eq!(target.owner(A), Some(Owner::BeforeAttach));
    assert_eq!(target.owner(B), None);
    assert_eq!(target.ledger.totals().growth_bytes(), -(MIB as i64));
    target.time = 5 * SECOND;
    target.map(1, at(B, 2 * MIB), Protection::READ_WRITE, LEAK);
    assert_eq!(target.held(LEAK), 2 * MIB);
    assert_eq!(target.ledger.totals().growth_bytes(), MIB as i64);
}

/// Rule 7: a check finds what lost events did, leaves alone what moved while maps was read, and counts all of it.
#[test]
fn check_repairs_what_lost_events_did() {
    let anonymous = |range, protection| region(range, protection, Backing::Anonymous);
    let mut target = Target::from_baseline(&[]);
    target.map(1, at(A, 4 * MIB), Protection::READ_WRITE, LEAK).map(
        2,
        at(HEAP, MIB),
        Protection::NONE,
        OTHER,
    );
    target.time += 5 * SECOND;
    target.ledger.begin_check(target.time);
    // Seen by the reading, its event before the check's end.
    target.map(3, at(B, MIB), Protection::READ_WRITE, OTHER);
    let repair = target.ledger.finish_check(&[
        anonymous(at(A, MIB), Protection::READ_WRITE),
        anonymous(at(A + 2 * MIB, 3 * MIB), Protection::READ_WRITE),
        anonymous(at(HEAP, MIB), Protection::READ_WRITE),
        anonymous(at(B, PAGE), Protection::READ),
    ]);
    let expected = Repair {
        appeared_bytes: MIB,
        vanished_bytes: MIB,
        changed_bytes: MIB,
        skipped_bytes: PAGE,
    };
    assert_eq!(repair, expected);
    assert_eq!(target.ledger.losses().repaired, expected);
    assert_eq!((target.held(LEAK), target.held(OTHER)), (3 * MIB, MIB));
    assert_eq!(target.owner(A + 4 * MIB), Some(Owner::Unseen));
    assert_eq!(target.ledger.totals().unseen.held_bytes(), 2 * MIB);
    // Without a begin there is nothing to say what is safe to touch.
    assert_eq!(target.ledger.finish_check(&[]), Repair::default());
}

/// Rule 7: a check that sees a call's effect before its event does not take the call's memory away from it.
#[test]
fn event_after_the_check_takes_its_memory_over() {
    let mut target = Target::from_baseline(&[region(at(A, MIB), Protection::NONE, Backing::Anonymous)]);
    target.ledger.begin_check(target.time + SECOND);
    let parts = [
        region(at(A, PAGE), Protection::READ_WRITE, Backing::Anonymous),
        region(A + PAGE..A + MIB, Protection::NONE, Backing::Anonymous),
    ];
    assert_eq!(target.ledger.finish_check(&parts).changed_bytes, PAGE);
    assert_eq!(target.owner(A), Some(Owner::Unseen));
    target.protect(1, at(A, PAGE), Protection::READ_WRITE, LEAK);
    assert_eq!(target.owner(A), Some(Owner::Site(LEAK)));
    assert_eq!(target.ledger.totals().unseen.held_bytes(), 0);
}

/// More ranges touched than a check can remember: more is skipped, nothing is judged wrongly.
#[test]
fn check_of_a_storm_skips_rather_than_errs() {
    let mut target = Target::from_baseline(&[]);
    target.ledger.begin_check(target.time);
    for step in 0..70_000 {
        target.map(1, at(A + step * 2 * PAGE, PAGE), Protection::READ_WRITE, LEAK);
    }
    let repair = target.ledger.finish_check(&[]);
    assert_eq!(repair, Repair::default(), "all of it is newer than the reading");
    assert_eq!(target.held(LEAK), 70_000 * PAGE);
}

/// Lost stacks are counted, in calls and bytes.
#[test]
fn memory_without_a_stack_is_unseen_and_counted() {
    let mut target = Target::new();
    let (protection, backing) = (Protection::READ_WRITE, Backing::Anonymous);
    target.apply(
        1,
        Action::Map {
            range: at(A, MIB),
            protection,
            backing,
            site: None,
        },
    );
    let losses = target.ledger.losses();
    assert_eq!((losses.stackless_acquisitions, losses.stackless_bytes), (1, MIB));
    assert_eq!(target.ledger.totals().unseen.held_bytes(), MIB);
}

/// The ledger of a child has the parent's memory and none of its history.
#[test]
fn child_starts_with_everything_from_before() {
    let mut target = Target::from_baseline(&[region(at(B, MIB), Protection::READ_WRITE, Backing::Anonymous)]);
    target.map(1, at(A, MIB), Protection::READ_WRITE, LEAK).map(
        1,
        at(A + MIB, MIB),
        Protection::READ_WRITE,
        OTHER,
    );
    let child = target.ledger.fork();
    assert_eq!(child.accounts().count(), 0);
    assert_eq!(child.totals().before_attach.held_bytes(), 3 * MIB);
    assert_eq!(
        child.pieces().count(),
        2,
        "what differed in its owner only is one now"
    );
    assert_eq!(target.held(LEAK), MIB, "the parent's is as it was");
}

/// Bounded memory: too many pieces lose their owners, not their bytes, and the loss is counted.
#[test]
fn too_many_pieces_are_joined_and_counted() {
    let mut target = Target::new();
    target.ledger.pieces_max = 64;
    for page in 0..500 {
        let site = if page % 2 == 0 { LEAK } else { OTHER };
        target.map(1, at(A + page * PAGE, PAGE), Protection::READ_WRITE, site);
        assert!(target.ledger.pieces().count() <= 64);
    }
    assert_eq!(target.ledger.totals().held_bytes(), 500 * PAGE);
    let losses = target.ledger.losses();
    assert!(losses.coarsened_bytes > 0 && losses.forgotten_bytes == 0);
    assert_eq!(
        target.held(LEAK) + target.held(OTHER) + target.ledger.totals().unseen.held_bytes(),
        500 * PAGE
    );
    // Pieces apart cannot be joined.
    let mut target = Target::new();
    target.ledger.pieces_max = 64;
    for page in 0..100 {
        target.map(1, at(A + page * 2 * PAGE, PAGE), Protection::READ_WRITE, LEAK);
    }
    assert!(target.ledger.pieces().count() <= 64);
    assert_eq!(
        target.held(LEAK) + target.ledger.losses().forgotten_bytes,
        100 * PAGE
    );
}

/// Bounded memory: threads that end with a `munmap` leave places behind; they are no loss once they are old.
#[test]
fn places_of_threads_long_gone_are_taken_without_a_loss() {
    let mut target = Target::new();
    for thread in 0..10_000 {
        target.time += 10_000_000;
        target.release(thread, at(A, PAGE), How::Unmap);
    }
    let few = target.ledger.losses().pending_dropped;
    // At the same moment it is one: any of them could still fail.
    for thread in 20_000..30_000 {
        target.time -= 1_000_000;
        target.release(thread, at(A, PAGE), How::Unmap);
    }
    assert_eq!(few, 0);
    assert!(target.ledger.losses().pending_dropped > 0);
}

/// Impossible changes are counted, one by one.
#[test]
fn impossible_changes_are_ignored_and_counted() {
    let mut target = Target::new();
    let high = 1 << 63;
    #[expect(clippy::reversed_empty_ranges, reason = "that is the point")]
    let ranges = [A..A, A + PAGE..A, A + 1..A + PAGE, high..high + PAGE, 0..u64::MAX];
    for range in ranges {
        target
            .map(1, range.clone(), Protection::READ_WRITE, LEAK)
            .release(1, range, How::Unmap);
    }
    assert_eq!(target.ledger.losses().ignored_changes, 10);
    assert_eq!(target.ledger.pieces().count(), 0);
}

/// The series keeps its few points over any length of time, and tells a rate.
#[test]
fn series_halves_its_steps_and_keeps_its_rate() {
    let mut target = Target::from_baseline(&[]);
    let began = target.time;
    for step in 0..3600 {
        target.time = began + step * SECOND;
        target.map(1, at(A + step * MIB, MIB), Protection::READ_WRITE, LEAK);
    }
    let now = target.time;
    let series = &target.ledger.account(LEAK).unwrap().series;
    let points = series.until(now);
    assert!((SERIES_POINTS / 2..=SERIES_POINTS).contains(&points.len()));
    assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    assert_eq!(points.last().unwrap().1, 3600 * MIB);
    let rate = series.rate(now).unwrap();
    assert!((rate / MIB as f64 - 1.0).abs() < 0.02, "{rate}");
    // An hour of nothing flattens it.
    assert!(series.rate(now + 3600 * SECOND).unwrap() < 0.8 * MIB as f64);
    let short = target.ledger.account(LEAK).unwrap().series.until(began);
    assert!(!short.is_empty());
}

/// A stream of changes can be written down and replayed.
#[test]
fn changes_survive_being_written_down() {
    let change = Change {
        time: 7,
        thread: 3,
        action: Action::Map {
            range: at(A, MIB),
            protection: Protection::from_bits(0x100_0003),
            backing: Backing::PrivateFile,
            site: Some(LEAK),
        },
    };
    let text = serde_json::to_string(&change).unwrap();
    assert_eq!(
        text,
        r#"{"time":7,"thread":3,"action":{"map":{"range":{"start":139637976727552,"end":139637977776128},"protection":3,"backing":"private_file","site":1}}}"#
    );
    assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
}
