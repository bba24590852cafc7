//! The formats, and where renderings go: files that are written whole or not at all, and stdout.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::escape::{escape, text_of};
use super::model::diff::DiffReport;
use super::model::history::{HistoryReport, ScanReport};
use super::model::{HeapPicture, Recording};
use super::{csv, folded, html, json, pprof, svg, text};

/// One format of a `T`: the ending chooses it.
pub struct Format<T> {
    /// With its dot.
    pub ending: &'static str,
    pub about: &'static str,
    render: fn(&T, &text::Options, &mut dyn Write) -> io::Result<()>,
}

impl<T> Format<T> {
    /// Renders to anything that takes bytes.
    pub fn write(&self, what: &T, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
        (self.render)(what, options, to)
    }
}

/// What can be printed and written to files.
pub trait Rendered: Sized + 'static {
    /// Every format there is of it.
    const FORMATS: &'static [Format<Self>];

    /// As the terminal shows it.
    fn text(&self, options: &text::Options) -> String;

    /// As a `.txt` file has it.
    fn write_plain(&self, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
        let plain = text::Options {
            colour: false,
            ..options.clone()
        };
        to.write_all(self.text(&plain).as_bytes())
    }
}

impl Rendered for Recording {
    const FORMATS: &'static [Format<Self>] = FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render(self, options)
    }
}

impl Rendered for HeapPicture {
    const FORMATS: &'static [Format<Self>] = HEAP_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_heap(self, options)
    }
}

impl Rendered for HistoryReport {
    const FORMATS: &'static [Format<Self>] = HISTORY_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_history(self, options)
    }
}

impl Rendered for ScanReport {
    const FORMATS: &'static [Format<Self>] = SCAN_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_scan(self, options)
    }
}

impl Rendered for DiffReport {
    const FORMATS: &'static [Format<Self>] = DIFF_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_diff(self, options)
    }
}

/// Those of a comparison.
pub const DIFF_FORMATS: &[Format<DiffReport>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
    Format {
        ending: ".folded",
        about: "folded stacks with two rates, for differential flame graphs",
        render: |report, _, to| to.write_all(folded::render_diff(report).as_bytes()),
    },
    Format {
        ending: ".svg",
        about: "a flame graph of the rates after, coloured by what changed",
        render: |report, _, to| svg::write_diff(report, to),
    },
    Format {
        ending: ".csv",
        about: "a line for each call site",
        render: |report, _, to| csv::diff::write(report, to),
    },
];

