//! Births: the allocator's functions of one process, watched in bursts.
//!
//! Processes that hold the probes are made first ([`Probe::hold_allocs`]). A burst is begun ([`Probe::begin_burst`]),
//! attached ([`AllocHolders::attach`]) and detached by dropping the [`AllocLinks`]; everything else of the probe stays as it
//! is.
//! [`Probe::end_burst`] comes before that: the kernel takes some milliseconds to clear the text, and a hit then costs
//! less. Between bursts nothing is in the target's text. The probes hang on descriptors of processes that end when leakwatch
//! does, however it ends (`holder`).
//!
//! Three ways to attach, the newest that the kernel has: a uprobe session at all places at once (Linux 6.13: the return
//! address is replaced only where the entry says so), a uprobe link for the entries and one for the returns (6.6), or two
//! perf events for each place, of which each takes a while.

mod calibrate;
mod holder;
mod programs;

#[cfg(test)]
mod live_tests;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use leakwatch_ebpf::wire::Counter;
use leakwatch_ebpf::wire::alloc::{Burst, BurstState};

use super::bpf_call::{self, AttachType, UprobeEvents};
use super::{Counts, Probe, ProbeError, map_error, take};
use crate::births::Hits;
use crate::target::entry_points::{EntryPoint, EntryPoints};
use holder::Holder;
pub(super) use programs::Maps;

/// The programs, for the check of the object.
pub(super) const PROGRAMS: [&str; 3] = [ENTER, RETURN, SESSION];
const ENTER: &str = "alloc_enter";
const RETURN: &str = "alloc_return";
const SESSION: &str = "alloc_session";

/// How the functions are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocMethod {
    /// One link for all entries and returns (Linux 6.13).
    Session,
    /// One link for all entries and one for all returns (Linux 6.6).
    Multi,
    /// Two perf events for each function (Linux 5.15).
    Events,
}

impl AllocMethod {
    const ALL: [Self; 3] = [Self::Session, Self::Multi, Self::Events];

    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Multi => "multi",
            Self::Events => "events",
        }
    }
}

/// What a burst may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BurstLimits {
    /// Blocks of which `block_in_sample` holds at this threshold are told.
    pub threshold: u64,
    /// After about so many hits the programs do nothing more, and the ring's descriptor is readable.
    pub hits_max: u64,
    /// The deepest that a thread's own stack goes, bytes.
    pub stack_bytes_max: u64,
}

// SAFETY: repr(C), made of u64 alone.
unsafe impl aya::Pod for PlainBurst {}
// SAFETY: as above.
unsafe impl aya::Pod for PlainState {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PlainBurst(Burst);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PlainState(BurstState);

/// The kernel side of births.
pub(super) struct Allocs {
    maps: Maps,
    burst: Array<MapData, PlainBurst>,
    state: Array<MapData, PlainState>,
    programs: Option<Programs>,
    /// Of the last burst.
    number: u64,
    limits: BurstLimits,
}

struct Programs {
    method: AllocMethod,
    enter: OwnedFd,
    /// [`AllocMethod::Session`] needs none.
    returns: Option<OwnedFd>,
}

impl Allocs {
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, ProbeError> {
        Ok(Self {
            maps: Maps::of(ebpf)?,
            burst: Array::try_from(take(ebpf, "ALLOC_BURST")?).map_err(|e| map_error("ALLOC_BURST", &e))?,
            state: Array::try_from(take(ebpf, "ALLOC_STATE")?).map_err(|e| map_error("ALLOC_STATE", &e))?,
            programs: None,
            number: 0,
            limits: BurstLimits::default(),
        })
    }

