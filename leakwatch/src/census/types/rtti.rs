//! Run-time type information, read from the target's memory.
//!
//! ```text
//! vtable:     offset to top | type information | function, function, ...
//!                                 |            ^ where objects point
//! type information:               +-> pointer to the vtable of its own class | name | ...
//! ```
//!
//! That class is one of three of `__cxxabiv1`, and it proves itself the same way: by the type information before its
//! vtable, whose name says which it is. Nothing is followed further, so there are no cycles.

use std::collections::HashMap;

use super::mangled::{self, MANGLED_BYTES_MAX};
use super::ranges::Places;
use crate::census::memory::{Memory, word_at};

/// What describes classes: without bases, with one, with several or virtual ones. Others describe pointers, functions.
const OF_CLASSES: [&str; 3] = [
    "N10__cxxabiv117__class_type_infoE",
    "N10__cxxabiv120__si_class_type_infoE",
    "N10__cxxabiv121__vmi_class_type_infoE",
];
/// Addresses that are remembered; a process has three for each copy of the C++ library in it.
const KNOWN_MAX: usize = 4096;
/// Most names are shorter; the rest is read only if this is not enough.
const FIRST_BYTES: usize = 256;

/// Tells type information on classes from everything else.
#[derive(Debug, Default)]
pub struct Classes {
    /// By the address that type information begins with: whether it is on a class.
    known: HashMap<u64, bool>,
}

impl Classes {
    /// The name of the class that is described at an address, demangled.
    pub fn name(&mut self, memory: &impl Memory, places: &Places, information: u64) -> Option<String> {
        // A name is there too where the vtable's file was linked to describe a class of another file.
        if !places.constant.hold(information, 16) {
            return None;
        }
        let (kind, name) = pair(memory, information)?;
        if !self.describes_classes(memory, places, kind) {
            return None;
        }
        let name = text(memory, places, name)?;
        // A leading `*` asks for names to be compared by address.
        mangled::class(name.strip_prefix('*').unwrap_or(&name))
    }

    fn describes_classes(&mut self, memory: &impl Memory, places: &Places, kind: u64) -> bool {
        if let Some(known) = self.known.get(&kind) {
            return *known;
        }
        let proven = describes_classes(memory, places, kind).is_some();
        if self.known.len() < KNOWN_MAX {
            self.known.insert(kind, proven);
        }
        proven
    }
}

/// Whether the vtable is one of the three. It may lie among the variables: a program that is not position-independent
/// has copies of the C++ library's, and old linkers put them there.
fn describes_classes(memory: &impl Memory, places: &Places, vtable: u64) -> Option<()> {
    let (top, information) = pair(memory, vtable.checked_sub(16)?)?;
    if top != 0 {
        return None;
    }
    let (_, name) = pair(memory, information)?;
    let name = text(memory, places, name)?;
    let name = name.strip_prefix('*').unwrap_or(&name);
    OF_CLASSES.contains(&name).then_some(())
}

fn pair(memory: &impl Memory, address: u64) -> Option<(u64, u64)> {
    let mut words = [0; 16];
    if !address.is_multiple_of(8) {
        return None;
    }
    memory.fill(address, &mut words).ok()?;
    Some((word_at(&words, 0)?, word_at(&words, 8)?))
}

/// A string that ends with a NUL within bounds, in memory that cannot be written.
fn text(memory: &impl Memory, places: &Places, address: u64) -> Option<String> {
    let room = usize::try_from(places.read_only.room(address)).unwrap_or(usize::MAX);
    let mut buffer = [0; MANGLED_BYTES_MAX];
    for most in [FIRST_BYTES, MANGLED_BYTES_MAX] {
        let bytes = buffer.get_mut(..most.min(room)).filter(|it| !it.is_empty())?;
        let read = memory.read(address, bytes).ok()?;
        let bytes = bytes.get(..read)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            return Some(std::str::from_utf8(bytes.get(..end)?).ok()?.to_owned());
        }
    }
    None
}
