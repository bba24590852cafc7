//! What changed between two recordings, as text: the answer, then the call sites by how much their rates changed.

use unicode_width::UnicodeWidthStr;

use super::Options;
use super::layout::{
    BLAMED, DIM, PLAIN, Page, STRONG, bytes, known, per_second, right, rounded, seconds, signed,
};
use super::sites::{base, frame_place, source};
use crate::diagnose::difference::Change;
use crate::report::build::diff::count;
use crate::report::model::diff::{DiffFigures, DiffReport, DiffSide, DiffSite};
use crate::report::stacks::frame_name;

/// Columns of a rate.
const RATE: usize = 14;

/// From so many columns on the bytes stand beside the rates.
const WIDE: usize = 120;

/// What windows of two lengths mean. It follows another sentence.
pub const WINDOWS_DIFFER: &str = " Rates are compared, since the windows are not of one length; what was gained once, and \
                                  not steadily, has a lower one in the longer window.";

/// Callers that are shown.
const OUTWARD: usize = 2;

pub fn report(page: &mut Page, report: &DiffReport, options: &Options) {
    for (which, side) in [("Before:", &report.before), ("After:", &report.after)] {
        let line = about(page, side);
        page.paragraph(0, &format!("{which} {line}"), DIM);
    }
    page.paragraph(0, &headline(report), STRONG);
    page.paragraph(0, &counts(report), PLAIN);
    for note in &report.notes {
        let note = format!("Note: {}", page.fit(note, 400));
        page.paragraph(0, &note, PLAIN);
    }
    sites(page, report, options);
    if options.verbose && !report.rebuilt.is_empty() {
        page.heading("REBUILT", "files that are another build after");
        for module in &report.rebuilt {
            let builds = format!(
                "{} to {}",
                page.fit(&module.build_id_before, 12),
                page.fit(&module.build_id_after, 12)
            );
            let room = page.width.saturating_sub(builds.width() + 5);
            let name = page.fit(&module.module, room);
            page.line(&format!("  {name}  {}", page.paint(DIM, &builds)));
        }
    }
}

/// Who was watched, when, and what the verdict was.
pub fn about(page: &Page, side: &DiffSide) -> String {
    let verdict = side
        .verdict
        .as_ref()
        .map_or_else(String::new, |kind| format!(": {}", page.fit(kind, 12)));
    format!(
        "{}, PID {}, {} from {}{verdict}",
        page.fit(&side.target.comm, 16),
        side.target.pid,
        seconds(side.duration_seconds),
        // Without what is below a second.
        page.fit(side.started_at.split('.').next().unwrap_or_default(), 20)
    )
}

/// How memory grew in both, and what call sites keep of it.
pub fn headline(report: &DiffReport) -> String {
    let grew = |side: &DiffSide| {
        side.anonymous_growth_bytes
            .zip(side.anonymous_rate_bytes_per_second)
            .map(|(bytes, rate)| format!("{} ({})", signed(bytes), per_second(rate)))
    };
    let kept = |side: &DiffSide| {
        format!(
            "{} ({})",
            bytes(side.kept_bytes),
            per_second(side.kept_rate_bytes_per_second)
        )
    };
    let memory = match (grew(&report.before), grew(&report.after)) {
        (Some(before), Some(after)) => format!("Anonymous memory: {before} before, {after} after. "),
        _ => String::new(),
    };
    format!(
        "{memory}Call sites keep {} before, {} after.",
        kept(&report.before),
        kept(&report.after)
    )
}

/// `2 call sites appeared, 1 grew, 3 shrank, 4 went, 5 stayed as they were.`
pub fn counts(report: &DiffReport) -> String {
    if report.sites.is_empty() {
        return "There is no call site in either.".to_owned();
    }
    let told: Vec<String> = [
        (Change::Appeared, "appeared"),
        (Change::Grew, "grew"),
        (Change::Shrank, "shrank"),
        (Change::Went, "went"),
        (Change::Same, "stayed the same"),
    ]
    .into_iter()
    .map(|(change, word)| (count(report, change), word))
    .filter(|(count, _)| *count > 0)
    .enumerate()
    .map(|(index, (count, word))| match index {
        0 if count == 1 => format!("1 call site {word}"),
        0 => format!("{count} call sites {word}"),
        _ => format!("{count} {word}"),
    })
    .collect();
    let differ = report.before.duration_seconds != report.after.duration_seconds;
    let windows = if differ { WINDOWS_DIFFER } else { "" };
    format!("{}.{windows}", told.join(", "))
}

fn sites(page: &mut Page, report: &DiffReport, options: &Options) {
    page.heading("CALL SITES", "by how much their rates changed");
    // What keeps nothing on either side changed nothing.
    let least = options.min_bytes.max(1);
    let told: Vec<&DiffSite> = report
        .sites
        .iter()
        .filter(|site| site.most_bytes() >= least)
        .collect();
    if told.is_empty() {
        page.paragraph(2, "none that keeps anything", PLAIN);
        return;
    }
    let wide = page.width >= WIDE;
    let mut head = format!("     {}", right("change", RATE));
    for name in ["before", "after"] {
        head += &right(name, RATE);
        if wide {
            head += &right("bytes", RATE);
        }
    }
    page.line(&page.paint(DIM, &head));
    for site in told.iter().take(options.top) {
        one(page, site, wide, options);
    }
    let left_out = told.len().saturating_sub(options.top) + report.sites.len() - told.len();
    if left_out > 0 {
        let text = format!("{} and {left_out} more, which changed less", page.ellipsis());
        page.paragraph(2, &text, PLAIN);
    }
}

