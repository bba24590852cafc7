//! What the evidence of a window amounts to, over programs of which it is known. Those on which connections have a part
//! are in `trends.rs`, those that the heap alone decides in `heap_verdict.rs`.

use std::process::Command;

use leakwatch_tests::heap::Verdict;
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record};
use leakwatch_tests::target::Target;

/// Seconds of a window. It has a sample each fifth of a second, of which a trend can be told.
const SECONDS: u32 = 12;

/// Watches a program that works for as long as the window.
fn watch_command(command: Command, arguments: &[&str]) -> (Target, Outcome) {
    let mut target = Target::start_command(command);
    let mut record = Record::of(target.pid()).duration(&format!("{SECONDS}s"));
    for argument in arguments {
        record = record.arg(argument);
    }
    let running = record.start();
    running.wait_attached();
    target.go();
    // It ends by itself.
    std::thread::sleep(std::time::Duration::from_secs(SECONDS.into()));
    let outcome = running.finish();
    assert!(target.is_well(), "{outcome}");
    (target, outcome)
}

fn watch(program: &str, how: &[&str], arguments: &[&str]) -> Outcome {
    let mut command = Command::new(Program::c(program).path);
    command.args(how);
    watch_command(command, arguments).1
}

/// 80 steps in the window.
const HEAP_PACE: [&str; 2] = ["--pause-ms", "150"];

fn heap_window(how: &str, arguments: &[&str]) -> Outcome {
    watch("heap_window", &[how, HEAP_PACE[0], HEAP_PACE[1]], arguments)
}

fn verdict(outcome: &Outcome) -> Verdict {
    outcome
        .recording()
        .verdict
        .unwrap_or_else(|| panic!("no verdict\n{outcome}"))
}

/// The kind, with a confidence that is the product of what it rests on, and told in the report.
fn is(outcome: &Outcome, kind: &str) -> Verdict {
    let verdict = verdict(outcome);
    assert_eq!(verdict.kind, kind, "{verdict:?}\n{outcome}");
    let confidence = verdict.confidence.unwrap_or_else(|| panic!("{verdict:?}"));
    let product: f64 = verdict.factors.iter().map(|factor| factor.chance).product();
    assert!(
        confidence > 0.4 && confidence < 1.0 && (confidence - product).abs() < 0.01,
        "{verdict:?}"
    );
    for words in ["Confidence ", "  - "] {
        assert!(outcome.stdout.contains(words), "{words}\n{outcome}");
    }
    verdict
}

#[test]
fn a_leak_has_a_time_to_its_limit() {
    if !kernel::required() {
        return;
    }
    let outcome = heap_window("--leak", &["--census", "always"]);
    let verdict = is(&outcome, "leak");
    let limit = verdict.limit.expect("this host has RAM");
    assert!(matches!(limit.of.as_str(), "ram" | "cgroup"), "{limit:?}");
    // 256 KiB each 150 ms and a little, so about 1.7 MiB a second.
    assert!(
        (1.2e6..2.2e6).contains(&limit.rate_bytes_per_second),
        "{limit:?}\n{outcome}"
    );
    #[expect(clippy::cast_precision_loss, reason = "a size in memory")]
    let seconds = limit.left_bytes as f64 / limit.rate_bytes_per_second;
    assert!(
        (limit.seconds.expect("it grows") / seconds - 1.0).abs() < 0.01,
        "{limit:?}"
    );
    assert!(outcome.stdout.contains("is full in"), "{outcome}");
    let words = verdict.suggestions.join("\n");
    assert!(words.contains("keep_records"), "{words}\n{outcome}");
}

/// Full within a third of the window.
#[test]
fn a_bounded_cache_is_a_plateau_with_its_heap_read_and_without() {
    if !kernel::required() {
        return;
    }
    is(&heap_window("--cache", &["--census", "always"]), "plateau");
    is(&heap_window("--cache", &["--census", "never"]), "plateau");
}

#[test]
fn fragmentation_is_retention() {
    if !kernel::required() {
        return;
    }
    let verdict = is(&heap_window("--fragment", &["--census", "always"]), "retention");
    assert!(
        verdict
            .suggestions
            .iter()
            .any(|words| words.contains("malloc_trim")),
        "{verdict:?}"
    );
}

/// Blocks that come and go within what the heap has are no growth, and no page is given back.
#[test]
fn blocks_that_come_and_go_are_flat() {
    if !kernel::required() {
        return;
    }
    is(&heap_window("--churn", &["--census", "always"]), "flat");
}

#[test]
fn mappings_that_come_and_go_are_churn() {
    if !kernel::required() {
        return;
    }
    let steps = ["--honest", "--steps", "1000000"];
    is(&watch("churn", &steps, &["--census", "always"]), "churn");
}

/// No heap is read, and nobody was to look at it: sizes and pages tell.
#[test]
fn a_leak_of_mappings_names_its_site() {
    if !kernel::required() {
        return;
    }
    for census in ["always", "never"] {
        let outcome = watch(
            "mmap_leak",
            &["--steps", "100000", "--pause-ms", "20"],
            &["--census", census],
        );
        let verdict = is(&outcome, "leak");
        let words = verdict.suggestions.join("\n");
        assert!(words.contains("map_and_forget"), "{words}\n{outcome}");
    }
}

#[test]
fn a_leak_on_another_allocator_is_a_leak_with_advice_for_it() {
    if !kernel::required() {
        return;
    }
    let preloaded = |how: &str| {
        let mut command = Command::new(Program::c("heap_window").path);
        command
            .arg(how)
            .args(HEAP_PACE)
            .env("LD_PRELOAD", "libjemalloc.so.2");
        watch_command(command, &[]).1
    };
    let outcome = preloaded("--leak");
    let verdict = is(&outcome, "leak");
    assert!(outcome.recording().heap.is_none(), "{outcome}");
    let words = verdict.suggestions.join("\n");
    assert!(words.contains("dirty_decay_ms"), "{words}\n{outcome}");
    // What was not read is less sure.
    let read = is(&heap_window("--leak", &["--census", "always"]), "leak");
    assert!(verdict.confidence < read.confidence, "{verdict:?} {read:?}");
    is(&preloaded("--cache"), "plateau");
}

#[test]
fn the_exit_status_tells_the_verdict_where_it_is_asked_for() {
    if !kernel::required() {
        return;
    }
    let status = |how: &str, arguments: &[&str]| {
        let outcome = heap_window(how, arguments);
        outcome.status.code().unwrap_or_else(|| panic!("{outcome}"))
    };
    assert_eq!(status("--leak", &["--census", "always", "--fail-on-leak"]), 3);
    assert_eq!(status("--churn", &["--census", "always", "--fail-on-leak"]), 0);
    assert_eq!(status("--leak", &["--census", "always"]), 0);
}

/// Half a second can hide any leak.
#[test]
fn a_window_that_is_too_short_is_inconclusive() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("heap_window"), &["--churn"]);
    let record = Record::of(target.pid()).duration("500ms").arg("--fail-on-leak");
    let running = record.start();
    running.wait_attached();
    target.go();
    let outcome = running.finish();
    assert_eq!(outcome.status.code(), Some(4), "{outcome}");
    let line = outcome
        .stdout
        .lines()
        .find(|line| line.starts_with("Inconclusive: "))
        .unwrap_or_else(|| panic!("{outcome}"));
    assert!(line.contains("Watch for about"), "{line}");
}
