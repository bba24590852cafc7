use leakwatch_ebpf::wire::SAMPLE_ALL;

use super::cohorts::{Class, Cohorts, Fate, Look, Outcome, Seen, WORDS};
use super::table::Facts;
use crate::ledger::SiteId;

const LEAK: SiteId = SiteId(1);
const CHURN: SiteId = SiteId(2);
const MALLOC: u32 = 0;
const SIZE: u64 = 100;
const CHUNK: u64 = 112;
const ALL: u64 = SAMPLE_ALL;

fn facts(site: SiteId, time: u64) -> Facts {
    Facts {
        site: Some(site),
        weight: 1,
        size: SIZE,
        time,
        thread: 7,
        function: MALLOC,
    }
}

/// Words that no other block has.
fn own_words(address: u64) -> [u64; WORDS] {
    std::array::from_fn(|place| 0x1234_5678_0000_0000 + address * 8 + place as u64)
}

fn there(address: u64) -> Seen {
    Seen::InUse {
        chunk_bytes: CHUNK,
        mapped: false,
        words: own_words(address),
    }
}

fn kept(words: [u64; WORDS]) -> Fate {
    let class = Class {
        chunk_bytes: CHUNK,
        constant: None,
        mapped: false,
    };
    Fate::InUse { class, words }
}

/// Looks at all that was born so far; what `seen` says was found at each address.
fn look(cohorts: &mut Cohorts, time: u64, seen: impl Fn(u64) -> Seen) {
    let looks = cohorts.to_look_at(time);
    let seen: Vec<Seen> = looks.iter().map(|look| seen(look.address)).collect();
    cohorts.looked(time, &looks, &seen);
}

fn close(cohorts: Cohorts, time: u64, fate: impl Fn(u64) -> Fate) -> Outcome {
    let looks = cohorts.candidates();
    let fates: Vec<Fate> = looks.iter().map(|look| fate(look.address)).collect();
    cohorts.close(time, &looks, &fates)
}

fn addresses(looks: &[Look]) -> Vec<u64> {
    looks.iter().map(|look| look.address).collect()
}

#[test]
fn who_is_in_use_at_each_look_survives() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    cohorts.born(20, facts(CHURN, 2));
    cohorts.born(30, facts(CHURN, 3));
    look(&mut cohorts, 5, |address| {
        if address == 20 {
            Seen::NotInUse
        } else {
            there(address)
        }
    });
    cohorts.end_stretch();
    assert_eq!(addresses(&cohorts.candidates()), [10, 30]);
    let looks = cohorts.candidates();
    cohorts.checked(50, &looks, &[there(10), Seen::NotInUse]);
    let outcome = close(cohorts, 100, |address| kept(own_words(address)));

    let [survivor] = outcome.survivors[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (survivor.site, survivor.age, survivor.doubtful),
        (LEAK, 99, false)
    );
    assert_eq!(outcome.checks, [50, 100]);
    // Members, at the look, at the check, at the end.
    assert_eq!(outcome.courses[&LEAK].alive, [[1, 1, 1, 1]]);
    assert_eq!(outcome.courses[&CHURN].alive, [[2, 1, 0, 0]]);
    // The one that died later was three nanoseconds old when it was seen last.
    assert_eq!(outcome.courses[&CHURN].oldest_death, 2);
    assert_eq!(outcome.courses[&CHURN].seen, 2);
}

#[test]
fn what_was_born_since_the_look_began_is_not_what_was_seen() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    let looks = cohorts.to_look_at(5);
    // Freed, and given to somebody else, while it was being looked at.
    cohorts.born(10, facts(CHURN, 6));
    cohorts.looked(7, &looks, &[there(10)]);
    assert!(cohorts.candidates().is_empty());
    let outcome = close(cohorts, 100, |_| Fate::Gone);
    assert!(
        outcome.courses.values().all(|course| course.alive.is_empty()),
        "{outcome:?}"
    );
}

#[test]
fn a_block_of_another_size_is_another_block() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    let larger = Seen::InUse {
        chunk_bytes: 4 * CHUNK,
        mapped: false,
        words: own_words(10),
    };
    look(&mut cohorts, 5, |_| larger);
    assert!(cohorts.candidates().is_empty());
    // It was a member of its cohort, and had died by the look.
    assert_eq!(
        close(cohorts, 9, |_| Fate::Gone).courses[&LEAK].alive,
        [[1, 0, 0]]
    );
}

