//! Two recordings to what changed between them.

use std::collections::BTreeMap;

use crate::diagnose::difference::{self, Change, Pair, Side, Site};
use crate::report::model::diff::{
    DiffFigures, DiffModule, DiffReport, DiffSide, DiffSite, DiffStack, Measures,
};
use crate::report::model::{CallSite, Frame, Recording, SCHEMA_VERSION, SharedFrame, Tool};
use crate::report::stacks::{self, Stack, frame_name};

/// Why two recordings cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error(
        "cannot compare rates: the recording {which} has a window of {seconds} s. Give one that watched for a while"
    )]
    NoWindow { which: &'static str, seconds: f64 },
}

/// Compares them by call site. Fails where a window has no length.
pub fn diff(before: &Recording, after: &Recording) -> Result<DiffReport, DiffError> {
    for (which, recording) in [("before", before), ("after", after)] {
        let seconds = recording.window.duration_seconds;
        if !seconds.is_finite() || seconds <= 0.0 {
            return Err(DiffError::NoWindow { which, seconds });
        }
    }
    let sides = [side(before), side(after)];
    let pairs = difference::difference(&sides[0], &sides[1]);
    let stacks = [by_site(before), by_site(after)];
    let sites: Vec<DiffSite> = (1..)
        .zip(&pairs)
        .map(|(rank, pair)| site(rank, pair, [before, after], &stacks))
        .collect();
    let rebuilt = rebuilt(before, after);
    Ok(DiffReport {
        schema_version: SCHEMA_VERSION,
        tool: Tool {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        notes: notes(before, after, &sites, &rebuilt),
        before: side_of(before),
        after: side_of(after),
        sites,
        rebuilt,
    })
}

fn side(recording: &Recording) -> Side {
    Side {
        seconds: recording.window.duration_seconds,
        sites: recording.call_sites.iter().map(keys).collect(),
    }
}

/// What a call site is known by.
fn keys(site: &CallSite) -> Site {
    if let Some(arenas) = &site.arenas {
        // They have no stack that is theirs.
        return Site {
            code: Vec::new(),
            names: format!("\0{}", arenas.allocator),
            culprit: String::new(),
            live: site.live_bytes,
            held: site.held_bytes,
            standard_error: site.standard_error_bytes,
        };
    }
    let main = outward(site, &site.frames);
    let mut code: Vec<String> = match &site.stacks {
        Some(stacks) => stacks
            .iter()
            .filter_map(|stack| code(outward(site, &stack.frames)))
            .collect(),
        None => code(main).into_iter().collect(),
    };
    code.dedup();
    Site {
        code,
        // What came without a stack is one site too.
        names: match main {
            [] => stacks::NO_STACK.to_owned(),
            _ => main
                .iter()
                .map(|frame| name(frame))
                .collect::<Vec<_>>()
                .join("\n"),
        },
        culprit: site
            .culprit
            .as_ref()
            .and_then(|_| main.first())
            .map(|frame| name(frame))
            .unwrap_or_default(),
        live: site.live_bytes,
        held: site.held_bytes,
        standard_error: site.standard_error_bytes,
    }
}

/// From the culprit on: what is inside of it is the allocator's.
fn outward<'a>(site: &CallSite, frames: &'a [SharedFrame]) -> &'a [SharedFrame] {
    let Some(culprit) = &site.culprit else {
        return frames;
    };
    let at = frames
        .iter()
        .position(|frame| frame.function == culprit.function && frame.module == culprit.module)
        .or(culprit.frame)
        .unwrap_or(0);
    frames.get(at..).unwrap_or(frames)
}

/// `None` where a frame has no build or no offset: it cannot be found again.
fn code(frames: &[SharedFrame]) -> Option<String> {
    let places: Option<Vec<String>> = frames
        .iter()
        .map(|frame| Some(format!("{}:{:#x}", frame.build_id.as_ref()?, frame.offset?.0)))
        .collect();
    places
        .filter(|places| !places.is_empty())
        .map(|places| places.join("\n"))
}

/// Without a name the place is in a build, if that is known.
fn name(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or_default();
    match (&frame.function, &frame.build_id) {
        (Some(function), _) => format!("{function}\0{}", module.rsplit('/').next().unwrap_or(module)),
        (None, Some(build)) => format!("{}\0{build}", frame_name(frame)),
        (None, None) => format!("{}\0{module}", frame_name(frame)),
    }
}

