//! What changed between two recordings: a line for each call site.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{field, figure, frames};
use crate::report::model::diff::{DiffFigures, DiffReport, DiffSite};

/// A column, and what stands in it.
type Column = (&'static str, fn(&DiffSite) -> String);

const COLUMNS: [Column; 22] = [
    ("rank", |site| site.rank.to_string()),
    ("change", |site| field(&site.change)),
    ("label", |site| field(&site.label)),
    ("module", |site| {
        let module = site.culprit.as_ref().and_then(|it| it.module.as_deref());
        field(module.unwrap_or_default())
    }),
    ("file", |site| {
        let file = site.culprit.as_ref().and_then(|it| it.file.as_deref());
        field(file.unwrap_or_default())
    }),
    ("line", |site| {
        figure(site.culprit.as_ref().and_then(|it| it.line))
    }),
    ("measure", |site| field(&site.measure)),
    ("before_bytes", |site| before(site, |it| it.bytes)),
    ("after_bytes", |site| after(site, |it| it.bytes)),
    ("before_bytes_per_second", |site| {
        before(site, |it| Some(it.rate_bytes_per_second))
    }),
    ("after_bytes_per_second", |site| {
        after(site, |it| Some(it.rate_bytes_per_second))
    }),
    ("change_bytes_per_second", |site| {
        site.rate_change_bytes_per_second.to_string()
    }),
    ("change_standard_error", |site| {
        figure(site.rate_change_standard_error)
    }),
    ("beyond_error", |site| site.beyond_error.to_string()),
    ("matched_by", |site| {
        site.matched_by.as_deref().map_or_else(String::new, field)
    }),
    ("before_rank", |site| before(site, |it| Some(it.rank))),
    ("after_rank", |site| after(site, |it| Some(it.rank))),
    ("before_evidence", |site| {
        before(site, |it| Some(field(&it.evidence)))
    }),
    ("after_evidence", |site| {
        after(site, |it| Some(field(&it.evidence)))
    }),
    ("before_blocks", |site| before(site, |it| it.blocks)),
    ("after_blocks", |site| after(site, |it| it.blocks)),
    ("stack", |site| {
        site.stacks
            .first()
            .map_or_else(String::new, |stack| frames(&stack.frames))
    }),
];

fn before<T: std::fmt::Display>(site: &DiffSite, of: impl Fn(&DiffFigures) -> Option<T>) -> String {
    figure(site.before.as_ref().and_then(of))
}

fn after<T: std::fmt::Display>(site: &DiffSite, of: impl Fn(&DiffFigures) -> Option<T>) -> String {
    figure(site.after.as_ref().and_then(of))
}

/// Writes a head and the call sites, those that changed most first.
pub fn write(report: &DiffReport, to: &mut dyn Write) -> io::Result<()> {
    write!(to, "{}\r\n", COLUMNS.map(|(name, _)| name).join(","))?;
    let mut line = String::new();
    for site in &report.sites {
        line.clear();
        for (index, (_, of)) in COLUMNS.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(line, "{comma}{}", of(site));
        }
        line.push_str("\r\n");
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{build, sample};

    fn read(report: &DiffReport) -> Vec<Vec<String>> {
        let mut file = Vec::new();
        write(report, &mut file).unwrap();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(&file[..]);
        let texts = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
        reader.records().map(|record| texts(record.unwrap())).collect()
    }

    #[test]
    fn a_line_for_each_site_and_nothing_for_the_side_where_it_is_not() {
        let (before, after) = sample::before_and_after();
        let report = build::diff::diff(&before, &after).unwrap();
        let lines = read(&report);
        assert_eq!(lines.len(), 1 + report.sites.len());
        let at = |name: &str| lines[0].iter().position(|column| column == name).unwrap();
        let table = lines
            .iter()
            .find(|line| line[at("label")] == "Table::grow()")
            .unwrap();
        for (column, value) in [
            ("change", "appeared"),
            ("before_bytes", ""),
            ("after_bytes", "62914560"),
            ("before_bytes_per_second", ""),
            ("after_bytes_per_second", "524288"),
            ("change_bytes_per_second", "524288"),
            ("matched_by", ""),
            ("stack", "Table::grow()"),
        ] {
            assert_eq!(table[at(column)], value, "{column}");
        }
    }

    #[test]
    fn hostile_names_stay_in_their_fields() {
        let lines = read(&sample::hostile_diff());
        assert!(lines.iter().all(|line| line.len() == COLUMNS.len()));
        assert!(
            !lines
                .iter()
                .flatten()
                .any(|field| field.chars().any(char::is_control))
        );
    }
}
