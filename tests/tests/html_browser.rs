//! The HTML report in a real browser, opened from disk: no privileges are needed.
//!
//! The recording is that of the project's own samples, with everything in it. Screenshots of each run lie in the target
//! folder, in `tmp/screenshots/`.

use std::fs;
use std::path::{Path, PathBuf};

use leakwatch_tests::browser::{Browser, View};
use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Record, run};
use leakwatch_tests::target::Target;
use serde_json::Value;

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/report.json");

/// Renders a recording; the page goes with its folder.
fn page(recording: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let page = folder.path().join("report.html");
    let rendered = run(&[
        "report".as_ref(),
        recording.as_os_str(),
        "-o".as_ref(),
        page.as_os_str(),
    ]);
    assert!(rendered.status.success(), "{rendered}");
    (folder, page)
}

fn recording() -> Value {
    let text = fs::read_to_string(RECORDING).expect("it is committed");
    serde_json::from_str(&text).expect("it is JSON")
}

fn screenshots() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&folder).expect("the target folder takes files");
    folder
}

fn none(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "the page complains:\n{}",
        complaints.join("\n")
    );
}

#[test]
fn a_row_opens_and_shows_its_stack_and_its_curve() {
    let (_folder, page) = page(Path::new(RECORDING));
    let mut browser = Browser::start();
    browser.open(&page, View::desktop(false));
    let frame = "#site-1 .frames li";
    let seen = |browser: &mut Browser| {
        browser.value(&format!(
            "document.querySelector('{frame}').checkVisibility() && document.querySelector('{frame}').offsetHeight > 0"
        ))
    };
    assert_eq!(seen(&mut browser), false);
    browser.click("#site-1 > summary");
    assert_eq!(seen(&mut browser), true);
    let frames = recording()["call_sites"][0]["frames"].as_array().map(Vec::len);
    let shown = browser.value("document.querySelectorAll('#site-1 .stacks details:first-child li, #site-1 .stacks > ol > li').length");
    assert_eq!(shown.as_u64().map(usize::try_from), frames.map(Ok));
    assert!(browser.text("#site-1 .culprit").contains("handle_upload"));
    assert!(browser.text("#site-1 .culprit").contains("server.cc:123"));
    assert!(browser.text("#site-1 .inlined").contains("inlined"));
    // The curve is drawn when it is looked at.
    assert_eq!(
        browser.value("document.querySelectorAll('#site-1 .large-curve canvas').length"),
        1
    );
    browser.screenshot(&screenshots().join("row.png"), false);
    // And by the keyboard it closes again.
    browser.value("document.querySelector('#site-1 > summary').focus()");
    browser.press("Enter");
    assert_eq!(seen(&mut browser), false);
    // The names of the columns sort.
    browser.click("button[data-sort=touched]");
    let order = browser.value(
        "[...document.querySelectorAll('#ranking > li')].map(row => Number(row.dataset.touched ?? -1))",
    );
    let order: Vec<i64> = order
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert!(order.len() > 10 && order.is_sorted_by(|a, b| a >= b), "{order:?}");
    none(&browser.complaints());
}

