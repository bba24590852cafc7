//! leakwatch names the call sites that keep the memory a running process gains.
//!
//! The stages, in the order data flows:
//!
//! ```text
//! kernel -> probe -> unwind -> ledger -> diagnose -> report
//!                    sampler (/proc) -------^
//! ```
//!
//! Beside them [`births`] keeps which sampled blocks the target took, and [`census`] reads what its allocator knows of its
//! own heap.
//!
//! Each stage is one folder and hands plain values on; only [`session`] knows them all.

pub mod target;

pub mod probe;
pub mod unwind;

pub mod births;
pub mod census;
pub mod ledger;
pub mod sampler;

pub mod diagnose;
pub mod symbolize;

pub mod report;

pub mod session;
pub mod top;

pub mod history;
pub mod scan;
pub mod watch;

pub mod demo;
pub mod doctor;
pub mod heap;

pub mod cli;
