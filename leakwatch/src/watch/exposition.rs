//! What Prometheus reads: the state of the last round as OpenMetrics text, or as the older text format. Pure.
//!
//! Formats: OpenMetrics 1.0 and Prometheus text 0.0.4. They differ in how a counter's family is named and in the end.

use std::fmt::Write as _;

use super::thresholds::Threshold;
use crate::diagnose::trend::Kind;
use crate::history::figures::{Figures, METRICS, Unit};
use crate::report::escape::escape;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// By what the scraper accepts.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct Exposed {
    /// Hostile text, as the cgroup.
    pub service: String,
    pub cgroup: String,
    pub replica: u32,
    pub pid: u32,
    pub figures: Figures,
    pub kind: Option<Kind>,
    /// Bytes per second.
    pub rate: Option<f64>,
    pub seconds_to_limit: Option<f64>,
    pub baseline_bytes: Option<u64>,
    /// Those that are watched for, and whether they are raised.
    pub alerts: Vec<(Threshold, bool)>,
}

/// The watch itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    pub rounds: u64,
    pub samples: u64,
    pub lost_samples: u64,
    /// Processes whose heap could not be read: they are judged by sizes alone.
    pub heaps_unread: u64,
    pub alerts: u64,
    pub processor_seconds: f64,
    pub rss_bytes: Option<u64>,
    pub history_bytes: Option<u64>,
    pub history_failing: bool,
    pub round_seconds: f64,
}

/// All that is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub processes: Vec<Exposed>,
    pub own: Own,
}

/// A label's value: inert in a terminal, and escaped as both formats ask for.
fn label(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for letter in escape(value).chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

struct Page {
    out: String,
    format: Format,
}

impl Page {
    /// The head of a family. `unit` is a suffix of its name, or nothing.
    fn family(&mut self, name: &str, kind: &str, unit: &str, about: &str) {
        // In the older format a counter's family has the name of its samples.
        let suffix = if kind == "counter" && self.format == Format::Text {
            "_total"
        } else {
            ""
        };
        let _ = writeln!(self.out, "# HELP {name}{suffix} {about}");
        let _ = writeln!(self.out, "# TYPE {name}{suffix} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = if labels.is_empty() {
            writeln!(self.out, "{name} {value}")
        } else {
            writeln!(self.out, "{name}{{{labels}}} {value}")
        };
    }
}

/// A process with its labels made.
struct Labelled<'a> {
    labels: String,
    process: &'a Exposed,
}

/// Renders the snapshot.
#[must_use]
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut page = Page {
        out: String::new(),
        format,
    };
    let processes: Vec<Labelled<'_>> = snapshot
        .processes
        .iter()
        .map(|process| Labelled {
            labels: format!(
                "service=\"{}\",cgroup=\"{}\",replica=\"{}\"",
                label(&process.service),
                label(&process.cgroup),
                process.replica
            ),
            process,
        })
        .collect();
    for metric in &METRICS {
        let name = format!("leakwatch_process_{}", metric.name);
        let (kind, unit) = match metric.unit {
            Unit::Bytes => ("gauge", "bytes"),
            Unit::Count => ("gauge", ""),
            Unit::Total => ("counter", ""),
        };
        let of_sample = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.clone()
        };
        page.family(&name, kind, unit, &format!("{}.", metric.about));
        for Labelled { labels, process } in &processes {
            if let Some(value) = (metric.get)(&process.figures) {
                page.sample(&of_sample, labels, value);
            }
        }
    }
    judged(&mut page, &processes);
    own(&mut page, snapshot);
    if format == Format::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

/// A gauge of a process: its name, its unit, what it is, and where it comes from.
type Gauge = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Exposed) -> Option<f64>,
);

