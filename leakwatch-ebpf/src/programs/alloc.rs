//! The allocator's functions of one process: `malloc` and its kin, entered and returned from. Attached in bursts only.
//!
//! What a call asks for is known when it is entered, the block when it returns. So the entry is remembered by thread,
//! and the stack is copied at the return, of blocks in the sample only: most calls copy nothing. The stack is then as it
//! was at the entry but for one word. The return probe has replaced the return address, by which the kernel comes to run
//! it; the true one is the instruction pointer that the kernel sets before. Above it nothing was changed: what the
//! function called lies below. The registers that a caller relies on are as they were, by the calling convention.
//!
//! The allocator calls itself (`realloc` without a block is `malloc`, `reallocarray` ends in `realloc`), so only a
//! thread's outermost call is a birth.
//!
//! How long an entry took its program tells whether it found the caches warm: the kernel's own part of a hit takes longer
//! likewise, and nobody can time that.
//!
//! Programs of uprobes are preempted, not moved to another CPU: nothing of a CPU may be written without asking.

use aya_ebpf::{
    EbpfContext as _,
    cty::c_void,
    helpers::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_func_ip, bpf_get_smp_processor_id,
        bpf_ktime_get_ns, bpf_probe_read_user,
    },
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use leakwatch_ebpf::wire::alloc::{Burst, Call, Cookie, HITS_STEP, SLOTS_SPARE, TIMED_MOST, cut};
use leakwatch_ebpf::wire::{
    Counter, FUNCTION_ARGUMENTS, HEADER_BYTES, Header, Kind, RECORD_BYTES_MAX, RETURN_ON_STACK,
    STACK_BYTES_MAX, block_in_sample, flags,
};

use crate::{
    ALLOC_BURST, ALLOC_CALLS, ALLOC_SCRATCH, ALLOC_STATE, Slot, atomic, counters, emit, kernel, setting,
    snapshot,
};

/// `uprobe` on each function.
#[uprobe]
pub fn alloc_enter(context: ProbeContext) -> u32 {
    let registers = context.as_ptr() as u64;
    let entry = kernel::read::<u64>(registers, setting!(instruction_pointer_offset)).unwrap_or(0);
    entered(&context, registers, entry);
    0
}

/// `uretprobe` on each function.
#[uretprobe]
pub fn alloc_return(context: RetProbeContext) -> u32 {
    returned(&context, context.as_ptr() as u64);
    0
}

/// Both in one, from Linux 6.13 on (a uprobe session). The return address of a call is replaced only where the entry
/// says so: by 0. Without aya's macro, whose programs always return that.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub extern "C" fn alloc_session(context: *mut c_void) -> u32 {
    let context = ProbeContext::new(context);
    let registers = context.as_ptr() as u64;
    let at = kernel::read::<u64>(registers, setting!(instruction_pointer_offset)).unwrap_or(0);
    // SAFETY: the context is the program's own.
    let entry = unsafe { bpf_get_func_ip(context.as_ptr()) };
    if at != entry {
        returned(&context, registers);
        return 0;
    }
    u32::from(!entered(&context, registers, entry))
}

/// The number of the burst that is under way, if there is one that was not cut, and its limits. The number is read once: it
/// can be taken back at any moment.
#[inline(always)]
fn burst() -> Option<(u64, &'static Burst)> {
    let burst = ALLOC_BURST.get(0)?;
    // SAFETY: a value of the map, aligned.
    let number = unsafe { (&raw const burst.number).read_volatile() };
    (number != 0 && cut_by() == 0).then_some((number, burst))
}

#[inline(always)]
fn cut_by() -> u64 {
    match ALLOC_STATE.get(0) {
        // SAFETY: a value of the map, aligned.
        Some(state) => unsafe { (&raw const state.cut).read_volatile() },
        None => 0,
    }
}

/// Ends the burst, whose probes userspace is to take away.
#[inline(always)]
fn cut_burst(reason: u64) {
    let Some(state) = ALLOC_STATE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a value of the map, aligned. A reason that another CPU sets at the same moment may be lost; one stays.
    let before = unsafe {
        let cut = &raw mut (*state).cut;
        let before = cut.read_volatile();
        cut.write_volatile(before | reason);
        before
    };
    if before == 0 {
        emit::wake_reader();
    }
}

/// Counts a hit, and cuts the burst at the last that it may have.
#[inline(always)]
fn count(burst: &Burst, stepped: bool) {
    if stepped {
        counters::add(Counter::AllocStepped, 1);
    }
    let before = counters::add(Counter::AllocHits, 1);
    if (before + 1) % HITS_STEP != 0 {
        return;
    }
    let Some(state) = ALLOC_STATE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a value of the map, aligned, that programs access atomically only.
    let hits = unsafe { atomic::add(&raw mut (*state).hits, HITS_STEP) };
    if hits + HITS_STEP >= burst.hits_max {
        cut_burst(cut::HITS);
    }
}

