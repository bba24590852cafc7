//! Other releases of glibc, for the tests that read heaps of each: Debian's own packages of its other suites, unpacked
//! into the target folder and never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

struct Suite {
    name: &'static str,
    /// It will be served for years to come. Others are used while they are.
    sure: bool,
}

/// Oldest first; the last two bring what is newest.
const SUITES: &[Suite] = &[
    Suite {
        name: "bullseye",
        sure: false,
    },
    Suite {
        name: "bookworm",
        sure: true,
    },
    Suite {
        name: "trixie",
        sure: true,
    },
    Suite {
        name: "sid",
        sure: true,
    },
    Suite {
        name: "experimental",
        sure: false,
    },
];

/// Unpacks the suites' glibc into folders of their names in `folder`, where they are not there yet.
///
/// # Errors
/// When one that is sure to be served could not be had.
pub fn ensure(folder: &Path) -> Result<()> {
    let missing: Vec<&Suite> = SUITES
        .iter()
        .filter(|suite| !folder.join(suite.name).is_dir())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    run::heading("Other releases of glibc");
    let mirror = mirror()?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for suite in missing {
        match (unpack(&mirror, suite.name, folder), suite.sure) {
            (Ok(()), _) => {}
            (Err(error), true) => return Err(error.context(format!("no glibc of {}", suite.name))),
            (Err(error), false) => eprintln!("{} is left out: {error:#}", suite.name),
        }
    }
    Ok(())
}

/// Where this machine has its own packages from.
fn mirror() -> Result<String> {
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"]);
    ask.args(["Created-By: Packages", "Component: main"]);
    let output = ask
        .output()
        .context("cannot run apt-get: on no Debian, these tests cannot run")?;
    // Not that of updates or of security, which has no other suites.
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(suite, _)| !suite.contains('-'))
        .map(|(_, mirror)| mirror.to_owned())
        .context("apt has no source of packages")
}

/// With lists and a cache of their own, so that the machine's apt knows nothing of it. The keys are the machine's.
fn unpack(mirror: &str, suite: &str, folder: &Path) -> Result<()> {
    let scratch = tempfile::tempdir_in(folder).context("the target folder cannot be written")?;
    let at = |name: &str| scratch.path().join(name);
    for name in ["lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(at(name))?;
    }
    let list = at("sources.list");
    fs::write(&list, format!("deb {mirror} {suite} main\n"))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (option, path) in [
            ("Dir::Etc::sourcelist", list.clone()),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State", scratch.path().to_owned()),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", at("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        }
        // Its own user may not enter a target folder below somebody's home.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none"]);
        command.args(["-q", "-o", "Acquire::Retries=3"]);
        command.args(arguments).current_dir(scratch.path());
        command
    };
    run::run(&mut apt(&["update"]))?;
    run::run(&mut apt(&["download", "libc6"]))?;
    let package = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("no package was downloaded")?;
    let root = at("root");
    run::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    // Newer packages leave these links to another one.
    for name in ["lib", "lib64"] {
        if !root.join(name).exists() && root.join("usr").join(name).exists() {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
    }
    if !root.join("lib").exists() {
        bail!("the package has no /lib");
    }
    fs::rename(&root, folder.join(suite)).with_context(|| format!("cannot keep the glibc of {suite}"))
}
