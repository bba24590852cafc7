//! What each owner acquired, gave up and still holds: kept as the changes come, so that a tick costs nothing.

use std::collections::HashMap;

use serde::Serialize;

use super::change::SiteId;
use super::pieces::Owner;

/// Sites with an account of their own. A program can make call stacks without end; beyond this their bytes are
/// [`Owner::Unseen`], and counted.
pub(super) const SITES_MAX: usize = 128 * 1024;

/// Bytes of committed memory of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// All it ever acquired.
    pub committed_bytes: u64,
    /// What was given up of it.
    pub released_bytes: u64,
}

impl Tally {
    /// Still there.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.committed_bytes.saturating_sub(self.released_bytes)
    }

    fn commit(&mut self, bytes: u64) {
        self.committed_bytes = self.committed_bytes.saturating_add(bytes);
    }

    fn release(&mut self, bytes: u64) {
        self.released_bytes = self.released_bytes.saturating_add(bytes);
    }

    fn restore(&mut self, bytes: u64) {
        self.released_bytes = self.released_bytes.saturating_sub(bytes);
    }
}

/// The account of one call site.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// All that the site acquired in the window, in bytes. Memory that `mremap` moved is not acquired anew.
    pub committed_bytes: u64,
    /// What was given up of it since, by whomever.
    pub released_bytes: u64,
    /// Calls that committed memory.
    pub events: u64,
    /// The first and the last of them, nanoseconds of `CLOCK_MONOTONIC`.
    pub first_seen: u64,
    pub last_seen: u64,
    /// Held bytes over time.
    pub series: Series,
}

impl Account {
    /// Acquired in the window and still there, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.committed_bytes.saturating_sub(self.released_bytes)
    }
}

/// Points of a [`Series`].
pub const SERIES_POINTS: usize = 32;

/// The first step: a short recording still gets a dozen points.
const FIRST_STEP: u64 = 250_000_000;

/// Held bytes at even steps since the window's start, in a fixed room: when it is full, each two steps become one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Series {
    start: u64,
    step: u64,
    /// Points in use. Each is the value at the end of its step; the last one is the present value.
    length: usize,
    points: [u64; SERIES_POINTS],
}

impl Series {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            step: FIRST_STEP,
            length: 0,
            points: [0; SERIES_POINTS],
        }
    }

    /// `value` from `time` on. A time before the last point (two processors' clocks differ a little) changes the last.
    pub(super) fn push(&mut self, time: u64, value: u64) {
        let index = self.reach(time);
        if let Some(point) = self.points.get_mut(index) {
            *point = value;
        }
    }

    /// Carries the last value on up to the step that `time` is in; its index.
    fn reach(&mut self, time: u64) -> usize {
        let since = time.saturating_sub(self.start);
        while since / self.step >= SERIES_POINTS as u64 {
            self.halve();
        }
        let last = self.length.saturating_sub(1);
        let index = usize::try_from(since / self.step).unwrap_or(last).max(last);
        let value = self.points.get(last).copied().unwrap_or(0);
        // Before the first value the site held nothing: the room is zero already.
        if self.length > 0 {
            for point in self.points.iter_mut().take(index + 1).skip(self.length) {
                *point = value;
            }
        }
        self.length = self.length.max(index + 1);
        index
    }

    /// Of each two points the later one stays: it is the value at the end of the doubled step.
    fn halve(&mut self) {
        let mut halved = [0; SERIES_POINTS];
        let used = self.points.get(..self.length).unwrap_or_default();
        for (to, pair) in halved.iter_mut().zip(used.chunks(2)) {
            *to = pair.last().copied().unwrap_or(0);
        }
        self.length = self.length.div_ceil(2);
        self.points = halved;
        // 2^28 ns doubled until 32 steps hold 2^64: never beyond 2^60.
        self.step = self.step.saturating_mul(2);
    }

    /// (seconds since the window's start, bytes held), up to `now` (nanoseconds of `CLOCK_MONOTONIC`). Each point
    /// stands at the end of its step; the last at `now`.
    #[must_use]
    pub fn until(&self, now: u64) -> Vec<(f64, u64)> {
        let mut series = self.clone();
        let last = series.reach(now);
        let ends = (1..).map(|step: u64| series.step.saturating_mul(step));
        let until = now.saturating_sub(self.start);
        series
            .points
            .iter()
            .take(last + 1)
            .zip(ends)
            .map(|(&bytes, end)| (end.min(until) as f64 / 1e9, bytes))
            .collect()
    }

    /// The [`slope`] of the points up to `now` (nanoseconds of `CLOCK_MONOTONIC`), in bytes per second.
    #[must_use]
    pub fn rate(&self, now: u64) -> Option<f64> {
        slope(&self.until(now))
    }
}

