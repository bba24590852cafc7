//! What a hit costs here: measured on a child of leakwatch's own, since it differs a hundredfold between machines.
//!
//! The child calls functions of leakwatch's own that look to the kernel as the allocator's do, and do nothing: one whose
//! first instruction the kernel emulates, as most of them begin, and one that it has to let run out of line. Its own
//! processor time tells.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use leakwatch_ebpf::wire::SAMPLE_ALL;

use super::{AllocLinks, BurstLimits, attach_error};
use crate::births::HitCost;
use crate::probe::{Probe, ProbeError};
use crate::sampler::{ProcRoot, maps};
use crate::target::entry_points::{self, EntryPoint, EntryPoints};

/// Calls in one measurement: fit half of the smallest ring when each is sampled, and outlast the clock's steps.
const CALLS: u64 = 256;
/// The same of calls that the kernel lets run out of line. In a virtual machine such a step leaves it: each one is dear, so
/// that fewer outlast the clock's steps too.
const STEPPED_CALLS: u64 = 32;
/// Calls between each of which the caches are filled with something else, in one measurement, and with how many bytes.
const COLD_CALLS: u64 = 2;
const OTHER_BYTES: usize = 4 << 20;
/// Measurements of each kind. The median counts.
const ROUNDS: usize = 9;

#[cfg(target_arch = "x86_64")]
mod functions {
    use std::arch::naked_asm;

    /// Returns its argument. The kernel emulates a `push`.
    #[unsafe(naked)]
    pub unsafe extern "C" fn emulated(block: u64) -> u64 {
        naked_asm!("push rbp", "mov rax, rdi", "pop rbp", "ret")
    }

    /// Returns its argument. The kernel does not emulate a `mov`.
    #[unsafe(naked)]
    pub unsafe extern "C" fn stepped(block: u64) -> u64 {
        naked_asm!("mov rax, rdi", "ret")
    }
}

#[cfg(target_arch = "aarch64")]
mod functions {
    use std::arch::naked_asm;

    /// Returns its argument. The kernel emulates a `nop`.
    #[unsafe(naked)]
    pub unsafe extern "C" fn emulated(block: u64) -> u64 {
        naked_asm!("nop", "mov x1, x0", "ret")
    }

    /// Returns its argument. The kernel does not emulate a `mov`.
    #[unsafe(naked)]
    pub unsafe extern "C" fn stepped(block: u64) -> u64 {
        naked_asm!("mov x1, x0", "ret")
    }
}

type Function = unsafe extern "C" fn(u64) -> u64;

/// Two functions of leakwatch's own executable, one of each kind.
pub(super) fn own_entry_points() -> Result<EntryPoints, ProbeError> {
    let failed = |error: io::Error| attach_error(format!("own executable: {error}"));
    let mappings = maps::read(&ProcRoot::default(), std::process::id())
        .map_err(failed)?
        .mappings;
    let point = |function: Function, stepped: bool| {
        let address = function as usize as u64;
        let mapping = mappings.iter().find(|mapping| mapping.range.contains(&address))?;
        Some(EntryPoint {
            function: entry_points::malloc(),
            offset: address - mapping.range.start + mapping.offset,
            stepped,
        })
    };
    let points = [point(functions::emulated, false), point(functions::stepped, true)];
    Ok(EntryPoints {
        file: File::open("/proc/self/exe").map_err(failed)?.into(),
        points: points.into_iter().flatten().collect(),
        stack_bytes_max: 64 << 20,
    })
}

