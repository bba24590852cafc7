//! A recording as a pprof profile (`.pb.gz`), which `go tool pprof` and its kin open.
//!
//! A measure that no stack has is left out. One that some have is 0 at the others, since a profile has no other way to say
//! that it is not known; a comment says at how many.

mod profile;

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use self::profile::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use super::escape::escape;
use super::model::{CallSite, Recording, SharedFrame};
use super::stacks::{self, Stack, frame_name};

/// Writes the profile, compressed. The same recording gives the same bytes.
pub fn write(recording: &Recording, to: &mut dyn Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(to, Compression::default());
    gzip.write_all(&profile(recording).encode_to_vec())?;
    gzip.finish().map(drop)
}

/// What is measured at a stack; `None` where it is not known.
struct Measure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Stack<'_>, &CallSite) -> Option<u64>,
}

/// Those of a call site as a whole stand at the stack that holds most of it: its others end in other calls of the
/// allocator.
const MEASURES: [Measure; 4] = [
    Measure {
        name: "live_space",
        unit: "bytes",
        of: |stack, _| stack.live,
    },
    Measure {
        name: "touched_space",
        unit: "bytes",
        of: |stack, site| site.touched_bytes.filter(|_| stack.first),
    },
    Measure {
        name: "live_objects",
        unit: "count",
        of: |stack, site| {
            site.allocations
                .as_ref()
                .filter(|_| stack.first)
                .map(|it| it.blocks)
        },
    },
    Measure {
        name: "held_space",
        unit: "bytes",
        of: |stack, _| stack.held,
    },
];

