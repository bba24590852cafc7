//! Who made a recording, where, and of whom.

use std::os::unix::ffi::OsStrExt;

use super::text;
use crate::report::model::{Host, Target, Tool};

#[must_use]
pub fn tool() -> Tool {
    Tool {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// This machine.
#[must_use]
pub fn host() -> Host {
    let name = rustix::system::uname();
    Host {
        kernel: name.release().to_string_lossy().into_owned(),
        arch: name.machine().to_string_lossy().into_owned(),
        page_size_bytes: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|cpus| u32::try_from(cpus.get()).ok()),
    }
}

#[must_use]
pub fn target(target: &crate::target::Target) -> Target {
    Target {
        pid: target.pid,
        start_time: target.start_time_ticks,
        comm: text(target.comm.as_bytes()).to_string(),
        exe: target
            .exe
            .as_ref()
            .map(|exe| text(exe.as_os_str().as_bytes()).to_string()),
        cmdline: Some(
            target
                .cmdline
                .iter()
                .map(|argument| text(argument.as_bytes()).to_string())
                .collect(),
        ),
        container: target.container.clone(),
    }
}
