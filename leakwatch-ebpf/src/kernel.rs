//! Reads of kernel structures whose layout comes from BTF through the settings: no CO-RE, so that one object built
//! without kernel headers serves every kernel.

use aya_ebpf::{
    EbpfContext as _,
    bindings::task_struct,
    helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs},
    programs::TracePointContext,
};
use leakwatch_ebpf::wire::Syscall;

use crate::setting;

#[inline(always)]
pub fn current() -> *mut task_struct {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_current_task_btf() }
}

/// Reads a `T` at `base + offset` of kernel memory; `None` where the kernel refuses.
#[inline(always)]
pub fn read<T>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails rather than faults.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// Address of the user registers that the current thread entered the kernel with.
#[inline(always)]
pub fn user_registers() -> u64 {
    // SAFETY: `current()` is a trusted task pointer.
    unsafe { bpf_task_pt_regs(current()) as u64 }
}

/// The current process's `mm_struct`.
#[inline(always)]
pub fn memory() -> Option<u64> {
    read::<u64>(current() as u64, setting!(task_mm)).filter(|&mm| mm != 0)
}

/// Argument `index` of the call that is being entered, from the tracepoint's own record.
#[inline(always)]
pub fn enter_argument(context: &TracePointContext, syscall: Syscall, index: usize) -> u64 {
    let offset = setting!(enter[syscall as usize][index]);
    read::<u64>(context.as_ptr() as u64, offset).unwrap_or(0)
}

/// Argument `index` of the call that is returning. The exit record does not have it, the registers still do.
#[inline(always)]
pub fn exit_argument(registers: u64, index: usize) -> u64 {
    read::<u64>(registers, setting!(register_arguments[index])).unwrap_or(0)
}

/// The return value of the call that is returning.
#[inline(always)]
pub fn exit_return(context: &TracePointContext, syscall: Syscall) -> i64 {
    let offset = setting!(exit_return[syscall as usize]);
    read::<i64>(context.as_ptr() as u64, offset).unwrap_or(-1)
}

/// Whether a system call's return value says that it failed (`-MAX_ERRNO..0`).
#[inline(always)]
pub fn failed(value: i64) -> bool {
    (-4095..0).contains(&value)
}
