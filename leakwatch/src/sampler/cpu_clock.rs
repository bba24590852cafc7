//! The processor time of a process by its clock, which the kernel keeps to the nanosecond; `/proc/PID/stat` tells the
//! same in steps of a hundredth of a second.

use std::time::Duration;

/// What all threads of a process have used, those that have ended included (`clock_getcpuclockid(3)`). Any process may
/// ask for any other's. `None` when there is none of this PID.
#[must_use]
pub fn processor(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: it writes one clock's number, to where `clock` lies.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one timespec, to where `time` lies; a clock that is gone is an error.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_sleep_is_not() {
        let own = std::process::id();
        let before = processor(own).unwrap();
        let mut sum = 0_u64;
        while processor(own).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let idle = processor(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(idle < Duration::from_millis(50), "{idle:?} of a sleep");
        assert_eq!(processor(child.id()), None, "it is gone");
        assert_eq!(processor(0), None);
        assert_eq!(processor(u32::MAX), None);
    }
}
