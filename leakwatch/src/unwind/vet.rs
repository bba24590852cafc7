//! Unwind information that would not end.
//!
//! A rule for the stack may be a little program (a DWARF expression), and such a program may branch. framehop runs it
//! without a bound, so a file made for the purpose could hold leakwatch for ever. No compiler or linker emits a branch
//! there (the procedure linkage table's rule, the usual case, is straight arithmetic), so a file with one is refused.

use gimli::{
    BaseAddresses, CallFrameInstruction, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, Encoding, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Operation, UnwindExpression, UnwindSection,
};

use super::elf::{ElfError, UnwindSections};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// An entry is run from its start for each new address: a larger one than this would make that slow. Bytes; the
/// largest met in the field have some 10 KiB.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Looks at every entry that framehop can come to use: those of the search table where there is one, else all.
pub fn vet(sections: &UnwindSections) -> Result<(), ElfError> {
    if let Some(eh_frame) = &sections.eh_frame {
        let mut section = EhFrame::new(&eh_frame.bytes, LittleEndian);
        section.set_address_size(8);
        // What framehop knows of the file's addresses, so that both read the same pointers.
        let start = |range: Option<&std::ops::Range<u64>>| range.map_or(0, |it| it.start);
        let hdr = sections.eh_frame_hdr.as_ref();
        let bases = BaseAddresses::default()
            .set_eh_frame(eh_frame.addresses.start)
            .set_eh_frame_hdr(start(hdr.map(|it| &it.addresses)))
            .set_text(start(sections.text.as_ref()))
            .set_got(start(sections.got.as_ref()));
        match hdr {
            Some(hdr) => vet_table(&section, &hdr.bytes, &bases, eh_frame.bytes.len()),
            None => vet_all(&section, &bases),
        }
    } else if let Some(debug_frame) = &sections.debug_frame {
        let mut section = DebugFrame::new(&debug_frame.bytes, LittleEndian);
        section.set_address_size(8);
        vet_all(&section, &BaseAddresses::default())
    } else {
        Ok(())
    }
}

/// An entry that cannot be parsed ends nothing here: framehop cannot use it either.
fn vet_table(
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
            vet_entry(section, bases, &entry)?;
        }
    }
    Ok(())
}

/// framehop uses no entry of a section in which one cannot be parsed.
fn vet_all<'a, S>(section: &S, bases: &BaseAddresses) -> Result<(), ElfError>
where
    S: UnwindSection<Slice<'a>>,
{
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(entry) = partial.parse(S::cie_from_offset)
        {
            vet_entry(section, bases, &entry)?;
        }
    }
    Ok(())
}

fn vet_entry<'a, S>(
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
        }
    }
    Ok(())
}

fn branches<'a, S>(section: &S, expression: &UnwindExpression<usize>, encoding: Encoding) -> bool
where
    S: UnwindSection<Slice<'a>>,
{
    let Ok(expression) = expression.get(section) else {
        return false;
    };
    let mut operations = expression.0;
    while let Ok(operation) = Operation::parse(&mut operations, encoding) {
        if matches!(operation, Operation::Bra { .. } | Operation::Skip { .. }) {
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

    #[test]
    fn arithmetic_passes_and_a_loop_is_refused() {
        // The PLT's: breg7 8, breg16 0, lit15, and, lit11, ge, lit3, shl, plus
        let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(vet(&with_expression(&plt)), Ok(()));
        // skip -3: itself, for ever.
        let endless = [0x2f, 0xfd, 0xff];
        assert_eq!(vet(&with_expression(&endless)), Err(ElfError::UnboundedUnwinding));
        // bra forward into the operand of a constant that holds such a skip.
        let hidden = [0x31, 0x28, 1, 0, 0x0c, 0x2f, 0xfd, 0xff, 0];
        assert_eq!(vet(&with_expression(&hidden)), Err(ElfError::UnboundedUnwinding));
    }
}
