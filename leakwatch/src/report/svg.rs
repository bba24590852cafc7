//! A flame graph as SVG, by inferno: wide is what holds much. It zooms and searches by itself in a browser, without a network.

use std::collections::HashMap;
use std::io::{self, Write};

use inferno::flamegraph::{self, Options, Palette, TextTruncateDirection, color::BasicPalette};

use super::escape::fit;
use super::flame::{Counts, Drawn, Flames};
use super::folded::per_hour;
use super::model::diff::DiffReport;
use super::model::{Frame, Recording, SharedFrame};
use super::stacks::{self, NO_STACK, folded_name, frame_name};

/// A frame narrower than this part of the whole is not drawn: a quarter of a pixel on a wide screen.
const LEAST: f64 = 0.0001;

/// Longer names are cut in the middle: each is in the file as often as it is drawn.
const NAME_COLUMNS: usize = 1000;

/// What inferno's colours are not made for: it knows no dark background. Its own attributes yield to a style.
const DARK: &str = "
@media (prefers-color-scheme: dark) {
#background stop { stop-color:#1b1d21; }
#title, #subtitle, #details, #unzoom, #search, #matched, #nothing { fill:#e4e6ea; }
#frames > *:hover { stroke:white; }
}
";

/// Writes the flame graph of a recording, by the bytes that [`stacks::of`] tells.
pub fn write(recording: &Recording, to: &mut dyn Write) -> io::Result<()> {
    let mut paths = Paths::default();
    let (mut held, mut all) = (0_usize, 0_usize);
    for stack in stacks::of(recording) {
        all += 1;
        held += usize::from(stack.by_held);
        if stack.bytes > 0 {
            paths.add(stack.comm, stack.frames, [0, stack.bytes]);
        }
    }
    let target = &recording.target;
    let measure = match held {
        0 => "bytes that stay resident",
        _ if held == all => "address space that stays",
        _ => "bytes that stay resident; of processes that were gone, address space",
    };
    let picture = Picture {
        title: format!("{} (PID {}): {measure}", fit(&target.comm, 40, "..."), target.pid),
        subtitle: format!(
            "{:.0} s from {}",
            recording.window.duration_seconds,
            fit(&recording.window.started_at, 40, "...")
        ),
        unit: "bytes",
        differences: false,
        nothing: "No call site keeps memory.",
    };
    draw(&picture, paths.flames, to)
}

/// Writes the differential flame graph: as wide as the rate after, red where it grew, blue where it shrank. What went has no
/// width, so the title says that it is not there.
pub fn write_diff(report: &DiffReport, to: &mut dyn Write) -> io::Result<()> {
    let mut paths = Paths::default();
    for stack in report.sites.iter().flat_map(|site| &site.stacks) {
        let [before, after] = per_hour(report, stack);
        if [before, after] == [0, 0] {
            continue;
        }
        paths.add(&stack.comm, &stack.frames, [before, after]);
    }
    let side = |side: &super::model::diff::DiffSide| {
        format!(
            "{} (PID {}), {} s from {}",
            fit(&side.target.comm, 40, "..."),
            side.target.pid,
            side.duration_seconds,
            fit(&side.started_at, 40, "...")
        )
    };
    let went = match gone(report) {
        0 => String::new(),
        gone => format!("; {gone} stacks that hold nothing any more are not drawn"),
    };
    let picture = Picture {
        title: format!("growth per hour: red has grown, blue has shrunk{went}"),
        subtitle: format!("before: {}; after: {}", side(&report.before), side(&report.after)),
        unit: "bytes/h",
        differences: true,
        nothing: "No call site keeps memory after.",
    };
    draw(&picture, paths.flames, to)
}

/// Stacks that a differential flame graph cannot show: they held something before, and nothing after.
pub fn gone(report: &DiffReport) -> usize {
    let stacks = report.sites.iter().flat_map(|site| &site.stacks);
    stacks
        .filter(|stack| {
            let [before, after] = per_hour(report, stack);
            before > 0 && after == 0
        })
        .count()
}

/// The stacks by what their frames are drawn as. A frame is in many stacks, and named once.
#[derive(Default)]
struct Paths<'a> {
    flames: Flames,
    comms: HashMap<&'a str, u32>,
    /// By where they are: equal ones elsewhere have the same name all the same.
    frames: HashMap<*const Frame, u32>,
}

impl<'a> Paths<'a> {
    /// Adds a stack, from the process inward.
    fn add(&mut self, comm: &'a str, frames: &'a [SharedFrame], counts: Counts) {
        let mut names = Vec::with_capacity(1 + frames.len().max(1));
        let flames = &mut self.flames;
        names.push(
            *self
                .comms
                .entry(comm)
                .or_insert_with(|| flames.name(shown(comm, false))),
        );
        for frame in frames.iter().rev() {
            let frame: &Frame = frame;
            let number = self.frames.entry(frame);
            names.push(*number.or_insert_with(|| flames.name(shown(&frame_name(frame), frame.inlined))));
        }
        if frames.is_empty() {
            names.push(flames.name(NO_STACK.to_owned()));
        }
        flames.add(names, counts);
    }
}

