//! The formats: what each thing that is reported can be written as.

use std::io::{self, Write};

use super::model::diff::DiffReport;
use super::model::history::{HistoryReport, ScanReport};
use super::model::{HeapPicture, Recording};
use super::{csv, folded, html, json, pprof, svg, text};

/// One format of a `T`: the ending chooses it.
pub struct Format<T> {
    /// With its dot.
    pub ending: &'static str,
    pub about: &'static str,
    render: fn(&T, &text::Options, &mut dyn Write) -> io::Result<()>,
}

impl<T> Format<T> {
    /// Renders to anything that takes bytes.
    pub fn write(&self, what: &T, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
        (self.render)(what, options, to)
    }
}

/// What can be printed and written to files.
pub trait Rendered: Sized + 'static {
    /// Every format there is of it.
    const FORMATS: &'static [Format<Self>];

    /// As the terminal shows it.
    fn text(&self, options: &text::Options) -> String;

    /// As a `.txt` file has it.
    fn write_plain(&self, options: &text::Options, to: &mut dyn Write) -> io::Result<()> {
        let plain = text::Options {
            colour: false,
            ..options.clone()
        };
        to.write_all(self.text(&plain).as_bytes())
    }
}

impl Rendered for Recording {
    const FORMATS: &'static [Format<Self>] = FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render(self, options)
    }
}

impl Rendered for HeapPicture {
    const FORMATS: &'static [Format<Self>] = HEAP_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_heap(self, options)
    }
}

impl Rendered for HistoryReport {
    const FORMATS: &'static [Format<Self>] = HISTORY_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_history(self, options)
    }
}

impl Rendered for ScanReport {
    const FORMATS: &'static [Format<Self>] = SCAN_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_scan(self, options)
    }
}

impl Rendered for DiffReport {
    const FORMATS: &'static [Format<Self>] = DIFF_FORMATS;

    fn text(&self, options: &text::Options) -> String {
        text::render_diff(self, options)
    }
}

/// Those of a comparison.
pub const DIFF_FORMATS: &[Format<DiffReport>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".html",
        about: "the comparison for a browser, one file",
        render: |report, options, to| html::diff::write(report, options, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
    Format {
        ending: ".folded",
        about: "folded stacks with two rates, for differential flame graphs",
        render: |report, _, to| to.write_all(folded::render_diff(report).as_bytes()),
    },
    Format {
        ending: ".svg",
        about: "a flame graph of the rates after, coloured by what changed",
        render: |report, _, to| svg::write_diff(report, to),
    },
    Format {
        ending: ".pb.gz",
        about: "a profile of the differences for pprof",
        render: |report, _, to| pprof::write_diff(report, to),
    },
    Format {
        ending: ".csv",
        about: "a line for each call site",
        render: |report, _, to| csv::diff::write(report, to),
    },
];

/// Those of a history.
pub const HISTORY_FORMATS: &[Format<HistoryReport>] = &[
    Format {
        ending: ".json",
        about: "services, runs, alerts and points for plots",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".csv",
        about: "a line for each point",
        render: |report, _, to| csv::history::write(report, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
];

/// Those of a look at all processes.
pub const SCAN_FORMATS: &[Format<ScanReport>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |report, _, to| json::write_any(report, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |report, options, to| report.write_plain(options, to),
    },
];

/// Those of a heap's picture: it has no stacks.
pub const HEAP_FORMATS: &[Format<HeapPicture>] = &[
    Format {
        ending: ".json",
        about: "every figure",
        render: |picture, _, to| json::write_picture(picture, to),
    },
    Format {
        ending: ".txt",
        about: "the text as the terminal shows it",
        render: |picture, options, to| picture.write_plain(options, to),
    },
];

/// Those of a recording.
pub const FORMATS: &[Format<Recording>] = &[
    Format {
        ending: ".json",
        about: "the recording, lossless",
        render: |recording, _, to| json::write(recording, to),
    },
    Format {
        ending: ".html",
        about: "the report for a browser, one file",
        render: |recording, options, to| html::write(recording, options, to),
    },
    Format {
        ending: ".txt",
        about: "the report as the terminal shows it",
        render: |recording, options, to| recording.write_plain(options, to),
    },
    Format {
        ending: ".folded",
        about: "folded stacks for flame graph tools",
        render: |recording, _, to| to.write_all(folded::render(recording).as_bytes()),
    },
    Format {
        ending: ".svg",
        about: "a flame graph by bytes, for a browser",
        render: |recording, _, to| svg::write(recording, to),
    },
    Format {
        ending: ".pb.gz",
        about: "a profile for pprof",
        render: |recording, _, to| pprof::write(recording, to),
    },
    Format {
        ending: ".csv",
        about: "the ranking, a line for each call site",
        render: |recording, _, to| csv::ranking::write(recording, to),
    },
    Format {
        ending: ".series.csv",
        about: "what /proc said over the window, a line for each sample",
        render: |recording, _, to| csv::series::write(recording, to),
    },
];
