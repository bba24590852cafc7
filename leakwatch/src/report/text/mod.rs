//! The report for the terminal: the answer first, then the account, the heap, the call sites, the mappings, what was
//! lost and what it cost. And the picture of a heap alone.

// Their sentences are the HTML report's too.
pub(super) mod account;
pub(super) mod arenas;
pub(super) mod births;
pub(super) mod columns;
pub(super) mod diff;
pub(super) mod heap;
mod history;
pub(super) mod layout;
mod mappings;
pub(super) mod sites;
mod summary;
pub(super) mod tail;
pub(super) mod trend;
pub(super) mod verdict;

use layout::{Page, bytes, percent, seconds};

use super::model::diff::DiffReport;
use super::model::history::{HistoryReport, ScanReport};
use super::model::{CallSite, EndedBy, HeapPicture, Recording};

/// How to render.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Terminal columns; at least 80 are assumed.
    pub width: usize,
    /// ANSI colours.
    pub colour: bool,
    /// Characters beyond ASCII (`…`, `▸`) may be used.
    pub unicode: bool,
    /// Rows of each table.
    pub top: usize,
    /// Call sites below are summed in one line. Bytes.
    pub min_bytes: u64,
    /// Of a recording: the answer alone, on one screen.
    pub brief: bool,
    /// Whole stacks, all regions.
    pub verbose: bool,
}

impl Default for Options {
    /// What a `.txt` file gets.
    fn default() -> Self {
        Self {
            width: 100,
            colour: false,
            unicode: true,
            top: 10,
            min_bytes: 0,
            brief: false,
            verbose: false,
        }
    }
}

/// Renders the report. Every string of the target is inert in it.
#[must_use]
pub fn render(recording: &Recording, options: &Options) -> String {
    let mut page = Page::new(options);
    if options.brief {
        summary::summary(&mut page, recording, options);
        return page.finish();
    }
    page.more = "-vv";
    head(&mut page, recording);
    account::section(&mut page, recording);
    trend::section(&mut page, recording);
    // Before the call sites: whether what grew is in use decides how they are to be read.
    heap::section(&mut page, recording, options);
    sites::section(&mut page, recording, options);
    births::section(&mut page, recording, options);
    mappings::section(&mut page, recording, options);
    tail::processes(&mut page, recording, options);
    tail::losses(&mut page, &recording.losses, recording.losses.events.is_some());
    tail::cost(&mut page, recording);
    page.finish()
}

/// Renders the picture of a heap, as inertly.
#[must_use]
pub fn render_heap(picture: &HeapPicture, options: &Options) -> String {
    let mut page = Page::new(options);
    heap::picture(&mut page, picture, options);
    page.finish()
}

/// Renders a history, as inertly.
#[must_use]
pub fn render_history(report: &HistoryReport, options: &Options) -> String {
    let mut page = Page::new(options);
    history::history(&mut page, report, options);
    page.finish()
}

/// Renders a comparison, as inertly.
#[must_use]
pub fn render_diff(report: &DiffReport, options: &Options) -> String {
    let mut page = Page::new(options);
    diff::report(&mut page, report, options);
    page.finish()
}

/// Renders a look at all processes, as inertly.
#[must_use]
pub fn render_scan(report: &ScanReport, options: &Options) -> String {
    let mut page = Page::new(options);
    history::scan(&mut page, report, options);
    page.finish()
}

/// Who was watched, for how long.
pub(super) fn about(page: &Page, recording: &Recording) -> String {
    let window = &recording.window;
    let ended = match window.ended_by {
        EndedBy::Deadline => "",
        EndedBy::Interrupt => ", ended by an interrupt",
        EndedBy::TargetExit => ", ended by the target's exit",
        EndedBy::TargetExec => ", ended when the target ran another program",
    };
    let comm = page.fit(&recording.target.comm, 32);
    format!(
        "{comm}, PID {}, watched for {}{ended}.",
        recording.target.pid,
        seconds(window.duration_seconds)
    )
}

fn head(page: &mut Page, recording: &Recording) {
    page.paragraph(0, &about(page, recording), layout::DIM);
    page.paragraph(0, &headline(page, recording), layout::STRONG);
    verdict::section(page, recording.verdict.as_ref());
    for note in &recording.notes {
        page.paragraph(0, &format!("Note: {}", page.fit(note, 400)), layout::PLAIN);
    }
}

