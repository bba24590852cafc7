//! What the ledgers are fed with, as JSON lines: a live run that tests replay without root and without a kernel.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::state::State;
use crate::ledger::{Change, Region, SiteId};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A process's mappings, and when its window began (nanoseconds).
    Baseline {
        process: u32,
        began: u64,
        regions: Vec<Region>,
    },
    Change {
        process: u32,
        change: Change,
    },
    /// What the ledger said of a site at the end, bytes.
    Account {
        process: u32,
        site: SiteId,
        committed: u64,
        released: u64,
        events: u64,
    },
}

/// Writes them; the first error is kept for the end.
pub(super) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    result: std::io::Result<()>,
}

impl Recorder {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            result: Ok(()),
        })
    }

    pub fn baseline(&mut self, process: u32, regions: &[Region], began: u64) {
        self.line(&Line::Baseline {
            process,
            began,
            regions: regions.to_vec(),
        });
    }

    pub fn note(&mut self, process: u32, change: &Change) {
        self.line(&Line::Change {
            process,
            change: change.clone(),
        });
    }

    fn line(&mut self, line: &Line) {
        if self.result.is_ok() {
            self.result = serde_json::to_writer(&mut self.file, line)
                .map_err(std::io::Error::from)
                .and_then(|()| self.file.write_all(b"\n"));
        }
    }

    pub fn finish(mut self, state: &State) -> Result<()> {
        for process in state.processes.values() {
            for (site, account) in process.ledger.accounts() {
                self.line(&Line::Account {
                    process: process.pid,
                    site,
                    committed: account.committed_bytes,
                    released: account.released_bytes,
                    events: account.events,
                });
            }
        }
        let Self {
            path,
            mut file,
            result,
        } = self;
        result
            .and_then(|()| file.flush())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::Ledger;

    /// Recorded from the test programs of the same names; (name, lines, bytes that the leak
    /// keeps by the program's own count).
    const RUNS: [(&str, &str, u64); 3] = [
        ("big_malloc", include_str!("replay/big_malloc.jsonl"), 21_053_440),
        ("mmap_leak", include_str!("replay/mmap_leak.jsonl"), 2_990_080),
        ("arenas", include_str!("replay/arenas.jsonl"), 2_850_816),
    ];

    #[test]
    fn live_runs_replay_to_the_same_accounts_and_to_the_programs_own_count() {
        for (name, text, truth) in RUNS {
            let mut ledger = Ledger::new(4096);
            let mut recorded = BTreeMap::new();
            let mut changes = 0;
            for line in text.lines() {
                match serde_json::from_str(line).unwrap() {
                    Line::Baseline { began, regions, .. } => ledger.set_baseline(&regions, began),
                    Line::Change { change, .. } => {
                        changes += 1;
                        ledger.apply(&change);
                    }
                    Line::Account {
                        site,
                        committed,
                        released,
                        events,
                        ..
                    } => {
                        recorded.insert(site.0, (committed, released, events));
                    }
                }
            }
            assert!(changes > 10, "{name}");
            let replayed: BTreeMap<_, _> = ledger
                .accounts()
                .map(|(site, account)| {
                    (
                        site.0,
                        (account.committed_bytes, account.released_bytes, account.events),
                    )
                })
                .collect();
            assert_eq!(replayed, recorded, "{name}");
            let most = ledger.accounts().map(|(_, account)| account.held_bytes()).max();
            assert_eq!(most, Some(truth), "{name}: what the leak holds");
        }
    }
}
