//! Page faults of a process: one perf software event on each of its threads, or a tracepoint of the whole host.
//!
//! The event is cheaper by measurement, for the target and for everybody else on the host; it sees faults taken in
//! kernel mode, and exists on every architecture. The events are inherited by the threads (and children) that an
//! attached thread starts; the program itself lets only watched processes through. Where the event is refused (by a
//! seccomp filter or a security module, say) the tracepoint stands in: it sees faults taken in user mode only, and
//! every process of the host pays for its own faults.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{PerfEvent, ProgramError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::attach::{self, AttachKind, AttachPoint};
use super::{Probe, ProbeError, chain, not_permitted};

pub(super) const PROGRAM: &str = "page_fault";

/// What stands in for the event. Not in the table of what is always attached.
pub const TRACEPOINT: AttachPoint = AttachPoint {
    program: "page_fault_user",
    kind: AttachKind::Tracepoint,
    category: "exceptions",
    name: "page_fault_user",
    since: (3, 13),
    loss: Some("where the page-fault event is refused, pages have no call site"),
};

/// Rounds of listing threads before giving up on a target that starts them faster than they can be listed. Threads
/// that an attached one started are covered all the same.
const ROUNDS_MAX: usize = 20;

/// Which way faults are to be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultChoice {
    /// By the event; by the tracepoint where the event is refused on every thread.
    #[default]
    Auto,
    /// By the event or not at all.
    Event,
    Tracepoint,
    Never,
}

/// Which way faults are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultSource {
    /// The perf software event: faults in user mode and in kernel mode.
    Event,
    /// The tracepoint `exceptions:page_fault_user`: faults in user mode only.
    Tracepoint,
}

/// How much of a process is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCoverage {
    /// `None` where faults are not watched.
    pub source: Option<FaultSource>,
    /// Threads that the event was opened on. The tracepoint needs none.
    pub threads: usize,
    /// Threads that it could not be opened on, other than because they were gone: their faults are not seen. 0 with the
    /// tracepoint.
    pub refused: usize,
    /// Whether no thread has been missed: the last listing showed no new one, or the tracepoint sees them all.
    pub complete: bool,
}

impl Probe {
    /// Watches the faults of a process, all of whose threads `threads` lists.
    ///
    /// By the event, it is opened on every thread until a listing shows none that is new: a thread that was started by
    /// one not yet covered shows in the next listing, one started by a covered thread inherits. A thread may so be
    /// covered twice, by inheritance and by name; its faults then come twice in a row, which is for the consumer to
    /// fold. So do those of a process with the event once the tracepoint had to be attached for another.
    ///
    /// The tracepoint is attached once and covers every watched process; from then on nothing else is tried for any.
    ///
    /// # Errors
    ///
    /// When the threads cannot be listed, or neither way that the choice allows is possible.
    pub fn watch_faults(
        &mut self,
        choice: FaultChoice,
        threads: impl FnMut() -> io::Result<Vec<u32>>,
    ) -> Result<FaultCoverage, ProbeError> {
        match choice {
            FaultChoice::Never => return Ok(FaultCoverage::default()),
            FaultChoice::Tracepoint => return self.watch_faults_of_all(),
            FaultChoice::Auto if self.fault_tracepoint => return self.watch_faults_of_all(),
            FaultChoice::Auto | FaultChoice::Event => {}
        }
        raise_descriptor_limit();
        let (coverage, refusal) = cover(threads, |tid| self.open_fault_event(tid, 1))?;
        let Some(refusal) = refusal.filter(|_| coverage.threads == 0) else {
            return Ok(coverage);
        };
        let refused = if not_permitted(&refusal) {
            ProbeError::NotPermitted
        } else {
            attach_error(chain(&refusal))
        };
        if choice == FaultChoice::Event {
            return Err(refused);
        }
        // What stood in the way of the event is the better story: the tracepoint is missing on some machines by design.
        self.watch_faults_of_all().map_err(|_| refused)
    }

    /// The event of every `period`-th fault only, on all threads. To measure what the program costs: which pages would be
    /// seen is chance, and no sample by address.
    ///
    /// # Errors
    ///
    /// As of [`Self::watch_faults`].
    #[doc(hidden)]
    pub fn watch_faults_each(
        &mut self,
        period: u64,
        threads: impl FnMut() -> io::Result<Vec<u32>>,
    ) -> Result<FaultCoverage, ProbeError> {
        match cover(threads, |tid| self.open_fault_event(tid, period))? {
            (coverage, Some(refusal)) if coverage.threads == 0 => Err(attach_error(chain(&refusal))),
            (coverage, _) => Ok(coverage),
        }
    }

    fn watch_faults_of_all(&mut self) -> Result<FaultCoverage, ProbeError> {
        if !self.fault_tracepoint {
            let ebpf = self
                .ebpf
                .as_mut()
                .ok_or_else(|| attach_error("it was detached".to_owned()))?;
            attach::one(ebpf, &TRACEPOINT)?;
            self.fault_tracepoint = true;
        }
        Ok(FaultCoverage {
            source: Some(FaultSource::Tracepoint),
            threads: 0,
            refused: 0,
            complete: true,
        })
    }

