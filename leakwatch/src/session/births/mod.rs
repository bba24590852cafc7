//! Births of the target's blocks, watched in bursts over the window, and what was born looked at again.
//!
//! A stretch is from when the probes are put into the target's text to when they are taken out. What was born in it is
//! looked at near its end, while a later birth at the same address would still be seen; what was born just before is
//! left out, since it may be gone at once. Two checks over the window tell young blocks from those that stay, and the
//! census at its end has the last word (`survivors`).

mod look;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use leakwatch_ebpf::wire::alloc::cut;
use leakwatch_ebpf::wire::{Counter, SAMPLE_ALL, SAMPLE_MIN};

use super::RecordOptions;
use super::priority::Priority;
use super::process::monotonic_ns;
use super::watch::{DRAIN_MAX, Watch};
use crate::births::cohorts::Look;
use crate::births::{Bursts, Cohorts, HitCost, Hits, LEEWAY, NO_BUDGET, Plan, Spent, Step};
use crate::census::watched::Lists;
use crate::probe::allocs::{AllocHolders, AllocLinks, AllocMethod, BurstLimits};
use crate::probe::{Probe, ProbeError};
use crate::sampler::{ProcRoot, stat};
use crate::target::entry_points::safe_to_probe;
use crate::target::{Proc, allocator};

use look::Looking;
pub(super) use queue::Queue;

/// When births are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllocsChoice {
    /// Where it is safe and its deaths can be read, within the budget.
    #[default]
    Auto,
    /// Where it is safe and its deaths can be read: for the whole window, whatever it costs.
    Always,
    Never,
}

/// Of a stretch, or what of it was not looked at yet: births in its last part are too young to be followed.
const TOO_YOUNG: u32 = 6;
/// Of a burst's time, or of its hits, so much is spent when the look begins, which is a part of it too.
const LOOK_AT: f64 = 0.6;
/// The checks between the window's ends, as parts of it.
const CHECKS: [f64; 2] = [1.0 / 3.0, 2.0 / 3.0];
/// In a stretch that is longer than this, births are unwound while it lasts, for so long at once.
const LONG: Duration = Duration::from_millis(200);
const SLICE: Duration = Duration::from_millis(1);

/// What is known before the window, while nothing is watched yet.
pub(super) struct Prepared {
    holders: AllocHolders,
    /// The deepest that a thread's own stack goes, bytes.
    stack_bytes_max: u64,
    method: AllocMethod,
    cost: HitCost,
}

/// Finds the target's allocator functions, loads the programs and measures what a hit costs. What waits in the ring is
/// dropped.
///
/// # Errors
///
/// Why births are not to be watched, in words.
pub(super) fn prepare(probe: &mut Probe, options: &RecordOptions) -> Result<Prepared, String> {
    let pid = options.target.pid;
    if options.census == super::CensusChoice::Never {
        return Err("deaths are told by the heap, which is not read (--census never)".to_owned());
    }
    let allocator = allocator::identify(&Proc::host(), pid).map_err(|error| error.to_string())?;
    let points = safe_to_probe(&Proc::host(), pid, &allocator).map_err(|why| why.to_string())?;
    let method = probe.load_allocs().map_err(|error| error.to_string())?;
    if method == AllocMethod::Events && options.allocs == AllocsChoice::Auto {
        return Err(
            "kernels before 6.6 take more than a second to take the probes out of the text (--allocs always does it)"
                .to_owned(),
        );
    }
    let cost = probe.calibrate_allocs().map_err(|error| error.to_string())?;
    let holders = probe
        .hold_allocs(pid, &points)
        .map_err(|error| error.to_string())?;
    Ok(Prepared {
        holders,
        stack_bytes_max: points.stack_bytes_max,
        method,
        cost,
    })
}

