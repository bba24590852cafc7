//! One unwinder for the session: the code of each process, and the stacks of all.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use framehop::Unwinder as _;

use gimli::UnwindContext;

use super::bare::{Bare, Known};
use super::dwarf::Dwarf;
use super::elf::UnwindSections;
use super::modules::{ModuleError, ModuleTable, Modules};
use super::registers::{Host, Machine};
use super::table::StackTable;
use super::walk::{Code, FRAMES_MAX, Framehop, Snapshot, Walked, walk};
use super::{Ending, Frame, ModuleId, Stack, StackId, Truncation};
use crate::sampler::maps::Mapping;

/// What unwinding could not give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnwindLosses {
    /// Stacks asked for.
    pub stacks: u64,
    /// Stacks that do not reach their root, by reason.
    pub truncated: BTreeMap<Truncation, u64>,
    /// Distinct modules without unwind information, by reason.
    pub modules_unreadable: BTreeMap<ModuleError, u64>,
    /// Stacks that share [`StackTable::OTHERS`] because the table was full.
    pub stacks_over_cap: u64,
    /// Snapshots of a process that was never announced.
    pub unknown_process: u64,
    /// Stacks whose unwind information made the unwinder panic: hostile or damaged. They are truncated too.
    pub panics: u64,
}

/// An executable mapping of a process.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    mapping: Mapping,
    /// `None` for code outside every file.
    pub(super) module: Option<ModuleId>,
    /// Address in memory less address in the file.
    pub(super) bias: u64,
    readable: bool,
}

struct Process<M: Machine> {
    unwinder: M::Unwinder,
    cache: M::Cache,
    /// Sorted by address, disjoint.
    loaded: Vec<Loaded>,
    /// A stack ended where no code was known.
    stale: bool,
}

impl<M: Machine> Process<M> {
    fn new() -> Self {
        Self {
            unwinder: M::unwinder(),
            cache: M::cache(),
            loaded: Vec::new(),
            stale: false,
        }
    }

    fn code_end(&self) -> u64 {
        self.loaded.last().map_or(0, |it| it.mapping.range.end)
    }
}

pub(super) fn find(loaded: &[Loaded], address: u64) -> Option<&Loaded> {
    let after = loaded.partition_point(|it| it.mapping.range.start <= address);
    let candidate = loaded.get(after.checked_sub(1)?)?;
    candidate.mapping.range.contains(&address).then_some(candidate)
}

fn code(loaded: &[Loaded], address: u64) -> Code {
    match find(loaded, address) {
        Some(Loaded { readable: true, .. }) => Code::Known,
        Some(_) => Code::Unreadable,
        None => Code::NotCode,
    }
}

fn frame(loaded: &[Loaded], address: u64) -> Frame {
    match find(loaded, address) {
        Some(Loaded {
            module: Some(module),
            bias,
            ..
        }) => Frame::Module {
            module: *module,
            offset: address.wrapping_sub(*bias),
        },
        _ => Frame::Anonymous { address },
    }
}

/// What there is to unwind by at an address, and the address in that file.
fn sections<'a>(
    loaded: &[Loaded],
    modules: &'a ModuleTable,
    address: u64,
) -> Option<(&'a UnwindSections, u64)> {
    let found = find(loaded, address).filter(|it| it.readable)?;
    let sections = modules.get(found.module?)?.sections()?;
    Some((sections, address.wrapping_sub(found.bias)))
}

/// Whether code has no unwind information, and instructions to go by instead.
fn is_bare(loaded: &[Loaded], modules: &ModuleTable, address: u64) -> bool {
    let module = |it: &Loaded| Some((modules.get(it.module?)?, address.wrapping_sub(it.bias)));
    find(loaded, address)
        .and_then(module)
        .is_some_and(|(module, address)| module.is_bare(address))
}

/// Whether the second walk tells more than the first.
fn is_better(second: (Ending, usize), first: (Ending, usize)) -> bool {
    second.0 == Ending::Root || (first.0 != Ending::Root && second.1 >= first.1)
}

