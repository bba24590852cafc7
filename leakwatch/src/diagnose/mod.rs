//! From measured values to judgements: pure.
