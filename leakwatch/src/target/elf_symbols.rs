//! Where functions begin in a file of the target, by name. The file is hostile, see [`super::elf_names`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use object::Endianness;
use object::elf;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader, Sym};

use super::elf_names::Bounded;

/// A function of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: &'static str,
    /// Where a probe goes, in the file, bytes: its first instruction, or the second where the first only marks that it
    /// may be jumped to.
    pub offset: u64,
    /// The kernel does not emulate the instruction there.
    pub stepped: bool,
}

/// Those that were looked for and are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// That other files are linked with.
    pub dynamic: Vec<Symbol>,
    /// That are named for debuggers.
    pub others: Vec<Symbol>,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: elf::Machine = elf::EM_AARCH64;

/// Looks the names up.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`] for a file of another machine or word size.
pub fn read(file: &File, wanted: &[&'static str]) -> io::Result<Functions> {
    let other = || io::Error::from(io::ErrorKind::Unsupported);
    let invalid = |error: object::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut identification = [0u8; 5];
    file.read_exact_at(&mut identification, 0)?;
    if identification.starts_with(b"\x7fELF") && !identification.ends_with(&[elf::ELFCLASS64.0]) {
        return Err(other());
    }
    let cache = ReadCache::new(file.try_clone()?);
    let data = Bounded(&cache);
    let header = elf::FileHeader64::<Endianness>::parse(data).map_err(invalid)?;
    let endian = header.endian().map_err(invalid)?;
    if header.e_machine(endian) != MACHINE {
        return Err(other());
    }
    let segments = header.program_headers(endian, data).map_err(invalid)?;
    let in_file = |address: u64| {
        segments.iter().find_map(|segment| {
            let code = segment.p_type(endian) == elf::PT_LOAD && segment.p_flags(endian).contains(elf::PF_X);
            let inside = address.checked_sub(segment.p_vaddr(endian))?;
            (code && inside < segment.p_filesz(endian))
                .then(|| segment.p_offset(endian).checked_add(inside))
                .flatten()
        })
    };
    let sections = header.sections(endian, data).map_err(invalid)?;
    let mut functions = Functions::default();
    for (kind, list) in [
        (elf::SHT_DYNSYM, &mut functions.dynamic),
        (elf::SHT_SYMTAB, &mut functions.others),
    ] {
        let symbols = sections.symbols(endian, data, kind).map_err(invalid)?;
        for symbol in symbols.iter() {
            if symbol.st_type() != elf::STT_FUNC || symbol.st_shndx(endian) == elf::SHN_UNDEF {
                continue;
            }
            let Ok(name) = symbols.symbol_name(endian, symbol) else {
                continue;
            };
            if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name)
                && let Some(offset) = in_file(symbol.st_value(endian))
            {
                let (offset, stepped) = place(file, offset);
                list.push(Symbol {
                    name,
                    offset,
                    stepped,
                });
            }
        }
    }
    Ok(functions)
}

/// Where to put the probe of a function that begins at `offset`, and whether the kernel must run what is there out of
/// line.
#[cfg(target_arch = "x86_64")]
fn place(file: &File, offset: u64) -> (u64, bool) {
    /// It does nothing where there is no indirect jump, and older kernels do not emulate it. The stack is the same behind.
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let mut code = [0u8; 6];
    if file.read_exact_at(&mut code, offset).is_err() {
        return (offset, true);
    }
    let (offset, code) = match code.strip_prefix(&ENDBR64) {
        Some(rest) => (offset + 4, rest),
        None => (offset, code.as_slice()),
    };
    // `push`, with and without the prefix of the newer registers; `nop`; a jump.
    let emulated = matches!(
        code,
        [0x50..=0x57 | 0x90 | 0xeb | 0xe9, ..] | [0x41, 0x50..=0x57, ..]
    );
    (offset, !emulated)
}

/// On aarch64 the kernel emulates hints and jumps.
#[cfg(target_arch = "aarch64")]
fn place(file: &File, offset: u64) -> (u64, bool) {
    let mut code = [0u8; 4];
    if file.read_exact_at(&mut code, offset).is_err() {
        return (offset, true);
    }
    let code = u32::from_le_bytes(code);
    let (nop, jump) = (code == 0xd503_201f, code >> 26 == 0b00_0101);
    (offset, !(nop || jump))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_executable_defines_main_and_no_malloc() {
        let file = File::open("/proc/self/exe").unwrap();
        let found = read(&file, &["malloc", "main"]).unwrap();
        assert!(found.dynamic.iter().all(|symbol| symbol.name != "malloc"));
        assert!(found.others.iter().any(|symbol| symbol.name == "main"));
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exe");
        for (bytes, kind) in [
            (&b""[..], io::ErrorKind::UnexpectedEof),
            (b"#!/bin/sh\n", io::ErrorKind::InvalidData),
            (b"\x7fELF\x02rest", io::ErrorKind::InvalidData),
            (b"\x7fELF\x01rest", io::ErrorKind::Unsupported),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let refused = read(&File::open(&path).unwrap(), &["malloc"]).unwrap_err();
            assert_eq!(refused.kind(), kind, "{bytes:?}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_mark_for_jumps_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        for (code, expected) in [
            (&[0x41, 0x54, 0x55, 0x53, 0x48, 0x83][..], (0, false)),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48], (4, false)),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89], (4, true)),
            (&[0x80, 0x3d, 0x71, 0x0e, 0x14, 0x00], (0, true)),
            (&[0x55], (0, true)),
        ] {
            std::fs::write(&path, code).unwrap();
            assert_eq!(place(&File::open(&path).unwrap(), 0), expected, "{code:x?}");
        }
    }
}
