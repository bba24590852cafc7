//! Which class of objects leaks: its name, its size and its count, by what the objects begin with.

use leakwatch_tests::heap::{self, Heap};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::Record;
use leakwatch_tests::target::{Target, Truth};

/// So many objects of one size, within 1 %.
fn sessions_are(count: u64, truth: &Truth, field: &str) {
    let own = truth.number(field);
    assert!(
        count.abs_diff(own) <= own / 100,
        "{count} sessions by leakwatch, {own} by the program's own count ({field})"
    );
}

fn row<'a>(heap: &'a Heap, name: &'a str, bytes: u64) -> &'a heap::Class {
    let rows: Vec<_> = heap.rows_of(name).collect();
    let [row] = rows.as_slice() else {
        panic!(
            "{} rows of {name}: {rows:?}\n{:?}",
            rows.len(),
            &heap.classes[..heap.classes.len().min(12)]
        );
    };
    assert_eq!(row.bytes, bytes, "{row:?}");
    row
}

fn named_by_a_recording(flags: &[&str]) {
    let mut target = Target::start(&Program::cpp_with("heap_sessions", flags), &[]);
    let record = Record::of(target.pid()).arg("--census").arg("always");
    let (truth, outcome) = record.watch(&mut target);
    let recording = outcome.recording();
    let heap = recording
        .heap
        .unwrap_or_else(|| panic!("no census: {:?}\n{outcome}", recording.heap_not_taken));
    heap.adds_up();
    let session_bytes = truth.number("session_bytes");
    let first = &heap.classes[0];
    assert_eq!(
        first.bytes, session_bytes,
        "its size should come first: {first:?}\n{outcome}"
    );
    assert_eq!(
        first.type_name.as_deref(),
        Some("Session"),
        "{first:?}\n{outcome}"
    );
    sessions_are(first.count, &truth, "sessions");
    let grown = first.growth_count.expect("there were two censuses");
    sessions_are(grown.unsigned_abs(), &truth, "sessions_grown");
    let bytes = first.growth_bytes.expect("there were two censuses");
    assert_eq!(bytes, grown * i64::try_from(first.chunk_bytes).expect("a size"));

    // Kept from before the window: told, and no growth.
    let account = row(&heap, "Account", 344);
    let accounts = truth.number("accounts");
    assert!(account.count.abs_diff(accounts) <= accounts / 100, "{account:?}");
    let grown = account.growth_count.expect("there were two censuses");
    assert!(grown.unsigned_abs() <= accounts / 100, "{account:?}");

    let verdict = recording
        .verdict
        .unwrap_or_else(|| panic!("no verdict\n{outcome}"));
    let words = verdict.evidence.join("\n");
    assert!(
        words.contains("Session") && words.contains("536"),
        "the evidence does not name the class and its size: {verdict:?}"
    );
    // The call site is still the first evidence, and the report shows both.
    assert!(outcome.stdout.contains("Session"), "{outcome}");
}

#[test]
fn a_leaking_class_of_a_server() {
    if kernel::required() {
        named_by_a_recording(&[]);
    }
}

/// The names of classes are data, which stripping leaves.
#[test]
fn a_leaking_class_of_a_stripped_server() {
    if kernel::required() {
        named_by_a_recording(&["-s"]);
    }
}

#[test]
fn a_leaking_class_in_a_picture() {
    if !kernel::required() {
        return;
    }
    for flags in [&[][..], &["-s"], &["-static"], &["-static", "-s"]] {
        let program = Program::cpp_with("heap_sessions", flags);
        let mut target = Target::start(&program, &["--pause-ms", "0", "--uploads", "150"]);
        target.go();
        let truth = target.truth();
        let heap = heap::of_quiet(target.pid());
        let session = row(&heap, "Session", truth.number("session_bytes"));
        sessions_are(session.count, &truth, "sessions");
        // With no window what holds most is first, and that is they.
        let largest = heap.classes.iter().max_by_key(|class| class.in_use_bytes);
        assert_eq!(
            largest.map(|class| class.bytes),
            heap.classes.first().map(|class| class.bytes)
        );
        assert_eq!(heap.classes[0].type_name.as_deref(), Some("Session"), "{flags:?}");
        assert!(target.is_well());
    }
}

/// No request and no string of it: only what a class is called.
#[test]
fn no_content_is_told() {
    if !kernel::required() {
        return;
    }
    let program = Program::cpp_with("heap_sessions", &[]);
    let mut target = Target::start(&program, &["--pause-ms", "0"]);
    target.go();
    let _ = target.truth();
    let picture = heap::picture(target.pid()).unwrap_or_else(|why| panic!("no picture: {why}"));
    let text = format!("{picture:?}");
    for content in ["ssssssss", "aaaaaaaa", "qqqqqqqq", "rrrrrrrr", "cccccccc"] {
        assert!(
            !text.contains(content),
            "the target's own bytes are in the picture: {text}"
        );
    }
}