/// The slope of the least-squares line through (seconds, bytes), in bytes per second. `None` under four points: a line
/// through fewer says nothing. `None` too where all stand at one time.
#[must_use]
pub fn slope(points: &[(f64, u64)]) -> Option<f64> {
    if points.len() < 4 {
        return None;
    }
    let count = points.len() as f64;
    let mean_time = points.iter().map(|&(time, _)| time).sum::<f64>() / count;
    let mean_bytes = points.iter().map(|&(_, bytes)| bytes as f64).sum::<f64>() / count;
    let (mut product, mut square) = (0.0, 0.0);
    for &(time, bytes) in points {
        product += (time - mean_time) * (bytes as f64 - mean_bytes);
        square += (time - mean_time) * (time - mean_time);
    }
    (square > 0.0).then(|| product / square)
}

/// Tallies by kind of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All call sites together.
    pub sites: Tally,
    /// Its `committed_bytes` are what stood at the baseline, and what changes from before it added.
    pub before_attach: Tally,
    pub discarded: Tally,
    pub unseen: Tally,
    /// Committed memory in the baseline, in bytes.
    pub baseline_bytes: u64,
}

impl Totals {
    /// Committed memory of the target now, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        [self.sites, self.before_attach, self.discarded, self.unseen]
            .iter()
            .fold(0, |sum: u64, tally| sum.saturating_add(tally.held_bytes()))
    }

    /// Committed memory now less that of the baseline, in bytes.
    #[must_use]
    pub fn growth_bytes(&self) -> i64 {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.held_bytes()).saturating_sub(signed(self.baseline_bytes))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    /// The window's start, nanoseconds.
    start: u64,
    pub(super) sites: HashMap<SiteId, Account>,
    pub(super) totals: Totals,
}

impl Accounts {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            ..Self::default()
        }
    }

    pub(super) fn has_room_for(&self, site: SiteId) -> bool {
        self.sites.len() < SITES_MAX || self.sites.contains_key(&site)
    }

    pub(super) fn commit(&mut self, owner: Owner, bytes: u64, time: u64) {
        self.tally(owner).commit(bytes);
        if let Owner::Site(site) = owner {
            let start = self.start;
            let account = self.sites.entry(site).or_insert_with(|| Account {
                committed_bytes: 0,
                released_bytes: 0,
                events: 0,
                first_seen: time,
                last_seen: time,
                series: Series::new(start),
            });
            account.committed_bytes = account.committed_bytes.saturating_add(bytes);
            account.series.push(time, account.held_bytes());
        }
    }

    /// A call of `site` that committed memory is complete.
    pub(super) fn count(&mut self, site: SiteId, time: u64) {
        if let Some(account) = self.sites.get_mut(&site) {
            account.events += 1;
            account.last_seen = account.last_seen.max(time);
        }
    }

    pub(super) fn release(&mut self, owner: Owner, bytes: u64, time: u64) {
        self.tally(owner).release(bytes);
        self.held(owner, time, |account| {
            account.released_bytes = account.released_bytes.saturating_add(bytes);
        });
    }

    /// A release that was none: the call failed, or the memory only moved.
    pub(super) fn restore(&mut self, owner: Owner, bytes: u64, time: u64) {
        self.tally(owner).restore(bytes);
        self.held(owner, time, |account| {
            account.released_bytes = account.released_bytes.saturating_sub(bytes);
        });
    }

    fn held(&mut self, owner: Owner, time: u64, change: impl FnOnce(&mut Account)) {
        if let Owner::Site(site) = owner
            && let Some(account) = self.sites.get_mut(&site)
        {
            change(account);
            account.series.push(time, account.held_bytes());
        }
    }

    fn tally(&mut self, owner: Owner) -> &mut Tally {
        match owner {
            Owner::Site(_) => &mut self.totals.sites,
            Owner::BeforeAttach => &mut self.totals.before_attach,
            Owner::Discarded => &mut self.totals.discarded,
            Owner::Unseen => &mut self.totals.unseen,
        }
    }
}
