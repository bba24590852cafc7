//! A copy of the user registers and of the stack, from the stack pointer to its end.
//!
//! Frame pointers are not there, so a stack can only be unwound with its memory at hand. The copy is bounded by where
//! the stack really ends: a thread's control block lies right above its stack, the main thread's ends at
//! `mm->start_stack`. So bounded, a snapshot is a few hundred bytes to a few KiB.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use leakwatch_ebpf::wire::{
    Counter, HEADER_BYTES, Header, REGISTERS_BYTES, STACK_BYTES_MAX, STACK_CHUNK_BYTES, flags,
};

use crate::{counters, kernel, setting};

pub const STACK_AT: usize = HEADER_BYTES + REGISTERS_BYTES;
/// A cap that is no multiple of the page size still takes one chunk for each page it touches.
const CHUNKS_MAX: usize = STACK_BYTES_MAX / STACK_CHUNK_BYTES + 1;

/// Fills registers and stack into a scratch slot that has its header, and says so in the header. Returns the record's
/// length in bytes.
///
/// What changes from round to round is kept in the slot, not in registers: the verifier follows the bounds of a
/// register through every combination of rounds and branches (a million instructions, most of a second for each
/// program), and forgets those of memory.
///
/// The copy begins `below` bytes under the stack pointer: nothing in general, and the return address where a function
/// has just returned.
#[inline(always)]
pub fn take(scratch: *mut u8, registers: u64, below: u64) -> usize {
    let header: *mut Header = scratch.cast();
    let registers_bytes = setting!(registers_bytes);
    if registers == 0 || registers_bytes as usize > REGISTERS_BYTES {
        counters::add(Counter::RegistersMissing, 1);
        return HEADER_BYTES;
    }
    // SAFETY: the slot has REGISTERS_BYTES after the header; the helper checks the source.
    let result = unsafe {
        bpf_probe_read_kernel(
            scratch.add(HEADER_BYTES).cast(),
            registers_bytes,
            registers as *const _,
        )
    };
    let stack_pointer = kernel::read::<u64>(registers, setting!(stack_pointer_offset)).unwrap_or(0);
    let stack_pointer = stack_pointer.wrapping_sub(below);
    if result != 0 || stack_pointer == 0 {
        counters::add(Counter::RegistersMissing, 1);
        return HEADER_BYTES;
    }

    let task = kernel::current() as u64;
    let tls = kernel::read::<u64>(task, setting!(task_tls)).unwrap_or(0);
    let end = if stack_pointer < tls {
        tls
    } else {
        kernel::memory()
            .and_then(|mm| kernel::read::<u64>(mm, setting!(mm_start_stack)))
            .unwrap_or(0)
    };
    let cap = u64::from(setting!(stack_bytes)).min(STACK_BYTES_MAX as u64);
    // Neither below the thread's control block nor on the main stack: a signal stack or a coroutine's, whose end is
    // unknown. Then up to the cap, or to where reading fails.
    let known = end.wrapping_sub(stack_pointer);
    let whole = stack_pointer < end && known <= cap;
    let wanted = if whole { known } else { cap };
    let reach = if whole {
        flags::STACK_WHOLE
    } else {
        flags::STACK_CAPPED
    };
    // SAFETY: the header lies in the slot and is initialised; volatile keeps it in memory, see above.
    unsafe {
        (&raw mut (*header).stack_pointer).write_volatile(stack_pointer);
        (&raw mut (*header).stack_wanted).write_volatile(wanted as u32);
        (&raw mut (*header).flags).write_volatile(flags::STACK | reach);
    }

    for _ in 0..CHUNKS_MAX {
        // SAFETY: as above.
        let (taken, wanted) = unsafe {
            (
                (&raw const (*header).stack_length).read_volatile() as usize,
                (&raw const (*header).stack_wanted).read_volatile() as usize,
            )
        };
        if taken >= wanted || taken >= STACK_BYTES_MAX {
            break;
        }
        let address = stack_pointer.wrapping_add(taken as u64);
        let to_page_end = STACK_CHUNK_BYTES - (address as usize & (STACK_CHUNK_BYTES - 1));
        let chunk = (wanted - taken).min(to_page_end);
        if chunk == 0 || chunk > STACK_CHUNK_BYTES {
            break;
        }
        // SAFETY: `taken` is under STACK_BYTES_MAX and `chunk` at most a page: inside the slot, which has a page to
        // spare. The helper checks the source.
        let result = unsafe {
            bpf_probe_read_user(
                scratch.add(STACK_AT + taken).cast(),
                chunk as u32,
                address as *const _,
            )
        };
        if result != 0 {
            // A page of the stack that was never touched is not there and holds nothing; the helper leaves zeros in
            // its place, and the frames above it are whole: a large frame has many such. Where the stack's end is not
            // known a second hole is the end of what can be read.
            // SAFETY: as above.
            let seen = unsafe { (&raw const (*header).flags).read_volatile() };
            if !whole {
                if seen & flags::STACK_UNREADABLE != 0 {
                    break;
                }
                counters::add(Counter::StacksUnreadable, 1);
            }
            // SAFETY: as above.
            unsafe { (&raw mut (*header).flags).write_volatile(seen | flags::STACK_UNREADABLE) };
        }
        // SAFETY: as above.
        unsafe { (&raw mut (*header).stack_length).write_volatile((taken + chunk) as u32) };
    }
    // SAFETY: as above.
    let taken = unsafe { (&raw const (*header).stack_length).read_volatile() } as usize;
    if taken > STACK_BYTES_MAX {
        return HEADER_BYTES;
    }
    if !whole {
        counters::add(Counter::StacksCapped, 1);
    }
    counters::add(Counter::StackBytes, taken as u64);
    STACK_AT + taken
}