fn by_site(recording: &Recording) -> Vec<Vec<Stack<'_>>> {
    let mut sites: Vec<Vec<Stack<'_>>> = vec![Vec::new(); recording.call_sites.len()];
    for stack in stacks::of(recording) {
        if let Some(site) = sites.get_mut(stack.site) {
            site.push(stack);
        }
    }
    sites
}

fn site(rank: u32, pair: &Pair, recordings: [&Recording; 2], stacks: &[Vec<Vec<Stack<'_>>>; 2]) -> DiffSite {
    let [before, after] = recordings;
    let was = pair.before.and_then(|index| before.call_sites.get(index));
    let is = pair.after.and_then(|index| after.call_sites.get(index));
    let figures = |site: &CallSite, rate| DiffFigures {
        rank: site.rank,
        bytes: if pair.by_held {
            site.held_bytes
        } else {
            site.live_bytes
        },
        rate_bytes_per_second: rate,
        standard_error_bytes: site.standard_error_bytes.filter(|_| !pair.by_held),
        evidence: site.evidence.clone(),
        blocks: site.allocations.as_ref().map(|allocations| allocations.blocks),
    };
    let [stacks_before, stacks_after] = stacks;
    // As it is now, where it is.
    let shown = is.or(was);
    DiffSite {
        rank,
        change: pair.change.name().to_owned(),
        matched_by: pair.matched.map(|matched| matched.name().to_owned()),
        measure: if pair.by_held { "held" } else { "live" }.to_owned(),
        label: shown.map(|site| site.label.to_string()).unwrap_or_default(),
        culprit: shown.and_then(|site| site.culprit.clone()),
        before: was.map(|site| figures(site, pair.rate_before)),
        after: is.map(|site| figures(site, pair.rate_after)),
        rate_change_bytes_per_second: pair.rate_after - pair.rate_before,
        rate_change_standard_error: pair.standard_error,
        beyond_error: pair.beyond_error,
        stacks: both(
            pair.before.and_then(|index| stacks_before.get(index)),
            pair.after.and_then(|index| stacks_after.get(index)),
        ),
    }
}

/// Stacks with the same names are one, whatever the build. Those of which nothing is told in both are left out.
fn both(before: Option<&Vec<Stack<'_>>>, after: Option<&Vec<Stack<'_>>>) -> Vec<DiffStack> {
    let mut rows: BTreeMap<(&str, Vec<String>), DiffStack> = BTreeMap::new();
    // Places are those of the later build.
    let sides = [(after, true), (before, false)];
    for (stack, is_after) in sides
        .into_iter()
        .flat_map(|(stacks, is_after)| stacks.into_iter().flatten().map(move |stack| (stack, is_after)))
        .filter(|(stack, _)| stack.bytes > 0 || told(&stack.measures))
    {
        let names = stack.frames.iter().map(|frame| frame_name(frame)).collect();
        let row = rows.entry((stack.comm, names)).or_insert_with(|| DiffStack {
            comm: stack.comm.to_owned(),
            before_bytes: 0,
            after_bytes: 0,
            before: None,
            after: None,
            frames: stack.frames.to_vec(),
        });
        let (sum, measures) = if is_after {
            (&mut row.after_bytes, &mut row.after)
        } else {
            (&mut row.before_bytes, &mut row.before)
        };
        *sum = sum.saturating_add(stack.bytes);
        *measures = Some(added(measures.unwrap_or_default(), stack.measures));
    }
    let mut rows: Vec<DiffStack> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.after_bytes, row.before_bytes)));
    rows
}

fn told(measures: &Measures) -> bool {
    let Measures {
        live_bytes,
        touched_bytes,
        blocks,
        held_bytes,
    } = *measures;
    [live_bytes, touched_bytes, blocks, held_bytes]
        .into_iter()
        .any(|figure| figure > Some(0))
}

/// As far as either is known.
fn added(a: Measures, b: Measures) -> Measures {
    let sum = |of: fn(&Measures) -> Option<u64>| match (of(&a), of(&b)) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    };
    Measures {
        live_bytes: sum(|it| it.live_bytes),
        touched_bytes: sum(|it| it.touched_bytes),
        blocks: sum(|it| it.blocks),
        held_bytes: sum(|it| it.held_bytes),
    }
}

