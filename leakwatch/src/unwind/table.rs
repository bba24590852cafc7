//! Distinct stacks, each kept once.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::{Ending, Frame, Stack, StackId, Truncation};

/// Distinct stacks that are kept; more share [`StackTable::OTHERS`].
pub const STACKS_MAX: usize = 262_144;
/// Frames that are kept in all stacks together: 128 MiB.
pub const FRAMES_MAX: usize = 8 << 20;

/// Interned stacks. Bounded: a target that makes up new stacks for ever costs no more than the caps.
pub struct StackTable {
    stacks: Vec<Stack>,
    /// The stack with the same hash that came before, if any.
    earlier: Vec<Option<StackId>>,
    by_hash: HashMap<u64, StackId, Ready>,
    /// Keyed, so that a target cannot choose addresses that all collide.
    key: u64,
    frames: usize,
    over_cap: u64,
    stacks_max: usize,
    frames_max: usize,
}

impl Default for StackTable {
    fn default() -> Self {
        Self::with_caps(STACKS_MAX, FRAMES_MAX)
    }
}

impl StackTable {
    /// The stack of all that came after the table was full: no frames.
    pub const OTHERS: StackId = StackId(0);

    pub(super) fn with_caps(stacks_max: usize, frames_max: usize) -> Self {
        Self {
            stacks: vec![Stack {
                frames: Vec::new(),
                ending: Ending::Truncated(Truncation::TooDeep),
            }],
            earlier: vec![None],
            by_hash: HashMap::default(),
            key: RandomState::new().hash_one(0_u8) | 1,
            frames: 0,
            over_cap: 0,
            stacks_max,
            frames_max,
        }
    }

    /// The number of a stack; allocates only when it is new.
    pub fn intern(&mut self, frames: &[Frame], ending: Ending) -> StackId {
        let hash = self.hash(frames, ending);
        let first = self.by_hash.get(&hash).copied();
        let mut candidate = first;
        while let Some(id) = candidate {
            if self
                .get(id)
                .is_some_and(|stack| stack.frames == frames && stack.ending == ending)
            {
                return id;
            }
            candidate = self.earlier.get(id.0 as usize).copied().flatten();
        }
        let id = match u32::try_from(self.stacks.len()) {
            Ok(number)
                if self.stacks.len() <= self.stacks_max && self.frames + frames.len() <= self.frames_max =>
            {
                StackId(number)
            }
            _ => {
                self.over_cap += 1;
                return Self::OTHERS;
            }
        };
        self.frames += frames.len();
        self.stacks.push(Stack {
            frames: frames.to_vec(),
            ending,
        });
        self.earlier.push(first);
        self.by_hash.insert(hash, id);
        id
    }

    #[must_use]
    pub fn get(&self, id: StackId) -> Option<&Stack> {
        self.stacks.get(id.0 as usize)
    }

    /// Distinct stacks, without [`Self::OTHERS`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.stacks.len() - 1
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How often a stack went to [`Self::OTHERS`].
    #[must_use]
    pub fn over_cap(&self) -> u64 {
        self.over_cap
    }

    fn hash(&self, frames: &[Frame], ending: Ending) -> u64 {
        let mut hash = self.key;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
            hash = low(product) ^ low(product >> 64);
        };
        for frame in frames {
            match *frame {
                Frame::Module { module, offset } => {
                    mix(u64::from(module.0) << 1);
                    mix(offset);
                }
                Frame::Anonymous { address } => {
                    mix(1);
                    mix(address);
                }
            }
        }
        mix(match ending {
            Ending::Root => 0,
            Ending::Truncated(reason) => 1 + reason as u64,
        });
        hash
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low(wide: u128) -> u64 {
    wide as u64
}

/// The key is a hash already.
#[derive(Clone, Copy, Default)]
struct Ready(u64);

impl BuildHasher for Ready {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModuleId;
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (0_u32..3, 0_u64..4).prop_map(|(module, offset)| Frame::Module {
                module: ModuleId(module),
                offset
            }),
            (0_u64..4).prop_map(|address| Frame::Anonymous { address }),
        ]
    }

    fn ending() -> impl Strategy<Value = Ending> {
        prop_oneof![
            Just(Ending::Root),
            Just(Ending::Truncated(Truncation::SnapshotCapped)),
            Just(Ending::Truncated(Truncation::TooDeep)),
        ]
    }

    proptest! {
        /// Equal stacks have one number, unequal ones two, and the number gives the stack back.
        #[test]
        fn numbers_are_stacks(stacks in proptest::collection::vec((proptest::collection::vec(frame(), 0..5), ending()), 1..200)) {
            let mut table = StackTable::default();
            let ids: Vec<_> = stacks.iter().map(|(frames, ending)| table.intern(frames, *ending)).collect();
            for (left, id) in stacks.iter().zip(&ids) {
                let kept = table.get(*id).unwrap();
                prop_assert_eq!((&kept.frames, kept.ending), (&left.0, left.1));
                for (right, other) in stacks.iter().zip(&ids) {
                    prop_assert_eq!(left == right, id == other);
                }
            }
        }
    }

    #[test]
    fn a_full_table_sends_new_stacks_to_others_and_keeps_the_old() {
        let mut table = StackTable::with_caps(2, 100);
        let at = |address| [Frame::Anonymous { address }];
        let first = table.intern(&at(1), Ending::Root);
        let second = table.intern(&at(2), Ending::Root);
        assert_ne!(first, second);
        assert_eq!(table.intern(&at(3), Ending::Root), StackTable::OTHERS);
        assert_eq!(table.intern(&at(1), Ending::Root), first);
        assert_eq!((table.len(), table.over_cap()), (2, 1));

        let mut table = StackTable::with_caps(100, 3);
        let deep = vec![Frame::Anonymous { address: 9 }; 3];
        assert_ne!(table.intern(&deep, Ending::Root), StackTable::OTHERS);
        assert_eq!(table.intern(&at(1), Ending::Root), StackTable::OTHERS);
    }
}
