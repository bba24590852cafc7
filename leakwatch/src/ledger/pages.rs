//! Who first touched which page: the sample of page faults.
//!
//! A page is in the sample iff its hash is under the threshold, so every later fault on it is in it too, its owner is
//! its latest toucher, and (sampled pages that are still there) x (1 / rate) is an unbiased estimate. The rate starts
//! at 1 and only ever falls; pages over the new threshold leave the sample.
//!
//! A fault is not yet growth. The page may have been there when the window began: copied after a fork, brought back
//! from swap, moved to another NUMA node. Those are told apart by [`Presence`], read at the start. Whether a page is
//! still there is read at the end.

use std::collections::HashMap;
use std::ops::Range;

use leakwatch_ebpf::wire::{SAMPLE_ALL, page_in_sample};

use super::SiteId;
use super::presence::Presence;

/// Sampled pages kept at most, some 100 MiB. Over it the threshold is halved, which thins the sample by half.
pub const PAGES_MAX: usize = 2 << 20;

/// The owner of a sampled page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub site: SiteId,
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Base pages that came with this fault: 1, or what a huge page has.
    pub weight: u32,
}

/// What a site touched in all, gone or not. Each sampled page counts for as many as it stood for when it was touched:
/// the rate falls meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Base pages, estimated.
    pub pages: u64,
    /// Sampled faults.
    pub faults: u64,
    pub first_seen: u64,
    pub last_seen: u64,
}

/// What could not be said of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageLosses {
    /// Faults on pages that were there when the window began: no growth.
    pub known_pages: u64,
    /// Faults from before the window.
    pub early: u64,
    /// Touches of sampled pages whose threshold fell meanwhile.
    pub thinned: u64,
}

/// The pages of one process.
#[derive(Clone, Debug)]
pub struct PageLedger {
    page_shift: u32,
    threshold: u64,
    pages: HashMap<u64, Touch>,
    touched: HashMap<SiteId, Touched>,
    /// There when the window began, and not given up since.
    before: Presence,
    window_began: u64,
    losses: PageLosses,
}

impl PageLedger {
    /// An empty sample. `page_bytes` is the machine's page size; faults from before `window_began` (nanoseconds) are
    /// not counted, since their pages are in `before`.
    #[must_use]
    pub fn new(page_bytes: u64, before: Presence, window_began: u64) -> Self {
        Self {
            page_shift: page_bytes.trailing_zeros(),
            threshold: SAMPLE_ALL,
            pages: HashMap::new(),
            touched: HashMap::new(),
            before,
            window_began,
            losses: PageLosses::default(),
        }
    }

    /// A fault at `address` by `site`. Returns whether the page is its now.
    pub fn touch(&mut self, address: u64, site: SiteId, time: u64) -> bool {
        let page = address >> self.page_shift;
        if time < self.window_began {
            self.losses.early += 1;
            return false;
        }
        if !page_in_sample(page, self.threshold) {
            self.losses.thinned += 1;
            return false;
        }
        if self.before.contains(page) {
            self.losses.known_pages += 1;
            return false;
        }
        let stands_for = self.stands_for();
        // A second fault by the same site while the page is its own brings nothing new: first read, then written; or
        // seen twice, through two events of one thread.
        let again = self.pages.get(&page).is_some_and(|touch| touch.site == site);
        if !again {
            self.pages.insert(
                page,
                Touch {
                    site,
                    time,
                    weight: 1,
                },
            );
        }
        let touched = self.touched.entry(site).or_insert(Touched {
            first_seen: time,
            ..Touched::default()
        });
        touched.faults += 1;
        touched.last_seen = touched.last_seen.max(time);
        if !again {
            touched.pages = touched.pages.saturating_add(stands_for);
        }
        true
    }

    /// The fault on `page` brought a huge page of `pages` base pages in.
    pub fn weigh(&mut self, page: u64, pages: u32) {
        if let Some(touch) = self.pages.get_mut(&page) {
            let more = pages.saturating_sub(touch.weight);
            touch.weight += more;
            let site = touch.site;
            let more = u64::from(more).saturating_mul(self.stands_for());
            if let Some(touched) = self.touched.get_mut(&site) {
                touched.pages = touched.pages.saturating_add(more);
            }
        }
    }

