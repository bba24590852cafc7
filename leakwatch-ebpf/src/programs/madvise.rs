//! `syscalls:sys_enter_madvise` (start, len_in, behavior) and `syscalls:sys_exit_madvise` (ret): the advices that give
//! pages up.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Kind, Syscall};

use super::{correct, release};
use crate::{emit, kernel};

#[inline(always)]
fn gives_up(advice: u64) -> bool {
    const MADV_DONTNEED: u64 = 4;
    const MADV_FREE: u64 = 8;
    const MADV_REMOVE: u64 = 9;
    const MADV_DONTNEED_LOCKED: u64 = 24;
    matches!(
        advice,
        MADV_DONTNEED | MADV_FREE | MADV_REMOVE | MADV_DONTNEED_LOCKED
    )
}

#[tracepoint]
pub fn enter_madvise(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let advice = kernel::enter_argument(&context, Syscall::Madvise, 2);
    if gives_up(advice) {
        let address = kernel::enter_argument(&context, Syscall::Madvise, 0);
        let length = kernel::enter_argument(&context, Syscall::Madvise, 1);
        release(Kind::Discard, address, length, advice as u32);
    }
    0
}

#[tracepoint]
pub fn exit_madvise(context: TracePointContext) -> u32 {
    /// Some of the range is not mapped; the pages of the rest are gone all the same.
    const ENOMEM: i64 = 12;
    if emit::watched().is_none() {
        return 0;
    }
    let returned = kernel::exit_return(&context, Syscall::Madvise);
    if returned == 0 || returned == -ENOMEM {
        return 0;
    }
    let registers = kernel::user_registers();
    if gives_up(kernel::exit_argument(registers, 2)) {
        correct(
            Kind::Discard,
            kernel::exit_argument(registers, 0),
            kernel::exit_argument(registers, 1),
        );
    }
    0
}
