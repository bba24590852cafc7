//! The slow way up a stack: all general registers, by all the rules that unwind information can hold.
//!
//! framehop follows the stack pointer and the frame pointer, which is enough for nearly all code and fast. Code that
//! realigns its stack finds its frame through another register or through memory, and the callee saved that register
//! somewhere: the loader's resolver of lazy calls goes by `rbx`, compilers' AVX code by what `r10` was. The return from
//! a signal handler restores every register from memory. And code without any rules is left by its instructions, which
//! may keep anything anywhere.

use framehop::FrameAddress;
use gimli::{
    BaseAddresses, CfaRule, DebugFrame, EhFrame, EhFrameHdr, EhFrameOffset, Encoding, EvaluationResult,
    FrameDescriptionEntry, LittleEndian, Location, Register, RegisterRule, UnitOffset, UnwindContext,
    UnwindExpression, UnwindSection, Value,
};

use super::bare::Bare;
use super::elf::UnwindSections;
use super::instructions::{Exit, Held, Place};
use super::registers::{General, Machine};
use super::vet::{Slice, bases};
use super::walk::{Caller, Climb, Point};

/// Operations of one expression. Honest ones have some ten.
const OPERATIONS_MAX: u32 = 1000;
/// Unwind information that one walk may run through, bytes: 512 honest frames take some 50 KiB.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// How far above a frame that of the stub where all begins is looked for, where only that can tell.
const BEGINNING_WORDS: u64 = 32;

/// Reads a word of the stack.
type Read<'r> = &'r mut dyn FnMut(u64) -> Result<u64, ()>;

/// The caller's registers and address, as [`Climb::climb`] answers.
type Outcome = Result<Option<(General, Caller)>, ()>;

/// A walk by the full rules. `sections` gives what covers a code address, and the address in that file.
pub(super) struct Dwarf<'a, M, F> {
    context: &'a mut UnwindContext<usize>,
    sections: F,
    registers: General,
    code_end: u64,
    /// Of [`ENTRY_BYTES_MAX`].
    bytes_left: usize,
    by_frame_pointer: bool,
    bare: Option<Bare<'a>>,
    machine: std::marker::PhantomData<M>,
}

