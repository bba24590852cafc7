//! The way out of code that has no unwind information, read from its instructions.
//!
//! musl, and with it every Alpine container, is built without unwind information and without frame pointers; so is some
//! assembly. But such code returns, and on its way to the `ret` it takes its frame down. The instructions that follow are
//! read (not run) along every branch, and what they do to the stack pointer tells where the return address lies; what they
//! load into the registers that calls preserve, where the caller's registers are. x86-64 only.

use std::collections::{HashSet, VecDeque};

use gimli::Register;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, InstructionInfoOptions,
    Mnemonic, OpAccess, OpKind, Register as Operand,
};

/// Instructions that are read for one address, all branches together.
const STEPS_MAX: usize = 8192;
/// Ways out that are kept: they differ where a call that never returns is taken for one that does.
const EXITS_MAX: usize = 8;
/// What is pushed on one way, words.
const PUSHED_MAX: usize = 64;
/// The longest instruction, bytes.
const INSTRUCTION_BYTES_MAX: usize = 15;
/// `rt_sigreturn`, which never returns: x86-64's system call 15.
const SIGRETURN: u64 = 15;

/// A stack address: what a register holds where the frame stands, and bytes to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// By its DWARF number.
    pub base: Register,
    pub offset: i64,
}

impl Place {
    fn plus(self, bytes: i64) -> Self {
        Self {
            offset: self.offset.wrapping_add(bytes),
            ..self
        }
    }
}

/// What a register holds, in terms of what all registers hold where the frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// An address, or what another register held, plus something.
    Sum(Place),
    /// What the stack holds there.
    Word(Place),
    Unknown,
}

/// One way out of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    /// Where the return address lies.
    pub return_address: Place,
    /// Bytes of arguments that the `ret` takes from the stack as well.
    pub arguments: u16,
    /// What the registers hold afterwards, by their DWARF numbers.
    pub registers: [Held; REGISTERS],
}

/// All that was found from one address on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exits {
    /// The shortest way first.
    pub exits: Vec<Exit>,
    /// A way ends in `hlt`, as where a thread begins: without exits, there is no caller.
    pub halts: bool,
    /// Instructions read.
    pub steps: usize,
}

impl Exits {
    /// There is no caller: the code ends the thread, and halts should that fail.
    pub fn never_returns(&self) -> bool {
        self.exits.is_empty() && self.halts
    }

    /// The likelier first. At a call the stack pointer is a multiple of 16 (System V ABI, 3.2.2), at the entry of what is
    /// called it is 8 off; a way that breaks this has gone on behind a call that never returns.
    pub fn by_likelihood(&self, after_call: bool) -> impl Iterator<Item = &Exit> {
        let aligned = move |exit: &&Exit| {
            let place = exit.return_address;
            !after_call || usize::from(place.base.0) != RSP || place.offset.rem_euclid(16) == 8
        };
        let others = self.exits.iter().filter(move |it| !aligned(it));
        self.exits.iter().filter(aligned).chain(others)
    }
}

pub(super) const REGISTERS: usize = 16;

/// In the order of their DWARF numbers.
const OPERANDS: [Operand; REGISTERS] = [
    Operand::RAX,
    Operand::RDX,
    Operand::RCX,
    Operand::RBX,
    Operand::RSI,
    Operand::RDI,
    Operand::RBP,
    Operand::RSP,
    Operand::R8,
    Operand::R9,
    Operand::R10,
    Operand::R11,
    Operand::R12,
    Operand::R13,
    Operand::R14,
    Operand::R15,
];
const RAX: usize = 0;
const RBP: usize = 6;
const RSP: usize = 7;
/// What a call may change.
const VOLATILE: [usize; 9] = [RAX, 1, 2, 4, 5, 8, 9, 10, 11];

/// The number of the 64-bit register that this one is part of.
fn number(register: Operand) -> Option<usize> {
    let full = register.full_register();
    OPERANDS.iter().position(|it| *it == full)
}