/// Births in the window.
pub(super) struct BirthWatch {
    target: u32,
    holders: AllocHolders,
    stack_bytes_max: u64,
    pub method: AllocMethod,
    pub bursts: Bursts,
    window: Duration,
    lists: Arc<Lists>,
    phase: Phase,
    /// The target's processor time when the window began.
    processor_before: Duration,
    processor: Duration,
    /// The kernel's counters when the window began, and up to where the bursts were told of them.
    hits_before: Hits,
    told: Hits,
    lost_before: u64,
    /// Births in so much of the window could be followed.
    pub followed: Duration,
    /// Bursts that had spent what they might before all was looked at.
    pub cut: u64,
    /// Checks that are still to come, the next one last.
    checks: Vec<Duration>,
    check: Option<Looking>,
    /// A look that has ended, and was not told to the cohorts yet.
    looked: Option<Looking>,
    /// Why births are watched no longer.
    pub given_up: Option<String>,
}

enum Phase {
    Waiting { until: Duration },
    Watching(Stretch),
    Over,
}

/// The probes are in the target's text. Times are of the window.
struct Stretch {
    links: AllocLinks,
    urgent: Option<Priority>,
    since: Duration,
    /// What is not told to the bursts yet began then.
    began: Duration,
    /// What is not looked at yet began then.
    unlooked: Duration,
    /// When it is to be looked at.
    until: Duration,
    /// Hits of the whole stretch after which it is, whatever the time.
    hits: u64,
    looking: Option<Looking>,
}

impl BirthWatch {
    /// When there is something to do next, as time of the window.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        /// The probes are not to stay longer than it takes to look.
        const SOON: Duration = Duration::from_millis(1);
        let phase = match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Watching(stretch) if stretch.looking.is_none() => Some(stretch.until),
            Phase::Watching(_) => Some(now + SOON),
            Phase::Over => None,
        };
        let check = self.checks.last().copied().filter(|_| self.check.is_none());
        [phase, check].into_iter().flatten().min()
    }

    /// Whether the probes are in the target's text, for a short while.
    pub fn is_in_burst(&self) -> bool {
        matches!(&self.phase, Phase::Watching(stretch) if stretch.urgent.is_some())
    }

    /// All hits of the window.
    pub fn hits(&self, probe: &Probe) -> Hits {
        probe
            .counts()
            .map_or(self.told, |counts| counts.hits())
            .since(&self.hits_before)
    }

    fn look_at_clock(&mut self, root: &ProcRoot) {
        // Of a target that is gone the last look stands.
        if let Some(processor) = processor(root, self.target) {
            self.processor = processor.saturating_sub(self.processor_before);
        }
    }

    /// The processor time that the target has used in the window so far.
    pub fn processor(&self) -> Duration {
        self.processor
    }
}

impl Watch {
    /// Births are watched from now on, if the heap was read.
    pub fn begin_births(&mut self, prepared: Prepared, options: &RecordOptions) {
        let Some(start) = &self.state.censuses.start else {
            let why = self.state.censuses.not_taken.as_deref();
            self.state.allocs_not_watched = Some(format!(
                "the heap was not read {}",
                why.unwrap_or("at the window's start")
            ));
            return;
        };
        let Some(lists) = start.census.lists.clone() else {
            self.state.allocs_not_watched = Some("the heap's free lists were not found".to_owned());
            return;
        };
        let Prepared {
            holders,
            stack_bytes_max,
            method,
            cost,
        } = prepared;
        let counts = self.probe.counts().unwrap_or_default();
        let processor = processor(&self.state.root, options.target.pid).unwrap_or_default();
        let fraction = match options.allocs {
            AllocsChoice::Always => NO_BUDGET,
            AllocsChoice::Auto | AllocsChoice::Never => options.allocs_budget,
        };
        let bursts = Bursts::new(Plan {
            window: options.duration,
            fraction,
            cost,
            seed: monotonic_ns(),
        });
        let mut checks: Vec<Duration> = CHECKS
            .iter()
            .map(|part| options.duration.mul_f64(*part))
            .collect();
        checks.reverse();
        self.state.cohorts = Some(Cohorts::new(SAMPLE_ALL));
        self.births = Some(BirthWatch {
            target: options.target.pid,
            holders,
            stack_bytes_max,
            method,
            bursts,
            window: options.duration,
            lists: Arc::new(lists),
            phase: Phase::Waiting {
                until: Duration::ZERO,
            },
            processor_before: processor,
            processor: Duration::ZERO,
            hits_before: counts.hits(),
            told: counts.hits(),
            lost_before: counts.get(Counter::LostAllocs),
            followed: Duration::ZERO,
            cut: 0,
            checks,
            check: None,
            looked: None,
            given_up: None,
        });
    }

