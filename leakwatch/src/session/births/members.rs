//! The processes whose births are watched: the target, and those of its children that stay.
//!
//! A child is none of them at its birth: most children are gone, or another program, before a second is over. What it gains
//! until it has joined is told by its pages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::SAMPLE_ALL;

use super::{BirthWatch, Phase, Points};
use crate::births::Cohorts;
use crate::census::watched::Lists;
use crate::probe::ProbeError;
use crate::probe::allocs::AllocHolders;
use crate::sampler::{ProcRoot, cpu_clock, stat};
use crate::session::RecordOptions;
use crate::session::heap::Censuses;
use crate::session::process::page_bytes;
use crate::session::state::State;
use crate::session::watch::Watch;
use crate::target::entry_points::{EntryPoints, safe_to_probe};
use crate::target::{Proc, allocator};

/// So many at most: for each the kernel takes milliseconds to put the probes in.
const MEMBERS_MAX: usize = 16;
/// A child joins when it is so old.
const SETTLED: Duration = Duration::from_secs(1);
/// Children join one after the other for so long, and no sooner again than after so many times what that took.
const JOINING: Duration = Duration::from_millis(10);
const JOINING_APART: u32 = 4;
/// They are looked for this often.
const JOINING_EVERY: Duration = Duration::from_millis(200);

/// One process whose births are watched.
pub(super) struct Member {
    points: Points,
    lists: Arc<Lists>,
    /// The processor time that the process had used when it came to be watched, and at the last look.
    processor_before: Duration,
    processor: Duration,
}

impl Member {
    /// A process whose heap was read.
    ///
    /// # Errors
    ///
    /// Why its births are not to be watched: they could not be looked at.
    pub fn new(root: &ProcRoot, pid: u32, censuses: &Censuses, points: Points) -> Result<Self, String> {
        let lists = lists(censuses)?;
        let processor = processor(root, pid).unwrap_or_default();
        Ok(Self {
            points,
            lists: Arc::new(lists),
            processor_before: processor,
            processor,
        })
    }

    pub fn holders(&self) -> &AllocHolders {
        &self.points.holders
    }

    pub fn stack_bytes_max(&self) -> u64 {
        self.points.stack_bytes_max
    }

    pub fn lists(&self) -> Arc<Lists> {
        Arc::clone(&self.lists)
    }

    fn look_at_clock(&mut self, root: &ProcRoot, pid: u32) {
        // Of a process that is gone the last look stands.
        if let Some(processor) = processor(root, pid) {
            self.processor = processor;
        }
    }

    /// What the process has used since it is watched.
    pub fn processor(&self) -> Duration {
        self.processor.saturating_sub(self.processor_before)
    }
}

fn lists(censuses: &Censuses) -> Result<Lists, String> {
    let Some(start) = &censuses.start else {
        let why = censuses.not_taken.as_deref();
        return Err(format!(
            "the heap was not read {}",
            why.unwrap_or("at the window's start")
        ));
    };
    let lists = start.census.lists.clone();
    lists.ok_or_else(|| "the heap's free lists were not found".to_owned())
}

/// Where the allocator's functions of a process are.
///
/// # Errors
///
/// Why they must not be watched, in words.
pub(super) fn entry_points(pid: u32) -> Result<EntryPoints, String> {
    let allocator = allocator::identify(&Proc::host(), pid).map_err(|error| error.to_string())?;
    safe_to_probe(&Proc::host(), pid, &allocator).map_err(|why| why.to_string())
}

/// The processor time of a process, all of its threads.
fn processor(root: &ProcRoot, pid: u32) -> Option<Duration> {
    cpu_clock::processor(pid).or_else(|| stat::read(root, pid).ok().map(|stat| stat.processor))
}

/// What the processes have used since each is watched, as of now.
pub(super) fn look_at_clocks(members: &mut BTreeMap<u32, Member>, root: &ProcRoot) -> Duration {
    for (pid, member) in members.iter_mut() {
        member.look_at_clock(root, *pid);
    }
    members
        .values()
        .fold(Duration::ZERO, |sum, member| sum + member.processor())
}

impl BirthWatch {
    /// Processes that are gone are watched no longer.
    pub(super) fn part_with_the_gone(&mut self, state: &State) {
        let gone = |pid: &u32| state.processes.get(pid).is_none_or(|process| process.gone);
        let leaving: Vec<u32> = self.members.keys().copied().filter(gone).collect();
        for pid in leaving {
            if let Some(member) = self.members.remove(&pid) {
                self.processor_gone += member.processor();
            }
        }
    }

    /// Whether births are still to come.
    fn goes_on(&self) -> bool {
        self.given_up.is_none() && !matches!(self.phase, Phase::Over)
    }
}

impl State {
    pub(super) fn cohorts_of(&mut self, pid: u32) -> Option<&mut Cohorts> {
        self.heaps.get_mut(&pid)?.cohorts.as_mut()
    }

    /// Which blocks are in the sample: as few as in the smallest of all.
    pub(super) fn births_threshold(&self) -> u64 {
        let cohorts = self.heaps.values().filter_map(|heap| heap.cohorts.as_ref());
        cohorts.map(Cohorts::threshold).min().unwrap_or(SAMPLE_ALL)
    }

