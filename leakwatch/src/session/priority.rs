//! How leakwatch's thread stands to others that want to run: the target has the right of way.

use rustix::process::{Resource, getpriority_process, getrlimit, setpriority_process};

/// What may wait: a target that wants the processor gets it.
const MODEST: i32 = 5;
/// What the target pays for while it waits, where it may not be a real-time thread.
const URGENT: i32 = -20;

/// Another priority of this thread, and of the threads that it starts, until this is dropped. Without the privilege to go
/// back it stays as it is.
#[derive(Debug)]
pub(super) struct Priority {
    /// To go back to.
    before: Option<Before>,
}

#[derive(Debug)]
enum Before {
    Nice(i32),
    Policy(libc::c_int),
}

impl Priority {
    /// Gives way to all others.
    pub fn modest() -> Self {
        Self::nice_until_dropped(MODEST)
    }

    /// Runs before all others, and does not wait until whoever runs has had his turn: that takes milliseconds on a machine
    /// that is busy, in which each call of the target costs many times as much as otherwise. For work that takes no longer.
    pub fn urgent() -> Self {
        match real_time() {
            Some(policy) => Self {
                before: Some(Before::Policy(policy)),
            },
            None => Self::nice_until_dropped(URGENT),
        }
    }

    fn nice_until_dropped(nice: i32) -> Self {
        let before = getpriority_process(None).ok().filter(|before| *before != nice);
        // To be less urgent is always allowed, and not always to go back: so that is tried first.
        let before = before.filter(|before| setpriority_process(None, before.saturating_sub(1)).is_ok());
        if before.is_some() {
            // Where this fails it is a little more urgent than it was, until it is dropped.
            let _: Result<(), rustix::io::Errno> = setpriority_process(None, nice);
        }
        Self {
            before: before.map(Before::Nice),
        }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        // Nobody can be told where this fails, and all that is lost is speed.
        match self.before {
            Some(Before::Nice(nice)) => {
                let _: Result<(), rustix::io::Errno> = setpriority_process(None, nice);
            }
            Some(Before::Policy(policy)) => {
                set_policy(policy, 0);
            }
            None => {}
        }
    }
}

/// Makes this thread a real-time one, the least of them. Returns the policy that it had, unless it stays as it is: where
/// that is not allowed, where it is one already, and where such a thread is killed when it runs for too long
/// (`RLIMIT_RTTIME`).
fn real_time() -> Option<libc::c_int> {
    /// The least priority of a real-time thread.
    const LEAST: libc::c_int = 1;
    if getrlimit(Resource::Rttime).current.is_some() {
        return None;
    }
    let before = policy()?;
    let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE].contains(&before);
    (ordinary && set_policy(libc::SCHED_FIFO, LEAST)).then_some(before)
}

// musl's functions for these do nothing.

/// Of this thread.
fn policy() -> Option<libc::c_int> {
    // SAFETY: it takes a number, of which 0 is this thread, and returns one.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    libc::c_int::try_from(policy).ok().filter(|policy| *policy >= 0)
}

/// Of this thread. Whether it was allowed.
fn set_policy(policy: libc::c_int, priority: libc::c_int) -> bool {
    // SAFETY: it reads the one number of the kernel's `sched_param`, which outlives the call; 0 is this thread.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_it_was_in_the_end() {
        // A thread's own.
        let thread = std::thread::spawn(|| {
            let now = || getpriority_process(None).unwrap();
            let before = now();
            let may = setpriority_process(None, before - 1).is_ok();
            setpriority_process(None, before).unwrap();
            assert_eq!(policy(), Some(libc::SCHED_OTHER));
            let modest = Priority::modest();
            assert_eq!(now(), if may { MODEST } else { before });
            let urgent = Priority::urgent();
            match urgent.before {
                Some(Before::Policy(_)) => assert_eq!(policy(), Some(libc::SCHED_FIFO)),
                _ => assert_eq!(now(), if may { URGENT } else { before }),
            }
            let within = Priority::urgent();
            drop(within);
            drop(urgent);
            assert_eq!(policy(), Some(libc::SCHED_OTHER));
            assert_eq!(now(), if may { MODEST } else { before });
            drop(modest);
            assert_eq!(now(), before);
            // Where it may not be a real-time thread.
            let urgent = Priority::nice_until_dropped(URGENT);
            assert_eq!(now(), if may { URGENT } else { before });
            drop(urgent);
            assert_eq!(now(), before);
        });
        thread.join().unwrap();
    }
}
