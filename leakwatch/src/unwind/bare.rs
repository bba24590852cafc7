//! Code that no unwind information covers: its instructions, read from its file, and what was found by them.

use std::collections::HashMap;
use std::sync::Arc;

use super::ModuleId;
use super::instructions::{Exits, ends_in_call, exits};
use super::modules::{Module, ModuleTable};
use super::unwinder::{Loaded, find};

/// Addresses whose ways out are kept, each mostly with one or two of 400 bytes. Beyond, all are found anew.
const KNOWN_MAX: usize = 16_384;
/// Instructions that one walk may read, some 50 ns each. An address that is known costs none.
const STEPS_MAX: usize = 1 << 17;
/// From here a program is entered: `_start` is an assembly stub that never returns. musl's has 22 bytes.
const ENTRY_BYTES: u64 = 32;
/// A call has up to 7 bytes, without prefixes.
const CALL_BYTES: usize = 7;
/// Code that is read at once, bytes.
const WINDOW_BYTES: usize = 4096;

/// The ways out of the addresses met so far, by module and address in its file.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<(ModuleId, u64), Arc<Exits>>);

/// The code of one process, for one walk.
pub(super) struct Bare<'a> {
    loaded: &'a [Loaded],
    modules: &'a ModuleTable,
    known: &'a mut Known,
    steps_left: usize,
}

impl<'a> Bare<'a> {
    pub fn new(loaded: &'a [Loaded], modules: &'a ModuleTable, known: &'a mut Known) -> Self {
        Self {
            loaded,
            modules,
            known,
            steps_left: STEPS_MAX,
        }
    }

    fn place(&self, address: u64) -> Option<(ModuleId, &'a Module, u64)> {
        let loaded = find(self.loaded, address)?;
        let id = loaded.module?;
        Some((id, self.modules.get(id)?, address.wrapping_sub(loaded.bias)))
    }

    /// Whether the frame at this address (lowered into its call) is where the program was entered.
    pub fn is_entry(&self, lookup: u64) -> bool {
        self.place(lookup).is_some_and(|(_, module, address)| {
            let start = module.entry();
            start != 0 && (start..start.saturating_add(ENTRY_BYTES)).contains(&address)
        })
    }

    /// Whether a call that returns here was made where a program or a thread begins.
    pub fn is_beginning(&mut self, address: u64) -> bool {
        let lookup = address.wrapping_sub(1);
        self.is_entry(lookup) || self.exits(address, lookup).is_some_and(|it| it.never_returns())
    }

    /// The ways out from `address`, where the frame will go on. `lookup` is the address lowered into its call, which says
    /// what covers it. `None` where unwind information covers it, or the instructions cannot be read.
    pub fn exits(&mut self, address: u64, lookup: u64) -> Option<Arc<Exits>> {
        let (id, module, covered) = self.place(lookup)?;
        if !module.is_bare(covered) {
            return None;
        }
        let start = covered.wrapping_add(address.wrapping_sub(lookup));
        if let Some(known) = self.known.0.get(&(id, start)) {
            return Some(known.clone());
        }
        if self.steps_left == 0 {
            return None;
        }
        let mut window = Window::default();
        let found = exits(start, |at, into| window.copy(module, at, into));
        self.steps_left = self.steps_left.saturating_sub(found.steps);
        let found = Arc::new(found);
        if self.known.0.len() >= KNOWN_MAX {
            self.known.0.clear();
        }
        self.known.0.insert((id, start), found.clone());
        Some(found)
    }

    /// Whether a call stands before this address, as before every return address. Code outside every file cannot be read,
    /// and is believed.
    pub fn follows_call(&self, address: u64) -> bool {
        let Some(loaded) = address.checked_sub(1).and_then(|it| find(self.loaded, it)) else {
            return false;
        };
        let Some(module) = loaded.module.and_then(|id| self.modules.get(id)) else {
            return true;
        };
        let mut before = [0; CALL_BYTES];
        let start = address
            .wrapping_sub(loaded.bias)
            .wrapping_sub(before.len() as u64);
        let length = module.read_code(start, &mut before);
        length < before.len() || ends_in_call(&before)
    }
}

/// The part of a file's code that was read last: instructions are asked for one by one.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn copy(&mut self, module: &Module, at: u64, into: &mut [u8]) -> usize {
        let wanted = into.len();
        if self.from(at).len() < wanted {
            self.bytes.resize(WINDOW_BYTES, 0);
            let length = module.read_code(at, &mut self.bytes);
            self.bytes.truncate(length);
            self.start = at;
        }
        let rest = self.from(at);
        let length = rest.len().min(wanted);
        if let (Some(target), Some(source)) = (into.get_mut(..length), rest.get(..length)) {
            target.copy_from_slice(source);
        }
        length
    }

    fn from(&self, at: u64) -> &[u8] {
        let skipped = at.checked_sub(self.start).and_then(|it| usize::try_from(it).ok());
        skipped.and_then(|it| self.bytes.get(it..)).unwrap_or(&[])
    }
}
