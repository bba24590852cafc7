//! Where the tracepoints are described.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The mount points that kernels and distributions use, the modern one first.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    #[error(
        "tracefs is not mounted and cannot be mounted ({reason}); as root: mount -t tracefs tracefs /sys/kernel/tracing"
    )]
    NotMounted { reason: String },
    #[error("cannot read {path}: {error}; leakwatch needs root, or read access to tracefs")]
    Unreadable { path: PathBuf, error: std::io::Error },
}

/// The mounted tracefs, if there is one.
#[must_use]
pub fn mounted() -> Option<PathBuf> {
    PLACES
        .iter()
        .map(Path::new)
        .find(|place| place.join("events").is_dir())
        .map(Path::to_path_buf)
}

/// Finds tracefs, or mounts it in a mount namespace of this thread's own: the host's mounts stay as they are, and
/// nothing is left when leakwatch ends.
///
/// # Errors
///
/// When it is not mounted and may not be.
pub fn locate() -> Result<PathBuf, TracefsError> {
    if let Some(place) = mounted() {
        return Ok(place);
    }
    let [place, _] = PLACES;
    let refused = |what: &str, error: rustix::io::Errno| TracefsError::NotMounted {
        reason: format!("{what}: {error}"),
    };
    // SAFETY: only the mount namespace is unshared, no file descriptors or memory: nothing that Rust code of this
    // process relies on changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|error| refused("own mount namespace", error))?;
    // Without this the new mount would travel back to the host's namespace.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(|error| refused("own mount namespace", error))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", place, "tracefs", flags, None).map_err(|error| refused("mount", error))?;
    mounted().ok_or_else(|| TracefsError::NotMounted {
        reason: format!("{place} stayed empty"),
    })
}