/// Unwinds the stacks of all watched processes and keeps each distinct one once.
pub struct UnwinderOf<M: Machine> {
    processes: HashMap<u32, Process<M>>,
    modules: ModuleTable,
    stacks: StackTable,
    losses: UnwindLosses,
    /// Reused from stack to stack.
    frames: Vec<Frame>,
    again: Vec<Frame>,
    context: UnwindContext<usize>,
    exits: Known,
}

/// The unwinder for targets of this machine.
pub type Unwinder = UnwinderOf<Host>;

impl<M: Machine> Default for UnwinderOf<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> UnwinderOf<M> {
    #[must_use]
    pub fn new() -> Self {
        Self {
            processes: HashMap::new(),
            modules: ModuleTable::new(M::ELF),
            stacks: StackTable::default(),
            losses: UnwindLosses::default(),
            frames: Vec::with_capacity(FRAMES_MAX),
            again: Vec::new(),
            context: UnwindContext::new(),
            exits: Known::default(),
        }
    }

    /// Makes the code of a process agree with its mappings: at the attach, and whenever executable memory appeared or
    /// an exec happened. Only what changed is loaded; mappings that are not executable are ignored.
    pub fn refresh(&mut self, pid: u32, mappings: &[Mapping]) {
        let process = self.processes.entry(pid).or_insert_with(Process::new);
        let mut wanted: Vec<&Mapping> = mappings.iter().filter(|it| it.executable).collect();
        wanted.sort_by_key(|mapping| mapping.range.start);
        let mut kept: HashMap<Range<u64>, Loaded> = HashMap::new();
        for old in std::mem::take(&mut process.loaded) {
            let stays = wanted
                .binary_search_by_key(&old.mapping.range.start, |it| it.range.start)
                .ok()
                .and_then(|index| wanted.get(index))
                .is_some_and(|it| **it == old.mapping);
            if stays {
                kept.insert(old.mapping.range.clone(), old);
            } else {
                process.unwinder.remove_module(old.mapping.range.start);
            }
        }
        let known = self.modules.modules().len();
        for mapping in wanted {
            if let Some(old) = kept.remove(&mapping.range) {
                process.loaded.push(old);
                continue;
            }
            if process.code_end() > mapping.range.start {
                continue; // Overlaps: not what a kernel prints.
            }
            let module = self.modules.of_mapping(pid, mapping);
            let entry = module.and_then(|id| self.modules.get(id));
            let for_framehop = entry.and_then(|module| module.for_framehop(mapping));
            process.loaded.push(Loaded {
                module,
                bias: entry.map_or(0, |module| module.bias(mapping)),
                // Code outside every file is walked by frame pointers: nothing to read.
                readable: for_framehop.is_some() || mapping.inode == 0,
                mapping: mapping.clone(),
            });
            if let Some(module) = for_framehop {
                process.unwinder.add_module(module);
            }
        }
        process.stale = false;
        for (_, module) in self.modules.modules().iter().skip(known) {
            if let Some(error) = module.unreadable() {
                *self.losses.modules_unreadable.entry(error).or_default() += 1;
            }
        }
    }

    /// Unwinds one snapshot. Allocates only for a stack that was never seen before, or that framehop cannot follow.
    pub fn unwind(&mut self, pid: u32, snapshot: &Snapshot<'_>) -> StackId {
        self.frames.clear();
        let ending = self.walk(pid, snapshot);
        self.intern(ending)
    }

