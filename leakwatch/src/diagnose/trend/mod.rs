//! Whether a size grows, and how: from samples over time to a kind of trend, a rate with its interval, and how sure it
//! is. Pure.
//!
//! In the order in which [`judge()`] goes:
//!
//! 1. [`series`]: samples that cannot be are dropped, a clock that was set back is put right, restarts divide.
//! 2. [`floors`]: where memory saws, what each cycle leaves is the series.
//! 3. [`steps`]: what changes at once is taken out; the pieces between have levels of their own and one slope.
//!    A wave that repeats evenly, as the load of days, is taken out too: [`cycle`].
//! 4. [`bins`]: at most 128 points, so that the rest costs the same for a week as for a minute.
//! 5. [`fit`] of lines and [`curves`], [`noise`], [`claim`]: which model the points leave, under noise that remembers.
//! 6. [`later`]: beneath a curve, the later half of the window by itself.
//! 7. [`theil_sen`], [`mann_kendall`]: the slope, and the chance of as much order without any.
//!
//! Two estimates of "does it grow" stand side by side, because each has a blind side. Mann-Kendall sees ranks alone: no
//! outlier moves it, but when the noise remembers for most of the window, it cannot tell even a clean line from a walk
//! (its S cannot exceed all pairs, its corrected deviation is as large). The slope over its error weighs how far the line
//! goes against what the noise does per step, and is what [`claim`] decides by.
//!
//! Never is growth told from too few points: the answer is then [`Kind::Unknown`], with the time that would be needed.

pub mod bins;
pub mod claim;
pub mod curves;
pub mod cycle;
pub mod fit;
pub mod floors;
mod judge;
mod kind;
pub mod later;
pub mod mann_kendall;
pub mod noise;
pub mod normal;
pub mod order;
pub mod series;
pub mod steps;
pub mod theil_sen;

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
pub(super) mod made_series;
#[cfg(test)]
mod rates_tests;

pub use judge::{SAMPLES_LEAST, Trend, judge};
pub use kind::Kind;
