//! `syscalls:sys_enter_mmap` (addr, len, prot, flags, fd, off) and `syscalls:sys_exit_mmap` (ret).

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Kind, Syscall};

use super::{correct, release};
use crate::{emit, kernel};

const MAP_FIXED: u64 = 0x10;
/// Fails rather than replaces, so it releases nothing.
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

#[inline(always)]
fn replaces(flags: u64) -> bool {
    flags & MAP_FIXED != 0 && flags & MAP_FIXED_NOREPLACE == 0
}

#[tracepoint]
pub fn enter_mmap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let flags = kernel::enter_argument(&context, Syscall::Mmap, 3);
    if replaces(flags) {
        let address = kernel::enter_argument(&context, Syscall::Mmap, 0);
        let length = kernel::enter_argument(&context, Syscall::Mmap, 1);
        release(Kind::Replace, address, length, flags as u32);
    }
    0
}

#[tracepoint]
pub fn exit_mmap(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let registers = kernel::user_registers();
    let returned = kernel::exit_return(&context, Syscall::Mmap);
    let flags = kernel::exit_argument(registers, 3);
    if kernel::failed(returned) {
        if replaces(flags) {
            correct(
                Kind::Replace,
                kernel::exit_argument(registers, 0),
                kernel::exit_argument(registers, 1),
            );
        }
        return 0;
    }
    diagnose!(&context, "mmap returned {:x}", returned as u64);
    let mut header = emit::header(Kind::Map);
    header.address = returned as u64;
    header.length = kernel::exit_argument(registers, 1);
    header.protection = kernel::exit_argument(registers, 2) as u32;
    header.operation = flags as u32;
    header.fd = kernel::exit_argument(registers, 4) as i32;
    emit::send_range(header, registers);
    0
}
