//! Unwind information that would not end.
//!
//! A rule for the stack may be a little program (a DWARF expression), and such a program may branch. framehop runs it
//! without a bound, so a file made for the purpose could hold leakwatch for ever. No compiler or linker emits a branch
//! there (the procedure linkage table's rule, the usual case, is straight arithmetic), so a file with one is refused.
//!
//! Whoever reads every rule can tell as well which of them framehop cannot follow.

use std::ops::Range;
use std::sync::Arc;

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, Encoding, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Operation, Register, UnwindExpression, UnwindSection,
};

use super::elf::{ElfError, UnwindSections};

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// An entry is run from its start for each new address: a larger one than this would make that slow. Bytes; the
/// largest met in the field have some 10 KiB.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// The registers that framehop follows, by their DWARF numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub stack_pointer: Register,
    pub frame_pointer: Register,
    pub return_address: Register,
}

impl Followed {
    fn contains(&self, register: Register) -> bool {
        [self.stack_pointer, self.frame_pointer, self.return_address].contains(&register)
    }
}

/// What reading every entry has shown.
#[derive(Clone, Debug, Default)]
pub struct Vetted {
    /// Code with a rule that takes other registers than framehop follows, or memory: a stack that was realigned, the
    /// loader's resolver of lazy calls, the return from a signal handler. Addresses of the file, sorted.
    pub intricate: Arc<[Range<u64>]>,
    /// First address of each entry's code and the entry's place in its section, sorted; empty where the section comes
    /// with a search table.
    pub index: Arc<[(u64, usize)]>,
}

impl Vetted {
    /// Bytes held in memory.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&*self.intricate) + size_of_val(&*self.index)) as u64
    }

    pub fn is_intricate(&self, address: u64) -> bool {
        let after = self.intricate.partition_point(|it| it.start <= address);
        let candidate = after.checked_sub(1).and_then(|it| self.intricate.get(it));
        candidate.is_some_and(|it| it.contains(&address))
    }
}

/// What framehop knows of the file's addresses, so that all readers see the same pointers.
pub(super) fn bases(sections: &UnwindSections) -> BaseAddresses {
    let start = |range: Option<&Range<u64>>| range.map_or(0, |it| it.start);
    if sections.eh_frame.is_none() {
        return BaseAddresses::default();
    }
    BaseAddresses::default()
        .set_eh_frame(start(sections.eh_frame.as_ref().map(|it| &it.addresses)))
        .set_eh_frame_hdr(start(sections.eh_frame_hdr.as_ref().map(|it| &it.addresses)))
        .set_text(start(sections.text.as_ref()))
        .set_got(start(sections.got.as_ref()))
}

/// Looks at every entry that framehop can come to use: those of the search table where there is one, else all. The code
/// that they are for goes to `covered`.
pub fn vet(
    sections: &UnwindSections,
    followed: Followed,
    covered: &mut Vec<Range<u64>>,
) -> Result<Vetted, ElfError> {
    let mut vetting = Vetting {
        followed,
        covered,
        intricate: Vec::new(),
        index: Vec::new(),
    };
    let bases = bases(sections);
    if let Some(eh_frame) = &sections.eh_frame {
        let mut section = EhFrame::new(&eh_frame.bytes, LittleEndian);
        section.set_address_size(8);
        match &sections.eh_frame_hdr {
            Some(hdr) => vetting.table(&section, &hdr.bytes, &bases, eh_frame.bytes.len())?,
            None => vetting.all(&section, &bases)?,
        }
    } else if let Some(debug_frame) = &sections.debug_frame {
        let mut section = DebugFrame::new(&debug_frame.bytes, LittleEndian);
        section.set_address_size(8);
        vetting.all(&section, &bases)?;
    }
    vetting.intricate.sort_unstable_by_key(|range| range.start);
    vetting.index.sort_unstable();
    Ok(Vetted {
        intricate: vetting.intricate.into(),
        index: vetting.index.into(),
    })
}

struct Vetting<'c> {
    followed: Followed,
    covered: &'c mut Vec<Range<u64>>,
    intricate: Vec<Range<u64>>,
    index: Vec<(u64, usize)>,
}

