//! From measured values to judgements: pure.

pub mod culprit;
pub mod rank;
pub mod reconcile;
