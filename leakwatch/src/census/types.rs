//! What class of C++ a heap chunk is an object of, by the chunk's first word.
//!
//! An object with virtual functions begins with a pointer to its class's vtable, which is a constant of some module.
//! The proof that it is one is the run-time type information that the Itanium C++ ABI puts before the vtable
//! (section 2.9.5): it is in the target's memory, so it works for stripped files. Where a program was built without
//! it, the symbol of the vtable tells. A C structure that begins with a pointer to a constant table of functions is
//! told by the table's symbol.
//!
//! None of it is a guess: where the proof is not whole there is no name. So these have none:
//! - what begins with anything else: buffers of `std::string` and `std::vector`, nodes of maps, Rust's trait objects
//!   (their vtable is in the reference, not in the object);
//! - a class with virtual bases, no virtual function and no symbol: nothing of it is at the address itself;
//! - a table in `.rodata`, as code that is not position-independent has it: strings are there as well;
//! - what `new[]` made: its count comes first.
//!
//! A named chunk *begins with* an object of the class. It can be a vector's buffer of them, or a structure whose first
//! member is one.
//!
//! Names come from memory that is a file's and was not writable, never from the heap.

mod mangled;
mod modules;
mod ranges;
mod rtti;
mod symbols;

#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use super::memory::{Memory, word_at};
use crate::sampler::ProcRoot;
use crate::sampler::maps::Mapping;
use modules::Modules;
use ranges::Places;
use rtti::Classes;

/// How much of a constant is searched for an address of code, bytes.
const TABLE_BYTES_MAX: usize = 512;

/// The ranges of a process in which vtables and other relocated constants lie: sorted, disjoint, not adjacent.
///
/// They are private mappings of files that have code mapped as well, which leaves out fonts, locales and the like:
/// - readable and not writable: `.rodata` and, after RELRO, `.data.rel.ro`;
/// - executable from the file's start: old linkers put read-only data there, beside the code;
/// - writable, if RELRO is not certain: without it `.data.rel.ro` lies among the variables, and mappings do not tell
///   where. Some first words are then counted for nothing, since they point at variables; a name takes the same proof
///   everywhere.
#[must_use]
pub fn constant_ranges(mappings: &[Mapping]) -> Vec<Range<u64>> {
    Places::of(mappings).constant.into_ranges()
}

/// How a name is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ToldBy {
    /// The run-time type information in the target's memory.
    Rtti,
    /// The symbol of the vtable.
    VtableSymbol,
    /// The symbol of a constant table of functions, which is no class.
    ConstantSymbol,
}

/// What a chunk begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// Demangled: `store::Session`, `(anonymous namespace)::Job`, `file_ops`. At most [`NAME_BYTES_MAX`] bytes and `…`.
    pub name: String,
    pub told_by: ToldBy,
}

/// The longest name that is kept, bytes.
pub const NAME_BYTES_MAX: usize = mangled::NAME_BYTES_MAX;

/// Names constants of one process, as its mappings stood at one moment.
///
/// By RTTI a name costs four reads of the target's memory. The symbols of a module are read at the first constant that
/// needs them, and kept.
#[derive(Debug)]
pub struct TypeNames<M> {
    memory: M,
    places: Places,
    classes: Classes,
    modules: Modules,
}

impl<M: Memory> TypeNames<M> {
    /// Nothing is read yet. `root` and `pid` lead to the files behind the mappings.
    #[must_use]
    pub fn new(memory: M, mappings: &[Mapping], root: &ProcRoot, pid: u32) -> Self {
        let places = Places::of(mappings);
        Self {
            memory,
            modules: Modules::of(mappings, &places, root.clone(), pid),
            places,
            classes: Classes::default(),
        }
    }

    /// What a chunk is whose first word is `address`. `None` where that is not certain.
    pub fn name(&mut self, address: u64) -> Option<TypeName> {
        if !address.is_multiple_of(8) || !self.places.constant.hold(address, 8) {
            return None;
        }
        let (name, told_by) = self.class(address).or_else(|| self.table(address))?;
        Some(TypeName { name, told_by })
    }

    /// The file that a constant lies in, as the target names it, without ` (deleted)`. Untrusted.
    #[must_use]
    pub fn module(&self, address: u64) -> Option<Arc<str>> {
        self.modules.path(address)
    }

    /// The class whose vtable begins here.
    fn class(&mut self, address: u64) -> Option<(String, ToldBy)> {
        // Offset to top, which is 0 for the vtable at the start of an object, and type information.
        let before = address.checked_sub(16)?;
        if !self.places.constant.hold(before, 24) {
            return None;
        }
        let mut words = [0; 24];
        self.memory.fill(before, &mut words).ok()?;
        let (top, information, first) = (word_at(&words, 0)?, word_at(&words, 8)?, word_at(&words, 16)?);
        if top != 0 {
            return None;
        }
        if information == 0 {
            let class = self.modules.vtable(address)?;
            return Some((class, ToldBy::VtableSymbol));
        }
        let class = self.classes.name(&self.memory, &self.places, information)?;
        // Other constants can end in a zero and a pointer to a class's information, as the information on a pointer
        // type does. Only a vtable goes on with a function.
        if self.places.code.hold(first, 1) {
            return Some((class, ToldBy::Rtti));
        }
        let class = self.modules.vtable(address)?;
        Some((class, ToldBy::VtableSymbol))
    }

    /// The constant that begins here and holds an address of code.
    fn table(&mut self, address: u64) -> Option<(String, ToldBy)> {
        let (name, bytes) = self.modules.constant(address)?;
        let mut words = [0; TABLE_BYTES_MAX];
        let bytes = usize::try_from(bytes).ok()?.min(TABLE_BYTES_MAX);
        let words = words.get_mut(..bytes)?;
        self.memory.fill(address, words).ok()?;
        let (words, _) = words.as_chunks::<8>();
        words
            .iter()
            .any(|word| self.is_code(u64::from_ne_bytes(*word)))
            .then_some((name, ToldBy::ConstantSymbol))
    }

    /// Strings are executable too where an old linker put them beside the code.
    fn is_code(&mut self, address: u64) -> bool {
        self.places.code.hold(address, 1)
            && (!self.places.constant.hold(address, 1) || self.modules.is_code(address))
    }
}
