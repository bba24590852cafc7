//! When births are watched, and at what price: by the mode that was asked for, and the budget.

use leakwatch_tests::cohorts::{Watched, watch};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{self, Record};
use leakwatch_tests::target::Target;
use leakwatch_tests::text;

/// No probe at any moment: the text is the file's, and pages stay the evidence.
#[test]
fn never_is_never() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("cohort_realloc"), &[]);
    let pid = target.pid();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let watched = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let comparison = text::compare(pid);
                assert!(comparison.differences.is_empty(), "{:?}", comparison.differences);
                looks += 1;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            looks
        });
        let watched = watch(&mut target, 5, &["--allocs", "never"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let looks = looks.join().expect("the text is the file's");
        assert!(looks > 10, "{looks} looks are too few");
        watched
    });
    let recording = &watched.recording;
    assert!(
        recording.allocations.is_none() && recording.allocations_not_watched.is_none(),
        "{}",
        watched.detail()
    );
    for site in &recording.call_sites {
        assert_ne!(site.evidence, "survivors", "{}", watched.detail());
        assert!(site.allocations.is_none(), "{}", watched.detail());
    }
    assert!(
        recording.call_sites.iter().any(|site| site.evidence == "pages"),
        "{}",
        watched.detail()
    );
    leakwatch_tests::account::sums_up(&watched.outcome);
}

/// The whole window, whatever it costs: a program that allocates little.
#[test]
fn always_is_the_whole_window() {
    if !kernel::required() {
        return;
    }
    let arguments = ["--journals", "60", "--replies", "200"];
    let mut target = Target::start(&Program::c("cohort_realloc"), &arguments);
    let watched = watch(&mut target, 6, &["--allocs", "always"]);
    let allocations = watched.recording.allocations.as_ref();
    let allocations = allocations.unwrap_or_else(|| panic!("no births\n{}", watched.detail()));
    assert!(allocations.budget_seconds.is_none(), "{}", watched.detail());
    let part = allocations.watched_seconds / watched.recording.window.duration_seconds;
    // From when the heap was read, which takes its time on a busy machine, to the last look.
    assert!(
        part > 0.8,
        "watched for {part:.2} of the window\n{}",
        watched.detail()
    );
    watched.names_the_leak();
    watched.rests_on_survivors("append_record");
    watched.bytes_are_true("append_record", 0.1);
    text::wait_clean(target.pid());
}

/// More births than can be taken: the window ends when it should all the same, and the probes go.
#[test]
fn always_is_no_longer_than_the_window() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("cohort_rate"), &["--rate", "0", "--threads", "8"]);
    let watched = watch(&mut target, 2, &["--allocs", "always"]);
    // What waits when it ends is still taken: as much as the ring and the queue hold.
    let seconds = watched.recording.window.duration_seconds;
    assert!(
        seconds < 12.0,
        "it took {seconds:.1} s in place of 2\n{}",
        watched.detail()
    );
    let allocations = watched.recording.allocations.as_ref();
    let allocations = allocations.unwrap_or_else(|| panic!("no births\n{}", watched.detail()));
    assert!(allocations.hits > 10_000, "{}", watched.detail());
    text::wait_clean(target.pid());
}

/// What was paid is told, and the target's own processor time, of which it is a part, or two thousandths of one processor.
fn paid(watched: &Watched, part: f64) {
    let target_seconds = watched.target_seconds;
    let allocations = watched.recording.allocations.as_ref();
    let allocations = allocations.unwrap_or_else(|| panic!("no births\n{}", watched.detail()));
    let window = watched.recording.window.duration_seconds;
    let most = part * target_seconds * 1.3 + 0.002 * window;
    assert!(
        allocations.cost_seconds > 0.0 && allocations.cost_seconds <= most,
        "births cost {:.4} s, {most:.4} s at most may go for {target_seconds:.2} s of work\n{}",
        allocations.cost_seconds,
        watched.detail()
    );
    let budget = allocations.budget_seconds.expect("a budget was given");
    assert!(
        budget <= most,
        "a budget of {budget} s is no part of {target_seconds:.2} s of work\n{}",
        watched.detail()
    );
    let told = allocations.target_cpu_seconds.expect("the kernel tells it");
    // The kernel was asked before leakwatch began and when it had reported.
    assert!(
        (0.5 * target_seconds - 0.1..=1.1 * target_seconds + 0.1).contains(&told),
        "its processor time is {told} s by the report, {target_seconds} s by the kernel"
    );
}

