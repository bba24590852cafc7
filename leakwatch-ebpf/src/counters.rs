//! What was lost, counted where it was lost.

use leakwatch_ebpf::wire::Counter;

use crate::{COUNTS, atomic};

/// Counts, and returns this CPU's count from before. Atomic, for a uprobe program can be preempted between the read and
/// the write, by another that counts the same on its CPU.
#[inline(always)]
pub fn add(counter: Counter, amount: u64) -> u64 {
    let Some(value) = COUNTS.get_ptr_mut(counter as u32) else {
        return 0;
    };
    // SAFETY: a value of the map, aligned, that programs access atomically only.
    unsafe { atomic::add(value, amount) }
}
