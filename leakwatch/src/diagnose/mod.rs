//! From measured values to judgements: pure.

pub mod allocated;
mod connections;
pub mod correlate;
pub mod culprit;
pub mod difference;
pub mod figures;
pub mod goes_with;
pub mod holm;
pub mod pool;
pub mod rank;
pub mod reconcile;
mod staying;
pub mod survivors;
pub mod trend;
pub mod verdict;