impl<'a, M: Machine, F> Dwarf<'a, M, F>
where
    F: Fn(u64) -> Option<(&'a UnwindSections, u64)>,
{
    pub fn new(
        context: &'a mut UnwindContext<usize>,
        sections: F,
        registers: General,
        code_end: u64,
    ) -> Self {
        Self {
            context,
            sections,
            registers,
            code_end,
            bytes_left: ENTRY_BYTES_MAX,
            by_frame_pointer: false,
            bare: None,
            machine: std::marker::PhantomData,
        }
    }

    /// Leaves code that nothing covers by its instructions.
    pub fn reading(mut self, bare: Bare<'a>) -> Self {
        self.bare = Some(bare);
        self
    }

    /// By the entry that covers the address; `None` when none does.
    fn by_rules(
        &mut self,
        sections: &'a UnwindSections,
        address: u64,
        innermost: bool,
        read: Read<'_>,
    ) -> Option<Outcome> {
        let bases = bases(sections);
        if let Some(eh_frame) = &sections.eh_frame {
            let mut section = EhFrame::new(&eh_frame.bytes, LittleEndian);
            section.set_address_size(8);
            section.set_vendor(M::VENDOR);
            let offset = match &sections.eh_frame_hdr {
                Some(hdr) => searched(&hdr.bytes, &bases, address)?,
                None => indexed(sections, address)?.into(),
            };
            let entry = section.fde_from_offset(&bases, offset, EhFrame::cie_from_offset);
            self.by_entry(&section, &bases, &entry.ok()?, address, innermost, read)
        } else {
            let mut section = DebugFrame::new(&sections.debug_frame.as_ref()?.bytes, LittleEndian);
            section.set_address_size(8);
            section.set_vendor(M::VENDOR);
            let offset = indexed(sections, address)?.into();
            let entry = section.fde_from_offset(&bases, offset, DebugFrame::cie_from_offset);
            self.by_entry(&section, &bases, &entry.ok()?, address, innermost, read)
        }
    }

    fn by_entry<S: UnwindSection<Slice<'a>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        entry: &FrameDescriptionEntry<Slice<'a>>,
        address: u64,
        innermost: bool,
        read: Read<'_>,
    ) -> Option<Outcome> {
        // The nearest entry before the address was found, which need not reach as far.
        if !entry.contains(address) {
            return None;
        }
        let bytes = entry.entry_len().saturating_add(entry.cie().entry_len());
        let Some(left) = self.bytes_left.checked_sub(bytes) else {
            return Some(Err(()));
        };
        self.bytes_left = left;
        let Ok(row) = entry.unwind_info_for_address(section, bases, self.context, address) else {
            return Some(Err(()));
        };
        let interrupted = entry.is_signal_trampoline();
        let mut evaluated = Evaluated {
            section,
            encoding: entry.cie().encoding(),
            registers: &self.registers,
            read,
        };
        let (stack, frame) = (M::FOLLOWED.stack_pointer, M::FOLLOWED.frame_pointer);
        let outcome = evaluated.cfa(row.cfa()).ok_or(()).and_then(|cfa| {
            let mut caller = self.registers.clone();
            if !interrupted {
                caller.keep(M::survives_calls);
            }
            caller.set(stack, Some(cfa));
            let mut restore = |register, rule: &RegisterRule<usize>, caller: &mut General| {
                caller.set(register, evaluated.register(register, rule, cfa));
            };
            // The frame pointer first: the walk sees by the first read that a chain is followed.
            if let Some(rule) = row.register(frame) {
                restore(frame, &rule, &mut caller);
            }
            for (register, rule) in row.registers().filter(|(register, _)| *register != frame) {
                restore(*register, rule, &mut caller);
            }
            let column = entry.cie().return_address_register();
            let address = match row.register(column) {
                // Undefined says that there is no caller. On a machine with a link register, compilers leave the rule
                // out where a leaf has not saved it.
                None if !M::LINKS => return Ok(None),
                None | Some(RegisterRule::SameValue | RegisterRule::Undefined) if M::LINKS && innermost => {
                    let link = self.registers.get(column);
                    caller.set(column, link);
                    link
                }
                Some(RegisterRule::Undefined) => return Ok(None),
                None | Some(RegisterRule::SameValue) => None,
                Some(_) => caller.get(column),
            };
            let address = M::strip(address.ok_or(())?, self.code_end);
            caller.set(column, Some(address));
            Ok(Some((caller, Caller { address, interrupted })))
        });
        Some(outcome)
    }

    /// Where no entry covers the address, by the instructions from there on; `None` when they do not tell.
    fn by_instructions(&mut self, at: FrameAddress, read: Read<'_>) -> Option<Outcome> {
        let bare = self.bare.as_mut()?;
        let (address, lookup) = (at.address(), at.address_for_lookup());
        let found = bare.exits(address, lookup)?;
        if bare.is_entry(lookup) || found.never_returns() {
            return Some(Ok(None));
        }
        let bare = self.bare.as_ref()?;
        let mut unread = false;
        for exit in found.by_likelihood(at.is_return_address()) {
            let Some(slot) = self.sum(exit.return_address) else {
                continue;
            };
            if slot < self.point().stack {
                continue;
            }
            match read(slot) {
                Ok(address) if bare.follows_call(address) => {
                    return Some(Ok(Some(self.left_by(exit, slot, address, read))));
                }
                Ok(_) => {}
                Err(()) => unread = true,
            }
        }
        if unread {
            return Some(Err(()));
        }
        // What a stub calls where a program or a thread begins never returns either, and need not have a way out: in musl
        // its last call is of `exit`.
        let stack = self.point().stack;
        let bare = self.bare.as_mut()?;
        for index in 0..BEGINNING_WORDS {
            let slot = stack.checked_add(8 * index)?;
            let address = read(slot).ok()?;
            if bare.follows_call(address) && bare.is_beginning(address) {
                let mut caller = General::default();
                caller.set(M::FOLLOWED.stack_pointer, slot.checked_add(8));
                caller.set(M::FOLLOWED.return_address, Some(address));
                let interrupted = false;
                return Some(Ok(Some((caller, Caller { address, interrupted }))));
            }
        }
        None
    }

    /// The caller, by a way out whose return address lies at `slot`.
    fn left_by(&self, exit: &Exit, slot: u64, address: u64, read: Read<'_>) -> (General, Caller) {
        let mut caller = General::default();
        for (register, held) in (0..).map(Register).zip(exit.registers) {
            let value = match held {
                Held::Sum(place) => self.sum(place),
                Held::Word(place) => self.sum(place).and_then(|it| read(it).ok()),
                Held::Unknown => None,
            };
            caller.set(register, value);
        }
        caller.keep(M::survives_calls);
        let above = slot.checked_add(8 + u64::from(exit.arguments));
        caller.set(M::FOLLOWED.stack_pointer, above);
        caller.set(M::FOLLOWED.return_address, Some(address));
        let interrupted = false;
        (caller, Caller { address, interrupted })
    }

    fn sum(&self, place: Place) -> Option<u64> {
        self.registers.get(place.base)?.checked_add_signed(place.offset)
    }

    /// Where no entry covers the address, as framehop does it: an innermost function has no frame yet, others have
    /// one that the frame pointer tells.
    fn without_rules(&mut self, in_file: bool, innermost: bool, read: Read<'_>) -> Outcome {
        let Point { stack, frame } = self.point();
        let mut caller = self.registers.clone();
        caller.keep(M::survives_calls);
        let link = M::FOLLOWED.return_address;
        let address = if in_file && innermost {
            if M::LINKS {
                self.registers.get(link).ok_or(())?
            } else {
                let address = read(stack)?;
                caller.set(M::FOLLOWED.stack_pointer, Some(stack.checked_add(8).ok_or(())?));
                address
            }
        } else {
            self.by_frame_pointer = true;
            if frame == 0 {
                return Ok(None);
            }
            let above = frame.checked_add(16).ok_or(())?;
            if above <= stack {
                return Err(());
            }
            caller.set(M::FOLLOWED.frame_pointer, Some(read(frame)?));
            caller.set(M::FOLLOWED.stack_pointer, Some(above));
            read(frame.checked_add(8).ok_or(())?)?
        };
        let address = M::strip(address, self.code_end);
        caller.set(link, Some(address));
        Ok(Some((
            caller,
            Caller {
                address,
                interrupted: false,
            },
        )))
    }
}

