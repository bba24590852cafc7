//! When a census may be taken. Pure.
//!
//! It takes no lock of the target and no time on its cores beyond what reading shares with it; but it is work on the
//! host, and it comes at the window's ends. So its processor time is held to one hundredth of the window.

use std::time::Duration;

use crate::sampler::maps::Mapping;
use crate::sampler::totals::Totals;

/// One part in so many of the window may go to one census.
const SHARE: u32 = 100;
/// What a GiB of small blocks is reckoned to take before anything was measured; `cargo xtask bench` measures it.
const PER_GIB: Duration = Duration::from_millis(600);
/// From here on the rate of an earlier reading is believed.
const TELLING_BYTES: u64 = 64 << 20;
/// So much may be swapped out: reading it brings it back.
const SWAPPED_MAX: u64 = 1 << 20;
/// And so much, one part in so many of the anonymous memory.
const SWAPPED_SHARE: u64 = 100;
/// glibc aligns the heaps of its thread arenas to their greatest size.
const ARENA_BYTES: u64 = 64 << 20;

/// Bytes of what may be heaps: `[heap]`, and memory that begins where thread arenas do.
#[must_use]
pub fn heap_bytes(mappings: &[Mapping]) -> u64 {
    mappings
        .iter()
        .filter(|mapping| {
            let arena = mapping.inode == 0
                && mapping.path.is_none()
                && mapping.writable
                && !mapping.shared
                && mapping.range.start.is_multiple_of(ARENA_BYTES);
            arena || mapping.path_bytes() == b"[heap]"
        })
        .fold(0, |sum, mapping| {
            sum.saturating_add(mapping.range.end.saturating_sub(mapping.range.start))
        })
}

/// What an earlier reading took, as processor time.
#[derive(Clone, Copy, Debug)]
pub struct Earlier {
    /// Of heap.
    pub bytes: u64,
    /// To walk them.
    pub walk: Duration,
    /// All else: it does not grow with the heap.
    pub rest: Duration,
}

/// What reading a heap of so many bytes will take: by an earlier reading, where there was one. A small heap tells
/// little of what a large one takes, so the walk is not reckoned slower than without.
#[must_use]
pub fn predicted(bytes: u64, earlier: Option<Earlier>) -> Duration {
    let in_proportion = |of: u64, took: Duration| {
        #[expect(clippy::cast_precision_loss, reason = "a prediction")]
        let times = bytes as f64 / of as f64;
        Duration::try_from_secs_f64(took.as_secs_f64() * times).unwrap_or(Duration::MAX)
    };
    let reckoned = in_proportion(1 << 30, PER_GIB);
    let Some(earlier) = earlier.filter(|earlier| earlier.bytes > 0) else {
        return reckoned;
    };
    let walk = in_proportion(earlier.bytes, earlier.walk);
    let walk = if earlier.bytes < TELLING_BYTES {
        walk.min(reckoned)
    } else {
        walk
    };
    walk.saturating_add(earlier.rest)
}

/// Whether a census that is predicted to take so long may be taken in a window.
#[must_use]
pub fn affordable(predicted: Duration, window: Duration) -> bool {
    predicted.saturating_mul(SHARE) <= window
}

/// How many bytes of a process are swapped out, where that is so much that its heap is not to be read.
#[must_use]
pub fn swapped_too_much(totals: &Totals) -> Option<u64> {
    let swapped = totals.swap?;
    let anonymous = totals.rss_anonymous.unwrap_or(0).saturating_add(swapped);
    (swapped > SWAPPED_MAX && swapped > anonymous / SWAPPED_SHARE).then_some(swapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::maps::parse_line;

    #[test]
    fn what_may_be_a_heap() {
        let mappings: Vec<Mapping> = [
            "555500000000-555500400000 rw-p 00000000 00:00 0 [heap]",
            "7e0000000000-7e0000021000 rw-p 00000000 00:00 0",
            "7e0000021000-7e0004000000 ---p 00000000 00:00 0",
            "7e0008001000-7e0008021000 rw-p 00000000 00:00 0",
            "7f0000000000-7f0000002000 rw-p 001d3000 08:01 77 /lib/libc.so.6",
        ]
        .iter()
        .map(|line| parse_line(line.as_bytes()).unwrap())
        .collect();
        assert_eq!(heap_bytes(&mappings), 0x40_0000 + 0x2_1000);
    }

    #[test]
    fn one_hundredth_of_the_window() {
        let minute = Duration::from_secs(60);
        assert_eq!(predicted(1 << 29, None), PER_GIB / 2);
        assert!(affordable(predicted(1 << 30, None), minute));
        assert!(!affordable(predicted(2 << 30, None), minute));
        // What was measured counts more than what was reckoned.
        let earlier = |bytes, walk, rest| {
            Some(Earlier {
                bytes,
                walk: Duration::from_millis(walk),
                rest: Duration::from_millis(rest),
            })
        };
        assert!(affordable(predicted(2 << 30, earlier(1 << 30, 100, 20)), minute));
        assert!(!affordable(predicted(1 << 30, earlier(1 << 29, 400, 20)), minute));
        // 6 MiB in 20 ms are no reason to think that 52 MiB take longer than any heap does.
        let small = predicted(52 << 20, earlier(6 << 20, 20, 10));
        assert_eq!(small, predicted(52 << 20, None) + Duration::from_millis(10));
        assert_eq!(predicted(u64::MAX, earlier(64 << 20, u64::MAX, 0)), Duration::MAX);
        assert_eq!(predicted(1 << 30, earlier(0, 0, 0)), PER_GIB);
    }

    #[test]
    fn only_much_swap_keeps_from_reading() {
        let mib = 1 << 20;
        let totals = |resident, swap| Totals {
            rss_anonymous: Some(resident * mib),
            swap: Some(swap),
            ..Totals::default()
        };
        assert_eq!(swapped_too_much(&totals(100, 0)), None);
        assert_eq!(swapped_too_much(&totals(0, mib)), None);
        assert_eq!(swapped_too_much(&totals(1000, 9 * mib)), None);
        assert_eq!(swapped_too_much(&totals(1000, 12 * mib)), Some(12 * mib));
        assert_eq!(swapped_too_much(&totals(0, 2 * mib)), Some(2 * mib));
        assert_eq!(swapped_too_much(&Totals::default()), None);
    }
}
