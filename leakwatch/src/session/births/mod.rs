//! Births of blocks, watched in bursts over the window, and what was born looked at again: the target's, and those of
//! children that stay (`members`).
//!
//! A stretch (`stretch`) is from when the probes are put into the processes' text to when they are taken out. What was born in it is
//! looked at near its end, while a later birth at the same address would still be seen; what was born just before is
//! left out, since it may be gone at once. Two checks over the window tell young blocks from those that stay, and the
//! census at its end has the last word (`survivors`).

mod look;
mod members;
mod queue;
mod stretch;

use std::collections::BTreeMap;
use std::time::Duration;

use leakwatch_ebpf::wire::{Counter, SAMPLE_ALL};

use super::RecordOptions;
use super::priority::Priority;
use super::process::monotonic_ns;
use super::state::State;
use super::watch::{DRAIN_MAX, Watch};
use crate::births::cohorts::Look;
use crate::births::{Bursts, Checks, Cohorts, Extent, GLANCE, HitCost, Hits, NO_BUDGET, Plan};
use crate::probe::Probe;
use crate::probe::allocs::{AllocHolders, AllocMethod};
use crate::sampler::ProcRoot;
use crate::target::entry_points::EntryPoints;

use look::{Looking, Wanted};
use members::Member;
pub(super) use queue::Queue;
use stretch::Stretch;

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

/// In a stretch that is longer than this, births are unwound while it lasts, for so long at once.
const LONG: Duration = Duration::from_millis(200);
const SLICE: Duration = Duration::from_millis(1);

/// What is known before the window, while nothing is watched yet.
pub(super) struct Prepared {
    /// Of the target, or why its own births are not to be watched: its children's may.
    points: Result<Points, String>,
    method: AllocMethod,
    cost: HitCost,
}

/// What puts the probes into a process's text.
struct Points {
    holders: AllocHolders,
    /// The deepest that a thread's own stack goes, bytes.
    stack_bytes_max: u64,
}

impl Points {
    fn hold(probe: &Probe, pid: u32, points: &EntryPoints) -> Result<Self, String> {
        let holders = probe.hold_allocs(pid, points);
        Ok(Self {
            holders: holders.map_err(|error| error.to_string())?,
            stack_bytes_max: points.stack_bytes_max,
        })
    }
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
    let points = match members::entry_points(pid) {
        Err(why) if !options.follow_children => return Err(why),
        points => points,
    };
    let method = probe.load_allocs().map_err(|error| error.to_string())?;
    if method == AllocMethod::Events && options.allocs == AllocsChoice::Auto {
        return Err(
            "kernels before 6.6 take more than a second to take the probes out of the text (--allocs always does it)"
                .to_owned(),
        );
    }
    let cost = probe.calibrate_allocs().map_err(|error| error.to_string())?;
    Ok(Prepared {
        points: points.and_then(|points| Points::hold(probe, pid, &points)),
        method,
        cost,
    })
}

/// Births in the window.
pub(super) struct BirthWatch {
    /// By PID: the target, and children that have joined it.
    members: BTreeMap<u32, Member>,
    pub method: AllocMethod,
    pub bursts: Bursts,
    phase: Phase,
    /// Of members that are gone.
    processor_gone: Duration,
    /// The kernel's counters when the window began, and up to where the bursts were told of them.
    hits_before: Hits,
    told: Hits,
    lost_before: u64,
    /// Births in so much of the window could be followed.
    pub followed: Extent,
    /// Bursts that had spent what they might before all was looked at.
    pub cut: u64,
    checks: Checks,
    check: Option<Looking>,
    /// How far the window had come when it began, and in how much of it births could be followed by then.
    begun: (Extent, Extent),
    /// The same of the latest that has ended.
    checked: Option<(Extent, Extent)>,
    /// A look that has ended, and was not told to the cohorts yet.
    looked: Option<Looking>,
    /// Why births are watched no longer.
    pub given_up: Option<String>,
}

enum Phase {
    Waiting { until: Duration },
    Watching(Box<Stretch>),
    Over,
}

