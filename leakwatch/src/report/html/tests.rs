use proptest::prelude::*;
use scraper::{ElementRef, Html, Selector};

use super::super::model::{Correlation, MemoryTrend, Recording, Sample, SitePoint, Trend};
use super::super::{folded, sample};
use super::reader::{EVIL, all, hidden, read, stays_by_itself, tags, text_of};
use super::*;

fn page(recording: &Recording) -> String {
    let mut page = Vec::new();
    write(recording, &text::Options::default(), &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn document(recording: &Recording) -> Html {
    read(&page(recording))
}

fn bytes_of(element: ElementRef<'_>) -> i128 {
    element.value().attr("data-bytes").unwrap().parse().unwrap()
}

/// With a course, as a real one has.
fn sampled_over_time(mut recording: Recording) -> Recording {
    recording.series = Some(
        (0..60u64)
            .map(|t| Sample {
                t: t as f64,
                rss_bytes: Some((320 + 14 * t) << 20),
                anonymous_bytes: Some((300 + 14 * t) << 20),
                swap_bytes: Some(0),
                threads: Some(8),
                fds: (t % 2 == 0).then_some(130 + t * 36),
                connections: Some(120 + t * 36),
                ..Sample::default()
            })
            .collect(),
    );
    recording.trend = Some(MemoryTrend {
        kind: "steady growth".into(),
        slope_bytes_per_second: Some(14.0 * 1_048_576.0),
        samples: 60,
        ..MemoryTrend::default()
    });
    recording
}

fn samples() -> Vec<Recording> {
    vec![
        sampled_over_time(sample::full()),
        sample::sampled(),
        sample::survivors(),
        sample::mappings_only(),
        sample::empty(),
    ]
}

#[test]
fn the_verdict_comes_first_and_all_sections_are_there() {
    let recording = sampled_over_time(sample::survivors());
    let document = document(&recording);
    let ids: Vec<_> = all(&document, "main > section")
        .iter()
        .map(|section| section.value().id().unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "verdict", "account", "course", "sites", "flame", "heap", "births", "mappings", "losses", "notes"
        ]
    );
    let verdict = recording.verdict.as_ref().unwrap();
    assert_eq!(text_of(all(&document, "h1")[0]), verdict.summary);
    let said = text_of(all(&document, "#verdict")[0]);
    for sentence in verdict.evidence.iter().chain(&verdict.suggestions) {
        assert!(said.contains(sentence.as_str()), "{sentence}");
    }
    assert!(
        said.contains("Confidence") && said.contains("840.0 MiB left"),
        "{said}"
    );
    for link in all(&document, "nav a") {
        let to = link.value().attr("href").unwrap();
        assert_eq!(all(&document, to).len(), 1, "{to}");
    }
}

#[test]
fn what_was_not_measured_is_said() {
    let document = document(&sample::empty());
    let text = text_of(document.root_element());
    for sentence in [
        "How much anonymous memory grew in 10.0 s is not known",
        "Not closed: smaps could not be read",
        "Nothing was sampled in between",
        "No call site keeps memory.",
        "The heap was not read.",
        "full smaps would have cost",
        "not counted",
        "not measured",
    ] {
        assert!(text.contains(sentence), "{sentence}");
    }
}

#[test]
fn each_row_has_the_bytes_of_its_call_site() {
    for recording in samples() {
        let document = document(&recording);
        let rows = all(&document, "#ranking > li");
        assert_eq!(rows.len(), recording.call_sites.len());
        for (row, site) in rows.iter().zip(&recording.call_sites) {
            let of = |name: &str| row.value().attr(name).map(str::to_owned);
            assert_eq!(of("data-touched"), site.touched_bytes.map(|it| it.to_string()));
            assert_eq!(of("data-held"), site.held_bytes.map(|it| it.to_string()));
            let live = Selector::parse("summary .cell.live [data-bytes]").unwrap();
            let live = row.select(&live).next().map(bytes_of);
            assert_eq!(live, site.live_bytes.map(i128::from));
            let frames =
                Selector::parse(".stacks > ol.frames > li, .stacks > details:first-child li").unwrap();
            assert_eq!(row.select(&frames).count(), site.frames.len(), "{}", site.label);
            let culprit = Selector::parse("li.culprit").unwrap();
            assert_eq!(row.select(&culprit).count(), usize::from(site.culprit.is_some()));
        }
    }
}

#[test]
fn the_account_adds_up_to_the_byte() {
    for recording in samples() {
        let Some(account) = &recording.reconciliation else {
            continue;
        };
        let document = document(&recording);
        let bytes = |selector: &str| -> Vec<i128> {
            all(&document, &format!("table.account {selector} [data-bytes]"))
                .into_iter()
                .map(bytes_of)
                .collect()
        };
        let sums = bytes("tr.sum");
        assert_eq!(bytes("tr.whole"), [i128::from(account.smaps_growth_bytes)]);
        assert_eq!(
            sums,
            [account.attributed_bytes, account.unattributed_bytes].map(i128::from)
        );
        assert_eq!(
            bytes("tr.part").iter().sum::<i128>(),
            i128::from(account.smaps_growth_bytes)
        );
        // And so does the bar: what is added less what is taken away.
        let part = |selector: &str| -> f64 {
            all(&document, selector)
                .iter()
                .map(|rect| {
                    rect.value()
                        .attr("width")
                        .unwrap()
                        .trim_end_matches('%')
                        .parse::<f64>()
                        .unwrap()
                })
                .sum()
        };
        let added = part("svg.stacked rect:not(.given-back)");
        assert!((added - 100.0).abs() < 0.1, "{added}");
    }
}

#[test]
fn the_flame_graph_weighs_what_the_folded_stacks_weigh() {
    for recording in samples() {
        let total: u64 = folded::render(&recording)
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        let document = document(&recording);
        let graph = all(&document, "#frames");
        let drawn: u64 = graph.first().map_or(0, |graph| {
            graph.value().attr("data-total").unwrap().parse().unwrap()
        });
        assert_eq!(drawn, total);
        if total > 0 {
            let whole = all(&document, "#frames > g > rect")
                .iter()
                .map(|rect| rect.value().attr("fg:w").unwrap().parse::<u64>().unwrap())
                .max();
            assert_eq!(whole, Some(total));
        }
    }
}

#[test]
fn the_course_is_data_for_the_script_and_a_table_for_all() {
    let document = document(&sampled_over_time(sample::full()));
    let data = all(&document, "script#series");
    let data: serde_json::Value = serde_json::from_str(&text_of(data[0])).unwrap();
    assert_eq!(data["t"].as_array().unwrap().len(), 60);
    // Swap was never there.
    assert_eq!(data["memory"].as_array().unwrap().len(), 2);
    assert_eq!(data["memory"][0]["values"][59], (300u64 + 14 * 59) << 20);
    let counted: Vec<_> = data["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(counted, ["connections", "descriptors"]);
    let course = text_of(all(&document, "#course")[0]);
    assert!(
        course.contains("Did not change, and is not drawn: threads."),
        "{course}"
    );
    assert_eq!(data["counts"][1]["values"][1], serde_json::Value::Null);
    let first: Vec<_> = all(&document, "table.ends tbody tr:first-child [data-bytes]")
        .into_iter()
        .map(bytes_of)
        .collect();
    assert_eq!(first, [300, 1126, 826, 300, 1126].map(|mib: i128| mib << 20));
}

/// Hostile in every place that holds a name.
fn hostile() -> Recording {
    let evil = || EVIL.to_owned();
    let mut recording = sampled_over_time(sample::hostile());
    if let Some(verdict) = &mut recording.verdict {
        verdict.kind = evil();
        verdict.rule = Some(evil());
        verdict.summary = evil();
        verdict.evidence = vec![evil(), "x".repeat(64 << 10)];
        verdict.suggestions = vec![evil()];
        for factor in &mut verdict.factors {
            factor.what = evil();
        }
        if let Some(limit) = &mut verdict.limit {
            limit.of = evil();
        }
    }
    if let Some(trend) = &mut recording.trend {
        trend.kind = evil();
    }
    recording.correlations = Some(vec![Correlation {
        with: evil(),
        p_value: Some(0.001),
        ..Correlation::default()
    }]);
    for region in recording.reconciliation.iter_mut().flat_map(|it| &mut it.regions) {
        region.region = evil();
    }
    for site in &mut recording.call_sites {
        site.label = evil().into();
        site.via = evil();
        site.vias = vec![evil(), "v".repeat(64 << 10)];
        site.threads = vec![evil(); 100];
        site.evidence = evil();
        site.trend = Some(Trend {
            kind: evil(),
            slope_bytes_per_second: Some(f64::MAX),
            p_value: Some(0.5),
        });
        site.series = Some(vec![
            SitePoint {
                t: f64::MAX,
                held_bytes: u64::MAX,
            },
            SitePoint {
                t: -1.0,
                held_bytes: 0,
            },
        ]);
        if let Some(births) = &mut site.allocations {
            births.functions = vec![evil()];
        }
        for frame in &mut site.frames {
            frame.build_id = Some(EVIL.into());
        }
    }
    for row in recording.mappings.iter_mut().flatten() {
        row.fate = evil();
        row.region = evil();
        row.permissions = evil();
    }
    recording.host.arch = evil();
    recording.tool.name = evil();
    recording.target.container = Some(evil());
    recording.target.exe = Some(evil());
    recording
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let recording = hostile();
    let page = page(&recording);
    assert!(page.len() < 1 << 20, "{}", page.len());
    let document = document(&recording);
    let scripts = all(&document, "script");
    assert_eq!(scripts.len(), policy::RECORDING.scripts.len() + 1);
    for (script, own) in scripts
        .iter()
        .filter(|it| it.value().attr("type").is_none())
        .zip(policy::RECORDING.scripts)
    {
        assert_eq!(text_of(*script), *own);
    }
    stays_by_itself(&document);
    let own: usize = policy::RECORDING
        .scripts
        .iter()
        .chain(policy::RECORDING.styles)
        .map(|text| text.len())
        .sum();
    assert!(page.len() > own);
    // What would act on a terminal or reorder text is not there even as text.
    let inside = page
        .split("<body>")
        .nth(1)
        .unwrap()
        .split("</main>")
        .next()
        .unwrap();
    assert!(!inside.chars().any(hidden));
    // But it can be read.
    let text = text_of(all(&document, "#ranking")[0]);
    assert!(text.contains("<img src=x onerror=x()>"), "{text}");
}

fn named(name: &str) -> Recording {
    let mut recording = sample::full();
    recording.target.comm = name.to_owned();
    recording.notes = vec![name.to_owned()];
    for site in &mut recording.call_sites {
        site.label = name.into();
        site.threads = vec![name.to_owned()];
        for frame in &mut site.frames {
            frame.function = Some(name.into());
            frame.module = Some(name.into());
        }
    }
    for row in recording.mappings.iter_mut().flatten() {
        row.path = Some(name.to_owned());
    }
    recording
}

/// Run by hand when the recording gets more to tell: `tests/tests/html_browser.rs` opens it.
#[test]
#[ignore = "writes tests/fixtures/report.json"]
fn write_the_recording_of_the_browsers_test() {
    let mut recording = sampled_over_time(sample::survivors());
    let site = &mut recording.call_sites[0];
    site.frames[2].inlined = true;
    for row in site.stacks.iter_mut().flatten().take(1) {
        row.frames.clone_from(&site.frames);
    }
    let file = std::fs::File::create("../tests/fixtures/report.json").unwrap();
    super::super::json::write(&recording, file).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_name_makes_an_element(name in "\\PC{1,80}|.{1,80}|[<>&\"'/a-z!\\-]{1,40}") {
        prop_assert_eq!(tags(&document(&named(&name))), tags(&document(&named("plain"))));
    }
}

#[test]
fn of_many_call_sites_most_are_summed() {
    let mut recording = sample::full();
    let mut first = recording.call_sites[0].clone();
    first.stacks = None;
    recording.call_sites = (0..5000u32)
        .map(|index| {
            let mut site = first.clone();
            site.rank = index + 1;
            site.live_bytes = Some(1000 + u64::from(index));
            site
        })
        .collect();
    let page = page(&recording);
    assert!(page.len() < 3 << 20, "{}", page.len());
    let document = Html::parse_document(&page);
    let shown: i128 = all(&document, "#ranking summary .live [data-bytes]")
        .into_iter()
        .map(bytes_of)
        .sum();
    assert_eq!(all(&document, "#ranking > li").len(), 100);
    let rest = bytes_of(all(&document, "#left-out [data-bytes]")[0]);
    let total: i128 = (0..5000).map(|index| 1000 + index).sum();
    assert_eq!(shown + rest, total);
    assert!(text_of(all(&document, "#left-out")[0]).contains("4900 more"));
}

#[test]
fn the_options_of_the_text_hold_here_too() {
    let options = text::Options {
        min_bytes: 50 << 20,
        ..text::Options::default()
    };
    let mut page = Vec::new();
    write(&sample::full(), &options, &mut page).unwrap();
    let document = Html::parse_document(&String::from_utf8(page).unwrap());
    assert_eq!(all(&document, "#ranking > li").len(), 2);
    assert!(text_of(all(&document, "#left-out")[0]).contains("14 more"));
}
