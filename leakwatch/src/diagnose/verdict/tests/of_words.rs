//! What is said, and what is suggested.

use super::super::*;
use super::made_facts::{MIB, Made, arenas, site, with};
use crate::sampler::growth::Delta;
use crate::sampler::kind::Kind as MappingKind;
use crate::target::allocator::Allocator;

fn suggested(made: &Made) -> String {
    made.judge().suggestions.join("\n")
}

#[test]
fn a_mix_is_told_apart_with_shares() {
    let mix = Made::of(|at| 100.0 + at, 30, 29);
    let verdict = mix.judge();
    assert_eq!(verdict.kind, Kind::Leak);
    assert!(
        verdict.summary.contains("(52 %) are in use")
            && verdict.summary.contains("29.0 MiB (48 %) are free, but kept"),
        "{}",
        verdict.summary
    );
    assert!(!Made::leak().judge().summary.contains("retention"));
}

#[test]
fn retention_is_given_back_or_not() {
    let fragmented = Made::fragmented();
    assert!(suggested(&fragmented).contains("shares its pages"));
    let mut top = Made::fragmented();
    let heap = top.heap.as_mut().unwrap();
    heap.trim_at_end = Some(270 << 20);
    heap.free_in_thread_arenas = 200 << 20;
    let suggestions = top.judge().suggestions;
    assert!(
        suggestions[0].contains("270.0 MiB at most; lower"),
        "{suggestions:?}"
    );
    assert!(suggestions[1].contains("MALLOC_ARENA_MAX"), "{suggestions:?}");
    // What was kept from before is worth a word where nothing grows.
    let mut rest = Made::steady();
    assert!(rest.judge().suggestions.is_empty());
    rest.heap.as_mut().unwrap().trim_at_end = Some(60 << 20);
    assert!(
        suggested(&rest).contains("keeps 60.0 MiB"),
        "{}",
        suggested(&rest)
    );
}

#[test]
fn the_class_that_grew_is_named() {
    let mut sessions = Made::leak();
    sessions.heap.as_mut().unwrap().class = Some(ClassGrowth {
        request: 536,
        type_name: Some("Session".to_owned()),
        count: 57_000,
        bytes: 57_000 * 544,
    });
    let evidence = sessions.judge().evidence.join("\n");
    assert!(
        evidence.contains("+57000 blocks of up to 536 bytes of type Session make up 29.6 MiB"),
        "{evidence}"
    );
}

#[test]
fn growth_with_connections_asks_for_timeouts_and_names_no_handler() {
    let mut leak = Made::leak();
    leak.sites = vec![site("accept_one", 28, 28)];
    leak.goes = vec![with(With::Connections, true), with(With::Threads, false)];
    leak.counts.connections = Some((60, 230));
    let words = suggested(&leak);
    assert!(
        words.contains("timeouts") && words.contains("rose from 60 to 230"),
        "{words}"
    );
    assert!(!words.contains("Look at accept_one"), "{words}");
    let evidence = leak.judge().evidence.join("\n");
    assert!(
        evidence.contains("goes with connections, 3.1 KiB to 4.4 KiB each"),
        "{evidence}"
    );
    assert!(
        evidence.contains("there were 60, and 230 at the end"),
        "{evidence}"
    );
    // The number is level: what is kept outlives the connection.
    leak.counts.connections = Some((60, 60));
    assert!(suggested(&leak).contains("beyond its close"));
    // By descriptors, where connections were read too rarely.
    leak.goes = vec![with(With::Descriptors, true)];
    assert!(suggested(&leak).contains("a connection or a file"));
}

#[test]
fn growth_at_stable_connections_names_the_handler() {
    let mut leak = Made::leak();
    leak.sites = vec![site("keep_request", 28, 28)];
    leak.goes = vec![with(With::Connections, false), with(With::Descriptors, false)];
    let words = suggested(&leak);
    assert!(
        words.contains("Look at keep_request") && words.contains("does not go with connections"),
        "{words}"
    );
    let evidence = leak.judge().evidence.join("\n");
    assert!(
        evidence.contains("not seen to go with connections, open descriptors"),
        "{evidence}"
    );
    assert!(
        evidence.contains("keep_request touched 28.0 MiB of it first"),
        "{evidence}"
    );
    // What went unseen is not said.
    leak.goes.clear();
    assert!(!suggested(&leak).contains("does not go with"));
}