    /// All processes' blocks are sampled alike.
    pub(super) fn lower_births(&mut self, threshold: u64) {
        for cohorts in self.heaps.values_mut().filter_map(|heap| heap.cohorts.as_mut()) {
            if cohorts.threshold() > threshold {
                cohorts.lower(threshold);
            }
        }
    }

    /// The probes could not be put into the text of these. A child may have just ended; one that has not is watched no longer,
    /// and counted. Without the target the watching is over.
    pub(super) fn part_with_the_refused(
        &mut self,
        births: &mut BirthWatch,
        refused: Vec<(u32, ProbeError)>,
    ) -> Result<(), ProbeError> {
        for (pid, error) in refused {
            if pid == self.target {
                return Err(error);
            }
            if let Some(member) = births.members.remove(&pid) {
                births.processor_gone += member.processor();
            }
            if let Some(heap) = self.heaps.get_mut(&pid) {
                heap.cohorts = None;
            }
            if self.processes.get(&pid).is_some_and(|process| !process.gone) {
                *self.children_not_watched.entry(error.to_string()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Children that have stayed and were not asked yet.
    fn waiting_children(&self) -> Vec<u32> {
        let settled = self.processes.values().filter(|process| {
            process.parent.is_some() && !process.gone && process.since.elapsed() >= SETTLED
        });
        let waiting = settled.filter(|process| !self.heaps.contains_key(&process.pid));
        waiting.map(|process| process.pid).collect()
    }
}

impl Watch {
    /// Lets children that have stayed join those whose births are watched. Not in a burst: it takes some time. Returns when
    /// to ask again.
    ///
    /// # Errors
    ///
    /// When a thread of leakwatch's own failed.
    pub fn join_children(&mut self, options: &RecordOptions) -> anyhow::Result<Instant> {
        let began = Instant::now();
        for pid in self.state.waiting_children() {
            let Some(births) = self.births.as_ref().filter(|births| births.goes_on()) else {
                break;
            };
            if began.elapsed() >= JOINING {
                break;
            }
            let joined = if births.members.len() >= MEMBERS_MAX {
                // It is not asked again: who leaves makes room for those to come.
                self.state.heaps.entry(pid).or_default();
                Err(format!("those of {MEMBERS_MAX} processes are"))
            } else {
                self.join(pid, options)?
            };
            if let Err(why) = joined {
                *self.state.children_not_watched.entry(why).or_default() += 1;
            }
        }
        let took = began.elapsed();
        Ok(Instant::now() + JOINING_EVERY.max(took.saturating_mul(JOINING_APART)))
    }

    /// At the window's end: those whose turn never came.
    pub fn count_unasked_children(&mut self) {
        // Its own end comes with the window's.
        if self
            .births
            .as_ref()
            .is_none_or(|births| births.given_up.is_some())
        {
            return;
        }
        let unasked = self.state.waiting_children().len() as u64;
        if unasked > 0 {
            let why = "the window was over before their turn".to_owned();
            *self.state.children_not_watched.entry(why).or_default() += unasked;
        }
    }

    /// The inner error: why it did not join.
    fn join(&mut self, pid: u32, options: &RecordOptions) -> anyhow::Result<Result<(), String>> {
        let read = self.count_heap(pid, options, Vec::new())?;
        self.note_heap_at_start(pid, read);
        let points = self.drain_while(move || entry_points(pid))?;
        let joined = points.and_then(|points| {
            let points = Points::hold(&self.probe, pid, &points)?;
            let censuses = &self.state.heaps.entry(pid).or_default().censuses;
            Member::new(&self.state.root, pid, censuses, points)
        });
        self.drain_rest();
        let living = self.state.processes.get(&pid).filter(|process| !process.gone);
        let Some((process, births)) = living.zip(self.births.as_mut()) else {
            // What was found may be another's of this number.
            return Ok(Ok(()));
        };
        let member = match joined {
            Ok(member) => member,
            Err(why) => return Ok(Err(why)),
        };
        let had = process.heap_before.saturating_mul(page_bytes());
        let known = process.pages.before_known();
        let threshold = self.state.births_threshold();
        let joined = births.extent_now(&self.state, &self.probe);
        let heap = self.state.heaps.entry(pid).or_default();
        let kept = heap.censuses.start.as_ref().and_then(|start| start.kept);
        if let Some(kept) = kept.filter(|_| known) {
            heap.unread = kept.heap_bytes.cast_signed().saturating_sub(had.cast_signed());
        }
        heap.since = joined;
        heap.followed_before = births.followed;
        heap.cohorts = Some(Cohorts::new(threshold));
        births.members.insert(pid, member);
        Ok(Ok(()))
    }

    /// A child has joined while the probes are in the others' text, and stay there.
    pub(super) fn attach_joined(&mut self, births: &mut BirthWatch) -> Result<(), ProbeError> {
        let Phase::Watching(stretch) = &mut births.phase else {
            return Ok(());
        };
        let joined = births
            .members
            .iter()
            .filter(|(pid, _)| !stretch.links.are_in(**pid));
        let joined: Vec<&AllocHolders> = joined.map(|(_, member)| member.holders()).collect();
        if joined.is_empty() {
            return Ok(());
        }
        let (links, refused) = AllocHolders::attach_all(&joined);
        stretch.links.join(links);
        self.state.part_with_the_refused(births, refused)
    }
}
