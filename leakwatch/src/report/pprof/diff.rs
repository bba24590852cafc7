//! What changed between two recordings as a profile: what a stack gained more is above 0, what it gained less below.
//!
//! Readers of profiles have no notion of two windows. So the measure that is shown first is of rates, as everywhere in a
//! comparison; the others are those of a recording's own profile, after less before, as a reader that is given the two
//! profiles would reckon them.

use std::io::{self, Write};

use super::profile::{Profile, Sample};
use super::tables::Tables;
use super::{MEASURES, Measure, compressed, nanos, nanos_since_1970};
use crate::report::folded::per_hour;
use crate::report::model::diff::{DiffReport, DiffSide, DiffSite, DiffStack, Measures};

/// The measure of rates: live bytes an hour where they are known, else held ones.
const HOURLY: &str = "space_per_hour";

/// Writes the profile, compressed. The same comparison gives the same bytes.
pub fn write(report: &DiffReport, to: &mut dyn Write) -> io::Result<()> {
    compressed(&profile(report), to)
}

fn profile(report: &DiffReport) -> Profile {
    let stacks = || {
        let sites = report.sites.iter();
        sites.flat_map(|site| site.stacks.iter().map(move |stack| (site, stack)))
    };
    let sides = |stack: &DiffStack| [stack.before, stack.after].into_iter().flatten();
    let known = |measure: &Measure, side: &Measures| (measure.of)(side).is_some();
    let measures: Vec<&Measure> = MEASURES
        .iter()
        .filter(|measure| stacks().any(|(_, stack)| sides(stack).any(|side| known(measure, &side))))
        .collect();
    let mut tables = Tables::new(report.after.target.exe.as_deref());
    let mut sample_type = vec![tables.value_type(HOURLY, "bytes")];
    sample_type.extend(
        measures
            .iter()
            .map(|measure| tables.value_type(measure.name, measure.unit)),
    );
    let sample = stacks()
        .filter_map(|(site, stack)| {
            let [before, after] = per_hour(report, stack);
            let mut value = vec![change(Some(before), Some(after))];
            value.extend(measures.iter().map(|measure| {
                let of = |side: Option<Measures>| side.and_then(|side| (measure.of)(&side));
                change(of(stack.before), of(stack.after))
            }));
            // What is as it was says nothing.
            value
                .iter()
                .any(|value| *value != 0)
                .then(|| sample(&mut tables, site, stack, value))
        })
        .collect();
    let unknown = measures.iter().filter_map(|measure| {
        // Of what stands at one stack of a site it is no loss.
        let of_each = matches!(measure.name, "live_space" | "held_space");
        let unknown = stacks()
            .filter(|(_, stack)| of_each && sides(stack).any(|side| !known(measure, &side)))
            .count();
        (unknown > 0).then(|| format!("{} is not known of {unknown} stacks, and 0 there", measure.name))
    });
    let comment = comments(report)
        .into_iter()
        .chain(unknown)
        .map(|text| tables.string(&text))
        .collect();
    let space = tables.value_type("space", "bytes");
    Profile {
        default_sample_type: tables.string(HOURLY),
        sample_type,
        sample,
        time_nanos: nanos_since_1970(&report.after.started_at),
        duration_nanos: nanos(report.after.duration_seconds),
        period_type: Some(space),
        period: 0,
        comment,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
    }
}

/// What is not there, or not known, is 0: a profile has no other way to say so.
fn change(before: Option<u64>, after: Option<u64>) -> i64 {
    let change = i128::from(after.unwrap_or(0)) - i128::from(before.unwrap_or(0));
    i64::try_from(change).unwrap_or(if change < 0 { i64::MIN } else { i64::MAX })
}

fn sample(tables: &mut Tables, site: &DiffSite, stack: &DiffStack, value: Vec<i64>) -> Sample {
    let mut label = vec![
        tables.label("process", &stack.comm),
        tables.label("call_site", &site.rank.to_string()),
        tables.label("change", &site.change),
    ];
    if let Some(matched) = &site.matched_by {
        label.push(tables.label("matched_by", matched));
    }
    if let Some(figures) = site.after.as_ref().or(site.before.as_ref()) {
        label.push(tables.label("evidence", &figures.evidence));
    }
    Sample {
        location_id: tables.stack(&stack.frames),
        value,
        label,
    }
}

/// What is compared, what each was, and what limits the comparison, a line each.
fn comments(report: &DiffReport) -> Vec<String> {
    let side = |which: &str, side: &DiffSide| {
        let verdict = side.verdict.as_ref();
        let verdict = verdict.map_or_else(String::new, |kind| format!(": {kind}"));
        format!(
            "{which}: {} (PID {}), {} s from {}{verdict}",
            side.target.comm, side.target.pid, side.duration_seconds, side.started_at
        )
    };
    let mut comments = vec![
        format!(
            "{} {}: after less before; what grew is above 0, what shrank below",
            report.tool.name, report.tool.version
        ),
        side("before", &report.before),
        side("after", &report.after),
    ];
    if report.before.duration_seconds != report.after.duration_seconds {
        comments.push(format!(
            "the windows are not of one length: compare by {HOURLY}, which is by time"
        ));
    }
    comments.extend(report.notes.iter().cloned());
    comments
}
