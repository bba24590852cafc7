//! The ledger against the page-by-page model, under random sequences of changes.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::super::*;
use super::model::{Model, Page, pages};
use super::{PAGE, SECOND};

const BASE: u64 = 0x7000_0000_0000 / PAGE;

/// What maps says of a range, other than the model: nothing, or a mapping of this protection and backing.
type Corruption = (Range<u64>, Option<(u32, Backing)>);

/// A step of a test: a change, some of whose parts depend on what went before.
#[derive(Clone, Debug)]
enum Step {
    Do(u32, Action),
    /// The thread's last release, of either slot, fails.
    Fail(u32, bool),
    /// The `mremap` that the thread entered returns.
    Return {
        thread: u32,
        to: u64,
        longer: i64,
        keeps_old: bool,
        site: Option<SiteId>,
    },
    /// This many nanoseconds from now: changes from before it come after.
    BeginCheck(u64),
    FinishCheck(Vec<Corruption>),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0u64..56, 1u64..20, prop_oneof![3 => Just(0), 1 => 1..PAGE]).prop_map(|(start, length, short)| {
        let start = (BASE + start) * PAGE;
        start..start + length * PAGE - short
    })
}

fn backing() -> impl Strategy<Value = Backing> {
    prop_oneof![6 => Just(Backing::Anonymous), 1 => Just(Backing::PrivateFile), 1 => Just(Backing::Shared)]
}

fn protection() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0), 1 => Just(1), 4 => Just(3), 1 => Just(5)]
}

fn site() -> impl Strategy<Value = Option<SiteId>> {
    prop_oneof![1 => Just(None), 8 => (0u32..5).prop_map(|site| Some(SiteId(site)))]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        Just(How::Unmap),
        Just(How::BrkDown),
        Just(How::Replace),
        Just(How::RemapFrom),
        Just(How::Decommit),
        Just(How::Discard),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (range(), protection(), backing(), site()).prop_map(|(range, protection, backing, site)| Action::Map {
            range,
            protection: Protection::from_bits(protection),
            backing,
            site,
        }),
        2 => (range(), 0..PAGE, site()).prop_map(|(range, more, site)| Action::BrkUp {
            old_end: range.start + more,
            new_end: range.end + more,
            site,
        }),
        3 => (range(), 1u32..8, site()).prop_map(|(range, protection, site)| Action::Protect {
            range,
            protection: Protection::from_bits(protection),
            site,
        }),
        2 => (range(), range(), any::<bool>(), site()).prop_map(|(old, new, keeps_old, site)| Action::Remap {
            old,
            new,
            keeps_old,
            site,
        }),
        1 => (range(), range(), site()).prop_map(|(old, new, site)| Action::Remap {
            old: old.start..old.start,
            new,
            keeps_old: false,
            site,
        }),
        10 => (range(), how()).prop_map(|(range, how)| Action::Release { range, how }),
        1 => (range(), how()).prop_map(|(range, how)| Action::ReleaseFailed { range, how }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u32..3, action()).prop_map(|(thread, action)| Step::Do(thread, action)),
        3 => (0u32..3, any::<bool>()).prop_map(|(thread, remap)| Step::Fail(thread, remap)),
        4 => (0u32..3, 0u64..56, -8i64..8, any::<bool>(), site()).prop_map(
            |(thread, to, longer, keeps_old, site)| Step::Return { thread, to, longer, keeps_old, site }
        ),
        1 => (0u64..3 * SECOND).prop_map(Step::BeginCheck),
        1 => prop::collection::vec((range(), prop::option::of((protection(), backing()))), 0..4)
            .prop_map(Step::FinishCheck),
    ]
}

fn region(at: u64, protection: u32, backing: Backing) -> Region {
    Region {
        range: at * PAGE..(at + 1) * PAGE,
        protection: Protection::from_bits(protection),
        backing,
    }
}

