//! How the file is opened: made private, never through a link, and left alone when it is not ours.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::{heap, schema};
use crate::report::escape::{escape, text_of};

/// How long a writer waits for somebody who reads a file that nobody wrote to.
const READER_PATIENCE: Duration = Duration::from_secs(5);
/// How long SQLite waits for a lock of another process, such as a reader that cleans up.
const BUSY: Duration = Duration::from_secs(2);

/// Why a history cannot be used. Each message is one line; unless it says otherwise the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("{path} is no history of leakwatch ({what}); it was not touched: give the name of a new file")]
    Foreign { path: String, what: String },
    #[error(
        "{path} is a history of version {found}, and this leakwatch knows versions up to {}; it was not touched: \
         use the leakwatch that wrote it, or give the name of a new file",
        schema::VERSION
    )]
    Newer { path: String, found: u32 },
    #[error("another leakwatch writes to {path}: give each `watch` a history of its own")]
    InUse { path: String },
    #[error("the history {path} is damaged ({reason}); move it away to begin a new one")]
    Damaged { path: String, reason: String },
    #[error("cannot {verb} the history {path}: {reason}")]
    Io {
        verb: &'static str,
        path: String,
        reason: String,
    },
}

/// A path as an error shows it.
pub(super) fn shown(path: &Path) -> String {
    escape(&text_of(path.as_os_str().as_bytes()))
}

/// What a failure of SQLite means to who reads it.
pub(super) fn reason(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "no space is left on the disk".to_owned(),
        Some(ErrorCode::ReadOnly) => "it is read-only".to_owned(),
        Some(ErrorCode::CannotOpen) => "it, or a file beside it, cannot be opened".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program holds it".to_owned(),
        _ => escape(&error.to_string()),
    }
}

/// The same as an error of this file.
pub(super) fn failed(verb: &'static str, path: &Path, error: &rusqlite::Error) -> HistoryError {
    let path = shown(path);
    let reason = reason(error);
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => HistoryError::Damaged { path, reason },
        _ => match error {
            // A table that is missing, or a value of another type than the tables take.
            rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with("no such") => {
                HistoryError::Damaged { path, reason }
            }
            rusqlite::Error::SqliteFailure(..) | rusqlite::Error::InvalidPath(_) => {
                HistoryError::Io { verb, path, reason }
            }
            _ => HistoryError::Damaged { path, reason },
        },
    }
}

fn io_failed(verb: &'static str, path: &Path, error: &io::Error) -> HistoryError {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space is left on the disk".to_owned()
        }
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        _ => error.raw_os_error().map_or_else(
            || escape(&error.to_string()),
            |code| match code {
                libc::ELOOP => "it is a symbolic link".to_owned(),
                _ => io::Error::from_raw_os_error(code).to_string(),
            },
        ),
    };
    HistoryError::Io {
        verb,
        path: shown(path),
        reason,
    }
}

/// Opened for writing. The lock lasts as long as this.
#[derive(Debug)]
pub struct Writing {
    // Dropped in this order: closing any descriptor of the file would drop the locks that SQLite has on it.
    pub connection: Connection,
    pub path: PathBuf,
    _lock: File,
}

/// Opens a history for writing, and makes it where there is none: readable by its owner alone.
pub fn open_to_write(path: &Path) -> Result<Writing, HistoryError> {
    const VERB: &str = "open";
    let path = &resolved(path).map_err(|error| io_failed(VERB, path, &error))?;
    let lock = match without_following(path, true) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            without_following(path, true).map_err(|error| io_failed(VERB, path, &error))?
        }
        Err(error) => return Err(io_failed(VERB, path, &error)),
    };
    refuse_foreign(path, &lock)?;
    let deadline = Instant::now() + READER_PATIENCE;
    while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io_failed(VERB, path, &error.into()));
        }
        // A reader is gone in a moment, another writer is not.
        if Instant::now() > deadline {
            return Err(HistoryError::InUse { path: shown(path) });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let connect = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = guarded(Connection::open_with_flags(path, flags)?)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // What is committed outlives this process at once, and the host's power as far as the last checkpoint.
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "journal_size_limit", 8 << 20)?;
        connection.execute_batch(heap::CREATE)?;
        Ok(connection)
    };
    let connection = connect().map_err(|error| failed(VERB, path, &error))?;
    Ok(Writing {
        connection,
        path: path.clone(),
        _lock: lock,
    })
}

