//! Folded stacks: `comm;outermost;…;innermost bytes`, one line a stack, as flame graph tools read them.

use std::collections::{BTreeMap, BTreeSet};

use super::escape::escape;
use super::model::{CallSite, Frame, Recording};

/// Live bytes where they are known of every stack of a process, else held bytes: the stacks of one process have one
/// measure, and one that was gone at the end does not take the others' away. Stacks of 0 bytes are left out, equal
/// lines are summed.
#[must_use]
pub fn render(recording: &Recording) -> String {
    let stacks: Vec<_> = recording.call_sites.iter().flat_map(stacks).collect();
    let live_unknown: BTreeSet<Option<u32>> = stacks
        .iter()
        .filter(|stack| stack.live.is_none())
        .map(|stack| stack.process)
        .collect();
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks {
        let by_held = live_unknown.contains(&stack.process);
        let bytes = if by_held { stack.held } else { stack.live }.unwrap_or(0);
        if bytes == 0 {
            continue;
        }
        let comm = stack
            .process
            .and_then(|pid| {
                recording
                    .processes
                    .as_ref()?
                    .iter()
                    .find(|process| process.pid == pid)
            })
            .map_or(&recording.target.comm, |process| &process.comm);
        let mut line = name(comm);
        for frame in stack.frames.iter().rev() {
            line.push(';');
            line.push_str(&name(&frame_name(frame)));
        }
        if stack.frames.is_empty() {
            line.push_str(";(no stack)");
        }
        let sum = lines.entry(line).or_default();
        *sum = sum.saturating_add(bytes);
    }
    lines
        .into_iter()
        .map(|(line, bytes)| format!("{line} {bytes}\n"))
        .collect()
}

struct Stack<'a> {
    frames: &'a [Frame],
    live: Option<u64>,
    held: Option<u64>,
    process: Option<u32>,
}

fn stacks(site: &CallSite) -> Vec<Stack<'_>> {
    match &site.stacks {
        Some(stacks) => stacks
            .iter()
            .map(|row| Stack {
                frames: &row.frames,
                live: row.live_bytes,
                held: row.held_bytes,
                process: row.process,
            })
            .collect(),
        None => vec![Stack {
            frames: &site.frames,
            live: site.live_bytes,
            held: site.held_bytes,
            process: site.processes.first().copied(),
        }],
    }
}

/// The function, else the module and where the function begins (else the offset), else the address.
pub(super) fn frame_name(frame: &Frame) -> String {
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

/// `;` separates frames there, so a name cannot hold one.
fn name(text: &str) -> String {
    escape(text).replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn one_line_a_stack() {
        insta::assert_snapshot!("folded", render(&sample::full()));
    }

    #[test]
    fn a_process_that_was_gone_leaves_the_others_their_live_bytes() {
        let mut recording = sample::sampled();
        let text = render(&recording);
        assert!(
            text.contains("__memmove_avx_unaligned_erms 734003200\n"),
            "{text}"
        );
        assert!(
            text.contains("helper;helper_main;load_table 25165824\n"),
            "{text}"
        );
        // The same process: held bytes then, of which faults have none.
        for row in recording
            .call_sites
            .iter_mut()
            .flat_map(|site| &mut site.stacks)
            .flatten()
        {
            row.process = Some(4250);
        }
        assert!(!render(&recording).contains("__memmove_avx_unaligned_erms 734003200\n"));
    }

    #[test]
    fn hostile_names_stay_on_their_line() {
        let text = render(&sample::hostile());
        assert_eq!(text.lines().count(), 1);
        assert!(!text.trim_end().chars().any(char::is_control));
        let (stack, bytes) = text.trim_end().rsplit_once(' ').unwrap();
        assert!(bytes.parse::<u64>().is_ok());
        assert_eq!(
            stack.split(';').count(),
            1 + sample::hostile().call_sites[0].frames.len()
        );
    }
}
