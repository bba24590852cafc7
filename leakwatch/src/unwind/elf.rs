//! What unwinding and naming need of an ELF file: segments, build ID and the sections with unwind information.
//!
//! Every byte is hostile: sizes are checked against the file and against [`SECTION_BYTES_MAX`] before anything is
//! read, and a file that makes no sense is an [`ElfError`], not a panic.

use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use object::Endianness;
use object::elf;
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

use super::registers::followed;
use super::vet::{Vetted, vet};

type Header = elf::FileHeader64<Endianness>;

/// A section larger than this is refused, bytes. The largest `.eh_frame` met in the field (a browser) has some 20 MiB.
pub const SECTION_BYTES_MAX: u64 = 256 << 20;
/// Notes are read whole; a build ID's segment has a few hundred bytes.
const NOTE_BYTES_MAX: u64 = 1 << 20;
/// Build IDs have 8 to 32 bytes.
const BUILD_ID_BYTES_MAX: usize = 64;
/// What lies between two functions is shorter: they begin at multiples of 16.
const PADDING_END: u64 = 16;
const SEGMENTS_MAX: usize = 4096;
const SECTIONS_MAX: usize = 1 << 18;
/// Addresses from here on belong to no user space; sums of two such addresses still fit in 64 bits.
const ADDRESS_END: u64 = 1 << 62;

/// Why a file cannot be used to unwind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum ElfError {
    #[error("not a 64-bit ELF file, or damaged")]
    Damaged,
    #[error("made for another machine")]
    ForeignMachine,
    #[error("no program headers")]
    NoSegments,
    #[error("more headers than any real file has")]
    TooManyHeaders,
    #[error("a section larger than 256 MiB")]
    SectionTooLarge,
    #[error("neither .eh_frame nor .debug_frame")]
    NoUnwindSections,
    #[error("unwind information that could take for ever")]
    UnboundedUnwinding,
}

/// A `PT_LOAD` program header: file range and address range, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub file_bytes: u64,
    pub address: u64,
    pub memory_bytes: u64,
    pub executable: bool,
}

/// A section's address range as the file states it, and its content.
#[derive(Clone, Debug)]
pub struct Section {
    pub addresses: Range<u64>,
    pub bytes: Arc<[u8]>,
}

/// The sections framehop asks for.
#[derive(Clone, Debug, Default)]
pub struct UnwindSections {
    pub text: Option<Range<u64>>,
    pub got: Option<Range<u64>>,
    pub eh_frame: Option<Section>,
    pub eh_frame_hdr: Option<Section>,
    pub debug_frame: Option<Section>,
    /// What [`read`] has found in them.
    pub vetted: Vetted,
}

impl UnwindSections {
    /// Bytes held in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [&self.eh_frame, &self.eh_frame_hdr, &self.debug_frame]
            .into_iter()
            .flatten()
            .fold(self.vetted.bytes(), |sum, section| {
                sum + section.bytes.len() as u64
            })
    }
}

/// What was read of a file.
#[derive(Clone, Debug)]
pub struct Image {
    pub segments: Vec<Segment>,
    /// Lower-case hex.
    pub build_id: Option<Arc<str>>,
    /// The file name in `.gnu_debuglink`, without directories; any bytes but NUL and `/`.
    pub debug_link: Option<Vec<u8>>,
    /// The file names another file by path to hold part of its debug information (`.gnu_debugaltlink`, `.debug_sup`).
    pub names_other_file: bool,
    /// Where execution begins; 0 for a library.
    pub entry: u64,
    /// Code of a compiler that keeps frame pointers everywhere: Go's.
    pub keeps_frame_pointers: bool,
    /// Code that the unwind information does not cover and that keeps no frame pointers: addresses, sorted. Only where
    /// instructions can be read instead (`instructions`).
    pub bare: Arc<[Range<u64>]>,
    /// The content to unwind by, or why there is none.
    pub unwind: Result<UnwindSections, ElfError>,
}

