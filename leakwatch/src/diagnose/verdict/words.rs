//! The verdict in words: a summary, and the evidence in sentences with figures. Pure.
//!
//! "Keeps" and "allocated" are said of call sites that were seen to. Of anything else it is said what it goes with.

use super::Kind;
use super::course::Course;
use super::facts::{ClassGrowth, Goes, With};
use super::weighed::{NOISE, SMALL_SHARE, Weighed};
use crate::diagnose::figures::{
    amount, bytes, duration, per_second, reckoned_range, seconds, signed, whole_percent,
};
use crate::diagnose::rank::{Evidence, RankedSite};
use crate::diagnose::trend::Trend;

/// Characters of a name in a sentence.
const NAME_MOST: usize = 80;
/// Rows of mappings in a sentence.
const KINDS_MOST: usize = 3;
/// So many times the window, and a process is not at its start any more.
const OLD: f64 = 10.0;
/// Free memory that is resident is worth a word in a process that does not grow: bytes, and a share of it.
const FREE_LEAST: u64 = 16 << 20;

/// A name, cut where it is long. Untrusted text: whoever shows it makes it inert.
pub(super) fn named(name: &str) -> String {
    match name.char_indices().nth(NAME_MOST) {
        Some((end, _)) => format!("{}...", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// The first call site that has a name and keeps what counts of the growth.
pub(super) fn keeper<'a>(weighed: &Weighed<'a>) -> Option<&'a RankedSite> {
    weighed.facts.sites.iter().find(|site| {
        let live = site.live.unwrap_or(0) as f64;
        let stack = site.stacks.first().is_some_and(|stack| !stack.frames.is_empty());
        stack && site.evidence != Evidence::Mappings && live >= SMALL_SHARE * weighed.held.max(1) as f64
    })
}

pub(super) fn summary(weighed: &Weighed<'_>, kind: Kind, rule: &str) -> String {
    let grown = weighed.grown();
    let of = format!("of {} that anonymous memory grew by", amount(grown));
    // Untouched and shrunk elsewhere, it can be more than the growth: the evidence has the whole figure.
    let part = amount(weighed.held.min(grown));
    let place = match (
        weighed.used >= NOISE,
        weighed.elsewhere as f64 >= SMALL_SHARE * grown as f64,
    ) {
        (false, true) => "lie outside the heap",
        (true, true) => "are in use or outside the heap",
        (_, false) => "are in use",
    };
    let held = if weighed.heap().is_some() {
        format!(
            "{of}, {part} ({}) {place}",
            whole_percent(weighed.share(weighed.held))
        )
    } else {
        format!("anonymous memory grew by {}", amount(grown))
    };
    let kept = format!(
        "{} ({})",
        amount(weighed.kept),
        whole_percent(weighed.share(weighed.kept))
    );
    let beside = if weighed.share(weighed.kept) >= SMALL_SHARE {
        format!("; {kept} are free, but kept by the allocator (retention)")
    } else {
        String::new()
    };
    let window = duration(weighed.facts.window);
    match kind {
        Kind::Leak if weighed.heap().is_some() => {
            format!("Leak: {held}, and the growth is steady{beside}.")
        }
        Kind::Leak => format!("Leak: {held} in {window}, steadily, with no end in sight."),
        Kind::Plateau => format!("Plateau: {held}, but the growth has ended{beside}."),
        Kind::Growth if !weighed.is_held() => format!(
            "Growth: {} more are in use, in memory that the heap had already; whether that will end cannot be told yet.",
            amount(weighed.used)
        ),
        Kind::Growth if weighed.seen.course == Course::Slackening => {
            format!(
                "Growth: {held}, and the growth slackens; whether it will end cannot be told yet{beside}."
            )
        }
        Kind::Growth => format!("Growth: {held}; whether it will end cannot be told yet{beside}."),
        Kind::Retention => format!(
            "Retention: {of}, {kept} are free memory that the allocator keeps; {} more are in use.",
            amount(weighed.used)
        ),
        Kind::Churn => format!(
            "Churn: memory comes and goes, and none of it stays; anonymous memory changed by {} in {window}.",
            signed(grown)
        ),
        Kind::Flat if weighed.seen.course == Course::Falling => {
            format!(
                "Flat: anonymous memory does not grow; it shrank by {} in {window}.",
                amount(-grown)
            )
        }
        Kind::Flat => format!(
            "Flat: anonymous memory stays as it is, {} in {window}.",
            signed(grown)
        ),
        Kind::Inconclusive => format!(
            "Inconclusive: {rule}. Watch for about {} more.",
            duration(weighed.watch_longer())
        ),
    }
}

pub(super) fn evidence(weighed: &Weighed<'_>, kind: Kind) -> Vec<String> {
    let mut evidence = Vec::new();
    if let Some(trend) = weighed.facts.trend {
        evidence.push(of_trend(trend));
    }
    if let (false, Some((first, second))) = (weighed.seen.by_trend, weighed.seen.halves) {
        evidence.push(format!(
            "Anonymous memory changed by {} in the first half of the window and by {} in the second.",
            signed(first),
            signed(second)
        ));
    }
    of_heap(weighed, &mut evidence);
    of_site(weighed, &mut evidence);
    of_mappings(weighed, &mut evidence);
    of_counts(weighed.facts.goes, weighed, &mut evidence);
    if weighed.churns() {
        evidence.push(format!(
            "{} of pages were touched in the window and are gone.",
            bytes(weighed.turnover())
        ));
    }
    let young = weighed
        .facts
        .age
        .filter(|age| matches!(kind, Kind::Leak | Kind::Growth) && *age < OLD * weighed.facts.window);
    if let Some(age) = young {
        evidence.push(format!(
            "The process is {} old: what it grows by may be its start.",
            duration(age)
        ));
    }
    of_losses(weighed, &mut evidence);
    evidence
}

fn of_trend(trend: &Trend) -> String {
    let samples = trend.samples;
    if trend.kind == crate::diagnose::trend::Kind::Unknown {
        return format!("How anonymous memory goes cannot be told from {samples} samples.");
    }
    let interval = if trend.interval.0.is_finite() && trend.interval.1.is_finite() {
        format!(
            ", {} ({} to {})",
            per_second(trend.slope),
            per_second(trend.interval.0),
            per_second(trend.interval.1)
        )
    } else {
        String::new()
    };
    format!(
        "By {samples} samples anonymous memory goes so: {}{interval}.",
        trend.kind.name()
    )
}

fn of_heap(weighed: &Weighed<'_>, evidence: &mut Vec<String>) {
    let Some(heap) = weighed.heap() else {
        if weighed.grew() {
            evidence.push(
                "The heap was not read at both ends: what is in use is not told from what an allocator keeps.".to_owned(),
            );
        }
        return;
    };
    evidence.push(format!(
        "Blocks in use on the heap changed by {} in {:+} blocks, large blocks with a mapping of their own by {} in {:+}.",
        signed(heap.in_use),
        heap.in_use_count,
        signed(heap.mapped),
        heap.mapped_count
    ));
    match heap.kept {
        Some(kept) => evidence.push(format!(
            "Free memory that is resident in the heap changed by {}: the allocator keeps {} free at the end.",
            signed(kept),
            bytes(heap.free_at_end)
        )),
        None => evidence.push("How much of the free memory is resident is not known.".to_owned()),
    }
    let worth_a_word =
        |class: &&ClassGrowth| class.bytes as f64 >= SMALL_SHARE * weighed.used.max(NOISE) as f64;
    if let Some(class) = heap.class.as_ref().filter(worth_a_word) {
        let of = class
            .type_name
            .as_ref()
            .map(|name| format!(" of type {}", named(name)))
            .unwrap_or_default();
        evidence.push(format!(
            "{:+} blocks of up to {} bytes{of} make up {} of what is in use.",
            class.count,
            class.request,
            amount(class.bytes)
        ));
    }
}

fn of_site(weighed: &Weighed<'_>, evidence: &mut Vec<String>) {
    let Some(site) = keeper(weighed).filter(|_| weighed.grew()) else {
        return;
    };
    let live = site.live.unwrap_or(0);
    let share = whole_percent(weighed.share(live.cast_signed()));
    let name = named(&site.label);
    match (site.evidence, &site.allocated) {
        (Evidence::Survivors, Some(blocks)) => {
            let age = blocks
                .median_age
                .map(|age| format!(", the median {} old", seconds(age)))
                .unwrap_or_default();
            evidence.push(format!(
                "{name} allocated {} of it that are in use ({share}): of its {} births that were followed {} survived{age}.",
                bytes(live),
                blocks.followed,
                blocks.survived
            ));
        }
        _ => {
            let of = site
                .retention
                .map(|part| format!("; {} of all that it touched stays", whole_percent(part)))
                .unwrap_or_default();
            evidence.push(if site.pool.is_some() {
                format!("{} of it lie in {name} ({share}){of}.", bytes(live))
            } else {
                format!("{name} touched {} of it first ({share}){of}.", bytes(live))
            });
        }
    }
}

/// Where the heap does not tell it all.
fn of_mappings(weighed: &Weighed<'_>, evidence: &mut Vec<String>) {
    let outside =
        weighed.heap().is_none() || weighed.elsewhere as f64 >= SMALL_SHARE * weighed.grown() as f64;
    let Some(kinds) = weighed.facts.kinds.filter(|_| outside && weighed.grew()) else {
        return;
    };
    let mut grown: Vec<(i64, &str)> = kinds
        .iter()
        .map(|(kind, delta)| (delta.anonymous_and_swap(), kind.name()))
        .filter(|(bytes, _)| *bytes as f64 >= 0.05 * weighed.grown() as f64 && *bytes > 0)
        .collect();
    grown.sort_by(|one, next| next.cmp(one));
    let parts: Vec<String> = grown
        .iter()
        .take(KINDS_MOST)
        .map(|(bytes, name)| format!("{name} {}", signed(*bytes)))
        .collect();
    if !parts.is_empty() {
        evidence.push(format!("By what mappings are for: {}.", parts.join(", ")));
    }
}

fn of_counts(goes: &[Goes], weighed: &Weighed<'_>, evidence: &mut Vec<String>) {
    let told = goes.iter().filter(|goes| goes.is_told());
    for goes in told {
        let each = goes
            .correlation
            .per_unit
            .as_ref()
            .map(|each| format!(", {} each", reckoned_range(each.low, each.high)))
            .unwrap_or_default();
        let from = weighed
            .facts
            .counts
            .of(goes.with)
            .map(|(first, last)| format!("; there were {first}, and {last} at the end"))
            .unwrap_or_default();
        let few = if goes.correlation.rests_on_few_events() {
            "; few events say so"
        } else {
            ""
        };
        evidence.push(format!(
            "Memory goes with {}{each} (p {:.3} among {} tried){few}{from}.",
            goes.with.words(),
            goes.chance,
            weighed.facts.goes.len()
        ));
    }
    if weighed.grew() && !goes.is_empty() && !goes.iter().any(Goes::is_told) {
        let tried: Vec<&str> = goes.iter().map(|goes| goes.with.words()).collect();
        evidence.push(format!("Memory was not seen to go with {}.", tried.join(", ")));
    }
    // Whose memory it is tells their mappings; here is how many there are.
    let threads = weighed.facts.counts.of(With::Threads);
    if let Some((first, last)) = threads.filter(|(first, last)| last > first) {
        let told = goes
            .iter()
            .any(|goes| goes.with == With::Threads && goes.is_told());
        if !told {
            evidence.push(format!("Threads grew from {first} to {last}."));
        }
    }
}

fn of_losses(weighed: &Weighed<'_>, evidence: &mut Vec<String>) {
    let losses = &weighed.facts.losses;
    if losses.events_lost > 0 {
        evidence.push(format!(
            "{} of {} events were lost: call sites lack what they would have told; the sizes of /proc do not.",
            losses.events_lost,
            losses.events.saturating_add(losses.events_lost)
        ));
    }
    if losses.samples_missed > 0 {
        evidence.push(format!("{} samples of /proc had no size.", losses.samples_missed));
    }
}

/// Free memory of a process that does not grow that is worth a word.
pub(super) fn free_at_rest(weighed: &Weighed<'_>) -> Option<u64> {
    let trim = weighed.heap()?.trim_at_end?;
    (trim >= FREE_LEAST && trim as f64 >= SMALL_SHARE * weighed.level).then_some(trim)
}
