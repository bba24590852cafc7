//! The sample of pages, fault by fault.

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

fn fresh() -> PageLedger {
    PageLedger::new(PAGE, SAMPLE_ALL, 0, false)
}

fn live(ledger: &PageLedger) -> HashMap<SiteId, Estimate> {
    let mut estimates: HashMap<SiteId, Estimate> = HashMap::new();
    for (_, touch) in ledger.owners() {
        estimates
            .entry(touch.site)
            .or_default()
            .add(touch.weight, ledger.stands_for());
    }
    estimates
}

fn release(range: Range<u64>, how: How, time: u64) -> Change {
    Change {
        time,
        thread: 1,
        action: Action::Release { range, how },
    }
}

fn account(ledger: &PageLedger, site: u32) -> &PageAccount {
    ledger.accounts().find(|(id, _)| *id == SiteId(site)).unwrap().1
}

#[test]
fn a_page_faulted_a_hundred_times_weighs_once() {
    let mut ledger = fresh();
    for time in 0..100 {
        ledger.touch(0x7000, SiteId(1), time);
    }
    assert_eq!(live(&ledger)[&SiteId(1)].pages, 1.0);
    assert_eq!(account(&ledger, 1).touched_pages, 1);
    assert_eq!(account(&ledger, 1).faults, 100);
    assert_eq!(ledger.owned_bytes(SiteId(1)), PAGE);
}

#[test]
fn the_latest_toucher_owns_and_a_release_ends_it() {
    let mut ledger = fresh();
    assert_eq!(ledger.touch(0x7000, SiteId(1), 1), Fault::New { alone: true });
    assert_eq!(ledger.touch(0x7000, SiteId(2), 2), Fault::Taken);
    assert_eq!(ledger.touch(0x9000, SiteId(2), 2), Fault::New { alone: false });
    assert_eq!(ledger.owners().next().unwrap().1.site, SiteId(2));
    assert_eq!(
        (ledger.owned_bytes(SiteId(1)), ledger.owned_bytes(SiteId(2))),
        (0, 2 * PAGE)
    );
    ledger.apply(&release(0x7000..0x8000, How::Decommit, 3));
    assert_eq!(ledger.len(), 2, "made inaccessible, it is still there");
    ledger.apply(&release(0x7000..0xa000, How::Discard, 3));
    assert!(ledger.is_empty());
    ledger.touch(0x7000, SiteId(2), 4);
    assert_eq!(
        account(&ledger, 2).touched_pages,
        3,
        "touched again after it was gone"
    );
}

#[test]
fn the_heap_gives_up_whole_pages_only() {
    let mut ledger = fresh();
    ledger.touch(0x7000, SiteId(1), 1);
    ledger.touch(0x8000, SiteId(1), 1);
    ledger.apply(&release(0x7800..0x9000, How::BrkDown, 2));
    assert_eq!(ledger.owners().map(|(page, _)| page).collect::<Vec<_>>(), [7]);
}

#[test]
fn what_was_there_before_is_no_growth_until_it_was_given_up() {
    let mut before = Presence::default();
    before.insert(7..9);
    let mut ledger = fresh();
    ledger.set_before(before, 10);
    assert_eq!(
        ledger.touch(0x7000, SiteId(1), 11),
        Fault::Known,
        "copied after a fork, or swapped in"
    );
    ledger.apply(&release(0x7000..0x8000, How::Unmap, 11));
    assert_eq!(ledger.touch(0x7000, SiteId(1), 12), Fault::New { alone: true });
    assert_eq!(ledger.touch(0x8000, SiteId(1), 13), Fault::Known);
    assert_eq!(
        ledger.touch(0xa000, SiteId(1), 9),
        Fault::Out,
        "before the window"
    );
    assert_eq!(
        ledger.losses(),
        PageLosses {
            known_pages: 2,
            early: 1,
            ..PageLosses::default()
        }
    );
}

#[test]
fn a_touch_while_the_start_is_read_is_growth_from_the_reading_on() {
    let mut before = Presence::default();
    before.insert(7..9);
    let mut ledger = fresh();
    ledger.touch(0x7000, SiteId(1), 4);
    ledger.touch(0x8000, SiteId(1), 6);
    ledger.set_before(before, 5);
    assert_eq!(ledger.owners().map(|(page, _)| page).collect::<Vec<_>>(), [8]);
    assert_eq!(account(&ledger, 1).touched_pages, 1);
    assert_eq!(ledger.touch(0x7000, SiteId(2), 7), Fault::Known, "there before");
    assert_eq!(ledger.touch(0x8000, SiteId(2), 7), Fault::Taken);
}

