//! What /proc says: mappings, sizes, states.

pub mod maps;
