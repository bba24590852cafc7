//! A stretch: from when the probes are put into the processes' text to when they are taken out.

use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::alloc::cut;
use leakwatch_ebpf::wire::{Counter, SAMPLE_MIN};

use super::look::Looking;
use super::members::Member;
use super::{BirthWatch, Phase};
use crate::births::cohorts::Look;
use crate::births::{Extent, LOOK_AT, OldEnough, Spent, Step};
use crate::probe::ProbeError;
use crate::probe::allocs::{AllocHolders, AllocLinks, BurstLimits};
use crate::session::priority::Priority;
use crate::session::process::monotonic_ns;
use crate::session::watch::Watch;

/// Where there is nobody to watch yet, it is asked again after so long.
const NOBODY: Duration = Duration::from_millis(250);

/// The probes are in the text. Times are of the window.
pub(super) struct Stretch {
    pub links: AllocLinks,
    /// Of a burst: it is to be short.
    pub urgent: Option<Priority>,
    pub since: Duration,
    /// Before the probes came.
    before: Extent,
    /// How long the probes took to come, until that is told to the bursts.
    attach: Duration,
    /// What is not told to the bursts yet began then.
    began: Duration,
    /// What is not looked at yet began then.
    unlooked: Extent,
    /// When the last look began, and how much of what it looked at was old enough for it.
    look_at: Duration,
    old_enough: Extent,
    /// When it is to be looked at.
    pub until: Duration,
    /// Hits of the whole stretch after which it is, whatever the time.
    hits: u64,
    limits: BurstLimits,
    /// How many hits fewer than were planned, since they turn out to be dearer: as it is, and as the kernel was told.
    fewer: u64,
    told_fewer: u64,
    pub looking: Option<Looking>,
}

impl Stretch {
    /// So many hits fewer are to be. Returns the limits where the kernel must be told.
    fn dearer(&mut self, fewer: u64) -> Option<BurstLimits> {
        /// It is told in steps of such a part of the hits that it may let through.
        const STEPS: u64 = 16;
        self.fewer = fewer;
        if fewer.saturating_sub(self.told_fewer) <= self.limits.hits_max / STEPS {
            return None;
        }
        self.told_fewer = fewer;
        Some(BurstLimits {
            hits_max: self.limits.hits_max.saturating_sub(fewer),
            ..self.limits
        })
    }
}

impl Watch {
    pub(super) fn step_stretch(&mut self, births: &mut BirthWatch) -> Result<(), ProbeError> {
        if self.state.target_gone() {
            self.end_stretch(births);
            births.phase = Phase::Over;
            return Ok(());
        }
        let now = self.state.began.elapsed();
        match &mut births.phase {
            Phase::Waiting { until } if now >= *until => self.ask(births),
            Phase::Waiting { .. } | Phase::Over => Ok(()),
            Phase::Watching(stretch) => {
                let state = self.probe.burst_state()?;
                if state.cut & cut::OFF_STACK != 0 {
                    self.found_other_stacks(births);
                    return Ok(());
                }
                if state.cut != 0 {
                    // Births went unseen since, and a block that is there may be one of these.
                    births.cut += 1;
                    self.tell(births);
                    self.end_stretch(births);
                    births.phase = Phase::Waiting { until: now };
                    return self.ask(births);
                }
                if stretch.looking.is_none() {
                    let hits = self.probe.counts()?.hits().since(&births.told);
                    if let Some(limits) = stretch.dearer(births.bursts.dearer(&hits)) {
                        self.probe.set_burst_limits(&limits)?;
                    }
                }
                match stretch.looking.take() {
                    None if now >= stretch.until
                        || state.hits.saturating_add(stretch.fewer) >= stretch.hits =>
                    {
                        self.begin_look(births);
                        Ok(())
                    }
                    Some(looking) if looking.is_finished() => {
                        // The probes go first, if they go: to say whose blocks these are takes longer.
                        births.looked = Some(looking);
                        self.tell(births);
                        let asked = self.ask(births);
                        if let Phase::Watching(stretch) = &mut births.phase {
                            stretch.urgent = None;
                        }
                        self.finish_look(births);
                        asked
                    }
                    looking => {
                        stretch.looking = looking;
                        Ok(())
                    }
                }
            }
        }
    }

