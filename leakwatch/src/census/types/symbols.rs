//! Symbols of constants in an ELF file. The file is hostile: it is read in bounded pieces and never mapped, and what
//! makes no sense has no symbols.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::read::{ReadCache, ReadRef};

use super::mangled::MANGLED_BYTES_MAX;
use crate::unwind::modules::open_regular;

type Header = elf::FileHeader64<Endianness>;

/// Where distributions install debug files; only the administrator writes there.
const SYSTEM_DEBUG: &str = "/usr/lib/debug/.build-id";
/// The largest piece of headers or names of sections, bytes.
const PIECE_BYTES_MAX: u64 = 8 << 20;
/// Linked files have some 40.
const SECTIONS_MAX: usize = 4096;
/// A build ID's section has a few dozen.
const NOTE_BYTES_MAX: u64 = 4096;
/// Tables of one file: it has two.
const TABLES_MAX: usize = 4;
const SYMBOL_BYTES: usize = size_of::<elf::Sym64<Endianness>>();
/// Symbols that are read at once.
const PIECE_SYMBOLS: usize = 1 << 15;
/// Symbols before an address that are looked at. Constants do not overlap; a few can be aliases.
const NEIGHBOURS_MAX: usize = 32;
/// Build IDs have 8 to 32 bytes.
const BUILD_ID_BYTES: Range<usize> = 2..65;

/// The symbol of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// As the file states it.
    pub address: u64,
    pub bytes: u32,
    /// In `.data.rel.ro`: it holds addresses. Otherwise in `.rodata`.
    pub relocated: bool,
    table: u8,
    name: u32,
}

/// The strings of a symbol table, in a file that is kept open.
#[derive(Debug)]
struct Strings {
    file: Arc<File>,
    range: Range<u64>,
}

/// The symbols of a file's constants.
#[derive(Debug)]
pub struct Symbols {
    segments: Vec<Segment>,
    /// Addresses of the sections with code.
    code: Vec<Range<u64>>,
    /// By address.
    symbols: Vec<Symbol>,
    strings: Vec<Strings>,
}

impl Symbols {
    /// At most `most` symbols: those of the file, or of its debug file where it was stripped. `None` where there is
    /// nothing to find. `looked_at` is how many symbols of any kind may be read yet.
    pub fn read(file: File, most: usize, looked_at: &mut u64) -> Option<Self> {
        let image = Image::read(&file)?;
        let mut found = Self {
            segments: image.segments.clone(),
            code: image.code.clone(),
            symbols: Vec::new(),
            strings: Vec::new(),
        };
        let debug = if image.has_symtab {
            None
        } else {
            image.build_id.as_deref().and_then(debug_file)
        };
        found.add(&image, file, most, looked_at);
        if let Some((image, file)) = debug {
            found.add(&image, file, most, looked_at);
        }
        found.symbols.sort_unstable();
        found.symbols.shrink_to_fit();
        (!found.symbols.is_empty()).then_some(found)
    }

    fn add(&mut self, image: &Image, file: File, most: usize, looked_at: &mut u64) {
        let file = Arc::new(file);
        for table in &image.tables {
            let Ok(index) = u8::try_from(self.strings.len()) else {
                return;
            };
            let _ = read_table(&file, &table.symbols, looked_at, |raw| {
                if self.symbols.len() < most
                    && let Some(symbol) = image.constant(raw, index)
                {
                    self.symbols.push(symbol);
                }
            });
            self.strings.push(Strings {
                file: Arc::clone(&file),
                range: table.strings.clone(),
            });
        }
    }

    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    pub fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Where the byte at an offset of the file has its address.
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|it| it.offsets.contains(&offset))
            .and_then(|it| it.address.checked_add(offset - it.offsets.start))
    }

    /// The symbols that hold an address or end there.
    pub fn around(&self, address: u64) -> impl Iterator<Item = &Symbol> {
        let after = self.symbols.partition_point(|it| it.address <= address);
        let (before, _) = self.symbols.split_at(after);
        before
            .iter()
            .rev()
            .take(NEIGHBOURS_MAX)
            .filter(move |it| address - it.address <= u64::from(it.bytes))
    }

    pub fn name(&self, symbol: &Symbol) -> Option<String> {
        let strings = self.strings.get(usize::from(symbol.table))?;
        let start = strings.range.start.checked_add(u64::from(symbol.name))?;
        let left = strings.range.end.checked_sub(start)?;
        let mut buffer = [0; MANGLED_BYTES_MAX];
        for most in [256, MANGLED_BYTES_MAX] {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            let bytes = buffer.get_mut(..most)?;
            let read = strings.file.read_at(bytes, start).ok()?;
            let bytes = bytes.get(..read)?;
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                return Some(std::str::from_utf8(bytes.get(..end)?).ok()?.to_owned());
            }
        }
        None
    }
}