/// Opened for reading; nothing is written to it.
#[derive(Debug)]
pub struct Reading {
    pub connection: Connection,
    pub path: PathBuf,
    _file: File,
}

/// Opens a history for reading, also while a watch writes to it.
pub fn open_to_read(path: &Path) -> Result<Reading, HistoryError> {
    const VERB: &str = "read";
    let path = &resolved(path).map_err(|error| io_failed(VERB, path, &error))?;
    let file = without_following(path, false).map_err(|error| io_failed(VERB, path, &error))?;
    refuse_foreign(path, &file)?;
    let mut wal = path.clone().into_os_string();
    wal.push("-wal");
    // A file that was closed well has no log beside it. Then SQLite is told that nobody writes, and needs no files of its
    // own beside it either: the folder may be read-only. The lock keeps a writer waiting.
    let at_rest = !Path::new(&wal).exists() && flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
    let connect = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(path, at_rest), flags)?;
        let connection = guarded(connection)?;
        connection.pragma_update(None, "query_only", true)?;
        // A first look, so that what cannot be read is told here.
        connection.query_row("SELECT count(*) FROM service", [], |row| row.get::<_, i64>(0))?;
        Ok(connection)
    };
    let connection = connect().map_err(|error| failed(VERB, path, &error))?;
    Ok(Reading {
        connection,
        path: path.clone(),
        _file: file,
    })
}

/// A database of unknown origin may hold more than tables: nothing in it is run.
fn guarded(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(BUSY)?;
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// `file:PATH`, every byte that could mean something escaped.
fn uri(path: &Path, immutable: bool) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.') {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02x}"));
        }
    }
    if immutable {
        uri.push_str("?immutable=1");
    }
    uri
}

/// The folder with its links resolved, so that only the file itself is refused for being one.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok(folder.canonicalize()?.join(name))
}

fn without_following(path: &Path, write: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        // A pipe would block.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// By the file's head, before SQLite sees it.
fn refuse_foreign(path: &Path, mut file: &File) -> Result<(), HistoryError> {
    let foreign = |what: &str| HistoryError::Foreign {
        path: shown(path),
        what: what.to_owned(),
    };
    let metadata = file.metadata().map_err(|error| io_failed("open", path, &error))?;
    if !metadata.is_file() {
        return Err(foreign("it is no regular file"));
    }
    let mut head = [0_u8; 100];
    let mut read = Vec::with_capacity(head.len());
    file.by_ref()
        .take(100)
        .read_to_end(&mut read)
        .map_err(|error| io_failed("open", path, &error))?;
    if read.is_empty() {
        return Err(foreign("it is empty"));
    }
    let Some(head_of_file) = read.get(..head.len()) else {
        return Err(foreign("it is no SQLite database"));
    };
    head.copy_from_slice(head_of_file);
    let word = |at: usize| {
        head.get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    if !head.starts_with(b"SQLite format 3\0") {
        return Err(foreign("it is no SQLite database"));
    }
    if word(68) != schema::APPLICATION_ID {
        return Err(foreign("it is a database of another program"));
    }
    match word(60) {
        schema::VERSION => Ok(()),
        found if found > schema::VERSION => Err(HistoryError::Newer {
            path: shown(path),
            found,
        }),
        _ => Err(foreign("no leakwatch wrote its version")),
    }
}

/// Made beside it and given its name when it is whole: what has the name is a history from the first moment on.
fn create(path: &Path) -> Result<(), HistoryError> {
    const VERB: &str = "create";
    let folder = path.parent().unwrap_or(Path::new("/"));
    let failed_io = |error: &io::Error| io_failed(VERB, path, error);
    let temporary = tempfile::Builder::new()
        .prefix(OsStr::new(".leakwatch-"))
        .suffix(".tmp")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(|error| failed_io(&error))?;
    let fill = || -> rusqlite::Result<()> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(temporary.path(), flags)?;
        connection.pragma_update(None, "journal_mode", "memory")?;
        connection.execute_batch(&schema::create())
    };
    fill().map_err(|error| failed(VERB, path, &error))?;
    temporary
        .as_file()
        .sync_all()
        .map_err(|error| failed_io(&error))?;
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another leakwatch was faster; whose it is shows when it is opened.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed_io(&error.error)),
    }
}
