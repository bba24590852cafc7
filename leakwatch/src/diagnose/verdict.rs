//! What the evidence amounts to: a leak, memory that the allocator keeps, or something in between. Pure.
//!
//! A table of rules, the first that applies has it. They judge by what the heap says of itself: growth that is in use
//! was kept by the program, growth that is free was kept by its allocator. Where the heap could not be read, or did
//! not grow, there is no judgement.

use super::figures::{amount, bytes, signed, whole_percent};

/// Growth below this, in bytes, is not judged: a stack, a buffer, a library's first use.
const NOISE: i64 = 1 << 20;
/// A part of the growth that is smaller is not worth a word in the summary.
const SMALL_SHARE: f64 = 0.2;
/// Growth of the window's second half over that of the first: from here on it is steady...
const STEADY: f64 = 0.5;
/// ...and below this it has come to its end.
const ENDED: f64 = 0.15;
/// Fewer points say nothing of how growth went.
const POINTS_LEAST: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Leak,
    /// It grows, and nothing tells yet whether it will stop.
    Growth,
    /// It grew, and has stopped: a cache, a warm-up.
    Plateau,
    /// Freed by the program, kept by its allocator.
    Retention,
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
        }
    }
}

/// What is known when the window has ended. Bytes, end minus start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Anonymous + Swap.
    pub growth: i64,
    /// Anonymous + Swap over the window, by seconds from its start.
    pub series: Vec<(f64, u64)>,
    pub heap: HeapFacts,
}

/// Of the census at both ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeapFacts {
    /// Chunks of arenas in use.
    pub in_use: i64,
    pub in_use_count: i64,
    /// Chunks with a mapping of their own.
    pub mapped: i64,
    pub mapped_count: i64,
    /// Resident, but not in use. `None` where residence is not known.
    pub kept: Option<i64>,
    /// Free at the end, and of that what lies in thread arenas.
    pub free_at_end: u64,
    pub free_in_thread_arenas: u64,
    /// What `malloc_trim(0)` would give back at the end.
    pub trim_at_end: Option<u64>,
    /// The class that grew most.
    pub class: Option<ClassGrowth>,
}

/// Blocks of one size and, where it is known, one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassGrowth {
    /// The largest request that it serves.
    pub request: u64,
    /// Made printable.
    pub type_name: Option<String>,
    pub count: i64,
    pub bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: Kind,
    pub summary: String,
    /// Sentences with figures.
    pub evidence: Vec<String>,
    pub suggestions: Vec<String>,
}

/// How growth went over the window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Course {
    /// Bytes of the first and of the second half.
    Halves(i64, i64),
    Unknown,
}

/// Looks at the facts, and has a word for them or none.
type Rule = fn(&Weighed<'_>) -> Option<Kind>;

/// The rules, in the order in which they are asked.
const RULES: [(&str, Rule); 4] = [
    ("the growth is free memory that is kept", retention),
    ("the growth is in use, and steady", leak),
    ("the growth is in use, and has ended", plateau),
    ("the growth is in use", growth),
];

/// The facts with what all rules need of them.
struct Weighed<'a> {
    facts: &'a Facts,
    /// In use by the program.
    used: i64,
    /// Free, and kept by the allocator.
    kept: i64,
    used_share: f64,
    kept_share: f64,
    course: Course,
}

/// Judges the growth; `None` where there is too little of it, or it is not the heap's.
#[must_use]
pub fn judge(facts: &Facts) -> Option<Verdict> {
    if facts.growth < NOISE {
        return None;
    }
    let used = facts.heap.in_use.saturating_add(facts.heap.mapped);
    let kept = facts.heap.kept.unwrap_or(0);
    let share = |part: i64| (part as f64 / facts.growth as f64).clamp(0.0, 1.0);
    let weighed = Weighed {
        facts,
        used,
        kept,
        used_share: share(used),
        kept_share: share(kept),
        course: course(&facts.series),
    };
    let kind = RULES.iter().find_map(|(_, rule)| rule(&weighed))?;
    Some(Verdict {
        kind,
        summary: weighed.summary(kind),
        evidence: weighed.evidence(),
        suggestions: weighed.suggestions(kind),
    })
}

fn is_used(weighed: &Weighed<'_>) -> bool {
    weighed.used >= NOISE && weighed.used_share >= SMALL_SHARE
}

fn retention(weighed: &Weighed<'_>) -> Option<Kind> {
    (!is_used(weighed) && weighed.kept >= NOISE && weighed.kept_share >= 0.5).then_some(Kind::Retention)
}

