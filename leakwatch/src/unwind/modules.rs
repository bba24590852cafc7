//! The files that code was mapped from, each opened and read once for all processes.
//!
//! Files are opened by what is mapped, not by what now stands at the path: mount namespaces, deleted and replaced files
//! all work. They stay open, so that names can be looked up after the target is gone. Nothing is mapped into
//! leakwatch: the target may truncate the file at any time, and that would kill the reader by SIGBUS.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use framehop::{ExplicitModuleSectionInfo, Module as FramehopModule};
use object::elf;
use object::read::ReadCache;

use super::ModuleId;
use super::elf::{ElfError, Image, Section, UnwindSections};
use super::walk::Bytes;
use crate::sampler::maps::Mapping;

/// Files that are kept open for naming; further ones are read and closed.
const OPEN_FILES_MAX: usize = 512;
/// Unwind sections that are held in memory, bytes, over all modules.
const HELD_BYTES_MAX: u64 = 1 << 30;
/// Modules that are told apart; code of further ones counts as unreadable.
const MODULES_MAX: usize = 65_536;
/// The vDSO has two pages.
const VDSO_BYTES_MAX: u64 = 64 << 10;

/// Why a module has no unwind information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum ModuleError {
    #[error("the mapped file could not be opened")]
    NotOpened,
    #[error("the mapping is not of a regular file")]
    NotRegular,
    #[error("another file stands at the path now")]
    Replaced,
    #[error("unwind information beyond the memory that leakwatch allows itself")]
    OverBudget,
    #[error("{0}")]
    Elf(#[from] ElfError),
}

/// Where a module's bytes can still be read.
#[derive(Debug)]
pub enum Content {
    /// Open since it was first seen, with the size it had then.
    File {
        file: File,
        bytes: u64,
    },
    /// The vDSO: no file, its bytes.
    Memory(Arc<[u8]>),
    None,
}

/// One file that code was mapped from.
#[derive(Debug)]
pub struct Module {
    /// As the target names it, without ` (deleted)`; `[vdso]` for the vDSO.
    pub path: Arc<str>,
    /// Lower-case hex.
    pub build_id: Option<Arc<str>>,
    pub content: Content,
    /// `.gnu_debuglink`: a plain file name.
    pub debug_link: Option<Vec<u8>>,
    /// Its debug information points to further files by path.
    pub names_other_file: bool,
    image: Result<Image, ModuleError>,
}

impl Module {
    /// Why there is nothing to unwind by; `None` when there is.
    #[must_use]
    pub fn unreadable(&self) -> Option<ModuleError> {
        match &self.image {
            Ok(image) => image.unwind.as_ref().err().map(|error| (*error).into()),
            Err(error) => Some(*error),
        }
    }

    /// Address in memory less address in the file, when `mapping` is of this module. Without usable program headers
    /// the file's own offsets serve as addresses.
    pub(super) fn bias(&self, mapping: &Mapping) -> u64 {
        let start = mapping.range.start;
        self.image
            .as_ref()
            .ok()
            .and_then(|image| image.bias(start, mapping.offset))
            .unwrap_or_else(|| start.wrapping_sub(mapping.offset))
    }

    /// Whether code at this address of the file has to be left by its instructions: nothing covers it.
    pub(super) fn is_bare(&self, address: u64) -> bool {
        self.image.as_ref().is_ok_and(|image| image.is_bare(address))
    }