impl<'a, M: Machine, F> Climb for Dwarf<'a, M, F>
where
    F: Fn(u64) -> Option<(&'a UnwindSections, u64)>,
{
    /// A register that is not known counts as 0, which leads nowhere.
    fn point(&self) -> Point {
        Point {
            stack: self.registers.get(M::FOLLOWED.stack_pointer).unwrap_or(0),
            frame: self.registers.get(M::FOLLOWED.frame_pointer).unwrap_or(0),
        }
    }

    fn climb(
        &mut self,
        at: FrameAddress,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<Caller>, ()> {
        self.by_frame_pointer = false;
        let innermost = !at.is_return_address();
        let covering = (self.sections)(at.address_for_lookup());
        let by_rules =
            covering.and_then(|(sections, address)| self.by_rules(sections, address, innermost, read));
        let outcome = match by_rules.or_else(|| self.by_instructions(at, read)) {
            Some(outcome) => outcome,
            None => self.without_rules(covering.is_some(), innermost, read),
        };
        Ok(outcome?.map(|(registers, caller)| {
            self.registers = registers;
            caller
        }))
    }

    fn by_frame_pointer(&mut self, _at: FrameAddress) -> bool {
        self.by_frame_pointer
    }
}

/// The place of the entry for this address, or of one near it, by the section's search table.
fn searched(hdr: &[u8], bases: &BaseAddresses, address: u64) -> Option<EhFrameOffset> {
    let hdr = EhFrameHdr::new(hdr, LittleEndian).parse(bases, 8).ok()?;
    let table = hdr.table()?;
    let row = table.lookup(address, bases).ok()?;
    table.pointer_to_offset(row).ok()
}

/// The same by the index that vetting made.
fn indexed(sections: &UnwindSections, address: u64) -> Option<usize> {
    let index = &sections.vetted.index;
    let after = index.partition_point(|(start, _)| *start <= address);
    index.get(after.checked_sub(1)?).map(|(_, offset)| *offset)
}

/// What the rules of one frame are evaluated with.
struct Evaluated<'r, S> {
    section: &'r S,
    encoding: Encoding,
    registers: &'r General,
    read: Read<'r>,
}

impl<'a, S: UnwindSection<Slice<'a>>> Evaluated<'_, S> {
    fn cfa(&mut self, rule: &CfaRule<usize>) -> Option<u64> {
        match rule {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers.get(*register)?.checked_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.expression(expression, None),
        }
    }

    /// The caller's value of a register; `None` when it is lost.
    fn register(&mut self, register: Register, rule: &RegisterRule<usize>, cfa: u64) -> Option<u64> {
        match rule {
            RegisterRule::SameValue => self.registers.get(register),
            RegisterRule::Offset(offset) => (self.read)(cfa.checked_add_signed(*offset)?).ok(),
            RegisterRule::ValOffset(offset) => cfa.checked_add_signed(*offset),
            RegisterRule::Register(other) => self.registers.get(*other),
            RegisterRule::Expression(expression) => {
                let address = self.expression(expression, Some(cfa))?;
                (self.read)(address).ok()
            }
            RegisterRule::ValExpression(expression) => self.expression(expression, Some(cfa)),
            _ => None,
        }
    }

    /// `initial` is what stands on the expression's stack when it begins.
    fn expression(&mut self, expression: &UnwindExpression<usize>, initial: Option<u64>) -> Option<u64> {
        let bytes = expression.get(self.section).ok()?;
        let mut evaluation = bytes.evaluation(self.encoding);
        evaluation.set_max_iterations(OPERATIONS_MAX);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let generic = UnitOffset(0);
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, base_type } if base_type == generic => {
                    let value = self.registers.get(register)?;
                    evaluation.resume_with_register(Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresMemory {
                    address,
                    size,
                    space: None,
                    base_type,
                } if base_type == generic => {
                    let kept = match size {
                        1..8 => (1 << (8 * u32::from(size))) - 1,
                        8 => u64::MAX,
                        _ => return None,
                    };
                    let value = (self.read)(address).ok()? & kept;
                    evaluation.resume_with_memory(Value::Generic(value)).ok()?
                }
                // What else there is needs debug information, which rules may not refer to.
                _ => return None,
            };
        }
        match evaluation.as_result().last()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }
}