impl Image {
    /// The machine's own word for "address in memory less address in file" when `file_offset` of this file is mapped
    /// at `start`; `None` where no segment holds that part of the file. May wrap: a non-PIE file has 0.
    ///
    /// Two segments can share a page of the file (the end of one, the start of the next); the mapping is executable,
    /// so an executable segment is preferred.
    #[must_use]
    pub fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        let holds = |segment: &&Segment| {
            let first = segment.offset & !(PAGE - 1);
            let end = segment.offset.saturating_add(segment.file_bytes);
            (first..end).contains(&file_offset)
        };
        let segment = self
            .segments
            .iter()
            .filter(holds)
            .max_by_key(|segment| segment.executable)?;
        Some(
            start
                .wrapping_sub(file_offset)
                .wrapping_add(segment.offset)
                .wrapping_sub(segment.address),
        )
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let unwind = self.unwind.as_ref().map_or(0, UnwindSections::bytes);
        unwind.saturating_add(size_of_val(&*self.bare) as u64)
    }

    /// Whether code at this address is [`Self::bare`].
    #[must_use]
    pub fn is_bare(&self, address: u64) -> bool {
        let after = self.bare.partition_point(|it| it.start <= address);
        let candidate = after.checked_sub(1).and_then(|it| self.bare.get(it));
        candidate.is_some_and(|it| it.contains(&address))
    }

    /// Where the file holds the code at this address, and how many bytes from there on.
    #[must_use]
    pub fn code_at(&self, address: u64) -> Option<(u64, u64)> {
        self.segments
            .iter()
            .filter(|it| it.executable)
            .find_map(|segment| {
                let skipped = address.checked_sub(segment.address)?;
                let length = segment.file_bytes.checked_sub(skipped).filter(|it| *it > 0)?;
                Some((segment.offset.checked_add(skipped)?, length))
            })
    }

    /// The least address of the file, page-aligned: what framehop counts its 32-bit relative addresses from.
    #[must_use]
    pub fn base(&self) -> u64 {
        let least = self.segments.iter().map(|segment| segment.address).min();
        least.unwrap_or(0) & !4095
    }
}

/// Reads an ELF file of this machine's word size. The sections are copied: the file may change or vanish afterwards.
///
/// # Errors
/// When the file has no usable headers. A file with headers and no usable unwind information is an [`Image`] whose
/// `unwind` says why.
pub fn read<'data, R: ReadRef<'data>>(data: R, machine: elf::Machine) -> Result<Image, ElfError> {
    let header = Header::parse(data).map_err(|_| ElfError::Damaged)?;
    let endian = header.endian().map_err(|_| ElfError::Damaged)?;
    if endian != Endianness::Little || header.e_machine(endian) != machine {
        return Err(ElfError::ForeignMachine);
    }
    let programs = header
        .program_headers(endian, data)
        .map_err(|_| ElfError::Damaged)?;
    if programs.is_empty() {
        return Err(ElfError::NoSegments);
    }
    if programs.len() > SEGMENTS_MAX {
        return Err(ElfError::TooManyHeaders);
    }
    let mut image = Image {
        segments: Vec::new(),
        build_id: None,
        debug_link: None,
        names_other_file: false,
        entry: header.e_entry(endian),
        keeps_frame_pointers: false,
        bare: Arc::default(),
        unwind: Ok(UnwindSections::default()),
    };
    let mut hdr_segment = None;
    for program in programs {
        let segment = Segment {
            offset: program.p_offset(endian),
            file_bytes: program.p_filesz(endian),
            address: program.p_vaddr(endian),
            memory_bytes: program.p_memsz(endian),
            executable: program.p_flags(endian).0 & elf::PF_X.0 != 0,
        };
        match program.p_type(endian) {
            elf::PT_LOAD if segment.address < ADDRESS_END => image.segments.push(segment),
            elf::PT_GNU_EH_FRAME => hdr_segment = Some(segment),
            elf::PT_NOTE if image.build_id.is_none() && segment.file_bytes <= NOTE_BYTES_MAX => {
                if let Ok(Some(mut notes)) = program.notes(endian, data) {
                    image.build_id = build_id(endian, || notes.next().ok().flatten());
                }
            }
            _ => {}
        }
    }
    if image.segments.is_empty() {
        return Err(ElfError::NoSegments);
    }
    let mut sections = UnwindSections::default();
    let by_headers = read_sections(header, endian, data, &mut image, &mut sections);
    let by_segment = match hdr_segment {
        Some(hdr) if sections.eh_frame.is_none() => {
            read_by_segment(data, &image.segments, hdr, &mut sections)
        }
        _ => Ok(()),
    };
    if sections
        .eh_frame_hdr
        .as_ref()
        .is_some_and(|hdr| !is_searchable(&hdr.bytes))
    {
        // framehop trusts a header's table blindly; without the header it indexes .eh_frame itself.
        sections.eh_frame_hdr = None;
    }
    let mut covered = Vec::new();
    image.unwind = if sections.eh_frame.is_some() || sections.debug_frame.is_some() {
        // gimli subtracts hostile pointers; built with overflow checks, that panics.
        catch_unwind(AssertUnwindSafe(|| {
            vet(&sections, followed(machine), &mut covered)
        }))
        .unwrap_or(Err(ElfError::Damaged))
        .map(|vetted| UnwindSections { vetted, ..sections })
    } else {
        Err(by_headers
            .and(by_segment)
            .err()
            .unwrap_or(ElfError::NoUnwindSections))
    };
    let readable = matches!(image.unwind, Ok(_) | Err(ElfError::NoUnwindSections));
    if readable && machine == elf::EM_X86_64 && !image.keeps_frame_pointers {
        image.bare = uncovered(&image.segments, covered).into();
    }
    Ok(image)
}

