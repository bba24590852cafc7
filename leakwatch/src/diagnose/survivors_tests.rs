use proptest::prelude::*;

use super::*;
use crate::births::cohorts::Course;

fn class(chunk_bytes: u64) -> Class {
    Class {
        chunk_bytes,
        constant: None,
        mapped: false,
    }
}

fn growth(chunk_bytes: u64, count: i64) -> ClassGrowth {
    ClassGrowth {
        class: class(chunk_bytes),
        count,
        bytes: count * chunk_bytes.cast_signed(),
    }
}

fn survivors(site: u32, chunk_bytes: u64, count: usize, interval: usize, doubtful: bool) -> Vec<Survivor> {
    let one = Survivor {
        site: SiteId(site),
        class: class(chunk_bytes),
        size: chunk_bytes - 8,
        age: 3_000_000_000 - 1_000_000_000 * interval as u64,
        interval,
        doubtful,
        certainty: 1.0,
        function: 0,
    };
    vec![one; count]
}

fn course(alive: &[&[u64]]) -> Course {
    Course {
        seen: alive.iter().map(|counts| counts[0]).sum(),
        alive: alive.iter().map(|counts| counts.to_vec()).collect(),
        ..Course::default()
    }
}

/// Three checks: two and the end's census.
fn outcome(courses: &[(u32, Course)], survivors: Vec<Survivor>) -> Outcome {
    Outcome {
        survivors,
        courses: courses
            .iter()
            .map(|(site, course)| (SiteId(*site), course.clone()))
            .collect(),
        checks: vec![1, 2, 3],
        stands_for: 1,
        ..Outcome::default()
    }
}

fn split(outcome: &Outcome, growth: &[ClassGrowth], watched: f64) -> Estimate {
    let estimate = estimate(&Facts {
        outcome,
        growth,
        watched,
    });
    closes(&estimate, growth);
    estimate
}

fn closes(estimate: &Estimate, growth: &[ClassGrowth]) {
    let named: u64 = estimate.sites.iter().map(|site| site.bytes).sum();
    let grown: i64 = growth
        .iter()
        .filter(|it| !it.class.mapped)
        .map(|it| it.bytes)
        .sum();
    assert_eq!(
        named.cast_signed() + estimate.unnamed_bytes + estimate.shrunk_bytes,
        grown
    );
    assert_eq!(
        estimate.unnamed.iter().map(|it| it.bytes).sum::<i64>(),
        estimate.unnamed_bytes
    );
    assert!(estimate.unnamed_bytes >= 0 && estimate.shrunk_bytes <= 0);
}

fn share(estimate: &Estimate, site: u32) -> f64 {
    let all: u64 = estimate.sites.iter().map(|it| it.bytes).sum();
    let own = estimate.sites.iter().find(|it| it.site == SiteId(site));
    own.map_or(0.0, |it| it.bytes as f64) / all.max(1) as f64
}

#[test]
fn two_that_keep_share_a_class_by_their_survivors() {
    let leaks = course(&[&[10, 10, 10, 10, 10], &[10, 10, 10, 10], &[10, 10, 10]]);
    let mut own = survivors(1, 64, 30, 0, false);
    own.extend(survivors(2, 64, 10, 0, false));
    let outcome = outcome(&[(1, leaks.clone()), (2, leaks)], own);
    let estimate = split(&outcome, &[growth(64, 4000)], 0.01);
    assert!((share(&estimate, 1) - 0.75).abs() < 0.01, "{estimate:?}");
    let error = estimate.sites[0].variance.sqrt() / estimate.sites[0].bytes as f64;
    assert!((0.03..0.2).contains(&error), "{error}");
}

#[test]
fn what_is_young_and_would_die_has_nothing() {
    // Of its older blocks none is there.
    let requests = course(&[&[100, 40, 0, 0, 0], &[100, 40, 0, 0], &[100, 40, 30]]);
    let leak = course(&[&[5, 5, 5, 5, 5], &[5, 5, 5, 5], &[5, 5, 5]]);
    let mut own = survivors(1, 64, 30, 2, false);
    for interval in 0..3 {
        own.extend(survivors(2, 64, 5, interval, false));
    }
    let outcome = outcome(&[(1, requests), (2, leak)], own);
    let estimate = split(&outcome, &[growth(64, 1500)], 0.01);
    assert!(share(&estimate, 2) > 0.97, "{estimate:?}");
}

/// What a leak takes of the addresses that churn has just freed looks like churn's survivors, and is many times as much.
#[test]
fn addresses_that_others_took_are_not_believed_where_the_sure_ones_are_enough() {
    let churn = course(&[
        &[500, 300, 290, 290, 290],
        &[500, 300, 290, 290],
        &[500, 300, 290],
    ]);
    let leak = course(&[&[6, 6, 6, 6, 6], &[6, 6, 6, 6], &[6, 6, 6]]);
    let (mut own, expected) = (Vec::new(), 18.0 / 8000.0);
    for interval in 0..3 {
        own.extend(survivors(1, 1008, 290, interval, true));
        own.extend(survivors(2, 1008, 6, interval, false));
    }
    let both = outcome(&[(1, churn), (2, leak)], own);
    let estimate = split(&both, &[growth(1008, 8000)], expected);
    assert!(share(&estimate, 2) > 0.99, "{estimate:?}");
    // Alone, and no more than the class has grown by, they are believed: a block may well have changed.
    let cache = course(&[&[6, 6, 6, 6, 6], &[6, 6, 6, 6], &[6, 6, 6]]);
    let alone = outcome(&[(3, cache)], survivors(3, 1008, 18, 0, true));
    let estimate = split(&alone, &[growth(1008, 8000)], expected);
    assert_eq!(estimate.sites[0].bytes, 8000 * 1008);
}

