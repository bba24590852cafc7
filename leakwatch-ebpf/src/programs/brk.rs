//! `syscalls:sys_enter_brk` (brk) and `syscalls:sys_exit_brk` (ret).
//!
//! brk returns the heap's end whether it moved or not, and glibc asks for it with an argument of 0. Only the end from
//! before tells growth from shrinking, so the entry looks it up in the `mm` and an exit without its entry is ignored.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::tracepoint, programs::TracePointContext};
use leakwatch_ebpf::wire::{Counter, Kind, Syscall};

use super::release;
use crate::{BRK_BEFORE, counters, emit, kernel, setting};

#[tracepoint]
pub fn enter_brk(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let asked = kernel::enter_argument(&context, Syscall::Brk, 0);
    let Some(before) = kernel::memory().and_then(|mm| kernel::read::<u64>(mm, setting!(mm_brk))) else {
        counters::add(Counter::BrkUnpaired, 1);
        return 0;
    };
    if asked == 0 || asked == before {
        return 0;
    }
    if asked < before {
        release(Kind::BrkDown, asked, before - asked, 0);
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    if BRK_BEFORE.insert(tid, before, 0).is_err() {
        counters::add(Counter::BrkUnpaired, 1);
    }
    0
}

#[tracepoint]
pub fn exit_brk(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: only this thread writes and removes its own entry.
    let Some(before) = unsafe { BRK_BEFORE.get(tid) }.copied() else {
        return 0;
    };
    let _ = BRK_BEFORE.remove(tid);
    diagnose!(&context, "brk was {:x}", before);
    let end = kernel::exit_return(&context, Syscall::Brk) as u64;
    let registers = kernel::user_registers();
    let asked = kernel::exit_argument(registers, 0);
    if asked < before {
        if end > asked {
            let mut header = emit::header(Kind::ReleaseFailed);
            header.address = asked;
            header.length = before - asked;
            header.operation = Kind::BrkDown as u32;
            emit::send(&header, Counter::LostReleases);
        }
    } else if end > before {
        let mut header = emit::header(Kind::BrkUp);
        header.address = end;
        header.old_address = before;
        emit::send_with_stack(header, registers);
    }
    0
}
