//! Page faults of a process: one perf software event on each of its threads.
//!
//! Cheaper than the tracepoint by measurement, for the target and for everybody else on the host; it sees faults taken
//! in kernel mode, and exists on every architecture. The events are inherited by the threads (and children) that an
//! attached thread starts; the program itself lets only watched processes through.

use std::collections::BTreeSet;
use std::io;

use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{PerfEvent, ProgramError};

use super::{Probe, ProbeError, chain, not_permitted};

pub(super) const PROGRAM: &str = "page_fault";

/// Rounds of listing threads before giving up on a target that starts them faster than they can be listed. Threads
/// that an attached one started are covered all the same.
const ROUNDS_MAX: usize = 20;

/// How much of a process is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCoverage {
    /// Threads that the event was opened on.
    pub threads: usize,
    /// Threads that it could not be opened on, other than because they were gone.
    pub refused: usize,
    /// Whether the last listing showed no new thread: then none has been missed.
    pub complete: bool,
}

impl Probe {
    /// Opens the fault event on every thread of a process, until a listing shows none that is new: a thread that was
    /// started by one not yet covered shows in the next listing, one started by a covered thread inherits.
    ///
    /// A thread may so be covered twice, by inheritance and by name; its faults then come twice in a row, which is for
    /// the consumer to fold.
    ///
    /// # Errors
    ///
    /// When no thread can be covered at all, or the threads cannot be listed.
    pub fn watch_faults(
        &mut self,
        threads: impl FnMut() -> io::Result<Vec<u32>>,
    ) -> Result<FaultCoverage, ProbeError> {
        self.watch_faults_each(1, threads)
    }

    /// [`Self::watch_faults`] of every `period`-th fault only. To measure what the program costs: which pages would be
    /// seen is chance, and no sample by address.
    #[doc(hidden)]
    pub fn watch_faults_each(
        &mut self,
        period: u64,
        mut threads: impl FnMut() -> io::Result<Vec<u32>>,
    ) -> Result<FaultCoverage, ProbeError> {
        let mut seen = BTreeSet::new();
        let mut coverage = FaultCoverage::default();
        let mut refusal = None;
        for _ in 0..ROUNDS_MAX {
            let listed = threads().map_err(|error| attach_error(error.to_string()))?;
            let new: Vec<u32> = listed.into_iter().filter(|tid| seen.insert(*tid)).collect();
            if new.is_empty() {
                coverage.complete = true;
                break;
            }
            for tid in new {
                match self.open_fault_event(tid, period) {
                    Ok(()) => coverage.threads += 1,
                    Err(error) if is_gone(&error) => {}
                    Err(error) => {
                        coverage.refused += 1;
                        refusal.get_or_insert(error);
                    }
                }
            }
        }
        match refusal {
            Some(error) if coverage.threads == 0 => Err(if not_permitted(&error) {
                ProbeError::NotPermitted
            } else {
                attach_error(chain(&error))
            }),
            _ => Ok(coverage),
        }
    }

    fn open_fault_event(&mut self, tid: u32, period: u64) -> Result<(), ProgramError> {
        let program: &mut PerfEvent = self
            .ebpf
            .program_mut(PROGRAM)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        program
            .attach(
                PerfEventConfig::Software(SoftwareEvent::PageFaults),
                PerfEventScope::OneProcess { pid: tid, cpu: None },
                SamplePolicy::Period(period),
                true,
            )
            .map(drop)
    }

    /// Sets which pages are in the sample: those with `page_hash < threshold`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map entry.
    pub fn set_sample_threshold(&mut self, threshold: u64) -> Result<(), ProbeError> {
        self.sample
            .set(0, threshold, 0)
            .map_err(|error| super::map_error("SAMPLE", &error))
    }
}

/// ESRCH: the thread ended between the listing and now.
fn is_gone(error: &ProgramError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error() == Some(libc::ESRCH);
        }
        next = error.source();
    }
    false
}

fn attach_error(reason: String) -> ProbeError {
    ProbeError::Attach {
        program: PROGRAM,
        point: "the page-fault event",
        reason,
    }
}