/// What the segments hold of code beside what is covered.
fn uncovered(segments: &[Segment], mut covered: Vec<Range<u64>>) -> Vec<Range<u64>> {
    covered.sort_unstable_by_key(|range| range.start);
    let mut bare = Vec::new();
    let mut keep = |range: Range<u64>| {
        if range.end.saturating_sub(range.start) >= PADDING_END {
            bare.push(range);
        }
    };
    let mut executable: Vec<&Segment> = segments.iter().filter(|it| it.executable).collect();
    executable.sort_unstable_by_key(|it| it.address);
    let mut from = 0;
    for segment in executable {
        let end = segment.address.saturating_add(segment.file_bytes);
        from = segment.address.max(from);
        let first = covered.partition_point(|range| range.start < from);
        // The one before may reach into the segment.
        for range in covered.iter().skip(first.saturating_sub(1)) {
            if range.start >= end {
                break;
            }
            keep(from..range.start);
            from = from.max(range.end);
        }
        keep(from..end);
        from = from.max(end);
    }
    bare
}

fn build_id<'data>(
    endian: Endianness,
    mut next: impl FnMut() -> Option<object::read::elf::Note<'data, Header>>,
) -> Option<Arc<str>> {
    while let Some(note) = next() {
        let id = note.desc();
        if note.name() == elf::ELF_NOTE_GNU
            && note.n_type(endian) == elf::NT_GNU_BUILD_ID
            && (1..=BUILD_ID_BYTES_MAX).contains(&id.len())
        {
            let mut hex = String::with_capacity(id.len() * 2);
            for byte in id {
                let _ = write!(hex, "{byte:02x}");
            }
            return Some(hex.into());
        }
    }
    None
}

fn read_bytes<'data, R: ReadRef<'data>>(data: R, offset: u64, length: u64) -> Result<Arc<[u8]>, ElfError> {
    if length > SECTION_BYTES_MAX {
        return Err(ElfError::SectionTooLarge);
    }
    let bytes = data
        .read_bytes_at(offset, length)
        .map_err(|()| ElfError::Damaged)?;
    Ok(bytes.into())
}