    /// Looks at what was born so far and is not too young, where no look is under way.
    pub(super) fn begin_look(&mut self, births: &mut BirthWatch) {
        if !matches!(&births.phase, Phase::Watching(stretch) if stretch.looking.is_none()) {
            return;
        }
        self.drain_rest();
        let at = births.extent_now(&self.state, &self.probe);
        let Phase::Watching(stretch) = &mut births.phase else {
            return;
        };
        let queue = &mut self.state.queue;
        queue.settle();
        // Where the probes stay what is too young now has its turn later.
        let early = stretch.urgent.is_some() && at.time < stretch.until;
        let span = at.since(stretch.unlooked);
        let OldEnough { until, extent } = queue.moments.old_enough(span, monotonic_ns(), early);
        queue.moments.forget_until(until);
        (stretch.look_at, stretch.old_enough) = (at.time, extent);
        stretch.looking = Looking::start(self.wanted(&births.members, |pid, cohorts| {
            let mut standing = self.state.queue.standing(pid, cohorts.threshold(), until);
            for look in cohorts.to_look_at(until) {
                standing.entry(look.address).or_insert(look.born);
            }
            let looks = standing.into_iter();
            looks.map(|(address, born)| Look { address, born }).collect()
        }));
    }

    /// Tells the cohorts what the last look saw.
    fn finish_look(&mut self, births: &mut BirthWatch) {
        let Some(looking) = births.looked.take() else {
            return;
        };
        let (time, seen) = looking.finish();
        // A birth at one of the addresses since then is in the ring: it ends what was seen.
        self.drain_rest();
        self.state.work_off_until(time);
        for (wanted, seen) in seen {
            if let Some(cohorts) = self.state.cohorts_of(wanted.pid) {
                cohorts.looked(time, &wanted.looks, &seen);
            }
        }
    }

    /// Tells the bursts what the stretch has come to since it was told last.
    pub(super) fn tell(&mut self, births: &mut BirthWatch) {
        let Phase::Watching(stretch) = &mut births.phase else {
            return;
        };
        let now = self.state.began.elapsed();
        let Ok(counts) = self.probe.counts() else { return };
        let hits = counts.hits();
        births.bursts.ended(&Spent {
            length: now.saturating_sub(stretch.began),
            attach: std::mem::take(&mut stretch.attach),
            look: births
                .looked
                .as_ref()
                .map(|_| now.saturating_sub(stretch.look_at)),
            hits: hits.since(&births.told),
        });
        births.told = hits;
        stretch.began = now;
        if births.looked.is_some() {
            births.followed = births.followed.plus(stretch.old_enough);
            stretch.unlooked = stretch.unlooked.plus(stretch.old_enough);
        }
        // The sample was more than the ring could take.
        let lost = counts.get(Counter::LostAllocs);
        if lost > births.lost_before {
            births.lost_before = lost;
            let threshold = self.state.births_threshold();
            self.state.lower_births((threshold / 2).max(SAMPLE_MIN));
        }
    }

    /// What the bursts say is next.
    fn ask(&mut self, births: &mut BirthWatch) -> Result<(), ProbeError> {
        if births.given_up.is_some() {
            self.end_stretch(births);
            births.phase = Phase::Over;
            return Ok(());
        }
        let now = self.state.began.elapsed();
        births.part_with_the_gone(&self.state);
        if births.members.is_empty() {
            self.end_stretch(births);
            births.phase = Phase::Waiting { until: now + NOBODY };
            return Ok(());
        }
        births.look_at_clock(&self.state.root);
        match births.bursts.next(now, births.processor()) {
            Step::Watch {
                length,
                expected,
                hits_max,
            } => self.watch_births(births, length, expected, hits_max),
            Step::Wait { until } => {
                self.end_stretch(births);
                births.phase = Phase::Waiting { until };
                Ok(())
            }
            Step::Done => {
                self.end_stretch(births);
                births.phase = Phase::Over;
                Ok(())
            }
        }
    }

