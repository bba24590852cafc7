//! Releases of glibc other than the machine's own, and programs that run with any of them.
//!
//! `cargo xtask test` unpacks Debian's packages of other suites into `TARGET/glibcs/SUITE`. A program is run there by
//! the release's own loader, or in a root of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{self, Program, profile_directory};

/// One release, unpacked.
#[derive(Clone, Debug)]
pub struct Glibc {
    /// The suite that it is from.
    pub suite: String,
    /// Of the package.
    pub root: PathBuf,
    /// With `libc.so.6`.
    libraries: PathBuf,
    loader: PathBuf,
}

/// Suites that must be there. Others are used where they are.
const SURE: [&str; 3] = ["bookworm", "trixie", "sid"];

/// Every release that was unpacked.
///
/// # Panics
/// Where one that must be there is not.
#[must_use]
pub fn all() -> Vec<Glibc> {
    let folder = std::env::var_os("LEAKWATCH_GLIBCS").map_or_else(
        || {
            let target = profile_directory();
            target.with_file_name("glibcs")
        },
        PathBuf::from,
    );
    for suite in SURE {
        assert!(
            folder.join(suite).is_dir(),
            "{} has no {suite}: `cargo xtask test` puts it there",
            folder.display()
        );
    }
    let mut all: Vec<Glibc> = fs::read_dir(&folder)
        .expect("it has just been looked into")
        .flatten()
        .filter(|entry| entry.path().join("lib").exists())
        .map(|entry| Glibc::in_root(entry.path()))
        .collect();
    all.sort_by(|one, other| one.suite.cmp(&other.suite));
    all
}

impl Glibc {
    fn in_root(root: PathBuf) -> Self {
        let libraries = fs::read_dir(root.join("lib"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|folder| folder.join("libc.so.6").exists())
            .unwrap_or_else(|| panic!("no libc.so.6 below {}", root.display()));
        let loader = fs::read_dir(&libraries)
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux"))
            .unwrap_or_else(|| panic!("no loader in {}", libraries.display()));
        Self {
            suite: root
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            root,
            libraries,
            loader: loader.path(),
        }
    }

    /// Runs a program by this release's loader, which is then the process's executable.
    #[must_use]
    pub fn by_loader(&self, program: &Program) -> Command {
        let mut command = Command::new(&self.loader);
        command
            .arg("--library-path")
            .arg(&self.libraries)
            .arg(&program.path);
        command
    }

    /// Runs a program in this release's package as its root, where no other glibc is.
    #[must_use]
    pub fn in_chroot(&self, program: &Program) -> Command {
        let name = program.path.file_name().expect("a program has a name");
        // Tests that do so at once see the whole file or none.
        let inside = self.root.join(name);
        let scratch = self
            .root
            .join(format!(".{}-{}", name.to_string_lossy(), std::process::id()));
        programs::copy(&program.path, &scratch);
        fs::rename(&scratch, &inside)
            .unwrap_or_else(|error| panic!("cannot copy to {}: {error}", inside.display()));
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(Path::new("/").join(name));
        command
    }
}

/// Libraries that a program is linked against in place of the real ones: functions of these names, and no versions.
/// The loader then takes what the library has that it finds, be it older than the one of this machine or newer.
const STUBS: [(&str, &[&str]); 2] = [
    (
        "libc.so.6",
        &[
            "__libc_start_main",
            "_exit",
            "calloc",
            "free",
            "getpid",
            "gnu_get_libc_version",
            "mallopt",
            "malloc",
            "memset",
            "mmap",
            "pause",
            "posix_memalign",
            "read",
            "realloc",
            "sbrk",
            "strcmp",
            "vsnprintf",
            "write",
        ],
    ),
    (
        "libpthread.so.0",
        &[
            "pthread_cond_broadcast",
            "pthread_cond_wait",
            "pthread_create",
            "pthread_mutex_lock",
            "pthread_mutex_unlock",
        ],
    ),
];

/// `programs/NAME.c`, linked so that it runs with any glibc.
#[must_use]
pub fn portable(name: &str) -> Program {
    let start = start_file();
    let libraries = STUBS.map(|(library, functions)| stub(library, functions));
    let mut flags = vec![
        "-fPIE",
        "-pie",
        "-fno-stack-protector",
        "-nostdlib",
        "-Wl,--no-as-needed",
    ];
    flags.push(&start);
    flags.extend(libraries.iter().map(String::as_str));
    Program::c_with(name, &flags)
}

/// What begins a program, of this machine's glibc: it needs no more than `__libc_start_main`.
fn start_file() -> String {
    let output = Command::new("cc").arg("-print-file-name=Scrt1.o").output();
    let output = output.unwrap_or_else(|error| panic!("cc does not run: {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn stub(library: &str, functions: &[&str]) -> String {
    let folder = profile_directory().join("programs/stubs");
    let path = folder.join(library);
    if !path.exists() {
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let scratch = tempfile::tempdir_in(&folder).expect("the target folder can be written");
        let source = scratch.path().join("stub.c");
        let text: String = functions
            .iter()
            .map(|function| format!("void {function}(void) {{}}\n"))
            .collect();
        fs::write(&source, text).expect("the target folder can be written");
        let unfinished = scratch.path().join(library);
        let status = Command::new("cc")
            .args(["-w", "-fno-builtin", "-fPIC", "-shared", "-nostdlib"])
            .arg(format!("-Wl,-soname,{library}"))
            .arg("-o")
            .args([&unfinished, &source])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "cannot build {library}"
        );
        fs::rename(&unfinished, &path).expect("it is in the same folder");
    }
    path.to_string_lossy().into_owned()
}
