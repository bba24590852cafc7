//! Ways out of hand-made code, and of real code that has unwind information to compare with.

use std::fs;
use std::path::Path;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindSection as _, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::elf;
use super::instructions::{Exit, Exits, Held, Place, ends_in_call, exits};
use super::registers::{Host, Machine as _};

const CODE: u64 = 0x1000;

fn of(code: &[u8]) -> Exits {
    exits(CODE, |at, into| {
        let start = usize::try_from(at.wrapping_sub(CODE)).unwrap_or(usize::MAX);
        let rest = code.get(start..).unwrap_or(&[]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        length
    })
}

fn place(base: Register, offset: i64) -> Place {
    Place { base, offset }
}

fn held(exit: &Exit, register: Register) -> Held {
    exit.registers[usize::from(register.0)]
}

#[test]
fn what_is_popped_is_the_callers() {
    //           add $0x18,%rsp          pop %rbx  pop %rbp  pop %r12    ret
    let found = of(&[0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0x41, 0x5c, 0xc3]);
    let [exit] = &found.exits[..] else {
        panic!("{found:?}")
    };
    assert_eq!(exit.return_address, place(X86_64::RSP, 0x30));
    assert_eq!(held(exit, X86_64::RBX), Held::Word(place(X86_64::RSP, 0x18)));
    assert_eq!(held(exit, X86_64::RBP), Held::Word(place(X86_64::RSP, 0x20)));
    assert_eq!(held(exit, X86_64::R12), Held::Word(place(X86_64::RSP, 0x28)));
    assert_eq!(held(exit, X86_64::R13), Held::Sum(place(X86_64::R13, 0)));
    assert!(!found.halts);
}

#[test]
fn a_frame_pointer_tells_where_the_frame_is() {
    // leave; ret $8
    let found = of(&[0xc9, 0xc2, 8, 0]);
    assert_eq!(found.exits[0].return_address, place(X86_64::RBP, 8));
    assert_eq!(found.exits[0].arguments, 8);
    assert_eq!(
        held(&found.exits[0], X86_64::RBP),
        Held::Word(place(X86_64::RBP, 0))
    );
    // lea -0x10(%rbp),%rsp; pop %rbx; pop %r12; pop %rbp; ret
    let found = of(&[0x48, 0x8d, 0x65, 0xf0, 0x5b, 0x41, 0x5c, 0x5d, 0xc3]);
    assert_eq!(found.exits[0].return_address, place(X86_64::RBP, 8));
    assert_eq!(
        held(&found.exits[0], X86_64::RBX),
        Held::Word(place(X86_64::RBP, -0x10))
    );
}

#[test]
fn at_the_entry_a_register_is_saved_and_restored() {
    // push %rbx; mov %edi,%ebx; call +0; pop %rbx; ret, the call to what follows not taken for one.
    let found = of(&[0x53, 0x89, 0xfb, 0xe8, 0x10, 0, 0, 0, 0x5b, 0xc3]);
    assert_eq!(found.exits[0].return_address, place(X86_64::RSP, 0));
    assert_eq!(
        held(&found.exits[0], X86_64::RBX),
        Held::Sum(place(X86_64::RBX, 0))
    );
    assert_eq!(held(&found.exits[0], X86_64::RAX), Held::Unknown);
    // call +0; pop %rax; ret
    let found = of(&[0xe8, 0, 0, 0, 0, 0x58, 0xc3]);
    assert_eq!(found.exits[0].return_address, place(X86_64::RSP, 0));
}

#[test]
fn every_branch_is_followed() {
    // test %eax,%eax; je +2; jmp itself; add $8,%rsp; ret
    let found = of(&[0x85, 0xc0, 0x74, 2, 0xeb, 0xfe, 0x48, 0x83, 0xc4, 8, 0xc3]);
    assert_eq!(found.exits.len(), 1, "{found:?}");
    assert_eq!(found.exits[0].return_address, place(X86_64::RSP, 8));
    // jne +6; call (which may not return); nop; ret | add $8,%rsp; ret: both are told, the shorter first.
    let found = of(&[
        0x75, 7, 0xe8, 0x10, 0, 0, 0, 0x90, 0xc3, 0x48, 0x83, 0xc4, 8, 0xc3,
    ]);
    let offsets: Vec<i64> = found.exits.iter().map(|it| it.return_address.offset).collect();
    assert_eq!(offsets, [8, 0]);
}

#[test]
fn where_nothing_returns_there_is_no_way_out() {
    // musl's thread entry, behind its call: mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall; hlt
    let found = of(&[0x89, 0xc7, 0x31, 0xc0, 0xb0, 0x3c, 0x0f, 0x05, 0xf4]);
    assert!(found.never_returns(), "{found:?}");
    // mov $15,%rax; syscall; ret: what follows sigreturn is another function.
    let found = of(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05, 0xc3]);
    assert!(found.exits.is_empty() && !found.halts, "{found:?}");
    // and $-16,%rsp; ret: the stack pointer is lost.
    assert!(of(&[0x48, 0x83, 0xe4, 0xf0, 0xc3]).exits.is_empty());
    // jmp *%rax; and bytes that are no instruction; and the end of the file.
    assert!(of(&[0xff, 0xe0, 0xc3]).exits.is_empty());
    assert!(of(&[0x06, 0xc3]).exits.is_empty());
    assert!(of(&[0x48, 0x83]).exits.is_empty());
}

