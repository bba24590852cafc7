//! `cargo xtask ebpf`: the compiled BPF object and the proof of where it came from.
//!
//! The object is committed, so that users need no BPF toolchain. `PROVENANCE` beside it holds the hash of the sources
//! it was built from and of the object itself, and the tools' versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

const OBJECT: &str = "leakwatch/bpf/leakwatch.bpf.o";
const PROVENANCE: &str = "leakwatch/bpf/PROVENANCE";
const TARGET: &str = "bpfel-unknown-none";
/// bpf-linker's version is pinned together with the LLVM that its compiler brings.
const LINKER_VERSION: &str = "0.13.0";
/// Crates whose code ends in the object, as the lock file names them.
const CRATES: [&str; 4] = ["aya-ebpf", "aya-ebpf-bindings", "aya-ebpf-cty", "aya-ebpf-macros"];

/// What to do with the object.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Args {
    /// Change nothing: fail when the sources changed and the object did not, and, where the toolchain that built it is
    /// there, when a rebuild differs by a byte.
    #[arg(long)]
    pub check: bool,
    /// With --check: fail as well when the toolchain is not there.
    #[arg(long, requires = "check")]
    pub require_rebuild: bool,
    /// Install what the build needs first (Debian, as root).
    #[arg(long)]
    pub install: bool,
    /// Build with kernel-side diagnostics (aya-log) to target/ebpf/leakwatch-debug.bpf.o; load it with
    /// LEAKWATCH_BPF_OBJECT and the feature `kernel-log`.
    #[arg(long, conflicts_with = "check")]
    pub debug: bool,
}

/// Builds or checks the object.
///
/// # Errors
///
/// When a tool is missing or fails, and with `--check` when the object is not what the sources say.
pub fn run(root: &Path, args: Args) -> Result<()> {
    if args.install {
        install()?;
    }
    if args.check {
        return check(root, args.require_rebuild);
    }
    let toolchain = Toolchain::find()?;
    if args.debug {
        let to = root.join("target/ebpf/leakwatch-debug.bpf.o");
        toolchain.build(root, "log", &to)?;
        eprintln!("wrote {}", to.display());
        return Ok(());
    }
    let object = root.join(OBJECT);
    toolchain.build(root, "programs", &object)?;
    let provenance = Provenance {
        sources: sources_hash(root)?,
        object: file_hash(&object)?,
        toolchain: toolchain.versions.clone(),
    };
    std::fs::write(root.join(PROVENANCE), provenance.to_text()).context("cannot write PROVENANCE")?;
    eprintln!(
        "wrote {OBJECT} ({} bytes) and PROVENANCE",
        object.metadata()?.len()
    );
    Ok(())
}

fn check(root: &Path, require_rebuild: bool) -> Result<()> {
    let text = std::fs::read_to_string(root.join(PROVENANCE))
        .with_context(|| format!("cannot read {PROVENANCE}; run `cargo xtask ebpf`"))?;
    let provenance = Provenance::from_text(&text)?;
    let object = root.join(OBJECT);
    let size = object
        .metadata()
        .with_context(|| format!("{OBJECT} is missing"))?
        .len();
    ensure!(size > 0, "{OBJECT} is empty; run `cargo xtask ebpf`");
    ensure!(
        file_hash(&object)? == provenance.object,
        "{OBJECT} is not the file that PROVENANCE describes; run `cargo xtask ebpf`"
    );
    ensure!(
        sources_hash(root)? == provenance.sources,
        "the sources of the BPF programs changed and {OBJECT} did not; run `cargo xtask ebpf`"
    );
    let toolchain = match Toolchain::find() {
        Ok(toolchain) if toolchain.versions == provenance.toolchain => toolchain,
        Ok(toolchain) if require_rebuild => bail!(
            "the object was built by {:?}, here is {:?}",
            provenance.toolchain,
            toolchain.versions
        ),
        Err(error) if require_rebuild => return Err(error.context("cannot rebuild the object")),
        Ok(_) => {
            eprintln!(
                "object and sources agree; not rebuilt: another toolchain is here than the one that built it"
            );
            return Ok(());
        }
        Err(error) => {
            eprintln!("object and sources agree; not rebuilt: {error:#}");
            return Ok(());
        }
    };
    let rebuilt = root.join("target/ebpf/check.bpf.o");
    toolchain.build(root, "programs", &rebuilt)?;
    ensure!(
        file_hash(&rebuilt)? == provenance.object,
        "a rebuild differs from {OBJECT}: compare it with {}",
        rebuilt.display()
    );
    eprintln!("object and sources agree; a rebuild is the same byte for byte");
    Ok(())
}

