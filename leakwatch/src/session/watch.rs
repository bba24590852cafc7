//! The window: events come, the clock runs, somebody ends it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::births::BirthWatch;
use super::live::Live;
use super::process::{monotonic_ns, regions};
use super::state::State;
use super::{Progress, RecordOptions};
use crate::probe::{Counts, Probe};
use crate::report::model::EndedBy;
use crate::sampler::maps;

/// The ring is looked at this often. A wake-up for each event would cost the target more than the event; and where all
/// CPUs are busy each look takes one from it, and what it had in that one's caches. If the ring fills faster the kernel
/// side calls.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// The same where children are followed: to say where the stacks of one point that lives shortly it must still be there.
const DRAIN_EVERY_OF_CHILDREN: Duration = Duration::from_millis(20);
/// While it is waited for what is still to come.
const DRAIN_AGAIN: Duration = Duration::from_millis(20);
/// Events taken before the clock and the signals get their turn.
pub(super) const DRAIN_MAX: usize = 16 * 1024;
/// While a burst is on, before it is seen whether it is to end: a page fault's event takes as long as hundreds of hits.
const DRAIN_IN_BURST: usize = 64;
/// So many of what waits are taken before it is seen whether the rest is new.
const DRAIN_AT_ONCE: usize = 256;
const TICK_EVERY: Duration = Duration::from_secs(1);

/// What ends the window from outside.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they are noted rather than deadly. To be called within the event loop's context.
    pub fn catch() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// At that moment; without one never. Then it is the timer that wakes.
async fn ends_at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// When somebody says so; without anybody never.
async fn notified(stop: Option<&Notify>) {
    match stop {
        Some(stop) => stop.notified().await,
        None => std::future::pending().await,
    }
}

/// A descriptor of its own for the event loop.
fn readable(fd: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    let own = fd.try_clone_to_owned().context("cannot duplicate a descriptor")?;
    // SAFETY: an OwnedFd gives the same descriptor each time it is asked, and it is open until it is dropped.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
        .map_err(|error| anyhow::anyhow!("cannot wait for a descriptor: {error}"))
}

/// The probe and what its events change.
pub(super) struct Watch {
    pub probe: Probe,
    pub state: State,
    /// The kernel's counters when the window began.
    pub counts_before: Counts,
    /// `None` where births are not watched.
    pub births: Option<BirthWatch>,
    /// Of what is shown while it goes on.
    pub(super) live: Live,
    lost_seen: u64,
    /// When the newest of the events that were taken was sent, nanoseconds.
    latest_event: u64,
}

impl Watch {
    pub fn new(probe: Probe, state: State) -> Result<Self> {
        let counts_before = probe.counts()?;
        Ok(Self {
            probe,
            state,
            lost_seen: counts_before.lost(),
            latest_event: 0,
            counts_before,
            births: None,
            live: Live::default(),
        })
    }

    pub fn drain(&mut self, limit: usize) -> usize {
        let Self {
            probe,
            state,
            latest_event,
            ..
        } = self;
        let taken = probe.drain(limit, |event| {
            *latest_event = (*latest_event).max(event.header.time);
            state.take(&event);
        });
        if state.sampling.is_some()
            && let Err(error) = state.follow_sampling(probe)
        {
            state.sampling_error.get_or_insert_with(|| error.to_string());
        }
        for process in state.processes.values_mut() {
            process.weigh_huge_pages();
        }
        taken
    }

    /// Runs `work` on another thread and drains meanwhile: reading /proc of a large process takes longer than the ring
    /// lasts.
    pub fn drain_while<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let thread = std::thread::spawn(work);
        while !thread.is_finished() {
            if self.drain(DRAIN_MAX) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a reader of /proc panicked"))
    }

    /// Takes all that waits by now. A target that goes on may outrun it: what comes meanwhile is left.
    pub fn drain_rest(&mut self) {
        let now = monotonic_ns();
        while self.drain(DRAIN_AT_ONCE) > 0 && self.latest_event <= now {}
    }

