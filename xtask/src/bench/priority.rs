//! Before whatever else the machine is busy with, as long as short windows are measured.
//!
//! Programs and tracers inherit it alike, so that among themselves they compete as they would have. The kernel's own
//! threads do not: putting probes in and taking them out waits for these, so that births are measured without.

use std::fs;

const NICE: i32 = -15;
/// Where sessions share the processors as groups, and nice counts only within one.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// The raised priority. Dropped, all is as it was.
#[derive(Debug)]
pub struct Raised {
    own_before: i32,
    group_before: Option<i32>,
}

impl Raised {
    /// Says so on stderr where it cannot be raised: then the table has more noise, and is no less true.
    pub fn now() -> Self {
        let own_before = rustix::process::getpriority_process(None).unwrap_or(0);
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            eprintln!("cannot raise the priority ({error}): other work on this machine shows as noise");
        }
        let group = fs::read_to_string(AUTOGROUP).ok();
        let group_before = group.as_deref().and_then(group_nice);
        if group_before.is_some() {
            set_group(NICE);
        }
        Self {
            own_before,
            group_before,
        }
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        // To lower it is allowed to everybody.
        let _ = rustix::process::setpriority_process(None, self.own_before);
        if let Some(nice) = self.group_before {
            set_group(nice);
        }
    }
}

fn set_group(nice: i32) {
    if let Err(error) = fs::write(AUTOGROUP, nice.to_string()) {
        eprintln!("cannot set the priority of the session in {AUTOGROUP}: {error}");
    }
}

/// From `/autogroup-42 nice 0`.
fn group_nice(text: &str) -> Option<i32> {
    text.trim().rsplit_once(" nice ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_tells_its_nice() {
        assert_eq!(group_nice("/autogroup-42 nice -5\n"), Some(-5));
        assert_eq!(group_nice(""), None);
    }
}
