//! `syscalls:sys_enter_mprotect` (start, len, prot) and `syscalls:sys_exit_mprotect` (ret). The same programs serve
//! `pkey_mprotect` (V8 and other JITs use it), which has the same first three arguments: the kernel lays the records of all
//! system calls out alike, argument by argument.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Kind, Syscall};

use super::{correct, release};
use crate::{emit, kernel};

/// `PROT_READ | PROT_WRITE | PROT_EXEC`.
const ACCESSIBLE: u64 = 7;

#[tracepoint]
pub fn enter_mprotect(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let protection = kernel::enter_argument(&context, Syscall::Mprotect, 2);
    if protection & ACCESSIBLE == 0 {
        let address = kernel::enter_argument(&context, Syscall::Mprotect, 0);
        let length = kernel::enter_argument(&context, Syscall::Mprotect, 1);
        release(Kind::Decommit, address, length, 0);
    }
    0
}

#[tracepoint]
pub fn exit_mprotect(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let registers = kernel::user_registers();
    let address = kernel::exit_argument(registers, 0);
    let length = kernel::exit_argument(registers, 1);
    let protection = kernel::exit_argument(registers, 2);
    let accessible = protection & ACCESSIBLE != 0;
    if kernel::exit_return(&context, Syscall::Mprotect) != 0 {
        if !accessible {
            correct(Kind::Decommit, address, length);
        }
    } else if accessible {
        let mut header = emit::header(Kind::Protect);
        header.address = address;
        header.length = length;
        header.protection = protection as u32;
        emit::send_range(header, registers);
    }
    0
}
