//! Raw kernel registers to what an unwinder starts from, per architecture.
//!
//! The kernel side copies `struct pt_regs` undecoded, so both layouts live here and both are compiled and tested on
//! every host.

use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{Module, Unwinder};
use gimli::{Register, Vendor};
use object::elf;

use super::vet::Followed;
use super::walk::Bytes;

/// An architecture that stacks can be unwound for.
pub trait Machine {
    type Registers;
    type Cache;
    type Unwinder: Unwinder<UnwindRegs = Self::Registers, Cache = Self::Cache, Module = Module<Bytes>>;

    /// The machine number of its ELF files.
    const ELF: elf::Machine;

    fn unwinder() -> Self::Unwinder;
    fn cache() -> Self::Cache;
    /// Program counter and registers out of the kernel's raw copy; `None` when it is too short or the task was in
    /// 32-bit mode. `code_end` is the end of the highest known code.
    fn decode(raw: &[u8], code_end: u64) -> Option<(u64, Self::Registers)>;
    fn stack_pointer(registers: &Self::Registers) -> u64;
    fn frame_pointer(registers: &Self::Registers) -> u64;
    /// The same registers with another frame pointer.
    fn with_frame_pointer(registers: &Self::Registers, value: u64) -> Self::Registers;

    /// What framehop follows of the registers.
    const FOLLOWED: Followed;
    /// Where the raw copy holds a register, in words, by its DWARF number.
    const GENERAL: &'static [usize];
    /// Whose reading of the unwind information's private instructions.
    const VENDOR: Vendor;
    /// A call leaves the return address in the register [`Followed::return_address`], and not on the stack.
    const LINKS: bool;

    /// Whether a called function must give this register back as it was.
    fn survives_calls(register: Register) -> bool;
    /// A return address without its signature, if the machine signs them.
    fn strip(address: u64, code_end: u64) -> u64;

    /// The general registers out of the kernel's raw copy; `None` as for [`Self::decode`].
    fn general(raw: &[u8], code_end: u64) -> Option<General> {
        Self::decode(raw, code_end)?;
        let mut general = General::default();
        for (register, index) in (0..).map(Register).zip(Self::GENERAL) {
            general.set(register, word(raw, *index));
        }
        if Self::LINKS {
            let link = Self::FOLLOWED.return_address;
            general.set(link, general.get(link).map(|it| Self::strip(it, code_end)));
        }
        Some(general)
    }
}

/// What framehop follows on this machine.
#[must_use]
pub fn followed(machine: elf::Machine) -> Followed {
    if machine == Aarch64::ELF {
        Aarch64::FOLLOWED
    } else {
        X86_64::FOLLOWED
    }
}

/// The general registers of a frame as far as they are known, by their DWARF numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct General([Option<u64>; 32]);

impl General {
    #[must_use]
    pub fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    /// Registers of other kinds (vectors, flags) are ignored.
    pub fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(slot) = self.0.get_mut(usize::from(register.0)) {
            *slot = value;
        }
    }

    /// Forgets the registers that are not wanted.
    pub fn keep(&mut self, wanted: impl Fn(Register) -> bool) {
        for (register, slot) in (0..).map(Register).zip(&mut self.0) {
            if !wanted(register) {
                *slot = None;
            }
        }
    }
}

/// The machine leakwatch runs on, and therefore its targets.
#[cfg(target_arch = "x86_64")]
pub type Host = X86_64;
#[cfg(target_arch = "aarch64")]
pub type Host = Aarch64;