    /// Does what is due. What fails ends the watching of births, not the recording.
    pub fn step_births(&mut self) {
        let Some(mut births) = self.births.take() else {
            return;
        };
        self.check_births(&mut births);
        let now = self.state.began.elapsed();
        match &births.phase {
            // What a look is about waits for it.
            Phase::Watching(stretch) if now < stretch.since + LONG || stretch.looking.is_some() => {}
            _ => self.state.work_off(SLICE),
        }
        if let Err(error) = self.step_stretch(&mut births) {
            births.given_up.get_or_insert_with(|| error.to_string());
            self.end_stretch(&mut births);
        }
        self.births = Some(births);
    }

    /// The window has ended: the last look, and the probes go.
    pub fn end_births(&mut self) {
        let Some(mut births) = self.births.take() else {
            return;
        };
        births.checks.clear();
        births.look_at_clock(&self.state.root);
        if let Some(check) = births.check.take() {
            self.finish_check(check);
        }
        let gone = self.state.target_gone();
        if let Phase::Watching(stretch) = &mut births.phase
            && !gone
        {
            let looking = stretch.looking.take().or_else(|| {
                self.drain_births(monotonic_ns());
                self.start_look(births.target, &births.lists, births.window, stretch)
            });
            births.looked = looking;
        }
        self.tell(&mut births);
        self.end_stretch(&mut births);
        births.phase = Phase::Over;
        self.births = Some(births);
    }

