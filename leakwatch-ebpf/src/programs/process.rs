//! `sched_process_fork`, `sched:sched_process_exec` and `sched:sched_process_exit`.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use leakwatch_ebpf::wire::{Counter, Kind, watch};

use crate::{ALLOC_CALLS, TARGETS, counters, emit, kernel, setting};

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, raw: the formatted tracepoint gives only the
/// child's thread number, which does not tell a new process from a new thread.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let Some(bits) = emit::watched() else {
        return 0;
    };
    let child: u64 = context.arg(1);
    let pid = kernel::read::<u32>(child, setting!(task_pid)).unwrap_or(0);
    let tgid = kernel::read::<u32>(child, setting!(task_tgid)).unwrap_or(0);
    if pid == 0 || pid != tgid {
        return 0;
    }
    // The child is watched before it has run: nothing of it is missed.
    if bits & watch::CHILDREN != 0 && TARGETS.insert(tgid, bits, 0).is_err() {
        counters::add(Counter::TargetsFull, 1);
    }
    let mut header = emit::header(Kind::Fork);
    header.address = u64::from(tgid);
    emit::send(&header, Counter::LostLifecycle);
    0
}

#[tracepoint]
pub fn process_exec(_context: TracePointContext) -> u32 {
    if emit::watched().is_some() {
        emit::send(&emit::header(Kind::Exec), Counter::LostLifecycle);
    }
    0
}

#[tracepoint]
pub fn process_exit(context: TracePointContext) -> u32 {
    if emit::watched().is_none() {
        return 0;
    }
    let header = emit::header(Kind::Exit);
    // Most threads have none.
    let _: Result<(), i32> = ALLOC_CALLS.remove(header.tid);
    // Older kernels do not say whether the group is dead; there the leader's exit has to serve, which is
    // checked against the pidfd in userspace.
    let over = if setting!(exit_group_dead) != 0 {
        kernel::read::<u8>(context.as_ptr() as u64, setting!(exit_group_dead)).unwrap_or(0) != 0
    } else {
        header.tid == header.tgid
    };
    if over {
        emit::send(&header, Counter::LostLifecycle);
    }
    0
}
