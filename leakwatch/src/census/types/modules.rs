//! The files that constants lie in. Opened by what is mapped, not by what now stands at the path.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::mangled;
use super::ranges::{Identity, Places, identity};
use super::symbols::Symbols;
use crate::sampler::ProcRoot;
use crate::sampler::maps::Mapping;
use crate::unwind::modules::open_regular;

/// Symbols that are held, over all files of a process; 24 bytes each.
const SYMBOLS_MAX: usize = 1 << 20;
/// Symbols of any kind that are read for that: the C++ programs with the most have some two million.
const LOOKED_AT_MAX: u64 = 1 << 23;
/// Files that are asked for symbols: they stay open.
const FILES_MAX: usize = 128;
/// Longer paths are cut, bytes.
const PATH_BYTES_MAX: usize = 4096;

#[derive(Debug)]
struct Mapped {
    mapping: Mapping,
    module: usize,
}

#[derive(Debug)]
struct Module {
    path: Arc<str>,
    /// `None` before they were asked for; `Some(None)` where there are none.
    symbols: Option<Option<Symbols>>,
}

/// The modules of a process.
#[derive(Debug)]
pub struct Modules {
    root: ProcRoot,
    pid: u32,
    /// By address.
    mapped: Vec<Mapped>,
    modules: Vec<Module>,
    symbols_left: usize,
    looked_at: u64,
    files_left: usize,
}

impl Modules {
    pub fn of(mappings: &[Mapping], places: &Places, root: ProcRoot, pid: u32) -> Self {
        let mut known = HashMap::<Identity, usize>::new();
        let mut modules = Vec::new();
        let mut mapped: Vec<Mapped> = mappings
            .iter()
            .filter(|mapping| places.constant.hold(mapping.range.start, 1))
            .map(|mapping| {
                let module = *known.entry(identity(mapping)).or_insert_with(|| {
                    modules.push(Module {
                        path: path(mapping),
                        symbols: None,
                    });
                    modules.len() - 1
                });
                Mapped {
                    mapping: mapping.clone(),
                    module,
                }
            })
            .collect();
        mapped.sort_by_key(|it| it.mapping.range.start);
        Self {
            root,
            pid,
            mapped,
            modules,
            symbols_left: SYMBOLS_MAX,
            looked_at: LOOKED_AT_MAX,
            files_left: FILES_MAX,
        }
    }

    pub fn path(&self, address: u64) -> Option<Arc<str>> {
        let mapped = self.mapped.get(self.index(address)?)?;
        Some(self.modules.get(mapped.module)?.path.clone())
    }

    /// The class whose vtable's symbol covers an address as objects have it.
    pub fn vtable(&mut self, address: u64) -> Option<String> {
        let (symbols, address) = self.symbols(address)?;
        symbols
            .around(address)
            .filter(|symbol| address - symbol.address >= 16)
            .find_map(|symbol| mangled::vtable(&symbols.name(symbol)?))
    }

    /// The relocated constant that begins at an address, and its bytes.
    pub fn constant(&mut self, address: u64) -> Option<(String, u32)> {
        let (symbols, address) = self.symbols(address)?;
        symbols
            .around(address)
            .filter(|symbol| symbol.relocated && symbol.address == address)
            .filter_map(|symbol| Some((mangled::constant(&symbols.name(symbol)?)?, symbol.bytes)))
            // One object can have several names.
            .min_by(|(one, _), (other, _)| (one.len(), one).cmp(&(other.len(), other)))
    }

    /// Whether code is at an address of a mapping that has read-only data as well. Only sections tell them apart.
    pub fn is_code(&mut self, address: u64) -> bool {
        self.symbols(address)
            .is_some_and(|(symbols, address)| symbols.is_code(address))
    }

    #[cfg(test)]
    pub fn symbols_held(&self) -> usize {
        SYMBOLS_MAX - self.symbols_left
    }

    fn index(&self, address: u64) -> Option<usize> {
        let after = self
            .mapped
            .partition_point(|it| it.mapping.range.start <= address);
        let index = after.checked_sub(1)?;
        let holds = self.mapped.get(index)?.mapping.range.contains(&address);
        holds.then_some(index)
    }

    /// The symbols of the module at an address, and the address in the file's own terms.
    fn symbols(&mut self, address: u64) -> Option<(&Symbols, u64)> {
        let Mapped { mapping, module } = self.mapped.get(self.index(address)?)?;
        let offset = address
            .checked_sub(mapping.range.start)?
            .checked_add(mapping.offset)?;
        let module = self.modules.get_mut(*module)?;
        if module.symbols.is_none() {
            let symbols = (self.files_left > 0)
                .then(|| open_mapped(&self.root, self.pid, mapping))
                .flatten()
                .and_then(|file| Symbols::read(file, self.symbols_left, &mut self.looked_at));
            if let Some(symbols) = &symbols {
                self.files_left -= 1;
                self.symbols_left = self.symbols_left.saturating_sub(symbols.len());
            }
            module.symbols = Some(symbols);
        }
        let symbols = module.symbols.as_ref()?.as_ref()?;
        Some((symbols, symbols.address(offset)?))
    }
}

fn path(mapping: &Mapping) -> Arc<str> {
    let path = mapping.path_bytes();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    String::from_utf8_lossy(path.get(..PATH_BYTES_MAX).unwrap_or(path)).into()
}

/// Opens the file behind a mapping. `map_files` is a link to the very file, but needs CAP_SYS_ADMIN or
/// CAP_CHECKPOINT_RESTORE; the path below the target's root is the second choice, and only where it is the same file.
fn open_mapped(root: &ProcRoot, pid: u32, mapping: &Mapping) -> Option<File> {
    let Range { start, end } = mapping.range;
    let link = root.of(pid, &format!("map_files/{start:x}-{end:x}"));
    if let Ok((file, _)) = open_regular(&link, |_| true) {
        return Some(file);
    }
    let mut path = root.of(pid, "root").into_os_string().into_encoded_bytes();
    path.extend_from_slice(mapping.path_bytes());
    let same = |metadata: &std::fs::Metadata| {
        let device = metadata.dev();
        (libc::major(device), libc::minor(device)) == mapping.device && metadata.ino() == mapping.inode
    };
    let (file, _) = open_regular(Path::new(OsStr::from_bytes(&path)), same).ok()?;
    Some(file)
}
