//! Births of blocks: when they are watched ([`bursts`]) and looked at again ([`checks`]), what that costs ([`cost`]), how much
//! of the window that is ([`extent`]), which are old enough to be followed ([`moments`]) and which were seen ([`table`]).
//!
//! No IO and no clock: times and counts come in as values, as of the kernel side in [`crate::probe::allocs`].

pub mod bursts;
pub mod checks;
pub mod cohorts;
pub mod cost;
pub mod extent;
pub mod moments;
pub mod table;

#[cfg(test)]
mod bursts_tests;
#[cfg(test)]
mod cohorts_tests;

pub use bursts::{Bursts, GLANCE, LOOK_AT, NO_BUDGET, Plan, Spent, Step};
pub use checks::Checks;
pub use cohorts::{Cohorts, Fate, Look, Seen};
pub use cost::{HitCost, Hits};
pub use extent::Extent;
pub use moments::{Moments, OldEnough};
pub use table::{Births, Born, Facts, Losses, SiteBirths};
