//! The kernel's tracing file system and the tracepoints in it.

use std::fs;
use std::io;
use std::path::Path;

use super::Finding;
use crate::probe::{ATTACH_POINTS, AttachPoint, tracefs};

const NEED: &str = "tracefs";

/// Finds tracefs, mounting it where it is not and leakwatch may; then each tracepoint in it.
pub fn examine() -> Vec<Finding> {
    let was_mounted = tracefs::mounted().is_some();
    let place = match tracefs::locate() {
        Ok(place) => place,
        Err(error) => {
            return vec![Finding::missing(
                NEED,
                error.to_string(),
                "a kernel built with CONFIG_FTRACE and CONFIG_FTRACE_SYSCALLS is needed; in a container, its host's",
            )];
        }
    };
    let detail = if was_mounted {
        format!("mounted at {}", place.display())
    } else {
        "not mounted: leakwatch mounts it for itself, in a mount namespace of its own".to_owned()
    };
    if let Err(error) = fs::metadata(place.join("events")) {
        return vec![Finding::missing(
            NEED,
            format!("{detail}, but not readable: {error}"),
            "run as root, or with CAP_DAC_READ_SEARCH",
        )];
    }
    let mut findings = vec![Finding::ok(NEED, detail)];
    findings.extend(tracepoints(&place));
    findings
}

/// One line when all are there, else one for each that is not.
fn tracepoints(tracefs: &Path) -> Vec<Finding> {
    const NEED: &str = "tracepoints";
    let absent: Vec<(&AttachPoint, io::Error)> = ATTACH_POINTS
        .iter()
        .filter_map(|point| {
            let folder = tracefs.join("events").join(point.category).join(point.name);
            fs::read(folder.join("format"))
                .and_then(|_| fs::read(folder.join("id")))
                .err()
                .map(|error| (point, error))
        })
        .collect();
    if absent.is_empty() {
        let detail = format!("all {}, their formats readable", ATTACH_POINTS.len());
        return vec![Finding::ok(NEED, detail)];
    }
    absent
        .into_iter()
        .map(|(point, error)| {
            let what = format!("{point}: {error}");
            match (point.loss, error.kind()) {
                (Some(loss), _) => Finding::degraded(NEED, what, loss),
                (None, io::ErrorKind::PermissionDenied) => {
                    Finding::missing(NEED, what, "run as root, or with CAP_DAC_READ_SEARCH")
                }
                (None, _) => {
                    Finding::missing(NEED, what, "a kernel built with CONFIG_FTRACE_SYSCALLS is needed")
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn absent_tracepoints_are_told_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        for point in ATTACH_POINTS {
            let at = folder.path().join("events").join(point.category).join(point.name);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("format"), "name: x\n").unwrap();
            fs::write(at.join("id"), "1\n").unwrap();
        }
        let all = tracepoints(folder.path());
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].state, State::Ok);

        for name in ["sys_exit_pkey_mprotect", "sys_enter_brk"] {
            fs::remove_dir_all(folder.path().join("events/syscalls").join(name)).unwrap();
        }
        let states: Vec<State> = tracepoints(folder.path())
            .iter()
            .map(|finding| finding.state)
            .collect();
        assert_eq!(states, [State::Degraded, State::Missing]);
    }
}
