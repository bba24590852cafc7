//! A plain model of the ledger that knows every page by itself. It shares no code with the ledger but the values that go
//! in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use super::super::*;
use super::{PAGE, SECOND};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub owner: Owner,
    pub protection: u32,
    pub backing: Backing,
    pub written: bool,
}

impl Page {
    pub fn new(owner: Owner, protection: u32, backing: Backing) -> Self {
        Self {
            owner,
            protection,
            backing,
            written: backing == Backing::Anonymous && protection & 2 != 0,
        }
    }

    fn committed(self) -> bool {
        self.backing == Backing::Anonymous && self.written && self.protection != 0
    }

    fn protect(self, protection: u32) -> Self {
        let fresh = Self::new(self.owner, protection, self.backing);
        Self {
            written: self.written || fresh.written,
            ..fresh
        }
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
pub struct Model {
    pub pages: BTreeMap<u64, Page>,
    /// Pages committed and released.
    pub books: HashMap<Owner, (u64, u64)>,
    pub events: HashMap<SiteId, u64>,
    release: HashMap<u32, Undo>,
    remap: HashMap<u32, Undo>,
    history: HashMap<u64, Vec<(usize, u32, bool)>>,
    pub check: Option<(u64, HashSet<u64>)>,
    pub baseline_time: u64,
    sequence: usize,
}

pub fn pages(range: &Range<u64>) -> Range<u64> {
    range.start.div_ceil(PAGE)..range.end.div_ceil(PAGE)
}

impl Model {
    pub fn new(baseline_time: u64) -> Self {
        Self {
            baseline_time,
            ..Self::default()
        }
    }

    pub fn set(&mut self, page: u64, next: Option<Page>) {
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
                self.history
                    .entry(page)
                    .or_default()
                    .push((self.sequence, change.thread, mapping));
            }
            if let Some((began, touched)) = &mut self.check
                && change.time + SECOND >= *began
            {
                touched.insert(page);
            }
        }
    }

