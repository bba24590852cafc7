//! The ledger against a plain model that knows every page by itself, under random sequences of changes. It shares no
//! code with the ledger but the values that go in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;
const BASE: u64 = 0x7000_0000_0000 / PAGE;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    owner: Owner,
    protection: u32,
    backing: Backing,
    written: bool,
}

impl Page {
    fn new(owner: Owner, protection: u32, backing: Backing) -> Self {
        Self { owner, protection, backing, written: backing == Backing::Anonymous && protection & 2 != 0 }
    }

    fn committed(self) -> bool {
        self.backing == Backing::Anonymous && self.written && self.protection != 0
    }

    fn protect(self, protection: u32) -> Self {
        let fresh = Self::new(self.owner, protection, self.backing);
        Self { written: self.written || fresh.written, ..fresh }
    }
}

struct Undo {
    range: Range<u64>,
    how: How,
    sequence: usize,
    time: u64,
    before: BTreeMap<u64, Page>,
}

#[derive(Default)]
struct Model {
    pages: BTreeMap<u64, Page>,
    /// Pages committed and released.
    books: HashMap<Owner, (u64, u64)>,
    events: HashMap<SiteId, u64>,
    release: HashMap<u32, Undo>,
    remap: HashMap<u32, Undo>,
    history: HashMap<u64, Vec<(usize, u32, bool)>>,
    check: Option<(u64, HashSet<u64>)>,
    baseline_time: u64,
    sequence: usize,
}

fn pages(range: &Range<u64>) -> Range<u64> {
    range.start.div_ceil(PAGE)..range.end.div_ceil(PAGE)
}

impl Model {
    fn set(&mut self, page: u64, next: Option<Page>) {
        let before = self.pages.remove(&page);
        let owner = |page: Option<Page>| page.filter(|page| page.committed()).map(|page| page.owner);
        let (old, new) = (owner(before), owner(next));
        if old != new {
            if let Some(owner) = old {
                self.books.entry(owner).or_default().1 += 1;
            }
            if let Some(owner) = new {
                self.books.entry(owner).or_default().0 += 1;
            }
        }
        self.pages.extend(next.map(|next| (page, next)));
    }

    /// Not acquired anew: it was never gone.
    fn put_back(&mut self, page: u64, next: Page) {
        self.set(page, Some(next));
        if next.committed() {
            let book = self.books.entry(next.owner).or_default();
            book.0 -= 1;
            book.1 -= 1;
        }
    }

    fn touch(&mut self, change: &Change, range: Range<u64>, mapping: Option<bool>) {
        for page in range {
            if let Some(mapping) = mapping {
                self.history.entry(page).or_default().push((self.sequence, change.thread, mapping));
            }
            if let Some((began, touched)) = &mut self.check
                && change.time + SECOND >= *began
            {
                touched.insert(page);
            }
        }
    }

    fn owner(&self, site: Option<SiteId>, time: u64) -> Owner {
        if time < self.baseline_time { Owner::BeforeAttach } else { site.map_or(Owner::Unseen, Owner::Site) }
    }

    fn count(&mut self, owner: Owner, pages: u64) {
        if let (Owner::Site(site), 1..) = (owner, pages) {
            *self.events.entry(site).or_default() += 1;
        }
    }

    fn settle(&mut self, thread: u32) {
        self.release.remove(&thread);
        self.remap.remove(&thread);
    }

    fn map(&mut self, change: &Change, range: Range<u64>, protection: u32, backing: Backing, site: Option<SiteId>) {
        self.settle(change.thread);
        self.touch(change, range.clone(), Some(true));
        let page = Page::new(self.owner(site, change.time), protection, backing);
        let length = range.end - range.start;
        for at in range {
            self.set(at, None);
            self.set(at, Some(page));
        }
        self.count(page.owner, if page.committed() { length } else { 0 });
    }

