//! The ranking of a recording: a line for each call site.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{field, figure, frames, list};
use crate::report::model::{CallSite, Recording};

/// A column, and what stands in it.
struct Column {
    name: &'static str,
    of: fn(&CallSite) -> String,
}

const COLUMNS: &[Column] = &[
    Column {
        name: "rank",
        of: |site| site.rank.to_string(),
    },
    Column {
        name: "label",
        of: |site| field(&site.label),
    },
    Column {
        name: "function",
        of: |site| text(site.culprit.as_ref().and_then(|it| it.function.as_deref())),
    },
    Column {
        name: "module",
        of: |site| text(site.culprit.as_ref().and_then(|it| it.module.as_deref())),
    },
    Column {
        name: "file",
        of: |site| text(site.culprit.as_ref().and_then(|it| it.file.as_deref())),
    },
    Column {
        name: "line",
        of: |site| figure(site.culprit.as_ref().and_then(|it| it.line)),
    },
    Column {
        name: "evidence",
        of: |site| field(&site.evidence),
    },
    Column {
        name: "via",
        of: |site| field(&site.via),
    },
    Column {
        name: "live_bytes",
        of: |site| figure(site.live_bytes),
    },
    Column {
        name: "standard_error_bytes",
        of: |site| figure(site.standard_error_bytes),
    },
    Column {
        name: "share",
        of: |site| figure(site.share),
    },
    Column {
        name: "rate_bytes_per_second",
        of: |site| figure(site.rate_bytes_per_second),
    },
    Column {
        name: "held_bytes",
        of: |site| figure(site.held_bytes),
    },
    Column {
        name: "touched_bytes",
        of: |site| figure(site.touched_bytes),
    },
    Column {
        name: "extended_bytes",
        of: |site| figure(site.extended_bytes),
    },
    Column {
        name: "retention",
        of: |site| figure(site.retention),
    },
    Column {
        name: "committed_bytes",
        of: |site| figure(site.committed_bytes),
    },
    Column {
        name: "released_bytes",
        of: |site| figure(site.released_bytes),
    },
    Column {
        name: "blocks",
        of: |site| figure(site.allocations.as_ref().map(|it| it.blocks)),
    },
    Column {
        name: "events",
        of: |site| site.events.to_string(),
    },
    Column {
        name: "estimated",
        of: |site| site.estimated.to_string(),
    },
    Column {
        name: "first_seen_seconds",
        of: |site| figure(site.first_seen_seconds),
    },
    Column {
        name: "last_seen_seconds",
        of: |site| figure(site.last_seen_seconds),
    },
    Column {
        name: "threads",
        of: |site| list(site.threads.iter().map(String::as_str)),
    },
    Column {
        name: "processes",
        of: |site| list(site.processes.iter().map(u32::to_string)),
    },
    Column {
        name: "stack_complete",
        of: |site| site.stack_complete.to_string(),
    },
    Column {
        name: "stack",
        of: |site| frames(&site.frames),
    },
];

/// Writes a head and the call sites in the order of their ranks. Sizes in bytes, times in seconds from the window's start.
pub fn write(recording: &Recording, to: &mut dyn Write) -> io::Result<()> {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    write!(to, "{}\r\n", names.join(","))?;
    let mut line = String::new();
    for site in &recording.call_sites {
        line.clear();
        for (index, column) in COLUMNS.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(line, "{comma}{}", (column.of)(site));
        }
        line.push_str("\r\n");
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn text(text: Option<&str>) -> String {
    text.map_or_else(String::new, field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Head and lines, by a reader of CSV.
    fn read(recording: &Recording) -> (Vec<String>, Vec<Vec<String>>) {
        let mut file = Vec::new();
        write(recording, &mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        assert!(!text.chars().any(|c| c.is_control() && !"\r\n".contains(c)));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let texts = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
        let head = texts(reader.headers().unwrap());
        let lines = reader.records().map(|record| texts(&record.unwrap())).collect();
        (head, lines)
    }

    #[test]
    fn a_line_for_each_call_site_with_its_figures() {
        let recording = sample::full();
        let (head, lines) = read(&recording);
        assert_eq!(lines.len(), recording.call_sites.len());
        let at = |name: &str| head.iter().position(|column| column == name).unwrap();
        let first = &lines[0];
        for (column, value) in [
            ("rank", "1"),
            ("function", "handle_upload(Request const&)"),
            ("module", "/srv/app/bin/server"),
            ("file", "src/server.cc"),
            ("line", "123"),
            ("live_bytes", "734003200"),
            ("touched_bytes", "746586112"),
            ("extended_bytes", ""),
            ("evidence", "pages"),
            ("threads", "worker-1"),
            ("processes", "4242"),
        ] {
            assert_eq!(first[at(column)], value, "{column}");
        }
        assert!(first[at("stack")].starts_with("clone3;start_thread;Worker::run();"));
        let sum: u64 = lines
            .iter()
            .map(|line| line[at("live_bytes")].parse::<u64>().unwrap())
            .sum();
        assert_eq!(
            sum,
            recording
                .call_sites
                .iter()
                .filter_map(|site| site.live_bytes)
                .sum::<u64>()
        );
    }

    #[test]
    fn no_call_sites_are_a_head() {
        let (head, lines) = read(&sample::empty());
        assert_eq!(head.len(), COLUMNS.len());
        assert!(lines.is_empty());
    }

    #[test]
    fn hostile_names_are_fields_and_no_formulas() {
        let mut recording = sample::hostile();
        let site = &mut recording.call_sites[0];
        site.label = "=HYPERLINK(\"x\"),1".into();
        site.threads = vec!["a;b".into(), "@sum".into()];
        let (head, lines) = read(&recording);
        assert_eq!(lines.len(), 1);
        let at = |name: &str| head.iter().position(|column| column == name).unwrap();
        assert_eq!(lines[0].len(), head.len());
        assert_eq!(lines[0][at("label")], "'=HYPERLINK(\"x\"),1");
        assert_eq!(lines[0][at("threads")], "a:b;'@sum");
        assert!(lines[0][at("function")].contains("\\x1b[2J"));
        assert_eq!(
            lines[0][at("stack")].split(';').count(),
            recording.call_sites[0].frames.len()
        );
    }
}
