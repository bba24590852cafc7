//! The kernel boundary: loads the object, attaches it, drains its ring. The only stage that imports aya.