    fn apply(&mut self, change: &Change) {
        self.sequence += 1;
        match &change.action {
            Action::Map { range, protection, backing, site } => {
                self.map(change, pages(range), protection.bits(), *backing, *site);
            }
            Action::BrkUp { old_end, new_end, site } => {
                let range = pages(&(*old_end..*new_end));
                if !range.is_empty() {
                    self.map(change, range, 3, Backing::Anonymous, *site);
                }
            }
            Action::Remap { old, new, keeps_old, site } => {
                self.remap(change, &pages(old), &pages(new), *keeps_old, *site);
            }
            Action::Protect { range, protection, site } => {
                self.settle(change.thread);
                self.touch(change, pages(range), Some(false));
                let owner = self.owner(*site, change.time);
                let mut acquired = 0;
                for at in pages(range) {
                    let Some(page) = self.pages.get(&at).copied() else { continue };
                    let next = page.protect(protection.bits());
                    let seen_first = page.owner == Owner::Unseen
                        && page.protection == protection.bits()
                        && matches!(owner, Owner::Site(_));
                    if next.committed() && (!page.committed() || seen_first) {
                        acquired += 1;
                        self.set(at, Some(Page { owner, ..next }));
                    } else {
                        self.set(at, Some(next));
                    }
                }
                self.count(owner, acquired);
            }
            Action::Release { range, how } => self.enter_release(change, &pages(range), *how),
            Action::ReleaseFailed { range, how } => {
                self.touch(change, pages(range), None);
                self.undo(change, &pages(range), *how);
            }
        }
    }

    fn enter_release(&mut self, change: &Change, range: &Range<u64>, how: How) {
        let unmaps = !matches!(how, How::Discard | How::Decommit);
        self.touch(change, range.clone(), Some(unmaps));
        let mut before = BTreeMap::new();
        for at in range.clone() {
            let Some(page) = self.pages.get(&at).copied() else { continue };
            let next = match how {
                How::Discard if page.committed() => Some(Page { owner: Owner::Discarded, ..page }),
                How::Discard => Some(page),
                How::Decommit => Some(Page { protection: 0, ..page }),
                _ => None,
            };
            if next != Some(page) {
                before.insert(at, page);
            }
            self.set(at, next);
        }
        let undo = Undo { range: range.clone(), how, sequence: self.sequence, time: change.time, before };
        let thread = change.thread;
        match how {
            How::RemapFrom => {
                if self.release.get(&thread).is_some_and(|undo| undo.how != How::Replace) {
                    self.release.remove(&thread);
                }
                self.remap.insert(thread, undo);
            }
            How::Replace => drop(self.release.insert(thread, undo)),
            _ => {
                self.remap.remove(&thread);
                self.release.insert(thread, undo);
            }
        }
    }

    fn undo(&mut self, change: &Change, range: &Range<u64>, how: How) {
        let place = if how == How::RemapFrom { &mut self.remap } else { &mut self.release };
        if place.get(&change.thread).is_none_or(|undo| undo.range != *range || undo.how != how) {
            return;
        }
        let undo = place.remove(&change.thread).unwrap();
        let unmaps = !matches!(how, How::Discard | How::Decommit);
        for (at, page) in undo.before {
            let foreign = |&(sequence, thread, mapping): &(usize, u32, bool)| {
                sequence > undo.sequence && thread != change.thread && (mapping || !unmaps)
            };
            if self.history.get(&at).is_some_and(|history| history.iter().any(foreign)) {
                continue;
            }
            let left = match how {
                How::Discard => Some(Page { owner: Owner::Discarded, ..page }),
                How::Decommit => Some(Page { protection: 0, ..page }),
                _ => None,
            };
            if self.pages.get(&at).copied() == left {
                self.put_back(at, page);
            }
        }
    }