/// A call begins. Whether its return is of interest.
#[inline(always)]
fn entered<C: aya_ebpf::EbpfContext>(context: &C, registers: u64, entry: u64) -> bool {
    let Some((number, burst)) = burst() else {
        counters::add(Counter::AllocIdle, 1);
        return false;
    };
    // SAFETY: no precondition.
    let began = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is the program's own.
    let bits = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    let cookie = Cookie::from_bits(bits);
    count(burst, cookie.stepped);

    let stack_pointer = kernel::read::<u64>(registers, setting!(stack_pointer_offset)).unwrap_or(0);
    let thread = bpf_get_current_pid_tgid() as u32;
    let known = ALLOC_CALLS.get_ptr_mut(thread);
    if let Some(call) = known {
        // SAFETY: a value of the map, which only its own thread writes: it is in this program now.
        let outer = unsafe { call.read_volatile() };
        if outer.burst == number {
            // Below the call that is under way, or in its place: that one has ended in a jump to this function.
            if stack_pointer < outer.stack_pointer
                || stack_pointer == outer.stack_pointer && bits as u8 != outer.cookie as u8
            {
                counters::add(Counter::AllocNested, 1);
                return false;
            }
            counters::add(Counter::AllocReturnsMissed, 1);
        }
    }
    if !on_own_stack(stack_pointer, burst.stack_bytes_max) {
        counters::add(Counter::AllocOffStack, 1);
        cut_burst(cut::OFF_STACK);
        return false;
    }

    let mut length = argument(registers, Some(cookie.size));
    if cookie.count.is_some() {
        // A product that does not fit is refused by the allocator: no birth will tell it.
        length = length.wrapping_mul(argument(registers, cookie.count));
    }
    let call = Call {
        burst: number,
        stack_pointer,
        entry,
        length,
        pointer: argument(
            registers,
            if cookie.old.is_some() {
                cookie.old
            } else {
                cookie.store
            },
        ),
        cookie: bits,
        began: if cookie.old.is_some() { began } else { 0 },
        return_address: if setting!(link_register_offset) == RETURN_ON_STACK {
            // SAFETY: the helper checks the address.
            unsafe { bpf_probe_read_user(stack_pointer as *const u64) }.unwrap_or(0)
        } else {
            0
        },
    };
    match known {
        // SAFETY: as above.
        Some(known) => unsafe { known.write(call) },
        None if ALLOC_CALLS.insert(thread, call, 0).is_err() => {
            counters::add(Counter::AllocThreadsOver, 1);
            return false;
        }
        None => {}
    }
    // SAFETY: no precondition.
    let took = unsafe { bpf_ktime_get_ns() } - began;
    counters::add(Counter::AllocNanoseconds, took.min(TIMED_MOST));
    counters::add(Counter::AllocTimed, 1);
    true
}

/// A call has returned.
#[inline(always)]
fn returned<C: aya_ebpf::EbpfContext>(context: &C, registers: u64) {
    let Some((number, burst)) = burst() else { return };
    let thread = bpf_get_current_pid_tgid() as u32;
    let Some(known) = ALLOC_CALLS.get_ptr_mut(thread) else {
        counters::add(Counter::AllocUnmatched, 1);
        return;
    };
    // SAFETY: a value of the map, which only its own thread writes: it is in this program now.
    let call = unsafe { known.read_volatile() };
    if call.burst != number {
        counters::add(Counter::AllocUnmatched, 1);
        return;
    }
    // SAFETY: the context is the program's own.
    let bits = unsafe { bpf_get_attach_cookie(context.as_ptr()) };
    let stack_pointer = kernel::read::<u64>(registers, setting!(stack_pointer_offset)).unwrap_or(0);
    let popped = if setting!(link_register_offset) == RETURN_ON_STACK {
        8
    } else {
        0
    };
    if bits != call.cookie || stack_pointer.wrapping_sub(popped) != call.stack_pointer {
        // A call within the one that counts.
        return;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*known).burst).write_volatile(0) };

    let cookie = Cookie::from_bits(bits);
    let result = kernel::read::<u64>(registers, setting!(function_result)).unwrap_or(0);
    let address = if cookie.store.is_none() {
        result
    } else if result as u32 == 0 {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user(call.pointer as *const u64) }.unwrap_or(0)
    } else {
        0
    };
    if address == 0 {
        return;
    }
    counters::add(Counter::AllocBirths, 1);
    let old = if cookie.old.is_some() { call.pointer } else { 0 };
    let sampled = block_in_sample(address, burst.threshold);
    if !sampled && (old == 0 || !block_in_sample(old, burst.threshold)) {
        return;
    }
    let mut header = emit::header(Kind::Alloc);
    header.address = address;
    header.length = call.length;
    header.old_address = old;
    header.old_length = call.began;
    header.protection = u32::from(cookie.function);
    header.operation = number as u32;
    counters::add(Counter::AllocSampled, 1);
    if emit::ring_is_half_full() {
        counters::add(Counter::LostAllocs, 1);
        return;
    }
    if !sampled {
        header.flags = flags::THINNED;
        emit::send(&header, Counter::LostAllocs);
        return;
    }
    send_from_slot(&header, registers, &call, popped);
}

