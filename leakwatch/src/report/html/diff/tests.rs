use proptest::prelude::*;
use scraper::{ElementRef, Html, Selector};

use super::super::reader::{EVIL, all, hidden, read, stays_by_itself, tags, text_of};
use super::*;
use crate::report::model::Recording;
use crate::report::{build, folded, sample};

fn compared(before: &Recording, after: &Recording) -> DiffReport {
    build::diff::diff(before, after).unwrap()
}

fn page(report: &DiffReport) -> String {
    let mut page = Vec::new();
    write(report, &text::Options::default(), &mut page).unwrap();
    String::from_utf8(page).unwrap()
}

fn document(report: &DiffReport) -> Html {
    read(&page(report))
}

fn within<'a>(element: ElementRef<'a>, selector: &str) -> Vec<ElementRef<'a>> {
    element.select(&Selector::parse(selector).unwrap()).collect()
}

fn attribute<T: std::str::FromStr>(element: ElementRef<'_>, name: &str) -> Option<T>
where
    T::Err: std::fmt::Debug,
{
    element.value().attr(name).map(|text| text.parse().unwrap())
}

fn reports() -> Vec<DiffReport> {
    let (before, after) = sample::before_and_after();
    vec![
        compared(&before, &after),
        compared(&after, &before),
        compared(&sample::sampled(), &sample::full()),
        compared(&sample::full(), &sample::survivors()),
        compared(&sample::mappings_only(), &sample::mappings_only()),
        compared(&sample::empty(), &sample::full()),
        compared(&sample::empty(), &sample::empty()),
    ]
}

#[test]
fn the_answer_comes_first_and_all_sections_are_there() {
    let (before, after) = sample::before_and_after();
    let document = document(&compared(&before, &after));
    let ids: Vec<_> = all(&document, "main > section")
        .iter()
        .map(|section| section.value().id().unwrap())
        .collect();
    assert_eq!(ids, ["verdict", "sides", "sites", "flame", "limits"]);
    assert_eq!(
        text_of(all(&document, "h1")[0]),
        "server+0x1200 appeared, with 853.3 KiB/s; handle_upload(Request const&) shrank most, by 8.8 MiB/s."
    );
    let answer = text_of(all(&document, "#verdict")[0]);
    for part in [
        "Anonymous memory: +840.1 MiB (14.0 MiB/s) before, +840.1 MiB (7.0 MiB/s) after.",
        "2 call sites appeared, 14 shrank, 2 went.",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    for link in all(&document, "nav a") {
        let to = link.value().attr("href").unwrap();
        assert_eq!(all(&document, to).len(), 1, "{to}");
    }
    let limits = text_of(all(&document, "#limits")[0]);
    for part in [
        "by names: the same functions from the culprit outward",
        "in one recording alone",
        "The windows are of 60.0 s and 120.0 s. Rates are compared",
        "server is another build after",
        "0a54f1",
    ] {
        assert!(limits.contains(part), "{part}: {limits}");
    }
}

#[test]
fn a_sentence_for_each_way_to_change() {
    let sentence = |before: &Recording, after: &Recording| {
        let document = document(&compared(before, after));
        text_of(all(&document, "h1")[0])
    };
    let full = sample::full();
    let mut more = full.clone();
    more.call_sites[1].live_bytes = Some(400 << 20);
    more.call_sites[1].stacks = None;
    let grew = sentence(&full, &more);
    assert_eq!(
        grew,
        "server+0x1200 grew most, by 5.0 MiB/s; none shrank notably."
    );
    let shrank = sentence(&more, &full);
    assert_eq!(
        shrank,
        "No call site grew notably; server+0x1200 shrank most, by 5.0 MiB/s."
    );
    assert_eq!(
        sentence(&full, &full),
        "No call site changed notably; handle_upload(Request const&) gains 11.7 MiB/s, as before."
    );
    assert_eq!(
        sentence(&sample::empty(), &sample::empty()),
        "There is no call site in either."
    );
    let came = sentence(&sample::empty(), &full);
    assert!(
        came.starts_with("handle_upload(Request const&) appeared, with "),
        "{came}"
    );
    let went = sentence(&full, &sample::empty());
    assert_eq!(
        went,
        "No call site grew notably; handle_upload(Request const&) went, which had 11.7 MiB/s."
    );
}

#[test]
fn figures_are_those_of_the_comparison_to_the_byte() {
    for report in reports() {
        let document = document(&report);
        let told: Vec<_> = report
            .sites
            .iter()
            .filter(|site| {
                [&site.before, &site.after]
                    .into_iter()
                    .flatten()
                    .any(|figures| figures.bytes > Some(0))
            })
            .collect();
        let rows = all(&document, "#ranking > li");
        assert_eq!(rows.len(), told.len());
        for (row, site) in rows.into_iter().zip(told) {
            assert_eq!(attribute(row, "data-rank"), Some(site.rank));
            let rate = site.rate_change_bytes_per_second;
            assert_eq!(attribute(row, "data-change"), Some(rate));
            assert_eq!(
                attribute(within(row, ".cell.change [data-rate]")[0], "data-rate"),
                Some(rate)
            );
            assert_eq!(text_of(within(row, ".cell.change .tag")[0]), site.change);
            for (side, figures) in [("before", &site.before), ("after", &site.after)] {
                let rate = figures.as_ref().map(|it| it.rate_bytes_per_second);
                assert_eq!(attribute(row, &format!("data-{side}")), rate);
                let of = |name: &str| within(row, &format!(".cell.{side} [{name}]")).first().copied();
                assert_eq!(of("data-rate").and_then(|it| attribute(it, "data-rate")), rate);
                let bytes = figures.as_ref().and_then(|it| it.bytes);
                assert_eq!(of("data-bytes").and_then(|it| attribute(it, "data-bytes")), bytes);
            }
            let stacks: Vec<[u64; 2]> = within(row, ".stack-row > summary")
                .into_iter()
                .map(|summary| {
                    let bytes = within(summary, "[data-bytes]");
                    [0, 1].map(|at| attribute(bytes[at], "data-bytes").unwrap())
                })
                .collect();
            let holding: Vec<_> = site
                .stacks
                .iter()
                .filter(|it| it.before_bytes > 0 || it.after_bytes > 0)
                .collect();
            if holding.len() > 1 {
                let expected: Vec<_> = holding
                    .iter()
                    .map(|it| [it.before_bytes, it.after_bytes])
                    .collect();
                assert_eq!(stacks, expected);
            }
            let alone = site.stacks.iter().take(usize::from(holding.is_empty()));
            let frames: usize = holding
                .into_iter()
                .chain(alone)
                .map(|stack| stack.frames.len())
                .sum();
            assert_eq!(within(row, ".frames li").len(), frames, "{}", site.label);
            if site.culprit.is_some() && frames > 0 {
                assert!(!within(row, "li.culprit").is_empty(), "{}", site.label);
            }
        }
        let sides: Vec<i128> = all(&document, "table.sides tr.sum [data-bytes]")
            .into_iter()
            .map(|it| attribute(it, "data-bytes").unwrap())
            .collect();
        let grown = [&report.before, &report.after].map(|it| it.anonymous_growth_bytes.map(i128::from));
        let kept = [&report.before, &report.after].map(|it| Some(i128::from(it.kept_bytes)));
        let expected: Vec<i128> = grown.into_iter().chain(kept).flatten().collect();
        assert_eq!(sides, expected);
        let matched: usize = all(&document, "table.matches td")
            .into_iter()
            .map(|it| text_of(it).parse::<usize>().unwrap())
            .sum();
        assert_eq!(matched, report.sites.len());
    }
}

#[test]
fn the_flame_graph_weighs_what_the_folded_stacks_weigh_after() {
    for report in reports() {
        let total: u64 = folded::render_diff(&report)
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        let document = document(&report);
        let drawn = all(&document, "svg.flames.differences #frames");
        let drawn: u64 = drawn
            .first()
            .map_or(0, |it| attribute(*it, "data-total").unwrap());
        assert_eq!(drawn, total);
        let said = text_of(all(&document, "#flame")[0]);
        assert_eq!(
            said.contains("No call site keeps memory after."),
            total == 0,
            "{said}"
        );
    }
    let (before, after) = sample::before_and_after();
    let document = document(&compared(&before, &after));
    // Red and blue: of inferno's colours they are those that lead in it.
    let colours: Vec<_> = all(&document, "#frames rect")
        .iter()
        .map(|rect| rect.value().attr("fill").unwrap().to_owned())
        .collect();
    assert!(colours.iter().any(|it| it.starts_with("rgb(255,")), "{colours:?}");
    assert!(colours.iter().any(|it| it.ends_with(",255)")), "{colours:?}");
    assert!(
        text_of(all(&document, "#flame")[0]).contains("2 stacks that hold nothing any more are not drawn.")
    );
}

/// Hostile in every place that holds a name.
fn hostile() -> DiffReport {
    let evil = || EVIL.to_owned();
    let mut report = sample::hostile_diff();
    for side in [&mut report.before, &mut report.after] {
        side.started_at = evil();
        side.verdict = Some("v".repeat(64 << 10));
        side.target.comm = evil();
        side.target.exe = Some(evil().repeat(600));
        side.duration_seconds = 1e-300;
        side.anonymous_rate_bytes_per_second = Some(f64::MAX);
        side.sampling_rate = Some(f64::MIN_POSITIVE);
    }
    for site in &mut report.sites {
        site.label = evil();
        site.change = evil();
        site.measure = evil();
        site.matched_by = Some(evil());
        for figures in [&mut site.before, &mut site.after].into_iter().flatten() {
            figures.evidence = evil();
            figures.bytes = Some(u64::MAX);
        }
        for stack in &mut site.stacks {
            stack.comm = evil();
        }
    }
    report.rebuilt = vec![
        crate::report::model::diff::DiffModule {
            module: evil(),
            build_id_before: evil(),
            build_id_after: "b".repeat(64 << 10),
        };
        300
    ];
    report.notes = vec![evil(); 300];
    report.tool.name = evil();
    report
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let report = hostile();
    let page = page(&report);
    assert!(page.len() < 1 << 20, "{}", page.len());
    let document = document(&report);
    let scripts: Vec<_> = all(&document, "script").into_iter().map(text_of).collect();
    assert_eq!(scripts, policy::COMPARISON.scripts);
    stays_by_itself(&document);
    let title = text_of(all(&document, "title")[0]);
    assert!(!title.chars().any(hidden), "{title}");
    let inside = page.split("<body>").nth(1).unwrap();
    let inside = inside.split("</footer>").next().unwrap();
    assert!(!inside.chars().any(hidden));
    // But it can be read, and what was cut can be seen to be.
    let text = text_of(all(&document, "#ranking")[0]);
    assert!(text.contains("<img src=x onerror=x()>"), "{text}");
    assert!(text_of(all(&document, "#limits")[0]).contains("200 more notes"));
}

fn named(name: &str) -> DiffReport {
    let (before, after) = sample::before_and_after();
    let mut report = compared(&before, &after);
    report.after.target.comm = name.to_owned();
    report.notes = vec![name.to_owned()];
    for site in &mut report.sites {
        site.label = name.to_owned();
        site.culprit = None;
        for stack in &mut site.stacks {
            stack.comm = name.to_owned();
            for frame in &mut stack.frames {
                frame.function = Some(name.into());
                frame.module = Some(name.into());
            }
        }
    }
    report
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_name_makes_an_element(name in "\\PC{1,80}|.{1,80}|[<>&\"'/a-z!\\-]{1,40}") {
        // inferno takes a blank frame at the beginning for none.
        prop_assert_eq!(tags(&document(&named(&format!("n{name}")))), tags(&document(&named("plain"))));
    }
}

#[test]
fn of_many_call_sites_the_rest_is_counted() {
    let (before, after) = sample::before_and_after();
    let mut report = compared(&before, &after);
    let first = report.sites[0].clone();
    report.sites = (1..=5000)
        .map(|rank| {
            let mut site = first.clone();
            site.rank = rank;
            site
        })
        .collect();
    let page = page(&report);
    assert!(page.len() < 2 << 20, "{}", page.len());
    let document = Html::parse_document(&page);
    assert_eq!(all(&document, "#ranking > li").len(), 100);
    assert!(text_of(all(&document, "#left-out")[0]).contains("4900 more"));
}

#[test]
fn the_options_of_the_text_hold_here_too() {
    let options = text::Options {
        min_bytes: 50 << 20,
        ..text::Options::default()
    };
    let (before, after) = sample::before_and_after();
    let mut page = Vec::new();
    write(&compared(&before, &after), &options, &mut page).unwrap();
    let document = Html::parse_document(&String::from_utf8(page).unwrap());
    // The upload, what went and what appeared without a name, and the table.
    assert_eq!(all(&document, "#ranking > li").len(), 4);
    assert!(text_of(all(&document, "#left-out")[0]).contains("14 more"));
}