fn one(page: &mut Page, site: &DiffSite, wide: bool, options: &Options) {
    let mut row = format!(
        "{} {}",
        right(&site.rank.to_string(), 4),
        right(&with_sign(site.rate_change_bytes_per_second), RATE)
    );
    for figures in [&site.before, &site.after] {
        row += &right(&rate(figures.as_ref()), RATE);
        if wide {
            let bytes = figures.as_ref().and_then(|figures| figures.bytes);
            row += &right(&known(bytes), RATE);
        }
    }
    let doubt = if site.beyond_error {
        ""
    } else {
        ", within the error"
    };
    row += &format!("  {}{doubt}", page.fit(&site.change, 8));
    page.line(&page.paint(STRONG, &row));
    name(page, site);
    if !wide || options.verbose {
        page.paragraph(7, &figures(page, site, options), PLAIN);
    }
    path(page, site, options.verbose);
}

/// A change of a rate.
pub fn with_sign(rate: f64) -> String {
    let shown = per_second(rate);
    if rate > 0.0 && !shown.starts_with("0 ") {
        format!("+{shown}")
    } else {
        shown
    }
}

fn rate(figures: Option<&DiffFigures>) -> String {
    figures.map_or_else(
        || "-".to_owned(),
        |figures| per_second(figures.rate_bytes_per_second),
    )
}

fn name(page: &mut Page, site: &DiffSite) {
    let culprit = site.culprit.as_ref();
    let room = page.width - 5;
    let place = culprit.map_or_else(String::new, |it| source(it.file.as_deref(), it.line));
    let module = culprit.and_then(|it| it.module.as_deref()).map_or("", base);
    let mut about = String::new();
    if !place.is_empty() {
        about += &format!("  {}", page.fit(&place, room / 4));
    }
    if !module.is_empty() && module != site.label {
        about += &format!("  ({})", page.fit(module, room / 4));
    }
    let label = page.fit(&site.label, room.saturating_sub(about.width()));
    page.line(&format!(
        "     {}{}",
        page.paint(BLAMED, &label),
        page.paint(DIM, &about)
    ));
}

/// Bytes of both, and with `-v` what they rest on.
fn figures(page: &Page, site: &DiffSite, options: &Options) -> String {
    let held = if site.measure == "held" {
        " of address space"
    } else {
        ""
    };
    let one = |figures: &Option<DiffFigures>, which: &str| {
        figures.as_ref().map(|figures| {
            let mut text = format!("{}{held} {which}", known(figures.bytes));
            if options.verbose {
                if let Some(error) = figures.standard_error_bytes.filter(|error| *error > 0.0) {
                    text += &format!(", {} {}", page.plus_minus(), bytes(rounded(error)));
                }
                text += &format!(", rank {}, by {}", figures.rank, page.fit(&figures.evidence, 12));
            }
            text
        })
    };
    let mut parts: Vec<String> = [one(&site.before, "before"), one(&site.after, "after")]
        .into_iter()
        .flatten()
        .collect();
    if options.verbose
        && let Some(matched) = &site.matched_by
    {
        parts.push(format!("matched by {}", page.fit(matched, 12)));
    }
    parts.join("; ")
}

/// A line of the way to it; with `-v` its whole stack.
fn path(page: &mut Page, site: &DiffSite, whole: bool) {
    let Some(stack) = site.stacks.first() else { return };
    if whole {
        for frame in &stack.frames {
            let room = page.width.saturating_sub(11);
            let place = page.fit(&frame_place(frame, true), room / 2);
            let name = page.fit(&frame_name(frame), room.saturating_sub(place.width()));
            page.line(&format!("         {name}  {}", page.paint(DIM, &place)));
        }
        return;
    }
    let at = site.culprit.as_ref().and_then(|culprit| {
        stack
            .frames
            .iter()
            .position(|frame| frame.function == culprit.function && frame.module == culprit.module)
    });
    let callers: Vec<String> = stack
        .frames
        .iter()
        .skip(at.map_or(0, |at| at + 1))
        .take(OUTWARD)
        .map(|frame| page.fit(&frame_name(frame), (page.width - 15) / OUTWARD))
        .collect();
    if !callers.is_empty() {
        let line = page.fit(&format!("from {}", callers.join(" < ")), page.width - 7);
        page.line(&format!("       {}", page.paint(DIM, &line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::text::render_diff;
    use crate::report::{build, sample};

    fn rendered(width: usize, verbose: bool) -> String {
        let (before, after) = sample::before_and_after();
        let report = build::diff::diff(&before, &after).unwrap();
        let options = Options {
            width,
            verbose,
            ..Options::default()
        };
        let text = render_diff(&report, &options);
        assert!(text.lines().all(|line| line.width() <= width), "{text}");
        text
    }

    #[test]
    fn at_80_columns() {
        insta::assert_snapshot!("diff_80", rendered(80, false));
    }

    #[test]
    fn at_200_columns_verbose() {
        insta::assert_snapshot!("diff_200", rendered(200, true));
    }

    #[test]
    fn nothing_and_hostile_names() {
        let report = build::diff::diff(&sample::empty(), &sample::empty()).unwrap();
        let text = render_diff(&report, &Options::default());
        assert!(text.contains("There is no call site in either."), "{text}");
        for (width, verbose) in [(80, false), (80, true), (133, true)] {
            let options = Options {
                width,
                verbose,
                ..Options::default()
            };
            let text = render_diff(&sample::hostile_diff(), &options);
            assert!(text.lines().all(|line| line.width() <= width), "{text}");
            assert!(!text.replace('\n', "").chars().any(char::is_control));
            assert!(text.len() < 100_000);
        }
    }
}
