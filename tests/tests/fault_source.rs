//! Page faults by the event, by the tracepoint, and not at all: what each way can tell, and that the report says so.

use leakwatch_tests::account::{self, every_page};
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::Outcome;
use leakwatch_tests::target::{Target, Truth};
use leakwatch_tests::{expect, kernel};

fn watch(program: &str, source: &str) -> (Truth, Outcome) {
    let mut target = Target::start(&Program::c(program), &[]);
    every_page(target.pid())
        .arg("--faults")
        .arg(source)
        .watch(&mut target)
}

/// Memory from before the attach has no mapping call in the window: only its faults name a site.
#[test]
fn both_ways_name_who_touched_old_memory() {
    if !kernel::required() {
        return;
    }
    for source in ["event", "tracepoint"] {
        let (truth, outcome) = watch("before_attach", source);
        account::truth_is_sound(&truth);
        account::every_function(&outcome, &truth);
        expect::first(&outcome, "fill_old_buffer");
        account::rests_on_pages(&outcome, "fill_old_buffer");
        expect::complete_stacks(&outcome);
        expect::no_losses(&outcome);
    }
}

/// What the kernel writes for the target faults in kernel mode, which the tracepoint does not see. What stays is its
/// mapping's all the same; what came and went was seen by nobody.
#[test]
fn the_tracepoint_misses_what_the_kernel_touched_and_says_so() {
    if !kernel::required() {
        return;
    }
    let [by_event, by_tracepoint] = ["event", "tracepoint"].map(|source| {
        let (truth, outcome) = watch("read_fresh", source);
        account::every_function(&outcome, &truth);
        expect::no_losses(&outcome);
        outcome
    });
    let [seen, missed] = [&by_event, &by_tracepoint].map(|it| it.recording().touched_by("receive_and_drop"));
    // malloc writes a header to the first of the 64 pages of each body.
    assert!(
        missed > 0 && missed <= seen / 16,
        "{missed} of {seen} bytes\n{by_tracepoint}"
    );
    let told = |outcome: &Outcome| {
        outcome
            .recording()
            .notes
            .iter()
            .any(|note| note.contains("tracepoint"))
    };
    assert!(told(&by_tracepoint), "the reader is not told\n{by_tracepoint}");
    assert!(!told(&by_event), "{by_event}");
}

#[test]
fn without_faults_old_memory_has_no_site() {
    if !kernel::required() {
        return;
    }
    let (_, outcome) = watch("before_attach", "never");
    let recording = outcome.recording();
    assert_eq!(recording.touched_by("fill_old_buffer"), 0, "{outcome}");
    assert!(
        recording.sites_of("fill_old_buffer").next().is_none(),
        "{outcome}"
    );
    let notes = recording.notes.join("\n");
    assert!(
        notes.contains("Page faults were not watched"),
        "{notes}\n{outcome}"
    );
}
