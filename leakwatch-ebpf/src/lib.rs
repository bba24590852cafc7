//! The wire format between the eBPF programs and leakwatch: what travels through the ring buffer and the maps.
//!
//! Both sides are compiled from this crate, so a field means the same on each. Everything is `repr(C)` with
//! explicit padding, and its size is asserted: the ring carries bytes, not types.

#![no_std]

pub mod wire;
