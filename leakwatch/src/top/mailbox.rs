//! The latest of something, from one thread to another. Who puts never waits, and what was not taken in time is dropped.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Room for one.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    latest: Option<T>,
    closed: bool,
}

/// What there was.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    Latest(T),
    Nothing,
    /// And there will be nothing any more.
    Closed,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                latest: None,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<T> Mailbox<T> {
    pub fn put(&self, value: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.latest.replace(value);
        drop(state);
        self.changed.notify_one();
        // What nobody saw may be large: it goes when the lock is free.
        drop(before);
    }

    /// There will be nothing more; what is there can still be taken.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    /// Waits so long at most.
    pub fn take(&self, patience: Duration) -> Taken<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |state: &mut State<T>| state.latest.is_none() && !state.closed;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, patience, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        match state.latest.take() {
            Some(latest) => Taken::Latest(latest),
            None if state.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_latest_is_taken_and_the_end_is_told_after_it() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.take(Duration::ZERO), Taken::Nothing);
        mailbox.put(1);
        mailbox.put(2);
        mailbox.close();
        assert_eq!(mailbox.take(Duration::ZERO), Taken::Latest(2));
        assert_eq!(mailbox.take(Duration::from_secs(60)), Taken::Closed);
    }

    #[test]
    fn who_waits_is_woken() {
        let mailbox = Arc::new(Mailbox::default());
        let taker = {
            let mailbox = Arc::clone(&mailbox);
            std::thread::spawn(move || mailbox.take(Duration::from_secs(60)))
        };
        mailbox.put(7);
        assert_eq!(taker.join().unwrap(), Taken::Latest(7));
    }
}
