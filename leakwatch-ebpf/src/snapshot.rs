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

const STACK_AT: usize = HEADER_BYTES + REGISTERS_BYTES;
/// A cap that is no multiple of the page size still takes one chunk for each page it touches.
const CHUNKS_MAX: usize = STACK_BYTES_MAX / STACK_CHUNK_BYTES + 1;

/// Fills registers and stack into a scratch slot and says so in `header`. Returns the record's length in bytes.
#[inline(always)]
pub fn take(scratch: *mut u8, header: &mut Header, registers: u64) -> usize {
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
    if result != 0 || stack_pointer == 0 {
        counters::add(Counter::RegistersMissing, 1);
        return HEADER_BYTES;
    }
    header.flags |= flags::STACK;
    header.stack_pointer = stack_pointer;

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
    let wanted = if whole { known } else { cap } as usize;

    let mut taken: usize = 0;
    let mut unreadable = false;
    for _ in 0..CHUNKS_MAX {
        if taken >= wanted || taken >= STACK_BYTES_MAX {
            break;
        }
        let address = stack_pointer.wrapping_add(taken as u64);
        let to_page_end = STACK_CHUNK_BYTES - (address as usize & (STACK_CHUNK_BYTES - 1));
        let left = wanted - taken;
        let chunk = if left < to_page_end { left } else { to_page_end };
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
            unreadable = true;
            break;
        }
        taken += chunk;
    }
    if unreadable {
        header.flags |= flags::STACK_UNREADABLE;
        counters::add(Counter::StacksUnreadable, 1);
    } else if whole {
        header.flags |= flags::STACK_WHOLE;
    } else {
        header.flags |= flags::STACK_CAPPED;
        counters::add(Counter::StacksCapped, 1);
    }
    header.stack_length = taken as u32;
    counters::add(Counter::StackBytes, taken as u64);
    STACK_AT + taken
}