/// Follows the code from `address` on; `read` copies code from an address on and says how much there was.
pub(super) fn exits(address: u64, mut read: impl FnMut(u64, &mut [u8]) -> usize) -> Exits {
    let mut found = Exits::default();
    let mut seen = HashSet::from([address]);
    let mut ways = VecDeque::from([Way::at(address)]);
    let mut info = InstructionInfoFactory::new();
    let mut bytes = [0; INSTRUCTION_BYTES_MAX];
    while let Some(mut way) = ways.pop_front() {
        if found.steps >= STEPS_MAX {
            break;
        }
        found.steps += 1;
        let length = read(way.at, &mut bytes);
        let Some(code) = bytes.get(..length) else {
            continue;
        };
        let instruction = Decoder::with_ip(64, code, way.at, DecoderOptions::NONE).decode();
        way.at = instruction.next_ip();
        let branch = match instruction.flow_control() {
            FlowControl::Next => {
                if instruction.mnemonic() == Mnemonic::Hlt {
                    found.halts = true;
                    continue;
                }
                way.step(&instruction, &mut info);
                None
            }
            FlowControl::Call | FlowControl::IndirectCall => {
                way.call(&instruction);
                None
            }
            FlowControl::UnconditionalBranch => {
                way.at = instruction.near_branch_target();
                None
            }
            FlowControl::ConditionalBranch => Some(instruction.near_branch_target()),
            FlowControl::Return => {
                if let Some(exit) = way.exit(&instruction)
                    && !found
                        .exits
                        .iter()
                        .any(|it| it.return_address == exit.return_address)
                {
                    found.exits.push(exit);
                    if found.exits.len() == EXITS_MAX {
                        break;
                    }
                }
                continue;
            }
            // Where a table or a pointer leads is not known; a trap leads nowhere.
            FlowControl::IndirectBranch
            | FlowControl::Interrupt
            | FlowControl::XbeginXabortXend
            | FlowControl::Exception => continue,
        };
        // Only `ret` tells where a frame ends, and that needs the stack pointer.
        if way.stack().is_none() {
            continue;
        }
        if let Some(target) = branch
            && seen.insert(target)
        {
            ways.push_back(Way {
                at: target,
                ..way.clone()
            });
        }
        if seen.insert(way.at) {
            ways.push_back(way);
        }
    }
    found
}

/// One path through the code.
#[derive(Clone, Debug)]
struct Way {
    at: u64,
    registers: [Held; REGISTERS],
    /// What was pushed below where the stack pointer stood: offset from there, and what.
    pushed: Vec<(i64, Held)>,
    /// `rax` holds [`SIGRETURN`].
    sigreturn: bool,
}

impl Way {
    fn at(address: u64) -> Self {
        let own = |index| {
            u16::try_from(index).map_or(Held::Unknown, |number| {
                Held::Sum(Place {
                    base: Register(number),
                    offset: 0,
                })
            })
        };
        Self {
            at: address,
            registers: std::array::from_fn(own),
            pushed: Vec::new(),
            sigreturn: false,
        }
    }

    fn held(&self, register: usize) -> Held {
        self.registers.get(register).copied().unwrap_or(Held::Unknown)
    }

    fn hold(&mut self, register: usize, held: Held) {
        if let Some(slot) = self.registers.get_mut(register) {
            *slot = held;
        }
    }

    /// Where the stack pointer points, if that is known.
    fn stack(&self) -> Option<Place> {
        match self.held(RSP) {
            Held::Sum(place) => Some(place),
            Held::Word(_) | Held::Unknown => None,
        }
    }

    fn move_stack(&mut self, bytes: i64) {
        if let Some(place) = self.stack() {
            self.hold(RSP, Held::Sum(place.plus(bytes)));
        }
    }

    fn push(&mut self, held: Held) {
        self.move_stack(-8);
        if let Some(place) = self.stack()
            && is_below(place)
        {
            self.pushed.retain(|(offset, _)| *offset != place.offset);
            if self.pushed.len() < PUSHED_MAX {
                self.pushed.push((place.offset, held));
            }
        }
    }

    /// What stands in the stack.
    fn word(&self, place: Place) -> Held {
        if !is_below(place) {
            return Held::Word(place);
        }
        let pushed = self.pushed.iter().find(|(offset, _)| *offset == place.offset);
        pushed.map_or(Held::Unknown, |(_, held)| *held)
    }

    /// A call, or a system call.
    fn call(&mut self, instruction: &Instruction) {
        if instruction.mnemonic() == Mnemonic::Syscall && self.sigreturn {
            self.hold(RSP, Held::Unknown);
            return;
        }
        // A call of the next instruction pushes its own address, and nothing returns.
        if instruction.is_call_near() && instruction.near_branch_target() == instruction.next_ip() {
            self.push(Held::Unknown);
            return;
        }
        for register in VOLATILE {
            self.hold(register, Held::Unknown);
        }
        self.sigreturn = false;
    }

    fn exit(&self, instruction: &Instruction) -> Option<Exit> {
        let arguments = match instruction.code() {
            Code::Retnq => 0,
            Code::Retnq_imm16 => instruction.immediate16(),
            _ => return None,
        };
        // What lies below is not the caller's: behind a call that never returns, the next function was entered.
        let return_address = self.stack().filter(|place| !is_below(*place))?;
        Some(Exit {
            return_address,
            arguments,
            registers: self.registers,
        })
    }

