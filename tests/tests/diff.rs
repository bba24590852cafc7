//! Two recordings of a service of known rates: `leakwatch diff` finds what grew, by code in one build and by names across
//! two.

use std::collections::BTreeMap;
use std::path::Path;

use leakwatch_tests::cohorts::{self, Watched};
use leakwatch_tests::page::{Page, figure, within};
use leakwatch_tests::pprof::{self, pprof};
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
    let mut arguments = vec!["diff".to_owned(), before.clone(), after.clone()];
    for name in [
        "d.json", "d.txt", "d.csv", "d.svg", "d.folded", "d.html", "d.pb.gz",
    ] {
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
    page(&file("d.html"), &report, columns[1]);
    let profiles = [(&before, "before.pb.gz"), (&after, "after.pb.gz")].map(|(recording, name)| {
        let outcome = run(&["report", recording, "-o", &file(name)]);
        assert!(outcome.status.success(), "{outcome}");
        file(name)
    });
    profile(&file("d.pb.gz"), &profiles, columns, &report);
    (report, outcome.to_string())
}

/// The page's figures are those of the comparison.
fn page(path: &str, report: &Value, hourly: u64) {
    let page = Page::read(path.as_ref());
    let sites = report["sites"].as_array().expect("there are sites");
    let keeps = |site: &&Value| {
        ["before", "after"]
            .iter()
            .any(|side| site[side]["bytes"].as_u64() > Some(0))
    };
    let rows = page.all("#ranking > li");
    let told: Vec<&Value> = sites.iter().filter(keeps).collect();
    assert_eq!(rows.len(), told.len().min(100));
    for (row, site) in rows.into_iter().zip(told) {
        let exact = site["rate_change_bytes_per_second"].as_f64();
        assert_eq!(figure(row, "data-change"), exact, "{site:#}");
        for side in ["before", "after"] {
            let rate = site[side]["rate_bytes_per_second"].as_f64();
            assert_eq!(figure(row, &format!("data-{side}")), rate, "{site:#}");
            let bytes = within(row, &format!(".cell.{side} [data-bytes]"));
            let bytes = bytes.first().and_then(|it| figure::<u64>(*it, "data-bytes"));
            assert_eq!(bytes, site[side]["bytes"].as_u64(), "{site:#}");
        }
        let tag = within(row, ".cell.change .tag");
        let tag: String = tag.into_iter().flat_map(|it| it.text()).collect();
        assert_eq!(Some(tag.as_str()), site["change"].as_str());
    }
    let kept: Vec<Option<u64>> = page
        .all("table.sides tr.kept [data-bytes]")
        .into_iter()
        .map(|it| figure(it, "data-bytes"))
        .collect();
    assert_eq!(
        kept,
        ["before", "after"].map(|side| report[side]["kept_bytes"].as_u64())
    );
    let drawn = page.all("#frames");
    let drawn = drawn.first().and_then(|it| figure::<u64>(*it, "data-total"));
    assert_eq!(drawn.unwrap_or(0), hourly, "the flame graph's whole");
}

/// Bytes of each function itself, and with what it called, as pprof sums them; nothing where the profile is without the
/// measure.
fn by_function(path: &Path, measure: &str) -> BTreeMap<String, [i64; 2]> {
    let mut functions: BTreeMap<String, [i64; 2]> = BTreeMap::new();
    if pprof(path, &["-raw"]).contains(&format!("{measure}/bytes")) {
        for row in pprof::rows(&pprof(path, &["-top", &format!("-sample_index={measure}")])) {
            let sums = functions.entry(row.function).or_default();
            *sums = [sums[0] + row.flat, sums[1] + row.cumulated];
        }
    }
    functions
}

/// pprof reads the differences: the rates are those of the folded stacks, and bytes are those of the one recording's profile
/// less those of the other's.
fn profile(path: &str, recordings: &[String; 2], hourly: [u64; 2], report: &Value) {
    let path: &Path = path.as_ref();
    let hourly = hourly.map(|it| i64::try_from(it).expect("nobody gains so much"));
    let shown = pprof::rows(&pprof(path, &["-top"]));
    let sum: i64 = shown.iter().map(|row| row.flat).sum();
    assert_eq!(
        sum,
        hourly[1] - hourly[0],
        "by default it is rates that are shown"
    );
    for measure in ["live_space", "held_space", "touched_space"] {
        let [before, after] = recordings.each_ref().map(|it| by_function(it.as_ref(), measure));
        let mut expected = after;
        for (function, [flat, cumulated]) in before {
            let sums = expected.entry(function).or_default();
            *sums = [sums[0] - flat, sums[1] - cumulated];
        }
        let mut found = by_function(path, measure);
        // What is as it was need not be in a profile.
        for functions in [&mut expected, &mut found] {
            functions.retain(|_, sums| *sums != [0, 0]);
        }
        assert_eq!(found, expected, "{measure}");
    }
    let comments = pprof(path, &["-comments"]);
    let pid = &report["after"]["target"]["pid"];
    assert!(comments.contains(&format!("(PID {pid})")), "{comments}");
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