    fn remap(&mut self, change: &Change, old: &Range<u64>, new: &Range<u64>, keeps_old: bool, site: Option<SiteId>) {
        self.touch(change, old.clone(), Some(true));
        self.touch(change, new.clone(), Some(true));
        let held = self.remap.remove(&change.thread).filter(|undo| undo.range == *old);
        self.settle(change.thread);
        let duplicated = self.pages.get(&old.start).copied();
        let moved = held.map(|undo| undo.before).unwrap_or_else(|| {
            let standing: BTreeMap<u64, Page> =
                old.clone().filter_map(|at| Some((at, *self.pages.get(&at)?))).collect();
            for &at in standing.keys() {
                self.set(at, None);
            }
            standing
        });
        let known = if old.is_empty() { duplicated } else { moved.values().last().copied() };
        let like = known.map_or(
            (3, if old.is_empty() { Backing::Shared } else { Backing::Anonymous }),
            |page| (page.protection, page.backing),
        );
        if keeps_old {
            for (&at, &page) in &moved {
                if !self.pages.contains_key(&at) {
                    let owner = if page.committed() { Owner::Discarded } else { page.owner };
                    self.set(at, Some(Page { owner, ..page }));
                }
            }
        }
        let early = change.time < self.baseline_time;
        let mut grown = 0;
        let owner = self.owner(site, change.time);
        for (offset, at) in (0..).zip(new.clone()) {
            let stood = self.pages.get(&at).copied().filter(|page| page.owner == Owner::BeforeAttach);
            let beyond = old.start + offset >= old.end;
            let from = moved.get(&(old.start + offset)).filter(|_| !beyond);
            let kept = stood.filter(|_| from.is_none() && (early || !beyond));
            if kept.is_some() {
                continue;
            }
            self.set(at, None);
            if let Some(&page) = from {
                self.put_back(at, page);
            } else {
                let owner = match (beyond, early) {
                    (true, _) => owner,
                    (false, true) => Owner::BeforeAttach,
                    (false, false) => Owner::Unseen,
                };
                let page = Page::new(owner, like.0, like.1);
                grown += u64::from(beyond && page.committed());
                self.set(at, Some(page));
            }
        }
        self.count(owner, grown);
    }

    fn begin_check(&mut self, now: u64) {
        let under_way = self.release.values().chain(self.remap.values());
        let touched = under_way.filter(|undo| undo.time + SECOND >= now).flat_map(|undo| undo.range.clone());
        self.check = Some((now, touched.collect()));
    }

    fn finish_check(&mut self, truth: &BTreeMap<u64, (u32, Backing)>) -> Repair {
        let mut repair = Repair::default();
        let Some((_, touched)) = self.check.take() else { return repair };
        let all: HashSet<u64> = self.pages.keys().chain(truth.keys()).copied().collect();
        for at in all {
            let known = self.pages.get(&at).copied();
            let real = truth.get(&at).copied();
            if touched.contains(&at) {
                repair.skipped_bytes += if real.is_some() { PAGE } else { 0 };
                continue;
            }
            match (known, real) {
                (Some(page), Some((protection, backing))) if page.backing == backing => {
                    if page.protection != protection {
                        repair.changed_bytes += PAGE;
                        let next = page.protect(protection);
                        let gained = next.committed() && !page.committed();
                        self.set(at, Some(Page { owner: if gained { Owner::Unseen } else { next.owner }, ..next }));
                    }
                }
                (known, real) => {
                    if known.is_some() {
                        repair.vanished_bytes += PAGE;
                        self.set(at, None);
                    }
                    if let Some((protection, backing)) = real {
                        repair.appeared_bytes += PAGE;
                        self.set(at, Some(Page::new(Owner::Unseen, protection, backing)));
                    }
                }
            }
        }
        repair
    }
}

