//! `leakwatch watch`: processes watched by /proc alone, for hours or weeks, at a small fixed cost.
//!
//! A round, in the order of the files here:
//!
//! 1. [`selection`]: new processes that are meant are found.
//! 2. [`round`]: each is sampled, what is dear within a budget; the samples go into the history, where one is kept.
//! 3. [`series`], [`baseline`], [`limit`]: the recent past of each, what it usually needs, what is left.
//!    [`heaps`]: what of that is free and only kept.
//! 4. [`tracked`]: the trend, judged now and then, and the [`thresholds`].
//! 5. [`alert`]s: a line, a [`command`], a [`recording`].
//! 6. [`exposition`], [`listen`]: the state for Prometheus.
//!
//! Nothing is attached to a process, and none is stopped. What a round costs is bounded: 20 µs for the cheap part of a
//! sample, and for the dear parts and the judging of trends a share of the interval, in turns.

pub mod alert;
pub mod baseline;
pub mod command;
pub mod exposition;
pub mod heaps;
pub mod limit;
pub mod listen;
pub mod recording;
mod resume;
pub mod round;
pub mod selection;
pub mod series;
mod summary;
pub mod thresholds;
pub mod tracked;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::history::thinning::Retention;
use crate::report::escape::escape;
use crate::sampler::ProcRoot;
use round::Watch;
use selection::Selectors;
use thresholds::Thresholds;

/// What is to be watched, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchOptions {
    pub selectors: Selectors,
    /// From one round to the next.
    pub every: Duration,
    /// `None` goes on until it is stopped.
    pub duration: Option<Duration>,
    /// How far back the trend looks.
    pub window: Duration,
    /// How long a baseline is learned.
    pub learning: Duration,
    pub history: Option<PathBuf>,
    pub retention: Retention,
    pub thresholds: Thresholds,
    /// Those of services by their name, in place of the above.
    pub by_service: HashMap<String, Thresholds>,
    /// A program and its arguments.
    pub on_alert: Vec<OsString>,
    /// The window of the recording that an alert begins.
    pub record_on_alert: Option<Duration>,
    /// Where such recordings go.
    pub recordings: PathBuf,
    pub listen: Option<SocketAddr>,
    /// Whether heaps are read, to tell growth that is held from memory that is free and kept.
    pub heaps: bool,
    pub proc_root: ProcRoot,
}

/// How a watch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Alerts raised.
    pub alerts: u64,
}

/// A line for who looks after leakwatch, on stderr.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "leakwatch: {}", escape(line));
}

/// A result, on stdout. It is inert already. That nobody reads any more does not end a watch.
fn tell(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Watches until the duration is over, a signal comes, or the last of the processes that were meant by number is gone.
///
/// # Errors
/// When there is nothing to be watched, the history is none that may be written to, or the address cannot be had. Once it
/// runs, what goes wrong is told and survived.
pub fn watch(options: WatchOptions) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the clock of the watch")?;
    runtime.block_on(run(options))
}

async fn run(options: WatchOptions) -> anyhow::Result<Outcome> {
    // From here on a signal ends the watch in good order.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let every = options.every;
    let ends = options.duration.map(|duration| Instant::now() + duration);
    let open = options.selectors.is_open();
    let mut watch = Watch::start(options)?;
    let mut next = Instant::now();
    loop {
        watch.round();
        if !open && watch.processes() == 0 {
            say("none of the processes is left: the watch ends");
            break;
        }
        next += every;
        let now = Instant::now();
        if next < now {
            // A round took longer than the interval.
            next = now + every.min(Duration::from_secs(1)) / 10;
        }
        let until = ends.map_or(next, |ends| ends.min(next));
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep_until(until) => {}
        }
        if ends.is_some_and(|ends| Instant::now() >= ends) {
            break;
        }
    }
    Ok(watch.finish())
}
