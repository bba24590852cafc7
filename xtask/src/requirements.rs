//! What the live tests need of the machine beside Rust, and where Debian has it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// One need. The table below is all there is to know of it.
struct Requirement {
    what: &'static str,
    package: &'static str,
    present: fn() -> bool,
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        what: "a C compiler",
        package: "gcc",
        present: || on_path("cc"),
    },
    Requirement {
        what: "libc to link against, static too",
        package: "libc6-dev",
        present: static_libc,
    },
    Requirement {
        what: "a C++ compiler",
        package: "g++",
        present: || on_path("g++"),
    },
    Requirement {
        what: "musl to link against",
        package: "musl-tools",
        present: || on_path("musl-gcc"),
    },
    Requirement {
        what: "redis-server",
        package: "redis-server",
        present: || on_path("redis-server"),
    },
    Requirement {
        what: "postgres",
        package: "postgresql",
        present: postgres,
    },
    Requirement {
        what: "python3",
        package: "python3",
        present: || on_path("python3"),
    },
    Requirement {
        what: "jemalloc",
        package: "libjemalloc2",
        present: || library("libjemalloc.so.2"),
    },
    Requirement {
        what: "mimalloc",
        package: "libmimalloc2.0",
        present: || library("libmimalloc.so.2"),
    },
    Requirement {
        what: "prometheus",
        package: "prometheus",
        present: || on_path("prometheus"),
    },
    // A page is read by what people read it with. The fonts are what it falls back to where there are none.
    Requirement {
        what: "chromium",
        package: "chromium",
        present: || on_path("chromium"),
    },
    Requirement {
        what: "fonts",
        package: "fonts-dejavu-core",
        present: || Path::new("/usr/share/fonts/truetype/dejavu").is_dir(),
    },
    Requirement {
        what: "go tool pprof",
        package: "golang-go",
        present: || on_path("go"),
    },
    Requirement {
        what: "unshare and setpriv",
        package: "util-linux",
        present: || on_path("unshare") && on_path("setpriv"),
    },
];

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// In a folder where the loader looks: such libraries are preloaded by their bare name.
fn library(name: &str) -> bool {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    [multiarch.as_str(), "/usr/lib64", "/usr/lib", "/usr/local/lib"]
        .iter()
        .any(|folder| Path::new(folder).join(name).is_file())
}

fn postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    versions
        .into_iter()
        .any(|version| version.path().join("bin/initdb").is_file())
}

/// Asked of the compiler: where libc.a lies depends on the architecture and the distribution.
fn static_libc() -> bool {
    let output = Command::new("cc").arg("-print-file-name=libc.a").output();
    output.is_ok_and(|output| {
        // A bare name back means that it was not found.
        Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_absolute()
    })
}

/// Installs what is missing, on Debian and as root; elsewhere says what is missing.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn ensure() -> Result<()> {
    let missing: Vec<&Requirement> = REQUIREMENTS
        .iter()
        .filter(|requirement| !(requirement.present)())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing
        .iter()
        .map(|missing| missing.what)
        .collect::<Vec<_>>()
        .join(", ");
    let packages: Vec<&str> = missing.iter().map(|missing| missing.package).collect();
    if !on_path("apt-get") {
        bail!("missing: {list}. This is no Debian: install them by your distribution's means");
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {list}. Install them: sudo apt-get install {}",
            packages.join(" ")
        );
    }
    run::heading(&format!("Installing {list}"));
    run::run(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages);
    run::run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    if let Some(still) = REQUIREMENTS.iter().find(|requirement| !(requirement.present)()) {
        bail!(
            "{} is missing even though {} is installed",
            still.what,
            still.package
        );
    }
    Ok(())
}
