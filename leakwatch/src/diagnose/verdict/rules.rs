//! The table of rules: what each says, and when. Pure.

use super::Kind;
use super::course::Course;
use super::weighed::{NOISE, Weighed};

/// One rule. They are asked in the order of the table, and the first that applies has it.
pub(super) struct Rule {
    /// What it found.
    pub name: &'static str,
    pub kind: Kind,
    /// Whether it applies.
    pub applies: fn(&Weighed<'_>) -> bool,
}

const fn rule(name: &'static str, kind: Kind, applies: fn(&Weighed<'_>) -> bool) -> Rule {
    Rule { name, kind, applies }
}

/// All of them. The last one always applies.
pub(super) const RULES: [Rule; 12] = [
    rule("nothing was measured", Kind::Inconclusive, nothing_measured),
    rule("samples are missing", Kind::Inconclusive, samples_missing),
    rule(
        "the growth is free memory that is kept",
        Kind::Retention,
        retention,
    ),
    rule("the growth is held, and steady", Kind::Leak, leak),
    rule("the growth is held, and has ended", Kind::Plateau, plateau),
    rule("the growth is held, and may end", Kind::Growth, growth),
    rule(
        "blocks in use grew within memory that was there",
        Kind::Growth,
        within,
    ),
    rule(
        "it shrank, and what grew meanwhile was lost",
        Kind::Inconclusive,
        shrank_with_losses,
    ),
    rule(
        "memory comes and goes, and how much was lost",
        Kind::Inconclusive,
        churn_with_losses,
    ),
    rule("memory comes and goes", Kind::Churn, churn),
    rule("memory stays as it is", Kind::Flat, flat),
    rule("nothing can be told yet", Kind::Inconclusive, |_| true),
];

fn nothing_measured(weighed: &Weighed<'_>) -> bool {
    weighed.growth.is_none()
}

/// Half of the window was not seen: a trend of the rest is no trend of it.
fn samples_missing(weighed: &Weighed<'_>) -> bool {
    let losses = &weighed.facts.losses;
    losses.samples_missed > losses.samples && weighed.heap().is_none()
}

fn retention(weighed: &Weighed<'_>) -> bool {
    weighed.grew()
        && !weighed.is_held()
        && weighed.kept >= NOISE.min(weighed.grown())
        && weighed.share(weighed.kept) >= 0.5
}

fn leak(weighed: &Weighed<'_>) -> bool {
    weighed.is_held() && weighed.seen.course == Course::Steady
}

fn plateau(weighed: &Weighed<'_>) -> bool {
    weighed.is_held() && matches!(weighed.seen.course, Course::Ended | Course::AtOnce)
}

/// Where nothing tells the course, and nothing of what is in use, only growth that matters is growth: the rest may be the
/// noise that hides the course.
fn growth(weighed: &Weighed<'_>) -> bool {
    let undecided = match weighed.seen.course {
        Course::Slackening => true,
        Course::Unknown => weighed.heap().is_some() || weighed.grown() as f64 >= weighed.matters(),
        _ => false,
    };
    weighed.is_held() && undecided
}

/// A leak that takes free memory of the heap does not show from outside. Where memory saws, the two readings are two
/// moments of the saw.
fn within(weighed: &Weighed<'_>) -> bool {
    let saws = weighed.seen.course == Course::Saws;
    !saws && !weighed.is_held() && weighed.used as f64 >= weighed.matters()
}

/// What was given back may be as much as what a leak took. Only the events tell, and some are missing.
fn shrank_with_losses(weighed: &Weighed<'_>) -> bool {
    weighed.seen.course == Course::Falling && weighed.heap().is_none() && losses_matter(weighed)
}

fn losses_matter(weighed: &Weighed<'_>) -> bool {
    weighed.facts.losses.fault_bytes as f64 >= weighed.matters()
}

fn churn_with_losses(weighed: &Weighed<'_>) -> bool {
    // Where it is level by the trend the lost events cannot hide that it is.
    churn(weighed) && !is_level(weighed) && losses_matter(weighed)
}

fn churn(weighed: &Weighed<'_>) -> bool {
    let known = is_level(weighed) || by_heap(weighed);
    known && !weighed.is_held() && (weighed.churns() || weighed.seen.course == Course::Saws)
}

fn flat(weighed: &Weighed<'_>) -> bool {
    is_level(weighed)
}

/// The trend excludes growth that matters.
fn is_level(weighed: &Weighed<'_>) -> bool {
    weighed.seen.by_trend
        && matches!(
            weighed.seen.course,
            Course::Level | Course::Saws | Course::Falling | Course::AtOnce | Course::Ended
        )
}

/// The allocator's own records exclude it: at neither end is more in use, and nothing grew elsewhere.
fn by_heap(weighed: &Weighed<'_>) -> bool {
    weighed.heap().is_some() && !weighed.grew() && weighed.used < NOISE
}
