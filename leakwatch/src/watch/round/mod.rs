//! A round: who is there, a sample of each, what became of it.

mod alarms;
mod publish;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::alert::Event;
use super::baseline::Baseline;
use super::command::AlertCommand;
use super::exposition::Own;
use super::heaps::Turn;
use super::listen::Listener;
use super::recording::Recorder;
use super::resume::{self, Resumed};
use super::selection::{Discovery, Found};
use super::series::Series;
use super::thresholds::Threshold;
use super::tracked::Tracked;
use super::{Outcome, WatchOptions, say, summary, tell};
use crate::history::service::Instances;
use crate::history::store::{Note, ProcessKey, Row, Store};
use crate::history::{At, RunId};
use crate::sampler::ProcRoot;
use crate::sampler::host::{Boot, Memory};
use crate::sampler::sample::{Moment, Parts, Sampler};
use crate::sampler::subject::NoSample;
use crate::sampler::totals::{self, Totals};

/// Processes at most; more are counted and left out.
const PROCESSES_MAX: usize = 100_000;
/// Points of all series together, and of one at least and at most. A point has 32 bytes.
const POINTS_BUDGET: usize = 1 << 20;
const POINTS_LEAST: usize = 96;
const POINTS_MOST: usize = 1024;
/// One part in so many of the interval may go to the dear parts of samples, and one to the judging of trends.
const DEAR_SHARE: u32 = 100;
const JUDGE_SHARE: u32 = 100;
/// And one to first readings of heaps.
const HEAP_SHARE: u32 = 100;
/// Notes about processes in one round.
const NOTES_MAX: usize = 10;

/// A watch that is going on.
#[derive(Debug)]
pub struct Watch {
    options: WatchOptions,
    sampler: Sampler,
    boot: String,
    discovery: Discovery,
    instances: Instances,
    tracked: BTreeMap<u32, Tracked>,
    resumed: Resumed,
    store: Option<Store>,
    /// Where no store gives them out.
    next_run: i64,
    command: Option<AlertCommand>,
    recorder: Option<Recorder>,
    listener: Option<Listener>,
    /// The dear parts of the next round begin with this process.
    cursor: u32,
    available: Option<u64>,
    list_failing: bool,
    full: bool,
    own: Own,
}

/// What a round has to say of processes that came and went.
#[derive(Debug, Default)]
struct Remarks {
    lines: Vec<String>,
    more: usize,
}

impl Remarks {
    fn add(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < NOTES_MAX {
            self.lines.push(line());
        } else {
            self.more += 1;
        }
    }

    fn say(self) {
        for line in &self.lines {
            say(line);
        }
        if self.more > 0 {
            say(&format!("and {} more that came or went", self.more));
        }
    }
}

impl Watch {
    /// Opens what is to be opened, before anything is sampled.
    ///
    /// # Errors
    /// See [`super::watch`].
    pub fn start(options: WatchOptions) -> anyhow::Result<Self> {
        let mut sampler = Sampler::new(options.proc_root.clone());
        for &pid in &options.selectors.pids {
            sampler
                .subject(pid)
                .map_err(|why| anyhow::anyhow!("cannot watch PID {pid}: {why}"))?;
        }
        let boot = Boot::read(&options.proc_root).id.unwrap_or_default();
        let mut store = options
            .history
            .as_deref()
            .map(|path| Store::open(path, options.retention))
            .transpose()?;
        let resumed = match &mut store {
            Some(store) => resume::resume(
                store,
                &mut sampler,
                &boot,
                Moment::now(),
                options.window,
                POINTS_MOST,
            )?,
            None => Resumed::default(),
        };
        let listener = options.listen.map(Listener::start).transpose()?;
        if let Some(listener) = &listener {
            say(&format!("listening on http://{}/metrics", listener.address()));
        }
        let command = (!options.on_alert.is_empty()).then(|| AlertCommand::new(options.on_alert.clone()));
        let recorder = options
            .record_on_alert
            .map(|window| Recorder::new(window, options.recordings.clone()));
        Ok(Self {
            sampler,
            boot,
            discovery: Discovery::default(),
            instances: Instances::default(),
            tracked: BTreeMap::new(),
            resumed,
            store,
            next_run: 1,
            command,
            recorder,
            listener,
            cursor: 0,
            available: None,
            list_failing: false,
            full: false,
            own: Own::default(),
            options,
        })
    }