/// What grew, and who holds it.
pub(super) fn headline(page: &Page, recording: &Recording) -> String {
    let window = seconds(recording.window.duration_seconds);
    let growth = recording
        .reconciliation
        .as_ref()
        .map(|account| account.smaps_growth_bytes)
        .or(recording.growth.anonymous_bytes);
    // Events without a stack are a row of the table, but no call site.
    // Nor does a site hold anything of which nothing is left.
    let weight = |site: &CallSite| site.live_bytes.or(site.held_bytes).unwrap_or(0);
    let named = || {
        recording
            .call_sites
            .iter()
            .filter(|site| !site.frames.is_empty() && weight(site) > 0)
    };
    let sites = named().count();
    let grew = match growth {
        None => format!("How much anonymous memory grew in {window} is not known"),
        Some(0) => format!("Anonymous memory did not grow in {window}"),
        Some(growth) if growth < 0 => {
            format!(
                "Anonymous memory shrank by {} in {window}",
                bytes(growth.unsigned_abs())
            )
        }
        Some(growth) => format!(
            "Anonymous memory grew by {} in {window}",
            bytes(growth.unsigned_abs())
        ),
    };
    let Some(first) = named().next() else {
        let unnamed = recording
            .allocations
            .as_ref()
            .map_or(0, |births| births.unnamed_bytes);
        return if growth.is_some_and(|growth| growth > 0 && unnamed > growth / 2) {
            format!("{grew}; most of it are blocks whose birth was not seen, so that nobody is named.")
        } else {
            format!("{grew}; no call site added memory that it still holds.")
        };
    };
    let plural = if sites == 1 {
        "1 call site holds".to_owned()
    } else {
        format!("{sites} call sites hold")
    };
    let about = |sampled: bool| if sampled { "about " } else { "" };
    let name = page.fit(&first.label, 60);
    let held = match (&recording.reconciliation, growth) {
        (Some(account), Some(1..)) => format!(
            "{grew}; {plural} {}{} of it{}",
            about(account.standard_error_bytes.is_some_and(|error| error > 0.0)),
            bytes(account.attributed_bytes.unsigned_abs()),
            account
                .coverage
                .map(|coverage| format!(" ({})", percent(coverage)))
                .unwrap_or_default(),
        ),
        (Some(account), _) => {
            format!(
                "{grew}; {plural} {}{} added in it",
                about(account.standard_error_bytes.is_some_and(|error| error > 0.0)),
                bytes(account.attributed_bytes.unsigned_abs())
            )
        }
        (None, _) => format!("{grew}; {plural} memory added in it"),
    };
    let sampled = about(columns::is_sampled(first));
    format!("{held}. First is {name} with {sampled}{}.", bytes(weight(first)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    use super::super::sample;
    use super::*;

    pub(super) fn at(width: usize) -> Options {
        Options {
            width,
            ..Options::default()
        }
    }

    #[test]
    fn at_80_columns() {
        let ascii = Options {
            unicode: false,
            ..at(80)
        };
        let text = render(&sample::full(), &ascii);
        assert!(text.is_ascii());
        insta::assert_snapshot!("text_80", text);
    }

    #[test]
    fn at_200_columns_verbose() {
        insta::assert_snapshot!(
            "text_200",
            render(
                &sample::full(),
                &Options {
                    verbose: true,
                    ..at(200)
                }
            )
        );
    }

    #[test]
    fn a_sample_of_three_processes() {
        insta::assert_snapshot!("text_sampled_80", render(&sample::sampled(), &at(80)));
        let verbose = Options {
            verbose: true,
            ..at(120)
        };
        insta::assert_snapshot!("text_sampled_120", render(&sample::sampled(), &verbose));
    }

    #[test]
    fn without_page_faults() {
        let text = render(&sample::mappings_only(), &at(80));
        let sites = text.split("CALL SITES").nth(1).unwrap();
        assert!(
            sites.contains("Evidence is mappings") && !sites.contains("Evidence is pages"),
            "{text}"
        );
        assert!(!sites.contains("kept") && !sites.contains("touched"), "{text}");
        let head = sites.lines().find(|line| line.contains("rate")).unwrap();
        let names: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(names, ["#", "live", "held", "share", "rate", "events", "via"]);
    }

    #[test]
    fn no_figure_touches_its_neighbour() {
        let mut recording = sample::sampled();
        for site in &mut recording.call_sites {
            let most = Some((1 << 30) - (53 << 10));
            (
                site.live_bytes,
                site.touched_bytes,
                site.held_bytes,
                site.committed_bytes,
            ) = (most, most, most, most);
            site.standard_error_bytes = Some((1 << 30) as f64 - 54_272.0);
            (site.retention, site.share, site.rate_bytes_per_second) =
                (Some(1.0), Some(1.0), Some(-1_073_687_552.0));
            site.events = 12_345_678;
        }
        for (width, unicode) in [(80, true), (80, false), (120, true), (120, false), (140, false)] {
            let text = render(&recording, &Options { unicode, ..at(width) });
            let row = text.lines().find(|line| line.starts_with("   1 ")).unwrap();
            let figures = row.replace("+/-", "±");
            assert!(
                figures.contains(" 1023.9 MiB ± 1023.9 MiB 1023.9 MiB  100 % "),
                "{row}"
            );
            assert!(figures.contains(" 100.0 % -1023.9 MiB/s "), "{row}");
            assert_eq!(figures.contains(" 12345678 "), width >= 120, "{row}");
            let spaces = figures.matches("~1023.9 MiB ").count();
            assert_eq!(
                spaces,
                [(80, 0), (120, 1), (140, 2)]
                    .iter()
                    .find(|row| row.0 == width)
                    .unwrap()
                    .1,
                "{row}"
            );
            assert!(!row.contains('…') && !row.contains("..."), "{row}");
            inert(&text, width);
        }
    }

    #[test]
    fn with_nothing_measured() {
        insta::assert_snapshot!("text_empty", render(&sample::empty(), &at(80)));
    }

    #[test]
    fn shrunk_memory_has_a_headline_too() {
        let mut recording = sample::full();
        let account = recording.reconciliation.as_mut().unwrap();
        account.smaps_growth_bytes = -(5 << 20);
        account.coverage = None;
        let text = render(&recording, &at(100));
        assert!(
            text.contains("Anonymous memory shrank by 5.0 MiB in 60.0 s"),
            "{text}"
        );
    }

    #[test]
    fn colour_only_when_asked_and_then_only_ours() {
        assert!(!render(&sample::full(), &at(80)).contains('\x1b'));
        let coloured = render(
            &sample::full(),
            &Options {
                colour: true,
                ..at(80)
            },
        );
        assert!(coloured.contains("\x1b["));
        assert_eq!(
            anstream::adapter::strip_str(&coloured).to_string(),
            render(&sample::full(), &at(80))
        );
    }

    #[test]
    fn small_sites_and_those_beyond_the_top_are_summed() {
        let text = render(&sample::full(), &Options { top: 3, ..at(80) });
        assert!(text.contains("and 13 more"), "{text}");
        let text = render(
            &sample::full(),
            &Options {
                min_bytes: 50 << 20,
                ..at(80)
            },
        );
        assert!(text.contains("and 14 more"), "{text}");
        assert!(!text.contains("small_site_00"));
    }

    pub(super) fn inert(text: &str, width: usize) {
        for line in text.lines() {
            assert!(line.width() <= width, "{} columns: {line}", line.width());
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }

    #[test]
    fn hostile_names_do_nothing() {
        for width in [80, 120, 200] {
            for verbose in [false, true] {
                inert(
                    &render(&sample::hostile(), &Options { verbose, ..at(width) }),
                    width,
                );
            }
        }
        let text = render(&sample::hostile(), &at(200));
        assert!(text.len() < 64 << 10);
    }

    proptest! {
        #[test]
        fn any_name_keeps_to_the_width(name in "\\PC{0,200}|.{0,200}", width in 80usize..220) {
            let mut recording = sample::full();
            recording.target.comm.clone_from(&name);
            for site in &mut recording.call_sites {
                site.label = name.as_str().into();
                for frame in &mut site.frames {
                    frame.function = Some(name.as_str().into());
                    frame.file = Some(name.as_str().into());
                }
            }
            for row in recording.mappings.iter_mut().flatten() { row.path = Some(name.clone()); }
            inert(&render(&recording, &at(width)), width);
        }
    }
}
