//! The recording and its renderings.
//!
//! [`model`] is the recording itself; [`build`] makes its parts from what the stages measured; [`json`], [`folded`],
//! [`svg`], [`html`], [`pprof`], [`csv`] and [`text`] render it; [`output`] knows the formats and writes files. Only `output`
//! touches the system.

pub mod build;
pub mod csv;
pub mod escape;
pub mod flame;
pub mod folded;
pub mod html;
pub mod json;
pub mod model;
pub mod output;
pub mod pprof;
pub mod stacks;
pub mod svg;
pub mod text;

#[cfg(test)]
mod older;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod schema;