impl BirthWatch {
    /// When there is something to do next, as time of the window.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        /// The probes are not to stay longer than it takes to look.
        const SOON: Duration = Duration::from_millis(1);
        let phase = match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Watching(stretch) if stretch.looking.is_none() => {
                // In a burst more hits may come than were expected: then the look is due earlier.
                let glance = stretch.urgent.is_some().then_some(now + GLANCE);
                Some(glance.map_or(stretch.until, |glance| glance.min(stretch.until)))
            }
            Phase::Watching(_) => Some(now + SOON),
            Phase::Over => None,
        };
        let check = self.checks.next().filter(|_| self.check.is_none());
        [phase, check].into_iter().flatten().min()
    }

    /// Whether the probes are in the target's text, for a short while.
    pub fn is_in_burst(&self) -> bool {
        matches!(&self.phase, Phase::Watching(stretch) if stretch.urgent.is_some())
    }

    /// How far the window had come at the latest check, and in how much of it births could be followed by then.
    pub fn latest_check(&self) -> Option<(Extent, Extent)> {
        self.checked
    }

    /// All hits of the window.
    pub fn hits(&self, probe: &Probe) -> Hits {
        probe
            .counts()
            .map_or(self.told, |counts| counts.hits())
            .since(&self.hits_before)
    }

    fn look_at_clock(&mut self, root: &ProcRoot) {
        members::look_at_clocks(&mut self.members, root);
    }

    /// How far the window has come, by the clock and by what the processes did in it.
    fn extent_now(&mut self, state: &State, probe: &Probe) -> Extent {
        self.look_at_clock(&state.root);
        let hits = probe.counts().map_or(self.told, |counts| counts.hits());
        Extent {
            time: state.began.elapsed(),
            processor: self.processor(),
            probes: reckoned(self.bursts.spent_with(&hits.since(&self.told))),
        }
    }

    /// The whole window, once it has ended.
    pub fn extent_of_window(&self, time: Duration) -> Extent {
        Extent {
            time,
            processor: self.processor(),
            probes: reckoned(self.bursts.spent()),
        }
    }

    /// The processor time that the processes have used in the window so far, since they are watched.
    pub fn processor(&self) -> Duration {
        self.members
            .values()
            .fold(self.processor_gone, |sum, member| sum + member.processor())
    }
}

/// What is reckoned in seconds.
fn reckoned(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Watch {
    /// Births are watched from now on, if the heap was read. If it was not, those of children may still be.
    pub fn begin_births(&mut self, prepared: Prepared, options: &RecordOptions) {
        let pid = options.target.pid;
        let Prepared { points, method, cost } = prepared;
        let heap = self.state.heaps.entry(pid).or_default();
        let mut members = BTreeMap::new();
        match points.and_then(|points| Member::new(&self.state.root, pid, &heap.censuses, points)) {
            Ok(member) => {
                members.insert(pid, member);
                heap.cohorts = Some(Cohorts::new(SAMPLE_ALL));
            }
            Err(why) if options.follow_children => {
                self.state.allocs_not_watched = Some(format!("those of the process itself, as {why}"));
            }
            Err(why) => {
                self.state.allocs_not_watched = Some(why);
                return;
            }
        }
        let counts = self.probe.counts().unwrap_or_default();
        let fraction = match options.allocs {
            AllocsChoice::Always => NO_BUDGET,
            AllocsChoice::Auto | AllocsChoice::Never => options.allocs_budget,
        };
        let bursts = Bursts::new(Plan {
            window: options.ends_after(),
            fraction,
            cost,
            seed: monotonic_ns(),
        });
        self.births = Some(BirthWatch {
            members,
            method,
            bursts,
            phase: Phase::Waiting {
                until: Duration::ZERO,
            },
            processor_gone: Duration::ZERO,
            hits_before: counts.hits(),
            told: counts.hits(),
            lost_before: counts.get(Counter::LostAllocs),
            followed: Extent::default(),
            cut: 0,
            checks: Checks::of(options.ends_after()),
            check: None,
            begun: (Extent::default(), Extent::default()),
            checked: None,
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
        births.checks.end();
        births.look_at_clock(&self.state.root);
        if let Some(check) = births.check.take() {
            self.finish_check(check);
        }
        if !self.state.target_gone() {
            self.begin_look(&mut births);
            if let Phase::Watching(stretch) = &mut births.phase {
                births.looked = stretch.looking.take();
            }
        }
        self.tell(&mut births);
        self.end_stretch(&mut births);
        births.phase = Phase::Over;
        self.births = Some(births);
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
            Some(check) if check.is_finished() => {
                self.finish_check(check);
                births.checked = Some(births.begun);
            }
            running => births.check = running,
        }
        let now = self.state.began.elapsed();
        if births.check.is_some() || births.checks.next().is_none_or(|next| next > now) {
            return;
        }
        births.checks.begun();
        births.begun = (births.extent_now(&self.state, &self.probe), births.followed);
        // In a burst, where a look is to go first, it has time.
        let _ordinary = Priority::ordinary();
        births.check = Looking::start(self.wanted(&births.members, |_, cohorts| cohorts.candidates()));
    }

    /// What is to be looked at in each of the processes.
    fn wanted(
        &self,
        members: &BTreeMap<u32, Member>,
        looks: impl Fn(u32, &Cohorts) -> Vec<Look>,
    ) -> Vec<Wanted> {
        let of_member = |(pid, member): (&u32, &Member)| {
            let cohorts = self.state.heaps.get(pid)?.cohorts.as_ref()?;
            Some(Wanted {
                pid: *pid,
                lists: member.lists(),
                looks: looks(*pid, cohorts),
            })
        };
        members.iter().filter_map(of_member).collect()
    }

    fn finish_check(&mut self, check: Looking) {
        let (time, seen) = check.finish();
        self.drain_rest();
        self.state.work_off(Duration::MAX);
        for (wanted, seen) in seen {
            if let Some(cohorts) = self.state.cohorts_of(wanted.pid) {
                cohorts.checked(time, &wanted.looks, &seen);
            }
        }
    }
}
