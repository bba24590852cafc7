use std::collections::BTreeSet;

use leakwatch_ebpf::wire::SAMPLE_ALL;
use proptest::prelude::*;

use super::*;
use crate::births::cohorts::{Class, Fate, Look, Outcome, Seen};

const PID: u32 = 7;
const SIZE: u64 = 100;
const CHUNK: u64 = 112;
const STACK: [u8; 64] = [3; 64];

fn header(time: u64, address: u64, old: Option<(u64, u64)>) -> Header {
    let (old_address, old_length) = old.unwrap_or_default();
    // SAFETY: a header is made of integers alone, for which all zeroes stand for values.
    let nothing: Header = unsafe { std::mem::zeroed() };
    Header {
        time,
        tgid: PID,
        address,
        length: SIZE,
        old_address,
        old_length,
        ..nothing
    }
}

fn push(queue: &mut Queue, header: Header) {
    queue.push(&Event {
        kind: Kind::Alloc,
        header,
        registers: Some(&[1, 2, 3, 4, 5, 6, 7, 8]),
        stack: &STACK,
    });
}

/// Births by one site each.
fn site_of(birth: &Waiting) -> Option<SiteId> {
    let site = u32::try_from(birth.header.time % 5).unwrap();
    birth.is_unwound().then_some(SiteId(site + 1))
}

#[test]
fn a_block_that_is_gone_leaves_no_copy_but_each_sixteenth() {
    let mut queue = Queue::default();
    let times = 1..=16_000u64;
    for time in times.clone() {
        push(&mut queue, header(time, 0x1000 + time % 4 * 64, None));
    }
    let copied = queue.births.iter().map(|birth| birth.copy.len()).sum::<usize>();
    assert_eq!(queue.bytes, copied);
    let mut unwound = 0;
    let mut standing = 0;
    while let Some(birth) = queue.pop() {
        let event = birth.event();
        match birth.weight {
            0 => assert!(birth.copy.is_empty()),
            GONE_EACH => unwound += 1,
            _ => {
                standing += 1;
                assert!(event.header.time > 16_000 - 4);
            }
        }
        if birth.is_unwound() {
            assert_eq!(event.registers, Some([1, 2, 3, 4, 5, 6, 7, 8].as_slice()));
            assert_eq!(event.stack, STACK);
        }
    }
    assert_eq!(standing, 4);
    assert!((850..1150).contains(&unwound), "{unwound}");
    assert_eq!((queue.bytes, queue.latest_at.len()), (0, 0));
}

#[test]
fn what_is_being_looked_at_keeps_its_copy() {
    let mut queue = Queue::default();
    for time in 1..=100 {
        push(&mut queue, header(time, 0x1000 + time * 64, None));
    }
    queue.settle();
    for time in 101..=200 {
        push(&mut queue, header(time, 0x1000 + (time - 100) * 64, None));
    }
    assert!(queue.births.iter().all(|birth| birth.weight == 1));
    assert_eq!(queue.standing(PID, SAMPLE_ALL, 200).len(), 100);
}

/// What comes of it whether whose births they are is known of all of them or of those that matter.
struct Both {
    queue: Queue,
    births: Vec<Header>,
    some: Cohorts,
    all: Cohorts,
}

impl Both {
    fn push(&mut self, header: Header) {
        push(&mut self.queue, header);
        self.births.push(header);
    }

    fn work_off(&mut self, mut most: usize, until: u64) {
        while most > 0
            && self
                .queue
                .births
                .front()
                .is_some_and(|birth| birth.header.time <= until)
        {
            most -= 1;
            let birth = self.queue.pop().unwrap();
            birth.tell(site_of(&birth), &mut self.some);
            let whole = Waiting { weight: 1, ..birth };
            whole.tell(site_of(&whole), &mut self.all);
        }
    }

    fn looks(&self, cohorts: &Cohorts, until: u64) -> Vec<Look> {
        let mut standing = self.queue.standing(PID, SAMPLE_ALL, until);
        for look in cohorts.to_look_at(until) {
            standing.entry(look.address).or_insert(look.born);
        }
        let looks = standing.into_iter();
        looks.map(|(address, born)| Look { address, born }).collect()
    }

    fn check(cohorts: &mut Cohorts, time: u64, chance: u64) {
        let looks = cohorts.candidates();
        let seen: Vec<Seen> = looks
            .iter()
            .map(|look| seen(look.address, time, chance))
            .collect();
        cohorts.checked(time, &looks, &seen);
    }

