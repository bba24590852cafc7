//! Atomic reads and writes in one. `core` has none for BPF, whose oldest version lacks them; Linux has them since 5.12.

use core::arch::asm;

/// Adds to a value and returns what it was.
///
/// # Safety
///
/// `value` is aligned, and in a map value that the program may write.
#[inline(always)]
pub unsafe fn add(value: *mut u64, amount: u64) -> u64 {
    let mut result = amount;
    // SAFETY: the caller's promise.
    unsafe { asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) value, inout(reg) result) };
    result
}

/// Replaces a value and returns what it was.
///
/// # Safety
///
/// As of [`add`].
#[inline(always)]
pub unsafe fn replace(value: *mut u64, with: u64) -> u64 {
    let mut result = with;
    // SAFETY: the caller's promise.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) value, inout(reg) result) };
    result
}