#[test]
fn the_flame_graph_zooms_and_searches() {
    let (_folder, page) = page(Path::new(RECORDING));
    let mut browser = Browser::start();
    browser.open(&page, View::desktop(false));
    let shown = "[...document.querySelectorAll('#frames > g:not(.off)')].length";
    let all = browser.value(shown).as_u64().expect("a number");
    assert!(all > 10, "{all}");
    // The frame of the culprit, which has other frames beside it.
    browser.value(
        "[...document.querySelectorAll('#frames > g')].find(g => g.textContent.includes('handle_upload(')).id = 'wanted'",
    );
    let width = "document.querySelector('#wanted rect').getBoundingClientRect().width / document.querySelector('#flame-graph').clientWidth";
    let part = browser.value(width).as_f64().expect("a number");
    assert!(part > 0.5 && part < 0.99, "{part}");
    browser.click("#wanted rect");
    let zoomed = browser.value(width).as_f64().expect("a number");
    assert!(zoomed > 0.99, "{zoomed}");
    assert!(browser.value(shown).as_u64() < Some(all));
    assert!(browser.text("#flame-details").contains("handle_upload"));
    browser.screenshot(&screenshots().join("flame-zoomed.png"), false);
    browser.click("#flame-reset");
    assert_eq!(browser.value(shown).as_u64(), Some(all));
    // The button gave the focus to the search.
    browser.write("HANDLE_upload");
    let found = browser.text("#flame-matched");
    let live = recording()["call_sites"][0]["live_bytes"]
        .as_f64()
        .expect("a number");
    let expected = format!("{:.1} MiB", live / 1_048_576.0);
    assert!(found.contains(&expected), "{found}: {expected} expected");
    let hits = browser.value("document.querySelectorAll('#frames .hit').length");
    assert!(hits.as_u64() >= Some(1), "{hits}");
    browser.screenshot(&screenshots().join("flame-searched.png"), false);
    // By the keyboard alone: from the root inwards, zoom, and back.
    browser.press("Escape");
    assert_eq!(browser.text("#flame-matched"), "");
    browser.value("document.querySelector('#frames > g[tabindex=\"0\"]').focus()");
    for _ in 0..3 {
        browser.press("ArrowUp");
    }
    browser.press("Enter");
    assert_eq!(
        browser.value("document.querySelector('#flame-reset').disabled"),
        false
    );
    browser.press("Escape");
    assert_eq!(browser.value(shown).as_u64(), Some(all));
    none(&browser.complaints());
}

/// Nothing scrolls sideways, lies upon its neighbour or is as light as what it stands on.
fn fits(browser: &mut Browser, view: View, name: &str) {
    let wide = browser.value("document.documentElement.scrollWidth");
    assert_eq!(
        wide.as_u64(),
        Some(view.width.into()),
        "{name}: it scrolls sideways"
    );
    // Nothing of the ranking lies upon its neighbour.
    let overlaps = browser.value(
        "[...document.querySelectorAll('.site > summary')].flatMap(row => {
            const cells = [...row.children].filter(it => it.offsetWidth > 0);
            const boxes = cells.map(it => { const all = document.createRange(); all.selectNodeContents(it);
                return [it.className, all.getBoundingClientRect()]; }).filter(([, it]) => it.width > 0);
            return boxes.flatMap(([a, one], at) => boxes.slice(at + 1).filter(([, other]) =>
                one.right > other.left + 1 && other.right > one.left + 1 &&
                one.bottom > other.top + 1 && other.bottom > one.top + 1).map(([b]) => a + ' / ' + b));
        })",
    );
    assert_eq!(overlaps, serde_json::json!([]), "{name}");
    // Text stands out from what it stands on, in either scheme.
    let lightness = browser.value(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor].map(it => {
            const [r, g, b] = it.match(/[\\d.]+/g).map(Number); return 0.2126 * r + 0.7152 * g + 0.0722 * b; })",
    );
    let (ink, ground) = (
        lightness[0].as_f64().expect("a number"),
        lightness[1].as_f64().expect("a number"),
    );
    assert_eq!(ink > ground, view.dark, "{name}: {lightness}");
    assert!((ink - ground).abs() > 150.0, "{name}: {lightness}");
}

#[test]
fn phone_and_desktop_light_and_dark() {
    let (_folder, page) = page(Path::new(RECORDING));
    let mut browser = Browser::start();
    for (name, view) in [
        ("phone-light", View::phone(false)),
        ("phone-dark", View::phone(true)),
        ("desktop-light", View::desktop(false)),
        ("desktop-dark", View::desktop(true)),
    ] {
        browser.open(&page, view);
        browser.click("#site-1 > summary");
        fits(&mut browser, view, name);
        for selector in [
            "h1",
            ".badge",
            "svg.stacked",
            "#charts canvas",
            ".sites-head button",
            "#flame-graph",
            "#heap table",
        ] {
            let there = browser.value(&format!(
                "(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect();
                 return box.width > 20 && box.height > 5 && box.left >= 0 && box.right <= innerWidth + 1; }})()"
            ));
            assert_eq!(there, true, "{name}: {selector}");
        }
        browser.screenshot(&screenshots().join(format!("{name}.png")), false);
        browser.screenshot(&screenshots().join(format!("{name}-whole.png")), true);
        none(&browser.complaints());
    }
    // Switched while it is open, the charts change with it.
    browser.look(View::desktop(false));
    let canvases = browser.value("document.querySelectorAll('#charts canvas').length");
    assert!(canvases.as_u64() >= Some(1), "{canvases}");
    browser.print();
    let paper = browser.value("getComputedStyle(document.body).backgroundColor");
    assert!(paper == "rgb(255, 255, 255)", "{paper}");
    browser.screenshot(&screenshots().join("print.png"), true);
    none(&browser.complaints());
}