/// A `PT_LOAD` program header.
#[derive(Clone, Debug)]
struct Segment {
    offsets: Range<u64>,
    address: u64,
}

/// Where a symbol table and its strings are in the file.
#[derive(Clone, Debug)]
struct Table {
    symbols: Range<u64>,
    strings: Range<u64>,
}

/// What the headers tell.
#[derive(Debug, Default)]
struct Image {
    segments: Vec<Segment>,
    /// By index of the section: whether it holds relocated constants, or others.
    constant: Vec<Option<bool>>,
    code: Vec<Range<u64>>,
    tables: Vec<Table>,
    has_symtab: bool,
    build_id: Option<Vec<u8>>,
}

impl Image {
    fn read(file: &File) -> Option<Self> {
        let cache = ReadCache::new(file);
        let data = Bounded(&cache);
        let header = Header::parse(data).ok()?;
        let endian = header
            .endian()
            .ok()
            .filter(|endian| *endian == Endianness::Little)?;
        let mut image = Self::default();
        for program in header.program_headers(endian, data).ok()? {
            if program.p_type(endian) == elf::PT_LOAD {
                let start = program.p_offset(endian);
                image.segments.push(Segment {
                    offsets: start..start.checked_add(program.p_filesz(endian))?,
                    address: program.p_vaddr(endian),
                });
            }
        }
        let sections = header.sections(endian, data).ok()?;
        if sections.len() > SECTIONS_MAX {
            return None;
        }
        for section in sections.iter() {
            let name = sections.section_name(endian, section).unwrap_or_default();
            let is = |prefix: &[u8]| {
                let rest = name.strip_prefix(prefix);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
            };
            image.constant.push(if is(b".data.rel.ro") {
                Some(true)
            } else if is(b".rodata") {
                Some(false)
            } else {
                None
            });
            if section.sh_flags(endian).0 & elf::SHF_EXECINSTR.0 != 0 {
                let start = section.sh_addr(endian);
                image
                    .code
                    .push(start..start.saturating_add(section.sh_size(endian)));
            }
            let kind = section.sh_type(endian);
            if (kind == elf::SHT_SYMTAB || kind == elf::SHT_DYNSYM) && image.tables.len() < TABLES_MAX {
                let range = |section: &elf::SectionHeader64<Endianness>| {
                    let start = section.sh_offset(endian);
                    Some(start..start.checked_add(section.sh_size(endian))?)
                };
                let strings = sections.section(object::SectionIndex(section.sh_link(endian) as usize));
                if let Some(symbols) = range(section)
                    && let Some(strings) = strings.ok().and_then(range)
                {
                    image.has_symtab |= kind == elf::SHT_SYMTAB;
                    image.tables.push(Table { symbols, strings });
                }
            }
            if name == b".note.gnu.build-id"
                && image.build_id.is_none()
                && section.sh_size(endian) <= NOTE_BYTES_MAX
                && let Ok(Some(mut notes)) = section.notes(endian, data)
            {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                        image.build_id = Some(note.desc().to_vec());
                    }
                }
            }
        }
        Some(image)
    }

    /// The symbol, if it is an object that can be a table of addresses.
    fn constant(&self, raw: &[u8; SYMBOL_BYTES], table: u8) -> Option<Symbol> {
        let [n0, n1, n2, n3, info, _, s0, s1, rest @ ..] = *raw;
        let (address, bytes) = rest.split_first_chunk::<8>()?;
        let (address, bytes) = (
            u64::from_le_bytes(*address),
            u64::from_le_bytes(*bytes.first_chunk()?),
        );
        let section = usize::from(u16::from_le_bytes([s0, s1]));
        let relocated = (*self.constant.get(section)?)?;
        (info & 0xf == elf::STT_OBJECT.0 && address.is_multiple_of(8) && bytes >= 8).then_some(Symbol {
            address,
            bytes: u32::try_from(bytes).ok()?,
            relocated,
            table,
            name: u32::from_le_bytes([n0, n1, n2, n3]),
        })
    }
}

