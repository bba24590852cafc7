//! Where functions begin, by the unwind information: stripping takes the names and leaves that.
//!
//! An entry (FDE) covers one function. What a compiler split off as cold has an entry of its own, all stubs of the
//! procedure linkage table share one, and code written in assembly may have none.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gimli::{BaseAddresses, CieOrFde, DebugFrame, EhFrame, LittleEndian, Reader, UnwindSection};

use super::elf::UnwindSections;
use super::modules::Module;
use super::vet::{Slice, bases};

/// Functions of a module that are told apart: 64 MiB. A browser has some 400,000.
const FUNCTIONS_MAX: usize = 4 << 20;

/// The functions of a module. Read from the entries themselves, not by the search table: not every file has one, and a
/// hostile one need not agree with them.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    /// ELF virtual addresses, sorted by their start.
    ranges: Vec<Range<u64>>,
}

impl Functions {
    /// Reads all entries, some 50 ns each. Without usable unwind information there are no functions; of damaged
    /// information those before the damage.
    #[must_use]
    pub fn of(module: &Module) -> Self {
        module.sections().map_or_else(Self::default, Self::read)
    }

    fn read(sections: &UnwindSections) -> Self {
        let mut ranges = Vec::new();
        // As in `elf`: gimli subtracts hostile pointers.
        let _ = catch_unwind(AssertUnwindSafe(|| collect(sections, &mut ranges)));
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        Self { ranges }
    }

    /// The first address of the function that this address lies in; both are ELF virtual addresses, as
    /// [`super::Frame::Module`] has them. `None` where no entry covers it.
    #[must_use]
    pub fn start_of(&self, address: u64) -> Option<u64> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        range.contains(&address).then_some(range.start)
    }
}

fn collect(sections: &UnwindSections, into: &mut Vec<Range<u64>>) {
    let bases = bases(sections);
    if let Some(eh_frame) = &sections.eh_frame {
        let mut section = EhFrame::new(&eh_frame.bytes, LittleEndian);
        section.set_address_size(8);
        collect_all(&section, &bases, into);
    } else if let Some(debug_frame) = &sections.debug_frame {
        let mut section = DebugFrame::new(&debug_frame.bytes, LittleEndian);
        section.set_address_size(8);
        collect_all(&section, &bases, into);
    }
}