fn profile(recording: &Recording) -> Profile {
    let stacks: Vec<_> = stacks::of(recording).collect();
    let known = |measure: &Measure| {
        let sites = &recording.call_sites;
        let known = |stack: &&Stack<'_>| {
            sites
                .get(stack.site)
                .is_some_and(|site| (measure.of)(stack, site).is_some())
        };
        stacks.iter().filter(known).count()
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
                .map(|measure| signed((measure.of)(stack, site).unwrap_or(0)))
                .collect();
            value
                .iter()
                .any(|value| *value != 0)
                .then(|| tables.sample(stack, site, value))
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

/// What a profile says once and refers to by number.
struct Tables {
    strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    mappings: Vec<Mapping>,
    /// By name and build ID.
    mapping_ids: HashMap<(i64, i64), u64>,
    functions: Vec<Function>,
    /// By name and file.
    function_ids: HashMap<(i64, i64), u64>,
    locations: Vec<Location>,
    /// By mapping, address and lines.
    location_ids: HashMap<(u64, u64, Vec<Line>), u64>,
}

impl Tables {
    fn new(exe: Option<&str>) -> Self {
        let mut tables = Self {
            strings: vec![String::new()],
            string_ids: [(String::new(), 0)].into(),
            mappings: Vec::new(),
            mapping_ids: HashMap::new(),
            functions: Vec::new(),
            function_ids: HashMap::new(),
            locations: Vec::new(),
            location_ids: HashMap::new(),
        };
        if let Some(exe) = exe {
            // The first mapping is the program. Its build ID comes with its first frame.
            tables.mapping(exe, None);
        }
        tables
    }

    /// Inert: readers print it to terminals.
    fn string(&mut self, text: &str) -> i64 {
        let text = escape(text);
        if let Some(id) = self.string_ids.get(&text) {
            return *id;
        }
        let id = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.push(text.clone());
        self.string_ids.insert(text, id);
        id
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    fn sample(&mut self, stack: &Stack<'_>, site: &CallSite, value: Vec<i64>) -> Sample {
        let mut location_id = Vec::new();
        // What was inlined, and the frame that it was inlined into, are one location.
        for physical in stack.frames.split_inclusive(|frame| !frame.inlined) {
            location_id.push(self.location(physical));
        }
        if stack.frames.is_empty() {
            let function = self.function(stacks::NO_STACK, None);
            location_id.push(self.place(
                0,
                0,
                vec![Line {
                    function_id: function,
                    line: 0,
                }],
            ));
        }
        let mut label = vec![
            self.label("process", stack.comm),
            self.label("evidence", &site.evidence),
            self.label("call_site", &site.rank.to_string()),
        ];
        if let Some(pid) = stack.process {
            label.push(self.label("pid", &pid.to_string()));
        }
        if !stack.complete {
            label.push(self.label("stack", "truncated"));
        }
        Sample {
            location_id,
            value,
            label,
        }
    }

    fn label(&mut self, key: &str, text: &str) -> Label {
        Label {
            key: self.string(key),
            str: self.string(text),
        }
    }

    fn location(&mut self, physical: &[SharedFrame]) -> u64 {
        // The last is the function that is there; all have its address.
        let Some(outer) = physical.last() else { return 0 };
        let mapping = outer
            .module
            .as_deref()
            .map_or(0, |module| self.mapping(module, outer.build_id.as_deref()));
        let address = outer.offset.or(outer.address).unwrap_or_default().0;
        let lines = physical
            .iter()
            .map(|frame| Line {
                function_id: self.function(&frame_name(frame), frame.file.as_deref()),
                line: frame.line.map_or(0, i64::from),
            })
            .collect();
        if let Some(mapping) = self.at(mapping) {
            mapping.has_filenames |= physical.iter().any(|frame| frame.file.is_some());
            mapping.has_line_numbers |= physical.iter().any(|frame| frame.line.is_some());
            mapping.has_inline_frames |= physical.len() > 1;
        }
        self.place(mapping, address, lines)
    }

    fn place(&mut self, mapping_id: u64, address: u64, line: Vec<Line>) -> u64 {
        let next = self.locations.len() as u64 + 1;
        let id = *self
            .location_ids
            .entry((mapping_id, address, line.clone()))
            .or_insert(next);
        if id == next {
            self.locations.push(Location {
                id,
                mapping_id,
                address,
                line,
            });
        }
        id
    }

    fn function(&mut self, name: &str, file: Option<&str>) -> u64 {
        let key = (self.string(name), file.map_or(0, |file| self.string(file)));
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_ids.entry(key).or_insert(next);
        if id == next {
            self.functions.push(Function {
                id,
                name: key.0,
                system_name: 0,
                filename: key.1,
            });
        }
        id
    }

    /// A recording has addresses as the ELF file counts them, wherever it was loaded. A mapping of everything from 0 says
    /// so: pprof takes the addresses in it as adjusted already, and finds them in a local copy of the file.
    fn mapping(&mut self, module: &str, build_id: Option<&str>) -> u64 {
        let filename = self.string(module);
        let build_id = build_id.map_or(0, |id| self.string(id));
        if let Some(id) = self.mapping_ids.get(&(filename, build_id)) {
            return *id;
        }
        // The program itself, now with a build ID.
        if build_id != 0
            && let Some(id) = self.mapping_ids.remove(&(filename, 0))
        {
            if let Some(mapping) = self.at(id) {
                mapping.build_id = build_id;
            }
            self.mapping_ids.insert((filename, build_id), id);
            return id;
        }
        let id = self.mappings.len() as u64 + 1;
        self.mapping_ids.insert((filename, build_id), id);
        self.mappings.push(Mapping {
            id,
            memory_start: 0,
            memory_limit: u64::MAX,
            file_offset: 0,
            filename,
            build_id,
            // A name for each frame, if only where its function begins: a reader need not look for others.
            has_functions: true,
            has_filenames: false,
            has_line_numbers: false,
            has_inline_frames: false,
        });
        id
    }

    fn at(&mut self, mapping: u64) -> Option<&mut Mapping> {
        let index = usize::try_from(mapping.checked_sub(1)?).ok()?;
        self.mappings.get_mut(index)
    }
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