impl Vetting<'_> {
    /// An entry that cannot be parsed ends nothing here: framehop cannot use it either.
    fn table(
        &mut self,
        section: &EhFrame<Slice<'_>>,
        hdr: &[u8],
        bases: &BaseAddresses,
        section_bytes: usize,
    ) -> Result<(), ElfError> {
        let Ok(hdr) = EhFrameHdr::new(hdr, LittleEndian).parse(bases, 8) else {
            return Ok(());
        };
        let Some(table) = hdr.table() else {
            return Ok(());
        };
        // Every row may name the same large entry: honest tables name each once.
        let mut bytes = 0_usize;
        let mut rows = table.iter(bases);
        while let Ok(Some((_, pointer))) = rows.next() {
            let entry = table
                .pointer_to_offset(pointer)
                .and_then(|offset| section.fde_from_offset(bases, offset, EhFrame::cie_from_offset));
            if let Ok(entry) = entry {
                bytes = bytes.saturating_add(entry.entry_len());
                if bytes > section_bytes.saturating_mul(2) {
                    return Err(ElfError::UnboundedUnwinding);
                }
                self.entry(section, bases, &entry)?;
            }
        }
        Ok(())
    }

    /// framehop uses no entry of a section in which one cannot be parsed.
    fn all<'a, S>(&mut self, section: &S, bases: &BaseAddresses) -> Result<(), ElfError>
    where
        S: UnwindSection<Slice<'a>>,
    {
        let mut entries = section.entries(bases);
        while let Ok(Some(entry)) = entries.next() {
            if let CieOrFde::Fde(partial) = entry
                && let Ok(entry) = partial.parse(S::cie_from_offset)
            {
                self.index.push((entry.initial_address(), entry.offset()));
                self.entry(section, bases, &entry)?;
            }
        }
        Ok(())
    }

    fn entry<'a, S>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        entry: &FrameDescriptionEntry<Slice<'a>>,
    ) -> Result<(), ElfError>
    where
        S: UnwindSection<Slice<'a>>,
    {
        let cie = entry.cie();
        if entry.entry_len() > ENTRY_BYTES_MAX || cie.entry_len() > ENTRY_BYTES_MAX {
            return Err(ElfError::UnboundedUnwinding);
        }
        let mut intricate = false;
        for mut instructions in [
            cie.instructions(section, bases),
            entry.instructions(section, bases),
        ] {
            while let Ok(Some(instruction)) = instructions.next() {
                if let CallFrameInstruction::DefCfaExpression { expression }
                | CallFrameInstruction::Expression { expression, .. }
                | CallFrameInstruction::ValExpression { expression, .. } = instruction
                    && branches(section, &expression, cie.encoding())
                {
                    return Err(ElfError::UnboundedUnwinding);
                }
                intricate = intricate || self.is_intricate(section, cie.encoding(), &instruction);
            }
        }
        let code = entry.initial_address()..entry.end_address();
        if intricate {
            self.intricate.push(code.clone());
        }
        self.covered.push(code);
        Ok(())
    }

    fn is_intricate<'a, S>(
        &self,
        section: &S,
        encoding: Encoding,
        instruction: &CallFrameInstruction<usize>,
    ) -> bool
    where
        S: UnwindSection<Slice<'a>>,
    {
        let wanted = |register| register != self.followed.stack_pointer && self.followed.contains(register);
        match instruction {
            CallFrameInstruction::DefCfa { register, .. }
            | CallFrameInstruction::DefCfaSf { register, .. }
            | CallFrameInstruction::DefCfaRegister { register } => !self.followed.contains(*register),
            CallFrameInstruction::DefCfaExpression { expression } => {
                any(section, expression, encoding, |it| self.is_beyond(it))
            }
            CallFrameInstruction::Register {
                dest_register,
                src_register,
            } => wanted(*dest_register) && !self.followed.contains(*src_register),
            CallFrameInstruction::Expression { register, expression }
            | CallFrameInstruction::ValExpression { register, expression } => {
                wanted(*register) && any(section, expression, encoding, |it| self.is_beyond(it))
            }
            _ => false,
        }
    }

    /// framehop evaluates expressions, with the registers that it has and without memory.
    fn is_beyond(&self, operation: &Operation<Slice<'_>>) -> bool {
        match operation {
            Operation::RegisterOffset { register, .. } => !self.followed.contains(*register),
            Operation::Deref { .. } => true,
            _ => false,
        }
    }
}