    fn walk(&mut self, pid: u32, snapshot: &Snapshot<'_>) -> Ending {
        let Some(process) = self.processes.get_mut(&pid) else {
            self.losses.unknown_process += 1;
            return Ending::Truncated(Truncation::NoUnwindInformation);
        };
        let code_end = process.code_end();
        let Some((pc, registers)) = M::decode(snapshot.registers, code_end) else {
            return Ending::Truncated(Truncation::NoRegisters);
        };
        let Process {
            unwinder,
            cache,
            loaded,
            stale,
        } = process;
        let (loaded, modules) = (&*loaded, &self.modules);
        let code = |address| code(loaded, address);
        let intricate = |address| {
            sections(loaded, modules, address).is_some_and(|(it, address)| it.vetted.is_intricate(address))
        };
        let bare = |address| is_bare(loaded, modules, address);
        let frames = &mut self.frames;
        // Sums over hostile unwind information can overflow in framehop. What it leaves behind on a panic is a cache
        // entry at most.
        let walked = catch_unwind(AssertUnwindSafe(|| {
            let way = Framehop::<M> {
                unwinder,
                cache,
                registers,
            };
            walk(way, snapshot, pc, code, intricate, bare, |it| {
                frames.push(frame(loaded, it))
            })
        }));
        let Walked { mut ending, doubtful } = walked.unwrap_or_else(|_| {
            self.losses.panics += 1;
            *cache = M::cache();
            Walked {
                ending: Ending::Truncated(Truncation::NoUnwindInformation),
                doubtful: false,
            }
        });
        if doubtful && let Some(general) = M::general(snapshot.registers, code_end) {
            let (again, context, exits) = (&mut self.again, &mut self.context, &mut self.exits);
            again.clear();
            let walked = catch_unwind(AssertUnwindSafe(|| {
                let sections = |address| sections(loaded, modules, address);
                let way = Dwarf::<M, _>::new(context, sections, general, code_end)
                    .reading(Bare::new(loaded, modules, exits));
                walk(
                    way,
                    snapshot,
                    pc,
                    code,
                    |_| false,
                    |_| false,
                    |it| again.push(frame(loaded, it)),
                )
            }));
            match walked {
                Ok(walked) if is_better((walked.ending, again.len()), (ending, frames.len())) => {
                    ending = walked.ending;
                    std::mem::swap(frames, again);
                }
                Ok(_) => {}
                Err(_) => {
                    self.losses.panics += 1;
                    self.context = UnwindContext::new();
                }
            }
        }
        *stale |= code(pc) == Code::NotCode || ending == Ending::Truncated(Truncation::NoUnwindInformation);
        ending
    }

    /// The stack of an event that carried none.
    pub fn without_registers(&mut self) -> StackId {
        self.frames.clear();
        self.intern(Ending::Truncated(Truncation::NoRegisters))
    }

    fn intern(&mut self, ending: Ending) -> StackId {
        self.losses.stacks += 1;
        if let Ending::Truncated(reason) = ending {
            *self.losses.truncated.entry(reason).or_default() += 1;
        }
        self.stacks.intern(&self.frames, ending)
    }

    /// Whether a stack since the last [`Self::refresh`] ended where no code was known (a library loaded since, or just
    /// a register that holds something else): the mappings may be worth reading again, at a rate of the caller's
    /// choice.
    #[must_use]
    pub fn is_stale(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_none_or(|process| process.stale)
    }

    /// A process has exited. Its stacks and modules stay.
    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// A child begins with the code of its parent.
    pub fn fork(&mut self, parent: u32, child: u32) {
        if let Some(process) = self.processes.get(&parent) {
            let copy = Process {
                unwinder: process.unwinder.clone(),
                cache: M::cache(),
                loaded: process.loaded.clone(),
                stale: process.stale,
            };
            self.processes.insert(child, copy);
        }
    }

    #[must_use]
    pub fn stack(&self, id: StackId) -> Option<&Stack> {
        self.stacks.get(id)
    }

    #[must_use]
    pub fn stacks(&self) -> &StackTable {
        &self.stacks
    }

    #[must_use]
    pub fn modules(&self) -> &Modules {
        self.modules.modules()
    }

    #[must_use]
    pub fn losses(&self) -> UnwindLosses {
        UnwindLosses {
            stacks_over_cap: self.stacks.over_cap(),
            ..self.losses.clone()
        }
    }

    /// A process whose only code is this image, for tests of damaged files.
    #[cfg(test)]
    pub(super) fn adopt(&mut self, pid: u32, image: super::elf::Image, range: Range<u64>) {
        let mapping = Mapping {
            range,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            offset: 0,
            device: (0, 1),
            inode: 1,
            path: None,
        };
        self.modules.adopt(&mapping, image);
        self.refresh(pid, &[mapping]);
    }
}