/// Those of a history.
pub const HISTORY_FORMATS: &[Format<HistoryReport>] = &[
    Format {
        ending: ".json",
        about: "services, runs, alerts and points for plots",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".csv",
        about: "a line for each point",
        render: |report, _, to| csv::history::write(report, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
];

/// Those of a look at all processes.
pub const SCAN_FORMATS: &[Format<ScanReport>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
];

/// Those of a heap's picture: it has no stacks.
pub const HEAP_FORMATS: &[Format<HeapPicture>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |picture, _, to| json::write_picture(picture, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |picture, options, to| picture.write_plain(options, to),
    },
];

/// Those of a recording.
pub const FORMATS: &[Format<Recording>] = &[
    Format {
        ending: ".json",
        about: "the recording, lossless",
        render: |recording, _, to| json::write(recording, to),
    },
    Format {
        ending: ".html",
        about: "the report for a browser, one file",
        render: |recording, options, to| html::write(recording, options, to),
    },
    Format {
        ending: ".txt",
        about: "the report as the terminal shows it",
        render: |recording, options, to| recording.write_plain(options, to),
    },
    Format {
        ending: ".folded",
        about: "folded stacks for flame graph tools",
        render: |recording, _, to| to.write_all(folded::render(recording).as_bytes()),
    },
    Format {
        ending: ".svg",
        about: "a flame graph by bytes, for a browser",
        render: |recording, _, to| svg::write(recording, to),
    },
    Format {
        ending: ".pb.gz",
        about: "a profile for pprof",
        render: |recording, _, to| pprof::write(recording, to),
    },
    Format {
        ending: ".csv",
        about: "the ranking, a line for each call site",
        render: |recording, _, to| csv::ranking::write(recording, to),
    },
    Format {
        ending: ".series.csv",
        about: "what /proc said over the window, a line for each sample",
        render: |recording, _, to| csv::series::write(recording, to),
    },
];

/// Why a file was not written. Nothing of it is left behind; a file that was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("cannot tell the format of {path} by its ending; those known here are {endings}")]
    UnknownEnding { path: String, endings: String },
    #[error("will not write {path}: it is {what}. Give the name of a regular or a new file")]
    NotARegularFile { path: String, what: &'static str },
    #[error("cannot write {path}: {reason}; nothing was written")]
    Io {
        path: String,
        reason: String,
        /// Not a source: `reason` tells it already.
        error: io::Error,
    },
}

impl OutputError {
    /// Whether something stands there, where only a new file was to be made.
    #[must_use]
    pub fn is_there_already(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists)
    }
}

fn endings<T: Rendered>() -> String {
    T::FORMATS
        .iter()
        .map(|format| format.ending)
        .collect::<Vec<_>>()
        .join(", ")
}

fn shown(path: &Path) -> String {
    escape(&text_of(path.as_os_str().as_bytes()))
}

/// A file to be written, its format known.
pub struct Output<T: Rendered> {
    path: PathBuf,
    format: &'static Format<T>,
}

impl<T: Rendered> std::fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("path", &self.path)
            .field("ending", &self.format.ending)
            .finish()
    }
}

impl<T: Rendered> Output<T> {
    /// Chooses the format by the ending of the file's name, the longest that there is.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, OutputError> {
        let path = path.into();
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let format = T::FORMATS
            .iter()
            .filter(|format| name.len() > format.ending.len() && name.ends_with(format.ending.as_bytes()))
            .max_by_key(|format| format.ending.len())
            .ok_or_else(|| OutputError::UnknownEnding {
                path: shown(&path),
                endings: endings::<T>(),
            })?;
        Ok(Self { path, format })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says whether it could be written now, so that a window of an hour does not end in an error: what stands there,
    /// and that its folder takes files.
    pub fn check(&self) -> Result<(), OutputError> {
        self.refuse_irregular()?;
        self.temporary().map(drop)
    }

    /// Renders and writes: 0600, to a new file beside it (`O_EXCL`, an unguessable name), synced, then renamed. A
    /// symbolic link put there in between is replaced, not followed.
    pub fn write(&self, what: &T, options: &text::Options) -> Result<(), OutputError> {
        self.refuse_irregular()?;
        let file = self.filled(what, options)?;
        self.refuse_irregular()?;
        file.persist(&self.path)
            .map_err(|error| self.failed(error.error))?;
        self.sync_folder();
        Ok(())
    }

    /// The same where nothing stands yet: what does, whatever it is, stays, and the error [is that](OutputError::is_there_already).
    pub fn write_new(&self, what: &T, options: &text::Options) -> Result<(), OutputError> {
        if std::fs::symlink_metadata(&self.path).is_ok() {
            return Err(self.failed(io::ErrorKind::AlreadyExists.into()));
        }
        self.filled(what, options)?
            .persist_noclobber(&self.path)
            .map_err(|error| self.failed(error.error))?;
        self.sync_folder();
        Ok(())
    }

    /// A file beside it with all that is to be in it.
    fn filled(&self, what: &T, options: &text::Options) -> Result<tempfile::NamedTempFile, OutputError> {
        let mut file = self.temporary()?;
        let filled = (|| {
            let mut buffered = io::BufWriter::with_capacity(256 * 1024, file.as_file_mut());
            self.format.write(what, options, &mut buffered)?;
            buffered.flush()?;
            drop(buffered);
            file.as_file().sync_all()
        })();
        filled.map_err(|error| self.failed(error))?;
        Ok(file)
    }