impl Probe {
    /// Measures what a hit costs on this machine, in some tenths of a second. Before anything is watched: what waits in the
    /// ring is dropped.
    ///
    /// # Errors
    ///
    /// When the programs cannot be loaded or attached, or there is no child to be had.
    pub fn calibrate_allocs(&mut self) -> Result<HitCost, ProbeError> {
        self.load_allocs()?;
        // From a thread of its own: its stack is short, however deep the caller's is.
        let child = std::thread::scope(|scope| scope.spawn(Child::fork).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
            .map_err(not_measured)?;
        let points = own_entry_points()?;
        let free = |order| child.median(order, || {}).map_err(not_measured);
        let (free, free_stepped, free_cold) = (free(EMULATED)?, free(STEPPED)?, free(COLD)?);

        let links = self.watch_child(&child, &points, 0)?;
        let (plain, _) = self.timed(&child, EMULATED)?;
        let (stepped, _) = self.timed(&child, STEPPED)?;
        self.end_burst()?;
        let (idle, _) = self.timed(&child, EMULATED)?;
        drop(links);

        let links = self.watch_child(&child, &points, SAMPLE_ALL)?;
        let (sampled, entry) = self.timed(&child, EMULATED)?;
        let (cold, cold_entry) = self.timed(&child, COLD)?;
        self.end_burst()?;
        drop(links);

        let plain = plain.saturating_sub(free);
        let sampled = sampled.saturating_sub(free);
        Ok(HitCost {
            idle: idle.saturating_sub(free),
            plain,
            stepped: stepped.saturating_sub(free_stepped).saturating_sub(plain),
            sampled: sampled.saturating_sub(plain),
            cold: cold.saturating_sub(free_cold).saturating_sub(sampled),
            entry,
            cold_entry,
        })
    }

    /// Begins a burst on the child.
    fn watch_child(
        &mut self,
        child: &Child,
        points: &EntryPoints,
        threshold: u64,
    ) -> Result<AllocLinks, ProbeError> {
        self.begin_burst(&BurstLimits {
            threshold,
            hits_max: u64::MAX,
            stack_bytes_max: points.stack_bytes_max,
        })?;
        self.attach_allocs(child.pid, points)
    }

    /// How long a call took the child, and how long the entry's program took of it; zero where none ran.
    fn timed(&mut self, child: &Child, order: u8) -> Result<(Duration, Duration), ProbeError> {
        let before = self.counts()?.hits();
        let call = child
            .median(order, || {
                self.drain(usize::MAX, |_| {});
            })
            .map_err(not_measured)?;
        let entry = self.counts()?.hits().since(&before).entry();
        Ok((call, entry.unwrap_or_default()))
    }
}

fn not_measured(error: io::Error) -> ProbeError {
    ProbeError::SelfTest(format!("cannot measure what a hit costs: {error}"))
}

/// What the child may be told to do: call the one function or the other many times, or the first with other work between.
pub(super) const EMULATED: u8 = b'e';
pub(super) const STEPPED: u8 = b's';
pub(super) const COLD: u8 = b'c';

/// A forked child that calls one of the functions many times for each byte that it is sent, and tells how long a call took.
pub(super) struct Child {
    pub pid: u32,
    orders: PipeWriter,
    answers: PipeReader,
}

impl Child {
    pub fn fork() -> io::Result<Self> {
        let (orders_in, orders) = io::pipe()?;
        let (answers, answers_out) = io::pipe()?;
        let (orders_fd, answers_fd) = (orders_in.as_raw_fd(), answers_out.as_raw_fd());
        let (not_mine, nor_this) = (orders.as_raw_fd(), answers.as_raw_fd());
        // SAFETY: the child calls nothing but async-signal-safe functions, whatever threads the parent has.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: as above.
                unsafe {
                    libc::close(not_mine);
                    libc::close(nor_this);
                    serve(orders_fd, answers_fd);
                    libc::_exit(0);
                }
            }
            pid => Ok(Self {
                pid: u32::try_from(pid).unwrap_or(0),
                orders,
                answers,
            }),
        }
    }

    /// Of one call.
    pub fn median(&self, order: u8, mut between: impl FnMut()) -> io::Result<Duration> {
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            (&self.orders).write_all(&[order])?;
            let mut answer = [0u8; 8];
            (&self.answers).read_exact(&mut answer)?;
            rounds.push(u64::from_ne_bytes(answer));
            between();
        }
        rounds.sort_unstable();
        let median = rounds.get(ROUNDS / 2).copied().unwrap_or(0);
        Ok(Duration::from_nanos(median))
    }
}

/// # Safety
///
/// For a forked child: nothing but async-signal-safe functions are called.
unsafe fn serve(orders: RawFd, answers: RawFd) {
    let mut order = 0u8;
    // Once for all orders: to touch it anew each time would take longer than all else here.
    let mut other: *mut u8 = std::ptr::null_mut();
    // SAFETY: the buffers are this function's own; the functions take any number; what `map_other` gives is `cold`'s alone.
    unsafe {
        while libc::read(orders, (&raw mut order).cast(), 1) == 1 {
            if order == COLD && other.is_null() {
                other = map_other();
            }
            let took = match order {
                COLD => cold(functions::emulated, other),
                STEPPED => hot(functions::stepped, STEPPED_CALLS),
                _ => hot(functions::emulated, CALLS),
            };
            let took = took.to_ne_bytes();
            if libc::write(answers, took.as_ptr().cast(), took.len()) != 8 {
                return;
            }
        }
    }
}

/// Nanoseconds of a call that comes right after another, of so many.
///
/// # Safety
///
/// As the function's.
unsafe fn hot(function: Function, calls: u64) -> u64 {
    let before = thread_nanoseconds();
    for call in 1..=calls {
        // SAFETY: the caller's to uphold.
        std::hint::black_box(unsafe { function(std::hint::black_box(call * 16)) });
    }
    thread_nanoseconds().saturating_sub(before) / calls
}

/// [`OTHER_BYTES`] to fill the caches with, until the child ends; null where there is no memory to be had.
fn map_other() -> *mut u8 {
    // SAFETY: a new mapping, whose address the kernel chooses.
    let other = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            OTHER_BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if other == libc::MAP_FAILED {
        std::ptr::null_mut()
    } else {
        other.cast()
    }
}

/// Nanoseconds of a call after other work, with those that it takes to ask for the time; zero where there is no memory for
/// that work.
///
/// # Safety
///
/// As the function's. `other` is what [`map_other`] gave.
unsafe fn cold(function: Function, other: *mut u8) -> u64 {
    if other.is_null() {
        return 0;
    }
    let mut took = 0;
    for call in 1..=COLD_CALLS {
        for line in (0..OTHER_BYTES).step_by(64) {
            // SAFETY: inside the mapping; bytes of any value.
            unsafe {
                let byte = other.add(line);
                byte.write_volatile(byte.read_volatile().wrapping_add(1));
            }
        }
        let before = thread_nanoseconds();
        // SAFETY: the caller's to uphold.
        std::hint::black_box(unsafe { function(std::hint::black_box(call * 16)) });
        took += thread_nanoseconds().saturating_sub(before);
    }
    took / COLD_CALLS
}

fn thread_nanoseconds() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is this function's own.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    now.tv_sec
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec.cast_unsigned())
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.pid)
            && pid > 0
        {
            // SAFETY: our own child, not yet reaped, so the number cannot be anybody else's.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}
