//! How leakwatch's thread stands to others that want to run: the target has the right of way.

use rustix::process::{getpriority_process, setpriority_process};

/// What may wait: a target that wants the processor gets it.
const MODEST: i32 = 5;
/// What the target pays for while it waits.
const URGENT: i32 = -20;

/// Another priority of this thread, and of the threads that it starts, until this is dropped. Without the privilege to go
/// back it stays as it is.
#[derive(Debug)]
pub(super) struct Priority {
    /// To go back to.
    before: Option<i32>,
}

impl Priority {
    /// Gives way to all others.
    pub fn modest() -> Self {
        Self::until_dropped(MODEST)
    }

    /// Runs before all others.
    pub fn urgent() -> Self {
        Self::until_dropped(URGENT)
    }

    fn until_dropped(nice: i32) -> Self {
        let before = getpriority_process(None).ok().filter(|before| *before != nice);
        // To be less urgent is always allowed, and not always to go back: so that is tried first.
        let before = before.filter(|before| setpriority_process(None, before.saturating_sub(1)).is_ok());
        if before.is_some() {
            // Where this fails it is a little more urgent than it was, until it is dropped.
            let _: Result<(), rustix::io::Errno> = setpriority_process(None, nice);
        }
        Self { before }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Nobody can be told, and all that is lost is speed.
            let _: Result<(), rustix::io::Errno> = setpriority_process(None, before);
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
            let modest = Priority::modest();
            assert_eq!(now(), if may { MODEST } else { before });
            let urgent = Priority::urgent();
            assert_eq!(now(), if may { URGENT } else { before });
            drop(urgent);
            assert_eq!(now(), if may { MODEST } else { before });
            drop(modest);
            assert_eq!(now(), before);
        });
        thread.join().unwrap();
    }
}
