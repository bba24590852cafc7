//! The perf software event `PERF_COUNT_SW_PAGE_FAULTS`, opened on each thread of the target.
//!
//! It fires when a fault begins, in user mode and in kernel mode alike (a `read` into fresh memory faults in the
//! kernel). Whether a page came of it is seen at the end, in the page map.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_perf_event_data, macros::perf_event, programs::PerfEventContext,
};
use leakwatch_ebpf::wire::{Counter, Kind, page_in_sample};

use crate::{counters, emit, kernel, setting};

#[perf_event]
pub fn page_fault(context: PerfEventContext) -> u32 {
    counters::add(Counter::Faults, 1);
    // SAFETY: the kernel hands a perf event program this very structure.
    let address = unsafe { (*context.as_ptr().cast::<bpf_perf_event_data>()).addr };
    let page = address >> setting!(page_shift);
    if !page_in_sample(page, emit::sample_threshold()) {
        return 0;
    }
    let mut header = emit::header(Kind::Fault);
    header.address = address;
    // Not the event's own registers: those are the kernel's when the fault was taken there. Who called the kernel is
    // in the registers that the thread entered it with.
    emit::send_fault(header, kernel::user_registers());
    0
}
