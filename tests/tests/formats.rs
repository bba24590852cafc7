//! One recording in every format, each opened by a reader of its own: all say the same, to the byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use leakwatch_tests::page::{Page, figure, within};
use leakwatch_tests::pprof::{self, pprof};
use leakwatch_tests::record::run;
use leakwatch_tests::recording::Recording;
use leakwatch_tests::{kernel, schema};
use serde_json::Value;

/// What a format says of the live bytes: of all call sites, and of the first alone.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    all: u64,
    first: u64,
}

#[test]
fn every_format_of_a_recording_opens_in_its_reader_and_says_the_same() {
    if !kernel::required() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| folder.path().join(name);
    let names = [
        "r.json",
        "r.svg",
        "r.folded",
        "r.pb.gz",
        "r.csv",
        "r.series.csv",
        "r.html",
        "r.txt",
    ];
    let mut arguments = vec!["demo".to_owned(), "-d".to_owned(), "5s".to_owned()];
    for name in names {
        arguments.extend(["-o".to_owned(), file(name).to_string_lossy().into_owned()]);
    }
    let outcome = run(&arguments);
    assert!(outcome.status.success(), "{outcome}");

    let text = read(&file("r.json"));
    schema::recording(&text).unwrap_or_else(|problem| panic!("{problem}\n{outcome}"));
    let recording = Recording::parse(&text).unwrap_or_else(|problem| panic!("{problem}\n{outcome}"));
    let value: Value = serde_json::from_str(&text).expect("it was parsed just now");
    let first = &recording.call_sites[0];
    assert!(first.blames("handle_upload"), "{outcome}");
    let expected = Said {
        all: recording
            .call_sites
            .iter()
            .filter_map(|site| site.live_bytes)
            .sum(),
        first: first.live_bytes.expect("the first site's live bytes are known"),
    };
    assert!(expected.first > 1 << 20, "{expected:?}\n{outcome}");
    let stack = stack_of(&value);

    assert_eq!(of_csv(&file("r.csv")), expected, "{outcome}");
    assert_eq!(of_html(&file("r.html"), &value), expected, "{outcome}");
    assert_eq!(of_folded(&file("r.folded"), &stack), expected, "{outcome}");
    assert_eq!(
        of_svg(&file("r.svg"), first_function(&value)),
        of_folded_function(&file("r.folded"), first_function(&value))
    );
    assert_eq!(
        of_pprof(&file("r.pb.gz"), first_function(&value)),
        of_folded_function(&file("r.folded"), first_function(&value))
    );
    draws(&file("r.folded"), expected.all);
    series(&file("r.series.csv"), &value);
    raw(&file("r.pb.gz"), &value);

    // The same again from the recording alone, byte by byte.
    for name in names {
        let again = file(&format!("again-{name}"));
        let again = again.to_string_lossy();
        let outcome = run(&["report", &file("r.json").to_string_lossy(), "-o", &again]);
        assert!(outcome.status.success(), "{outcome}");
        let (one, other) = (std::fs::read(file(name)), std::fs::read(&*again));
        assert_eq!(
            one.expect("it was written"),
            other.expect("so was this"),
            "{name}"
        );
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The first site's frames by name, outermost first.
fn stack_of(value: &Value) -> Vec<String> {
    let frames = value["call_sites"][0]["frames"]
        .as_array()
        .expect("it has a stack");
    let name = |frame: &Value| frame["function"].as_str().map(|name| name.replace(';', ":"));
    frames.iter().rev().filter_map(name).collect()
}

fn first_function(value: &Value) -> &str {
    value["call_sites"][0]["culprit"]["function"]
        .as_str()
        .expect("the first site has a culprit")
}

fn of_csv(path: &Path) -> Said {
    let mut reader = csv::Reader::from_path(path).expect("it opens");
    let head = reader.headers().expect("it has a head").clone();
    let at = head
        .iter()
        .position(|column| column == "live_bytes")
        .expect("a column of live bytes");
    let bytes: Vec<u64> = reader
        .records()
        .map(|record| {
            let record = record.expect("each line has as many fields as the head");
            record[at].parse().unwrap_or(0)
        })
        .collect();
    Said {
        all: bytes.iter().sum(),
        first: bytes[0],
    }
}

/// Stacks and their bytes.
fn folded(path: &Path) -> BTreeMap<String, u64> {
    let text = read(path);
    let line = |line: &str| {
        let (stack, bytes) = line.rsplit_once(' ').expect("a count at the end");
        (stack.to_owned(), bytes.parse().expect("it is a number"))
    };
    text.lines().map(line).collect()
}

/// The first site by its frames from the culprit outward.
fn of_folded(path: &Path, stack: &[String]) -> Said {
    let stacks = folded(path);
    let culprit = stack
        .iter()
        .position(|name| name.contains("handle_upload"))
        .expect("it is on the stack");
    let outward = stack[..=culprit].join(";");
    let first = stacks
        .iter()
        .filter(|(line, _)| line.contains(&format!(";{outward}")))
        .map(|(_, bytes)| bytes)
        .sum();
    Said {
        all: stacks.values().sum(),
        first,
    }
}

/// All stacks through a function.
fn of_folded_function(path: &Path, function: &str) -> Said {
    let stacks = folded(path);
    let through = |line: &str| line.split(';').any(|name| name == function);
    Said {
        all: stacks.values().sum(),
        first: stacks
            .iter()
            .filter(|(line, _)| through(line))
            .map(|(_, bytes)| bytes)
            .sum(),
    }
}

/// The titles of a flame graph's frames: `name (1,234 bytes, 5.67%)`.
fn titles(text: &str) -> Vec<(String, u64)> {
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(text, options).expect("it is XML");
    document
        .descendants()
        .filter(|node| node.tag_name().name() == "title")
        .filter_map(|node| node.text())
        .map(|title| {
            let (name, figures) = title.rsplit_once(" (").expect("figures in brackets");
            let bytes = figures
                .split(' ')
                .next()
                .expect("the first of them")
                .replace(',', "");
            (name.to_owned(), bytes.parse().expect("it is a number"))
        })
        .collect()
}

fn of_svg(path: &Path, function: &str) -> Said {
    let titles = titles(&read(path));
    let sum = |wanted: &str| {
        titles
            .iter()
            .filter(|(name, _)| name.trim_end_matches(" (inlined)") == wanted)
            .map(|(_, bytes)| bytes)
            .sum()
    };
    Said {
        all: sum("all"),
        first: sum(function),
    }
}

/// inferno draws the same from the folded stacks.
fn draws(path: &Path, all: u64) {
    let mut svg = Vec::new();
    let mut options = inferno::flamegraph::Options::default();
    inferno::flamegraph::from_files(&mut options, &[path.to_owned()], &mut svg).expect("inferno reads it");
    let svg = String::from_utf8(svg).expect("it is text");
    let whole = titles(&svg).into_iter().find(|(name, _)| name == "all");
    assert_eq!(whole.map(|(_, bytes)| bytes), Some(all));
}

/// The whole, and a function with what it called.
fn of_pprof(path: &Path, function: &str) -> Said {
    let text = pprof(path, &["-top", "-sample_index=live_space"]);
    let total = text
        .lines()
        .filter(|line| line.starts_with("Showing nodes accounting for"))
        .find_map(|line| line.split(" of ").nth(1)?.split('B').next())
        .unwrap_or_else(|| panic!("no total in\n{text}"));
    let rows = pprof::rows(&text);
    let row = rows
        .iter()
        .find(|row| row.function == function)
        .unwrap_or_else(|| panic!("{function} is not in\n{text}"));
    Said {
        all: total.parse().expect("it is in bytes"),
        first: row.cumulated.try_into().expect("nothing is below 0 here"),
    }
}

/// Rows, each by what it shows and by what it sorts by, and the sum of those that are not shown. Each row's stacks add up to
/// it too.
fn of_html(path: &Path, value: &Value) -> Said {
    let page = Page::read(path);
    let rows = page.all("#ranking > li");
    let sites = value["call_sites"].as_array().expect("there are call sites");
    let live: Vec<u64> = rows
        .iter()
        .zip(sites)
        .map(|(row, site)| {
            let rank = &site["rank"];
            assert_eq!(figure(*row, "data-rank"), rank.as_u64());
            for (attribute, name) in [
                ("data-live", "live_bytes"),
                ("data-touched", "touched_bytes"),
                ("data-held", "held_bytes"),
            ] {
                // What ranks it is what is held, where live bytes are not known.
                if site[name].is_u64() {
                    assert_eq!(figure(*row, attribute), site[name].as_u64(), "{name} of {rank}");
                }
            }
            let shown = |cell: &str| {
                let found = within(*row, &format!("summary .cell.{cell} [data-bytes]"));
                found.first().and_then(|cell| figure::<u64>(*cell, "data-bytes"))
            };
            assert_eq!(shown("live"), site["live_bytes"].as_u64(), "of {rank}");
            if !within(*row, ".cell.touched").is_empty() {
                assert_eq!(shown("touched"), site["touched_bytes"].as_u64(), "of {rank}");
            }
            if let Some(stacks) = site["stacks"].as_array().filter(|stacks| stacks.len() > 1) {
                let told = within(
                    *row,
                    ".stack-row > summary [data-bytes], .stacks > .more [data-bytes]:first-child",
                );
                let told: u64 = told
                    .into_iter()
                    .filter_map(|it| figure::<u64>(it, "data-bytes"))
                    .sum();
                let live = stacks
                    .iter()
                    .map(|stack| stack["live_bytes"].as_u64())
                    .sum::<Option<u64>>();
                if let Some(live) = live {
                    assert_eq!(told, live, "the stacks of {rank}");
                }
            }
            shown("live").unwrap_or(0)
        })
        .collect();
    let rest: u64 = page
        .all("#left-out")
        .into_iter()
        .filter_map(|it| figure::<u64>(it, "data-live"))
        .sum();
    // The account is to the byte, too.
    let account = &value["reconciliation"];
    let parts = page.all("table.account tr.part [data-bytes]");
    let parts: i64 = parts
        .into_iter()
        .filter_map(|it| figure::<i64>(it, "data-bytes"))
        .sum();
    assert_eq!(Some(parts), account["smaps_growth_bytes"].as_i64());
    let whole = page.all("#frames");
    let whole = whole.first().and_then(|it| figure(*it, "data-total"));
    let all = live.iter().sum::<u64>() + rest;
    assert_eq!(whole, Some(all), "the flame graph's whole");
    Said { all, first: live[0] }
}

/// Mappings with build IDs, comments, and each location in its file.
fn raw(path: &Path, value: &Value) {
    let text = pprof(path, &["-raw"]);
    let frame = value["call_sites"][0]["frames"]
        .as_array()
        .and_then(|frames| {
            frames.iter().find(|frame| {
                frame["function"]
                    .as_str()
                    .is_some_and(|name| name.contains("handle_upload"))
            })
        })
        .expect("it is on the stack");
    for part in [&frame["module"], &frame["build_id"], &frame["offset"]] {
        let part = part.as_str().expect("the demo's own frames have all three");
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let comments = pprof(path, &["-comments"]);
    let verdict = value["verdict"]["summary"].as_str().expect("there is a verdict");
    assert!(comments.contains(verdict), "{verdict} is not in\n{comments}");
    let tags = pprof(path, &["-tags"]);
    assert!(tags.contains("evidence") && tags.contains("process"), "{tags}");
}

fn series(path: &Path, value: &Value) {
    let mut reader = csv::Reader::from_path(path).expect("it opens");
    let rows: Vec<BTreeMap<String, String>> = reader
        .deserialize()
        .map(|row| row.expect("each line has as many fields as the head"))
        .collect();
    let samples = value["series"]
        .as_array()
        .expect("a recording of 5 s has samples");
    assert_eq!(rows.len(), samples.len());
    assert!(rows.len() > 3);
    for (row, sample) in rows.iter().zip(samples) {
        for name in ["rss_bytes", "anonymous_bytes", "threads", "fds", "connections"] {
            let shown = sample[name]
                .as_u64()
                .map_or_else(String::new, |figure| figure.to_string());
            assert_eq!(row[name], shown, "{name}");
        }
    }
}

/// Names that readers could obey, from a target that has them, are text in every file.
#[test]
fn a_recording_of_hostile_names_opens_everywhere() {
    if !kernel::required() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let outcome = run(&["demo", "-d", "2s", "-o", &file("r.json").to_string_lossy()]);
    assert!(outcome.status.success(), "{outcome}");
    let mut value: Value = serde_json::from_str(&read(&file("r.json"))).expect("it is JSON");
    let evil = "\u{1b}[2J<script>alert(1)</script>\n=cmd(),\"; 12";
    value["target"]["comm"] = evil.into();
    let long = "x".repeat(64 << 10);
    for (site, name) in value["call_sites"]
        .as_array_mut()
        .expect("it has call sites")
        .iter_mut()
        .zip([evil, long.as_str(), "\u{ffff}\u{202e}]]>&amp;", "a\\xff\\xfe"])
    {
        for part in ["label", "evidence"] {
            site[part] = name.into();
        }
        site["stacks"] = Value::Null;
        for frame in site["frames"].as_array_mut().expect("frames") {
            for part in ["function", "module", "file", "build_id"] {
                frame[part] = name.into();
            }
        }
    }
    std::fs::write(file("evil.json"), value.to_string()).expect("it can be written");
    let all = value["call_sites"]
        .as_array()
        .expect("it has call sites")
        .iter()
        .filter_map(|site| site["live_bytes"].as_u64())
        .sum::<u64>();
    for ending in [".svg", ".folded", ".csv", ".pb.gz", ".txt", ".html"] {
        let path = file(&format!("evil{ending}"));
        let outcome = run(&[
            "report",
            &file("evil.json").to_string_lossy(),
            "-o",
            &path.to_string_lossy(),
        ]);
        assert!(outcome.status.success(), "{outcome}");
        // What a page says is below; its own scripts hold what acts on a terminal.
        if [".pb.gz", ".html"].contains(&ending) {
            continue;
        }
        let text = read(&path);
        let acting = text.chars().find(|c| c.is_control() && !"\r\n\t".contains(*c));
        assert_eq!(acting, None, "{ending}");
    }
    let svg = read(&file("evil.svg"));
    let whole = titles(&svg).into_iter().find(|(name, _)| name == "all");
    assert_eq!(whole.map(|(_, bytes)| bytes), Some(all));
    assert_eq!(svg.matches("<script").count(), 1, "the flame graph's own");
    assert_eq!(folded(&file("evil.folded")).values().sum::<u64>(), all);
    draws(&file("evil.folded"), all);
    assert_eq!(of_csv(&file("evil.csv")).all, all);
    assert_eq!(of_html(&file("evil.html"), &value).all, all);
    let page = Page::read(&file("evil.html"));
    assert_eq!(page.all("img").len(), 0);
    let said = page.text("main");
    assert!(said.contains("<script>alert(1)</script>"), "{said}");
    let acting = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!said.contains(acting), "{said}");
    let top = pprof(&file("evil.pb.gz"), &["-top", "-sample_index=live_space"]);
    assert!(top.contains(&format!("of {all}B total")), "{top}");
    assert!(!top.contains('\u{1b}'), "{top}");
}