    /// An instruction that goes on to the next one.
    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        if self.understood(instruction) {
            return;
        }
        let moved = instruction.stack_pointer_increment();
        if instruction.is_stack_instruction() && moved != 0 {
            // Flags, memory, parts of registers: what is pushed does not matter, what is popped is lost below.
            self.move_stack(i64::from(moved));
        }
        let used = info.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE);
        for register in used.used_registers() {
            let written = !matches!(
                register.access(),
                OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
            );
            let Some(number) = number(register.register()).filter(|_| written) else {
                continue;
            };
            if number == RSP && instruction.is_stack_instruction() {
                continue;
            }
            self.hold(number, Held::Unknown);
            self.sigreturn = self.sigreturn && number != RAX;
        }
        if instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Register
            && number(instruction.op0_register()) == Some(RAX)
            && is_immediate(instruction.op1_kind())
        {
            self.sigreturn = instruction.immediate(1) == SIGRETURN;
        }
    }

    /// The instructions that frames are built and taken down with. `false`: none of them.
    fn understood(&mut self, instruction: &Instruction) -> bool {
        let register = |operand| {
            let is_full = instruction.op_kind(operand) == OpKind::Register
                && instruction.op_register(operand).is_gpr64();
            is_full
                .then(|| number(instruction.op_register(operand)))
                .flatten()
        };
        match (instruction.mnemonic(), register(0)) {
            (Mnemonic::Push, Some(source)) => self.push(self.held(source)),
            (Mnemonic::Pop, Some(target)) => {
                let held = self.stack().map_or(Held::Unknown, |place| self.word(place));
                self.move_stack(8);
                self.hold(target, held);
                self.sigreturn = self.sigreturn && target != RAX;
            }
            (Mnemonic::Leave, _) => {
                let frame = self.held(RBP);
                self.hold(RSP, frame);
                let held = self.stack().map_or(Held::Unknown, |place| self.word(place));
                self.hold(RBP, held);
                self.move_stack(8);
            }
            (Mnemonic::Mov, Some(target)) if register(1).is_some() => {
                let held = register(1).map_or(Held::Unknown, |source| self.held(source));
                self.hold(target, held);
                self.sigreturn = self.sigreturn && target != RAX;
            }
            (Mnemonic::Mov, Some(target)) if instruction.op1_kind() == OpKind::Memory => {
                let held = self
                    .address(instruction)
                    .map_or(Held::Unknown, |place| self.word(place));
                self.hold(target, held);
                self.sigreturn = self.sigreturn && target != RAX;
            }
            (Mnemonic::Lea, Some(target)) => {
                let held = self.address(instruction).map_or(Held::Unknown, Held::Sum);
                self.hold(target, held);
                self.sigreturn = self.sigreturn && target != RAX;
            }
            (mnemonic @ (Mnemonic::Add | Mnemonic::Sub), Some(target))
                if is_immediate(instruction.op1_kind()) =>
            {
                let bytes = instruction.immediate(1).cast_signed();
                let bytes = if mnemonic == Mnemonic::Sub {
                    bytes.wrapping_neg()
                } else {
                    bytes
                };
                let held = match self.held(target) {
                    Held::Sum(place) => Held::Sum(place.plus(bytes)),
                    Held::Word(_) | Held::Unknown => Held::Unknown,
                };
                self.hold(target, held);
                self.sigreturn = self.sigreturn && target != RAX;
            }
            _ => return false,
        }
        true
    }

    /// What a memory operand of one register and a displacement points to.
    fn address(&self, instruction: &Instruction) -> Option<Place> {
        let plain =
            instruction.memory_index() == Operand::None && instruction.segment_prefix() == Operand::None;
        let base =
            number(instruction.memory_base()).filter(|_| plain && instruction.memory_base().is_gpr64())?;
        match self.held(base) {
            Held::Sum(place) => Some(place.plus(instruction.memory_displacement64().cast_signed())),
            Held::Word(_) | Held::Unknown => None,
        }
    }
}

/// Below where the stack pointer stood: no part of what was copied.
fn is_below(place: Place) -> bool {
    usize::from(place.base.0) == RSP && place.offset < 0
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
            | OpKind::Immediate8to32
    )
}

/// Whether code that ends in these bytes ends in a call: what stands before a return address does.
pub(super) fn ends_in_call(before: &[u8]) -> bool {
    let near = before.len().checked_sub(5).and_then(|it| before.get(it)) == Some(&0xe8);
    // FF /2, whose operand has 0, 1, 2, 4 or 5 bytes beside the ModRM byte.
    near || [2, 3, 4, 6, 7].into_iter().any(|length| {
        let tail = before.len().checked_sub(length).and_then(|it| before.get(it..));
        matches!(tail, Some([0xff, operand, ..]) if operand >> 3 & 7 == 2)
    })
}