/// Fills in what the section headers name. A file without them (`sstrip`) leaves everything empty.
fn read_sections<'data, R: ReadRef<'data>>(
    header: &Header,
    endian: Endianness,
    data: R,
    image: &mut Image,
    into: &mut UnwindSections,
) -> Result<(), ElfError> {
    let headers = header
        .section_headers(endian, data)
        .map_err(|_| ElfError::Damaged)?;
    if headers.len() > SECTIONS_MAX {
        return Err(ElfError::TooManyHeaders);
    }
    if headers.is_empty() {
        return Ok(());
    }
    let names = header
        .section_strings(endian, data, headers)
        .map_err(|_| ElfError::Damaged)?;
    let mut outcome = Ok(());
    for section in headers {
        let Ok(name) = section.name(endian, names) else {
            continue;
        };
        let start = section.sh_addr(endian);
        let addresses = start..start.saturating_add(section.sh_size(endian));
        let mut content = || {
            let compressed = section.sh_flags(endian).0 & elf::SHF_COMPRESSED.0 != 0;
            if section.sh_type(endian) == elf::SHT_NOBITS || compressed || start >= ADDRESS_END {
                return None;
            }
            match read_bytes(data, section.sh_offset(endian), section.sh_size(endian)) {
                Ok(bytes) => Some(Section {
                    addresses: addresses.clone(),
                    bytes,
                }),
                Err(error) => {
                    outcome = Err(error);
                    None
                }
            }
        };
        match name {
            b".text" => into.text = Some(addresses),
            b".got" => into.got = Some(addresses),
            b".eh_frame" => into.eh_frame = content(),
            b".eh_frame_hdr" => into.eh_frame_hdr = content(),
            b".debug_frame" => into.debug_frame = content(),
            b".gnu_debuglink" if section.sh_size(endian) <= NOTE_BYTES_MAX => {
                image.debug_link = content().and_then(|section| debug_link(&section.bytes));
            }
            b".gnu_debugaltlink" | b".debug_sup" => image.names_other_file = true,
            b".gopclntab" | b".data.rel.ro.gopclntab" => image.keeps_frame_pointers = true,
            b".note.gnu.build-id"
                if image.build_id.is_none() && section.sh_size(endian) <= NOTE_BYTES_MAX =>
            {
                if let Ok(Some(mut notes)) = section.notes(endian, data) {
                    image.build_id = build_id(endian, || notes.next().ok().flatten());
                }
            }
            _ => {}
        }
    }
    if into.eh_frame.is_some() {
        into.debug_frame = None;
    } else {
        into.eh_frame_hdr = None;
    }
    outcome
}

fn debug_link(section: &[u8]) -> Option<Vec<u8>> {
    let name = section.split(|byte| *byte == 0).next()?;
    let plain = !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/');
    plain.then(|| name.to_vec())
}

/// Finds `.eh_frame` through `PT_GNU_EH_FRAME`, which survives the loss of the section headers: the program headers
/// are what the loader itself needs.
fn read_by_segment<'data, R: ReadRef<'data>>(
    data: R,
    segments: &[Segment],
    hdr: Segment,
    into: &mut UnwindSections,
) -> Result<(), ElfError> {
    if hdr.address >= ADDRESS_END {
        return Err(ElfError::Damaged);
    }
    let bytes = read_bytes(data, hdr.offset, hdr.file_bytes)?;
    let start = eh_frame_address(&bytes, hdr.address).ok_or(ElfError::Damaged)?;
    let holder = segments
        .iter()
        .find(|segment| {
            (segment.address..segment.address.saturating_add(segment.file_bytes)).contains(&start)
        })
        .ok_or(ElfError::Damaged)?;
    // Its length is not recorded; it ends with a zero word somewhere before the end of its segment.
    let skipped = start - holder.address;
    let length = holder.file_bytes - skipped;
    let offset = holder.offset.checked_add(skipped).ok_or(ElfError::Damaged)?;
    into.eh_frame = Some(Section {
        addresses: start..start.saturating_add(length),
        bytes: read_bytes(data, offset, length)?,
    });
    into.eh_frame_hdr = Some(Section {
        addresses: hdr.address..hdr.address.saturating_add(hdr.file_bytes),
        bytes,
    });
    Ok(())
}

