//! Two recordings of a service of known rates: `leakwatch diff` finds what grew, by code in one build and by names across
//! two.

use leakwatch_tests::cohorts::{self, Watched};
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::run;
use leakwatch_tests::target::Target;
use leakwatch_tests::{kernel, schema};
use serde_json::Value;

/// So many records of 1,000 bytes a second; the images and segments of the program are as they were.
fn watched(program: &Program, records: &str, seconds: u32) -> Watched {
    let arguments = [
        "--records",
        records,
        "--mallocs",
        "50000",
        "--images-in-100s",
        "1000",
    ];
    let mut target = Target::start(program, &arguments);
    cohorts::watch(&mut target, seconds, &[])
}

fn compare(before: &Watched, after: &Watched) -> (Value, String) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let json = |watched: &Watched| watched.outcome.file("x.json").to_string_lossy().into_owned();
    let (before, after) = (json(before), json(after));
    let mut arguments = vec!["diff".to_owned(), before, after];
    for name in ["d.json", "d.txt", "d.csv", "d.svg", "d.folded"] {
        arguments.extend(["-o".to_owned(), file(name)]);
    }
    let outcome = run(&arguments);
    assert!(outcome.status.success(), "{outcome}");
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("it was written");
    let text = read("d.json");
    schema::diff(&text).unwrap_or_else(|problem| panic!("{problem}\n{outcome}"));
    let report: Value = serde_json::from_str(&text).expect("it was parsed just now");

    // The others say the same.
    let sites = report["sites"].as_array().expect("there are sites");
    let mut table = csv::Reader::from_path(file("d.csv")).expect("it opens");
    let rows = table.records().map(|row| row.expect("a whole line"));
    assert_eq!(rows.count(), sites.len());
    let columns: [u64; 2] = read("d.folded").lines().fold([0, 0], |sums, line| {
        let mut words = line.rsplit(' ').map(|word| word.parse::<u64>().expect("a rate"));
        let (after, before) = (words.next().expect("two"), words.next().expect("two"));
        [sums[0] + before, sums[1] + after]
    });
    for (side, sum) in ["before", "after"].iter().zip(columns) {
        let rate = report[side]["kept_rate_bytes_per_second"]
            .as_f64()
            .expect("a rate");
        let hourly = rate * 3600.0;
        let off = (sum as f64 - hourly).abs();
        assert!(
            off < 1e-6 * hourly + 1000.0,
            "{side}: {sum} and {hourly}\n{outcome}"
        );
    }
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    roxmltree::Document::parse_with_options(&read("d.svg"), options).expect("it is XML");
    (report, outcome.to_string())
}

fn site<'a>(report: &'a Value, function: &str) -> &'a Value {
    let sites = report["sites"].as_array().expect("there are sites");
    let named = |site: &&Value| site["culprit"]["function"].as_str() == Some(function);
    sites
        .iter()
        .find(named)
        .unwrap_or_else(|| panic!("{function} is not in {report:#}"))
}

/// How many times the rate before that after is.
fn times(site: &Value) -> f64 {
    let rate = |side: &str| site[side]["rate_bytes_per_second"].as_f64().unwrap_or(0.0);
    rate("after") / rate("before")
}

#[test]
fn what_grew_is_found_whatever_the_windows_and_the_builds() {
    if !kernel::required() {
        return;
    }
    let program = Program::c("cohort_three");
    let slow = watched(&program, "400", 5);
    let fast = watched(&program, "2000", 9);
    let rebuilt = watched(&Program::c_with("cohort_three", &["-O1"]), "2000", 9);

    let (report, shown) = compare(&slow, &fast);
    let records = site(&report, "keep_records");
    assert_eq!(records["change"], "grew", "{shown}");
    assert_eq!(records["matched_by"], "code", "{shown}");
    assert_eq!(records["rank"], 1, "{shown}");
    // Five times the records; what they truly were in each window is known to a tenth.
    let truly = |watched: &Watched, seconds: f64| watched.kept_by("keep_records") as f64 / seconds;
    let expected = truly(&fast, 9.0) / truly(&slow, 5.0);
    let ratio = times(records) / expected;
    assert!(
        (0.6..1.6).contains(&ratio),
        "{} and {expected}\n{shown}",
        times(records)
    );
    // By bytes these too had grown, in a window that is longer.
    let segments = site(&report, "map_segments");
    assert!((0.5..2.0).contains(&times(segments)), "{segments:#}\n{shown}");

    let (report, shown) = compare(&fast, &rebuilt);
    let records = site(&report, "keep_records");
    assert_eq!(records["matched_by"], "names", "{shown}");
    assert!((0.6..1.6).contains(&times(records)), "{shown}");
    assert!(
        report["rebuilt"]
            .as_array()
            .is_some_and(|files| files.iter().any(|file| file["module"] == "cohort_three")),
        "{shown}"
    );

    let (report, shown) = compare(&fast, &fast);
    for site in report["sites"].as_array().expect("there are sites") {
        let nothing = site["stacks"].as_array().is_some_and(|stacks| {
            stacks
                .iter()
                .all(|stack| stack["before_bytes"] == 0 && stack["after_bytes"] == 0)
        });
        assert!(
            site["change"] == "same" || nothing || site["label"] == "(no stack)",
            "{site:#}\n{shown}"
        );
    }
}

#[test]
fn what_is_no_recording_is_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.to_string_lossy().into_owned()
    };
    let broken = file("broken.json", "{");
    let newer = file("newer.json", "{\"schema_version\": 99}");
    let missing = folder.path().join("missing.json").to_string_lossy().into_owned();
    for (path, part) in [
        (&broken, "is not a recording"),
        (&newer, "schema version 99"),
        (&missing, "cannot read"),
    ] {
        let outcome = run(&["diff", path, &broken]);
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        assert!(outcome.stderr.contains(part), "{outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert_eq!(outcome.stdout, "");
    }
    let outcome = run(&["diff", &broken]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome}");
}
