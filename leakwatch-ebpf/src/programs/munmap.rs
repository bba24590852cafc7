//! `syscalls:sys_enter_munmap` (addr, len) and `syscalls:sys_exit_munmap` (ret).

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Kind, Syscall};

use super::{correct, release};
use crate::{emit, kernel};

#[tracepoint]
pub fn enter_munmap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let address = kernel::enter_argument(&context, Syscall::Munmap, 0);
    let length = kernel::enter_argument(&context, Syscall::Munmap, 1);
    release(Kind::Unmap, address, length, 0);
    0
}

#[tracepoint]
pub fn exit_munmap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() || kernel::exit_return(&context, Syscall::Munmap) == 0 {
        return 0;
    }
    let registers = kernel::user_registers();
    correct(
        Kind::Unmap,
        kernel::exit_argument(registers, 0),
        kernel::exit_argument(registers, 1),
    );
    0
}
