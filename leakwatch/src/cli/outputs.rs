//! Recordings to and from the outside: every call of the command line into the report stage is here.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::exit::UsageError;
use super::resolve::Output;
use crate::session::Recording;

/// Endings of the formats that can be written.
const ENDINGS: [&str; 3] = [".json", ".txt", ".folded"];

/// Output files that were found writable. Checked before anything is attached: a window of an hour must not end with
/// a misspelt folder.
#[derive(Debug)]
pub struct Outputs {
    files: Vec<PathBuf>,
    verbose: bool,
}

impl Outputs {
    pub fn check(output: Output) -> anyhow::Result<Self> {
        for file in &output.files {
            check_ending(file)?;
            check_place(file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self {
            files: output.files,
            verbose: output.verbose,
        })
    }

    /// Prints the report to stdout and writes each file.
    pub fn deliver(&self, recording: &Recording, top: usize) -> anyhow::Result<()> {
        // The files first: a reader of stdout that goes away (`| head`) must not cost them.
        for file in &self.files {
            write_file(recording, file, top)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        print(&text(recording, top, self.verbose))
    }
}

fn check_ending(file: &Path) -> Result<(), UsageError> {
    let name = file.to_string_lossy();
    if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        Ok(())
    } else {
        Err(UsageError(format!(
            "-o {name}: the ending chooses the format and is to be one of {}",
            ENDINGS.join(", ")
        )))
    }
}

fn check_place(file: &Path) -> anyhow::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let metadata = fs::metadata(folder).with_context(|| format!("folder {}", folder.display()))?;
    if !metadata.is_dir() {
        bail!("{} is no folder", folder.display());
    }
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(existing) if existing.is_symlink() => {
            bail!("it is a symbolic link: name the file itself");
        }
        Ok(existing) if !existing.is_file() => bail!("it exists and is no regular file"),
        Ok(_) => {}
    }
    // A file is written beside its place and moved there, so the folder is what has to be writable.
    tempfile::tempfile_in(folder).with_context(|| format!("folder {}", folder.display()))?;
    Ok(())
}

/// Reads a recording that `record -o x.json` wrote.
pub fn read_recording(file: &Path) -> anyhow::Result<Recording> {
    bail!("not built: {}", file.display())
}

fn write_file(recording: &Recording, file: &Path, top: usize) -> anyhow::Result<()> {
    let _ = (recording, top);
    bail!("not built: {}", file.display())
}

fn text(recording: &Recording, top: usize, verbose: bool) -> String {
    let _ = (recording, top, verbose);
    String::new()
}

/// Writes text to stdout; colours are dropped where it is no terminal or `NO_COLOR` says so.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(file: &Path) -> anyhow::Result<Outputs> {
        Outputs::check(Output {
            files: vec![file.to_path_buf()],
            verbose: false,
        })
    }

    #[test]
    fn bad_outputs_are_refused_before_anything_is_attached() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("there.json"), "old").unwrap();
        symlink(at("there.json"), at("link.json")).unwrap();
        symlink(at("nowhere"), at("dangling.txt")).unwrap();
        fs::create_dir(at("folder.txt")).unwrap();

        assert!(check(&at("new.json")).is_ok());
        assert!(check(&at("there.json")).is_ok());
        assert!(check(&at("new.xyz")).unwrap_err().is::<UsageError>());
        assert!(check(&at("json")).unwrap_err().is::<UsageError>());
        for (name, part) in [
            ("link.json", "symbolic link"),
            ("dangling.txt", "symbolic link"),
            ("folder.txt", "no regular file"),
            ("missing/x.json", "No such file"),
            ("there.json/x.json", "no folder"),
        ] {
            let error = check(&at(name)).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        // Checking leaves nothing behind and changes nothing.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        assert_eq!(fs::read_to_string(at("there.json")).unwrap(), "old");
    }
}
