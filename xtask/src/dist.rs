//! `cargo xtask dist`: a static binary that runs on any Linux of this architecture, and a Debian package of it; with `--try`
//! both are used in roots that have nothing else.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

/// What is linked statically, its C library included.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Install what is missing (Debian: musl-tools, and where rustup has no musl target a compiler with its sources).
    #[arg(long)]
    install: bool,

    /// Use what was made: in a root that holds nothing but the binary, and in one that the package was installed into. As
    /// root, on a kernel with BPF.
    #[arg(long = "try")]
    tried: bool,
}

/// Builds both into the target folder's `dist`.
///
/// # Errors
/// What could not be made, or did not work.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.install {
        install()?;
    }
    let target = run::target_directory()?;
    let dist = target.join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;

    run::heading("The static binary");
    let built = build(&target.join("musl"))?;
    let version = text(Command::new(&built).arg("--version"))?;
    let version = version
        .trim()
        .strip_prefix("leakwatch ")
        .context("leakwatch does not say its version")?
        .to_owned();
    let binary = dist.join(format!("leakwatch-{version}-x86_64-linux-musl"));
    fs::copy(&built, &binary).with_context(|| format!("cannot write {}", binary.display()))?;
    ensure!(is_static(&binary)?, "{} needs a loader", binary.display());

    run::heading("The Debian package");
    let package = dist.join(format!("leakwatch_{version}_amd64.deb"));
    pack(&binary, &version, &dist.join("package"), &package)?;

    if arguments.tried {
        run::heading("In a root with the binary alone");
        try_binary(&binary, &dist.join("root-binary"))?;
        run::heading("In a root that the package was installed into");
        try_package(&package, &dist.join("root-package"))?;
    }
    run::heading("Done");
    for made in [&binary, &package] {
        let size = fs::metadata(made)?.len();
        eprintln!("{} ({:.1} MiB)", made.display(), size as f64 / f64::from(1 << 20));
    }
    Ok(())
}

fn install() -> Result<()> {
    let mut packages = vec!["musl-tools", "gcc"];
    if !rustup_has_target()? {
        packages.extend(["rustc-web", "cargo-web", "rust-web-src"]);
    }
    run::run(Command::new("apt-get").arg("update"))?;
    let mut command = Command::new("apt-get");
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    run::run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn rustup_has_target() -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let folder = PathBuf::from(text(&mut rustc)?.trim());
    Ok(folder.is_dir() && fs::read_dir(&folder)?.next().is_some())
}