    fn step_stretch(&mut self, births: &mut BirthWatch) -> Result<(), ProbeError> {
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
                match stretch.looking.take() {
                    None if now >= stretch.until || state.hits >= stretch.hits => {
                        self.drain_births(monotonic_ns());
                        stretch.looking = self.start_look(births.target, &births.lists, now, stretch);
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

    /// Takes from the ring what was born by `time`, nanoseconds: while the probes are there it is never empty for long.
    fn drain_births(&mut self, time: u64) {
        const AT_ONCE: usize = 256;
        while self.drain(AT_ONCE) == AT_ONCE && self.state.queue.latest <= time {}
    }

    /// What was born so far and is not too young.
    fn start_look(
        &mut self,
        pid: u32,
        lists: &Arc<Lists>,
        now: Duration,
        stretch: &mut Stretch,
    ) -> Option<Looking> {
        let age = now.saturating_sub(stretch.unlooked) / TOO_YOUNG;
        let until = monotonic_ns().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let cohorts = self.state.cohorts.as_ref()?;
        let mut standing = self.state.queue.standing(cohorts.threshold(), until);
        for look in cohorts.to_look_at(until) {
            standing.entry(look.address).or_insert(look.born);
        }
        let looks = standing.into_iter().map(|(address, born)| Look { address, born });
        Looking::start(pid, lists, looks.collect())
    }

    /// Tells the cohorts what the last look saw.
    fn finish_look(&mut self, births: &mut BirthWatch) {
        let Some(looking) = births.looked.take() else {
            return;
        };
        let (looks, time, seen) = looking.finish();
        // A birth at one of the addresses since then is in the ring: it ends what was seen.
        self.drain_rest();
        self.state.work_off_until(time);
        if let Some(cohorts) = &mut self.state.cohorts {
            cohorts.looked(time, &looks, &seen);
        }
    }

    /// Tells the bursts what the stretch has come to since it was told last.
    fn tell(&mut self, births: &mut BirthWatch) {
        let Phase::Watching(stretch) = &mut births.phase else {
            return;
        };
        let now = self.state.began.elapsed();
        let Ok(counts) = self.probe.counts() else { return };
        let hits = counts.hits();
        births.bursts.ended(&Spent {
            length: now.saturating_sub(stretch.began),
            hits: hits.since(&births.told),
        });
        births.told = hits;
        stretch.began = now;
        if let Some(looked) = &births.looked {
            let looked_at = Duration::from_nanos(looked.time.saturating_sub(self.state.began_ns()));
            let whole = looked_at.saturating_sub(stretch.unlooked);
            let old_enough = whole - whole / TOO_YOUNG;
            births.followed += old_enough;
            stretch.unlooked += old_enough;
        }
        // The sample was more than the ring could take.
        let lost = counts.get(Counter::LostAllocs);
        if lost > births.lost_before {
            births.lost_before = lost;
            if let Some(cohorts) = &mut self.state.cohorts {
                cohorts.lower((cohorts.threshold() / 2).max(SAMPLE_MIN));
            }
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
        births.look_at_clock(&self.state.root);
        match births.bursts.next(now, births.processor) {
            Step::Watch { length, hits_max } => self.watch_births(births, length, hits_max),
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
        hits_max: u64,
    ) -> Result<(), ProbeError> {
        let threshold = self.state.cohorts.as_ref().map_or(0, Cohorts::threshold);
        let mut limits = BurstLimits {
            threshold,
            hits_max,
            stack_bytes_max: births.stack_bytes_max,
        };
        if let Phase::Watching(stretch) = &mut births.phase {
            let before = self.probe.burst_state()?.hits;
            limits.hits_max = hits_max.saturating_add(before);
            self.probe.set_burst_limits(&limits)?;
            stretch.until = self.state.began.elapsed() + length;
            stretch.hits = before.saturating_add(part(hits_max));
            return Ok(());
        }
        // On a machine that is busy nothing else would end the burst in time.
        let urgent = Priority::urgent();
        // While the probes are put in some births would go unseen, and every hit would cost as much as one that is seen.
        let links = births.holders.attach()?;
        self.probe.begin_burst(&limits)?;
        let began = self.state.began.elapsed();
        births.phase = Phase::Watching(Stretch {
            links,
            urgent: Some(urgent),
            since: began,
            began,
            unlooked: began,
            until: began + length.mul_f64(LOOK_AT),
            hits: part(hits_max),
            looking: None,
        });
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
    fn end_stretch(&mut self, births: &mut BirthWatch) {
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
            ..
        } = stretch;
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
        drop(urgent);
        if let Ok(counts) = self.probe.counts() {
            let hits = counts.hits();
            births.bursts.detached(&hits.since(&births.told));
            births.told = hits;
        }
        self.drain_rest();
        self.finish_look(births);
        self.work_off_modestly();
        // One that is under way was not in time.
        drop(looking);
        if let Some(cohorts) = &mut self.state.cohorts {
            cohorts.end_stretch();
        }
    }

    /// Unwinds all that waits. The burst has made the target late enough: it goes first.
    fn work_off_modestly(&mut self) {
        let _modest = Priority::modest();
        while !self.state.queue.is_empty() {
            self.state.work_off(SLICE);
            self.drain(DRAIN_MAX);
        }
    }

    /// Begins a check that is due, and takes the result of one that has ended.
    fn check_births(&mut self, births: &mut BirthWatch) {
        match births.check.take() {
            Some(check) if check.is_finished() => self.finish_check(check),
            running => births.check = running,
        }
        let now = self.state.began.elapsed();
        if births.check.is_some() || births.checks.last().is_none_or(|next| *next > now) {
            return;
        }
        births.checks.pop();
        if let Some(cohorts) = &self.state.cohorts {
            births.check = Looking::start(births.target, &births.lists, cohorts.candidates());
        }
    }

    fn finish_check(&mut self, check: Looking) {
        let (looks, time, seen) = check.finish();
        self.drain_rest();
        self.state.work_off(Duration::MAX);
        if let Some(cohorts) = &mut self.state.cohorts {
            cohorts.checked(time, &looks, &seen);
        }
    }
}

/// Of the most hits, those at which a look is due.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a cast from float saturates, and a few hits more or less do not matter"
)]
fn part(hits_max: u64) -> u64 {
    (hits_max as f64 / LEEWAY * LOOK_AT) as u64
}

/// The processor time of a process, all of its threads.
fn processor(root: &ProcRoot, pid: u32) -> Option<Duration> {
    stat::read(root, pid).ok().map(|stat| stat.processor)
}