    fn owner(&self, site: Option<SiteId>, time: u64) -> Owner {
        if time < self.baseline_time {
            Owner::BeforeAttach
        } else {
            site.map_or(Owner::Unseen, Owner::Site)
        }
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

    fn map(
        &mut self,
        change: &Change,
        range: Range<u64>,
        protection: u32,
        backing: Backing,
        site: Option<SiteId>,
    ) {
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

    pub fn apply(&mut self, change: &Change) {
        self.sequence += 1;
        match &change.action {
            Action::Map {
                range,
                protection,
                backing,
                site,
            } => {
                self.map(change, pages(range), protection.bits(), *backing, *site);
            }
            Action::BrkUp {
                old_end,
                new_end,
                site,
            } => {
                let range = pages(&(*old_end..*new_end));
                if !range.is_empty() {
                    self.map(change, range, 3, Backing::Anonymous, *site);
                }
            }
            Action::Remap {
                old,
                new,
                keeps_old,
                site,
            } => {
                self.remap(change, &pages(old), &pages(new), *keeps_old, *site);
            }
            Action::Protect {
                range,
                protection,
                site,
            } => {
                self.settle(change.thread);
                self.touch(change, pages(range), Some(false));
                let owner = self.owner(*site, change.time);
                let mut acquired = 0;
                for at in pages(range) {
                    let Some(page) = self.pages.get(&at).copied() else {
                        continue;
                    };
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
            let Some(page) = self.pages.get(&at).copied() else {
                continue;
            };
            let next = match how {
                How::Discard if page.committed() => Some(Page {
                    owner: Owner::Discarded,
                    ..page
                }),
                How::Discard => Some(page),
                How::Decommit => Some(Page {
                    protection: 0,
                    ..page
                }),
                _ => None,
            };
            if next != Some(page) {
                before.insert(at, page);
            }
            self.set(at, next);
        }
        let undo = Undo {
            range: range.clone(),
            how,
            sequence: self.sequence,
            time: change.time,
            before,
        };
        let thread = change.thread;
        match how {
            How::RemapFrom => {
                if self
                    .release
                    .get(&thread)
                    .is_some_and(|undo| undo.how != How::Replace)
                {
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
        let place = if how == How::RemapFrom {
            &mut self.remap
        } else {
            &mut self.release
        };
        if place
            .get(&change.thread)
            .is_none_or(|undo| undo.range != *range || undo.how != how)
        {
            return;
        }
        let undo = place.remove(&change.thread).unwrap();
        let unmaps = !matches!(how, How::Discard | How::Decommit);
        for (at, page) in undo.before {
            let foreign = |&(sequence, thread, mapping): &(usize, u32, bool)| {
                sequence > undo.sequence && thread != change.thread && (mapping || !unmaps)
            };
            if self
                .history
                .get(&at)
                .is_some_and(|history| history.iter().any(foreign))
            {
                continue;
            }
            let left = match how {
                How::Discard => Some(Page {
                    owner: Owner::Discarded,
                    ..page
                }),
                How::Decommit => Some(Page {
                    protection: 0,
                    ..page
                }),
                _ => None,
            };
            if self.pages.get(&at).copied() == left {
                self.put_back(at, page);
            }
        }
    }

    fn remap(
        &mut self,
        change: &Change,
        old: &Range<u64>,
        new: &Range<u64>,
        keeps_old: bool,
        site: Option<SiteId>,
    ) {
        let held = self
            .remap
            .remove(&change.thread)
            .filter(|undo| undo.range == *old);
        self.touch(change, old.clone(), held.is_none().then_some(true));
        self.touch(change, new.clone(), Some(true));
        self.settle(change.thread);
        let duplicated = self.pages.get(&old.start).copied();
        let moved = held.map(|undo| undo.before).unwrap_or_else(|| {
            let standing: BTreeMap<u64, Page> = old
                .clone()
                .filter_map(|at| Some((at, *self.pages.get(&at)?)))
                .collect();
            for &at in standing.keys() {
                self.set(at, None);
            }
            standing
        });
        let arrived = self
            .pages
            .get(&new.start)
            .copied()
            .filter(|page| page.owner == Owner::BeforeAttach);
        let known = if old.is_empty() {
            duplicated
        } else {
            moved.values().last().copied().or(arrived)
        };
        let like = known.map_or(
            (
                3,
                if old.is_empty() {
                    Backing::Shared
                } else {
                    Backing::Anonymous
                },
            ),
            |page| (page.protection, page.backing),
        );
        if keeps_old {
            for (&at, &page) in &moved {
                if !self.pages.contains_key(&at) {
                    let owner = if page.committed() {
                        Owner::Discarded
                    } else {
                        page.owner
                    };
                    self.set(at, Some(Page { owner, ..page }));
                }
            }
        }
        let early = change.time < self.baseline_time;
        let mut grown = 0;
        let owner = self.owner(site, change.time);
        for (offset, at) in (0..).zip(new.clone()) {
            let stood = self
                .pages
                .get(&at)
                .copied()
                .filter(|page| page.owner == Owner::BeforeAttach);
            let beyond = old.start + offset >= old.end;
            let from = moved.get(&(old.start + offset)).filter(|_| !beyond);
            let unsure = from.is_none_or(|page| page.owner == Owner::BeforeAttach);
            let kept = stood.filter(|_| unsure && (early || !beyond));
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

    pub fn begin_check(&mut self, now: u64) {
        let under_way = self.release.values().chain(self.remap.values());
        let touched = under_way
            .filter(|undo| undo.time + SECOND >= now)
            .flat_map(|undo| undo.range.clone());
        self.check = Some((now, touched.collect()));
    }

    pub fn finish_check(&mut self, truth: &BTreeMap<u64, (u32, Backing)>) -> Repair {
        let mut repair = Repair::default();
        let Some((_, touched)) = self.check.take() else {
            return repair;
        };
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
                        self.set(
                            at,
                            Some(Page {
                                owner: if gained { Owner::Unseen } else { next.owner },
                                ..next
                            }),
                        );
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