#[test]
fn copying_after_a_fork_makes_nobody_an_owner() {
    let mut ledger = fresh();
    ledger.touch(0x7000, SiteId(1), 1);
    ledger.note_fork(2);
    ledger.touch(0x8000, SiteId(1), 3);
    assert_eq!(ledger.touch(0x7000, SiteId(2), 4), Fault::Known);
    assert_eq!(
        ledger.touch(0x8000, SiteId(2), 4),
        Fault::Taken,
        "touched after the fork: not shared"
    );
    let mut swapping = PageLedger::new(PAGE, SAMPLE_ALL, 0, true);
    swapping.touch(0x7000, SiteId(1), 1);
    assert_eq!(swapping.touch(0x7000, SiteId(2), 4), Fault::Known);
}

#[test]
fn a_huge_page_weighs_what_it_covers() {
    let mut ledger = fresh();
    ledger.touch(0x20_1000, SiteId(1), 1);
    ledger.weigh(0x201, 512);
    ledger.weigh(0x201, 512);
    assert_eq!(live(&ledger)[&SiteId(1)].pages, 512.0);
    assert_eq!(account(&ledger, 1).touched_pages, 512);
    assert_eq!(ledger.owned_bytes(SiteId(1)), 512 * PAGE);
}

#[test]
fn moved_pages_keep_their_owner() {
    let mut before = Presence::default();
    before.insert(0x11..0x12);
    let mut ledger = fresh();
    ledger.set_before(before, 0);
    ledger.touch(0x10_000, SiteId(1), 1);
    ledger.apply(&release(0x10_000..0x12_000, How::RemapFrom, 2));
    // Another thread is handed the old place before the call is seen to have returned.
    assert_eq!(ledger.touch(0x11_000, SiteId(2), 3), Fault::New { alone: true });
    ledger.apply(&Change {
        time: 4,
        thread: 1,
        action: Action::Remap {
            old: 0x10_000..0x12_000,
            new: 0x50_000..0x54_000,
            keeps_old: false,
            site: None,
        },
    });
    let owners: Vec<_> = ledger.owners().map(|(page, touch)| (page, touch.site)).collect();
    assert_eq!(owners, [(0x11, SiteId(2)), (0x50, SiteId(1))]);
    assert_eq!(
        ledger.touch(0x51_000, SiteId(3), 5),
        Fault::Known,
        "moved along from before"
    );
    assert_eq!(ledger.touch(0x52_000, SiteId(3), 5), Fault::New { alone: false });
}

#[test]
fn a_move_that_failed_puts_all_back() {
    let mut ledger = fresh();
    ledger.touch(0x10_000, SiteId(1), 1);
    ledger.apply(&release(0x10_000..0x12_000, How::RemapFrom, 2));
    assert!(ledger.is_empty());
    ledger.apply(&Change {
        time: 3,
        thread: 1,
        action: Action::ReleaseFailed {
            range: 0x10_000..0x12_000,
            how: How::RemapFrom,
        },
    });
    assert_eq!(ledger.owned_bytes(SiteId(1)), PAGE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Random workloads with churn, each at a rate reached by halving on the way: over many of them the estimates
    /// must scatter round the truth as the binomial bound says, neither off to one side nor wider.
    #[test]
    fn estimates_are_unbiased(seed in any::<u64>(), halvings in 1u32..6, stride in prop::sample::select(vec![1u64, 2, 3, 8, 512])) {
        let mut state = seed | 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut worst = 0.0f64;
        let mut sum = 0.0;
        let mut variance = 0.0;
        for run in 0..4u64 {
            let mut ledger = fresh();
            let mut truth: HashMap<u64, SiteId> = HashMap::new();
            let base = 0x10_0000 * (run + 1) + random(1 << 30);
            for step in 0..12_000u64 {
                let page = base + random(4_000) * stride;
                if random(10) == 0 {
                    let pages = page..page + 1 + random(4);
                    ledger.apply(&release(pages.start * PAGE..pages.end * PAGE, How::Unmap, step));
                    truth.retain(|page, _| !pages.contains(page));
                } else {
                    #[expect(clippy::cast_possible_truncation, reason = "under 3")]
                    let site = SiteId(random(3) as u32);
                    ledger.touch(page * PAGE, site, step);
                    truth.insert(page, site);
                }
                if step % 2_000 == 1_000 && (step / 2_000) < u64::from(halvings) {
                    ledger.halve();
                }
            }
            let estimates = live(&ledger);
            for site in (0..3).map(SiteId) {
                let exact = truth.values().filter(|owner| **owner == site).count() as f64;
                let estimate = estimates.get(&site).copied().unwrap_or_default();
                let error = estimate.pages - exact;
                worst = worst.max(error.abs() / estimate.standard_error());
                sum += error;
                variance += estimate.standard_error().powi(2);
            }
        }
        // 12 estimates in each of 8 cases: five standard errors are one false alarm in thousands of runs.
        prop_assert!(worst < 5.0, "one estimate is {worst} standard errors off");
        prop_assert!(sum.abs() < 5.0 * variance.sqrt(), "the sum is off by {sum}, standard error {}", variance.sqrt());
    }
}