#[test]
fn without_scripts_the_rows_open_and_the_figures_are_there() {
    let (_folder, page) = page(Path::new(RECORDING));
    let mut browser = Browser::start();
    browser.scripts(false);
    browser.look(View::desktop(false));
    browser.open(&page, View::desktop(false));
    assert_eq!(
        browser.value("document.querySelector('#charts canvas')"),
        Value::Null,
        "a script ran"
    );
    browser.click("#site-1 > summary");
    assert_eq!(
        browser.value("document.querySelector('#site-1 .culprit').checkVisibility()"),
        true
    );
    assert!(browser.text("table.ends").contains("anonymous"));
    assert_eq!(
        browser.value("document.querySelector('#flame-graph text').checkVisibility()"),
        true
    );
    assert_eq!(
        browser.value("document.querySelectorAll('#site-1 > summary svg.curve line').length > 1"),
        true
    );
}

#[test]
fn hostile_names_do_nothing() {
    const EVIL: &str = "</title></script><script>window.hacked = 1</script><img src=x onerror=\"window.hacked=2\">\u{202e}\u{1b}[31m\n";
    let mut recording = recording();
    replace_names(&mut recording);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("evil.json");
    fs::write(&file, recording.to_string()).expect("it is ours");
    let (_folder, page) = page(&file);
    let mut browser = Browser::start();
    browser.open(&page, View::phone(false));
    browser.click("#site-1 > summary");
    browser.value("document.querySelectorAll('details').forEach(it => it.open = true)");
    let wide = browser.value("document.documentElement.scrollWidth");
    assert_eq!(wide.as_u64(), Some(390), "a long name makes it scroll sideways");
    assert_eq!(browser.value("typeof window.hacked"), "undefined");
    assert_eq!(
        browser.value("document.querySelectorAll('img, iframe').length"),
        0
    );
    assert!(
        browser.text("#site-1 .frames").contains("window.hacked = 1"),
        "the name is not to be read"
    );
    browser.screenshot(&screenshots().join("hostile.png"), true);
    none(&browser.complaints());

    /// Every name of the target becomes hostile, and some are 64 KiB long.
    fn replace_names(value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(replace_names),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text)
                            if [
                                "function", "module", "file", "label", "comm", "path", "name", "type",
                                "summary",
                            ]
                            .contains(&name.as_str()) =>
                        {
                            *text = EVIL.to_owned() + text;
                            if name == "file" {
                                *text = text.repeat(600);
                            }
                        }
                        _ => replace_names(value),
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn a_live_recording_opens_too() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("big_malloc"), &[]);
    let (_, outcome) = Record::of(target.pid()).watch(&mut target);
    let (_folder, page) = page(&outcome.file("x.json"));
    let mut browser = Browser::start();
    browser.open(&page, View::desktop(false));
    browser.click("#site-1 > summary");
    assert!(browser.text("#site-1 .culprit").contains("keep_big"), "{outcome}");
    // The same to the byte as the recording says.
    let live = browser.value("document.querySelector('#site-1 .live [data-bytes]').dataset.bytes");
    let said = outcome.recording().call_sites[0].live_bytes;
    assert_eq!(
        live.as_str().and_then(|it| it.parse::<u64>().ok()),
        said,
        "{outcome}"
    );
    none(&browser.complaints());
}