    fn watch_births(
        &mut self,
        births: &mut BirthWatch,
        length: Duration,
        mut expected: u64,
        hits_max: u64,
    ) -> Result<(), ProbeError> {
        let threshold = self.state.births_threshold();
        self.state.lower_births(threshold);
        let members = births.members.values();
        let mut limits = BurstLimits {
            threshold,
            hits_max,
            stack_bytes_max: members.map(Member::stack_bytes_max).max().unwrap_or(0),
        };
        if let Phase::Watching(stretch) = &mut births.phase {
            let before = self.probe.burst_state()?.hits;
            limits.hits_max = hits_max.saturating_add(before);
            self.probe.set_burst_limits(&limits)?;
            stretch.until = self.state.began.elapsed() + length;
            stretch.hits = before.saturating_add(part(expected));
            (stretch.limits, stretch.fewer, stretch.told_fewer) = (limits, 0, 0);
            return self.attach_joined(births);
        }
        // On a machine that is busy nothing else would end the burst in time.
        let urgent = Priority::urgent();
        let before = births.extent_now(&self.state, &self.probe);
        // While the probes are put in some births would go unseen, and every hit would cost as much as one that is seen.
        let attaching = Instant::now();
        let holders: Vec<&AllocHolders> = births.members.values().map(Member::holders).collect();
        let (links, refused) = AllocHolders::attach_all(&holders);
        self.state.part_with_the_refused(births, refused)?;
        let attach = attaching.elapsed();
        if let Ok(counts) = self.probe.counts() {
            let hits = counts.hits();
            (expected, limits.hits_max) =
                births
                    .bursts
                    .attached(&hits.since(&births.told), expected, hits_max);
            births.told = hits;
        }
        self.probe.begin_burst(&limits)?;
        let at = births.extent_now(&self.state, &self.probe);
        let began = at.time;
        births.phase = Phase::Watching(Box::new(Stretch {
            links,
            urgent: Some(urgent),
            since: began,
            before,
            attach,
            began,
            unlooked: at,
            look_at: began,
            old_enough: Extent::default(),
            until: began + length.mul_f64(LOOK_AT),
            hits: part(expected),
            limits,
            fewer: 0,
            told_fewer: 0,
            looking: None,
        }));
        Ok(())
    }

    /// User-space threads: what a probe does to their stacks is not known.
    fn found_other_stacks(&mut self, births: &mut BirthWatch) {
        births.given_up = Some(
            "a call of the allocator came on a stack that is not its thread's own (user-space threads)"
                .to_owned(),
        );
        self.tell(births);
        self.end_stretch(births);
        births.phase = Phase::Over;
    }

    /// Takes the probes out, if they are there.
    pub(super) fn end_stretch(&mut self, births: &mut BirthWatch) {
        let Phase::Watching(stretch) = std::mem::replace(&mut births.phase, Phase::Over) else {
            return;
        };
        // The programs must be told before they go; that they were not is told by what follows as well.
        if let Err(error) = self.probe.end_burst() {
            births.given_up.get_or_insert_with(|| error.to_string());
        }
        let Stretch {
            links,
            looking,
            urgent,
            before,
            ..
        } = *stretch;
        if !links.are_held() {
            births.given_up.get_or_insert_with(|| {
                "a process of leakwatch's own that held the probes was killed".to_owned()
            });
        }
        if self.drain_while(move || drop(links)).is_err() {
            births
                .given_up
                .get_or_insert_with(|| "the probes could not be taken out in order".to_owned());
        }
        let around = urgent
            .is_some()
            .then(|| births.extent_now(&self.state, &self.probe).since(before));
        drop(urgent);
        if let Ok(counts) = self.probe.counts() {
            let hits = counts.hits();
            births.bursts.detached(&hits.since(&births.told), around);
            births.told = hits;
        }
        self.drain_rest();
        self.finish_look(births);
        self.work_off_modestly();
        self.state.queue.moments.clear();
        // One that is under way was not in time.
        drop(looking);
        for cohorts in self
            .state
            .heaps
            .values_mut()
            .filter_map(|heap| heap.cohorts.as_mut())
        {
            cohorts.end_stretch();
        }
    }
}

/// Of the hits that are expected, those at which a look is due.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a cast from float saturates, and a few hits more or less do not matter"
)]
fn part(expected: u64) -> u64 {
    (expected as f64 * LOOK_AT) as u64
}
