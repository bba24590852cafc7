//! What a recording says of how memory went, and of what it went with.

use serde::Deserialize;

/// How anonymous memory went.
#[derive(Clone, Debug, Deserialize)]
pub struct MemoryTrend {
    pub kind: String,
    pub slope_bytes_per_second: Option<f64>,
    pub samples: u64,
    pub watch_longer_seconds: Option<f64>,
}

/// What it goes with.
#[derive(Clone, Debug, Deserialize)]
pub struct Correlation {
    pub with: String,
    pub p_value: Option<f64>,
    /// Among all counts that were compared.
    pub p_value_corrected: Option<f64>,
    pub bytes_per_unit: Option<f64>,
}
