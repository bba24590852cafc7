//! What could be done, as far as the evidence goes. Pure.

use super::Kind;
use super::course::Course;
use super::facts::{Goes, HeapFacts, With};
use super::weighed::{SMALL_SHARE, Weighed};
use super::words::{free_at_rest, keeper, named};
use crate::diagnose::figures::{amount, bytes, duration, reckoned};
use crate::diagnose::pool::Pool;
use crate::sampler::kind::Kind as MappingKind;
use crate::target::allocator::Allocator;

/// Threads that count as growing: one more may be a helper's.
const THREADS_MORE: u64 = 2;

/// A suggestion for something that the evidence shows; `None` where it does not.
type Suggestion = fn(&Weighed<'_>, Kind) -> Option<String>;

/// All of them, in the order in which they are given.
const SUGGESTIONS: [Suggestion; 11] = [
    per_connection,
    per_thread,
    by_the_handler,
    unnamed,
    trim,
    fewer_arenas,
    decay,
    statistics,
    trim_at_rest,
    reuse,
    longer,
];

pub(super) fn suggestions(weighed: &Weighed<'_>, kind: Kind) -> Vec<String> {
    SUGGESTIONS
        .iter()
        .filter_map(|suggestion| suggestion(weighed, kind))
        .collect()
}

fn grows(kind: Kind) -> bool {
    matches!(kind, Kind::Leak | Kind::Growth)
}

fn told<'a>(weighed: &Weighed<'a>, with: With) -> Option<&'a Goes> {
    weighed
        .facts
        .goes
        .iter()
        .find(|goes| goes.with == with && goes.is_told() && goes.correlation.coefficient > 0.0)
}

fn more(weighed: &Weighed<'_>, with: With) -> Option<(u64, u64)> {
    weighed.facts.counts.of(with).filter(|(first, last)| last > first)
}

/// Descriptors stand for connections where these were not read often enough: then it is said so.
fn per_connection(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    if !grows(kind) {
        return None;
    }
    let goes = told(weighed, With::Connections).or_else(|| told(weighed, With::Descriptors))?;
    let what = match goes.with {
        With::Descriptors => "descriptor (a connection or a file)",
        _ => "connection",
    };
    let (closed, of) = match more(weighed, goes.with) {
        Some((first, last)) => (
            format!(
                "{} rose from {first} to {last}: are they closed?",
                goes.with.words()
            ),
            "idle and read timeouts, a limit of the pool, and a close on every path of an error",
        ),
        None => (
            format!(
                "The number of {} did not rise: is its state freed when one closes?",
                goes.with.words()
            ),
            "what is kept for a connection beyond its close",
        ),
    };
    let each = goes
        .correlation
        .per_unit
        .as_ref()
        .filter(|each| each.low > 0.0)
        .map(|each| format!(" (about {})", reckoned(each.bytes)))
        .unwrap_or_default();
    let closed = capital(&closed);
    Some(format!(
        "Memory comes with each open {what}{each}. {closed} Look at {of}."
    ))
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// Each thread has a stack, and the first eight per processor an arena of glibc's.
fn per_thread(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    if kind == Kind::Retention {
        return None;
    }
    let (first, last) =
        more(weighed, With::Threads).filter(|(first, last)| last.saturating_sub(*first) >= THREADS_MORE)?;
    if !weighed.grew() {
        return None;
    }
    let stacks = weighed
        .facts
        .kinds
        .and_then(|kinds| kinds.get(&MappingKind::ThreadStack))
        .map(|delta| delta.anonymous_and_swap())
        .filter(|bytes| *bytes > 0)
        .map(|bytes| format!("; their stacks gained {}", amount(bytes)))
        .unwrap_or_default();
    let arenas = weighed
        .heap()
        .map(|heap| format!("; there are {} arenas of threads", heap.thread_arenas))
        .unwrap_or_default();
    Some(format!(
        "Threads rose from {first} to {last}{stacks}{arenas}: bound their number, give them smaller stacks, and have fewer \
         arenas (MALLOC_ARENA_MAX)."
    ))
}

/// Growth that does not go with connections.
fn by_the_handler(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    let with_connections =
        told(weighed, With::Connections).is_some() || told(weighed, With::Descriptors).is_some();
    if !grows(kind) || with_connections {
        return None;
    }
    let stable = weighed
        .facts
        .goes
        .iter()
        .any(|goes| matches!(goes.with, With::Connections | With::Descriptors));
    let while_stable = if stable {
        ", which does not go with connections"
    } else {
        ""
    };
    let site = keeper(weighed)?;
    if let Some(pool) = site.pool {
        let live = bytes(site.live.unwrap_or(0));
        return Some(match pool {
            Pool::Pymalloc => format!(
                "Small objects of Python keep {live} of it, in arenas: which lines make them tells tracemalloc, or memray \
                 where the service may be slowed."
            ),
        });
    }
    Some(format!(
        "Look at {}: what it keeps for each request or job{while_stable}, and who should free it.",
        named(&site.label)
    ))
}

/// The growth has nobody's name.
fn unnamed(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    if !grows(kind) || keeper(weighed).is_some() {
        return None;
    }
    Some(if weighed.facts.sites.is_empty() {
        "No call site is known: `leakwatch record` names those that keep the growth.".to_owned()
    } else if weighed.heap().is_some() {
        "No call site has a large part of it: a longer window or a larger --allocs-budget sees more births."
            .to_owned()
    } else {
        "No call site has a large part of it: watch for longer.".to_owned()
    })
}

fn keeps<'a>(weighed: &Weighed<'a>, kind: Kind) -> Option<&'a HeapFacts> {
    let worth = kind == Kind::Retention || weighed.grew() && weighed.share(weighed.kept) >= SMALL_SHARE;
    weighed.heap().filter(|_| worth)
}