    /// Processes under watch.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.tracked.len()
    }

    /// One round. What goes wrong in it is told and survived.
    pub fn round(&mut self) {
        let started = Instant::now();
        let mut remarks = Remarks::default();
        self.available = Memory::read(&self.options.proc_root)
            .ok()
            .and_then(|memory| memory.available);
        self.discover(&mut remarks);
        let rows = self.sample(&mut remarks);
        let at = Moment::now();
        self.begin_heaps(at.since_boot.as_secs_f64());
        self.judge(at.since_boot.as_secs_f64());
        self.look(at);
        self.collect_recordings(at);
        self.keep(&rows, at);
        self.own.rounds += 1;
        remarks.say();
        self.own.round_seconds = started.elapsed().as_secs_f64();
        self.publish();
    }

    fn discover(&mut self, remarks: &mut Remarks) {
        let tracked = &self.tracked;
        let look = self
            .discovery
            .look(&self.options.proc_root, &self.options.selectors, |pid| {
                tracked.contains_key(&pid)
            });
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                if !self.list_failing {
                    say(&format!("new processes cannot be looked for: {error}"));
                }
                self.list_failing = true;
                return;
            }
        };
        self.list_failing = false;
        if self.own.rounds == 0 && look.found.is_empty() {
            say("no process is there yet that is meant: waiting for one");
        }
        // Those that run on take their own places before others take what is free.
        let (known, new): (Vec<Found>, Vec<Found>) = look
            .found
            .into_iter()
            .partition(|found| self.resumed.running.contains_key(&self.key(found)));
        for found in known.into_iter().chain(new) {
            if self.tracked.len() >= PROCESSES_MAX {
                if !self.full {
                    say(&format!(
                        "{PROCESSES_MAX} processes are watched: those that come now are left out"
                    ));
                }
                self.full = true;
                break;
            }
            self.track(found, remarks);
        }
    }

    fn key(&self, found: &Found) -> ProcessKey {
        ProcessKey {
            pid: found.pid,
            start_time_ticks: found.start_time_ticks,
            boot: self.boot.clone(),
        }
    }

    fn track(&mut self, found: Found, remarks: &mut Remarks) {
        let Ok(subject) = self.sampler.subject(found.pid) else {
            return;
        };
        let now = Moment::now();
        let learning = self.options.learning.as_secs_f64();
        let key = ProcessKey {
            start_time_ticks: subject.start_time_ticks(),
            ..self.key(&found)
        };
        let before =
            self.resumed.running.remove(&key).filter(|before| {
                before.service.name == found.name && self.instances.take_again(&before.service)
            });
        let goes_on = before.is_some();
        let (run, service, baseline) = match before {
            Some(before) => {
                let baseline = resume::baseline(&before, now, learning);
                remarks.add(|| format!("watching {} (PID {}) again", before.service.title(), found.pid));
                (before.run, before.service, baseline)
            }
            None => {
                let service = self.instances.take(&found.name, &found.cgroup);
                let at = At::of(now.wall);
                let run = match &mut self.store {
                    Some(store) => store.begin(&service, key, at),
                    None => {
                        self.next_run += 1;
                        RunId(self.next_run)
                    }
                };
                let again = if self.resumed.series.contains_key(&service) {
                    ": a new run of it"
                } else {
                    ""
                };
                remarks.add(|| format!("watching {} (PID {}){again}", service.title(), found.pid));
                let baseline = Baseline::learning(now.since_boot.as_secs_f64(), learning);
                (run, service, baseline)
            }
        };
        let mut series = self.resumed.series.remove(&service).unwrap_or_default();
        if !goes_on {
            series.restart();
        }
        self.tracked
            .insert(found.pid, Tracked::new(subject, run, service, series, baseline));
    }

    fn sample(&mut self, remarks: &mut Remarks) -> Vec<Row> {
        let budget = (self.options.every / DEAR_SHARE).max(Duration::from_millis(1));
        let points = (POINTS_BUDGET / self.tracked.len().max(1)).clamp(POINTS_LEAST, POINTS_MOST);
        let window = self.options.window.as_secs_f64();
        let pids: Vec<u32> = self
            .tracked
            .range(self.cursor..)
            .chain(self.tracked.range(..self.cursor))
            .map(|(pid, _)| *pid)
            .collect();
        let mut rows = Vec::with_capacity(if self.store.is_some() { pids.len() } else { 0 });
        let mut dear = Duration::ZERO;
        let mut cursor = None;
        for pid in pids {
            let Some(tracked) = self.tracked.get_mut(&pid) else {
                continue;
            };
            let parts = if dear < budget {
                Parts::ALL
            } else {
                cursor = cursor.or(Some(pid));
                Parts::NONE
            };
            match self.sampler.sample(&mut tracked.subject, parts) {
                Ok(sample) => {
                    if parts == Parts::ALL {
                        dear += sample.cost.wall;
                    }
                    let at = sample.at.since_boot.as_secs_f64();
                    if !tracked.take(&sample, at, window, points) {
                        self.lose(pid, "it executed another program", remarks);
                        continue;
                    }
                    self.own.samples += 1;
                    if self.store.is_some() {
                        rows.push(Row {
                            run: tracked.run,
                            at: tracked.last_at,
                            figures: crate::history::figures::Figures::of(&sample),
                        });
                    }
                }
                // Nothing of it may be read just now: it is there all the same.
                Err(NoSample::Unreadable(_)) => {}
                Err(why) => self.lose(pid, ending(why), remarks),
            }
        }
        self.cursor = cursor.unwrap_or(0);
        rows
    }

    /// A process is no more what it was.
    fn lose(&mut self, pid: u32, ending: &'static str, remarks: &mut Remarks) {
        let Some(tracked) = self.tracked.remove(&pid) else {
            return;
        };
        self.instances.free(&tracked.service);
        let moment = Moment::now();
        let now = At::of(moment.wall);
        if let Some(store) = &mut self.store {
            store.note(Note::Ended {
                run: tracked.run,
                at: now,
                ending,
            });
        }
        remarks.add(|| format!("{} (PID {pid}): {ending}", tracked.service.title()));
        let raised: Vec<Threshold> = tracked.raised().collect();
        let thresholds = self.thresholds(&tracked.service);
        for threshold in raised {
            let bound = thresholds.bound(threshold, tracked.baseline.bytes());
            let alert = self.alert_of(
                &tracked,
                now,
                Event::Ended,
                threshold,
                None,
                bound.unwrap_or(0.0),
                None,
            );
            self.raise(alert, tracked.run);
        }
        // Its past is that of the service.
        self.resumed.series.insert(tracked.service, tracked.series);
    }

    /// Reads heaps that were not read yet, those first that gained most, within a budget.
    fn begin_heaps(&mut self, at: f64) {
        if !self.options.heaps {
            return;
        }
        let mut due: Vec<(u32, f64)> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| tracked.heap.is_due(tracked.series.first_at(), at))
            .map(|(pid, tracked)| (*pid, tracked.series.gain()))
            .collect();
        due.sort_unstable_by(|(_, one), (_, other)| other.total_cmp(one));
        let mut turn = Turn::of(self.options.every / HEAP_SHARE);
        for (pid, _) in due {
            if !turn.goes_on() {
                break;
            }
            if let Some(tracked) = self.tracked.get_mut(&pid) {
                tracked.begin_heap(&self.options.proc_root, at, self.options.window);
            }
        }
        let unreadable = self
            .tracked
            .values()
            .filter(|tracked| tracked.heap.is_unreadable());
        self.own.heaps_unread = unreadable.count() as u64;
    }

    /// Judges who is due, those first that gained most, within a budget.
    fn judge(&mut self, at: f64) {
        let budget = (self.options.every / JUDGE_SHARE).max(Duration::from_millis(5));
        let started = Instant::now();
        let mut due: Vec<(u32, f64)> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| tracked.is_due(at))
            .map(|(pid, tracked)| (*pid, tracked.series.gain()))
            .collect();
        due.sort_unstable_by(|(_, one), (_, other)| other.total_cmp(one));
        for (pid, _) in due {
            if let Some(tracked) = self.tracked.get_mut(&pid) {
                tracked.judge(at);
            }
            if started.elapsed() > budget {
                break;
            }
        }
        // Those of services that are gone for long.
        if self.own.rounds.is_multiple_of(64) {
            let window = self.options.window.as_secs_f64();
            self.resumed
                .series
                .retain(|_, series: &mut Series| series.last_at().is_some_and(|last| last >= at - window));
        }
    }

    fn keep(&mut self, rows: &[Row], now: Moment) {
        let Some(store) = &mut self.store else { return };
        if let Some(line) = store.write(rows) {
            say(&line);
        }
        if let Some(line) = store.thin(At::of(now.wall)) {
            say(&line);
        }
        self.own.lost_samples = store.losses().samples;
        self.own.history_failing = store.is_failing();
        if self.listener.is_some() {
            self.own.history_bytes = store.size();
        }
    }

    /// Ends in good order: the last recording, the last samples, a summary.
    pub fn finish(mut self) -> Outcome {
        let ended = self.recorder.as_mut().and_then(Recorder::finish);
        let now = Moment::now();
        if let Some((alert, outcome)) = ended {
            self.recorded(alert, outcome, now);
        }
        let at = now.since_boot.as_secs_f64();
        let started = Instant::now();
        // What is told at the end is of the whole time.
        for tracked in self.tracked.values_mut() {
            if started.elapsed() > Duration::from_secs(2) {
                break;
            }
            tracked.judge(at);
        }
        let rows = summary::rows(self.tracked.values(), &self.options.proc_root, at);
        let lines = summary::lines(&rows, self.tracked.len(), self.available);
        let heaps = rows
            .iter()
            .filter_map(|(tracked, told)| told.note(tracked.run, At::of(now.wall)));
        let heaps: Vec<Note> = heaps.collect();
        if let Some(store) = &mut self.store {
            for heap in heaps {
                store.note(heap);
            }
        }
        // The alerts of the end too.
        self.keep(&[], now);
        for line in lines {
            tell(&line);
        }
        say(&summary::own(
            self.tracked.len(),
            &self.own,
            processor_seconds(),
            own_totals().peak_rss,
            self.store.as_ref(),
        ));
        Outcome {
            alerts: self.own.alerts,
        }
    }
}

fn ending(why: NoSample) -> &'static str {
    match why {
        NoSample::Exited => "it exited",
        NoSample::Replaced { .. } => "it exited, and its number is another's",
        NoSample::Zombie => "it exited and was not reaped",
        NoSample::LeaderExited => "its main thread exited",
        NoSample::KernelThread | NoSample::Unreadable(_) => "it cannot be read any more",
    }
}

/// Processor time of this process, the kernel's included.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)).as_secs_f64()
}

fn own_totals() -> Totals {
    totals::read_status(&ProcRoot::default(), std::process::id()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
