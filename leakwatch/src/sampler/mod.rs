//! What /proc says: mappings, sizes, states. The only stage that reads them.
