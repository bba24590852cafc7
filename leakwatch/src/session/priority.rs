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
    Policy(Policy),
}

/// How a thread is scheduled (`sched(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    number: libc::c_int,
    /// Of a real-time thread; else 0.
    priority: libc::c_int,
}

/// Of a thread like most.
const ORDINARY: Policy = Policy {
    number: libc::SCHED_OTHER,
    priority: 0,
};
/// The least real-time thread.
const REAL_TIME: Policy = Policy {
    number: libc::SCHED_FIFO,
    priority: 1,
};

impl Priority {
    /// Gives way to all others.
    pub fn modest() -> Self {
        Self::nice_until_dropped(MODEST)
    }

    /// Runs before all others, and does not wait until whoever runs has had his turn: that takes milliseconds on a machine
    /// that is busy, in which each call of the target costs many times as much as otherwise. For work that takes no longer.
    pub fn urgent() -> Self {
        match real_time() {
            Some(before) => Self {
                before: Some(Before::Policy(before)),
            },
            None => Self::nice_until_dropped(URGENT),
        }
    }

    /// Not a real-time thread: for those that it starts, whose work is not urgent.
    pub fn ordinary() -> Self {
        let before = Policy::now().filter(|before| *before == REAL_TIME && ORDINARY.set());
        Self {
            before: before.map(Before::Policy),
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
                policy.set();
            }
            None => {}
        }
    }
}

/// Makes this thread a real-time one. Returns what it was, unless it stays as it is: where that is not allowed, where it is
/// one already, and where such a thread is killed when it runs for too long (`RLIMIT_RTTIME`).
fn real_time() -> Option<Policy> {
    if getrlimit(Resource::Rttime).current.is_some() {
        return None;
    }
    let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
    Policy::now().filter(|before| ordinary.contains(&before.number) && REAL_TIME.set())
}

// By system calls: musl's functions for these do nothing. The kernel's `sched_param` is one number.
impl Policy {
    /// Of this thread.
    fn now() -> Option<Self> {
        // SAFETY: it takes a number, of which 0 is this thread, and returns one.
        let number = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
        let mut priority: libc::c_int = 0;
        // SAFETY: it writes one number, to where `priority` lies.
        let told = unsafe { libc::syscall(libc::SYS_sched_getparam, 0, &raw mut priority) };
        let number = libc::c_int::try_from(number).ok().filter(|number| *number >= 0)?;
        (told == 0).then_some(Self { number, priority })
    }

    /// Makes it this thread's. Whether it was allowed.
    fn set(self) -> bool {
        // SAFETY: it reads one number, which outlives the call; 0 is this thread.
        unsafe {
            libc::syscall(
                libc::SYS_sched_setscheduler,
                0,
                self.number,
                &raw const self.priority,
            ) == 0
        }
    }
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
            assert_eq!(Policy::now(), Some(ORDINARY));
            let modest = Priority::modest();
            assert_eq!(now(), if may { MODEST } else { before });
            let urgent = Priority::urgent();
            match urgent.before {
                Some(Before::Policy(_)) => {
                    assert_eq!(Policy::now(), Some(REAL_TIME));
                    let ordinary = Priority::ordinary();
                    assert_eq!(Policy::now(), Some(ORDINARY));
                    drop(ordinary);
                    assert_eq!(Policy::now(), Some(REAL_TIME));
                }
                _ => assert_eq!(now(), if may { URGENT } else { before }),
            }
            let within = Priority::urgent();
            drop(within);
            drop(urgent);
            assert_eq!(Policy::now(), Some(ORDINARY));
            drop(Priority::ordinary());
            assert_eq!(Policy::now(), Some(ORDINARY));
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