    /// How many pages a sampled one stands for: 1 / rate, a whole number since thresholds are powers of two.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        SAMPLE_ALL / self.threshold.max(1)
    }

    /// The range (bytes, pages whole) was given up: whoever touches it next owns it, also what was there before.
    pub fn release(&mut self, range: &Range<u64>) {
        let pages = self.page_range(range);
        self.before.remove(pages.clone());
        if pages.end.saturating_sub(pages.start) > self.pages.len() as u64 {
            self.pages.retain(|page, _| !pages.contains(page));
        } else {
            for page in pages {
                self.pages.remove(&page);
            }
        }
    }

    /// The pages of `from` lie at `to` now (both in bytes, of the same length): their owners go with them, as far as
    /// the new page numbers are in the sample; what leaves it is in the estimate by what enters it.
    pub fn relocate(&mut self, from: &Range<u64>, to: u64) {
        let pages = self.page_range(from);
        let to = to >> self.page_shift;
        if pages.start >= pages.end || to == pages.start {
            return;
        }
        let mut moved = Vec::new();
        for page in self.known(&pages) {
            if let Some(touch) = self.pages.remove(&page) {
                moved.push((to + (page - pages.start), touch));
            }
        }
        let mut present = Vec::new();
        for page in pages.clone() {
            if self.before.contains(page) {
                present.push(to + (page - pages.start));
            }
        }
        self.before.remove(pages);
        for page in present {
            self.before.insert(page..page + 1);
        }
        for (page, touch) in moved {
            if page_in_sample(page, self.threshold) {
                self.pages.insert(page, touch);
            } else {
                self.losses.thinned += 1;
            }
        }
    }

    fn known(&self, pages: &Range<u64>) -> Vec<u64> {
        if pages.end - pages.start > self.pages.len() as u64 {
            self.pages
                .keys()
                .copied()
                .filter(|page| pages.contains(page))
                .collect()
        } else {
            pages
                .clone()
                .filter(|page| self.pages.contains_key(page))
                .collect()
        }
    }

    fn page_range(&self, range: &Range<u64>) -> Range<u64> {
        let mask = (1u64 << self.page_shift) - 1;
        (range.start >> self.page_shift)..(range.end.saturating_add(mask) >> self.page_shift)
    }

    /// Halves the rate. The sample in hand is thinned to it.
    pub fn halve(&mut self) {
        let threshold = (self.threshold / 2).max(1);
        self.threshold = threshold;
        self.pages.retain(|page, _| page_in_sample(*page, threshold));
    }

    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Sampled pages in hand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// All sampled pages with their owners, by page number.
    #[must_use]
    pub fn sorted(&self) -> Vec<(u64, Touch)> {
        let mut pages: Vec<_> = self.pages.iter().map(|(page, touch)| (*page, *touch)).collect();
        pages.sort_unstable_by_key(|(page, _)| *page);
        pages
    }

    #[must_use]
    pub fn touched(&self) -> &HashMap<SiteId, Touched> {
        &self.touched
    }

    #[must_use]
    pub fn before(&self) -> &Presence {
        &self.before
    }

    #[must_use]
    pub fn losses(&self) -> PageLosses {
        self.losses
    }
}

/// An estimate from a sample, in base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    pub pages: f64,
    /// Square of the standard error.
    variance: f64,
}

impl Estimate {
    /// Adds a sampled page of a weight (base pages) that was in the sample with a chance of 1 in `stands_for`.
    #[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
    pub fn add(&mut self, weight: u32, stands_for: u64) {
        let (weight, inverse) = (f64::from(weight), stands_for as f64);
        self.pages += weight * inverse;
        // A page of the population is in the sample or not, by a coin with the rate r: its term has the variance
        // w^2 (1 - r) / r, and each sampled one stands for 1 / r of them.
        self.variance += weight * weight * inverse * (inverse - 1.0);
    }

    /// Standard error, in base pages. 0 when nothing was left out.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        self.variance.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn fresh() -> PageLedger {
        PageLedger::new(PAGE, Presence::default(), 0)
    }

    fn live(ledger: &PageLedger) -> HashMap<SiteId, Estimate> {
        let mut estimates: HashMap<SiteId, Estimate> = HashMap::new();
        for (_, touch) in ledger.sorted() {
            estimates
                .entry(touch.site)
                .or_default()
                .add(touch.weight, ledger.stands_for());
        }
        estimates
    }

    #[test]
    fn a_page_faulted_a_hundred_times_weighs_once() {
        let mut ledger = fresh();
        for time in 0..100 {
            ledger.touch(0x7000, SiteId(1), time);
        }
        assert_eq!(live(&ledger)[&SiteId(1)].pages, 1.0);
        assert_eq!(ledger.touched()[&SiteId(1)].pages, 1);
        assert_eq!(ledger.touched()[&SiteId(1)].faults, 100);
    }

    #[test]
    fn the_latest_toucher_owns_and_a_release_ends_it() {
        let mut ledger = fresh();
        ledger.touch(0x7000, SiteId(1), 1);
        ledger.touch(0x7000, SiteId(2), 2);
        assert_eq!(ledger.sorted()[0].1.site, SiteId(2));
        ledger.release(&(0x7000..0x8000));
        assert!(ledger.is_empty());
        ledger.touch(0x7000, SiteId(2), 3);
        assert_eq!(
            ledger.touched()[&SiteId(2)].pages,
            2,
            "touched again after it was gone"
        );
    }

    #[test]
    fn what_was_there_before_is_no_growth_until_it_was_given_up() {
        let mut before = Presence::default();
        before.insert(7..9);
        let mut ledger = PageLedger::new(PAGE, before, 10);
        assert!(
            !ledger.touch(0x7000, SiteId(1), 11),
            "copied after a fork, or swapped in"
        );
        ledger.release(&(0x7000..0x8000));
        assert!(ledger.touch(0x7000, SiteId(1), 12));
        assert!(!ledger.touch(0x8000, SiteId(1), 13));
        assert!(!ledger.touch(0xa000, SiteId(1), 9), "before the window");
        assert_eq!(
            ledger.losses(),
            PageLosses {
                known_pages: 2,
                early: 1,
                thinned: 0
            }
        );
    }

    #[test]
    fn a_huge_page_weighs_what_it_covers() {
        let mut ledger = fresh();
        ledger.touch(0x20_1000, SiteId(1), 1);
        ledger.weigh(0x201, 512);
        ledger.weigh(0x201, 512);
        assert_eq!(live(&ledger)[&SiteId(1)].pages, 512.0);
        assert_eq!(ledger.touched()[&SiteId(1)].pages, 512);
    }

    #[test]
    fn moved_pages_keep_their_owner() {
        let mut before = Presence::default();
        before.insert(0x11..0x12);
        let mut ledger = PageLedger::new(PAGE, before, 0);
        ledger.touch(0x10_000, SiteId(1), 1);
        ledger.relocate(&(0x10_000..0x12_000), 0x50_000);
        assert_eq!(
            ledger.sorted().iter().map(|(page, _)| *page).collect::<Vec<_>>(),
            [0x50]
        );
        assert!(ledger.before().contains(0x51) && !ledger.before().contains(0x11));
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
                        ledger.release(&(pages.start * PAGE..pages.end * PAGE));
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
}