#[test]
fn what_was_not_looked_at_is_forgotten_with_its_stretch() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    cohorts.born(20, facts(LEAK, 8));
    look(&mut cohorts, 5, there);
    cohorts.end_stretch();
    assert_eq!(addresses(&cohorts.candidates()), [10]);
    assert!(cohorts.to_look_at(9).is_empty());
}

#[test]
fn a_later_birth_at_its_address_ends_a_block() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    look(&mut cohorts, 5, there);
    cohorts.end_stretch();
    cohorts.born(10, facts(CHURN, 50));
    assert!(cohorts.candidates().is_empty());
    look(&mut cohorts, 60, there);
    let outcome = close(cohorts, 100, |address| kept(own_words(address)));
    assert_eq!(outcome.survivors.len(), 1);
    assert_eq!(outcome.survivors[0].site, CHURN);
    assert_eq!(outcome.courses[&LEAK].alive, [[1, 1, 0]]);
}

#[test]
fn realloc_moves_a_block_to_its_caller_with_its_age() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(CHURN, 1));
    look(&mut cohorts, 5, there);
    cohorts.moved(10, 40, facts(LEAK, 20), 19);
    look(&mut cohorts, 25, there);
    cohorts.end_stretch();
    let outcome = close(cohorts, 100, |address| kept(own_words(address)));
    let [survivor] = outcome.survivors[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((survivor.site, survivor.age), (LEAK, 99));
}

#[test]
fn content_tells_a_block_from_one_that_took_its_place_unseen() {
    let blocks: Vec<u64> = (1..=40).map(|block| block * 16).collect();
    let outcome = |replaced: bool| {
        let mut cohorts = Cohorts::new(ALL);
        for (time, address) in (1..).zip(&blocks) {
            cohorts.born(*address, facts(LEAK, time));
        }
        look(&mut cohorts, 50, there);
        cohorts.end_stretch();
        close(cohorts, 100, |address| {
            kept(own_words(if replaced { address + 100_000 } else { address }))
        })
    };
    let same = outcome(false);
    assert_eq!(same.survivors.len(), blocks.len());
    assert!(
        same.survivors
            .iter()
            .all(|it| !it.doubtful && it.certainty > 0.95),
        "{same:?}"
    );
    let replaced = outcome(true);
    assert_eq!(replaced.survivors.len(), blocks.len());
    assert!(replaced.survivors.iter().all(|it| it.doubtful), "{replaced:?}");
}

#[test]
fn a_content_that_all_have_tells_nothing() {
    let mut cohorts = Cohorts::new(ALL);
    let words = own_words(0);
    let alike = |_| Seen::InUse {
        chunk_bytes: CHUNK,
        mapped: false,
        words,
    };
    for block in 1..=40 {
        cohorts.born(block * 16, facts(LEAK, block));
    }
    look(&mut cohorts, 50, alike);
    cohorts.end_stretch();
    let outcome = close(cohorts, 100, |_| kept(words));
    assert!(outcome.survivors.iter().all(|it| it.doubtful), "{outcome:?}");
}

#[test]
fn what_cannot_be_told_is_counted() {
    let mut cohorts = Cohorts::new(ALL);
    cohorts.born(10, facts(LEAK, 1));
    cohorts.born(20, facts(LEAK, 2));
    look(&mut cohorts, 5, |address| {
        if address == 10 {
            Seen::Unknown
        } else {
            there(address)
        }
    });
    cohorts.end_stretch();
    // At a check it may be told later.
    let looks = cohorts.candidates();
    cohorts.checked(50, &looks, &[Seen::Unknown]);
    assert_eq!(addresses(&cohorts.candidates()), [20]);
    let outcome = close(cohorts, 100, |_| Fate::Unknown);
    assert_eq!(outcome.unknown, 2);
    assert!(outcome.survivors.is_empty());
}

#[test]
fn a_lower_threshold_is_as_if_it_had_been_so_from_the_start() {
    let mut cohorts = Cohorts::new(ALL);
    for block in 1..=1000 {
        cohorts.born(block * 16, facts(LEAK, block));
    }
    look(&mut cohorts, 2000, there);
    cohorts.lower(ALL / 4);
    let candidates = cohorts.candidates().len();
    assert!((150..350).contains(&candidates), "{candidates} of 1000 are left");
    cohorts.end_stretch();
    let outcome = close(cohorts, 5000, |address| kept(own_words(address)));
    assert_eq!(outcome.survivors.len(), candidates);
    assert_eq!(outcome.stands_for, 4);
    let members = outcome.courses[&LEAK].alive[0][0];
    assert!((249..=250).contains(&members), "{members} members");
    let born = outcome.courses[&LEAK].born;
    assert!((990..=1010).contains(&born), "{born} were born");
}
