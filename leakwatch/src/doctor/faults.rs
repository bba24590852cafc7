//! The page-fault event, and what stands in for it.

use std::io;

use super::Finding;
use crate::probe::{FAULT_TRACEPOINT, fault_event_opens, tracefs};

const NEED: &str = "page faults";

/// Opens the event on the process, or on doctor itself. `None` where the process is gone, which another line tells.
pub fn examine(pid: Option<u32>) -> Option<Finding> {
    let opened = fault_event_opens(pid.unwrap_or(0));
    if matches!(&opened, Err(error) if error.raw_os_error() == Some(libc::ESRCH)) {
        return None;
    }
    let stands_in = || {
        let format = tracefs::locate()
            .ok()?
            .join("events")
            .join(FAULT_TRACEPOINT.category)
            .join(FAULT_TRACEPOINT.name)
            .join("format");
        std::fs::read(format).ok()
    };
    Some(finding(opened, || stands_in().is_some()))
}

fn finding(opened: io::Result<()>, stands_in: impl FnOnce() -> bool) -> Finding {
    let Err(error) = opened else {
        return Finding::ok(NEED, "the event opens: faults in user mode and in kernel mode");
    };
    if stands_in() {
        return Finding::degraded(
            NEED,
            format!("the event does not open ({error}); {FAULT_TRACEPOINT} stands in"),
            "without the event the page faults of all processes cost more, and those that the kernel takes for the \
             target (a read into fresh memory) are not seen: run as root, outside of a seccomp filter",
        );
    }
    Finding::degraded(
        NEED,
        format!("the event does not open ({error}), and {FAULT_TRACEPOINT} is not there"),
        "without either, pages have no call site of their own: run as root, outside of a seccomp filter",
    )
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_stands_in_is_told_from_nothing() {
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(finding(Ok(()), || panic!("not needed")).state, State::Ok);
        let [with, without] = [true, false].map(|there| finding(refused(), || there));
        assert_eq!((with.state, without.state), (State::Degraded, State::Degraded));
        assert!(with.detail.contains("exceptions:page_fault_user stands in"));
        assert!(without.detail.contains("not there"));
    }

    #[test]
    fn a_process_that_is_gone_has_no_line() {
        // Beyond the largest number that the kernel gives; root is told so, others may be refused first.
        if rustix::process::geteuid().is_root() {
            assert_eq!(examine(Some(4_194_305)), None);
        }
    }
}