    fn sync_folder(&self) {
        // The name is on the disk only when its folder is. Some file systems cannot sync a folder, and the file is
        // whole either way.
        if let Ok(folder) = std::fs::File::open(self.folder()) {
            let _ = folder.sync_all();
        }
    }

    fn folder(&self) -> &Path {
        self.path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }

    /// Removed again when dropped.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, OutputError> {
        tempfile::Builder::new()
            .prefix(".leakwatch-")
            .suffix(".tmp")
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(self.folder())
            .map_err(|error| self.failed(error))
    }

    fn refuse_irregular(&self) -> Result<(), OutputError> {
        let what = match std::fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed(error)),
            Ok(metadata) if metadata.is_file() => return Ok(()),
            Ok(metadata) if metadata.is_symlink() => "a symbolic link",
            Ok(metadata) if metadata.is_dir() => "a folder",
            Ok(_) => "a device, pipe or socket",
        };
        Err(OutputError::NotARegularFile {
            path: shown(&self.path),
            what,
        })
    }

    fn failed(&self, source: io::Error) -> OutputError {
        let reason = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "no space is left on the disk".to_owned()
            }
            io::ErrorKind::FileTooLarge => "the file is larger than the limit on file sizes".to_owned(),
            io::ErrorKind::AlreadyExists => "there is something of this name already".to_owned(),
            io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
            io::ErrorKind::PermissionDenied => "its folder may not be written to".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => "its file system is read-only".to_owned(),
            // The temporary file's own name would only confuse.
            _ => source.raw_os_error().map_or_else(
                || escape(&source.to_string()),
                |code| io::Error::from_raw_os_error(code).to_string(),
            ),
        };
        OutputError::Io {
            path: shown(&self.path),
            reason,
            error: source,
        }
    }
}

/// The largest recording that is read, bytes.
const RECORDING_BYTES_MAX: u64 = 2 << 30;

