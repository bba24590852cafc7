//! The stacks of a recording with their bytes: one source for every format that draws or lists stacks.

use std::collections::{BTreeMap, BTreeSet};

use super::escape::escape;
use super::model::diff::Measures;
use super::model::{CallSite, Frame, Recording, SharedFrame};

/// A stack, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// Index in `call_sites`.
    pub site: usize,
    pub process: Option<u32>,
    /// Of that process.
    pub comm: &'a str,
    /// Innermost first.
    pub frames: &'a [SharedFrame],
    pub complete: bool,
    pub measures: Measures,
    /// Live bytes where they are known of every stack of the process, else held bytes: the stacks of one process have one
    /// measure, and one that was gone at the end does not take the others' away.
    pub bytes: u64,
    /// Whether `bytes` are held and not live bytes.
    pub by_held: bool,
}

/// All of them, in the order of the ranking, those of 0 bytes too.
pub fn of(recording: &Recording) -> impl Iterator<Item = Stack<'_>> {
    // Gone through twice rather than kept: there may be many.
    let rows = || {
        let sites = recording.call_sites.iter().enumerate();
        sites.flat_map(|(index, site)| rows(index, site))
    };
    let live_unknown: BTreeSet<Option<u32>> = rows()
        .filter(|row| row.measures.live_bytes.is_none())
        .map(|row| row.process)
        .collect();
    let comms: BTreeMap<u32, &str> = recording
        .processes
        .iter()
        .flatten()
        .map(|process| (process.pid, process.comm.as_str()))
        .collect();
    rows().map(move |row| {
        let by_held = live_unknown.contains(&row.process);
        let measures = row.measures;
        let bytes = if by_held {
            measures.held_bytes
        } else {
            measures.live_bytes
        };
        Stack {
            site: row.site,
            process: row.process,
            comm: row
                .process
                .and_then(|pid| comms.get(&pid).copied())
                .unwrap_or(&recording.target.comm),
            frames: row.frames,
            complete: row.complete,
            measures,
            bytes: bytes.unwrap_or(0),
            by_held,
        }
    })
}

struct Row<'a> {
    site: usize,
    process: Option<u32>,
    frames: &'a [SharedFrame],
    complete: bool,
    measures: Measures,
}

fn rows(index: usize, site: &CallSite) -> impl Iterator<Item = Row<'_>> {
    // The site's own are told once.
    let measures = |first: bool, live: Option<u64>, held: Option<u64>| Measures {
        live_bytes: live,
        touched_bytes: site.touched_bytes.filter(|_| first),
        blocks: site
            .allocations
            .as_ref()
            .filter(|_| first)
            .map(|births| births.blocks),
        held_bytes: held,
    };
    let several = site
        .stacks
        .iter()
        .flatten()
        .enumerate()
        .map(move |(at, row)| Row {
            site: index,
            process: row.process,
            frames: &row.frames,
            complete: row.stack_complete,
            measures: measures(at == 0, row.live_bytes, row.held_bytes),
        });
    let one = site.stacks.is_none().then(|| Row {
        site: index,
        process: site.processes.first().copied(),
        frames: &site.frames,
        complete: site.stack_complete,
        measures: measures(true, site.live_bytes, site.held_bytes),
    });
    several.chain(one)
}

/// The function, else the module and where the function begins (else the offset), else the address. Not escaped.
#[must_use]
pub fn frame_name(frame: &Frame) -> String {
    if let Some(function) = &frame.function {
        return function.to_string();
    }
    let place = frame.function_start.or(frame.offset).or(frame.address);
    let place = place.unwrap_or_default().0;
    match &frame.module {
        Some(module) => format!("{}+{place:#x}", module.rsplit('/').next().unwrap_or(module)),
        None => format!("{place:#x}"),
    }
}

/// What stands where a stack has no frames.
pub const NO_STACK: &str = "(no stack)";

/// A name as readers of folded stacks take it for one: `;` separates frames there, a number after the last blank is a
/// count, blanks before it are nothing, and a line that begins with `# ` is a remark.
#[must_use]
pub fn folded_name(text: &str) -> String {
    let mut name = escape(text).replace(';', ":");
    // Before the count blanks are no part of the name: it would be another one where a stack ends.
    name.truncate(name.trim_end().len());
    if name.is_empty() {
        name.push('_');
    }
    if let Some((at, blank)) = name.char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        let after = at + blank.len_utf8();
        let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
        if name.get(after..).is_some_and(digits) {
            name.replace_range(at..after, "_");
        }
    }
    if name.starts_with("# ") {
        name.replace_range(1..2, "_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_stacks_of_a_site_add_up_to_it() {
        let recording = sample::full();
        let mut bytes = vec![0; recording.call_sites.len()];
        for stack in of(&recording) {
            assert!(!stack.by_held);
            bytes[stack.site] += stack.bytes;
        }
        let live: Vec<_> = recording
            .call_sites
            .iter()
            .map(|site| site.live_bytes.unwrap())
            .collect();
        assert_eq!(bytes, live);
    }

    #[test]
    fn each_process_has_its_own_measure_and_name() {
        for stack in of(&sample::sampled()) {
            assert_eq!(stack.by_held, stack.process == Some(4250), "{stack:?}");
            assert_eq!(stack.comm == "helper", stack.process == Some(4250), "{stack:?}");
        }
    }

    #[test]
    fn a_name_is_no_separator_no_count_and_no_remark() {
        for (name, folded) in [
            ("a;b", "a:b"),
            ("operator() 12", "operator()_12"),
            ("x 1 2.5 ", "x 1_2.5"),
            ("x \u{3000} ", "x"),
            ("x\u{a0}7", "x_7"),
            ("x y", "x y"),
            ("12", "12"),
            ("# x", "#_x"),
            ("#x", "#x"),
            ("", "_"),
            (" ", "_"),
        ] {
            assert_eq!(folded_name(name), folded, "{name}");
        }
    }
}