/// Pointer encodings of the LSB, "DWARF Exception Header Encoding".
mod encoding {
    pub const SDATA4: u8 = 0x0b;
    pub const UDATA4: u8 = 0x03;
    pub const UDATA8: u8 = 0x04;
    pub const SDATA8: u8 = 0x0c;
    pub const ABSPTR: u8 = 0x00;
    pub const PCREL: u8 = 0x10;
    pub const DATAREL: u8 = 0x30;
    pub const OMIT: u8 = 0xff;
}

/// `eh_frame_ptr`, the third field of `.eh_frame_hdr`: version, three encodings, then the pointer.
fn eh_frame_address(hdr: &[u8], hdr_address: u64) -> Option<u64> {
    let (&[version, pointer_encoding, _, _], rest) = hdr.split_first_chunk::<4>()?;
    if version != 1 {
        return None;
    }
    let value = match pointer_encoding & 0x0f {
        encoding::SDATA4 => i64::from(i32::from_le_bytes(*rest.first_chunk()?)).cast_unsigned(),
        encoding::UDATA4 => u64::from(u32::from_le_bytes(*rest.first_chunk()?)),
        encoding::ABSPTR | encoding::UDATA8 | encoding::SDATA8 => u64::from_le_bytes(*rest.first_chunk()?),
        _ => return None,
    };
    let base = match pointer_encoding & 0xf0 {
        0 => 0,
        encoding::PCREL => hdr_address.wrapping_add(4),
        encoding::DATAREL => hdr_address,
        _ => return None,
    };
    let address = base.wrapping_add(value);
    (address < ADDRESS_END).then_some(address)
}

/// Whether the header has the binary search table that framehop needs.
fn is_searchable(hdr: &[u8]) -> bool {
    matches!(hdr, [1, _, count, table, ..] if *count != encoding::OMIT && *table == encoding::DATAREL | encoding::SDATA4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_points_at_eh_frame() {
        // readelf -x .eh_frame_hdr of a PIE at 0x2010: version 1, pcrel sdata4, udata4, datarel sdata4,
        // pointer 0x3c from the pointer's own address (0x2014).
        let hdr = [1, 0x1b, 0x03, 0x3b, 0x3c, 0, 0, 0];
        assert_eq!(eh_frame_address(&hdr, 0x2010), Some(0x2050));
        assert!(is_searchable(&hdr));
        assert_eq!(eh_frame_address(&hdr[..6], 0x2010), None);
        assert_eq!(eh_frame_address(&[2, 0x1b, 3, 0x3b, 0, 0, 0, 0], 0), None);
        assert!(!is_searchable(&[1, 0x1b, 0xff, 0xff]));
    }

    #[test]
    fn bias_prefers_the_executable_segment_of_a_shared_page() {
        let segment = |offset, address, executable| Segment {
            offset,
            file_bytes: 0x800,
            address,
            memory_bytes: 0x800,
            executable,
        };
        let image = Image {
            segments: vec![
                segment(0x0, 0x0, false),
                segment(0x800, 0x1800, true),
                segment(0x1000, 0x3000, false),
            ],
            build_id: None,
            debug_link: None,
            names_other_file: false,
            entry: 0,
            keeps_frame_pointers: false,
            bare: Arc::default(),
            unwind: Err(ElfError::NoUnwindSections),
        };
        // Page 0 of the file holds both the first and the second segment; the code is at file 0x800 = address 0x1800,
        // and the page is mapped at 0x7f00_0000_1000.
        assert_eq!(
            image.bias(0x7f00_0000_1000, 0),
            Some(0x7f00_0000_1000_u64 + 0x800 - 0x1800)
        );
        assert_eq!(image.bias(0x7f00_0000_1000, 0x9000), None);
        assert_eq!(image.base(), 0);
    }

    #[test]
    fn debug_link_is_a_plain_name() {
        assert_eq!(debug_link(b"a.debug\0\0\0\0\0"), Some(b"a.debug".to_vec()));
        assert_eq!(debug_link(b"../../etc/x\0"), None);
        assert_eq!(debug_link(b"..\0"), None);
        assert_eq!(debug_link(b"\0"), None);
    }
}