fn side_of(recording: &Recording) -> DiffSide {
    let seconds = recording.window.duration_seconds;
    let anonymous = recording
        .reconciliation
        .as_ref()
        .map(|account| account.smaps_growth_bytes)
        .or(recording.growth.anonymous_bytes);
    let kept = recording
        .call_sites
        .iter()
        .filter_map(|site| site.live_bytes.or(site.held_bytes))
        .fold(0, u64::saturating_add);
    DiffSide {
        started_at: recording.window.started_at.clone(),
        duration_seconds: seconds,
        target: recording.target.clone(),
        verdict: recording.verdict.as_ref().map(|verdict| verdict.kind.clone()),
        anonymous_growth_bytes: anonymous,
        anonymous_rate_bytes_per_second: anonymous.map(|bytes| bytes as f64 / seconds),
        kept_bytes: kept,
        kept_rate_bytes_per_second: kept as f64 / seconds,
        call_sites: recording.call_sites.len() as u64,
        sampling_rate: recording.cost.sampling_rate,
        lost_events: recording.losses.events,
    }
}

/// Files, by name whatever their folder, that are in both with one build each, and not the same.
fn rebuilt(before: &Recording, after: &Recording) -> Vec<DiffModule> {
    let builds = |recording: &Recording| {
        let mut builds: BTreeMap<String, Option<String>> = BTreeMap::new();
        for stack in stacks::of(recording) {
            for frame in stack.frames {
                if let (Some(module), Some(build)) = (&frame.module, &frame.build_id) {
                    let file = module.rsplit('/').next().unwrap_or(module);
                    match builds.get_mut(file) {
                        None => {
                            builds.insert(file.to_owned(), Some(build.to_string()));
                        }
                        Some(one) if one.as_deref() != Some(build) => *one = None,
                        Some(_) => {}
                    }
                }
            }
        }
        builds
    };
    let after = builds(after);
    builds(before)
        .into_iter()
        .filter_map(|(module, before)| {
            let (before, after) = (before?, after.get(&module)?.clone()?);
            (before != after).then_some(DiffModule {
                module,
                build_id_before: before,
                build_id_after: after,
            })
        })
        .collect()
}

fn notes(before: &Recording, after: &Recording, sites: &[DiffSite], rebuilt: &[DiffModule]) -> Vec<String> {
    let mut notes = Vec::new();
    let name = |recording: &Recording| {
        let target = &recording.target;
        let name = target.exe.as_deref().unwrap_or(&target.comm);
        name.rsplit('/').next().unwrap_or(name).to_owned()
    };
    if name(before) != name(after) {
        notes.push(format!(
            "These are two programs: {} before, {} after.",
            name(before),
            name(after)
        ));
    }
    if !rebuilt.is_empty() {
        let files = match rebuilt {
            [file] => format!("{} is another build after: its", file.module),
            _ => format!("{} files are other builds after: their", rebuilt.len()),
        };
        notes.push(format!(
            "{files} call sites are matched by names, and one that was renamed went and appeared."
        ));
    }
    let keeps = |figures: &Option<DiffFigures>| figures.as_ref().is_some_and(|it| it.bytes > Some(0));
    let kept = |site: &&DiffSite| keeps(&site.before) || keeps(&site.after);
    let other = sites
        .iter()
        .filter(kept)
        .filter(|site| match (&site.before, &site.after) {
            (Some(before), Some(after)) => before.evidence != after.evidence,
            _ => false,
        })
        .count();
    if other > 0 {
        notes.push(format!(
            "Of {other} call sites the evidence is another after than before: their figures are not of one kind."
        ));
    }
    let held = sites.iter().filter(|site| site.measure == "held").count();
    if held > 0 {
        notes.push(format!(
            "Of {held} call sites the address space is compared, since not all of their live bytes are known."
        ));
    }
    for (which, recording) in [("before", before), ("after", after)] {
        if let Some(events) = recording.losses.events.filter(|events| *events > 0) {
            notes.push(format!(
                "{events} events were lost {which}: what they told of is missing there."
            ));
        }
        let cut = recording.losses.truncated_stacks.values();
        let cut = cut.fold(0, |sum: u64, count| sum.saturating_add(*count));
        if cut > 0 {
            notes.push(format!(
                "{cut} stacks were cut short {which}: a call site of theirs is matched by its culprit alone, or not at all."
            ));
        }
    }
    notes
}