    /// Number and limits in turn: a program that runs meanwhile may see any part of what is written at once.
    fn set_burst(&mut self, number: u64, limits: &BurstLimits) -> Result<(), ProbeError> {
        self.burst
            .set(
                0,
                PlainBurst(Burst {
                    number,
                    threshold: limits.threshold,
                    hits_max: limits.hits_max,
                    stack_bytes_max: limits.stack_bytes_max,
                }),
                0,
            )
            .map_err(|error| map_error("ALLOC_BURST", &error))
    }
}

/// Processes of leakwatch's own, one for each link of the probes in the text of one target. They wait for the word, and end
/// when this is dropped or leakwatch ends.
#[derive(Clone, Debug)]
pub struct AllocHolders {
    /// In the order in which they attach. Detaching begins with the last.
    holders: Arc<[Holder]>,
    pid: u32,
}

impl AllocHolders {
    /// Puts the probes into the target's text, for the burst that is under way.
    ///
    /// # Errors
    ///
    /// The kernel's reason: the process is gone, or its file is not what it was; or a holder was killed. Then there are no
    /// probes.
    pub fn attach(&self) -> Result<AllocLinks, ProbeError> {
        let (links, refused) = Self::attach_all(&[self]);
        match refused.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(links),
        }
    }

    /// As [`Self::attach`], into the text of several processes at the same time: each takes milliseconds. With the links
    /// come the processes, by PID, in which there are no probes, and why.
    #[must_use]
    pub fn attach_all(all: &[&Self]) -> (AllocLinks, Vec<(u32, ProbeError)>) {
        let mut refused: Vec<(u32, ProbeError)> = Vec::new();
        let mut parts: Vec<Attached> = all
            .iter()
            .map(|each| Attached {
                pid: each.pid,
                holders: Arc::clone(&each.holders),
                attached: 0,
            })
            .collect();
        let most = all.iter().map(|each| each.holders.len()).max().unwrap_or(0);
        for turn in 0..most {
            let told: Vec<_> = parts.iter().map(|part| part.begin(turn)).collect();
            for (part, told) in parts.iter_mut().zip(told) {
                if let Err(error) = part.finish(turn, told)
                    && !refused.iter().any(|(pid, _)| *pid == part.pid)
                {
                    refused.push((part.pid, refusal(part.pid, &error)));
                }
            }
        }
        // Some of a process's probes are none: dropped, they go.
        let (parts, halves) = parts
            .into_iter()
            .partition(|part| part.attached == part.holders.len());
        drop(AllocLinks { parts: halves });
        (AllocLinks { parts }, refused)
    }
}

/// The probes in the text of one or several processes. Dropping it takes them out, and waits until no program of theirs
/// runs.
#[derive(Debug)]
pub struct AllocLinks {
    parts: Vec<Attached>,
}

/// Of one process.
#[derive(Debug)]
struct Attached {
    pid: u32,
    holders: Arc<[Holder]>,
    /// How many of them have attached, in their order.
    attached: usize,
}

impl Attached {
    /// Has the holder whose turn it is told to attach; `None` where there is no such holder, or one before it failed.
    fn begin(&self, turn: usize) -> Option<io::Result<()>> {
        let holder = self.holders.get(turn).filter(|_| self.attached == turn)?;
        Some(holder.start())
    }

    fn finish(&mut self, turn: usize, told: Option<io::Result<()>>) -> io::Result<()> {
        if let Some((told, holder)) = told.zip(self.holders.get(turn)) {
            told?;
            holder.wait()?;
            self.attached += 1;
        }
        Ok(())
    }
}

impl AllocLinks {
    /// Whether all of the probes are held: who holds them may have been killed, and births went unseen since.
    #[must_use]
    pub fn are_held(&self) -> bool {
        let mut holders = self.parts.iter().flat_map(|part| part.holders.iter());
        holders.all(Holder::is_alive)
    }

    /// Whether they are in the text of this process.
    #[must_use]
    pub fn are_in(&self, pid: u32) -> bool {
        self.parts.iter().any(|part| part.pid == pid)
    }

    /// Takes over what holds others.
    pub fn join(&mut self, mut others: Self) {
        self.parts.append(&mut others.parts);
    }
}