/// The finished program, in `folder`.
fn build(folder: &Path) -> Result<PathBuf> {
    let sources = Path::new("/usr/lib/rustlib/src/rust/library/std");
    let mut command;
    if rustup_has_target()? {
        command = run::cargo(&["rustc"]);
    } else if sources.is_dir() && Path::new("/usr/bin/cargo").is_file() {
        // Debian's compiler has no such target, but its standard library's sources: they are built with it.
        command = Command::new("/usr/bin/cargo");
        command
            .current_dir(run::workspace())
            .args(["rustc", "-Z", "build-std=std,panic_abort"])
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTUP_TOOLCHAIN");
        // With musl's own start files and gcc's unwinder in place of those that rustup would bring.
        let libraries = folder.join("lib");
        fs::create_dir_all(&libraries)?;
        let unwinder = text(Command::new("gcc").arg("-print-file-name=libgcc_eh.a"))?;
        let archive = libraries.join("libunwind.a");
        fs::copy(unwinder.trim(), &archive).context("gcc has no unwinder to link")?;
        let object = libraries.join("find_object.o");
        let source = run::workspace().join("xtask/src/find_object.c");
        let mut compile = Command::new("musl-gcc");
        compile
            .args(["-O2", "-Wall", "-Werror", "-c"])
            .arg(source)
            .arg("-o");
        run::run(compile.arg(&object))?;
        run::run(Command::new("ar").arg("r").args([&archive, &object]))?;
        let flags = [
            format!("-Lnative={}", libraries.display()),
            "-Clink-self-contained=no".to_owned(),
            "-Ctarget-feature=+crt-static".to_owned(),
            // What C code has the compiler's own library do. A standard library that rustup brings has that in it.
            "-Clink-arg=-lgcc".to_owned(),
        ];
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    } else {
        bail!(
            "no standard library for {TARGET}: `rustup target add {TARGET}`, or on Debian `cargo xtask dist --install`"
        );
    }
    command
        .args([
            "--release",
            "--locked",
            "--package",
            "leakwatch",
            "--bin",
            "leakwatch",
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(folder)
        // musl-gcc knows static programs, and none that are position-independent as well.
        .args(["--", "-Crelocation-model=static"])
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER", "musl-gcc")
        .env_remove("RUSTFLAGS");
    run::run(&mut command)?;
    Ok(folder.join(TARGET).join("release/leakwatch"))
}

/// Whether the kernel can start it with nothing beside it: no program header asks for a loader.
fn is_static(program: &Path) -> Result<bool> {
    use object::read::elf::{ElfFile64, ProgramHeader as _};
    let data = fs::read(program)?;
    let file = ElfFile64::<object::Endianness>::parse(&*data).context("what was built is no program")?;
    let endian = file.endian();
    Ok(file
        .elf_program_headers()
        .iter()
        .all(|header| header.p_type(endian) != object::elf::PT_INTERP))
}

/// Lays the package out in `folder` and packs it.
fn pack(binary: &Path, version: &str, folder: &Path, package: &Path) -> Result<()> {
    anew(folder)?;
    let place = |path: &str| -> Result<PathBuf> {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(path)
    };
    let program = place("usr/bin/leakwatch")?;
    fs::copy(binary, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;

    let pages = folder.join("usr/share/man/man1");
    run::run(Command::new(binary).arg("man").arg("--dir").arg(&pages))?;
    for page in fs::read_dir(&pages)?.flatten() {
        run::run(Command::new("gzip").args(["-9n"]).arg(page.path()))?;
    }
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/leakwatch"),
        ("zsh", "usr/share/zsh/vendor-completions/_leakwatch"),
        ("fish", "usr/share/fish/vendor_completions.d/leakwatch.fish"),
    ] {
        let script = text(Command::new(binary).args(["completions", shell]))?;
        fs::write(place(path)?, script)?;
    }
    let root = run::workspace();
    let unit = fs::read_to_string(root.join("docs/leakwatch-watch@.service"))?;
    let unit = unit.replace("/usr/local/bin/leakwatch", "/usr/bin/leakwatch");
    fs::write(place("usr/lib/systemd/system/leakwatch-watch@.service")?, unit)?;
    let licences = format!(
        "leakwatch is licensed under either of these, at your option.\n\n{}\n\n{}",
        fs::read_to_string(root.join("LICENSE-MIT"))?,
        fs::read_to_string(root.join("LICENSE-APACHE"))?
    );
    fs::write(place("usr/share/doc/leakwatch/copyright")?, licences)?;

    let size: u64 = fs::metadata(&program)?.len() / 1024;
    let control = format!(
        "Package: leakwatch\nVersion: {version}\nArchitecture: amd64\nSection: devel\nPriority: optional\n\
         Maintainer: the leakwatch authors <leakwatch@localhost>\nInstalled-Size: {size}\n\
         Description: names the call sites that keep the memory a running process gains\n \
         It attaches to a live process for a window of time, without stopping or changing it, and\n \
         reports which call sites keep the memory that was added, with whole stacks and an account\n \
         that is checked against the kernel's own.\n"
    );
    fs::write(place("DEBIAN/control")?, control)?;
    let mut command = Command::new("dpkg-deb");
    command
        .args(["--root-owner-group", "--build"])
        .arg(folder)
        .arg(package);
    run::run(&mut command)
}

fn anew(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn try_binary(binary: &Path, root: &Path) -> Result<()> {
    anew(root)?;
    let program = root.join("leakwatch");
    fs::copy(binary, &program)?;
    records_its_demo(root, "/leakwatch")
}

fn try_package(package: &Path, root: &Path) -> Result<()> {
    anew(root)?;
    for folder in ["usr/bin", "usr/lib", "var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in ["bin", "lib"] {
        symlink(format!("usr/{folder}"), root.join(folder))?;
    }
    fs::write(root.join("var/lib/dpkg/status"), "")?;
    fs::write(root.join("var/lib/dpkg/available"), "")?;
    // It depends on nothing and has no scripts, so that an empty root will do.
    let mut command = Command::new("dpkg");
    command
        .arg(format!("--root={}", root.display()))
        .args(["--log=/dev/null", "--install"])
        .arg(package);
    run::run(&mut command)?;
    for file in [
        "usr/share/man/man1/leakwatch-record.1.gz",
        "usr/share/bash-completion/completions/leakwatch",
        "usr/lib/systemd/system/leakwatch-watch@.service",
    ] {
        ensure!(root.join(file).is_file(), "the package brought no {file}");
    }
    records_its_demo(root, "/usr/bin/leakwatch")
}

/// Runs the demo in `root`, in a mount namespace of its own with the kernel's file systems.
fn records_its_demo(root: &Path, program: &str) -> Result<()> {
    for folder in ["proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let script = "mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && \
                  exec chroot \"$0\" \"$1\" demo --duration 4s --output /tmp/demo.json";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(root)
        .arg(program);
    run::run(&mut command)?;
    let recording = fs::read_to_string(root.join("tmp/demo.json"))?;
    let recording: serde_json::Value = serde_json::from_str(&recording)?;
    let first = recording
        .pointer("/call_sites/0/label")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    ensure!(
        first.contains("handle_upload"),
        "the demo's leak is in handle_upload, and {first:?} is blamed"
    );
    Ok(())
}

fn text(command: &mut Command) -> Result<String> {
    let line = run::shown(command);
    let output = command.output().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