#[test]
fn calls_are_recognised_by_their_last_bytes() {
    for call in [
        &[0xe8, 1, 2, 3, 4][..],         // near
        &[0xff, 0xd0],                   // *%rax
        &[0x41, 0xff, 0xd1],             // *%r9
        &[0xff, 0x50, 0x18],             // *0x18(%rax)
        &[0xff, 0x54, 0x24, 8],          // *8(%rsp)
        &[0xff, 0x15, 1, 2, 3, 4],       // *0x4030201(%rip)
        &[0xff, 0x94, 0x24, 1, 2, 3, 4], // *0x4030201(%rsp)
    ] {
        let before = [&[0x90; 7][..], call].concat();
        assert!(ends_in_call(&before[before.len() - 7..]), "{call:x?}");
    }
    assert!(!ends_in_call(&[0x90; 7]));
    // jmp *%rax
    assert!(!ends_in_call(&[0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0]));
    assert!(!ends_in_call(&[]));
}

proptest::proptest! {
    #[test]
    fn any_bytes_end(code in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let found = of(&code);
        proptest::prop_assert!(found.steps <= 8192);
        proptest::prop_assert!(found.exits.len() <= 8);
        proptest::prop_assert_eq!(found.by_likelihood(true).count(), found.exits.len());
    }
}

/// How the instructions of a file agree with its unwind information, at the return address of every call in it.
#[derive(Debug, Default)]
struct Agreement {
    /// The first way out gives the same place of the return address.
    same: usize,
    /// Another one does.
    later: usize,
    differs: usize,
    /// No way out, or by a register that cannot be compared.
    silent: usize,
    /// Registers that calls preserve, where the place is the same.
    registers: usize,
    registers_differ: usize,
}

fn agreement(path: &Path, every: usize) -> Agreement {
    let file = fs::read(path).unwrap();
    let image = elf::read(&file[..], Host::ELF).unwrap();
    let sections = image.unwind.as_ref().unwrap();
    let eh_frame = sections.eh_frame.as_ref().unwrap();
    let bases = BaseAddresses::default()
        .set_eh_frame(eh_frame.addresses.start)
        .set_text(sections.text.as_ref().unwrap().start);
    let mut section = EhFrame::new(&eh_frame.bytes, LittleEndian);
    section.set_address_size(8);
    let code = |at: u64, length: usize| {
        let (offset, rest) = image.code_at(at)?;
        let start = usize::try_from(offset).ok()?;
        file.get(start..start + length.min(usize::try_from(rest).ok()?))
    };
    let copy = |at: u64, into: &mut [u8]| {
        let bytes = code(at, into.len()).unwrap_or(&[]);
        into[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    };
    let mut agreement = Agreement::default();
    let mut context = UnwindContext::new();
    let mut calls = 0;
    let mut entries = section.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let entry = partial.parse(EhFrame::cie_from_offset).unwrap();
        let length = usize::try_from(entry.len()).unwrap();
        let Some(bytes) = code(entry.initial_address(), length) else {
            continue;
        };
        let decoder = Decoder::with_ip(64, bytes, entry.initial_address(), DecoderOptions::NONE);
        for instruction in decoder {
            let call = matches!(
                instruction.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall
            );
            // Behind the last call of a function there is often none of its code: that call does not return.
            if !call || instruction.next_ip() >= entry.end_address() {
                continue;
            }
            calls += 1;
            if calls % every != 0 {
                continue;
            }
            let at = instruction.next_ip();
            let row = entry
                .unwind_info_for_address(&section, &bases, &mut context, at)
                .unwrap();
            let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
                continue;
            };
            let wanted = place(register, offset - 8);
            let found = exits(at, copy);
            let comparable: Vec<_> = found
                .by_likelihood(true)
                .filter(|it| it.return_address.base == register)
                .collect();
            let Some(index) = comparable.iter().position(|it| it.return_address == wanted) else {
                if comparable.is_empty() {
                    agreement.silent += 1;
                } else {
                    agreement.differs += 1;
                }
                continue;
            };
            if index > 0 {
                agreement.later += 1;
                continue;
            }
            agreement.same += 1;
            for register in [X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15] {
                let wanted = match row.register(register) {
                    None | Some(RegisterRule::SameValue) => Held::Sum(place(register, 0)),
                    Some(RegisterRule::Offset(below)) => {
                        Held::Word(place(wanted.base, wanted.offset + 8 + below))
                    }
                    Some(_) => continue,
                };
                if held(comparable[0], register) == wanted {
                    agreement.registers += 1;
                } else {
                    agreement.registers_differ += 1;
                }
            }
        }
    }
    agreement
}

/// Code of C, C++, Rust and assembly, all with unwind information that the reader of instructions is not shown.
#[test]
#[cfg(target_arch = "x86_64")]
fn instructions_agree_with_unwind_information() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps
        .lines()
        .find_map(|line| Some(line.get(line.find('/')?..)?).filter(|path| path.contains("/libc.so.6")));
    for (path, every) in [
        (Path::new(libc.unwrap()), 1),
        (std::env::current_exe().unwrap().as_path(), 37),
    ] {
        let agreement = agreement(path, every);
        let Agreement {
            same,
            later,
            differs,
            silent,
            registers,
            registers_differ,
        } = agreement;
        let path = path.display();
        assert!(same + later + differs + silent > 1000, "{path}: {agreement:?}");
        // What differs is behind calls that never return, where the next function's way out is found: its return address
        // is none, which a walk sees by what stands before it.
        assert!(20 * (later + differs) < same, "{path}: {agreement:?}");
        assert!(100 * registers_differ < registers, "{path}: {agreement:?}");
    }
}