fn leak(weighed: &Weighed<'_>) -> Option<Kind> {
    let Course::Halves(first, second) = weighed.course else {
        return None;
    };
    (is_used(weighed) && second as f64 >= STEADY * first as f64).then_some(Kind::Leak)
}

fn plateau(weighed: &Weighed<'_>) -> Option<Kind> {
    let Course::Halves(first, second) = weighed.course else {
        return None;
    };
    (is_used(weighed) && (second as f64) < ENDED * first as f64).then_some(Kind::Plateau)
}

fn growth(weighed: &Weighed<'_>) -> Option<Kind> {
    is_used(weighed).then_some(Kind::Growth)
}

fn course(series: &[(f64, u64)]) -> Course {
    let (Some(&(start, first)), Some(&(end, last))) = (series.first(), series.last()) else {
        return Course::Unknown;
    };
    let half = f64::midpoint(start, end);
    let middle = series
        .iter()
        .min_by(|(one, _), (next, _)| (one - half).abs().total_cmp(&(next - half).abs()));
    match middle {
        Some(&(_, middle)) if series.len() >= POINTS_LEAST => {
            let grown = |from: u64, to: u64| to.cast_signed().saturating_sub(from.cast_signed());
            Course::Halves(grown(first, middle), grown(middle, last))
        }
        _ => Course::Unknown,
    }
}

