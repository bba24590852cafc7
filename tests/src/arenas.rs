//! What a recording says of a row that is of an allocator's arenas.

use serde::Deserialize;

/// Memory of an allocator above the process's, whose call sites are not known.
#[derive(Clone, Debug, Deserialize)]
pub struct Arenas {
    pub allocator: String,
    pub first_touched_by: Vec<Toucher>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Toucher {
    pub name: String,
    pub live_bytes: u64,
}
