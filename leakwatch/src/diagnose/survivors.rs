//! Who allocated what the heap gained: the census tells by how much each class of blocks grew, the cohorts how that is
//! split over call sites. Pure.

use crate::births::cohorts::{Class, Outcome};
use crate::ledger::SiteId;

/// By how much the blocks of one class grew in the window; negative where they became fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassGrowth {
    pub class: Class,
    pub count: i64,
    pub bytes: i64,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub outcome: &'a Outcome,
    /// Every class that has blocks at either end.
    pub growth: &'a [ClassGrowth],
    /// The part of the window in which births were watched and could become candidates, 0 to 1.
    pub watched: f64,
}

/// What one site has of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub class: Class,
    pub bytes: f64,
    pub blocks: f64,
    /// Survivors of the site in this class.
    pub survivors: u64,
}

/// What one site keeps of the growth.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteEstimate {
    pub site: SiteId,
    /// Chunks of the arenas, bytes with their headers. Blocks with a mapping of their own are not in it: the ledger has
    /// these.
    pub bytes: u64,
    /// Square of the standard error of `bytes`.
    pub variance: f64,
    pub blocks: f64,
    /// Those with bytes and those with a mapping of their own, the most bytes first.
    pub classes: Vec<Share>,
    /// Births that were watched long enough to be followed.
    pub followed: u64,
    /// Of these, the ones in use at the end.
    pub survived: u64,
    /// Of the survivors, those that are as young as blocks that others of the site did not outlive.
    pub young: u64,
    /// Of the survivors, those that may be other blocks.
    pub doubtful: u64,
    /// Of the survivors, seconds: the median and the greatest.
    pub median_age: f64,
    pub oldest_age: f64,
    /// Births of the site that were seen, and what they stand for.
    pub seen: u64,
    pub born: u64,
    pub born_bytes: u64,
}

/// The growth of the arenas' blocks in use: the sum of the sites' bytes, `unnamed_bytes` and `shrunk_bytes`, to the
/// byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The most bytes first. A site with no bytes is in it where it has survivors.
    pub sites: Vec<SiteEstimate>,
    /// Classes that grew, or what part of their growth, and nobody is known for; the most bytes first.
    pub unnamed: Vec<ClassGrowth>,
    /// Their sum.
    pub unnamed_bytes: i64,
    /// Classes that became fewer: blocks from before the window that were freed. Not positive.
    pub shrunk_bytes: i64,
}

/// Splits the growth.
#[must_use]
pub fn estimate(_facts: &Facts<'_>) -> Estimate {
    todo!()
}