    /// Where the program is entered, as the file states it; 0 for a library.
    pub(super) fn entry(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.entry)
    }

    /// Copies code from this address of the file on, and says how many bytes there were.
    pub(super) fn read_code(&self, address: u64, into: &mut [u8]) -> usize {
        let Some((offset, length)) = self.image.as_ref().ok().and_then(|image| image.code_at(address)) else {
            return 0;
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..length) else {
            return 0;
        };
        match &self.content {
            Content::File { file, .. } => file.read_at(into, offset).unwrap_or(0),
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(start..).unwrap_or(&[]);
                let length = rest.len().min(into.len());
                if let (Some(target), Some(source)) = (into.get_mut(..length), rest.get(..length)) {
                    target.copy_from_slice(source);
                }
                length
            }
            Content::None => 0,
        }
    }

    /// The content to unwind by.
    pub(super) fn sections(&self) -> Option<&UnwindSections> {
        self.image.as_ref().ok()?.unwind.as_ref().ok()
    }

    /// What framehop unwinds by for one mapping of this module.
    pub(super) fn for_framehop(&self, mapping: &Mapping) -> Option<FramehopModule<Bytes>> {
        let image = self.image.as_ref().ok()?;
        let sections = image.unwind.as_ref().ok()?;
        let bias = image.bias(mapping.range.start, mapping.offset)?;
        let base = image.base();
        Some(FramehopModule::new(
            String::new(),
            mapping.range.clone(),
            bias.wrapping_add(base),
            section_info(sections, base),
        ))
    }
}

fn section_info(sections: &UnwindSections, base: u64) -> ExplicitModuleSectionInfo<Bytes> {
    fn parts(section: Option<&Section>) -> (Option<Range<u64>>, Option<Bytes>) {
        section
            .map(|section| (section.addresses.clone(), section.bytes.clone()))
            .unzip()
    }
    let (eh_frame_svma, eh_frame) = parts(sections.eh_frame.as_ref());
    let (eh_frame_hdr_svma, eh_frame_hdr) = parts(sections.eh_frame_hdr.as_ref());
    ExplicitModuleSectionInfo {
        base_svma: base,
        text_svma: sections.text.clone(),
        got_svma: sections.got.clone(),
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        debug_frame: sections.debug_frame.as_ref().map(|it| it.bytes.clone()),
        ..ExplicitModuleSectionInfo::default()
    }
}

/// What makes two mappings the same file. The inode cannot be given away while the file is open here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    File { device: (u32, u32), inode: u64 },
    Vdso,
}

/// The modules that are known so far, by number. A copy costs little and stays as it is: names can be looked up elsewhere
/// while the table grows.
#[derive(Clone, Debug, Default)]
pub struct Modules(Vec<Arc<Module>>);

