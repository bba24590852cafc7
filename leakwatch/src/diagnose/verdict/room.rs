//! How far it is to the limit that the process meets first. Pure.

use crate::sampler::cgroup::CgroupMemory;
use crate::sampler::host::Memory;

/// What there is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A cgroup's `memory.max`: its own, or that of one so many levels above.
    Cgroup { above: u32 },
    /// The host's RAM.
    Ram,
}

impl Of {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Ram => "ram",
        }
    }
}

/// A limit and what is left of it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub of: Of,
    pub limit: u64,
    pub left: u64,
}

impl Room {
    /// Of a cgroup and those above it; `None` without a limit.
    ///
    /// Of its own cgroup only anonymous memory is counted, where the kernel says how much that is: file cache fills a cgroup
    /// up to its limit sooner or later, and is given up before anything is killed. Of one above only the usage is known,
    /// cache included.
    #[must_use]
    pub fn of_cgroup(cgroup: &CgroupMemory) -> Option<Self> {
        let limit = cgroup.tightest?;
        Some(Self {
            of: Of::Cgroup { above: limit.above },
            limit: limit.limit,
            left: match cgroup.anonymous {
                Some(anonymous) if limit.above == 0 => limit.limit.saturating_sub(anonymous),
                _ => limit.room(),
            },
        })
    }

    /// The tighter of the two; `None` where neither is known.
    #[must_use]
    pub fn tighter(cgroup: Option<&CgroupMemory>, ram: Option<&Memory>) -> Option<Self> {
        let cgroup = cgroup.and_then(Self::of_cgroup);
        let ram = ram.and_then(|memory| {
            Some(Self {
                of: Of::Ram,
                limit: memory.total?,
                left: memory.available?,
            })
        });
        cgroup
            .into_iter()
            .chain(ram)
            .min_by_key(|room| (room.left, room.of == Of::Ram))
    }
}

/// When the limit is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reached {
    pub room: Room,
    /// Bytes per second.
    pub rate: f64,
    /// From the window's end on.
    pub seconds: f64,
}

impl Reached {
    /// At a rate; `None` where memory does not grow.
    pub(super) fn at(rate: f64, room: Room) -> Option<Self> {
        (rate > 0.0 && rate.is_finite()).then(|| Self {
            room,
            rate,
            seconds: room.left as f64 / rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::cgroup::{Limit, Version};

    const RAM: Memory = Memory {
        total: Some(8 << 30),
        available: Some(3 << 30),
        swap_total: None,
        swap_free: None,
    };

    #[test]
    fn the_tighter_one_counts() {
        let limit = |limit, used| CgroupMemory {
            version: Version::V2,
            current: used,
            anonymous: Some(0),
            tightest: Some(Limit {
                limit,
                used: Some(used),
                above: 1,
            }),
        };
        let room = Room::tighter(Some(&limit(512 << 20, 112 << 20)), Some(&RAM)).unwrap();
        assert_eq!((room.of, room.left), (Of::Cgroup { above: 1 }, 400 << 20));
        // A generous cgroup on a full host.
        let room = Room::tighter(Some(&limit(64 << 30, 0)), Some(&RAM)).unwrap();
        assert_eq!((room.of, room.left), (Of::Ram, 3 << 30));
        assert_eq!(Room::tighter(None, Some(&Memory::default())), None);
        assert_eq!(Room::tighter(None, None), None);
    }

    #[test]
    fn what_does_not_grow_reaches_nothing() {
        let room = Room::tighter(None, Some(&RAM)).unwrap();
        assert_eq!(Reached::at(0.0, room), None);
        assert_eq!(Reached::at(-5.0, room), None);
        assert_eq!(Reached::at(f64::NAN, room), None);
        let reached = Reached::at(1024.0 * 1024.0, room).unwrap();
        assert!((reached.seconds - 3072.0).abs() < 1e-9);
    }
}