/// Hands on the symbols of a table, piece by piece.
fn read_table(
    file: &File,
    range: &Range<u64>,
    looked_at: &mut u64,
    mut symbol: impl FnMut(&[u8; SYMBOL_BYTES]),
) -> std::io::Result<()> {
    let mut left = (range.end.saturating_sub(range.start) / SYMBOL_BYTES as u64).min(*looked_at);
    *looked_at -= left;
    let mut at = range.start;
    let mut piece = Vec::new();
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_SYMBOLS);
        piece.resize(count * SYMBOL_BYTES, 0);
        file.read_exact_at(&mut piece, at)?;
        let (symbols, _) = piece.as_chunks::<SYMBOL_BYTES>();
        symbols.iter().for_each(&mut symbol);
        at = at.saturating_add(piece.len() as u64);
        left -= count as u64;
    }
    Ok(())
}

/// The separate debug file of a stripped file, if the system has it.
fn debug_file(build_id: &[u8]) -> Option<(Image, File)> {
    use std::fmt::Write as _;
    let (first, rest) = build_id
        .split_first()
        .filter(|_| BUILD_ID_BYTES.contains(&build_id.len()))?;
    let mut name = String::new();
    for byte in rest {
        let _ = write!(name, "{byte:02x}");
    }
    let path = PathBuf::from(format!("{SYSTEM_DEBUG}/{first:02x}/{name}.debug"));
    let (file, _) = open_regular(&path, |_| true).ok()?;
    let image = Image::read(&file)?;
    (image.build_id.as_deref() == Some(build_id)).then_some((image, file))
}

/// Refuses single reads of more than [`PIECE_BYTES_MAX`]: sizes in the headers are the file's own claim.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a ReadCache<&'a File>);

impl<'a> ReadRef<'a> for Bounded<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > PIECE_BYTES_MAX {
            return Err(());
        }
        self.0.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        self.0.read_bytes_at_until(range, delimiter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_bytes(bytes: &[u8]) -> Option<Symbols> {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Symbols::read(file, 1 << 20, &mut (1 << 20))
    }

    fn own() -> Vec<u8> {
        // The C library, or whatever comes first: small enough to be damaged many times.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .split_ascii_whitespace()
            .find(|word| word.starts_with('/') && word.contains("libgcc_s"))
            .unwrap_or("/proc/self/exe");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_symbol_of_this_very_program() {
        let file = File::open("/proc/self/exe").unwrap();
        let symbols = Symbols::read(file, 1 << 20, &mut (1 << 20)).unwrap();
        assert!(symbols.len() > 10);
        assert!(symbols.symbols.is_sorted());
        let some = symbols.symbols.iter().find(|it| it.relocated).unwrap();
        assert!(symbols.around(some.address).any(|it| it == some));
        assert!(symbols.around(some.address + 1).any(|it| it == some));
        let name = symbols.name(some).unwrap();
        assert!(!name.is_empty());
        assert!(symbols.around(0).next().is_none());
        assert!(symbols.address(u64::MAX).is_none());
    }

    #[test]
    fn no_more_than_is_left() {
        let read = |most, mut looked_at| {
            Symbols::read(File::open("/proc/self/exe").unwrap(), most, &mut looked_at).map(|it| it.len())
        };
        assert_eq!(read(5, 1 << 20), Some(5));
        assert_eq!(read(0, 1 << 20), None);
        assert_eq!(read(5, 0), None);
    }

    #[test]
    fn what_is_no_program_has_none() {
        for bytes in [&b""[..], b"\x7fELF", &[0xff; 4096], b"#!/bin/sh\n"] {
            assert!(of_bytes(bytes).is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Headers of the file and of the sections, where every field is a claim.
        #[test]
        fn damaged_files(damage in proptest::collection::vec((any::<bool>(), 0_usize..2600, any::<u8>()), 1..20), cut in any::<bool>()) {
            let mut bytes = own();
            let sections = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into().unwrap())).unwrap();
            for (headers, at, value) in damage {
                let at = if headers { at % 64 } else { sections + at };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if cut {
                bytes.truncate(sections + 300);
            }
            if let Some(symbols) = of_bytes(&bytes) {
                for symbol in symbols.symbols.iter().take(100) {
                    let _ = (symbols.name(symbol), symbols.address(symbol.address));
                    let _ = symbols.around(symbol.address).count();
                }
            }
        }
    }
}
