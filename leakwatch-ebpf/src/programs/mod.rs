//! Entry programs report what is given up, exit programs what was gained, so that the order in the ring agrees with
//! the order of ownership: once a release has taken effect another thread may be handed the range, and its event must
//! come later. A release that then fails is corrected by its exit program.

pub mod alloc;
mod brk;
mod fault;
mod madvise;
mod mmap;
mod mprotect;
mod mremap;
mod munmap;
mod process;

use leakwatch_ebpf::wire::{Counter, Kind};

use crate::emit;

/// Reports that a range is about to be given up.
#[inline(always)]
fn release(kind: Kind, address: u64, length: u64, operation: u32) {
    let mut header = emit::header(kind);
    header.address = address;
    header.length = length;
    header.operation = operation;
    emit::send(&header, Counter::LostReleases);
}

/// Reports that the release of a range, announced when the call was entered, did not happen.
#[inline(always)]
fn correct(failed: Kind, address: u64, length: u64) {
    release(Kind::ReleaseFailed, address, length, failed as u32);
}