impl Weighed<'_> {
    fn summary(&self, kind: Kind) -> String {
        let of = format!("of {} that anonymous memory grew by", amount(self.facts.growth));
        // Untouched and shrunk elsewhere, it can be more than the growth: the evidence has the whole figure.
        let part = amount(self.used.min(self.facts.growth));
        let used = format!("{part} ({})", whole_percent(self.used_share));
        let kept = format!("{} ({})", amount(self.kept), whole_percent(self.kept_share));
        if kind == Kind::Retention {
            return format!(
                "Retention: {of}, {kept} are free memory that the allocator keeps; {} more are in use.",
                amount(self.used)
            );
        }
        let beside = if self.kept_share >= SMALL_SHARE {
            format!("; {kept} are free, but kept by the allocator (retention)")
        } else {
            String::new()
        };
        match kind {
            Kind::Leak => format!("Leak: {of}, {used} are in use, and the growth is steady{beside}."),
            Kind::Plateau => format!("Plateau: {of}, {used} are in use, but the growth has ended{beside}."),
            Kind::Growth | Kind::Retention => {
                format!("Growth: {of}, {used} are in use; whether it will end cannot be told yet{beside}.")
            }
        }
    }

    fn evidence(&self) -> Vec<String> {
        let heap = &self.facts.heap;
        let mut evidence = vec![format!(
            "Blocks in use on the heap changed by {} in {:+} blocks, large blocks with a mapping of their own by {} in {:+}.",
            signed(heap.in_use),
            heap.in_use_count,
            signed(heap.mapped),
            heap.mapped_count
        )];
        match heap.kept {
            Some(kept) => evidence.push(format!(
                "Free memory that is resident in the heap changed by {}: the allocator keeps {} free at the end.",
                signed(kept),
                bytes(heap.free_at_end)
            )),
            None => evidence.push("How much of the free memory is resident is not known.".to_owned()),
        }
        let worth_a_word =
            |class: &&ClassGrowth| class.bytes as f64 >= SMALL_SHARE * self.used.max(NOISE) as f64;
        if let Some(class) = heap.class.as_ref().filter(worth_a_word) {
            let of = class
                .type_name
                .as_ref()
                .map(|name| format!(" of type {name}"))
                .unwrap_or_default();
            evidence.push(format!(
                "{:+} blocks of up to {} bytes{of} make up {} of what is in use.",
                class.count,
                class.request,
                amount(class.bytes)
            ));
        }
        match self.course {
            Course::Halves(first, second) => evidence.push(format!(
                "Anonymous memory changed by {} in the first half of the window and by {} in the second.",
                signed(first),
                signed(second)
            )),
            Course::Unknown => {
                evidence.push("The window was too short to tell how the growth went.".to_owned());
            }
        }
        evidence
    }

    fn suggestions(&self, kind: Kind) -> Vec<String> {
        let heap = &self.facts.heap;
        let mut suggestions = Vec::new();
        if kind == Kind::Retention || self.kept_share >= SMALL_SHARE {
            let trim = heap.trim_at_end.unwrap_or(0);
            if trim as f64 >= SMALL_SHARE * self.kept as f64 {
                suggestions.push(format!(
                    "malloc_trim(0) would give back {} at most; lower M_TRIM_THRESHOLD to have the allocator do so by itself.",
                    bytes(trim)
                ));
            } else {
                suggestions.push(format!(
                    "malloc_trim(0) would give back {} at most: the rest shares its pages with blocks in use. Look for \
                     small long-lived blocks that are allocated among short-lived ones.",
                    bytes(trim)
                ));
            }
            if heap.free_in_thread_arenas as f64 >= 0.5 * heap.free_at_end as f64 {
                suggestions.push(format!(
                    "{} of the free memory lie in arenas of threads: fewer arenas (MALLOC_ARENA_MAX) keep less.",
                    bytes(heap.free_in_thread_arenas)
                ));
            }
        }
        if kind == Kind::Growth {
            suggestions.push("Watch for longer: a cache stops growing, a leak does not.".to_owned());
        }
        suggestions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn line(from: i64, to: i64) -> Vec<(f64, u64)> {
        (0..=10)
            .map(|at| {
                (
                    f64::from(at),
                    (from + (to - from) * i64::from(at) / 10).cast_unsigned(),
                )
            })
            .collect()
    }

    fn facts(growth: i64, in_use: i64, kept: i64) -> Facts {
        Facts {
            growth: growth * MIB,
            series: line(100 * MIB, (100 + growth) * MIB),
            heap: HeapFacts {
                in_use: in_use * MIB,
                in_use_count: in_use * 1900,
                kept: Some(kept * MIB),
                free_at_end: (kept.max(0) * MIB).cast_unsigned(),
                trim_at_end: Some(0),
                ..HeapFacts::default()
            },
        }
    }

    fn kind(facts: &Facts) -> Option<&'static str> {
        judge(facts).map(|verdict| verdict.kind.name())
    }

    #[test]
    fn each_rule() {
        assert_eq!(kind(&facts(280, 2, 277)), Some("retention"));
        assert_eq!(kind(&facts(30, 29, 1)), Some("leak"));
        let mut cache = facts(30, 29, 1);
        cache.series = line(100 * MIB, 130 * MIB)
            .into_iter()
            .map(|(at, bytes)| (at, bytes.max(129 << 20)))
            .collect();
        cache.series[0].1 = 100 << 20;
        assert_eq!(kind(&cache), Some("plateau"));
        let mut short = facts(30, 29, 1);
        short.series.truncate(3);
        assert_eq!(kind(&short), Some("growth"));
        // Not the heap's, and nothing to speak of.
        assert_eq!(kind(&facts(30, 0, 0)), None);
        assert_eq!(kind(&facts(0, 0, 0)), None);
        assert_eq!(kind(&facts(-30, 20, -50)), None);
    }

    #[test]
    fn a_mix_is_told_apart_with_shares() {
        let verdict = judge(&facts(60, 30, 29)).unwrap();
        assert_eq!(verdict.kind, Kind::Leak);
        assert!(
            verdict.summary.contains("30.0 MiB (50 %) are in use")
                && verdict.summary.contains("29.0 MiB (48 %) are free, but kept"),
            "{}",
            verdict.summary
        );
        assert!(!judge(&facts(60, 59, 1)).unwrap().summary.contains("retention"));
    }

    #[test]
    fn what_could_be_done_fits_the_evidence() {
        let fragmented = judge(&facts(280, 2, 277)).unwrap();
        assert!(
            fragmented.suggestions[0].contains("shares its pages"),
            "{fragmented:?}"
        );
        let mut top = facts(280, 2, 277);
        top.heap.trim_at_end = Some(270 << 20);
        top.heap.free_in_thread_arenas = 200 << 20;
        let verdict = judge(&top).unwrap();
        assert!(
            verdict.suggestions[0].contains("270.0 MiB at most; lower"),
            "{verdict:?}"
        );
        assert!(verdict.suggestions[1].contains("MALLOC_ARENA_MAX"), "{verdict:?}");
        assert!(judge(&facts(30, 29, 1)).unwrap().suggestions.is_empty());
    }

    #[test]
    fn the_class_that_grew_is_named() {
        let mut sessions = facts(30, 29, 1);
        sessions.heap.class = Some(ClassGrowth {
            request: 536,
            type_name: Some("Session".to_owned()),
            count: 57_000,
            bytes: 57_000 * 544,
        });
        let evidence = judge(&sessions).unwrap().evidence.join("\n");
        assert!(
            evidence.contains("+57000 blocks of up to 536 bytes of type Session make up 29.6 MiB"),
            "{evidence}"
        );
    }
}
