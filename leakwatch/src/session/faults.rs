//! Begins to watch page faults, or tells why not.

use std::io;

use anyhow::Result;
use leakwatch_ebpf::wire::SAMPLE_ALL;

use super::sampling::Sampling;
use super::watch::Watch;
use super::{FaultChoice, RecordOptions};
use crate::probe::FaultSource;
use crate::sampler::ProcRoot;

impl Watch {
    /// Watches the faults of every thread of the target. Nothing is sampled until the window begins.
    ///
    /// # Errors
    ///
    /// When the way that was asked for is not there; with [`FaultChoice::Auto`] the recording goes on without.
    pub fn watch_faults(&mut self, options: &RecordOptions) -> Result<()> {
        if options.faults == FaultChoice::Never {
            self.state.faults_note = Some(
                "Page faults were not watched (--faults never): call sites are ranked by the calls that extend memory \
                 alone, and memory that was mapped before has none."
                    .to_owned(),
            );
            return Ok(());
        }
        // A busy target would fill the ring while its threads are listed.
        self.probe.set_sample_threshold(0)?;
        let (root, pid) = (self.state.root().clone(), options.target.pid);
        match self.probe.watch_faults(options.faults, || threads(&root, pid)) {
            Ok(coverage) => {
                self.state.sampling = Some(Sampling::new(options.sample_budget));
                if coverage.source == Some(FaultSource::Tracepoint) {
                    self.state.faults_note = Some(
                        "Page faults are watched by the tracepoint: those that the kernel takes on the target's behalf \
                         (a read into fresh memory) are not seen, and such pages are told by who mapped the memory."
                            .to_owned(),
                    );
                } else if coverage.refused > 0 || !coverage.complete {
                    self.state.faults_note = Some(format!(
                        "Page faults of some threads were not seen: {} are watched, {} could not be{}.",
                        coverage.threads,
                        coverage.refused,
                        if coverage.complete {
                            ""
                        } else {
                            ", and new ones came faster than they could be listed"
                        }
                    ));
                }
                Ok(())
            }
            Err(error) if options.faults == FaultChoice::Auto => {
                self.probe.set_sample_threshold(SAMPLE_ALL)?;
                self.state.faults_note = Some(format!(
                    "Page faults could not be watched ({error}): call sites are ranked by the calls that extend memory \
                     alone, and memory that was mapped before has none."
                ));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The threads of a process, by number.
fn threads(root: &ProcRoot, pid: u32) -> io::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(root.of(pid, "task"))? {
        if let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            threads.push(tid);
        }
    }
    Ok(threads)
}