fn collect_all<'a, S>(section: &S, bases: &BaseAddresses, into: &mut Vec<Range<u64>>)
where
    S: UnwindSection<Slice<'a>>,
{
    // The entry that others refer to (CIE) is read again for each of them. Honest ones have 20 to 30 bytes, fewer than
    // what refers to them; a huge one would make the time grow with the square of the section.
    let cie_bytes_max = section.section().len().saturating_mul(4);
    let mut cie_bytes = 0_usize;
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(entry) = partial.parse(S::cie_from_offset) else {
            return;
        };
        cie_bytes = cie_bytes.saturating_add(entry.cie().entry_len());
        if cie_bytes > cie_bytes_max || into.len() >= FUNCTIONS_MAX {
            return;
        }
        // Code that the linker left out has entries of no length.
        let range = entry.initial_address()..entry.end_address();
        if !range.is_empty() {
            into.push(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use object::{Object as _, ObjectSymbol as _};

    use super::super::elf::{self, Section};
    use super::super::live_tests::compiled;
    use super::super::registers::{Host, Machine as _};
    use super::*;

    fn functions(file: &[u8]) -> Functions {
        Functions::read(&elf::read(file, Host::ELF).unwrap().unwind.unwrap())
    }

    /// Start and size of the functions that the symbol table names.
    fn symbols(file: &[u8]) -> BTreeMap<String, (u64, u64)> {
        let file = object::File::parse(file).unwrap();
        file.symbols()
            .chain(file.dynamic_symbols())
            .filter(|it| it.kind() == object::SymbolKind::Text && it.is_definition() && it.size() > 0)
            .map(|it| (it.name().unwrap().to_owned(), (it.address(), it.size())))
            .collect()
    }

    /// Of a large program of Rust and C, and of the C library.
    #[test]
    fn entries_agree_with_symbols() {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .find_map(|line| Some(line.get(line.find('/')?..)?).filter(|path| path.contains("/libc.so.6")));
        for path in [
            std::env::current_exe().unwrap().as_path(),
            Path::new(libc.unwrap()),
        ] {
            let file = fs::read(path).unwrap();
            let functions = functions(&file);
            let symbols = symbols(&file);
            assert!(symbols.len() > 1000, "{} in {path:?}", symbols.len());
            let others: Vec<_> = symbols
                .iter()
                .filter(|(_, (start, size))| {
                    [*start, start + size / 2, start + size - 1].map(|it| functions.start_of(it))
                        != [Some(*start); 3]
                })
                .collect();
            // Assembly: entries that the author forgot, or one for several entry points.
            assert!(
                others.len() * 20 < symbols.len(),
                "{} of {} in {path:?}: {others:x?}",
                others.len(),
                symbols.len()
            );
        }
    }

    #[test]
    fn stripping_takes_no_start_away() {
        let directory = tempfile::tempdir().unwrap();
        for (name, arguments) in [
            ("usual", &[][..]),
            ("fixed", &["-static"]),
            ("tableless", &["-Wl,--no-eh-frame-hdr"]),
        ] {
            let program = compiled(directory.path(), name, arguments);
            let symbols = symbols(&fs::read(&program).unwrap());
            assert!(Command::new("strip").arg(&program).status().unwrap().success());
            let stripped = fs::read(&program).unwrap();
            let mut files = vec![stripped];
            if name == "usual" {
                // As sstrip leaves a file, without section headers: the search table leads to the entries. The other
                // two have none.
                let mut headerless = files[0].clone();
                headerless[0x28..0x30].fill(0);
                headerless[0x3c..0x40].fill(0);
                files.push(headerless);
            }
            for file in &files {
                let functions = functions(file);
                for function in ["deepest", "middle", "outermost", "worker", "main"] {
                    let (start, size) = symbols[function];
                    assert_eq!(functions.start_of(start), Some(start), "{function} in {name}");
                    assert_eq!(
                        functions.start_of(start + size - 1),
                        Some(start),
                        "{function} in {name}"
                    );
                    assert_ne!(
                        functions.start_of(start + size),
                        Some(start),
                        "{function} in {name}"
                    );
                }
                assert_eq!(functions.start_of(0), None);
                assert_eq!(functions.start_of(u64::MAX), None);
            }
        }
    }

    #[test]
    fn damaged_entries_give_nonsense_but_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let whole = fs::read(compiled(directory.path(), "victim", &[])).unwrap();
        let sections = elf::read(&whole[..], Host::ELF).unwrap().unwind.unwrap();
        let eh_frame = sections.eh_frame.clone().unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        let mut fewer = 0;
        let all = Functions::read(&sections).ranges.len();
        for _ in 0..5000 {
            let mut bytes = eh_frame.bytes.to_vec();
            for _ in 0..1 + random(8) {
                let at = random(bytes.len());
                bytes[at] = [0, 0xff, 0x7f, 0x80, 1][random(5)];
            }
            let functions = Functions::read(&UnwindSections {
                eh_frame: Some(Section {
                    addresses: eh_frame.addresses.clone(),
                    bytes: bytes.into(),
                }),
                ..sections.clone()
            });
            fewer += usize::from(functions.ranges.len() < all);
            for range in &functions.ranges {
                assert!(
                    functions
                        .start_of(range.start)
                        .is_some_and(|it| it <= range.start)
                );
            }
        }
        assert!(fewer > 100, "{fewer}");
    }

    /// Every entry refers to one of 64 KiB.
    #[test]
    fn a_huge_common_entry_is_not_read_for_each() {
        let entry = [
            0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0, 0x0c, 7, 8, 0x90, 1, 0, 0,
        ];
        let with_rules = |rules: usize| {
            let mut cie = entry.to_vec();
            cie.resize(cie.len() + rules, 0);
            let mut bytes = u32::try_from(cie.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend(cie);
            for number in 0..1000_u64 {
                bytes.extend(24_u32.to_le_bytes());
                bytes.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
                bytes.extend((0x1000 + 16 * number).to_le_bytes());
                bytes.extend(16_u64.to_le_bytes());
                bytes.extend([0; 4]);
            }
            bytes.extend([0; 4]);
            let sections = UnwindSections {
                eh_frame: Some(Section {
                    addresses: 0x10_0000..0x10_0000 + bytes.len() as u64,
                    bytes: bytes.into(),
                }),
                ..UnwindSections::default()
            };
            Functions::read(&sections)
        };
        let honest = with_rules(0);
        assert_eq!(honest.ranges.len(), 1000);
        assert_eq!(honest.start_of(0x1000 + 16 * 999 + 15), Some(0x1000 + 16 * 999));
        let huge = with_rules(64 << 10).ranges.len();
        assert!((1..10).contains(&huge), "{huge}");
    }
}