/// What `PROVENANCE` says.
struct Provenance {
    sources: String,
    object: String,
    toolchain: BTreeMap<String, String>,
}

impl Provenance {
    fn to_text(&self) -> String {
        let mut text = String::from(
            "# Where leakwatch.bpf.o came from. Written by `cargo xtask ebpf`, checked by `cargo xtask ebpf --check`.\n",
        );
        text.push_str(&format!("sources_sha256 = {}\n", self.sources));
        text.push_str(&format!("object_sha256 = {}\n", self.object));
        for (tool, version) in &self.toolchain {
            text.push_str(&format!("{tool} = {version}\n"));
        }
        text
    }

    fn from_text(text: &str) -> Result<Self> {
        let mut fields: BTreeMap<String, String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let mut field = |key: &str| {
            fields
                .remove(key)
                .with_context(|| format!("{PROVENANCE} has no {key}"))
        };
        Ok(Self {
            sources: field("sources_sha256")?,
            object: field("object_sha256")?,
            toolchain: fields,
        })
    }
}

/// A compiler that can build `core` for BPF, and what links its output.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Where the compiler's own sources lie.
    sources: PathBuf,
    linker: PathBuf,
    objcopy: PathBuf,
    versions: BTreeMap<String, String>,
}

impl Toolchain {
    /// Debian's packages first, since their version is the one that CI has; then a nightly with its sources.
    fn find() -> Result<Self> {
        let linker = on_path("bpf-linker").context(
            "bpf-linker is missing: `cargo xtask ebpf --install` (Debian), else `cargo install bpf-linker`",
        )?;
        let objcopy = Path::new("/usr/lib/llvm-22/bin/llvm-objcopy");
        let objcopy = if objcopy.is_file() {
            objcopy.to_path_buf()
        } else {
            on_path("llvm-objcopy").context("llvm-objcopy is missing: install LLVM's binary tools")?
        };
        let (cargo, rustc) = Self::compilers()?;
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust");
        let versions = BTreeMap::from([
            ("rustc".to_owned(), output(Command::new(&rustc).arg("--version"))?),
            (
                "bpf_linker".to_owned(),
                output(Command::new(&linker).arg("--version"))?,
            ),
            ("llvm_objcopy".to_owned(), objcopy_version(&objcopy)?),
        ]);
        Ok(Self {
            cargo,
            rustc,
            sources,
            linker,
            objcopy,
            versions,
        })
    }

    fn compilers() -> Result<(PathBuf, PathBuf)> {
        let debian = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        if debian.0.is_file() && Path::new("/usr/lib/rustlib/src/rust/library/core").is_dir() {
            return Ok(debian);
        }
        let nightly = Command::new("rustup")
            .args(["which", "--toolchain", "nightly", "rustc"])
            .output();
        if let Ok(found) = nightly
            && found.status.success()
        {
            let rustc = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
            let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
            if Path::new(&sysroot)
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
            {
                return Ok((rustc.with_file_name("cargo"), rustc));
            }
        }
        bail!(
            "no compiler with the sources of `core`: `cargo xtask ebpf --install` (Debian), else \
             `rustup toolchain install nightly --component rust-src`"
        )
    }

