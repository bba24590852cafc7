//! Page faults: the perf software event `PERF_COUNT_SW_PAGE_FAULTS`, opened on each thread of the target; where it cannot
//! be opened, the tracepoint `exceptions:page_fault_user` (address, ip, error_code) of the whole host.
//!
//! The event fires when a fault begins, in user mode and in kernel mode alike (a `read` into fresh memory faults in the
//! kernel); the tracepoint in user mode only. Whether a page came of it is seen at the end, in the page map.

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_perf_event_data,
    macros::{perf_event, tracepoint},
    programs::{PerfEventContext, TracePointContext},
};
use leakwatch_ebpf::wire::{Counter, Kind, page_in_sample};

use crate::{counters, emit, kernel, setting};

#[perf_event]
pub fn page_fault(context: PerfEventContext) -> u32 {
    // SAFETY: the kernel hands a perf event program this very structure.
    let address = unsafe { (*context.as_ptr().cast::<bpf_perf_event_data>()).addr };
    fault_at(address);
    0
}

#[tracepoint]
pub fn page_fault_user(context: TracePointContext) -> u32 {
    if let Some(address) = kernel::read::<u64>(context.as_ptr() as u64, setting!(fault_address)) {
        fault_at(address);
    }
    0
}

/// A fault of any process at this address. Most are out of the sample in a storm, so that is asked first.
#[inline(always)]
fn fault_at(address: u64) {
    let page = address >> setting!(page_shift);
    if !page_in_sample(page, emit::sample_threshold()) {
        return;
    }
    // A child that the target forks inherits the event, watched or not; and the tracepoint fires for all.
    if emit::watched().is_none() {
        return;
    }
    counters::add(Counter::Faults, 1);
    emit::relieve_ring();
    let mut header = emit::header(Kind::Fault);
    header.address = address;
    // Not the event's own registers: those are the kernel's when the fault was taken there. Who called the kernel is
    // in the registers that the thread entered it with.
    emit::send_fault(header, kernel::user_registers());
}