fn word(raw: &[u8], index: usize) -> Option<u64> {
    let bytes = raw.get(index.checked_mul(8)?..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// `arch/x86/include/asm/ptrace.h`, `struct pt_regs`, 64-bit words: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di
/// orig_ax ip cs flags sp ss.
pub struct X86_64;

impl X86_64 {
    const BP: usize = 4;
    const IP: usize = 16;
    const CS: usize = 17;
    const SP: usize = 19;
    /// `__USER32_CS`: the task ran 32-bit code.
    const USER32_CS: u64 = 0x23;
}

impl Machine for X86_64 {
    type Registers = UnwindRegsX86_64;
    type Cache = CacheX86_64;
    type Unwinder = UnwinderX86_64<Bytes>;
    const ELF: elf::Machine = elf::EM_X86_64;

    fn unwinder() -> Self::Unwinder {
        UnwinderX86_64::new()
    }

    fn cache() -> Self::Cache {
        CacheX86_64::new()
    }

    fn decode(raw: &[u8], _code_end: u64) -> Option<(u64, Self::Registers)> {
        if word(raw, Self::CS)? & 0xffff == Self::USER32_CS {
            return None;
        }
        let ip = word(raw, Self::IP)?;
        let registers = UnwindRegsX86_64::new(ip, word(raw, Self::SP)?, word(raw, Self::BP)?);
        Some((ip, registers))
    }

    fn stack_pointer(registers: &Self::Registers) -> u64 {
        registers.sp()
    }

    fn frame_pointer(registers: &Self::Registers) -> u64 {
        registers.bp()
    }

    fn with_frame_pointer(registers: &Self::Registers, value: u64) -> Self::Registers {
        let mut registers = *registers;
        registers.set_bp(value);
        registers
    }

    const FOLLOWED: Followed = Followed {
        stack_pointer: gimli::X86_64::RSP,
        frame_pointer: gimli::X86_64::RBP,
        return_address: gimli::X86_64::RA,
    };
    /// System V ABI, figure 3.36: ax dx cx bx si di bp sp r8..r15 and the return address.
    const GENERAL: &'static [usize] = &[
        10,
        12,
        11,
        5,
        13,
        14,
        Self::BP,
        Self::SP,
        9,
        8,
        7,
        6,
        3,
        2,
        1,
        0,
        Self::IP,
    ];
    const VENDOR: Vendor = Vendor::Default;
    const LINKS: bool = false;

    fn survives_calls(register: Register) -> bool {
        use gimli::X86_64 as x;
        [x::RBX, x::RBP, x::R12, x::R13, x::R14, x::R15].contains(&register)
    }

    fn strip(address: u64, _code_end: u64) -> u64 {
        address
    }
}

/// `arch/arm64/include/uapi/asm/ptrace.h`, `struct user_pt_regs`, 64-bit words: x0..x30 sp pc pstate.
pub struct Aarch64;

impl Aarch64 {
    const FP: usize = 29;
    const LR: usize = 30;
    const SP: usize = 31;
    const PC: usize = 32;
    const PSTATE: usize = 33;
    /// `PSR_MODE32_BIT`.
    const MODE32: u64 = 0x10;

    /// At least the 48 bits that every kernel grants: with little code known, a stray mask would cut addresses.
    fn mask(code_end: u64) -> PtrAuthMask {
        PtrAuthMask::from_max_known_address(code_end.max((1 << 48) - 1))
    }
}

impl Machine for Aarch64 {
    type Registers = UnwindRegsAarch64;
    type Cache = CacheAarch64;
    type Unwinder = UnwinderAarch64<Bytes>;
    const ELF: elf::Machine = elf::EM_AARCH64;

    fn unwinder() -> Self::Unwinder {
        UnwinderAarch64::new()
    }

    fn cache() -> Self::Cache {
        CacheAarch64::new()
    }

    /// Return addresses may be signed (pointer authentication): the bits above the highest known code are no address.
    fn decode(raw: &[u8], code_end: u64) -> Option<(u64, Self::Registers)> {
        if word(raw, Self::PSTATE)? & Self::MODE32 != 0 {
            return None;
        }
        let registers = UnwindRegsAarch64::new_with_ptr_auth_mask(
            Self::mask(code_end),
            word(raw, Self::LR)?,
            word(raw, Self::SP)?,
            word(raw, Self::FP)?,
        );
        Some((word(raw, Self::PC)?, registers))
    }

    fn stack_pointer(registers: &Self::Registers) -> u64 {
        registers.sp()
    }

    fn frame_pointer(registers: &Self::Registers) -> u64 {
        registers.fp()
    }

    fn with_frame_pointer(registers: &Self::Registers, value: u64) -> Self::Registers {
        let mut registers = *registers;
        registers.set_fp(value);
        registers
    }

    const FOLLOWED: Followed = Followed {
        stack_pointer: gimli::AArch64::SP,
        frame_pointer: gimli::AArch64::X29,
        return_address: gimli::AArch64::X30,
    };
    /// x0..x30 and sp: the numbers agree.
    const GENERAL: &'static [usize] = &[
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        Self::FP,
        Self::LR,
        Self::SP,
    ];
    const VENDOR: Vendor = Vendor::AArch64;
    const LINKS: bool = true;

    fn survives_calls(register: Register) -> bool {
        (gimli::AArch64::X19.0..=gimli::AArch64::X29.0).contains(&register.0)
    }

    fn strip(address: u64, code_end: u64) -> u64 {
        Self::mask(code_end).strip_ptr_auth(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leakwatch_ebpf::wire::REGISTERS_BYTES;

    fn raw(words: impl Fn(u64) -> u64) -> Vec<u8> {
        (0..REGISTERS_BYTES as u64 / 8)
            .flat_map(|index| words(index).to_le_bytes())
            .collect()
    }

    #[test]
    fn x86_64_layout_agrees_with_the_c_struct() {
        // libc's user_regs_struct has the same order in its first 21 words.
        use std::mem::offset_of;
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(offset_of!(libc::user_regs_struct, rbp), X86_64::BP * 8);
            assert_eq!(offset_of!(libc::user_regs_struct, rip), X86_64::IP * 8);
            assert_eq!(offset_of!(libc::user_regs_struct, rsp), X86_64::SP * 8);
            assert_eq!(offset_of!(libc::user_regs_struct, cs), X86_64::CS * 8);
        }
        let bytes = raw(|index| 0x1000 + index);
        let (ip, registers) = X86_64::decode(&bytes, 0).unwrap();
        assert_eq!(ip, 0x1000 + 16);
        assert_eq!(X86_64::stack_pointer(&registers), 0x1000 + 19);
        assert_eq!(X86_64::frame_pointer(&registers), 0x1000 + 4);
    }

    #[test]
    fn a_32_bit_task_and_a_short_copy_are_refused() {
        assert!(X86_64::decode(&raw(|index| if index == 17 { 0x23 } else { 1 }), 0).is_none());
        assert!(X86_64::decode(&raw(|_| 1)[..100], 0).is_none());
        assert!(Aarch64::decode(&raw(|index| if index == 33 { 0x10 } else { 1 }), 0).is_none());
        assert!(Aarch64::decode(&raw(|_| 1)[..264], 0).is_none());
    }

    #[test]
    fn aarch64_strips_the_signature_of_the_return_address() {
        let bytes = raw(|index| match index {
            29 => 0xffff_0000_1000,
            30 => 0x00b5_aaaa_1234_5678,
            31 => 0xffff_0000_0ff0,
            32 => 0xaaaa_1234_0000,
            _ => 0,
        });
        let (pc, registers) = Aarch64::decode(&bytes, 0xffff_f000_0000).unwrap();
        assert_eq!(pc, 0xaaaa_1234_0000);
        assert_eq!(registers.lr(), 0xaaaa_1234_5678);
        assert_eq!(Aarch64::stack_pointer(&registers), 0xffff_0000_0ff0);
        assert_eq!(Aarch64::frame_pointer(&registers), 0xffff_0000_1000);
    }
}