    /// Compiles, links, strips what the kernel does not need, and puts the object at `to`.
    fn build(&self, root: &Path, feature: &str, to: &Path) -> Result<()> {
        let directory = root.join("target/ebpf");
        let status = self
            .cargo_command(root)?
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--package",
                "leakwatch-ebpf",
            ])
            .args(["--bin", "leakwatch-bpf", "--features", feature])
            .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
            .arg(&directory)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "the BPF programs do not compile");
        let linked = directory.join(TARGET).join("release/leakwatch-bpf");
        // The DWARF that BTF was made from is dead weight in the executable.
        let status = Command::new(&self.objcopy)
            .arg("-g")
            .arg(&linked)
            .arg(to)
            .status()?;
        ensure!(status.success(), "llvm-objcopy failed on {}", linked.display());
        Ok(())
    }

    fn cargo_command(&self, root: &Path) -> Result<Command> {
        let home = std::env::var_os("CARGO_HOME").map_or_else(
            || {
                std::env::home_dir()
                    .map(|home| home.join(".cargo"))
                    .context("no home directory")
            },
            |home| Ok(PathBuf::from(home)),
        )?;
        // Paths end in the object's BTF line information: without these a build in another folder differs.
        let sources = std::fs::canonicalize(&self.sources)?;
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let mut flags = vec![
            format!("-Clinker={}", self.linker.display()),
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            "-Cpanic=abort".to_owned(),
            remap(root, "leakwatch"),
            remap(&home.join("registry/src"), "registry"),
            remap(&self.sources, "rust"),
            remap(&sources, "rust"),
        ];
        let version = output(Command::new(&self.rustc).arg("--version"))?;
        if let Some(number) = version.split(' ').nth(1) {
            // Debian's build compiles the standard library from here.
            flags.push(remap(Path::new(&format!("/usr/src/rustc-{number}")), "rust"));
        }
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(root)
            .env("RUSTC", &self.rustc)
            // Debian's compiler is a stable one; build-std and the BPF target need the door to unstable features.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("CARGO_PROFILE_RELEASE_LTO", "fat")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER");
        Ok(command)
    }
}

fn install() -> Result<()> {
    let debian = Path::new("/usr/bin/apt-get").is_file();
    ensure!(
        debian,
        "--install knows Debian only; elsewhere: a nightly with rust-src, and bpf-linker"
    );
    let packages = ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "gcc"];
    let installed = Command::new("dpkg-query")
        .arg("--show")
        .args(packages)
        .output()?
        .status
        .success();
    if !installed {
        let apt = |arguments: &[&str]| -> Result<()> {
            let status = Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(arguments)
                .status()?;
            ensure!(status.success(), "apt-get {} failed", arguments.join(" "));
            Ok(())
        };
        apt(&["update", "--quiet=2"])?;
        apt(&[
            &["install", "--yes", "--quiet=2", "--no-install-recommends"],
            &packages[..],
        ]
        .concat())?;
    }
    if let Some(linker) = on_path("bpf-linker")
        && output(Command::new(linker).arg("--version"))?.ends_with(LINKER_VERSION)
    {
        return Ok(());
    }
    let status = Command::new("cargo")
        .args(["install", "--quiet", "bpf-linker", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22", "--force"])
        .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22")
        // llvm-sys asks the system's library folder for libLLVM, and Debian has it only under its version there.
        .env("RUSTFLAGS", "-L native=/usr/lib/llvm-22/lib")
        .env_remove("CARGO_TARGET_DIR")
        .status()?;
    ensure!(status.success(), "cargo install bpf-linker failed");
    Ok(())
}

/// A hash over everything of ours, and the versions of everything else, that the object is made from.
fn sources_hash(root: &Path) -> Result<String> {
    let crate_root = root.join("leakwatch-ebpf");
    let mut files = vec![crate_root.join("Cargo.toml")];
    collect(&crate_root.join("src"), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        let content = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(&content);
    }
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    for package in lock.split("[[package]]") {
        let name = package.lines().find_map(|line| line.strip_prefix("name = "));
        if name.is_some_and(|name| CRATES.contains(&name.trim_matches('"'))) {
            // Name, version and checksum; not the dependency list, which other members of the workspace can change.
            for line in package.lines().filter(|line| {
                ["name", "version", "checksum"]
                    .iter()
                    .any(|key| line.starts_with(key))
            }) {
                hash.update(line);
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn file_hash(path: &Path) -> Result<String> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&Sha256::digest(content)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let cargo_bin = std::env::home_dir().map(|home| home.join(".cargo/bin"));
    std::env::split_paths(&path)
        .chain(cargo_bin)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn objcopy_version(objcopy: &Path) -> Result<String> {
    let text = output(Command::new(objcopy).arg("--version"))?;
    Ok(text.lines().nth(1).unwrap_or(&text).trim().to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let found = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        found.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&found.stderr)
    );
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}
