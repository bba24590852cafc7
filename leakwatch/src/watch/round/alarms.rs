//! What a round has to tell: thresholds that are beyond their bounds, and recordings that have ended.

use std::path::PathBuf;

use super::super::alert::{Alert, Event};
use super::super::recording::Recorder;
use super::super::thresholds::{Change, Threshold, Thresholds};
use super::super::tracked::{Changed, Tracked};
use super::super::{say, tell};
use super::Watch;
use crate::diagnose::verdict::Verdict;
use crate::history::service::Service;
use crate::history::store::Note;
use crate::history::{At, RunId};
use crate::sampler::sample::Moment;

impl Watch {
    pub(super) fn thresholds(&self, service: &Service) -> Thresholds {
        let own = self.options.by_service.get(&service.name);
        *own.unwrap_or(&self.options.thresholds)
    }

    pub(super) fn look(&mut self, now: Moment) {
        let at = now.since_boot.as_secs_f64();
        let learning = self.options.learning.as_secs_f64();
        let available = self.available;
        let mut changes: Vec<(u32, Changed)> = Vec::new();
        let pids: Vec<u32> = self.tracked.keys().copied().collect();
        for pid in pids {
            let Some(thresholds) = self
                .tracked
                .get(&pid)
                .map(|tracked| self.thresholds(&tracked.service))
            else {
                continue;
            };
            let Some(tracked) = self.tracked.get_mut(&pid) else {
                continue;
            };
            let learned = tracked.learn(at, learning);
            if let (Some(baseline), Some(store)) = (learned, &mut self.store) {
                store.note(Note::Baseline {
                    run: tracked.run,
                    baseline,
                });
            }
            let changed = tracked.look(at, learning, available, &thresholds);
            changes.extend(changed.into_iter().map(|changed| (pid, changed)));
        }
        for (pid, changed) in changes {
            let Some(tracked) = self.tracked.get(&pid) else {
                continue;
            };
            let event = match changed.change {
                Change::Raised => Event::Raised,
                Change::Cleared => Event::Cleared,
            };
            let at = At::of(now.wall);
            let (value, bound) = (Some(changed.value), changed.bound);
            let run = tracked.run;
            let told = (event == Event::Raised)
                .then(|| tracked.told(&self.options.proc_root, now.since_boot.as_secs_f64()));
            let verdict = told.as_ref().map(|told| &told.verdict);
            let mut alert = self.alert_of(tracked, at, event, changed.threshold, value, bound, verdict);
            let heap = told.and_then(|told| told.note(run, at));
            if let (Some(heap), Some(store)) = (heap, &mut self.store) {
                store.note(heap);
            }
            if event == Event::Raised {
                self.own.alerts += 1;
                match self.recorder.as_mut().map(|recorder| recorder.begin(&alert)) {
                    Some(Ok(file)) => alert.recording = file,
                    Some(Err(why)) => say(&why),
                    None => {}
                }
            }
            self.raise(alert, run);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an alert is just these")]
    pub(super) fn alert_of(
        &self,
        tracked: &Tracked,
        at: At,
        event: Event,
        threshold: Threshold,
        value: Option<f64>,
        bound: f64,
        verdict: Option<&Verdict>,
    ) -> Alert {
        Alert {
            at,
            event,
            threshold,
            service: tracked.service.title(),
            cgroup: tracked.service.cgroup.clone(),
            pid: tracked.subject.pid(),
            value,
            bound,
            figures: tracked.figures,
            growth: tracked.growth(self.available, verdict),
            recording: None,
            reason: None,
        }
    }

    /// Tells an alert to everybody who is to know.
    pub(super) fn raise(&mut self, alert: Alert, run: RunId) {
        let line = alert.line();
        tell(&line);
        if let Some(command) = &mut self.command {
            command.hand(&alert);
        }
        if let Some(store) = &mut self.store {
            store.note(Note::Alert {
                run,
                at: alert.at,
                event: alert.event.name(),
                threshold: alert.threshold.name(),
                line,
            });
        }
    }

    pub(super) fn collect_recordings(&mut self, now: Moment) {
        let ended = self.recorder.as_mut().and_then(Recorder::ended);
        if let Some((alert, outcome)) = ended {
            self.recorded(alert, outcome, now);
        }
    }

    pub(super) fn recorded(&mut self, alert: Alert, outcome: Result<PathBuf, String>, now: Moment) {
        let (event, recording, reason) = match outcome {
            Ok(file) => (Event::Recorded, Some(file), None),
            Err(why) => (Event::NotRecorded, None, Some(why)),
        };
        let run = self.tracked.get(&alert.pid).map(|tracked| tracked.run);
        let alert = Alert {
            at: At::of(now.wall),
            event,
            recording,
            reason,
            ..alert
        };
        self.raise(alert, run.unwrap_or(RunId(0)));
    }
}
