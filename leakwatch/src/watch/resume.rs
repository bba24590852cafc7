//! Going on with a history that another leakwatch wrote: who runs on, what was learned of them, their recent past.

use std::collections::HashMap;

use super::baseline::Baseline;
use super::series::Series;
use crate::history::file::HistoryError;
use crate::history::service::Service;
use crate::history::store::{Note, ProcessKey, RecentRun, Store};
use crate::history::{At, RunId};
use crate::sampler::sample::{Moment, Sampler};

/// What the file says of the time before.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The runs that go on, as long as nobody has claimed them.
    pub running: HashMap<ProcessKey, RecentRun>,
    /// The recent past of each service, of those that run no more too.
    pub series: HashMap<Service, Series>,
}

/// Reads it, and writes the end of those runs that are over.
pub fn resume(
    store: &mut Store,
    sampler: &mut Sampler,
    boot: &str,
    now: Moment,
    window: std::time::Duration,
    points: usize,
) -> Result<Resumed, HistoryError> {
    let since = At::of(now.wall).before(window);
    let runs = store.runs_since(since)?;
    let mut resumed = Resumed::default();
    let services: HashMap<RunId, Service> = runs.iter().map(|run| (run.run, run.service.clone())).collect();
    let mut last_of: HashMap<Service, RunId> = HashMap::new();
    let seconds = window.as_secs_f64();
    store.samples_since(since, |run, at, figures| {
        let Some(service) = services.get(&run) else { return };
        // A clock that was set back leaves samples of times to come.
        let at = seconds_at(now, at);
        if at > now.since_boot.as_secs_f64() {
            return;
        }
        let series = resumed.series.entry(service.clone()).or_default();
        if last_of
            .insert(service.clone(), run)
            .is_some_and(|last| last != run)
        {
            series.restart();
        }
        series.push(at, &figures, seconds, points);
    })?;
    let last_at = store.last_at()?;
    for run in runs.into_iter().filter(|run| run.open) {
        let alive = run.process.boot == boot
            && sampler
                .subject(run.process.pid)
                .is_ok_and(|subject| subject.start_time_ticks() == run.process.start_time_ticks);
        if alive {
            resumed.running.insert(run.process.clone(), run);
        } else {
            // When it ended nobody saw: not before it was last seen.
            store.note(Note::Ended {
                run: run.run,
                at: last_at.unwrap_or(run.first_at),
                ending: "while nobody watched",
            });
        }
    }
    Ok(resumed)
}

/// A time of the file by the clock that never jumps, seconds; negative before the boot.
fn seconds_at(now: Moment, at: At) -> f64 {
    now.since_boot.as_secs_f64() - At::of(now.wall).seconds_since(at)
}

/// What was learned before goes on to hold, or goes on to be learned.
#[must_use]
pub fn baseline(run: &RecentRun, now: Moment, learning: f64) -> Baseline {
    match run.baseline {
        Some(bytes) => Baseline::known(bytes),
        None => Baseline::learning(seconds_at(now, run.first_at), learning),
    }
}
