//! What /proc says of the target, again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sampler::ProcRoot;
use crate::sampler::cgroup::CgroupMemory;
use crate::sampler::sample::{Lack, Moment, Part, Parts, Sample, Sampler};
use crate::sampler::subject::{NoSample, Subject};

/// Samples of a window, where it is long enough: as many as a trend and a correlation want. Longer ones have one a second.
const SAMPLES: u32 = 60;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Of so many samples one has `smaps_rollup`: the target's page faults wait while it is read, and no verdict needs it.
const ROLLUP_EACH: u64 = 12;

/// From one sample to the next in a window.
fn interval(window: Duration) -> Duration {
    (window / SAMPLES).clamp(SHORTEST, LONGEST)
}

/// Takes samples of the target, and knows what they cost.
#[derive(Debug)]
pub(super) struct Samples {
    sampler: Sampler,
    /// `None` where it could not be read: then there are no samples.
    subject: Option<Subject>,
    taken: u64,
    spent: Duration,
    /// Samples that could not be taken of a process that is there.
    failed: u64,
    /// Parts that were left out for what they cost.
    left_out: BTreeMap<&'static str, u64>,
    cgroup: Option<CgroupMemory>,
    every: Duration,
    /// When the next one is due, by the window's time.
    next: Duration,
}

impl Samples {
    /// Of the process of this number, which is known by its start time from now on.
    pub fn of(root: &ProcRoot, pid: u32, window: Duration) -> Self {
        let mut sampler = Sampler::new(root.clone());
        let subject = sampler.subject(pid).ok();
        Self {
            sampler,
            subject,
            taken: 0,
            spent: Duration::ZERO,
            failed: 0,
            left_out: BTreeMap::new(),
            cgroup: None,
            every: interval(window),
            next: interval(window),
        }
    }

    /// Whether the next sample is due; then the one after it is due an interval later.
    pub fn due(&mut self, now: Duration) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now.saturating_add(self.every);
        }
        due
    }

    /// A sample of now; `None` when the process is gone.
    pub fn take(&mut self) -> Option<Sample> {
        let parts = Parts {
            rollup: self.taken.is_multiple_of(ROLLUP_EACH),
            ..Parts::ALL
        };
        let sample = match self.sampler.sample(self.subject.as_mut()?, parts) {
            Ok(sample) => sample,
            Err(why) => {
                self.failed += u64::from(matches!(why, NoSample::Unreadable(_) | NoSample::LeaderExited));
                return None;
            }
        };
        self.taken += 1;
        self.spent = self.spent.saturating_add(sample.cost.wall);
        self.cgroup = sample.cgroup.ok().or(self.cgroup);
        self.count("descriptors", &sample.descriptors);
        self.count("smaps_rollup", &sample.rollup);
        self.count("sockets", &sample.sockets);
        self.count("cgroup", &sample.cgroup);
        Some(sample)
    }

    /// What is not there for its cost is a loss; what the kernel does not have, or does not show, is none.
    fn count<T>(&mut self, name: &'static str, part: &Part<T>) {
        if matches!(part, Err(Lack::PutOff | Lack::TooDear)) {
            *self.left_out.entry(name).or_default() += 1;
        }
    }

    /// In how many samples each part was left out, being too dear.
    pub fn left_out(&self) -> &BTreeMap<&'static str, u64> {
        &self.left_out
    }

    /// How many could not be taken.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// The latest account of the target's cgroup.
    pub fn cgroup(&self) -> Option<&CgroupMemory> {
        self.cgroup.as_ref()
    }

    /// `smaps_rollup` was just read for something else, which took so long.
    pub fn note_rollup(&mut self, took: Duration) {
        if let Some(subject) = &mut self.subject {
            subject.note_rollup(Moment::now().since_boot, took);
        }
    }

    /// How many there were, and how long they took in all.
    pub fn spent(&self) -> (u64, Duration) {
        (self.taken, self.spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_windows_are_sampled_more_often() {
        let seconds = Duration::from_secs;
        assert_eq!(interval(seconds(3600)), LONGEST);
        assert_eq!(interval(seconds(60)), LONGEST);
        assert_eq!(interval(seconds(12)), Duration::from_millis(200));
        assert_eq!(interval(seconds(1)), SHORTEST);
    }

    #[test]
    fn a_sample_is_due_once_an_interval() {
        let mut samples = Samples::of(&ProcRoot::default(), std::process::id(), Duration::from_secs(12));
        let at = |milliseconds| Duration::from_millis(milliseconds);
        let due: Vec<bool> = [150, 200, 205, 399, 400, 1900, 1950, 2100]
            .into_iter()
            .map(|now| samples.due(at(now)))
            .collect();
        assert_eq!(due, [false, true, false, false, true, true, false, true]);
    }

    #[test]
    fn a_part_that_is_put_off_is_counted_and_one_that_is_not_there_is_not() {
        let mut samples = Samples::of(&ProcRoot::default(), std::process::id(), Duration::from_secs(1));
        samples.count::<()>("sockets", &Err(Lack::PutOff));
        samples.count::<()>("sockets", &Err(Lack::TooDear));
        samples.count::<()>("cgroup", &Err(Lack::Absent));
        samples.count("descriptors", &Ok(3));
        assert_eq!(samples.left_out().iter().collect::<Vec<_>>(), [(&"sockets", &2)]);
        // Each reading of smaps_rollup puts the next one off.
        let own = samples.take().expect("this process is there");
        assert!(own.totals.rss.is_some() && samples.failed() == 0);
    }
}
