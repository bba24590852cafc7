//! From raw registers and a copy of the stack to a list of (module, offset). The only stage that imports framehop.
//!
//! - [`registers`]: raw kernel registers, per architecture.
//! - [`elf`], [`modules`]: the files that code was mapped from, and what they tell.
//! - [`vet`]: unwind information that would not end, or that framehop cannot follow.
//! - [`walk`]: one stack, and what its end means. Pure: the snapshot is all the memory there is.
//! - `dwarf`: the slow way from frame to frame, by all the rules there are.
//! - `instructions`: the way out of code without rules; `bare`: that code, and what was found.
//! - [`functions`]: where functions begin, names or none.
//! - [`table`]: distinct stacks, each kept once.
//! - [`unwinder`]: all of it, for the processes of a session.

mod bare;
mod dwarf;
pub mod elf;
pub mod functions;
mod instructions;
pub mod modules;
pub mod registers;
pub mod table;
pub mod unwinder;
pub mod vet;
pub mod walk;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod dwarf_tests;
#[cfg(test)]
mod instructions_tests;
#[cfg(test)]
pub(crate) mod live_tests;

pub use functions::Functions;
pub use modules::{Module, ModuleError, Modules};
pub use table::StackTable;
pub use unwinder::{UnwindLosses, Unwinder};
pub use walk::Snapshot;

/// A module (executable file, shared library, vDSO) that some stack has run through. The same file is one module in
/// every process and at every load address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub u32);

/// One frame of a stack, in a form that stays meaningful after the target is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Code of a module: `offset` is the ELF virtual address (the one in the symbol table) that was executing; for
    /// a caller the return address less one, so that it lies inside the call.
    Module { module: ModuleId, offset: u64 },
    /// Code outside every file (JIT): the absolute address, lowered likewise.
    Anonymous { address: u64 },
}

/// How a stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// The outermost frame of the thread was reached.
    Root,
    Truncated(Truncation),
}

/// Why a stack does not reach its root. Each is counted in the report's losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Truncation {
    /// The unwinder wanted stack memory beyond a snapshot that hit `--stack-bytes`.
    SnapshotCapped,
    /// The unwinder wanted stack memory that could not be copied.
    SnapshotUnreadable,
    /// Code without unwind information whose frame pointer leads nowhere.
    NoUnwindInformation,
    /// The code's file could not be read, so there was nothing to unwind by.
    ModuleUnreadable,
    /// More frames than leakwatch keeps.
    TooDeep,
    /// The registers could not be read or decoded.
    NoRegisters,
}

/// A call stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    pub frames: Vec<Frame>,
    pub ending: Ending,
}

/// A stack interned in the session's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);
