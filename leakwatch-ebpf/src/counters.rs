//! What was lost, counted where it was lost.

use leakwatch_ebpf::wire::Counter;

use crate::COUNTS;

#[inline(always)]
pub fn add(counter: Counter, amount: u64) {
    if let Some(value) = COUNTS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own and the program is not preempted: nobody else writes it.
        unsafe { *value += amount };
    }
}
