//! From the fields of an event to a record in the ring.

use aya_ebpf::maps::Array;
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::bpf_ringbuf_output,
    },
};
use leakwatch_ebpf::wire::{
    COMM_BYTES, Counter, HEADER_BYTES, Header, Kind, RECORD_BYTES_MAX, SAMPLE_ALL, SAMPLE_MIN,
    THIN_PAGES_MAX, flags, page_in_sample,
};

use crate::programs::alloc::restore_return_address;
use crate::{EVENTS, FAULT_SCRATCH, SAMPLE, SCRATCH, Scratch, TARGETS, counters, setting, snapshot};

/// Sixteenths of the ring that may wait before the sample is thinned.
const RELIEF_FROM: u64 = 8;

/// The current process if it is watched, with its bits. The first thing that every program asks.
#[inline(always)]
pub fn watched() -> Option<u32> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the value is a plain u32 that is only ever replaced whole.
    unsafe { TARGETS.get(tgid) }.copied()
}

/// An event of the current thread with nothing filled in but who and when.
#[inline(always)]
pub fn header(kind: Kind) -> Header {
    let id = bpf_get_current_pid_tgid();
    Header {
        kind: kind as u16,
        flags: 0,
        stack_length: 0,
        // SAFETY: no precondition.
        time: unsafe { bpf_ktime_get_ns() },
        tgid: (id >> 32) as u32,
        tid: id as u32,
        address: 0,
        length: 0,
        old_address: 0,
        old_length: 0,
        protection: 0,
        operation: 0,
        fd: -1,
        stack_wanted: 0,
        stack_pointer: 0,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_BYTES]),
    }
}

/// Sends a record without a stack.
#[inline(always)]
pub fn send(header: &Header, lost: Counter) {
    output(core::ptr::from_ref(header).cast(), HEADER_BYTES, lost);
}

/// Sends a record with the registers and the stack of the current thread.
#[inline(always)]
pub fn send_with_stack(header: Header, registers: u64) {
    send_through(&SCRATCH, header, registers, Counter::LostAcquires);
}

/// Sends the record of a page fault.
#[inline(always)]
pub fn send_fault(header: Header, registers: u64) {
    send_through(&FAULT_SCRATCH, header, registers, Counter::LostFaults);
}

/// Sends the record of a range that was gained: with its stack if the range is large or holds a page of the sample.
#[inline(always)]
pub fn send_range(mut header: Header, registers: u64) {
    let threshold = sample_threshold();
    let shift = setting!(page_shift);
    let first = header.address >> shift;
    let pages = (header.length + (1 << shift) - 1) >> shift;
    let mut sampled = threshold >= SAMPLE_ALL || pages > THIN_PAGES_MAX;
    if !sampled {
        for index in 0..THIN_PAGES_MAX {
            if index >= pages {
                break;
            }
            if page_in_sample(first + index, threshold) {
                sampled = true;
                break;
            }
        }
    }
    if sampled {
        send_with_stack(header, registers);
        return;
    }
    header.flags |= flags::THINNED;
    counters::add(Counter::Thinned, 1);
    send(&header, Counter::LostAcquires);
}

#[inline(always)]
pub fn sample_threshold() -> u64 {
    SAMPLE.get(0).copied().unwrap_or(SAMPLE_ALL)
}

/// Lowers the sample's threshold while the ring fills beyond its half: once for every sixteenth more. The reader cannot
/// do it then, for it is late; and a lower rate says what is not known, where lost records leave it open. The room that
/// is so kept is for the mapping calls.
#[inline(always)]
pub fn relieve_ring() {
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let size = EVENTS.query(u64::from(BPF_RB_RING_SIZE)).max(1);
    let step = (waiting.saturating_mul(16) / size).saturating_sub(RELIEF_FROM);
    let (Some(threshold), Some(taken)) = (SAMPLE.get_ptr_mut(0), SAMPLE.get_ptr_mut(1)) else {
        return;
    };
    // SAFETY: values of a map, aligned; CPUs that race here lower the threshold once more or once less.
    unsafe {
        let done = taken.read_volatile();
        if step != done {
            taken.write_volatile(step);
        }
        if step > done {
            threshold.write_volatile((threshold.read_volatile() / 2).max(SAMPLE_MIN));
        }
    }
}

#[inline(always)]
fn send_through(slots: &Array<Scratch>, header: Header, registers: u64, lost: Counter) {
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(scratch) = slots.get_ptr_mut(cpu) else {
        counters::add(Counter::NoScratch, 1);
        send(&header, lost);
        return;
    };
    let scratch: *mut u8 = scratch.cast();
    // SAFETY: the slot is larger than a header, and aligned: it starts a map value.
    unsafe { scratch.cast::<Header>().write(header) };
    let length = snapshot::take(scratch, registers, 0);
    if length > HEADER_BYTES {
        restore_return_address(scratch);
    }
    if length > RECORD_BYTES_MAX {
        return;
    }
    output(scratch, length, lost);
}

/// Whether the ring is more than half full. What is left then is for the mapping calls, whose loss is worse.
#[inline(always)]
pub fn ring_is_half_full() -> bool {
    EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > EVENTS.query(u64::from(BPF_RB_RING_SIZE)) / 2
}

/// Wakes the reader without a record.
#[inline(always)]
pub fn wake_reader() {
    if let Some(nothing) = EVENTS.reserve_bytes(8, 0) {
        nothing.discard(u64::from(BPF_RB_FORCE_WAKEUP));
    }
}

#[inline(always)]
pub fn output(record: *const u8, length: usize, lost: Counter) {
    // No wake-up per event: it costs the target more than the copy. The reader comes by on a timer; it is called
    // only when the ring has filled so far that the timer may come too late.
    let waiting = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    let flags = if waiting > u64::from(setting!(wake_bytes)) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    let ring = core::ptr::from_ref(&EVENTS).cast_mut().cast();
    // SAFETY: `record` has `length` readable bytes: a header on the stack or a scratch slot.
    let result =
        unsafe { bpf_ringbuf_output(ring, record.cast_mut().cast(), length as u64, u64::from(flags)) };
    if result == 0 {
        counters::add(Counter::Events, 1);
    } else {
        counters::add(lost, 1);
    }
}