    /// Watches until the deadline, a signal, or the target's end.
    pub async fn run(
        &mut self,
        options: &RecordOptions,
        signals: &mut Signals,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let ring = readable(self.probe.ring_fd())?;
        let pidfd = readable(options.target.pidfd())?;
        let mut timer = tokio::time::interval(if options.follow_children {
            DRAIN_EVERY_OF_CHILDREN
        } else {
            DRAIN_EVERY
        });
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = options.ends_after().map(|after| self.state.began + after);
        let deadline = ends_at(end);
        tokio::pin!(deadline);
        let stop = progress.stop();
        let stopped = notified(stop.as_deref());
        tokio::pin!(stopped);
        let mut next_tick = Instant::now() + TICK_EVERY;
        let mut next_join = Instant::now();

        while self.state.ended_by.is_none() {
            tokio::select! {
                biased;
                _ = signals.interrupt.recv() => self.state.end(EndedBy::Interrupt),
                _ = signals.terminate.recv() => self.state.end(EndedBy::Interrupt),
                () = &mut stopped => self.state.end(EndedBy::Interrupt),
                () = &mut deadline => self.state.end(EndedBy::Deadline),
                ready = pidfd.readable() => {
                    ready?.retain_ready();
                    self.target_exited();
                }
                ready = ring.readable() => {
                    // Drained to the end first, then told so: the other way round a record in between would wait for
                    // the timer.
                    self.drain_in_turn();
                    ready?.clear_ready();
                }
                () = ends_at(self.births_wake().map(|wake| self.state.began + wake)) => {}
                _ = timer.tick() => {}
            }
            self.drain_in_turn();
            self.step_births();
            // A sample may take longer than a burst should.
            let in_burst = self.births.as_ref().is_some_and(BirthWatch::is_in_burst);
            if !in_burst && self.state.samples.due(self.state.began.elapsed()) {
                self.state.grown = self.state.sample();
            }
            if Instant::now() >= next_tick && !in_burst {
                next_tick = Instant::now() + TICK_EVERY;
                self.tick(progress)?;
            }
            if Instant::now() >= next_join && !in_burst {
                next_join = self.join_children(options)?;
            }
        }
        self.count_unasked_children();
        Ok(())
    }

    /// As [`Self::drain`], and in a burst what is due of it comes in time.
    fn drain_in_turn(&mut self) {
        let mut left = DRAIN_MAX;
        while left > 0 {
            let in_burst = self.births.as_ref().is_some_and(BirthWatch::is_in_burst);
            let most = if in_burst { DRAIN_IN_BURST } else { left };
            let taken = self.drain(most.min(left));
            if in_burst {
                self.step_births();
            }
            if taken < most.min(left) {
                break;
            }
            left -= taken.min(left);
        }
    }

    fn births_wake(&self) -> Option<Duration> {
        let now = self.state.began.elapsed();
        self.births.as_ref().and_then(|births| births.wakes(now))
    }

    fn target_exited(&mut self) {
        // Its last events may still be in the ring, the exit among them, and an exec would have its own.
        self.drain_rest();
        let target = self.state.target;
        self.state.exited(target);
    }

    fn tick(&mut self, progress: &mut dyn Progress) -> Result<()> {
        progress.tick(self.state.began.elapsed(), self.state.events, self.state.grown);
        let lost = self.probe.counts()?.lost();
        if lost > self.lost_seen {
            self.lost_seen = lost;
            self.check();
        }
        if let Some(viewer) = progress.viewer() {
            self.show(viewer);
        }
        Ok(())
    }

    /// A check leaves out what calls of the last second may be changing. Where events were lost there may be errors in
    /// just that, and no later check comes to mend them: once more, when it has settled.
    pub fn check_again_after_losses(&mut self) {
        const SETTLED_AFTER: Duration = Duration::from_millis(1100);
        if self.lost_now() <= self.counts_before.lost() {
            return;
        }
        let settled = Instant::now() + SETTLED_AFTER;
        while Instant::now() < settled {
            if self.drain(DRAIN_MAX) == 0 {
                std::thread::sleep(DRAIN_AGAIN);
            }
        }
        self.check();
    }

    fn lost_now(&self) -> u64 {
        self.probe.counts().map_or(0, |counts| counts.lost())
    }

    /// Brings the ledgers back to what maps says: after lost events, and at the end.
    pub fn check(&mut self) {
        let pids: Vec<u32> = self.living();
        for pid in pids {
            let Some(process) = self.state.processes.get_mut(&pid) else {
                continue;
            };
            process.ledger.begin_check(monotonic_ns());
            let Ok(read) = maps::read(&self.state.root, pid) else {
                continue;
            };
            // Whatever crossed the reading is in the ring by now.
            self.drain_rest();
            if let Some(process) = self.state.processes.get_mut(&pid)
                && !process.gone
            {
                process.ledger.finish_check(&regions(&read.mappings));
            }
        }
    }

    pub fn living(&self) -> Vec<u32> {
        self.state
            .processes
            .values()
            .filter(|process| !process.gone)
            .map(|process| process.pid)
            .collect()
    }
}
