//! The eBPF programs. One file per kind of event; the userspace half of each is in leakwatch's `probe`.
//!
//! Every program looks up the current process in [`TARGETS`] before anything else: the tracepoints fire for the whole
//! host, and whatever is not watched must get away as cheaply as it can.

#![no_std]
#![no_main]
// The compiler must be an unstable one anyway, to build `core` for BPF.
#![feature(asm_experimental_arch)]

/// A line of diagnosis, in a debug object only (`cargo xtask ebpf --debug`): an unexecuted one still costs verifier work.
#[cfg(feature = "log")]
macro_rules! diagnose {
    ($($message:tt)+) => { aya_log_ebpf::debug!($($message)+) };
}
#[cfg(not(feature = "log"))]
macro_rules! diagnose {
    ($($message:tt)+) => {};
}

mod atomic;
mod counters;
mod emit;
mod kernel;
mod programs;
mod snapshot;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use leakwatch_ebpf::wire::alloc::{Burst, BurstState, Call, THREADS_MAX as ALLOC_THREADS_MAX};
use leakwatch_ebpf::wire::{COUNTERS, RECORD_BYTES_MAX, STACK_CHUNK_BYTES, Settings, TARGETS_MAX};

/// Watched processes: PID -> [`leakwatch_ebpf::wire::watch`] bits.
#[map]
static TARGETS: HashMap<u32, u32> = HashMap::with_max_entries(TARGETS_MAX, 0);

/// The way out. Its size is set by the loader (`--ring-bytes`).
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024 * 1024, 0);

/// Where a record is put together before it goes to the ring: one slot per CPU, its number set by the loader. An
/// ordinary array, because a per-CPU value may have 32 KiB at most. Safe in tracepoint programs, which run with
/// preemption off; a uprobe program must not use it.
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// The same for page faults: one can be taken while a tracepoint program holds the slot of its CPU.
#[map]
static FAULT_SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// The sample's threshold, set and lowered from userspace while the programs run, and lowered here when the ring fills;
/// then how often that was done since the ring was last half empty.
#[map]
static SAMPLE: Array<u64> = Array::with_max_entries(2, 0);

#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// The heap's end before a `brk` that is under way: thread -> address.
#[map]
static BRK_BEFORE: HashMap<u32, u64> = HashMap::with_max_entries(8192, 0);

/// The present burst, written by userspace.
#[map]
static ALLOC_BURST: Array<Burst> = Array::with_max_entries(1, 0);

/// What became of it, written by the programs.
#[map]
static ALLOC_STATE: Array<BurstState> = Array::with_max_entries(1, 0);

/// The allocator's call that a thread is in. A thread's entry stays until the thread ends: it is found faster than a new
/// one is made.
#[map]
static ALLOC_CALLS: HashMap<u32, Call> = HashMap::with_max_entries(ALLOC_THREADS_MAX, 0);

/// Where a birth's record is put together: a slot per CPU and some more, their number set by the loader. A uprobe program
/// can be preempted by another on its CPU, so a slot is taken before it is written.
#[map]
static ALLOC_SCRATCH: Array<Slot> = Array::with_max_entries(1, 0);

/// A [`Scratch`] that one program at a time has.
#[repr(C)]
pub struct Slot {
    taken: u64,
    scratch: Scratch,
}

/// A record under construction, with room for one more chunk: it keeps the verifier's bound on the last read simple.
#[repr(C, align(8))]
pub struct Scratch([u8; RECORD_BYTES_MAX + STACK_CHUNK_BYTES]);

#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::ZERO;

/// Reads one setting. Volatile, since the loader replaces what the compiler sees; field by field, since the whole
/// struct would take most of a program's 512 bytes of stack.
macro_rules! setting {
    ($($field:tt)+) => {
        // SAFETY: a valid, initialised place that nobody writes once the program runs.
        unsafe { core::ptr::read_volatile(&raw const crate::SETTINGS.$($field)+) }
    };
}
use setting;

// bpf_task_pt_regs and the probe_read helpers are for GPL-compatible programs only; the project is MIT or Apache-2.0,
// and "Dual MIT/GPL" is the form of that which the kernel knows.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not unreachable_unchecked: the verifier must see an end.
    loop {}
}