/// From ten blocks a second to as many as two threads can: the price stays a part of what the target uses.
#[test]
fn the_budget_holds_at_every_rate() {
    if !kernel::required() {
        return;
    }
    let mut watched_part = Vec::new();
    for rate in ["10", "5000", "400000", "0"] {
        let mut target = Target::start(&Program::c("cohort_rate"), &["--rate", rate]);
        let pid = target.pid();
        let watched = watch(&mut target, 6, &[]);
        watched.is_sound();
        paid(&watched, 0.01);
        watched.nothing_survives();
        text::wait_clean(pid);
        let allocations = watched.recording.allocations.as_ref().expect("it is sound");
        watched_part.push(allocations.watched_seconds / watched.recording.window.duration_seconds);
    }
    // Little is watched all the time, much only now and then.
    assert!(
        watched_part[0] > 0.8 && watched_part[3] < 0.1,
        "{watched_part:?} of the windows were watched"
    );
}

/// Five times the budget buys more, and no more than was paid for.
#[test]
fn a_larger_budget_buys_more() {
    if !kernel::required() {
        return;
    }
    let mut births = Vec::new();
    for budget in ["1", "5"] {
        let mut target = Target::start(&Program::cpp("cohort_server"), &[]);
        // Long enough that five percent are more than the six bursts that there are in any case.
        let watched = watch(&mut target, 15, &["--allocs-budget", budget]);
        watched.is_sound();
        paid(&watched, if budget == "1" { 0.01 } else { 0.05 });
        births.push(watched.recording.allocations.as_ref().expect("it is sound").hits);
    }
    assert!(
        births[1] > 2 * births[0],
        "{births:?} hits on one and on five percent"
    );
}

#[test]
fn modes_and_budgets_that_are_none_are_refused() {
    if !kernel::required() {
        return;
    }
    let pid = std::process::id().to_string();
    for arguments in [
        ["--allocs", "sometimes"],
        ["--allocs-budget", "0"],
        ["--allocs-budget", "plenty"],
        ["--allocs-budget", "-1"],
    ] {
        let mut all = vec!["record", "--pid", &pid, "--duration", "1s"];
        all.extend(arguments);
        let outcome = record::run(&all);
        assert_eq!(outcome.status.code(), Some(2), "{arguments:?}: {outcome}");
    }
}

/// Twenty megabytes within a second of the window, by a process that else sleeps: whatever births see of it, it is not
/// left without a name.
#[test]
fn what_comes_all_at_once_is_named() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("brk_leak"), &[]);
    let running = Record::of(target.pid()).duration("6s").start();
    running.wait_attached();
    target.go();
    let truth = target.truth();
    let outcome = running.finish();
    let recording = outcome.recording();
    let first = &recording.call_sites[0];
    assert!(first.blames("leak_small"), "{outcome}");
    let live = first.live_bytes.expect("what is there is known");
    assert!(
        live * 10 > truth.number("requested_bytes") * 9,
        "{live} bytes of leak_small\n{outcome}"
    );
    let allocations = recording.allocations.as_ref().expect("births were watched");
    let evidence = if allocations.tell { "survivors" } else { "pages" };
    assert_eq!(first.evidence, evidence, "{outcome}");
    let account = recording
        .reconciliation
        .as_ref()
        .expect("smaps was read at both ends");
    assert!(account.coverage.is_some_and(|part| part > 0.9), "{outcome}");
}