#[test]
fn growth_without_evidence_is_unnamed_and_noise_nets_out() {
    let outcome = outcome(&[], Vec::new());
    let estimate = split(
        &outcome,
        &[growth(64, 100), growth(96, -30), growth(1008, 2)],
        0.01,
    );
    assert_eq!(estimate.unnamed_bytes, 6400 - 2880 + 2016);
    assert_eq!(estimate.unnamed[0].class, class(64));
    let estimate = split(&outcome, &[growth(64, 10), growth(96, -30)], 0.01);
    assert_eq!((estimate.unnamed_bytes, estimate.shrunk_bytes), (0, 640 - 2880));
    assert!(estimate.unnamed.is_empty());
}

#[test]
fn one_size_among_many_is_named_by_its_neighbours() {
    let strings = course(&[&[9, 9, 9, 9, 9], &[0, 0, 0, 0], &[0, 0, 0]]);
    let mut own = Vec::new();
    let mut growths = Vec::new();
    for size in (960..1100).step_by(16) {
        growths.push(growth(size, 100));
        // Of one size none was seen.
        if size != 1024 {
            own.extend(survivors(1, size, 1, 0, false));
        }
    }
    let outcome = outcome(&[(1, strings)], own);
    let estimate = split(&outcome, &growths, 0.01);
    assert_eq!(estimate.unnamed_bytes, 0, "{estimate:?}");
    // A size that grew by much more is something else.
    growths[4].count *= 10;
    growths[4].bytes *= 10;
    let estimate = split(&outcome, &growths, 0.001);
    assert_eq!(estimate.unnamed_bytes, 1000 * 1024, "{estimate:?}");
}

/// Births of most of the growth came when nobody looked.
#[test]
fn too_few_survivors_name_a_part_only() {
    let leak = course(&[&[4, 4, 4, 4, 4], &[0, 0, 0, 0], &[0, 0, 0]]);
    let outcome = outcome(&[(1, leak)], survivors(1, 64, 4, 0, false));
    let estimate = split(&outcome, &[growth(64, 100_000)], 0.01);
    let named = estimate.sites[0].bytes as f64 / 6_400_000.0;
    assert!((0.01..0.1).contains(&named), "{named}");
}

proptest! {
    #[test]
    fn the_parts_sum_to_the_growth(
        classes in prop::collection::vec((2u64..40, -500i64..5000), 1..12),
        kept in prop::collection::vec((0u32..6, 0usize..12, 0usize..30, 0usize..3, any::<bool>()), 0..20),
        watched in 0.0001f64..1.0,
    ) {
        let sizes: BTreeMap<u64, i64> =
            classes.iter().map(|(size, count)| (size * 16, *count)).collect();
        let growth: Vec<ClassGrowth> = sizes.iter().map(|(size, count)| growth(*size, *count)).collect();
        let mut all = Vec::new();
        for (site, class, count, interval, doubtful) in &kept {
            let size = growth[class % growth.len()].class.chunk_bytes;
            all.extend(survivors(*site, size, *count, *interval, *doubtful));
        }
        let courses: Vec<(u32, Course)> = (0..6)
            .map(|site| (site, course(&[&[40, 30, 25, 20, 18], &[40, 30, 25, 20], &[40, 30, 25]])))
            .collect();
        split(&outcome(&courses, all), &growth, watched);
    }
}

#[test]
fn births_tell_unless_nearly_all_is_unnamed_and_hardly_one_was_followed() {
    let of = |named: u64, unnamed: i64, followed: u64| {
        let outcome = outcome(&[(1, course(&[&[1, 1, 1]]))], survivors(1, 64, 1, 0, false));
        let site = split(&outcome, &[growth(64, 4)], 0.01).sites.remove(0);
        let site = SiteEstimate {
            bytes: named,
            followed,
            ..site
        };
        Estimate {
            sites: vec![site],
            unnamed_bytes: unnamed,
            ..Estimate::default()
        }
        .tells()
    };
    // All at once, between two bursts.
    assert!(!of(0, 20 << 20, 0));
    assert!(!of(1 << 20, 20 << 20, 10));
    // A part is named, and whoever reads it can judge.
    assert!(of(3 << 20, 20 << 20, 10));
    // Many were followed, and it is none of theirs.
    assert!(of(0, 20 << 20, 3000));
    // Too little to ask for more.
    assert!(of(0, 100 << 10, 0));
}

/// Few of them are seen, and the heap's own count is exact.
#[test]
fn blocks_with_a_mapping_of_their_own_are_as_many_as_the_class_gained() {
    let mapped = |site, count| {
        let mut own = survivors(site, 1 << 20, count, 0, false);
        for survivor in &mut own {
            survivor.class.mapped = true;
        }
        own
    };
    let mut all = mapped(1, 3);
    all.extend(mapped(2, 1));
    let stays = || course(&[&[4, 4, 4, 4]]);
    let outcome = outcome(&[(1, stays()), (2, stays())], all);
    let blocks = |count: i64| {
        let mut grown = growth(1 << 20, count);
        grown.class.mapped = true;
        let estimate = split(&outcome, &[grown], 0.01);
        let of = |site| {
            estimate
                .sites
                .iter()
                .find(|it| it.site == SiteId(site))
                .map(|it| it.blocks)
        };
        (of(1).unwrap_or(0.0), of(2).unwrap_or(0.0))
    };
    let (one, two) = blocks(98);
    assert!(
        (one - 73.5).abs() < 1e-6 && (two - 24.5).abs() < 1e-6,
        "{one} and {two}"
    );
    assert_eq!(blocks(-5), (0.0, 0.0));
}
