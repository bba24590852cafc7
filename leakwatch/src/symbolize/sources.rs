//! Where the symbols of a module are looked up: its separate debug file, then the file itself.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source as BlazeSource};
use object::read::ReadCache;

use crate::unwind::elf;
use crate::unwind::modules::{Content, Module, open_regular};
use crate::unwind::registers::{Host, Machine};

use super::Unnamed;

/// Where distributions install debug files; only the administrator writes there.
const SYSTEM_DEBUG: &str = "/usr/lib/debug";

/// One file to ask, kept open: the path that blazesym gets is of the open file, so it means the same file later.
pub struct Source {
    pub elf: BlazeSource<'static>,
    file: File,
    /// Its size when it was opened.
    bytes: u64,
}

impl Source {
    fn new(file: File, bytes: u64, debug_information: bool) -> Self {
        let mut elf = Elf::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        elf.debug_syms = debug_information;
        Self {
            elf: BlazeSource::Elf(elf),
            file,
            bytes,
        }
    }

    /// Whether the file still has the size it had. blazesym maps it, and a mapping beyond a truncated file's end
    /// kills by SIGBUS. What remains is a truncation between this look and the lookup, by whoever may write the
    /// file: the kernel refuses that for the running executable itself, but not for libraries.
    pub fn unchanged(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == self.bytes)
    }
}

/// The files to ask for a module's symbols, best first.
pub fn of_module(module: &Module) -> Result<Vec<Source>, Unnamed> {
    let (file, bytes) = match &module.content {
        Content::File { file, bytes } => (file.try_clone(), *bytes),
        Content::Memory(content) => (in_memory(content), content.len() as u64),
        Content::None => return Err(Unnamed::NoFile),
    };
    let file = file.map_err(|_| Unnamed::NoFile)?;
    let mut sources = Vec::new();
    if let Some((debug, bytes)) = debug_file(module) {
        sources.push(Source::new(debug, bytes, true));
    }
    // blazesym would follow the paths in the file wherever they lead, as root: a FIFO there never opens. The link is
    // followed above, with checks; a file with further ones is asked for its symbol tables only.
    let self_contained = module.debug_link.is_none() && !module.names_other_file;
    if self_contained && let Ok(file) = file.try_clone() {
        sources.push(Source::new(file, bytes, true));
    }
    sources.push(Source::new(file, bytes, false));
    Ok(sources)
}

/// A file of these bytes with no name.
fn in_memory(content: &[u8]) -> io::Result<File> {
    use std::io::Write as _;
    // SAFETY: the name is a NUL-terminated constant.
    let fd = unsafe { libc::memfd_create(c"vdso".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: memfd_create returned this descriptor and nothing else owns it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(content)?;
    Ok(file)
}

/// The separate debug file of a module: by build ID, else by `.gnu_debuglink` in the places where gdb looks. It must
/// carry the same build ID. Outside the system's own directory it may not point any further.
fn debug_file(module: &Module) -> Option<(File, u64)> {
    let build_id = module.build_id.as_deref()?;
    let (first, rest) = build_id.split_at_checked(2)?;
    let mut candidates = vec![PathBuf::from(format!(
        "{SYSTEM_DEBUG}/.build-id/{first}/{rest}.debug"
    ))];
    if let Some(link) = &module.debug_link {
        let link = OsStr::from_bytes(link);
        if let Some(directory) = Path::new(&*module.path).parent().filter(|it| it.is_absolute()) {
            candidates.push(directory.join(link));
            candidates.push(directory.join(".debug").join(link));
            let below = directory.strip_prefix("/").unwrap_or(directory);
            candidates.push(Path::new(SYSTEM_DEBUG).join(below).join(link));
        }
    }
    candidates.into_iter().find_map(|path| {
        let (file, bytes) = open_regular(&path, |_| true).ok()?;
        let image = elf::read(&ReadCache::new(&file), Host::ELF).ok()?;
        let trusted = path.starts_with(SYSTEM_DEBUG)
            && !path.components().any(|it| it == std::path::Component::ParentDir);
        let ends_here = !image.names_other_file && image.debug_link.is_none();
        let same = image.build_id.as_deref() == Some(build_id);
        (same && (trusted || ends_here)).then_some((file, bytes))
    })
}
