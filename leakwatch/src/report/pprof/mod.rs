//! A recording as a pprof profile (`.pb.gz`), which `go tool pprof` and its kin open.
//!
//! A measure that no stack has is left out. One that some have is 0 at the others, since a profile has no other way to say
//! that it is not known; a comment says at how many.

mod diff;
mod profile;
mod tables;

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

pub use self::diff::write as write_diff;
use self::profile::{Profile, Sample};
use self::tables::Tables;
use super::model::diff::Measures;
use super::model::{CallSite, Recording};
use super::stacks::{self, Stack};

/// Writes the profile, compressed. The same recording gives the same bytes.
pub fn write(recording: &Recording, to: &mut dyn Write) -> io::Result<()> {
    compressed(&profile(recording), to)
}

fn compressed(profile: &Profile, to: &mut dyn Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(to, Compression::default());
    gzip.write_all(&profile.encode_to_vec())?;
    gzip.finish().map(drop)
}

/// What is measured at a stack; `None` where it is not known.
struct Measure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Measures) -> Option<u64>,
}

/// The first of them that there is, is what a reader shows first.
const MEASURES: [Measure; 4] = [
    Measure {
        name: "live_space",
        unit: "bytes",
        of: |it| it.live_bytes,
    },
    Measure {
        name: "touched_space",
        unit: "bytes",
        of: |it| it.touched_bytes,
    },
    Measure {
        name: "live_objects",
        unit: "count",
        of: |it| it.blocks,
    },
    Measure {
        name: "held_space",
        unit: "bytes",
        of: |it| it.held_bytes,
    },
];

fn profile(recording: &Recording) -> Profile {
    let stacks: Vec<_> = stacks::of(recording).collect();
    let known = |measure: &Measure| {
        stacks
            .iter()
            .filter(|stack| (measure.of)(&stack.measures).is_some())
            .count()
    };
    let measures: Vec<&Measure> = MEASURES.iter().filter(|measure| known(measure) > 0).collect();
    let mut tables = Tables::new(recording.target.exe.as_deref());
    let sample_type = measures
        .iter()
        .map(|measure| tables.value_type(measure.name, measure.unit))
        .collect();
    let sample = stacks
        .iter()
        .filter_map(|stack| {
            let site = recording.call_sites.get(stack.site)?;
            let value: Vec<i64> = measures
                .iter()
                .map(|measure| signed((measure.of)(&stack.measures).unwrap_or(0)))
                .collect();
            value
                .iter()
                .any(|value| *value != 0)
                .then(|| sample(&mut tables, stack, site, value))
        })
        .collect();
    let live = known(&MEASURES[0]);
    let unknown = (live > 0 && live < stacks.len()).then(|| {
        format!(
            "live_space is not known of {} of {} stacks, and 0 there",
            stacks.len() - live,
            stacks.len()
        )
    });
    let comment = comments(recording)
        .chain(unknown)
        .map(|text| tables.string(&text))
        .collect();
    let space = tables.value_type("space", "bytes");
    Profile {
        default_sample_type: measures.first().map_or(0, |measure| tables.string(measure.name)),
        sample_type,
        sample,
        time_nanos: nanos_since_1970(&recording.window.started_at),
        duration_nanos: nanos(recording.window.duration_seconds),
        period_type: Some(space),
        // One page in so many was seen.
        period: recording
            .cost
            .sampling_rate
            .filter(|rate| *rate > 0.0)
            .map_or(0, |rate| whole(recording.host.page_size_bytes as f64 / rate)),
        comment,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
    }
}

fn sample(tables: &mut Tables, stack: &Stack<'_>, site: &CallSite, value: Vec<i64>) -> Sample {
    let mut label = vec![
        tables.label("process", stack.comm),
        tables.label("evidence", &site.evidence),
        tables.label("call_site", &site.rank.to_string()),
    ];
    if let Some(pid) = stack.process {
        label.push(tables.label("pid", &pid.to_string()));
    }
    if !stack.complete {
        label.push(tables.label("stack", "truncated"));
    }
    Sample {
        location_id: tables.stack(stack.frames),
        value,
        label,
    }
}

/// The verdict, what was lost, and the notes, a line each.
fn comments(recording: &Recording) -> impl Iterator<Item = String> + '_ {
    let tool = &recording.tool;
    let target = &recording.target;
    let losses = &recording.losses;
    let lost = |what: &str, count: Option<u64>| {
        count
            .filter(|count| *count > 0)
            .map(|count| format!("lost: {count} {what}"))
    };
    let counted = |(name, count): (&String, &u64)| format!("lost: {count} {name}");
    let head = format!(
        "{} {}: {} (PID {}), {} s",
        tool.name, tool.version, target.comm, target.pid, recording.window.duration_seconds
    );
    let verdict = recording.verdict.as_ref().map(|verdict| verdict.summary.clone());
    [Some(head), verdict]
        .into_iter()
        .chain([
            lost("events", losses.events),
            lost("stacks", losses.stacks),
            lost("samples", losses.samples),
        ])
        .flatten()
        .chain(
            losses
                .truncated_stacks
                .iter()
                .map(move |(reason, count)| format!("lost: the rest of {count} stacks ({reason})")),
        )
        .chain(losses.counters.iter().map(counted))
        .chain(recording.notes.iter().cloned())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn nanos(seconds: f64) -> i64 {
    whole(seconds * 1e9)
}

/// The nearest number that there is.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates, and makes 0 of what is no number"
)]
fn whole(figure: f64) -> i64 {
    figure.round() as i64
}

/// 0 is absent to pprof too.
fn nanos_since_1970(at: &str) -> i64 {
    at.parse::<jiff::Timestamp>()
        .ok()
        .and_then(|at| i64::try_from(at.as_nanosecond()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
