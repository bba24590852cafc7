//! The recording and its renderings.
