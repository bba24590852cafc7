//! The kernel boundary: loads the object, attaches it, drains its ring, counts its losses.
//!
//! The only stage that imports aya. Nothing here is pinned: every program and map hangs on a file descriptor of this
//! process, so whatever ends it, kill -9 included, takes the kernel side along.

pub mod allocs;
mod attach;
mod bpf_call;
mod event;
mod faults;
mod forks;
#[cfg(feature = "kernel-log")]
mod kernel_log;
mod layout;
#[cfg(test)]
mod live_tests;
mod object;
mod selftest;
pub mod tracefs;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader};
use leakwatch_ebpf::wire::alloc::SLOTS_SPARE;
use leakwatch_ebpf::wire::{COUNTERS, Counter, RECORD_BYTES_MAX, SAMPLE_ALL, STACK_CHUNK_BYTES, watch};

pub use attach::{ATTACH_POINTS, AttachKind, AttachPoint};
pub use event::Event;
pub use faults::{
    FaultChoice, FaultCoverage, FaultSource, TRACEPOINT as FAULT_TRACEPOINT, fault_event_opens,
};
pub use selftest::SelfTest;

/// Limits of one run of the probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// Largest stack snapshot, bytes; at most [`leakwatch_ebpf::wire::STACK_BYTES_MAX`].
    pub stack_bytes: u32,
    /// Size of the ring, bytes: a power of two and a multiple of the page size.
    pub ring_bytes: u32,
}

/// Why the kernel side could not be set up, and what the user can do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the embedded BPF object cannot be used: {0}; rebuild it with `cargo xtask ebpf`")]
    Object(String),
    #[error(transparent)]
    Tracefs(#[from] tracefs::TracefsError),
    #[error(
        "cannot read the kernel's type information at {path}: {reason}; leakwatch needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    Btf { path: &'static str, reason: String },
    #[error("this kernel's `{format}` has no field `{field}`: leakwatch does not know this layout")]
    Format { format: String, field: &'static str },
    #[error(
        "the kernel refused the BPF programs: permission denied; run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (see `leakwatch doctor`)"
    )]
    NotPermitted,
    #[error(
        "the kernel refused to load the BPF object: {0}; `leakwatch doctor` tells what this kernel lacks"
    )]
    Load(String),
    #[error(
        "cannot attach program {program} to {point}: {reason}; `leakwatch doctor` tells what this kernel lacks"
    )]
    Attach {
        program: &'static str,
        point: &'static str,
        reason: String,
    },
    #[error("cannot access BPF map {map}: {reason}")]
    Map { map: &'static str, reason: String },
    #[error("self-test failed: {0}")]
    SelfTest(String),
}

/// The attached kernel side. Dropping it detaches everything.
pub struct Probe {
    /// Holds the programs and their links; `None` once they are being detached.
    ebpf: Option<Ebpf>,
    ring: RingBuf<MapData>,
    targets: HashMap<MapData, u32, u32>,
    counts: PerCpuArray<MapData, u64>,
    sample: Array<MapData, u64>,
    allocs: allocs::Allocs,
    kernel_map_bytes: u64,
    #[cfg(feature = "kernel-log")]
    kernel_log: kernel_log::KernelLog,
    /// Attach points that this kernel lacks and that leakwatch can do without.
    missing: Vec<&'static str>,
    /// The faults' tracepoint is attached: it covers every watched process.
    fault_tracepoint: bool,
}

