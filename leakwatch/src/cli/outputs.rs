//! Recordings to and from the outside: every call of the command line into the report stage is here.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context;

use super::exit::UsageError;
use super::printable::printable;
use super::resolve::Shown;
use crate::report::model::Recording;
use crate::report::output::{self, Output, OutputError, Rendered};
use crate::report::text;
use crate::top::{Finished, Theme};

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

/// Whether there is a terminal to draw on, and how it wants to look.
pub fn theme_of_terminal() -> anyhow::Result<Theme> {
    if !std::io::stdout().is_terminal() {
        return Err(UsageError(
            "top draws on a terminal, and stdout is none: use `leakwatch record`, or give it a terminal"
                .to_owned(),
        )
        .into());
    }
    Ok(Theme {
        colour: wants_colour(std::env::var_os("NO_COLOR")),
    })
}

/// `NO_COLOR` says no where it is there and not empty.
fn wants_colour(no_color: Option<std::ffi::OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty())
}

/// Prints the report of what was watched live, writes each file, and the one that was asked for meanwhile.
pub fn deliver_live(outputs: &Outputs<Recording>, finished: &Finished) -> anyhow::Result<()> {
    // The last chance of it: first, and whatever becomes of the others.
    let saved = finished
        .save
        .as_deref()
        .map(|name| save(&finished.recording, name));
    outputs.deliver(&finished.recording)?;
    if let Some(saved) = saved {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "leakwatch: the recording is in {}", printable(&saved?));
    }
    Ok(())
}

/// Writes a recording to a new file; where there is something of that name by now, to one of a similar name. That name.
fn save(recording: &Recording, name: &str) -> anyhow::Result<String> {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, "json"));
    let others = (2..100).map(|number| format!("{stem}-{number}.{ending}"));
    let mut last = None;
    for name in std::iter::once(name.to_owned()).chain(others) {
        match Output::<Recording>::new(&name)?.write_new(recording, &text::Options::default()) {
            Ok(()) => return Ok(name),
            Err(error) if error.is_there_already() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("cannot write {name}"), Into::into))
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
