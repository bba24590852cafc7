//! Recordings to and from the outside: every call of the command line into the report stage is here.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context;

use super::exit::UsageError;
use super::resolve::Shown;
use crate::report::model::Recording;
use crate::report::output::{self, Output, OutputError, Rendered};
use crate::report::text;

/// Width of the report where stdout is no terminal, in columns.
const WIDTH: usize = 80;
/// Wider lines are hard to read.
const WIDTH_MAX: usize = 200;

/// Output files that were found writable. Checked before anything is attached: a window of an hour must not end with
/// a misspelt folder.
#[derive(Debug)]
pub struct Outputs<T: Rendered> {
    files: Vec<Output<T>>,
    shown: Shown,
}

impl<T: Rendered> Outputs<T> {
    pub fn check(files: Vec<std::path::PathBuf>, shown: Shown) -> anyhow::Result<Self> {
        let files = files.into_iter().map(checked).collect::<anyhow::Result<_>>()?;
        Ok(Self { files, shown })
    }

    /// Prints the report to stdout and writes each file.
    pub fn deliver(&self, what: &T) -> anyhow::Result<()> {
        let in_file = text::Options {
            top: self.shown.top,
            min_bytes: self.shown.min_bytes,
            brief: self.shown.brief,
            verbose: self.shown.verbose,
            ..text::Options::default()
        };
        // The files first: a reader of stdout that goes away (`| head`) must not cost them. And one that cannot be
        // written must not cost the others, nor the report.
        let results: Vec<_> = self.files.iter().map(|file| file.write(what, &in_file)).collect();
        print(&what.text(&on_stdout(&in_file)))?;
        for result in results {
            result?;
        }
        Ok(())
    }
}

fn checked<T: Rendered>(file: std::path::PathBuf) -> anyhow::Result<Output<T>> {
    let output = Output::new(file).map_err(|error| match error {
        OutputError::UnknownEnding { .. } => anyhow::Error::new(UsageError(error.to_string())),
        _ => error.into(),
    })?;
    output.check()?;
    Ok(output)
}

/// As wide as the terminal is, and in colour where one is there that wants it.
fn on_stdout(base: &text::Options) -> text::Options {
    let terminal = std::io::stdout().is_terminal();
    let width = terminal_size::terminal_size()
        .filter(|_| terminal)
        .map_or(WIDTH, |(width, _)| usize::from(width.0).min(WIDTH_MAX));
    text::Options {
        width,
        // Dropped again by the stream where NO_COLOR is set or the terminal has none.
        colour: terminal,
        ..base.clone()
    }
}

/// Reads a recording that `record -o x.json` wrote.
pub fn read_recording(file: &Path) -> anyhow::Result<Recording> {
    output::read(file)
}

/// Writes text to stdout; colours are dropped where it is no terminal or `NO_COLOR` says so.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}

/// Writes what another program reads to stdout, as it is.
pub fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(file: &Path) -> anyhow::Result<Outputs<Recording>> {
        let shown = Shown {
            top: 10,
            min_bytes: 0,
            brief: false,
            verbose: false,
        };
        Outputs::check(vec![file.to_path_buf()], shown)
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
            ("folder.txt", "a folder"),
            ("missing/x.json", "folder does not exist"),
            ("there.json/x.json", "Not a directory"),
        ] {
            let error = check(&at(name)).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
        // Checking leaves nothing behind and changes nothing.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        assert_eq!(fs::read_to_string(at("there.json")).unwrap(), "old");
    }
}