impl Probe {
    /// Loads the object and attaches all programs, exits before entries, watching nobody yet.
    ///
    /// # Errors
    ///
    /// One [`ProbeError`] for each thing that can be missing; nothing stays attached.
    pub fn attach(options: &ProbeOptions) -> Result<Self, ProbeError> {
        let tracefs = tracefs::locate()?;
        let bytes = object::checked()?;
        let settings = layout::Loaded(layout::settings(&tracefs, options)?);
        let cpus = possible_cpus()?;
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("EVENTS", options.ring_bytes)
            .map_max_entries("SCRATCH", cpus)
            .map_max_entries("FAULT_SCRATCH", cpus)
            .map_max_entries("ALLOC_SCRATCH", cpus.saturating_add(SLOTS_SPARE))
            .load(&bytes)
            .map_err(|error| refused(&error))?;
        #[cfg(feature = "kernel-log")]
        let kernel_log = kernel_log::KernelLog::of(&mut ebpf);
        let missing = attach::all(&mut ebpf)?;
        let allocs = allocs::Allocs::of(&mut ebpf)?;
        let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?).map_err(|e| map_error("EVENTS", &e))?;
        forks::leave_out_maps();
        let targets = HashMap::try_from(take(&mut ebpf, "TARGETS")?).map_err(|e| map_error("TARGETS", &e))?;
        let counts =
            PerCpuArray::try_from(take(&mut ebpf, "COUNTS")?).map_err(|e| map_error("COUNTS", &e))?;
        let mut sample = Array::try_from(take(&mut ebpf, "SAMPLE")?).map_err(|e| map_error("SAMPLE", &e))?;
        sample
            .set(0, SAMPLE_ALL, 0)
            .map_err(|error| map_error("SAMPLE", &error))?;
        let slots = 3 * u64::from(cpus) + u64::from(SLOTS_SPARE);
        let scratch = (RECORD_BYTES_MAX + STACK_CHUNK_BYTES) as u64 * slots;
        Ok(Self {
            ebpf: Some(ebpf),
            ring,
            targets,
            counts,
            sample,
            allocs,
            kernel_map_bytes: u64::from(options.ring_bytes) + scratch,
            #[cfg(feature = "kernel-log")]
            kernel_log,
            missing,
            fault_tracepoint: false,
        })
    }

    /// Starts to watch a process, and with `children` whatever it forks from now on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the map entry.
    pub fn watch(&mut self, pid: u32, children: bool) -> Result<(), ProbeError> {
        let bits = if children { watch::CHILDREN } else { 0 };
        self.targets
            .insert(pid, bits, 0)
            .map_err(|error| map_error("TARGETS", &error))
    }

    /// Stops watching a process. One that was not watched is no error.
    pub fn unwatch(&mut self, pid: u32) {
        // Not found is the state asked for.
        let _: Result<(), MapError> = self.targets.remove(&pid);
    }

    /// Begins to detach everything, so that the target pays no more; counters and what waits in the ring stay. On a
    /// thread of its own: the kernel lets a reader's grace period pass for each program, more than a second for all.
    pub fn detach(&mut self) {
        let Some(mut ebpf) = self.ebpf.take() else { return };
        let detaching = move || {
            // The dearest first.
            if let Some(Program::PerfEvent(program)) = ebpf.program_mut(faults::PROGRAM) {
                // One that is not loaded has nothing attached.
                let _: Result<(), ProgramError> = program.unload();
            }
            drop(ebpf);
        };
        // Where there is no thread to be had it is done on the spot: what was to run is dropped.
        let _: std::io::Result<_> = std::thread::Builder::new().spawn(detaching);
    }

    /// Hands at most `limit` waiting events to `consume`, in the order of ownership. Returns how many.
    pub fn drain(&mut self, limit: usize, mut consume: impl FnMut(Event<'_>)) -> usize {
        #[cfg(feature = "kernel-log")]
        self.kernel_log.flush();
        let mut taken = 0;
        while taken < limit {
            let Some(item) = self.ring.next() else { break };
            taken += 1;
            if let Some(event) = Event::parse(&item) {
                consume(event);
            }
        }
        taken
    }

    /// Readable when the ring has filled so far that the reader's timer may come too late.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// The kernel side's counters, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the read.
    pub fn counts(&self) -> Result<Counts, ProbeError> {
        let mut counts = Counts::default();
        for index in 0..COUNTERS {
            let per_cpu = self
                .counts
                .get(&index, 0)
                .map_err(|error| map_error("COUNTS", &error))?;
            let total = per_cpu.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
            counts.0.insert(index, total);
        }
        Ok(counts)
    }

    /// Kernel memory that the maps hold, bytes.
    #[must_use]
    pub fn kernel_map_bytes(&self) -> u64 {
        self.kernel_map_bytes
    }

    /// Optional attach points that this kernel lacks.
    #[must_use]
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// Maps a known length in a child of leakwatch's own and waits for it to come back with its stack.
    ///
    /// # Errors
    ///
    /// [`ProbeError::SelfTest`] says which part failed.
    pub fn self_test(&mut self, patience: Duration) -> Result<SelfTest, ProbeError> {
        selftest::run(self, patience)
    }
}

/// The kernel side's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<u32, u64>);

impl Counts {
    /// One counter; 0 where it never counted.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(&(counter as u32)).copied().unwrap_or(0)
    }

    /// How far the counters rose since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(
            self.0
                .iter()
                .map(|(index, value)| {
                    (
                        *index,
                        value.saturating_sub(earlier.0.get(index).copied().unwrap_or(0)),
                    )
                })
                .collect(),
        )
    }

    /// Records that the ring had no room for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        [
            Counter::LostAcquires,
            Counter::LostReleases,
            Counter::LostLifecycle,
        ]
        .into_iter()
        .fold(0, |sum: u64, counter| sum.saturating_add(self.get(counter)))
    }
}

fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<aya::maps::Map, ProbeError> {
    ebpf.take_map(map)
        .ok_or_else(|| ProbeError::Object(format!("it has no map {map}")))
}

fn map_error(map: &'static str, error: &MapError) -> ProbeError {
    ProbeError::Map {
        map,
        reason: chain(error),
    }
}

fn possible_cpus() -> Result<u32, ProbeError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| ProbeError::Map {
        map: "SCRATCH",
        reason: format!("cannot count the CPUs in {path}: {error}"),
    })?;
    Ok(u32::try_from(cpus).unwrap_or(u32::MAX))
}

fn refused(error: &aya::EbpfError) -> ProbeError {
    let text = chain(error);
    if not_permitted(error) {
        ProbeError::NotPermitted
    } else {
        ProbeError::Load(text)
    }
}

/// Whether some error of the chain is the kernel's EPERM or EACCES.
fn not_permitted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with its causes in one line: aya's own texts end where the reason begins.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text.replace('\n', " ")
}
