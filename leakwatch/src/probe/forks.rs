//! What forks of leakwatch need not have.
//!
//! The kernel copies the page tables of a mapping of device-like pages, as those of a BPF map are, for each fork: those of
//! the ring, which is mapped twice over, take some ten milliseconds, at a busy target's expense. No fork reads the ring.

use std::ffi::c_void;

use rustix::mm::{Advice, madvise};

use crate::sampler::{ProcRoot, maps};

/// What the kernel calls a mapping of a BPF map.
pub(super) const MAP_PATH: &str = "anon_inode:bpf-map";

/// Has no fork from now on get this process's mappings of BPF maps. Where that cannot be done, forks take longer.
pub(super) fn leave_out_maps() {
    let Ok(own) = maps::read(&ProcRoot::default(), std::process::id()) else {
        return;
    };
    for mapping in own.mappings {
        if mapping.path.as_deref().is_none_or(|path| path != MAP_PATH) {
            continue;
        }
        let (Ok(start), Ok(bytes)) = (
            usize::try_from(mapping.range.start),
            usize::try_from(mapping.range.end.saturating_sub(mapping.range.start)),
        ) else {
            continue;
        };
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: no byte of the mapping changes, and in this process it stays; a fork that has not got it calls nothing
        // but system calls, which are given no address in it.
        let _: rustix::io::Result<()> = unsafe { madvise(start, bytes, Advice::LinuxDontFork) };
    }
}
