//! The same recording in every format, made at once or from the file.

use std::os::unix::fs::PermissionsExt;

use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Outcome, Record, run};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};

fn recorded() -> Outcome {
    let mut target = Target::start(&Program::c("big_malloc"), &[]);
    Record::of(target.pid()).watch(&mut target).1
}

#[test]
fn a_report_can_be_rendered_again() {
    if !kernel::required() {
        return;
    }
    let outcome = recorded();
    let json = outcome.file("x.json");
    for (first, again) in [("x.txt", "y.txt"), ("x.folded", "y.folded"), ("x.json", "y.json")] {
        let path = outcome.file(again);
        let rendered = run(&[
            "report".as_ref(),
            "-v".as_ref(),
            json.as_os_str(),
            "-o".as_ref(),
            path.as_os_str(),
        ]);
        assert!(rendered.status.success(), "{rendered}");
        assert_eq!(outcome.text_of(first), outcome.text_of(again), "{again} differs");
    }
    let printed = run(&["report".as_ref(), "-v".as_ref(), json.as_os_str()]);
    assert_eq!(printed.stdout, outcome.stdout, "on stdout it differs");
}

/// Nobody who asks for nothing more has to scroll: the verdict is the first word, the site and the account are there.
#[test]
fn the_answer_is_one_screen() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("big_malloc"), &[]);
    let (_, outcome) = Record::of(target.pid()).brief().watch(&mut target);
    expect::printable(&outcome);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines.len() <= 24, "{} lines\n{outcome}", lines.len());
    let kind = outcome
        .recording()
        .verdict
        .map(|verdict| verdict.kind)
        .unwrap_or_default();
    let first = lines.first().map(|line| line.to_lowercase()).unwrap_or_default();
    assert!(!kind.is_empty() && first.starts_with(&kind), "{kind}\n{outcome}");
    for part in [" 1  ", "keep_big", "Account: ", "Lost: "] {
        assert!(outcome.stdout.contains(part), "no {part:?}\n{outcome}");
    }
}

#[test]
fn the_text_fits_a_terminal_and_is_plain_in_a_pipe() {
    if !kernel::required() {
        return;
    }
    let outcome = recorded();
    expect::printable(&outcome);
    assert!(outcome.stdout.contains("keep_big"), "{outcome}");
    let long = outcome.stdout.lines().find(|line| line.chars().count() > 80);
    assert_eq!(long, None, "a line is over 80 columns");
}

#[test]
fn folded_stacks_go_from_root_to_leaf_and_weigh_what_is_held() {
    if !kernel::required() {
        return;
    }
    let outcome = recorded();
    let folded = outcome.text_of("x.folded");
    let mut total = 0;
    for line in folded.lines() {
        let (stack, weight) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no weight in {line:?}"));
        total += weight
            .parse::<u64>()
            .unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let frames: Vec<&str> = stack.split(';').collect();
        let place = |name: &str| frames.iter().position(|frame| frame.contains(name));
        if let (Some(main), Some(site)) = (place("main"), place("keep_big")) {
            assert!(main < site, "main is not nearer the root: {line:?}");
        }
    }
    assert!(folded.contains("keep_big"), "{folded}");
    // By live bytes where all are known, else by held ones: one graph is of one measure.
    let sites = outcome.recording().call_sites;
    let live: Option<u64> = sites.iter().map(|site| site.live_bytes).sum();
    let expected = live.unwrap_or_else(|| outcome.recording().held());
    assert_eq!(total, expected, "the weights do not add up:\n{folded}");
}

#[test]
fn files_are_for_their_owner_alone() {
    if !kernel::required() {
        return;
    }
    let outcome = recorded();
    for name in ["x.json", "x.txt", "x.folded"] {
        let metadata = std::fs::metadata(outcome.file(name)).expect("the file is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(outcome.directory())
        .expect("it is ours")
        .flatten()
        .collect();
    assert_eq!(left.len(), 3, "more than was asked for is left: {left:?}");
}

#[test]
fn top_limits_the_text_not_the_recording() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("churn"), &[]);
    let (_, outcome) = Record::of(target.pid()).arg("--top").arg("1").watch(&mut target);
    expect::first(&outcome, "keep_a_little");
    assert!(outcome.stdout.contains("keep_a_little"), "{outcome}");
    assert!(!outcome.stdout.contains("churn_mappings"), "{outcome}");
}
