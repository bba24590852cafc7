//! From measured values to judgements: pure.

pub mod culprit;