    fn open_fault_event(&mut self, tid: u32, period: u64) -> Result<(), ProgramError> {
        let program: &mut PerfEvent = self
            .ebpf
            .as_mut()
            .and_then(|ebpf| ebpf.program_mut(PROGRAM))
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

    /// Which pages are in the sample now. The kernel side lowers it by itself while the ring fills beyond its half.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn sample_threshold(&self) -> Result<u64, ProbeError> {
        self.sample
            .get(&0, 0)
            .map_err(|error| super::map_error("SAMPLE", &error))
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

/// Lists and opens until nothing is new. Returns the first refusal as well.
fn cover(
    mut threads: impl FnMut() -> io::Result<Vec<u32>>,
    mut open: impl FnMut(u32) -> Result<(), ProgramError>,
) -> Result<(FaultCoverage, Option<ProgramError>), ProbeError> {
    let mut seen = BTreeSet::new();
    let mut coverage = FaultCoverage {
        source: Some(FaultSource::Event),
        ..FaultCoverage::default()
    };
    let mut refusal = None;
    for _ in 0..ROUNDS_MAX {
        let listed = threads().map_err(|error| attach_error(error.to_string()))?;
        let new: Vec<u32> = listed.into_iter().filter(|tid| seen.insert(*tid)).collect();
        if new.is_empty() {
            coverage.complete = true;
            break;
        }
        for tid in new {
            match open(tid) {
                Ok(()) => coverage.threads += 1,
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    coverage.refused += 1;
                    refusal.get_or_insert(error);
                }
            }
        }
    }
    Ok((coverage, refusal))
}

/// Each thread takes a descriptor or two, and the usual soft limit is 1024: a target of many threads would be covered
/// in part. Where the limit cannot be raised, that is what happens, and `refused` says so.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = setrlimit(Resource::Nofile, raised);
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

/// Opens the page-fault event on a thread (0 for the calling one) and closes it again, with nothing behind it.
///
/// # Errors
///
/// The kernel's reason for the refusal; ESRCH where there is no such thread.
pub fn fault_event_opens(tid: u32) -> io::Result<()> {
    /// `struct perf_event_attr` of linux/perf_event.h in its first version.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        sample_period: u64,
        sample_type: u64,
        read_format: u64,
        flags: u64,
        wakeup_events: u32,
        breakpoint_type: u32,
        config1: u64,
    }
    const SIZE: u32 = 64;
    const _: () = assert!(size_of::<Attributes>() == SIZE as usize);
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    const DISABLED: u64 = 1;
    const INHERIT: u64 = 1 << 1;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: SIZE,
        config: PERF_COUNT_SW_PAGE_FAULTS,
        sample_period: 1,
        sample_type: 0,
        read_format: 0,
        flags: DISABLED | INHERIT,
        wakeup_events: 0,
        breakpoint_type: 0,
        config1: 0,
    };
    let tid = libc::pid_t::try_from(tid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let any: libc::c_int = -1;
    // SAFETY: the kernel reads as many bytes as the structure says it has, and keeps no pointer to it.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            tid,
            any,
            any,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match RawFd::try_from(descriptor) {
        // SAFETY: the descriptor was just handed out, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => drop(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => return Err(io::Error::last_os_error()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    fn error(number: i32) -> ProgramError {
        ProgramError::SyscallError(SyscallError {
            call: "perf_event_open",
            io_error: io::Error::from_raw_os_error(number),
        })
    }

    #[test]
    fn threads_that_start_meanwhile_are_found() {
        let mut listings = [vec![7], vec![7, 8], vec![7, 8, 9], vec![7, 9]].into_iter();
        let mut opened = Vec::new();
        let (coverage, refusal) = cover(
            || {
                Ok(listings
                    .next()
                    .expect("no listing after one without a new thread"))
            },
            |tid| {
                opened.push(tid);
                if tid == 8 { Err(error(libc::ESRCH)) } else { Ok(()) }
            },
        )
        .unwrap();
        assert_eq!(opened, [7, 8, 9]);
        assert!(refusal.is_none(), "a thread that is gone was not refused");
        assert_eq!(
            (coverage.threads, coverage.refused, coverage.complete),
            (2, 0, true)
        );
    }

    #[test]
    fn refusals_are_counted_and_the_first_is_told() {
        let (coverage, refusal) = cover(
            || Ok(vec![1, 2, 3]),
            |tid| match tid {
                1 => Ok(()),
                2 => Err(error(libc::EMFILE)),
                _ => Err(error(libc::EPERM)),
            },
        )
        .unwrap();
        assert_eq!(
            (coverage.threads, coverage.refused, coverage.complete),
            (1, 2, true)
        );
        assert!(refusal.is_some_and(|error| !not_permitted(&error)));
    }

    #[test]
    fn a_target_that_outruns_the_listing_is_not_complete() {
        let mut tid = 0;
        let (coverage, _) = cover(
            || {
                tid += 1;
                Ok(vec![tid])
            },
            |_| Ok(()),
        )
        .unwrap();
        assert_eq!((coverage.threads, coverage.complete), (ROUNDS_MAX, false));
    }

    #[test]
    fn the_event_of_a_thread_that_is_not_there() {
        let gone = |tid| fault_event_opens(tid).unwrap_err().raw_os_error();
        assert_eq!(gone(u32::MAX), Some(libc::ESRCH));
        // Beyond the largest number that the kernel gives.
        assert!(matches!(
            gone(4_194_305),
            Some(libc::ESRCH | libc::EACCES | libc::EPERM)
        ));
    }
}