impl Drop for AllocLinks {
    /// All at once: the kernel lets readers' grace periods pass for each link, and those pass for all alike.
    fn drop(&mut self) {
        let attached = |part: &'_ Attached| part.holders.len().min(part.attached);
        let holders = self
            .parts
            .iter()
            .flat_map(|part| part.holders.iter().take(attached(part)).rev());
        let told: Vec<&Holder> = holders.filter(|holder| holder.detach().is_ok()).collect();
        for holder in told {
            // One that has ended has ended its link.
            let _: io::Result<()> = holder.wait();
        }
    }
}

impl Counts {
    /// The calls of the allocator's functions among what was counted.
    #[must_use]
    pub fn hits(&self) -> Hits {
        Hits {
            idle: self.get(Counter::AllocIdle),
            burst: self.get(Counter::AllocHits),
            stepped: self.get(Counter::AllocStepped),
            sampled: self.get(Counter::AllocSampled),
            timed: self.get(Counter::AllocTimed),
            nanoseconds: self.get(Counter::AllocNanoseconds),
        }
    }
}

impl Probe {
    /// Loads the programs for the newest way to attach that this kernel has, once; nothing is attached by that.
    ///
    /// # Errors
    ///
    /// Why the oldest way is not possible.
    pub fn load_allocs(&mut self) -> Result<AllocMethod, ProbeError> {
        if let Some(programs) = &self.allocs.programs {
            return Ok(programs.method);
        }
        let mut refusal = attach_error("no way to attach".to_owned());
        for method in AllocMethod::ALL {
            match self.load_allocs_by(method) {
                Ok(()) => return Ok(method),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// As [`Self::load_allocs`], for one way to attach.
    ///
    /// # Errors
    ///
    /// Why it is not possible.
    pub fn load_allocs_by(&mut self, method: AllocMethod) -> Result<(), ProbeError> {
        let (enter, attach_type, with_return) = match method {
            AllocMethod::Session => (SESSION, AttachType::Session, false),
            AllocMethod::Multi => (ENTER, AttachType::Multi, true),
            AllocMethod::Events => (ENTER, AttachType::Event, true),
        };
        let maps = &self.allocs.maps;
        let programs = Programs {
            method,
            enter: programs::load(maps, enter, attach_type)?,
            returns: with_return
                .then(|| programs::load(maps, RETURN, attach_type))
                .transpose()?,
        };
        // An older kernel loads a program whatever it says of its attaching, and refuses the link.
        programs
            .hold(std::process::id(), &calibrate::own_entry_points()?)?
            .attach()?;
        self.allocs.programs = Some(programs);
        Ok(())
    }

    /// Begins a burst: what is attached from now on is watched. The counters go on; the state begins anew.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map entry.
    pub fn begin_burst(&mut self, limits: &BurstLimits) -> Result<(), ProbeError> {
        self.end_burst()?;
        let allocs = &mut self.allocs;
        allocs
            .state
            .set(0, PlainState(BurstState::default()), 0)
            .map_err(|error| map_error("ALLOC_STATE", &error))?;
        allocs.set_burst(0, limits)?;
        allocs.limits = *limits;
        allocs.number += 1;
        allocs.set_burst(allocs.number, limits)
    }

    /// Changes the limits of the burst that is under way, as for one that is always on. `hits_max` counts from its start.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map entry.
    pub fn set_burst_limits(&mut self, limits: &BurstLimits) -> Result<(), ProbeError> {
        self.allocs.limits = *limits;
        self.allocs.set_burst(self.allocs.number, limits)
    }

    /// Makes the processes that put the probes into the text of a process when they are told to.
    ///
    /// # Errors
    ///
    /// When the programs were not loaded, or there are no processes to be had.
    pub fn hold_allocs(&self, pid: u32, points: &EntryPoints) -> Result<AllocHolders, ProbeError> {
        self.allocs
            .programs
            .as_ref()
            .ok_or_else(|| attach_error("the programs are not loaded".to_owned()))?
            .hold(pid, points)
    }

    /// Puts the probes into the text of a process once, for the burst that is under way.
    ///
    /// # Errors
    ///
    /// As [`Self::hold_allocs`] and [`AllocHolders::attach`].
    pub fn attach_allocs(&self, pid: u32, points: &EntryPoints) -> Result<AllocLinks, ProbeError> {
        self.hold_allocs(pid, points)?.attach()
    }

    /// What became of the burst: `cut` says whether it is over before its time.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn burst_state(&self) -> Result<BurstState, ProbeError> {
        self.allocs
            .state
            .get(&0, 0)
            .map(|state| state.0)
            .map_err(|error| map_error("ALLOC_STATE", &error))
    }

    /// The programs do nothing from now on, attached or not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map entry.
    pub fn end_burst(&mut self) -> Result<(), ProbeError> {
        // The limits stay: a call that is being looked at would be cut by none.
        let limits = self.allocs.limits;
        self.allocs.set_burst(0, &limits)
    }
}

impl Programs {
    fn hold(&self, pid: u32, points: &EntryPoints) -> Result<AllocHolders, ProbeError> {
        // By this name the kernel finds the file that is mapped, whatever stands under its own by now.
        let path = CString::new(format!("/proc/self/fd/{}", points.file.as_raw_fd()))
            .map_err(|error| attach_error(error.to_string()))?;
        let holders = match self.method {
            AllocMethod::Session | AllocMethod::Multi => self.hold_many(pid, points, &path),
            AllocMethod::Events => self.hold_each(pid, points, &path),
        };
        Ok(AllocHolders {
            holders: holders.map_err(|error| refusal(pid, &error))?.into(),
            pid,
        })
    }

    /// In the order in which they are to attach.
    fn hold_many(&self, pid: u32, points: &EntryPoints, path: &CString) -> io::Result<Vec<Holder>> {
        let kind = if self.returns.is_none() {
            AttachType::Session
        } else {
            AttachType::Multi
        };
        let mut holders = Vec::new();
        for group in in_order(&points.points).filter(|group| !group.is_empty()) {
            let offsets: Vec<u64> = group.iter().map(|point| point.offset).collect();
            let cookies: Vec<u64> = group.iter().map(|point| point.cookie().to_bits()).collect();
            // Returns first, so that no entry is seen whose return would be missed.
            for (program, returns) in [(self.returns.as_ref(), true), (Some(&self.enter), false)] {
                let Some(program) = program else { continue };
                let descriptors = [program.as_raw_fd(), points.file.as_raw_fd()];
                holders.push(Holder::of(&descriptors, || {
                    bpf_call::link_many(program.as_fd(), kind, path, &offsets, &cookies, pid, returns)
                })?);
            }
        }
        Ok(holders)
    }

    /// As [`Self::hold_many`].
    fn hold_each(&self, pid: u32, points: &EntryPoints, path: &CString) -> io::Result<Vec<Holder>> {
        let events = UprobeEvents::of_this_kernel()?;
        let mut holders = Vec::new();
        for point in in_order(&points.points).flatten() {
            let cookie = point.cookie().to_bits();
            for (program, returns) in [(self.returns.as_ref(), true), (Some(&self.enter), false)] {
                let Some(program) = program else { continue };
                let descriptors = [program.as_raw_fd(), points.file.as_raw_fd()];
                holders.push(Holder::of(&descriptors, || {
                    let event = events.open(path, point.offset, pid, returns)?;
                    bpf_call::link_event(program.as_fd(), event.as_fd(), cookie)
                })?);
            }
        }
        Ok(holders)
    }
}

/// In the order in which they are put in: the most used function last, by itself. To write to the text the kernel waits
/// for every thread that looks up a probe it has hit, and on a busy machine that takes milliseconds for each function.
fn in_order(points: &[EntryPoint]) -> impl Iterator<Item = Vec<&EntryPoint>> {
    let (most_used, others) = points.split_at(points.len().min(1));
    [others, most_used]
        .into_iter()
        .map(|group| group.iter().rev().collect())
}

fn refusal(pid: u32, error: &io::Error) -> ProbeError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ProbeError::NotPermitted
    } else {
        attach_error(format!("PID {pid}: {error}"))
    }
}

fn attach_error(reason: String) -> ProbeError {
    ProbeError::Attach {
        program: SESSION,
        point: "the allocator's functions",
        reason,
    }
}