/// A name as it is drawn: one frame to inferno, of bounded length, and inlined frames marked.
fn shown(name: &str, inlined: bool) -> String {
    let mut name = folded_name(&fit(name, NAME_COLUMNS, "..."));
    if inlined {
        name.push_str(" (inlined)");
    }
    name
}

struct Picture {
    title: String,
    subtitle: String,
    /// Of the counts.
    unit: &'static str,
    /// Coloured by what changed from the first count to the second.
    differences: bool,
    /// What is said where nothing is to be drawn.
    nothing: &'static str,
}

/// Draws what was added; all names must be [`shown`].
fn draw(picture: &Picture, flames: Flames, to: &mut dyn Write) -> io::Result<()> {
    if flames.total()[1] == 0 {
        return nothing(picture, to);
    }
    let drawn = flames.draw(LEAST);
    let lines = lines(&drawn, picture.differences);
    let mut options = Options::default();
    options.title.clone_from(&picture.title);
    options.subtitle = Some(picture.subtitle.clone());
    options.count_name = picture.unit.to_owned();
    options.name_type = "Function:".to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    // The same file of the same recording.
    options.deterministic = true;
    // The end of a long C++ name says less than its beginning.
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.min_width = LEAST * 100.0;
    // The lines are in the order of their frames already. inferno would sort them as text, which tears `a;x` and `a;y`
    // apart where there is an `a!;z`; only of charts it takes the order that it is given, from the last to the first.
    options.flame_chart = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg)?;
    let style = b"</style>";
    let at = svg.windows(style.len()).position(|window| window == style);
    let (before, after) = svg.split_at(at.unwrap_or(0));
    to.write_all(before)?;
    if at.is_some() {
        to.write_all(DARK.as_bytes())?;
    }
    to.write_all(after)?;
    to.write_all(b"\n")
}

/// As inferno reads them: frames between `;`, then a count, or two.
fn lines(drawn: &Drawn, differences: bool) -> Vec<String> {
    let of = |counts: Counts| match differences {
        true => format!(" {} {}", counts[0], counts[1]),
        false => format!(" {}", counts[1]),
    };
    let name = |&name: &u32| usize::try_from(name).ok().and_then(|name| drawn.names.get(name));
    drawn
        .lines
        .iter()
        .map(|line| {
            let names: Vec<&str> = line.names.iter().filter_map(name).map(String::as_str).collect();
            names.join(";") + &of(line.counts)
        })
        .collect()
}