/// A comparison of the recording with one in which its first call site gains three times as much, another one went, and one
/// appeared. The pages go with their folder.
fn comparison() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let mut after = recording();
    after["target"]["pid"] = 5151.into();
    let sites = after["call_sites"].as_array_mut().expect("there are call sites");
    sites.remove(2);
    let triple = |bytes: &mut Value| *bytes = (bytes.as_u64().expect("it is known") * 3).into();
    triple(&mut sites[0]["live_bytes"]);
    for stack in sites[0]["stacks"].as_array_mut().into_iter().flatten() {
        triple(&mut stack["live_bytes"]);
    }
    let mut fresh = sites[0].clone();
    fresh["label"] = "fresh_table".into();
    fresh["culprit"]["function"] = "fresh_table".into();
    fresh["stacks"] = Value::Null;
    for frame in fresh["frames"].as_array_mut().expect("it has a stack") {
        if frame["function"]
            .as_str()
            .is_some_and(|name| name.starts_with("handle_upload"))
        {
            frame["function"] = "fresh_table".into();
            frame["offset"] = "0x99".into();
        }
    }
    sites.push(fresh);
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("after.json");
    fs::write(&file, after.to_string()).expect("it is ours");
    let page = folder.path().join("diff.html");
    let json = folder.path().join("diff.json");
    let compared = run(&[
        "diff".as_ref(),
        RECORDING.as_ref(),
        file.as_os_str(),
        "-o".as_ref(),
        page.as_os_str(),
        "-o".as_ref(),
        json.as_os_str(),
    ]);
    assert!(compared.status.success(), "{compared}");
    (folder, page, json)
}

#[test]
fn a_comparison_opens_sorts_zooms_and_searches() {
    let (_folder, page, json) = comparison();
    let text = fs::read_to_string(json).expect("it was written");
    let report: Value = serde_json::from_str(&text).expect("it is JSON");
    let mut browser = Browser::start();
    browser.open(&page, View::desktop(false));
    let first = &report["sites"][0];
    assert!(
        browser
            .text("#site-1 .what")
            .contains(first["label"].as_str().expect("a label"))
    );
    assert_eq!(
        browser.text("#site-1 .tag"),
        first["change"].as_str().expect("a change")
    );
    browser.click("#site-1 > summary");
    let frames = "document.querySelectorAll('#site-1 .stacks li').length > 2 && document.querySelector('#site-1 .culprit').checkVisibility()";
    assert_eq!(browser.value(frames), true);
    assert!(browser.text("h1").starts_with("fresh_table appeared, with "));
    browser.screenshot(&screenshots().join("diff-row.png"), false);
    // By how much it changed, what shrank comes last.
    browser.click("button[data-sort=change]");
    let order = browser
        .value("[...document.querySelectorAll('#ranking > li')].map(row => Number(row.dataset.change))");
    let order: Vec<f64> = order
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert!(order.len() > 3 && order.is_sorted_by(|a, b| a >= b), "{order:?}");
    assert!(
        order.first() > Some(&0.0) && order.last() < Some(&0.0),
        "{order:?}"
    );
    // The colours tell what changed.
    let grew = browser.value(
        "(() => { const g = [...document.querySelectorAll('#frames > g')].find(g => /; grew by [1-9]/.test(g.textContent));
         g.id = 'wanted'; return getComputedStyle(g.querySelector('rect')).fill; })()",
    );
    assert!(
        grew.as_str().is_some_and(|it| it.starts_with("rgb(255,")),
        "{grew}"
    );
    browser.click("#wanted rect");
    assert!(browser.text("#flame-details").contains("/h,"));
    assert!(browser.text("#flame-details").contains("; grew by"));
    browser.click("#flame-reset");
    browser.write("FRESH_table");
    let found = browser.text("#flame-matched");
    assert!(found.starts_with("1 found: ") && found.contains("/h,"), "{found}");
    none(&browser.complaints());
}

#[test]
fn a_comparison_fits_phone_and_desktop_and_paper() {
    let (_folder, page, _) = comparison();
    let mut browser = Browser::start();
    for (name, view) in [
        ("diff-phone-light", View::phone(false)),
        ("diff-phone-dark", View::phone(true)),
        ("diff-desktop-light", View::desktop(false)),
        ("diff-desktop-dark", View::desktop(true)),
    ] {
        browser.open(&page, view);
        browser.click("#site-1 > summary");
        fits(&mut browser, view, name);
        browser.screenshot(&screenshots().join(format!("{name}-whole.png")), true);
        none(&browser.complaints());
    }
    browser.print();
    let paper = browser.value("getComputedStyle(document.body).backgroundColor");
    assert!(paper == "rgb(255, 255, 255)", "{paper}");
    browser.screenshot(&screenshots().join("diff-print.png"), true);
    none(&browser.complaints());
}