fn trim(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    let heap = keeps(weighed, kind)?;
    let trim = heap.trim_at_end.unwrap_or(0);
    Some(if trim as f64 >= SMALL_SHARE * weighed.kept as f64 {
        format!(
            "malloc_trim(0) would give back {} at most; lower M_TRIM_THRESHOLD to have the allocator do so by itself.",
            bytes(trim)
        )
    } else {
        format!(
            "malloc_trim(0) would give back {} at most: the rest shares its pages with blocks in use. Look for \
             small long-lived blocks that are allocated among short-lived ones.",
            bytes(trim)
        )
    })
}

fn fewer_arenas(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    let heap = keeps(weighed, kind)?;
    (heap.free_in_thread_arenas as f64 >= 0.5 * heap.free_at_end.max(1) as f64).then(|| {
        format!(
            "{} of the free memory lie in arenas of threads: fewer arenas (MALLOC_ARENA_MAX) keep less.",
            bytes(heap.free_in_thread_arenas)
        )
    })
}

/// Allocators that give back by a clock of their own.
fn decay(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    if weighed.heap().is_some() || !(grows(kind) || kind == Kind::Plateau) {
        return None;
    }
    let setting = match weighed.facts.allocator? {
        Allocator::Jemalloc => {
            "jemalloc gives freed pages back after dirty_decay_ms and muzzy_decay_ms (MALLOC_CONF); background_thread:true \
             does it for idle threads."
        }
        Allocator::Tcmalloc => {
            "tcmalloc keeps freed pages: a release rate (TCMALLOC_RELEASE_RATE, or the background release of newer ones) \
             gives them back."
        }
        Allocator::Mimalloc => "mimalloc gives freed pages back after MIMALLOC_PURGE_DELAY milliseconds.",
        Allocator::Go => "Go's heap may grow to GOGC percent over what is live: GOMEMLIMIT bounds it.",
        Allocator::Jvm => "The heap of a Java virtual machine grows to -Xmx by itself.",
        Allocator::Glibc { .. } | Allocator::Musl | Allocator::UnknownStatic | Allocator::Unknown => {
            return None;
        }
    };
    Some(setting.to_owned())
}

/// Who could tell what is in use, where the heap was not read.
fn statistics(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    if weighed.heap().is_some() || !grows(kind) {
        return None;
    }
    let statistics = match weighed.facts.allocator? {
        Allocator::Glibc { .. } => {
            "Read the heap too (--census always): it tells what is in use from what is kept."
        }
        Allocator::Jemalloc => {
            "Its own statistics (stats.allocated against stats.resident) tell what is in use."
        }
        Allocator::Go => "Its heap profile (pprof, inuse_space) tells what is in use.",
        Allocator::Jvm => "A histogram of its classes (jcmd PID GC.class_histogram) tells what is in use.",
        _ => return None,
    };
    Some(statistics.to_owned())
}

fn trim_at_rest(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    let free = free_at_rest(weighed).filter(|_| matches!(kind, Kind::Flat | Kind::Churn))?;
    Some(format!(
        "The heap keeps {} in whole free pages from before: malloc_trim(0) would give back so much at most.",
        bytes(free)
    ))
}

fn reuse(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    (kind == Kind::Churn && weighed.churns()).then(|| {
        "Memory that is given back to the kernel and touched again costs page faults: keep buffers for the next use, or \
         raise M_MMAP_THRESHOLD and M_TRIM_THRESHOLD."
            .to_owned()
    })
}

fn longer(weighed: &Weighed<'_>, kind: Kind) -> Option<String> {
    let undecided = kind == Kind::Growth;
    let weak = kind == Kind::Leak && !weighed.seen.by_trend;
    (undecided || weak).then(|| {
        let slackens = if weighed.seen.course == Course::Slackening {
            "it slackens, and "
        } else {
            ""
        };
        format!(
            "Watch for longer, about {} more: {slackens}a cache stops growing, a leak does not.",
            duration(weighed.watch_longer())
        )
    })
}
