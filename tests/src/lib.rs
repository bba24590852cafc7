//! Runs the real `leakwatch` on programs whose truth is known.
//!
//! A live test reads like this:
//!
//! ```no_run
//! use leakwatch_tests::{expect, kernel, programs::Program, record::Record, target::Target};
//!
//! if !kernel::required() {
//!     return;
//! }
//! let mut target = Target::start(&Program::c("brk_leak"), &[]);
//! let (truth, outcome) = Record::of(target.pid()).watch(&mut target);
//! expect::first(&outcome, "leak_small");
//! expect::held_within_a_page_per_call(&outcome, &truth);
//! ```
//!
//! The harness's duties: to build the programs once; to end only processes that it started; to let a target work only
//! once leakwatch is attached, and to end the window once the target is done, so that no test depends on how fast the
//! machine is. It does not import leakwatch: a recording is read here by the schema, by other code than wrote it.
//!
//! A failure is a panic that says what was expected of which program, with the call sites and leakwatch's stderr.

pub mod account;
pub mod allocations;
pub mod arenas;
pub mod browser;
pub mod cohorts;
pub mod cost;
pub mod daemons;
pub mod expect;
pub mod glibcs;
pub mod heap;
pub mod kernel;
pub mod page;
pub mod pprof;
pub mod programs;
pub mod ranges;
pub mod record;
pub mod recording;
pub mod refusal;
pub mod schema;
pub mod target;
pub mod terminal;
pub mod text;
pub mod trends;
pub mod watching;
