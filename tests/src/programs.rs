//! Builds the target programs of `tests/programs`, once per content.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// As a distribution would build it: no frame pointers.
const C_FLAGS: &[&str] = &["-std=gnu11", "-O2", "-g", "-Wall", "-pthread"];

/// A target program, built and ready to be run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// Arguments that come before the test's own: a script's interpreter needs the script's name.
    pub arguments: Vec<String>,
}

impl Program {
    /// `programs/NAME.c`, as a distribution would build it: `-O2`, no frame pointers.
    #[must_use]
    pub fn c(name: &str) -> Self {
        Self::compiled(name, "c", &[])
    }

    /// The same with further flags of the compiler: `-static`, `-s`, `-fno-omit-frame-pointer`...
    #[must_use]
    pub fn c_with(name: &str, flags: &[&str]) -> Self {
        Self::compiled(name, "c", flags)
    }

    /// `programs/NAME.c` with musl in place of glibc, as on Alpine.
    #[must_use]
    pub fn musl(name: &str, flags: &[&str]) -> Self {
        Self::made(name, "c", "musl-gcc", C_FLAGS, flags)
    }

    /// `programs/NAME.cpp`.
    #[must_use]
    pub fn cpp(name: &str) -> Self {
        Self::compiled(name, "cpp", &[])
    }

    /// The same with further flags of the compiler.
    #[must_use]
    pub fn cpp_with(name: &str, flags: &[&str]) -> Self {
        Self::compiled(name, "cpp", flags)
    }

    /// `programs/NAME.c` as a library, to be preloaded.
    #[must_use]
    pub fn preload(name: &str) -> PathBuf {
        Self::compiled(name, "c", &["-shared", "-fPIC"]).path
    }

    /// `programs/NAME.rs`.
    #[must_use]
    pub fn rust(name: &str) -> Self {
        Self::compiled(name, "rs", &[])
    }

    /// `programs/NAME.py`, run by the distribution's own interpreter where there is one: others stand in by a script
    /// that executes them.
    #[must_use]
    pub fn python(name: &str) -> Self {
        let script = sources().join(format!("{name}.py"));
        Self {
            path: python(),
            arguments: vec![script.to_string_lossy().into_owned()],
        }
    }

    fn compiled(name: &str, ending: &str, flags: &[&str]) -> Self {
        let (compiler, usual): (String, &[&str]) = match ending {
            "c" => (from_environment("CC", "cc"), C_FLAGS),
            "cpp" => (
                from_environment("CXX", "g++"),
                &["-std=c++17", "-O2", "-g", "-Wall", "-pthread"],
            ),
            _ => (
                from_environment("RUSTC", "rustc"),
                &["--edition=2024", "-Copt-level=3", "-Cdebuginfo=1"],
            ),
        };
        Self::made(name, ending, &compiler, usual, flags)
    }

    fn made(name: &str, ending: &str, compiler: &str, usual: &[&str], flags: &[&str]) -> Self {
        let source = sources().join(format!("{name}.{ending}"));
        let mut arguments = usual.to_vec();
        arguments.extend(flags);
        // The file keeps its plain name, which becomes the process's; what tells builds apart is the folder.
        let folder = profile_directory()
            .join("programs")
            .join(hash_of(&source, compiler, &arguments));
        let path = folder.join(name);
        if !path.exists() {
            build(compiler, &arguments, &source, &path);
        }
        Self {
            path,
            arguments: Vec::new(),
        }
    }
}

/// The Python interpreter: Debian's own by preference.
#[must_use]
pub fn python() -> PathBuf {
    let debian = Path::new("/usr/bin/python3");
    if debian.exists() {
        debian.to_owned()
    } else {
        PathBuf::from("python3")
    }
}

/// `leakwatch` itself: `LEAKWATCH_BIN`, or built once in the profile and target folder these tests run from.
#[must_use]
pub fn leakwatch() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("LEAKWATCH_BIN") {
            let path = PathBuf::from(path);
            assert!(
                path.is_file(),
                "LEAKWATCH_BIN names {}, which is no file",
                path.display()
            );
            return path;
        }
        let directory = profile_directory();
        let profile = match directory.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(profile) => profile,
        };
        let target = directory
            .parent()
            .expect("a profile's folder lies in a target folder");
        let status = Command::new(from_environment("CARGO", "cargo"))
            .args([
                "build",
                "--quiet",
                "--package",
                "leakwatch",
                "--profile",
                profile,
                "--target-dir",
            ])
            .arg(target)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .status()
            .unwrap_or_else(|error| panic!("cannot run cargo to build leakwatch: {error}"));
        assert!(status.success(), "leakwatch does not build: {status}");
        directory.join("leakwatch")
    })
}

/// Where the programs' sources are.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("programs")
}

/// `target/debug` or its like: the folder above `deps`, where the running test binary lies.
pub(crate) fn profile_directory() -> PathBuf {
    let binary = std::env::current_exe().expect("the kernel knows the running file");
    let parent = binary.parent().expect("a file lies in a folder");
    if parent.ends_with("deps") {
        parent.parent().unwrap_or(parent).to_owned()
    } else {
        parent.to_owned()
    }
}

/// Copies a program that is to be run, mode and all, by a process of its own: were the copy open for writing here, another
/// test's child that is forked in that moment would have it open too, and the kernel would refuse to run it ("Text file
/// busy").
///
/// # Panics
/// Where it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("--")
        .args([from, to])
        .status()
        .expect("cp can be run");
    assert!(
        status.success(),
        "cannot copy {} to {}: {status}",
        from.display(),
        to.display()
    );
}

fn from_environment(variable: &str, otherwise: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
}

fn hash_of(source: &Path, compiler: &str, arguments: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    let headers = fs::read_dir(sources()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = headers
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "h"))
        .collect();
    files.sort();
    files.push(source.to_owned());
    for file in files {
        let content =
            fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        content.hash(&mut hasher);
    }
    (compiler, arguments).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Builds beside the final place and renames: tests that want the same program at once do not see half of one.
fn build(compiler: &str, arguments: &[&str], source: &Path, path: &Path) {
    let folder = path.parent().expect("a program lies in a folder");
    fs::create_dir_all(folder).unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    let scratch = tempfile::tempdir_in(folder).expect("the target folder can be written");
    let unfinished = scratch
        .path()
        .join(path.file_name().expect("a program has a name"));
    let output = Command::new(compiler)
        .args(arguments)
        .arg("-o")
        .arg(&unfinished)
        .arg(source)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot build {}: {compiler} does not run ({error}); `cargo xtask test` installs it on Debian", source.display())
        });
    assert!(
        output.status.success(),
        "{compiler} {} cannot build {}:\n{}",
        arguments.join(" "),
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&unfinished, path)
        .unwrap_or_else(|error| panic!("cannot move to {}: {error}", path.display()));
}
