//! Of the profile's parts. That pprof itself reads it, with the same names and bytes, the live tests say.

use std::io::Read;

use super::super::model::SiteAllocations;
use super::super::model::diff::DiffReport;
use super::super::stacks::frame_name;
use super::super::{build, folded, sample};
use super::*;

/// As a reader sees it: out of the file's bytes.
fn read(recording: &Recording) -> Profile {
    let mut file = Vec::new();
    write(recording, &mut file).unwrap();
    decoded(&file)
}

fn read_diff(report: &DiffReport) -> Profile {
    let mut file = Vec::new();
    write_diff(report, &mut file).unwrap();
    decoded(&file)
}

fn decoded(file: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .unwrap();
    Profile::decode(&bytes[..]).unwrap()
}

impl Profile {
    fn text(&self, index: i64) -> &str {
        &self.string_table[usize::try_from(index).unwrap()]
    }

    fn types(&self) -> Vec<(&str, &str)> {
        self.sample_type
            .iter()
            .map(|kind| (self.text(kind.r#type), self.text(kind.unit)))
            .collect()
    }

    fn sum(&self, measure: &str) -> i64 {
        let at = self
            .types()
            .iter()
            .position(|(name, _)| *name == measure)
            .unwrap();
        self.sample.iter().map(|sample| sample.value[at]).sum()
    }

    fn names(&self, sample: &Sample) -> Vec<&str> {
        sample
            .location_id
            .iter()
            .flat_map(|id| &self.location[usize::try_from(*id).unwrap() - 1].line)
            .map(|line| {
                let function = &self.function[usize::try_from(line.function_id).unwrap() - 1];
                assert_eq!(function.id, line.function_id);
                self.text(function.name)
            })
            .collect()
    }

    fn labels(&self, sample: &Sample) -> Vec<(&str, &str)> {
        sample
            .label
            .iter()
            .map(|label| (self.text(label.key), self.text(label.str)))
            .collect()
    }
}

#[test]
fn bytes_names_and_places_are_the_recordings() {
    let recording = sample::full();
    let profile = read(&recording);
    assert_eq!(
        profile.types(),
        [
            ("live_space", "bytes"),
            ("touched_space", "bytes"),
            ("held_space", "bytes")
        ]
    );
    let sum = |of: fn(&CallSite) -> Option<u64>| {
        let sum: u64 = recording.call_sites.iter().filter_map(of).sum();
        i64::try_from(sum).unwrap()
    };
    assert_eq!(profile.sum("live_space"), sum(|site| site.live_bytes));
    assert_eq!(profile.sum("touched_space"), sum(|site| site.touched_bytes));
    assert_eq!(profile.sum("held_space"), sum(|site| site.held_bytes));
    let first = &profile.sample[0];
    assert_eq!(first.value, [700 << 20, 712 << 20, 0]);
    let frames = &recording.call_sites[0].frames;
    let names: Vec<_> = frames.iter().map(|frame| frame_name(frame)).collect();
    assert_eq!(profile.names(first), names);
    assert_eq!(
        profile.labels(first),
        [
            ("process", "server"),
            ("evidence", "pages"),
            ("call_site", "1"),
            ("pid", "4242")
        ]
    );
    let location = &profile.location[usize::try_from(first.location_id[1]).unwrap() - 1];
    assert_eq!(location.address, 0x1234);
    assert_eq!(location.line[0].line, 123);
    let mapping = &profile.mapping[usize::try_from(location.mapping_id).unwrap() - 1];
    assert_eq!(mapping.id, 1, "the program is the first mapping");
    assert_eq!(profile.text(mapping.filename), "/srv/app/bin/server");
    assert_eq!(
        profile.text(mapping.build_id),
        "9fdb74e7b217d06c93172a8243f8547f947ee6d1"
    );
    assert!(mapping.has_functions && mapping.has_filenames && mapping.has_line_numbers);
    assert_eq!((mapping.memory_start, mapping.memory_limit), (0, u64::MAX));
    assert!(
        profile
            .sample
            .iter()
            .any(|sample| profile.names(sample) == [stacks::NO_STACK])
    );
    assert_eq!(profile.string_table[0], "");
}

#[test]
fn time_period_and_comments() {
    let profile = read(&sample::sampled());
    assert_eq!(profile.time_nanos, 1_767_323_045_000_000_000);
    assert_eq!(profile.duration_nanos, 60_000_000_000);
    assert_eq!(profile.period, 64 * 4096);
    assert_eq!(profile.text(profile.default_sample_type), "live_space");
    let comments: Vec<_> = profile.comment.iter().map(|at| profile.text(*at)).collect();
    let verdict = sample::sampled().verdict.unwrap().summary;
    for expected in [
        "leakwatch 0.1.0: server (PID 4242), 60 s",
        verdict.as_str(),
        "lost: 3 stacks",
        "lost: 12 samples",
        "lost: the rest of 9 stacks (snapshot_capped)",
        "lost: 2 mappings_repaired",
        "The target ran in another mount namespace.",
        "live_space is not known of 1 of 5 stacks, and 0 there",
    ] {
        assert!(comments.contains(&expected), "{expected:?} in {comments:#?}");
    }
}

#[test]
fn what_no_stack_has_is_left_out_and_what_one_has_is_there() {
    let mut recording = sample::mappings_only();
    assert_eq!(
        read(&recording).types(),
        [("live_space", "bytes"), ("held_space", "bytes")]
    );
    let site = &mut recording.call_sites[0];
    site.live_bytes = None;
    site.stacks = None;
    site.allocations = Some(Box::new(SiteAllocations {
        blocks: 17,
        ..SiteAllocations::default()
    }));
    let profile = read(&recording);
    assert_eq!(
        profile.types(),
        [("live_objects", "count"), ("held_space", "bytes")]
    );
    assert_eq!(profile.sum("live_objects"), 17);
    assert_eq!(read(&sample::empty()).types(), []);
    assert_eq!(read(&sample::empty()).sample, []);
}

#[test]
fn what_was_inlined_shares_its_callers_place() {
    let mut recording = sample::full();
    let site = &mut recording.call_sites[0];
    site.stacks = None;
    site.frames[1].inlined = true;
    let names: Vec<_> = site.frames.iter().map(|frame| frame_name(frame)).collect();
    let profile = read(&recording);
    let first = &profile.sample[0];
    assert_eq!(first.location_id.len(), names.len() - 1);
    assert_eq!(profile.names(first), names);
    assert!(profile.mapping[0].has_inline_frames);
}

#[test]
fn hostile_names_are_text_and_figures_stay_figures() {
    let mut recording = sample::hostile();
    recording.window.duration_seconds = 1e300;
    recording.cost.sampling_rate = Some(f64::MIN_POSITIVE);
    recording.call_sites[0].live_bytes = Some(u64::MAX);
    recording.call_sites[0].stacks = None;
    recording.call_sites[0].frames[0].inlined = true;
    let profile = read(&recording);
    assert_eq!(profile.time_nanos, 0);
    assert_eq!(profile.duration_nanos, i64::MAX);
    assert_eq!(profile.period, i64::MAX);
    assert_eq!(profile.sum("live_space"), i64::MAX);
    assert!(
        profile
            .string_table
            .iter()
            .all(|text| !text.chars().any(char::is_control))
    );
    let mut strings = profile.string_table.clone();
    strings.sort();
    strings.dedup();
    assert_eq!(strings.len(), profile.string_table.len());
    let names = profile.names(&profile.sample[0]);
    assert_eq!(names.len(), recording.call_sites[0].frames.len());
    assert!(names[0].contains("<script>alert(1)</script>") && names[0].contains("\\x1b[2J"));
    assert_eq!(names[1].chars().count(), 64 << 10);
    assert!(names[2].contains("\\xff\\xfe\\x1b]0;x\\x07"), "{}", names[2]);
}

#[test]
fn what_grew_is_above_0_and_what_shrank_below() {
    let (before, after) = sample::before_and_after();
    let report = build::diff::diff(&before, &after).unwrap();
    let profile = read_diff(&report);
    assert_eq!(
        profile.types(),
        [
            ("space_per_hour", "bytes"),
            ("live_space", "bytes"),
            ("touched_space", "bytes"),
            ("held_space", "bytes")
        ]
    );
    assert_eq!(profile.text(profile.default_sample_type), "space_per_hour");
    // After less before, as the two profiles have it.
    let (was, is) = (read(&before), read(&after));
    for measure in ["live_space", "touched_space", "held_space"] {
        assert_eq!(
            profile.sum(measure),
            is.sum(measure) - was.sum(measure),
            "{measure}"
        );
    }
    // And as the folded stacks have it.
    let hourly = folded::render_diff(&report).lines().fold(0, |sum, line| {
        let mut words = line.rsplit(' ').map(|word| word.parse::<i64>().unwrap());
        let (after, before) = (words.next().unwrap(), words.next().unwrap());
        sum + after - before
    });
    assert_eq!(profile.sum("space_per_hour"), hourly);
    let of = |name: &str| {
        let through = |sample: &&Sample| profile.names(sample).contains(&name);
        let found: Vec<_> = profile.sample.iter().filter(through).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0]
    };
    // 60 MiB in 120 s that were not there; 1 MiB in 60 s that went; half as many bytes in twice the time.
    assert_eq!(of("Table::grow()").value[..2], [(60 * 30) << 20, 60 << 20]);
    assert_eq!(of("parse_header").value[..2], [-(60 << 20), -(1 << 20)]);
    let upload = of("__memmove_avx_unaligned_erms");
    assert_eq!(upload.value[..2], [(350 * 30 - 700 * 60) << 20, -(350 << 20)]);
    assert_eq!(
        profile.labels(upload),
        [
            ("process", "server"),
            ("call_site", "1"),
            ("change", "shrank"),
            ("matched_by", "names"),
            ("evidence", "pages")
        ]
    );
    // Where it is now.
    let location = &profile.location[usize::try_from(upload.location_id[1]).unwrap() - 1];
    let mapping = &profile.mapping[usize::try_from(location.mapping_id).unwrap() - 1];
    assert_eq!(
        profile.text(mapping.build_id),
        "0a54f1c8c7dd7b2de4a3a3c53d0b8b2a11b7ba1b"
    );
    let comments: Vec<_> = profile.comment.iter().map(|at| profile.text(*at)).collect();
    for expected in [
        "before: server (PID 4242), 60 s from 2026-01-02T03:04:05Z: leak",
        "after: server (PID 5151), 120 s from 2026-01-03T03:04:05Z",
        "the windows are not of one length: compare by space_per_hour, which is by time",
        report.notes[0].as_str(),
    ] {
        assert!(comments.contains(&expected), "{expected:?} in {comments:#?}");
    }
}

#[test]
fn a_recording_with_itself_has_no_samples() {
    for recording in [sample::full(), sample::sampled(), sample::survivors()] {
        let report = build::diff::diff(&recording, &recording).unwrap();
        assert_eq!(read_diff(&report).sample, []);
        assert!(!report.sites.is_empty());
    }
    let nothing = build::diff::diff(&sample::empty(), &sample::empty()).unwrap();
    assert_eq!(read_diff(&nothing).types(), [("space_per_hour", "bytes")]);
}

#[test]
fn differences_of_hostile_figures_and_names_are_figures_and_text() {
    let mut before = sample::hostile();
    before.call_sites[0].live_bytes = Some(u64::MAX);
    before.call_sites[0].held_bytes = Some(u64::MAX);
    before.call_sites[0].stacks = None;
    before.window.duration_seconds = f64::MIN_POSITIVE;
    let report = build::diff::diff(&before, &sample::full()).unwrap();
    let profile = read_diff(&report);
    assert!(
        profile
            .sample
            .iter()
            .any(|sample| sample.value[..2] == [i64::MIN, i64::MIN]),
        "{:?}",
        profile.sample
    );
    for text in read_diff(&sample::hostile_diff())
        .string_table
        .iter()
        .chain(&profile.string_table)
    {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