impl Modules {
    #[must_use]
    pub fn get(&self, id: ModuleId) -> Option<&Module> {
        self.0.get(id.0 as usize).map(Arc::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ModuleId, &Module)> {
        (0..).map(ModuleId).zip(self.0.iter().map(Arc::as_ref))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// All modules of a session.
#[derive(Debug)]
pub struct ModuleTable {
    modules: Modules,
    known: HashMap<Identity, ModuleId>,
    machine: elf::Machine,
    open_files: usize,
    held_bytes: u64,
}

impl ModuleTable {
    pub(super) fn new(machine: elf::Machine) -> Self {
        Self {
            modules: Modules::default(),
            known: HashMap::new(),
            machine,
            open_files: 0,
            held_bytes: 0,
        }
    }

    #[must_use]
    pub fn get(&self, id: ModuleId) -> Option<&Module> {
        self.modules.get(id)
    }

    #[must_use]
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// The module behind an executable mapping of a process; read when it is new. `None` for code outside every file,
    /// and for files beyond the cap.
    pub(super) fn of_mapping(&mut self, pid: u32, mapping: &Mapping) -> Option<ModuleId> {
        let path = mapping.path.as_deref().map_or(&[][..], OsStr::as_bytes);
        let identity = if path == b"[vdso]" {
            Identity::Vdso
        } else if mapping.inode != 0 {
            Identity::File {
                device: mapping.device,
                inode: mapping.inode,
            }
        } else {
            return None;
        };
        if let Some(id) = self.known.get(&identity) {
            return Some(*id);
        }
        if self.modules.len() >= MODULES_MAX {
            return None;
        }
        let id = ModuleId(u32::try_from(self.modules.len()).ok()?);
        let module = if identity == Identity::Vdso {
            self.read_vdso(pid, mapping)
        } else {
            self.read_file(pid, mapping, path)
        };
        self.held_bytes += module.image.as_ref().map_or(0, Image::held_bytes);
        self.modules.0.push(Arc::new(module));
        self.known.insert(identity, id);
        Some(id)
    }

    #[cfg(test)]
    pub(super) fn adopt(&mut self, mapping: &Mapping, image: Image) {
        let id = ModuleId(u32::try_from(self.modules.len()).unwrap());
        self.known.insert(
            Identity::File {
                device: mapping.device,
                inode: mapping.inode,
            },
            id,
        );
        self.modules.0.push(Arc::new(Module {
            path: "adopted".into(),
            build_id: None,
            content: Content::None,
            debug_link: None,
            names_other_file: false,
            image: Ok(image),
        }));
    }

    fn read_vdso(&self, pid: u32, mapping: &Mapping) -> Module {
        let read = read_memory(pid, &mapping.range).map(Arc::<[u8]>::from);
        let image = match &read {
            Ok(bytes) => super::elf::read(&bytes[..], self.machine).map_err(ModuleError::from),
            Err(_) => Err(ModuleError::NotOpened),
        };
        Module {
            path: "[vdso]".into(),
            build_id: image.as_ref().ok().and_then(|it| it.build_id.clone()),
            content: read.map_or(Content::None, Content::Memory),
            debug_link: None,
            names_other_file: false,
            image,
        }
    }

    fn read_file(&mut self, pid: u32, mapping: &Mapping, path: &[u8]) -> Module {
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let opened = open_mapped(pid, mapping, path);
        let image = match &opened {
            Ok((file, _)) => {
                let image = super::elf::read(&ReadCache::new(file), self.machine);
                image.map_err(ModuleError::from).and_then(|image| {
                    if self.held_bytes.saturating_add(image.held_bytes()) > HELD_BYTES_MAX {
                        Err(ModuleError::OverBudget)
                    } else {
                        Ok(image)
                    }
                })
            }
            Err(error) => Err(*error),
        };
        let content = match opened {
            Ok((file, bytes)) if self.open_files < OPEN_FILES_MAX => {
                self.open_files += 1;
                Content::File { file, bytes }
            }
            _ => Content::None,
        };
        let known = image.as_ref().ok();
        Module {
            path: String::from_utf8_lossy(path).into(),
            build_id: known.and_then(|image| image.build_id.clone()),
            debug_link: known.and_then(|image| image.debug_link.clone()),
            names_other_file: known.is_some_and(|image| image.names_other_file),
            content,
            image,
        }
    }
}

/// Opens the file behind a mapping and gives its size. `map_files` is a link to the very file, whatever became of its
/// path, but needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; the path below the target's root is the second choice, and
/// only where device and inode agree with the mapping.
fn open_mapped(pid: u32, mapping: &Mapping, path: &[u8]) -> Result<(File, u64), ModuleError> {
    let Range { start, end } = mapping.range;
    let by_mapping = PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
    match open_regular(&by_mapping, |_| true) {
        Ok(opened) => return Ok(opened),
        Err(ModuleError::NotOpened) => {}
        Err(error) => return Err(error),
    }
    let mut by_path = format!("/proc/{pid}/root").into_bytes();
    by_path.extend_from_slice(path);
    open_regular(Path::new(OsStr::from_bytes(&by_path)), |metadata| {
        let device = metadata.dev();
        (libc::major(device), libc::minor(device)) == mapping.device && metadata.ino() == mapping.inode
    })
}

/// Opens a regular file that `is_it` agrees to. Checked through `O_PATH` first: opening a FIFO would block, and
/// opening a device can have effects.
pub(crate) fn open_regular(
    path: &Path,
    is_it: impl Fn(&std::fs::Metadata) -> bool,
) -> Result<(File, u64), ModuleError> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| ModuleError::NotOpened)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let fd = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(ModuleError::NotOpened);
    }
    // SAFETY: open returned this descriptor and nothing else owns it.
    let handle = unsafe { File::from_raw_fd(fd) };
    let metadata = handle.metadata().map_err(|_| ModuleError::NotOpened)?;
    if !metadata.is_file() {
        return Err(ModuleError::NotRegular);
    }
    if !is_it(&metadata) {
        return Err(ModuleError::Replaced);
    }
    let file =
        File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).map_err(|_| ModuleError::NotOpened)?;
    Ok((file, metadata.len()))
}