fn compare(ledger: &Ledger, model: &Model, time: u64) {
    let mut known = BTreeMap::new();
    let mut before: Option<(Range<u64>, Piece)> = None;
    let mut held: HashMap<Owner, u64> = HashMap::new();
    for (range, piece) in ledger.pieces() {
        if let Some((earlier, other)) = before {
            assert!(
                earlier.end <= range.start,
                "pieces overlap: {earlier:x?} {range:x?}"
            );
            assert!(
                earlier.end < range.start || other != piece,
                "not merged: {earlier:x?} {range:x?}"
            );
        }
        assert!(range.start < range.end && range.start % PAGE == 0 && range.end % PAGE == 0);
        for at in pages(&range) {
            let Piece {
                owner,
                protection,
                backing,
                written,
            } = piece;
            known.insert(
                at,
                Page {
                    owner,
                    protection: protection.bits(),
                    backing,
                    written,
                },
            );
        }
        if piece.committed() {
            *held.entry(piece.owner).or_default() += range.end - range.start;
        }
        before = Some((range, piece));
    }
    assert_eq!(known, model.pages);
    let tally = |owner: Owner| {
        let (committed, released) = model.books.get(&owner).copied().unwrap_or_default();
        Tally {
            committed_bytes: committed * PAGE,
            released_bytes: released * PAGE,
        }
    };
    let totals = ledger.totals();
    for (owner, of_ledger) in [
        (Owner::BeforeAttach, totals.before_attach),
        (Owner::Discarded, totals.discarded),
        (Owner::Unseen, totals.unseen),
    ] {
        assert_eq!(of_ledger, tally(owner), "{owner:?}");
        assert_eq!(
            of_ledger.held_bytes(),
            held.get(&owner).copied().unwrap_or(0),
            "{owner:?}"
        );
    }
    let mut sites = Tally::default();
    for site in (0..5).map(SiteId) {
        let owner = Owner::Site(site);
        let account = ledger.account(site);
        let (committed, released, events, last) = account.map_or((0, 0, 0, 0), |account| {
            let last = account.series.until(time).last().unwrap().1;
            (
                account.committed_bytes,
                account.released_bytes,
                account.events,
                last,
            )
        });
        let of_ledger = Tally {
            committed_bytes: committed,
            released_bytes: released,
        };
        assert_eq!(of_ledger, tally(owner), "{owner:?}");
        assert_eq!(
            of_ledger.held_bytes(),
            held.get(&owner).copied().unwrap_or(0),
            "{owner:?}"
        );
        assert_eq!(
            events,
            model.events.get(&site).copied().unwrap_or(0),
            "events of {site:?}"
        );
        assert_eq!(last, of_ledger.held_bytes(), "series of {site:?}");
        sites.committed_bytes += committed;
        sites.released_bytes += released;
    }
    assert_eq!(totals.sites, sites);
    assert_eq!(totals.held_bytes(), held.values().sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the ledger is the page-by-page model, its pieces are apart and merged, and every account is
    /// the sum over its pieces.
    #[test]
    fn ledger_is_the_page_by_page_model(
        steps in prop::collection::vec((step(), 0u64..400_000_000), 1..80),
        baseline in prop::collection::btree_map(0u64..70, (protection(), backing()), 0..50),
        baseline_time in 0u64..6 * SECOND,
    ) {
        let mut ledger = Ledger::new(PAGE);
        let mut model = Model::new(baseline_time);
        let regions: Vec<Region> = baseline.iter().map(|(&at, &(p, b))| region(BASE + at, p, b)).collect();
        for (&at, &(protection, backing)) in &baseline {
            model.set(BASE + at, Some(Page::new(Owner::BeforeAttach, protection, backing)));
        }
        ledger.set_baseline(&regions, baseline_time);
        compare(&ledger, &model, baseline_time);

        let mut time = 0;
        let mut last: HashMap<(u32, bool), (Range<u64>, How)> = HashMap::new();
        for (step, later) in steps {
            time += later;
            let (thread, action) = match step {
                Step::Do(thread, action) => (thread, action),
                Step::Fail(thread, remap) => {
                    let Some((range, how)) = last.get(&(thread, remap)).cloned() else { continue };
                    (thread, Action::ReleaseFailed { range, how })
                }
                Step::Return { thread, to, longer, keeps_old, site } => {
                    let Some((old, _)) = last.get(&(thread, true)).cloned() else { continue };
                    let pages = (old.end - old.start).div_ceil(PAGE).saturating_add_signed(longer).max(1);
                    // Every third stays in place.
                    let start = if to % 3 == 0 { old.start } else { (BASE + to) * PAGE };
                    (thread, Action::Remap { old, new: start..start + pages * PAGE, keeps_old, site })
                }
                Step::BeginCheck(ahead) => {
                    ledger.begin_check(time + ahead);
                    model.begin_check(time + ahead);
                    continue;
                }
                Step::FinishCheck(corruptions) => {
                    let mut truth: BTreeMap<u64, (u32, Backing)> =
                        model.pages.iter().map(|(&at, page)| (at, (page.protection, page.backing))).collect();
                    for (range, what) in corruptions {
                        for at in pages(&range) {
                            truth.remove(&at);
                            truth.extend(what.map(|what| (at, what)));
                        }
                    }
                    // Out of order: the ledger sorts.
                    let regions: Vec<Region> = truth.iter().rev().map(|(&at, &(p, b))| region(at, p, b)).collect();
                    let checked = model.check.is_some();
                    let touched = model.check.as_ref().map(|(_, touched)| touched.clone()).unwrap_or_default();
                    prop_assert_eq!(ledger.finish_check(&regions), model.finish_check(&truth));
                    compare(&ledger, &model, time);
                    if checked {
                        for at in (BASE..BASE + 100).filter(|at| !touched.contains(at)) {
                            let known = ledger.piece_at(at * PAGE).map(|p| (p.protection.bits(), p.backing));
                            prop_assert_eq!(known, truth.get(&at).copied(), "not repaired: page {:#x}", at);
                        }
                    }
                    continue;
                }
            };
            if let Action::Release { range, how } = &action {
                last.insert((thread, *how == How::RemapFrom), (range.clone(), *how));
            }
            let change = Change { time, thread, action };
            ledger.apply(&change);
            model.apply(&change);
            compare(&ledger, &model, time);
        }
        let child = ledger.fork();
        prop_assert!(child.pieces().all(|(_, piece)| piece.owner == Owner::BeforeAttach));
        prop_assert_eq!(child.totals().held_bytes(), ledger.totals().held_bytes());
        prop_assert_eq!(child.totals().growth_bytes(), 0);
    }

    /// Hostile numbers neither panic nor break the map.
    #[test]
    fn wild_changes_do_no_harm(
        changes in prop::collection::vec(
            (any::<u64>(), 0u32..3, wild(), wild(), wild(), wild(), 0u8..8, how(), any::<bool>()), 1..60,
        ),
    ) {
        let mut ledger = Ledger::new(PAGE);
        for (time, thread, a, b, c, d, kind, how, keeps_old) in changes {
            let (range, new, site) = (a..b, c..d, Some(SiteId(thread)));
            let protection = Protection::READ_WRITE;
            let action = match kind {
                0 => Action::Map { range, protection, backing: Backing::Anonymous, site },
                1 => Action::BrkUp { old_end: a, new_end: b, site },
                2 => Action::Remap { old: range, new, keeps_old, site },
                3 => Action::Protect { range, protection, site },
                4 => Action::ReleaseFailed { range, how },
                5 => {
                    ledger.begin_check(time);
                    continue;
                }
                6 => {
                    ledger.finish_check(&[
                        Region { range, protection, backing: Backing::Anonymous },
                        Region { range: new, protection, backing: Backing::Shared },
                    ]);
                    continue;
                }
                _ => Action::Release { range, how },
            };
            ledger.apply(&Change { time, thread, action });
        }
        let mut end = 0;
        let mut held = 0;
        for (range, piece) in ledger.pieces() {
            prop_assert!(end <= range.start && range.start < range.end && range.end <= 1 << 56);
            end = range.end;
            held += if piece.committed() { range.end - range.start } else { 0 };
        }
        prop_assert_eq!(ledger.totals().held_bytes(), held);
    }
}

fn wild() -> impl Strategy<Value = u64> {
    let corner = prop::sample::select(vec![
        0,
        1,
        4095,
        4096,
        1 << 47,
        (1 << 56) - 4096,
        1 << 56,
        1 << 63,
        u64::MAX - 4096,
        u64::MAX - 4095,
        u64::MAX,
    ]);
    prop_oneof![1 => any::<u64>(), 3 => corner, 3 => (0u64..64).prop_map(|page| page * PAGE)]
}