/// Reads a recording from a file.
pub fn read(path: &Path) -> anyhow::Result<Recording> {
    use io::Read;
    let name = shown(path);
    let failed = |error: io::Error| anyhow::anyhow!("cannot read the recording {name}: {error}");
    let too_large = || anyhow::anyhow!("{name} is larger than any recording (2 GiB)");
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() {
        if metadata.len() > RECORDING_BYTES_MAX {
            return Err(too_large());
        }
        return Ok(json::read_from(file, &name)?);
    }
    // A pipe is read once.
    let mut text = Vec::new();
    file.take(RECORDING_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > RECORDING_BYTES_MAX {
        return Err(too_large());
    }
    Ok(json::read(&text, &name)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::sample;
    use super::*;

    fn write(path: &Path) -> Result<(), OutputError> {
        Output::<Recording>::new(path)?.write(&sample::full(), &text::Options::default())
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_ending_is_written_whole_and_private() {
        let folder = tempfile::tempdir().unwrap();
        for format in FORMATS {
            let path = folder.path().join(format!("out{}", format.ending));
            Output::<Recording>::new(&path).unwrap().check().unwrap();
            assert!(!path.exists());
            write(&path).unwrap();
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            assert!(format.ending.ends_with(".gz") || std::fs::read(&path).unwrap().ends_with(b"\n"));
        }
        assert_eq!(names(folder.path()).len(), FORMATS.len());
        assert_eq!(read(&folder.path().join("out.json")).unwrap(), sample::full());
    }

    #[test]
    fn a_file_that_is_there_is_replaced_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let other_name = folder.path().join("hard link");
        std::fs::write(&path, "old").unwrap();
        std::fs::hard_link(&path, &other_name).unwrap();
        write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(other_name).unwrap(), "old");
        assert_eq!(read(&path).unwrap(), sample::full());
    }

    #[test]
    fn a_new_file_takes_nobodys_place() {
        let folder = tempfile::tempdir().unwrap();
        let write_new = |name: &str| {
            let output = Output::<Recording>::new(folder.path().join(name)).unwrap();
            output.write_new(&sample::full(), &text::Options::default())
        };
        write_new("a.json").unwrap();
        let mode = std::fs::metadata(folder.path().join("a.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(folder.path().join("b.json"), "old").unwrap();
        symlink("nowhere", folder.path().join("c.json")).unwrap();
        for name in ["a.json", "b.json", "c.json"] {
            let error = write_new(name).unwrap_err();
            assert!(error.is_there_already(), "{error}");
        }
        assert_eq!(
            std::fs::read_to_string(folder.path().join("b.json")).unwrap(),
            "old"
        );
        assert_eq!(names(folder.path()), ["a.json", "b.json", "c.json"]);
    }

    #[test]
    fn links_folders_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("victim");
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, folder.path().join("link.json")).unwrap();
        symlink(folder.path().join("nowhere"), folder.path().join("dangling.json")).unwrap();
        std::fs::create_dir(folder.path().join("folder.json")).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            folder.path().join("pipe.json"),
            rustix::fs::Mode::RUSR,
        )
        .unwrap();
        let before = names(folder.path());
        for name in ["link.json", "dangling.json", "folder.json", "pipe.json"] {
            let output = Output::<Recording>::new(folder.path().join(name)).unwrap();
            for error in [output.check().unwrap_err(), write(output.path()).unwrap_err()] {
                assert!(matches!(error, OutputError::NotARegularFile { .. }), "{error}");
                assert!(error.to_string().contains(name));
            }
        }
        assert_eq!(names(folder.path()), before);
        assert_eq!(std::fs::read_to_string(target).unwrap(), "precious");
    }

    #[test]
    fn the_longest_ending_chooses() {
        for (path, ending) in [
            ("a.csv", ".csv"),
            ("a.series.csv", ".series.csv"),
            ("a.pb.gz", ".pb.gz"),
        ] {
            assert_eq!(Output::<Recording>::new(path).unwrap().format.ending, ending);
        }
        let error = Output::<Recording>::new("a.gz").unwrap_err().to_string();
        assert!(error.contains(".pb.gz"), "{error}");
    }

    #[test]
    fn an_unknown_ending_lists_those_known() {
        for path in ["out", "out.htm", ".json", "dir/", "out.JSON", "a\x1b.x"] {
            let error = Output::<Recording>::new(path).unwrap_err().to_string();
            assert!(
                error.contains(".json, .html, .txt, .folded") && !error.contains('\x1b'),
                "{error}"
            );
        }
        let error = Output::<HeapPicture>::new("a.folded").unwrap_err().to_string();
        assert!(error.ends_with("those known here are .json, .txt"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let error = Output::<Recording>::new("/nonexistent/x.json")
            .unwrap()
            .check()
            .unwrap_err();
        assert!(error.to_string().contains("its folder does not exist"), "{error}");
    }

    /// Run in a child of its own by the test below: the limit on file sizes holds for a whole process.
    #[test]
    #[ignore = "needs a process of its own; a_write_that_fails_halfway_leaves_what_was_there runs it"]
    fn child_with_a_limit_on_file_sizes() {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let path = PathBuf::from(std::env::var_os("LEAKWATCH_TEST_OUTPUT").unwrap());
        // SAFETY: no handler, only the disposition "ignore", so that the write fails with EFBIG.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: Some(1000),
                maximum: Some(1000),
            },
        )
        .unwrap();
        let error = write(&path).unwrap_err();
        assert!(error.to_string().contains("limit on file sizes"), "{error}");
    }

    #[test]
    fn a_write_that_fails_halfway_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "old").unwrap();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "report::output::tests::child_with_a_limit_on_file_sizes",
            ])
            .env("LEAKWATCH_TEST_OUTPUT", &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("1 passed"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let output = Output::<Recording>::new("a.json").unwrap();
        let error = output
            .failed(io::Error::from_raw_os_error(libc::ENOSPC))
            .to_string();
        assert_eq!(
            error,
            "cannot write a.json: no space is left on the disk; nothing was written"
        );
    }
}