/// Copies a range of another process's memory.
fn read_memory(pid: u32, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start).min(VDSO_BYTES_MAX);
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let address = usize::try_from(range.start).map_err(io::Error::other)?;
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let mut bytes = vec![0_u8; length];
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: length,
    };
    // SAFETY: the local vector is one writable buffer of its length; the remote one is only an address in another
    // process, which the kernel checks.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(read) {
        Ok(read) => {
            bytes.truncate(read);
            Ok(bytes)
        }
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(path: &Path, inode_off_by: u64) -> Mapping {
        let metadata = std::fs::metadata(path).unwrap();
        Mapping {
            // No mapping has this range, so map_files has no such entry and the path decides.
            range: 0x1000..0x2000,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            offset: 0,
            device: (libc::major(metadata.dev()), libc::minor(metadata.dev())),
            inode: metadata.ino() + inode_off_by,
            path: Some(path.into()),
        }
    }

    #[test]
    fn the_path_serves_only_while_it_is_the_mapped_file() {
        let exe = std::env::current_exe().unwrap();
        let pid = std::process::id();
        let path = exe.as_os_str().as_bytes();
        assert!(open_mapped(pid, &of_file(&exe, 0), path).is_ok());
        let other = open_mapped(pid, &of_file(&exe, 1), path);
        assert_eq!(other.unwrap_err(), ModuleError::Replaced);
        let gone = open_mapped(pid, &of_file(&exe, 0), b"/no/such/file");
        assert_eq!(gone.unwrap_err(), ModuleError::NotOpened);
        assert_eq!(
            open_mapped(pid, &of_file(&exe, 0), b"/a\0b").unwrap_err(),
            ModuleError::NotOpened
        );
    }

    #[test]
    fn a_fifo_or_a_device_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is NUL-terminated and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        // Opening it for reading would wait for a writer for ever.
        assert_eq!(
            open_regular(&fifo, |_| true).unwrap_err(),
            ModuleError::NotRegular
        );
        assert_eq!(
            open_regular(Path::new("/dev/null"), |_| true).unwrap_err(),
            ModuleError::NotRegular
        );
        assert_eq!(
            open_regular(directory.path(), |_| true).unwrap_err(),
            ModuleError::NotRegular
        );
    }

    #[test]
    fn one_file_is_one_module_wherever_it_is_mapped() {
        let exe = std::env::current_exe().unwrap();
        let mut table =
            ModuleTable::new(<super::super::registers::Host as super::super::registers::Machine>::ELF);
        let first = table.of_mapping(std::process::id(), &of_file(&exe, 0)).unwrap();
        let mut elsewhere = of_file(&exe, 0);
        elsewhere.range = 0x7000_0000..0x7000_1000;
        assert_eq!(table.of_mapping(1, &elsewhere), Some(first));
        assert_eq!(table.get(first).unwrap().unreadable(), None);

        let mut text = of_file(Path::new("/etc/passwd"), 0);
        text.range = 0x3000..0x4000;
        let id = table.of_mapping(std::process::id(), &text).unwrap();
        assert_eq!(
            table.get(id).unwrap().unreadable(),
            Some(ModuleError::Elf(ElfError::Damaged))
        );
        assert_eq!(&*table.get(id).unwrap().path, "/etc/passwd");

        let mut anonymous = of_file(&exe, 0);
        (anonymous.inode, anonymous.path) = (0, None);
        assert_eq!(table.of_mapping(1, &anonymous), None);
    }
}
