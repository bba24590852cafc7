//! The ledger as it stands at the window's end, a line for each piece: for comparison with the target's own mappings.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::state::State;
use crate::ledger::{Backing, Owner};

/// Writes one JSON object a line: `start`, `end`, `protection` (`PROT_*` bits), `backing`, `owner`, `process`.
pub(super) fn write(path: &Path, state: &State) -> Result<()> {
    let mut text = String::new();
    for process in state.processes.values() {
        for (range, piece) in process.ledger.pieces() {
            let backing = match piece.backing {
                Backing::Anonymous => "anonymous",
                Backing::PrivateFile => "private_file",
                Backing::Shared => "shared",
            };
            let owner = match piece.owner {
                Owner::BeforeAttach => "before_attach".to_owned(),
                Owner::Site(site) => format!("site {}", site.0),
                Owner::Discarded => "discarded".to_owned(),
                Owner::Unseen => "unseen".to_owned(),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                r#"{{"start":{},"end":{},"protection":{},"backing":"{backing}","owner":"{owner}","process":{}}}"#,
                range.start,
                range.end,
                piece.protection.bits(),
                process.pid,
            );
        }
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
