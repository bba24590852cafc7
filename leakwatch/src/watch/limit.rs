//! How much room there is, and for how long. Pure.

use std::time::Duration;

use crate::diagnose::verdict;
use crate::sampler::cgroup::CgroupMemory;

/// What is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `memory.max` of the cgroup or one above it.
    Cgroup,
    /// What the host has available.
    Ram,
}

impl Bound {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "the cgroup's limit",
            Self::Ram => "the end of RAM",
        }
    }
}

/// Bytes that are left, and below which bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub bound: Bound,
}

/// The lesser of what the cgroup's limit and the host leave, as the verdict reckons it ([`verdict::Room::of_cgroup`]).
#[must_use]
pub fn room(cgroup: Option<&CgroupMemory>, available: Option<u64>) -> Option<Room> {
    let of_cgroup = cgroup.and_then(verdict::Room::of_cgroup).map(|room| Room {
        bytes: room.left,
        bound: Bound::Cgroup,
    });
    let of_host = available.map(|bytes| Room {
        bytes,
        bound: Bound::Ram,
    });
    [of_cgroup, of_host]
        .into_iter()
        .flatten()
        .min_by_key(|room| room.bytes)
}

/// Until it is full, at so many bytes a second; `None` without growth, and beyond a hundred years.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
pub fn time_to(room: Room, rate: f64) -> Option<Duration> {
    const CENTURY: f64 = 100.0 * 365.0 * 86400.0;
    let seconds = room.bytes as f64 / rate;
    (rate > 0.0 && seconds <= CENTURY).then(|| Duration::from_secs_f64(seconds.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::cgroup::{Limit, Version};

    fn cgroup(anonymous: Option<u64>, limit: u64, used: u64, above: u32) -> CgroupMemory {
        CgroupMemory {
            version: Version::V2,
            current: used,
            anonymous,
            tightest: Some(Limit {
                limit,
                used: Some(used),
                above,
            }),
        }
    }

    #[test]
    fn file_cache_of_the_own_cgroup_is_no_usage() {
        let full_of_cache = cgroup(Some(300), 1000, 1000, 0);
        let room_of = |cgroup: &CgroupMemory, available| room(Some(cgroup), available).unwrap();
        assert_eq!(room_of(&full_of_cache, None).bytes, 700);
        assert_eq!(room_of(&cgroup(None, 1000, 900, 0), None).bytes, 100);
        assert_eq!(room_of(&cgroup(Some(300), 1000, 900, 2), None).bytes, 100);
        assert_eq!(room_of(&cgroup(Some(2000), 1000, 900, 0), None).bytes, 0);
        let less_on_the_host = room_of(&full_of_cache, Some(5));
        assert_eq!((less_on_the_host.bytes, less_on_the_host.bound), (5, Bound::Ram));
        assert_eq!(room(None, None), None);
        let unlimited = CgroupMemory {
            tightest: None,
            ..full_of_cache
        };
        assert_eq!(room(Some(&unlimited), None), None);
    }

    #[test]
    fn the_time_is_room_by_rate() {
        let room = Room {
            bytes: 3600 << 20,
            bound: Bound::Ram,
        };
        assert_eq!(time_to(room, f64::from(1 << 20)), Some(Duration::from_secs(3600)));
        for rate in [0.0, -5.0, f64::NAN, 1e-300] {
            assert_eq!(time_to(room, rate), None);
        }
        let full = Room { bytes: 0, ..room };
        assert_eq!(time_to(full, 1.0), Some(Duration::ZERO));
    }
}
