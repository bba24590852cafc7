//! Processes come and go: forks, execs, exits.

use super::process::{Measure, Process, anonymous_of};
use super::state::State;
use crate::probe::Event;
use crate::report::model::EndedBy;
use crate::sampler::totals;

/// Processes kept at most; children that exited make room for others, and more than that are counted.
const CHILDREN_MAX: usize = 1024;
/// Of so many the size is read with each sample; the others are counted.
const CHILDREN_SAMPLED_MAX: usize = 64;

impl State {
    pub(super) fn forked(&mut self, event: &Event<'_>) {
        let child = u32::try_from(event.header.address).unwrap_or(0);
        let rules = self.page_rules();
        let Some(parent) = self.processes.get_mut(&event.header.tgid) else {
            return;
        };
        parent.pages.note_fork(event.header.time);
        if self.follow_children && self.processes.len() > CHILDREN_MAX {
            self.forget_exited_children();
        }
        if !self.follow_children || self.processes.len() > CHILDREN_MAX {
            self.unfollowed_children += 1;
            return;
        }
        let Some(parent) = self.processes.get(&event.header.tgid) else {
            return;
        };
        let mut process = parent.fork(&self.root, child, rules);
        self.unwinder.fork(event.header.tgid, child);
        process.set_start(Measure::at_birth(
            &self.root,
            child,
            self.window(),
            self.sampling.is_some(),
        ));
        self.processes.insert(child, process);
    }

    /// Makes room: what they had they gave back, so that only what they touched is lost to the report.
    fn forget_exited_children(&mut self) {
        let before = self.processes.len();
        self.processes
            .retain(|_, process| !process.gone || process.parent.is_none());
        let processes = &self.processes;
        self.heaps.retain(|pid, _| processes.contains_key(pid));
        let forgotten = before - self.processes.len();
        self.forgotten_children = self.forgotten_children.saturating_add(forgotten as u64);
    }

    pub(super) fn executed(&mut self, event: &Event<'_>) {
        let pid = event.header.tgid;
        if pid == self.target {
            // The memory that was watched is gone; what is known of it is the report.
            self.end(EndedBy::TargetExec);
            self.exited(pid);
        } else if let Some(before) = self.processes.get(&pid) {
            let parent = before.parent;
            let rules = self.page_rules();
            match Process::new(&self.root, pid, &mut self.unwinder, rules) {
                Ok(mut process) => {
                    process.parent = parent;
                    process.set_start(Measure::at_birth(
                        &self.root,
                        pid,
                        self.window(),
                        self.sampling.is_some(),
                    ));
                    self.processes.insert(pid, process);
                    // Its heap is another.
                    self.heaps.remove(&pid);
                }
                Err(_) => self.exited(pid),
            }
        }
    }

    pub(super) fn exited(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.gone = true;
        }
        if pid == self.target {
            self.end(EndedBy::TargetExit);
        } else {
            self.unwinder.forget(pid);
        }
    }

    /// Children that are followed and live.
    fn children(&self) -> impl Iterator<Item = &Process> {
        self.processes
            .values()
            .filter(|process| process.parent.is_some() && !process.gone)
    }

    /// By how much the anonymous memory of children has grown since their births, bytes. Of many, those of the lowest PIDs only.
    pub(super) fn children_growth(&mut self) -> i64 {
        let over = self.children().count().saturating_sub(CHILDREN_SAMPLED_MAX) as u64;
        self.children_not_sampled = self.children_not_sampled.max(over);
        let grown = |child: &Process| {
            let now = totals::read_status(&self.root, child.pid).ok()?;
            let before = child.start.totals.as_ref().and_then(anonymous_of)?;
            Some(
                anonymous_of(&now)?
                    .cast_signed()
                    .saturating_sub(before.cast_signed()),
            )
        };
        self.children()
            .take(CHILDREN_SAMPLED_MAX)
            .filter_map(grown)
            .fold(0, i64::saturating_add)
    }

    /// The same of all, by what was read at the window's end.
    pub(super) fn children_growth_at_end(&self) -> i64 {
        let grown = |child: &Process| {
            let (start, end) = (child.start.anonymous()?, child.end.anonymous()?);
            Some(end.cast_signed().saturating_sub(start.cast_signed()))
        };
        self.children().filter_map(grown).fold(0, i64::saturating_add)
    }
}