/// Whoever touched their pages first is not accused; what tells the lines that fill them is named.
#[test]
fn small_objects_of_python_ask_for_their_own_tracer() {
    let mut leak = Made::leak();
    leak.sites = vec![arenas(28)];
    let verdict = leak.judge();
    let (evidence, words) = (verdict.evidence.join("\n"), verdict.suggestions.join("\n"));
    assert!(
        evidence.contains("28.0 MiB of it lie in pymalloc arenas (93 %)"),
        "{evidence}"
    );
    assert!(
        words.contains("Small objects of Python keep 28.0 MiB") && words.contains("tracemalloc"),
        "{words}"
    );
    assert!(
        !format!("{} {evidence} {words}", verdict.summary).contains("encode_string"),
        "{verdict:?}"
    );
}

#[test]
fn causes_are_said_of_call_sites_alone() {
    let mut leak = Made::leak();
    leak.goes = vec![with(With::Connections, true)];
    (leak.heap, leak.births) = (None, None);
    let verdict = leak.judge();
    let words = format!(
        "{} {} {}",
        verdict.summary,
        verdict.evidence.join(" "),
        verdict.suggestions.join(" ")
    );
    for causal in ["because", "caused", "due to", "allocated", "leaks"] {
        assert!(!words.contains(causal), "{causal}: {words}");
    }
    assert!(words.contains("No call site is known"), "{words}");
}

#[test]
fn growing_threads_are_told_of_with_their_stacks() {
    let mut threads = Made::leak();
    threads.counts.threads = Some((8, 60));
    let stacks = Delta {
        anonymous: 7 * MIB,
        ..Delta::default()
    };
    threads.kinds = Some([(MappingKind::ThreadStack, stacks)].into());
    threads.heap.as_mut().unwrap().thread_arenas = 12;
    let words = suggested(&threads);
    for part in ["from 8 to 60", "gained 7.0 MiB", "12 arenas", "MALLOC_ARENA_MAX"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    threads.counts.threads = Some((8, 9));
    assert!(!suggested(&threads).contains("MALLOC_ARENA_MAX"));
}

#[test]
fn other_allocators_have_settings_of_their_own() {
    let mut leak = Made::leak();
    leak.heap = None;
    leak.allocator = Some(Allocator::Jemalloc);
    assert!(suggested(&leak).contains("dirty_decay_ms") && suggested(&leak).contains("stats.allocated"));
    leak.allocator = Some(Allocator::Go);
    assert!(suggested(&leak).contains("GOMEMLIMIT"));
    leak.allocator = Some(Allocator::Glibc { version: None });
    assert!(suggested(&leak).contains("--census always"));
    leak.allocator = None;
    assert!(!suggested(&leak).contains("decay"));
    let mut steady = Made::steady();
    steady.heap = None;
    steady.allocator = Some(Allocator::Jemalloc);
    assert!(steady.judge().suggestions.is_empty());
}

#[test]
fn a_young_process_may_be_at_its_start() {
    let mut leak = Made::leak();
    assert!(!leak.judge().evidence.join(" ").contains("old"));
    leak.age = Some(90.0);
    let evidence = leak.judge().evidence.join(" ");
    assert!(evidence.contains("The process is 1 min 30 s old"), "{evidence}");
}

#[test]
fn losses_are_told() {
    let mut steady = Made::steady();
    (
        steady.losses.events,
        steady.losses.events_lost,
        steady.losses.samples_missed,
    ) = (990, 10, 2);
    let evidence = steady.judge().evidence.join(" ");
    assert!(
        evidence.contains("10 of 1000 events were lost") && evidence.contains("2 samples of /proc"),
        "{evidence}"
    );
}

#[test]
fn a_name_of_any_length_is_cut() {
    let mut leak = Made::leak();
    leak.sites = vec![site(&"é".repeat(4000), 28, 28)];
    let verdict = leak.judge();
    for sentence in verdict.evidence.iter().chain(&verdict.suggestions) {
        assert!(sentence.chars().count() < 400, "{sentence}");
    }
}
