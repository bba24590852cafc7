//! `syscalls:sys_enter_mremap` (addr, old_len, new_len, flags, new_addr) and `syscalls:sys_exit_mremap` (ret).

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Counter, Kind, Syscall};

use crate::{emit, kernel};

const MREMAP_FIXED: u64 = 2;

#[tracepoint]
pub fn enter_mremap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let mut header = emit::header(Kind::RemapFrom);
    header.old_address = kernel::enter_argument(&context, Syscall::Mremap, 0);
    header.old_length = kernel::enter_argument(&context, Syscall::Mremap, 1);
    header.length = kernel::enter_argument(&context, Syscall::Mremap, 2);
    header.operation = kernel::enter_argument(&context, Syscall::Mremap, 3) as u32;
    header.address = kernel::enter_argument(&context, Syscall::Mremap, 4);
    emit::send(&header, Counter::LostReleases);
    0
}

#[tracepoint]
pub fn exit_mremap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let registers = kernel::user_registers();
    let returned = kernel::exit_return(&context, Syscall::Mremap);
    let failed = kernel::failed(returned);
    let mut header = emit::header(if failed {
        Kind::ReleaseFailed
    } else {
        Kind::RemapTo
    });
    header.old_address = kernel::exit_argument(registers, 0);
    header.old_length = kernel::exit_argument(registers, 1);
    header.length = kernel::exit_argument(registers, 2);
    if failed {
        // The new address means something only where it is asked for.
        if kernel::exit_argument(registers, 3) & MREMAP_FIXED != 0 {
            header.address = kernel::exit_argument(registers, 4);
        }
        header.operation = Kind::RemapFrom as u32;
        emit::send(&header, Counter::LostReleases);
    } else {
        header.address = returned as u64;
        header.operation = kernel::exit_argument(registers, 3) as u32;
        emit::send_with_stack(header, registers);
    }
    0
}