fn branches<'a, S>(section: &S, expression: &UnwindExpression<usize>, encoding: Encoding) -> bool
where
    S: UnwindSection<Slice<'a>>,
{
    any(section, expression, encoding, |operation| {
        matches!(operation, Operation::Bra { .. } | Operation::Skip { .. })
    })
}

/// Whether an expression has such an operation.
fn any<'a, S>(
    section: &S,
    expression: &UnwindExpression<usize>,
    encoding: Encoding,
    is_it: impl Fn(&Operation<Slice<'a>>) -> bool,
) -> bool
where
    S: UnwindSection<Slice<'a>>,
{
    let Ok(expression) = expression.get(section) else {
        return false;
    };
    let mut operations = expression.0;
    while let Ok(operation) = Operation::parse(&mut operations, encoding) {
        if is_it(&operation) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::elf::Section;
    use super::*;

    /// A CIE and one FDE whose rule for the CFA is this expression.
    fn with_expression(expression: &[u8]) -> UnwindSections {
        // length, id 0, version 1, "zR", code 1, data -8, return register 16, augmentation 1 byte: absptr;
        // DW_CFA_def_cfa r7 8, DW_CFA_offset r16 at cfa-8, DW_CFA_nop
        let cie = [
            0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0, 0x0c, 7, 8, 0x90, 1, 0, 0,
        ];
        let mut fde = vec![0x1c, 0, 0, 0]; // Distance back to the CIE from here.
        fde.extend(0x1000_u64.to_le_bytes());
        fde.extend(0x100_u64.to_le_bytes());
        fde.push(0);
        fde.push(0x0f); // DW_CFA_def_cfa_expression
        fde.push(u8::try_from(expression.len()).unwrap());
        fde.extend(expression);
        let mut bytes = Vec::new();
        for entry in [&cie[..], &fde] {
            bytes.extend(u32::try_from(entry.len()).unwrap().to_le_bytes());
            bytes.extend(entry);
        }
        bytes.extend([0; 4]);
        UnwindSections {
            eh_frame: Some(Section {
                addresses: 0x2000..0x2000 + bytes.len() as u64,
                bytes: bytes.into(),
            }),
            ..UnwindSections::default()
        }
    }

    const X86_64: Followed = Followed {
        stack_pointer: gimli::X86_64::RSP,
        frame_pointer: gimli::X86_64::RBP,
        return_address: gimli::X86_64::RA,
    };

    fn vetted(expression: &[u8]) -> Result<Vetted, ElfError> {
        vet(&with_expression(expression), X86_64, &mut Vec::new())
    }

    /// The PLT's: breg7 8, breg16 0, lit15, and, lit11, ge, lit3, shl, plus
    const PLT: [u8; 11] = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];

    #[test]
    fn arithmetic_passes_and_a_loop_is_refused() {
        assert!(vetted(&PLT).is_ok());
        // skip -3: itself, for ever.
        let endless = [0x2f, 0xfd, 0xff];
        assert_eq!(vetted(&endless).unwrap_err(), ElfError::UnboundedUnwinding);
        // bra forward into the operand of a constant that holds such a skip.
        let hidden = [0x31, 0x28, 1, 0, 0x0c, 0x2f, 0xfd, 0xff, 0];
        assert_eq!(vetted(&hidden).unwrap_err(), ElfError::UnboundedUnwinding);
    }

    #[test]
    fn rules_that_framehop_cannot_follow_are_marked() {
        // breg6 -8, deref; breg10 0
        for intricate in [&[0x76, 0x78, 0x06][..], &[0x7a, 0]] {
            let vetted = vetted(intricate).unwrap();
            assert!(
                vetted.is_intricate(0x1000) && vetted.is_intricate(0x10ff),
                "{vetted:?}"
            );
            assert!(!vetted.is_intricate(0xfff) && !vetted.is_intricate(0x1100));
            assert_eq!(*vetted.index, [(0x1000, 24)]);
        }
        assert!(vetted(&PLT).unwrap().intricate.is_empty());
    }
}
