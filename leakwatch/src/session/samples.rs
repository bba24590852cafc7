//! What /proc says of the target, again and again.

use std::time::Duration;

use crate::sampler::ProcRoot;
use crate::sampler::sample::{Moment, Parts, Sample, Sampler};
use crate::sampler::subject::Subject;

/// Takes samples of the target, and knows what they cost.
#[derive(Debug)]
pub(super) struct Samples {
    sampler: Sampler,
    /// `None` where it could not be read: then there are no samples.
    subject: Option<Subject>,
    taken: u64,
    spent: Duration,
}

impl Samples {
    /// Of the process of this number, which is known by its start time from now on.
    pub fn of(root: &ProcRoot, pid: u32) -> Self {
        let mut sampler = Sampler::new(root.clone());
        let subject = sampler.subject(pid).ok();
        Self {
            sampler,
            subject,
            taken: 0,
            spent: Duration::ZERO,
        }
    }

    /// A sample of now; `None` when the process is gone.
    pub fn take(&mut self) -> Option<Sample> {
        let sample = self.sampler.sample(self.subject.as_mut()?, Parts::ALL).ok()?;
        self.taken += 1;
        self.spent = self.spent.saturating_add(sample.cost.wall);
        Some(sample)
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
