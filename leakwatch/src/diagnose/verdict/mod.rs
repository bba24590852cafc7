//! What the evidence amounts to: a leak, memory that the allocator keeps, or something in between. Pure.
//!
//! [`judge()`] takes all that was measured ([`facts`]), each layer there or not: a recording has call sites and often the
//! heap, a watch over `/proc` has sizes and counts alone, and both are judged by the same rules. In the order in which it
//! goes:
//!
//! 1. [`course`]: how memory went, by the trend; by halves of the window where the heap was read and samples are few.
//! 2. `weighed`: whose the growth is. What the heap says is in use the program keeps, what is free its allocator keeps,
//!    what is neither lies outside the heap. Where the heap was not read all growth counts as the program's, and the
//!    confidence says that it may not be.
//! 3. `rules`: a table; the first that applies has it.
//! 4. [`confidence`]: what that rests on, and how sure each part is.
//! 5. `words`, `suggest`, [`room`]: the evidence in sentences, what could be done, and how far it is to the limit.
//!
//! No verdict says that there is no leak where one could hide: a process stays as it is only by a trend that excludes
//! growth of 5 %, so that a short window, noise, and missing samples are all *inconclusive*, with the time that would
//! tell. Lost events do not hide growth (the sizes are the kernel's), and so take the confidence down but no verdict away;
//! where they could, as beside memory that shrank, it is inconclusive too.

pub mod confidence;
pub mod course;
pub mod facts;
pub mod room;
mod rules;
mod suggest;
mod weighed;
mod words;

#[cfg(test)]
mod tests;

pub use confidence::Factor;
pub use facts::{BirthFacts, ClassGrowth, Counts, Facts, Goes, HeapFacts, LossFacts, With};
pub use room::{Reached, Room};

use weighed::Weighed;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The program keeps more and more.
    Leak,
    /// It grows, and nothing tells yet whether it will stop.
    Growth,
    /// It grew, and has stopped: a cache, a warm-up.
    Plateau,
    /// Freed by the program, kept by its allocator.
    Retention,
    /// Memory comes and goes, and none stays.
    Churn,
    /// It stays as it is, or shrinks.
    Flat,
    /// A leak could hide in what was not seen.
    Inconclusive,
}

impl Kind {
    /// The word of the recording.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Growth => "growth",
            Self::Plateau => "plateau",
            Self::Retention => "retention",
            Self::Churn => "churn",
            Self::Flat => "flat",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// The judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub kind: Kind,
    /// The rule that found it.
    pub rule: &'static str,
    /// The chance that it is right, 0 to 1: the product of `factors`. `None` where nothing is claimed.
    pub confidence: Option<f64>,
    /// What it rests on.
    pub factors: Vec<Factor>,
    pub summary: String,
    /// Sentences with figures. Names in them are untrusted text.
    pub evidence: Vec<String>,
    pub suggestions: Vec<String>,
    /// Where memory grows: when it reaches its limit if it goes on so.
    pub reached: Option<Reached>,
    /// Seconds more that would tell, where something is left to tell.
    pub watch_longer: Option<f64>,
}

/// Judges.
#[must_use]
pub fn judge(facts: &Facts<'_>) -> Verdict {
    let weighed = Weighed::of(facts);
    let rule = rules::RULES.iter().find(|rule| (rule.applies)(&weighed));
    // The last rule always applies.
    let (kind, name) = rule.map_or((Kind::Inconclusive, ""), |rule| (rule.kind, rule.name));
    let factors = confidence::factors(&weighed, kind);
    let grows = matches!(kind, Kind::Leak | Kind::Growth | Kind::Retention);
    let rate = weighed.rate().filter(|_| grows && weighed.grew());
    Verdict {
        kind,
        rule: name,
        confidence: confidence::confidence(&factors),
        factors,
        summary: words::summary(&weighed, kind, name),
        evidence: words::evidence(&weighed, kind),
        suggestions: suggest::suggestions(&weighed, kind),
        reached: rate
            .zip(facts.room)
            .and_then(|(rate, room)| Reached::at(rate, room)),
        watch_longer: matches!(kind, Kind::Growth | Kind::Inconclusive).then(|| weighed.watch_longer()),
    }
}