    fn close(cohorts: Cohorts, time: u64, chance: u64) -> Outcome {
        let looks = cohorts.candidates();
        let fates: Vec<Fate> = looks
            .iter()
            .map(|look| match seen(look.address, time, chance) {
                Seen::InUse { words, .. } => Fate::InUse {
                    class: Class {
                        chunk_bytes: CHUNK,
                        constant: None,
                        mapped: false,
                    },
                    words,
                },
                Seen::NotInUse => Fate::Gone,
                Seen::Unknown => Fate::Unknown,
            })
            .collect();
        cohorts.close(time, &looks, &fates)
    }
}

fn seen(address: u64, time: u64, chance: u64) -> Seen {
    match scattered(address ^ (time << 20) ^ chance) % 8 {
        0 | 1 => Seen::NotInUse,
        2 => Seen::Unknown,
        _ => Seen::InUse {
            chunk_bytes: CHUNK,
            mapped: false,
            words: [address << 20; 8],
        },
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Born(u64),
    Moved(u64, u64, u64),
    Thinned(u64, u64),
    WorkOff(usize),
    /// Births at such addresses come meanwhile.
    Look(u64, u64),
    Check,
    EndStretch,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let place = || 0..12u64;
    proptest::collection::vec(
        prop_oneof![
            12 => place().prop_map(Act::Born),
            6 => (place(), place(), 0..3u64).prop_map(|(old, new, ago)| Act::Moved(old, new, ago)),
            2 => (place(), 0..3u64).prop_map(|(old, ago)| Act::Thinned(old, ago)),
            4 => (1..6usize).prop_map(Act::WorkOff),
            4 => (place(), place()).prop_map(|(one, other)| Act::Look(one, other)),
            1 => Just(Act::Check),
            1 => Just(Act::EndStretch),
        ],
        1..120,
    )
}

proptest! {
    #[test]
    fn whose_the_gone_ones_were_makes_no_difference_to_what_is_followed(acts in acts(), chance: u64) {
        let mut both = Both {
            queue: Queue::default(),
            births: Vec::new(),
            some: Cohorts::new(SAMPLE_ALL),
            all: Cohorts::new(SAMPLE_ALL),
        };
        let mut time = 100;
        let at = |place: u64| 0x10000 + place * 128;
        for act in acts {
            time += 2;
            match act {
                Act::Born(place) => both.push(header(time, at(place), None)),
                Act::Moved(old, new, ago) => both.push(header(time, at(new), Some((at(old), time - 2 * ago)))),
                Act::Thinned(old, ago) => {
                    let thinned = header(time, 0x9_0000, Some((at(old), time - 2 * ago)));
                    both.push(Header { flags: flags::THINNED, ..thinned });
                }
                Act::WorkOff(most) => both.work_off(most, u64::MAX),
                Act::Look(one, other) => {
                    both.queue.settle();
                    let until = time - 6;
                    let looks = both.looks(&both.all, until);
                    prop_assert_eq!(&looks, &both.looks(&both.some, until));
                    let looked = time;
                    for place in [one, other] {
                        time += 2;
                        both.push(header(time, at(place), None));
                    }
                    both.work_off(usize::MAX, looked);
                    let seen: Vec<Seen> = looks.iter().map(|look| seen(look.address, looked, chance)).collect();
                    both.some.looked(looked, &looks, &seen);
                    both.all.looked(looked, &looks, &seen);
                }
                Act::Check => {
                    both.work_off(usize::MAX, u64::MAX);
                    Both::check(&mut both.some, time, chance);
                    Both::check(&mut both.all, time, chance);
                }
                Act::EndStretch => {
                    both.work_off(usize::MAX, u64::MAX);
                    both.some.end_stretch();
                    both.all.end_stretch();
                }
            }
        }
        both.work_off(usize::MAX, u64::MAX);
        let some = Both::close(both.some, time, chance);
        let all = Both::close(both.all, time, chance);
        prop_assert_eq!(&some.survivors, &all.survivors);
        prop_assert_eq!((some.births, some.unknown), (all.births, all.unknown));
        let born = both.births.iter().filter(|header| header.flags == 0).count();
        prop_assert_eq!(some.births, born as u64);
        let sites: BTreeSet<SiteId> = some.courses.keys().chain(all.courses.keys()).copied().collect();
        for site in sites {
            let course = |outcome: &Outcome| outcome.courses.get(&site).cloned().unwrap_or_default();
            let (some, all) = (course(&some), course(&all));
            prop_assert_eq!((some.alive, some.oldest_death), (all.alive, all.oldest_death));
        }
    }
}