/// Puts the true return address into the copy of a stack on which a call of the allocator is under way: memory is mapped
/// and touched from within it, and what the return probe has put there leads nowhere.
#[inline(always)]
pub fn restore_return_address(scratch: *mut u8) {
    let Some((number, _)) = burst() else { return };
    let thread = bpf_get_current_pid_tgid() as u32;
    let Some(known) = ALLOC_CALLS.get_ptr(thread) else {
        return;
    };
    // SAFETY: a value of the map, which only its own thread writes: it is in this program now.
    let call = unsafe { known.read_volatile() };
    if call.burst != number || call.return_address == 0 {
        return;
    }
    let header: *mut Header = scratch.cast();
    // SAFETY: the slot begins with a header, which is initialised.
    let (start, length) = unsafe {
        (
            (&raw const (*header).stack_pointer).read_volatile(),
            u64::from((&raw const (*header).stack_length).read_volatile()),
        )
    };
    let offset = call.stack_pointer.wrapping_sub(start);
    if offset >= length || length - offset < 8 {
        return;
    }
    // The mask is for the verifier: the copy is no longer.
    let place = snapshot::STACK_AT + (offset as usize & (STACK_BYTES_MAX - 8));
    // SAFETY: inside the slot, which has a page to spare, and aligned as stack pointers are.
    unsafe {
        scratch
            .add(place)
            .cast::<u64>()
            .write_volatile(call.return_address)
    };
}

/// Argument `index` of the function that is being entered; 0 where it has none.
#[inline(always)]
fn argument(registers: u64, index: Option<u8>) -> u64 {
    let offset = match index {
        Some(0) => setting!(function_arguments[0]),
        Some(1) => setting!(function_arguments[1]),
        Some(2) => setting!(function_arguments[2]),
        _ => return 0,
    };
    const _: () = assert!(FUNCTION_ARGUMENTS == 3);
    kernel::read::<u64>(registers, offset).unwrap_or(0)
}

/// Whether a stack pointer is on the thread's own stack. Below a thread's control block lies its stack; where the thread
/// has none below, its stack is the process's first.
#[inline(always)]
fn on_own_stack(stack_pointer: u64, deepest: u64) -> bool {
    let task = kernel::current() as u64;
    let below = |end: u64| stack_pointer < end && end - stack_pointer <= deepest;
    let control_block = kernel::read::<u64>(task, setting!(task_tls)).unwrap_or(0);
    if below(control_block) {
        return true;
    }
    let start = kernel::memory().and_then(|mm| kernel::read::<u64>(mm, setting!(mm_start_stack)));
    start.is_some_and(below)
}

/// Sends a birth with its stack, put together in a slot that nobody else has.
#[inline(always)]
fn send_from_slot(header: &Header, registers: u64, call: &Call, popped: u64) {
    // SAFETY: no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(slot) = take_slot(SLOTS_SPARE + cpu).or_else(|| take_slot(header.tid % SLOTS_SPARE)) else {
        counters::add(Counter::NoScratch, 1);
        emit::send(header, Counter::LostAllocs);
        return;
    };
    // SAFETY: the slot is a value of the map, and taken.
    let (taken, scratch) = unsafe { (&raw mut (*slot).taken, (&raw mut (*slot).scratch).cast::<u8>()) };
    // SAFETY: the scratch is larger than a header, and aligned to 8.
    unsafe { scratch.cast::<Header>().write(*header) };
    let length = snapshot::take(scratch, registers, popped);
    if length > HEADER_BYTES {
        as_at_entry(scratch, call);
    }
    if length <= RECORD_BYTES_MAX {
        emit::output(scratch, length, Counter::LostAllocs);
    }
    // SAFETY: as above.
    unsafe { atomic::replace(taken, 0) };
}

#[inline(always)]
fn take_slot(index: u32) -> Option<*mut Slot> {
    let slot = ALLOC_SCRATCH.get_ptr_mut(index)?;
    // SAFETY: a value of the map, aligned, that programs access atomically only.
    let before = unsafe { atomic::replace(&raw mut (*slot).taken, 1) };
    (before == 0).then_some(slot)
}

/// Turns what was copied at the return into what was there at the entry.
#[inline(always)]
fn as_at_entry(scratch: *mut u8, call: &Call) {
    // SAFETY: the registers' room follows the header.
    let registers = unsafe { scratch.add(HEADER_BYTES) };
    // The mask is for the verifier: no register lies beyond.
    let place = |offset: u32| {
        // SAFETY: inside the scratch, and aligned.
        unsafe { registers.add((offset & 0x1f8) as usize) }.cast::<u64>()
    };
    let (instruction, stack, link) = (
        place(setting!(instruction_pointer_offset)),
        place(setting!(stack_pointer_offset)),
        setting!(link_register_offset),
    );
    let return_address = if link == RETURN_ON_STACK {
        // SAFETY: the stack's room has a page at least.
        unsafe { scratch.add(snapshot::STACK_AT) }.cast::<u64>()
    } else {
        place(link)
    };
    // SAFETY: all of them are inside the scratch, and aligned.
    unsafe {
        return_address.write_volatile(instruction.read_volatile());
        instruction.write_volatile(call.entry);
        stack.write_volatile(call.stack_pointer);
    }
}
