//! A target in small, that is watched as the plan says.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const COST: HitCost = HitCost {
    idle: Duration::from_nanos(700),
    plain: Duration::from_nanos(1600),
    stepped: Duration::from_nanos(8000),
    sampled: Duration::from_nanos(900),
    cold: Duration::from_nanos(4000),
    entry: Duration::from_nanos(150),
    cold_entry: Duration::from_nanos(600),
};
/// What the kernel takes to put the probes in and to take them out, in all.
const COMING_AND_GOING: f64 = 0.03;

/// Those of a window of so many seconds, with this part of the target's time to spend.
fn bursts(window: f64, fraction: f64) -> Bursts {
    Bursts::new(Plan {
        window: Some(Duration::from_secs_f64(window)),
        fraction,
        cost: COST,
        seed: 1,
    })
}

#[derive(Clone, Copy, Debug)]
struct Target {
    /// Calls a second of one thread that is not watched, and what it does beside them, seconds a second.
    calls: f64,
    threads: f64,
    /// From this second on it calls so many times as often.
    change: (f64, f64),
    /// How cold its calls find the caches, and from the change on.
    coldness: (f64, f64),
    /// The kernel may take so many times as long, in some of the bursts.
    unsteady: f64,
}

impl Target {
    fn calls_at(&self, time: f64) -> f64 {
        if time < self.change.0 {
            self.calls
        } else {
            self.calls * self.change.1
        }
    }

    fn coldness_at(&self, time: f64) -> f64 {
        if time < self.change.0 {
            self.coldness.0
        } else {
            self.coldness.1
        }
    }

    /// What `hits` calls that are watched come to, all of them of the sample.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "of the size of a test"
    )]
    fn watched(&self, time: f64, hits: f64, idle: f64) -> Hits {
        let entry =
            COST.entry.as_secs_f64() + self.coldness_at(time) * (COST.cold_entry - COST.entry).as_secs_f64();
        Hits {
            idle: idle as u64,
            burst: hits as u64,
            stepped: 0,
            sampled: hits as u64,
            timed: hits as u64,
            nanoseconds: (hits * entry * 1e9) as u64,
        }
    }

    /// Seconds that a hit takes.
    fn each(&self, time: f64) -> f64 {
        (COST.plain + COST.sampled).as_secs_f64() + self.coldness_at(time) * COST.cold.as_secs_f64()
    }

    fn idle_each(&self, time: f64) -> f64 {
        let one = Hits {
            idle: 1,
            ..Hits::default()
        };
        COST.of_idle(&one, self.coldness_at(time))
    }

    /// Hits in a stretch of time: each takes so much longer.
    fn hits(&self, time: f64, length: f64, each: f64) -> f64 {
        let calls = self.calls_at(time);
        self.threads * length * calls / (1.0 + calls * each)
    }
}

#[derive(Debug, Default)]
struct Course {
    spent: f64,
    watched: f64,
    disturbed: f64,
    bursts: Vec<(f64, f64)>,
    processor: f64,
    /// The most that was spent in one piece.
    most: f64,
    always: bool,
}

struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next_f64(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

fn run(target: &Target, window: f64, fraction: f64, seed: u64) -> Course {
    run_plan(target, Some(window), window, fraction, seed)
}

/// Ends at `end`, planned or not.
fn run_plan(target: &Target, window: Option<f64>, end: f64, fraction: f64, seed: u64) -> Course {
    let mut bursts = Bursts::new(Plan {
        window: window.map(Duration::from_secs_f64),
        fraction,
        cost: COST,
        seed,
    });
    let mut course = Course::default();
    let (mut now, mut attached) = (0.0, false);
    let mut random = Random(seed);
    for _ in 0..100_000 {
        let processor = Duration::from_secs_f64(target.threads * now);
        let step = bursts.next(Duration::from_secs_f64(now), processor);
        match if now >= end { Step::Done } else { step } {
            Step::Done => {
                course.processor = target.threads * now;
                course.spent = bursts.spent();
                course.watched = bursts.watched();
                course.disturbed = bursts.disturbed();
                course.always = attached;
                return course;
            }
            Step::Wait { until } => {
                assert!(until.as_secs_f64() > now, "{until:?} {now}");
                now = until.as_secs_f64();
                attached = false;
            }
            Step::Watch {
                length,
                expected,
                hits_max,
            } => {
                let mut length = length.as_secs_f64();
                let slow = 1.0 + (target.unsteady - 1.0) * random.next_f64();
                let [coming, going] = if attached {
                    [0.0; 2]
                } else {
                    [0.5 * slow * COMING_AND_GOING; 2]
                };
                let idle = |time: f64| {
                    let hits = target.hits(now, time, target.idle_each(now));
                    target.watched(now, 0.0, hits)
                };
                let hits_max = if attached {
                    hits_max
                } else {
                    bursts.attached(&idle(coming), expected, hits_max).1
                };
                let mut hits = target.hits(now, length, target.each(now));
                // What they cost is looked at again and again.
                let mut most = hits_max as f64;
                let mut seen = 0.0;
                while seen < most.min(hits) {
                    seen = (seen + hits / 64.0).min(most).min(hits);
                    most = most.min(hits_max as f64 - bursts.dearer(&target.watched(now, seen, 0.0)) as f64);
                }
                let most = seen;
                if hits > most {
                    length *= most / hits;
                    hits = most;
                }
                let spent = Spent {
                    length: Duration::from_secs_f64(length),
                    attach: Duration::from_secs_f64(coming / 2.0),
                    look: Some(Duration::from_millis(3)),
                    hits: target.watched(now, hits, 0.0),
                };
                let before = bursts.spent();
                bursts.ended(&spent);
                if !attached {
                    bursts.detached(&idle(going), None);
                }
                course.most = course.most.max(bursts.spent() - before);
                course.bursts.push((now, length));
                now += length + coming + going;
                now = now.max(now + 1e-6);
                attached = length > 0.0;
            }
        }
    }
    panic!("it does not end: {now} of {end}, {} bursts", course.bursts.len());
}

proptest! {
    /// For calls from 10 to 30 million a second, that may change midway by a factor of a hundred, and find the caches colder.
    #[test]
    fn the_budget_holds(
        calls in (1.0f64..7.5).prop_map(|power| 10f64.powf(power)),
        threads in 0.01f64..16.0,
        change in (0.0f64..30.0, -2.0f64..2.0),
        window in 2.0f64..60.0,
        fraction in 0.002f64..0.05,
        coldness in 0.0f64..2.0,
        colder in 0.0f64..2.0,
        unsteady in 1.0f64..8.0,
        seed: u64,
    ) {
        let target = Target { calls, threads, change: (change.0, 10f64.powf(change.1)), coldness: (coldness, coldness + colder), unsteady };
        let course = run(&target, window, fraction, seed);
        let budget = (fraction * course.processor).max(0.002 * window);
        // Coming and going is not known before it was done.
        let longest = unsteady * COMING_AND_GOING;
        let idle = [0.0, window].map(|time| target.hits(time, longest, target.idle_each(time)) * target.idle_each(time));
        let idle = idle[0].max(idle[1]);
        prop_assert!(course.spent <= budget + 1.05 * idle + 1e-4, "{target:?} {} of {budget}, idle {idle}", course.spent);
    }

    /// And is used: what it buys is not left lying by more than a half, unless all was watched, or there was no more time
    /// in which requests may wait.
    #[test]
    fn the_budget_is_used(
        calls in (1.0f64..7.5).prop_map(|power| 10f64.powf(power)),
        threads in 0.2f64..16.0,
        coldness in 0.0f64..2.0,
        seed: u64,
    ) {
        let target = Target { calls, threads, change: (0.0, 1.0), coldness: (coldness, coldness), unsteady: 1.0 };
        let course = run(&target, 30.0, 0.01, seed);
        let budget = 0.01 * course.processor;
        prop_assert!(
            course.watched > 29.0 || course.spent > 0.5 * budget || course.disturbed > 0.5 * 0.006 * 30.0,
            "{target:?}: watched {} s, {} of {budget}, {:?}", course.watched, course.spent, course.bursts
        );
    }
}

proptest! {
    /// Whenever somebody ends it, what was spent is what so long a window may have, and what half a minute more may.
    #[test]
    fn the_budget_of_an_open_window_holds(
        calls in (1.0f64..7.5).prop_map(|power| 10f64.powf(power)),
        threads in 0.2f64..16.0,
        end in 5.0f64..400.0,
        coldness in 0.0f64..2.0,
        seed: u64,
    ) {
        let target = Target { calls, threads, change: (0.0, 1.0), coldness: (coldness, coldness), unsteady: 1.0 };
        let course = run_plan(&target, None, end, 0.01, seed);
        let budget = 0.01 * threads * (end + 30.0);
        let idle = target.hits(0.0, COMING_AND_GOING, target.idle_each(0.0)) * target.idle_each(0.0);
        prop_assert!(course.spent <= budget + 1.05 * idle + 1e-4, "{target:?} {} of {budget}, idle {idle}", course.spent);
        prop_assert!(
            end < 60.0 || course.watched > 0.9 * end || course.spent > 0.4 * 0.01 * threads * end
                || course.disturbed > 0.4 * 0.006 * end,
            "{target:?}: watched {} s of {end}, {} of {budget}, {:?}", course.watched, course.spent, course.bursts
        );
    }
}

proptest! {
    /// A server that calls so often that a burst makes it half as fast again has few of them.
    #[test]
    fn bursts_that_are_felt_are_few(
        calls in 6e5f64..3e7,
        threads in 0.5f64..16.0,
        window in 5.0f64..120.0,
        coldness in 0.0f64..2.0,
        seed: u64,
    ) {
        let target = Target { calls, threads, change: (0.0, 1.0), coldness: (coldness, coldness), unsteady: 1.0 };
        let course = run(&target, window, 0.01, seed);
        // Six are allowed in any case.
        let least = 6.0 * (COMING_AND_GOING / 4.0 + 0.010);
        prop_assert!(
            course.disturbed <= (0.006 * window).max(least) + 0.011,
            "{target:?}: {} s of {window}, {:?}", course.disturbed, course.bursts
        );
    }
}

/// A server on all of its processors: what it cannot work around each burst comes out of the same budget, so there are
/// fewer. One with time to spare makes up for it.
#[test]
fn what_a_busy_target_cannot_work_is_paid_for() {
    let bursts_of = |threads: f64, lost: f64| {
        let mut bursts = bursts(30.0, 0.01);
        let (mut now, mut used, mut count) = (0.0, 0.0, 0);
        while count < 1000 {
            let at = |seconds: f64| Duration::from_secs_f64(seconds);
            match bursts.next(at(now), at(used)) {
                Step::Done => break,
                Step::Wait { until } => {
                    used += threads * (until.as_secs_f64() - now);
                    now = until.as_secs_f64();
                }
                Step::Watch {
                    length,
                    expected,
                    hits_max,
                } => {
                    count += 1;
                    let idle = Hits {
                        idle: 2000,
                        ..Hits::default()
                    };
                    bursts.attached(&idle, expected, hits_max);
                    let hits = Hits {
                        burst: expected,
                        ..Hits::default()
                    };
                    bursts.ended(&Spent {
                        length,
                        attach: at(0.01),
                        look: None,
                        hits,
                    });
                    let around = Extent {
                        time: length + at(0.06),
                        processor: at((threads * (length.as_secs_f64() + 0.06) - lost).max(0.0)),
                        ..Extent::default()
                    };
                    bursts.detached(&Hits::default(), Some(around));
                    now += around.time.as_secs_f64();
                    used += around.processor.as_secs_f64();
                }
            }
        }
        (
            count,
            bursts.spent(),
            bursts.withheld(Duration::from_secs_f64(now), Duration::from_secs_f64(used)),
        )
    };
    let (undisturbed, _, withheld) = bursts_of(2.0, 0.0);
    assert!(withheld < 0.001, "{withheld}");
    let (disturbed, spent, withheld) = bursts_of(2.0, 0.04);
    assert!(disturbed < undisturbed, "{disturbed} {undisturbed}");
    assert!(
        (withheld / (0.04 * f64::from(disturbed)) - 1.0).abs() < 0.1,
        "{withheld} {disturbed}"
    );
    assert!(spent + withheld < 0.6 + 0.04, "{spent} {withheld}");
    let (idle, _, withheld) = bursts_of(0.2, 0.01);
    assert!(idle > 0 && withheld == 0.0, "{withheld}");
}

#[test]
fn what_putting_the_probes_in_has_cost_counts_though_no_burst_came_of_it() {
    let mut bursts = bursts(10.0, 0.01);
    let idle = Hits {
        idle: 1000,
        ..Hits::default()
    };
    bursts.attached(&idle, 100, 100);
    bursts.detached(&Hits::default(), None);
    assert!(bursts.spent() >= COST.of_idle(&idle, 0.0), "{}", bursts.spent());
}

/// The same calls, evenly or in clumps: of the latter one may come while blocks are looked at, and must not cut the burst.
#[test]
fn a_clump_of_calls_is_reckoned_with() {
    let (window, fraction) = (10.0, 0.01);
    let at = Duration::from_secs_f64;
    let after = |bursts_hits: [u64; 2]| {
        let mut bursts = bursts(window, fraction);
        for burst in bursts_hits {
            bursts.ended(&Spent {
                length: at(0.01),
                attach: Duration::ZERO,
                look: Some(at(0.004)),
                hits: Hits {
                    burst,
                    sampled: burst,
                    timed: burst,
                    nanoseconds: burst * 150,
                    ..Hits::default()
                },
            });
        }
        let mut now = at(8.0);
        loop {
            match bursts.next(now, at(1.6)) {
                Step::Watch {
                    expected, hits_max, ..
                } => return (expected, hits_max),
                Step::Wait { until } => now = until,
                Step::Done => panic!("no burst"),
            }
        }
    };
    let (even, even_most) = after([2000, 2000]);
    let (clumped, clumped_most) = after([100, 3900]);
    assert!(clumped < even, "{clumped} {even}");
    // A look takes 7 ms of the 10 that a burst was.
    let enough = |expected: u64, clump: u64| (expected * 6 + clump * 7) / 10;
    assert!(even_most >= enough(even, 2000), "{even} {even_most}");
    assert!(
        clumped > 100 && clumped_most >= enough(clumped, 3900),
        "{clumped} {clumped_most}"
    );
}

/// The first burst is cut at once where a target calls hundreds of thousands of times a second. The next one is to last until
/// its blocks are looked at, and what calls cost until the probes are gone after it is set aside.
#[test]
fn a_first_burst_that_was_cut_tells_how_often_a_target_calls() {
    let at = Duration::from_secs_f64;
    let mut bursts = bursts(10.0, 0.01);
    let Step::Watch { .. } = bursts.next(at(0.5), at(0.1)) else {
        panic!("no first burst");
    };
    let (calls_a_second, seconds) = (400_000, 0.0005);
    let burst = 200;
    bursts.ended(&Spent {
        length: at(seconds),
        attach: at(0.001),
        look: None,
        hits: Hits {
            burst,
            sampled: burst,
            timed: burst,
            nanoseconds: burst * 150,
            ..Hits::default()
        },
    });
    let idle = Hits {
        idle: 100,
        ..Hits::default()
    };
    bursts.detached(&idle, None);
    let budget = 0.02;
    let spent = bursts.spent();
    let mut now = at(0.51);
    let (expected, hits_max) = loop {
        match bursts.next(now, now.mul_f64(0.2)) {
            Step::Watch {
                expected, hits_max, ..
            } => break (expected, hits_max),
            Step::Wait { until } => now = until,
            Step::Done => panic!("no second burst"),
        }
    };
    // A look takes 7 ms at most; 6 more until the probes are gone.
    let needed = expected * 6 / 10 + calls_a_second * 7 / 1000;
    assert!(
        expected > 500 && hits_max >= needed,
        "{expected} {hits_max} {needed}"
    );
    let left = budget
        - spent
        - COST.of_burst(
            &Hits {
                burst: hits_max,
                sampled: hits_max,
                ..Hits::default()
            },
            0.0,
        );
    let going = Hits {
        idle: calls_a_second * 6 / 1000,
        ..Hits::default()
    };
    assert!(left >= COST.of_idle(&going, 0.0), "{left}");
}

#[test]
fn a_low_rate_is_watched_all_the_time() {
    let target = Target {
        calls: 500.0,
        threads: 1.0,
        change: (0.0, 1.0),
        coldness: (0.1, 0.1),
        unsteady: 1.0,
    };
    let course = run(&target, 30.0, 0.01, 1);
    assert!(course.always && course.watched > 29.5, "{course:?}");
}

#[test]
fn a_storm_is_watched_in_bursts_over_all_of_the_window() {
    let target = Target {
        calls: 1e6,
        threads: 4.0,
        change: (0.0, 1.0),
        coldness: (0.1, 0.1),
        unsteady: 1.0,
    };
    let course = run(&target, 60.0, 0.01, 1);
    assert!(course.bursts.len() >= 6, "{course:?}");
    for third in 0..3 {
        let (from, to) = (20.0 * f64::from(third), 20.0 * f64::from(third + 1));
        assert!(
            course.bursts.iter().any(|(start, _)| (from..to).contains(start)),
            "{course:?}"
        );
    }
    let other = run(&target, 60.0, 0.01, 2);
    assert_ne!(course.bursts[1].0, other.bursts[1].0, "the times are random");
}

#[test]
fn a_rate_that_rises_is_no_longer_watched_all_the_time() {
    let target = Target {
        calls: 500.0,
        threads: 1.0,
        change: (10.0, 2000.0),
        coldness: (1.0, 0.1),
        unsteady: 1.0,
    };
    // Coming and going takes so much of what is left that there are few, each by chance in its piece of the rest.
    let mut late = 0;
    for seed in 1..=20 {
        let course = run(&target, 30.0, 0.01, seed);
        assert!(!course.always);
        assert!(course.spent <= 0.3 + 0.05, "{course:?}");
        let latest = course.bursts.last().map_or(0.0, |(start, _)| *start);
        late += u32::from(latest > 20.0);
    }
    assert!(late >= 8, "{late} of 20");
}