/// A step of a test: a change, some of whose parts depend on what went before.
#[derive(Clone, Debug)]
enum Step {
    Do(u32, Action),
    /// The thread's last release, of either slot, fails.
    Fail(u32, bool),
    /// The `mremap` that the thread entered returns.
    Return { thread: u32, to: u64, longer: i64, keeps_old: bool, site: Option<SiteId> },
    /// This many nanoseconds from now: changes from before it come after.
    BeginCheck(u64),
    FinishCheck(Vec<(Range<u64>, Option<(u32, Backing)>)>),
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
    Region { range: at * PAGE..(at + 1) * PAGE, protection: Protection::from_bits(protection), backing }
}

fn compare(ledger: &Ledger, model: &Model, time: u64) {
    let mut known = BTreeMap::new();
    let mut before: Option<(Range<u64>, Piece)> = None;
    let mut held: HashMap<Owner, u64> = HashMap::new();
    for (range, piece) in ledger.pieces() {
        if let Some((earlier, other)) = before {
            assert!(earlier.end <= range.start, "pieces overlap: {earlier:x?} {range:x?}");
            assert!(earlier.end < range.start || other != piece, "not merged: {earlier:x?} {range:x?}");
        }
        assert!(range.start < range.end && range.start % PAGE == 0 && range.end % PAGE == 0);
        for at in pages(&range) {
            let Piece { owner, protection, backing, written } = piece;
            known.insert(at, Page { owner, protection: protection.bits(), backing, written });
        }
        if piece.committed() {
            *held.entry(piece.owner).or_default() += range.end - range.start;
        }
        before = Some((range, piece));
    }
    assert_eq!(known, model.pages);
    let tally = |owner: Owner| {
        let (committed, released) = model.books.get(&owner).copied().unwrap_or_default();
        Tally { committed_bytes: committed * PAGE, released_bytes: released * PAGE }
    };
    let totals = ledger.totals();
    for (owner, of_ledger) in [
        (Owner::BeforeAttach, totals.before_attach),
        (Owner::Discarded, totals.discarded),
        (Owner::Unseen, totals.unseen),
    ] {
        assert_eq!(of_ledger, tally(owner), "{owner:?}");
        assert_eq!(of_ledger.held_bytes(), held.get(&owner).copied().unwrap_or(0), "{owner:?}");
    }
    let mut sites = Tally::default();
    for site in (0..5).map(SiteId) {
        let owner = Owner::Site(site);
        let account = ledger.account(site);
        let (committed, released, events, last) = account.map_or((0, 0, 0, 0), |account| {
            let last = account.series.until(time).last().unwrap().1;
            (account.committed_bytes, account.released_bytes, account.events, last)
        });
        let of_ledger = Tally { committed_bytes: committed, released_bytes: released };
        assert_eq!(of_ledger, tally(owner), "{owner:?}");
        assert_eq!(of_ledger.held_bytes(), held.get(&owner).copied().unwrap_or(0), "{owner:?}");
        assert_eq!(events, model.events.get(&site).copied().unwrap_or(0), "events of {site:?}");
        assert_eq!(last, of_ledger.held_bytes(), "series of {site:?}");
        sites.committed_bytes += committed;
        sites.released_bytes += released;
    }
    assert_eq!(totals.sites, sites);
    assert_eq!(totals.held_bytes(), held.values().sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the ledger is the page-by-page model, its pieces are apart and merged, and every account is
    /// the sum over its pieces.
    #[test]
    fn ledger_is_the_page_by_page_model(
        steps in prop::collection::vec((step(), 0u64..400_000_000), 1..80),
        baseline in prop::collection::btree_map(0u64..70, (protection(), backing()), 0..50),
        baseline_time in 0u64..6 * SECOND,
    ) {
        let mut ledger = Ledger::new(PAGE);
        let mut model = Model { baseline_time, ..Model::default() };
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
        0, 1, 4095, 4096, 1 << 47, (1 << 56) - 4096, 1 << 56, 1 << 63, u64::MAX - 4096, u64::MAX - 4095, u64::MAX,
    ]);
    prop_oneof![1 => any::<u64>(), 3 => corner, 3 => (0u64..64).prop_map(|page| page * PAGE)]
}