/// inferno calls it an error; a process that keeps nothing is none.
fn nothing(picture: &Picture, to: &mut dyn Write) -> io::Result<()> {
    // What `fit` leaves is no control character; these three are markup.
    let text = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    writeln!(
        to,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" xmlns="http://www.w3.org/2000/svg">
<style type="text/css">text {{ font-family:monospace; font-size:12px; text-anchor:middle }} #title {{ font-size:17px }}
#background {{ fill:#eef2ee }}
@media (prefers-color-scheme: dark) {{ #background {{ fill:#1b1d21 }} text {{ fill:#e4e6ea }} }}</style>
<rect id="background" width="100%" height="100%"/>
<text id="title" x="50%" y="24">{}</text>
<text id="subtitle" x="50%" y="48">{}</text>
<text id="nothing" x="50%" y="90">{}</text>
</svg>"##,
        text(&picture.title),
        text(&picture.subtitle),
        picture.nothing
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{build, folded, sample};
    use super::*;

    fn svg(recording: &Recording) -> String {
        let mut svg = Vec::new();
        write(recording, &mut svg).unwrap();
        String::from_utf8(svg).unwrap()
    }

    /// Each frame's title, as `name (bytes, share)`, and whatever else is text.
    fn texts(svg: &str, tag: &str) -> Vec<String> {
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document = roxmltree::Document::parse_with_options(svg, options).unwrap();
        document
            .descendants()
            .filter(|node| node.has_tag_name(tag) || node.tag_name().name() == tag)
            .filter_map(|node| node.text().map(str::to_owned))
            .collect()
    }

    fn bytes_of(title: &str) -> u64 {
        let (_, figures) = title.rsplit_once(" (").unwrap();
        figures
            .split(' ')
            .next()
            .unwrap()
            .replace(',', "")
            .parse()
            .unwrap()
    }

    #[test]
    fn each_frame_has_its_name_and_bytes_and_the_whole_is_the_sum() {
        let recording = sample::full();
        let titles = texts(&svg(&recording), "title");
        let folded: u64 = folded::render(&recording)
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        let all = titles.iter().find(|title| title.starts_with("all (")).unwrap();
        assert_eq!(bytes_of(all), folded);
        let upload = titles
            .iter()
            .find(|title| title.starts_with("handle_upload("))
            .unwrap();
        assert_eq!(bytes_of(upload), 700 << 20, "{upload}");
        let texts = texts(&svg(&recording), "text");
        assert!(texts.contains(&"server (PID 4242): bytes that stay resident".to_owned()));
        assert!(texts.contains(&"60 s from 2026-01-02T03:04:05Z".to_owned()));
    }

    #[test]
    fn the_same_recording_is_the_same_file_and_dark_where_asked() {
        let drawn = svg(&sample::sampled());
        assert_eq!(drawn, svg(&sample::sampled()));
        let style = drawn
            .split("<style")
            .nth(1)
            .unwrap()
            .split("</style>")
            .next()
            .unwrap();
        assert!(style.contains("prefers-color-scheme: dark"));
        assert!(drawn.contains("of processes that were gone, address space"));
    }

    #[test]
    fn inlined_frames_are_marked() {
        let mut recording = sample::full();
        recording.call_sites[0].frames[1].inlined = true;
        recording.call_sites[0].stacks = None;
        let titles = texts(&svg(&recording), "title");
        assert!(
            titles
                .iter()
                .any(|title| title.starts_with("handle_upload(Request const&) (inlined) (734,003,200 bytes")),
            "{titles:?}"
        );
    }

    #[test]
    fn hostile_names_are_text_and_no_more() {
        let mut recording = sample::hostile();
        let site = &mut recording.call_sites[0];
        for name in [
            "]]></script><script>x()</script>",
            "a\" onload=\"x()",
            "x 12",
            "--",
            "-->",
            "\u{ffff}\u{fffe}&amp;",
        ] {
            let mut frame = site.frames[0].clone();
            frame.function = Some(Arc::from(name));
            site.frames.insert(0, frame);
        }
        let frames = site.frames.len();
        let svg = svg(&recording);
        let bytes = site_bytes(&recording);
        let titles = texts(&svg, "title");
        // The whole, the process, and its frames: none became two, none lost a byte.
        assert_eq!(titles.len(), 2 + frames, "{titles:?}");
        assert!(titles.iter().all(|title| bytes_of(title) == bytes));
        assert!(
            titles
                .iter()
                .any(|title| title.contains("<script>alert(1)</script>"))
        );
        assert!(titles.iter().any(|title| title.contains("\\xff\\xfe")));
        assert_eq!(svg.matches("<script").count(), 1, "inferno's own");
        assert!(!svg.contains("\" onload=\"x"));
        assert!(!svg.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        assert!(svg.len() < 200_000, "{}", svg.len());
    }

    fn site_bytes(recording: &Recording) -> u64 {
        recording.call_sites[0].live_bytes.unwrap()
    }

    #[test]
    fn a_difference_is_as_wide_as_after_and_coloured_by_the_change() {
        let (before, after) = sample::before_and_after();
        let report = build::diff::diff(&before, &after).unwrap();
        let mut svg = Vec::new();
        write_diff(&report, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        let titles = texts(&svg, "title");
        let of = |name: &str| {
            titles
                .iter()
                .find(|title| title.starts_with(name))
                .unwrap()
                .as_str()
        };
        let per_hour = |mib: u64| (mib * 30) << 20;
        assert_eq!(bytes_of(of("Table::grow()")), per_hour(60));
        assert!(of("Table::grow()").contains("bytes/h") && of("Table::grow()").contains("; +"));
        assert_eq!(bytes_of(of("__memmove_avx")), per_hour(350));
        assert!(of("__memmove_avx").contains("; -"), "{}", of("__memmove_avx"));
        assert!(!titles.iter().any(|title| title.starts_with("parse_header")));
        let written = texts(&svg, "text");
        assert!(
            written
                .iter()
                .any(|text| text.ends_with("2 stacks that hold nothing any more are not drawn")),
            "{written:?}"
        );
        let mut hostile = Vec::new();
        write_diff(&sample::hostile_diff(), &mut hostile).unwrap();
        let hostile = String::from_utf8(hostile).unwrap();
        assert_eq!(hostile.matches("<script").count(), 1, "inferno's own");
        assert!(!texts(&hostile, "title").is_empty());
    }

    #[test]
    fn nothing_kept_is_a_picture_too() {
        let mut recording = sample::empty();
        recording.target.comm = "<b>&".to_owned();
        let texts = texts(&svg(&recording), "text");
        assert!(
            texts.contains(&"No call site keeps memory.".to_owned()),
            "{texts:?}"
        );
        assert!(texts[0].starts_with("<b>& (PID 1)"), "{texts:?}");
    }

    #[test]
    fn a_hundred_thousand_stacks_are_a_small_file() {
        let mut recording = sample::full();
        let site = recording.call_sites[0].clone();
        recording.call_sites = (0..100_000u32)
            .map(|index| {
                let mut site = site.clone();
                site.stacks = None;
                site.live_bytes = Some(4096 + u64::from(index % 7));
                for (depth, frame) in site.frames.iter_mut().rev().enumerate().skip(2) {
                    let part = index / 10u32.pow(6 - u32::try_from(depth.min(6)).unwrap());
                    frame.function = Some(format!("function_{depth}_{part}").into());
                }
                site
            })
            .collect();
        let began = std::time::Instant::now();
        let svg = svg(&recording);
        let took = began.elapsed();
        assert!(svg.len() < 8 << 20, "{}", svg.len());
        // About a second where it is optimised; here it may not be.
        assert!(took.as_secs() < 30, "{took:?}");
    }
}