fn judged(page: &mut Page, processes: &[Labelled<'_>]) {
    let gauges: [Gauge; 3] = [
        (
            "leakwatch_process_growth_bytes_per_second",
            "bytes_per_second",
            "Slope of anonymous memory, by its trend.",
            |process| process.rate,
        ),
        (
            "leakwatch_process_time_to_limit_seconds",
            "seconds",
            "Until the cgroup's limit or the host's RAM is reached; none where it does not grow.",
            |process| process.seconds_to_limit,
        ),
        (
            "leakwatch_process_baseline_bytes",
            "bytes",
            "Anonymous memory that it usually needs, as learned.",
            #[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
            |process| process.baseline_bytes.map(|bytes| bytes as f64),
        ),
    ];
    for (name, unit, about, get) in gauges {
        page.family(name, "gauge", unit, about);
        for Labelled { labels, process } in processes {
            if let Some(value) = get(process).filter(|value| value.is_finite()) {
                page.sample(name, labels, value);
            }
        }
    }
    let name = "leakwatch_process_trend";
    page.family(
        name,
        "gauge",
        "",
        "1 for the kind of trend that anonymous memory has.",
    );
    for Labelled { labels, process } in processes {
        if let Some(kind) = process.kind {
            page.sample(name, &format!("{labels},kind=\"{}\"", label(kind.name())), 1);
        }
    }
    let name = "leakwatch_process_alert";
    page.family(name, "gauge", "", "1 while the alert of a threshold is raised.");
    for Labelled { labels, process } in processes {
        for (threshold, raised) in &process.alerts {
            let labels = format!("{labels},threshold=\"{}\"", threshold.name());
            page.sample(name, &labels, u8::from(*raised));
        }
    }
    let name = "leakwatch_process_pid";
    page.family(name, "gauge", "", "Process ID of the run that is going on.");
    for Labelled { labels, process } in processes {
        page.sample(name, labels, process.pid);
    }
}

fn own(page: &mut Page, snapshot: &Snapshot) {
    let own = &snapshot.own;
    let mut gauge = |name: &str, unit: &str, about: &str, value: Option<f64>| {
        page.family(name, "gauge", unit, about);
        if let Some(value) = value {
            page.sample(name, "", value);
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "sizes below 2^53")]
    let float = |value: u64| value as f64;
    gauge(
        "leakwatch_watch_processes",
        "",
        "Processes that are watched.",
        Some(float(snapshot.processes.len() as u64)),
    );
    gauge(
        "leakwatch_watch_resident_bytes",
        "bytes",
        "Resident memory of leakwatch itself.",
        own.rss_bytes.map(float),
    );
    gauge(
        "leakwatch_watch_history_bytes",
        "bytes",
        "Bytes in use of the history file.",
        own.history_bytes.map(float),
    );
    gauge(
        "leakwatch_watch_history_failing",
        "",
        "1 while the history file cannot be written.",
        Some(f64::from(u8::from(own.history_failing))),
    );
    gauge(
        "leakwatch_watch_last_round_seconds",
        "seconds",
        "Time that the last round took.",
        Some(own.round_seconds),
    );
    for (name, about, value) in [
        ("leakwatch_watch_rounds", "Rounds of samples.", own.rounds),
        ("leakwatch_watch_samples", "Samples taken.", own.samples),
        (
            "leakwatch_watch_lost_samples",
            "Samples that are not in the history.",
            own.lost_samples,
        ),
        ("leakwatch_watch_alerts", "Alerts raised.", own.alerts),
    ] {
        page.family(name, "counter", "", about);
        page.sample(&format!("{name}_total"), "", value);
    }
    let name = "leakwatch_watch_heaps_unread";
    let about = "Processes whose heap could not be read: judged by sizes alone.";
    page.family(name, "gauge", "", about);
    page.sample(name, "", own.heaps_unread);
    let name = "leakwatch_watch_processor_seconds";
    page.family(name, "counter", "seconds", "Processor time of leakwatch itself.");
    page.sample(&format!("{name}_total"), "", own.processor_seconds);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(service: &str) -> Snapshot {
        Snapshot {
            processes: vec![Exposed {
                service: service.to_owned(),
                cgroup: "/a\\b".to_owned(),
                replica: 0,
                pid: 7,
                figures: Figures {
                    rss_bytes: Some(4096),
                    minor_faults: Some(9),
                    ..Figures::default()
                },
                kind: Some(Kind::SteadyGrowth),
                rate: Some(1.5),
                seconds_to_limit: Some(f64::INFINITY),
                baseline_bytes: None,
                alerts: vec![(Threshold::Rate, true)],
            }],
            own: Own {
                rounds: 3,
                ..Own::default()
            },
        }
    }

    #[test]
    fn both_formats() {
        insta::assert_snapshot!("openmetrics", render(&snapshot("server"), Format::OpenMetrics));
        insta::assert_snapshot!("text", render(&snapshot("server"), Format::Text));
        assert_eq!(
            Format::accepted("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
            Format::OpenMetrics
        );
        assert_eq!(Format::accepted("*/*"), Format::Text);
    }

    type Labels = Vec<(String, String)>;

    /// A line of the format, read as its specification says; `None` for what is none.
    fn parse(line: &str) -> Option<(String, Labels, f64)> {
        let name_end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_end);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            loop {
                let (key, after) = rest.split_once("=\"")?;
                let mut value = String::new();
                let mut letters = after.char_indices();
                let end = loop {
                    match letters.next()? {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match letters.next()?.1 {
                            'n' => '\n',
                            letter @ ('\\' | '"') => letter,
                            _ => return None,
                        }),
                        (_, '\n') => return None,
                        (_, letter) => value.push(letter),
                    }
                };
                labels.push((key.to_owned(), value));
                rest = &after[end + 1..];
                if let Some(after) = rest.strip_prefix('}') {
                    rest = after;
                    break;
                }
                rest = rest.strip_prefix(',')?;
            }
        }
        Some((name.to_owned(), labels, rest.strip_prefix(' ')?.parse().ok()?))
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_line(name in any::<String>()) {
            for format in [Format::OpenMetrics, Format::Text] {
                let text = render(&snapshot(&name), format);
                let mut seen = 0;
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    let (metric, labels, value) = parse(line).unwrap_or_else(|| panic!("{line:?}"));
                    prop_assert!(metric.starts_with("leakwatch_"));
                    if metric == "leakwatch_process_rss_bytes" {
                        seen += 1;
                        prop_assert_eq!(value, 4096.0);
                        prop_assert_eq!(&labels[0], &("service".to_owned(), escape(&name)));
                        prop_assert_eq!(&labels[1].1, "/a\\b");
                    }
                }
                prop_assert_eq!(seen, 1);
                prop_assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()));
            }
        }
    }

    #[test]
    fn names_that_were_made_to_harm() {
        for name in ["a\"} 1\nevil 2", "\\", "\\\"", "\r\n", "\u{202e}x", ""] {
            let text = render(&snapshot(name), Format::OpenMetrics);
            assert!(!text.contains("\nevil"), "{text}");
            assert!(text.ends_with("# EOF\n"));
        }
    }
}