/// How many sites changed so.
#[must_use]
pub fn count(report: &DiffReport, change: Change) -> usize {
    report
        .sites
        .iter()
        .filter(|site| site.change == change.name())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn find<'a>(report: &'a DiffReport, label: &str) -> &'a DiffSite {
        let mut found = report.sites.iter().filter(|site| site.label.starts_with(label));
        let site = found.next().unwrap();
        assert!(found.next().is_none(), "{label} is there twice");
        site
    }

    #[test]
    fn a_recording_with_itself_is_the_same() {
        for recording in [sample::full(), sample::sampled(), sample::survivors()] {
            let report = diff(&recording, &recording).unwrap();
            for site in &report.sites {
                let by = match site.label.as_str() {
                    "(no stack)" => "names",
                    _ => "code",
                };
                let found = (site.change.as_str(), site.matched_by.as_deref());
                assert_eq!(found, ("same", Some(by)), "{site:?}");
            }
            assert!(report.rebuilt.is_empty() && report.before == report.after);
        }
    }

    #[test]
    fn arenas_are_the_same_whoever_touched_them() {
        let before = sample::arenas();
        let mut after = before.clone();
        let site = &mut after.call_sites[0];
        let stacks = site.stacks.as_mut().unwrap();
        stacks.swap(0, 1);
        site.frames.clone_from(&stacks[0].frames);
        site.live_bytes = site.live_bytes.map(|live| 2 * live);
        let report = diff(&before, &after).unwrap();
        let site = find(&report, "pymalloc arenas");
        let found = (site.change.as_str(), site.matched_by.as_deref());
        assert_eq!(found, ("grew", Some("names")));
    }

    #[test]
    fn another_build_and_a_longer_window() {
        let (before, after) = sample::before_and_after();
        let report = diff(&before, &after).unwrap();
        assert_eq!(report.before.duration_seconds, 60.0);
        assert_eq!(report.after.duration_seconds, 120.0);
        assert_eq!(report.rebuilt.len(), 1);
        let upload = find(&report, "handle_upload");
        assert_eq!(
            (upload.change.as_str(), upload.matched_by.as_deref()),
            ("shrank", Some("names"))
        );
        // 700 MiB in 60 s, 350 MiB in 120 s.
        let rate = |bytes: u64, seconds: f64| bytes as f64 / seconds;
        let (was, is) = (upload.before.as_ref().unwrap(), upload.after.as_ref().unwrap());
        assert_eq!(was.rate_bytes_per_second, rate(700 << 20, 60.0));
        assert_eq!(is.rate_bytes_per_second, rate(350 << 20, 120.0));
        // Where it is now, and what it held in both.
        let stack = &upload.stacks[0];
        assert!(stack.frames[1].build_id.as_ref().unwrap().starts_with("0a54f1c8"));
        let live = |measures: Option<Measures>| measures.unwrap().live_bytes.unwrap();
        assert_eq!(live(stack.before) - live(stack.after), 350 << 20);
        let bytes = |side: fn(&DiffStack) -> u64| upload.stacks.iter().map(side).sum::<u64>();
        assert_eq!(bytes(|stack| stack.before_bytes), 700 << 20);
        assert_eq!(bytes(|stack| stack.after_bytes), 350 << 20);
        let table = find(&report, "Table::grow()");
        assert_eq!(
            (table.change.as_str(), &table.before, &table.matched_by),
            ("appeared", &None, &None)
        );
        assert_eq!(find(&report, "parse_header").change, "went");
        assert_eq!(*report.sites[0].label, *upload.label, "it changed most");
        assert!(
            report.notes.iter().any(|note| note.contains("another build")),
            "{:?}",
            report.notes
        );
    }

    #[test]
    fn no_window_is_one_line() {
        let mut nothing = sample::full();
        for seconds in [0.0, -1.0, f64::INFINITY] {
            nothing.window.duration_seconds = seconds;
            let error = diff(&sample::full(), &nothing).unwrap_err().to_string();
            assert!(error.contains("after has a window of"), "{error}");
        }
    }

    #[test]
    fn programs_evidence_and_losses_are_noted() {
        let mut other = sample::full();
        other.target.exe = Some("/usr/bin/other".to_owned());
        other.losses.events = Some(7);
        other.losses.truncated_stacks = [
            ("snapshot_capped".to_owned(), 2),
            ("no_unwind_info".to_owned(), 3),
        ]
        .into();
        other.call_sites[0].evidence = "survivors".to_owned();
        other.call_sites[2].live_bytes = None;
        let notes = diff(&sample::full(), &other).unwrap().notes.join("\n");
        for part in [
            "two programs",
            "Of 1 call sites the evidence",
            "Of 1 call sites the address space",
            "7 events were lost after",
            "9 stacks were cut short before",
            "5 stacks were cut short after",
        ] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }
}
