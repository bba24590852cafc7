//! Folded stacks: `comm;outermost;…;innermost bytes`, one line a stack, as flame graph tools read them.

use std::collections::BTreeMap;

use super::model::Recording;
use super::stacks::{self, NO_STACK, Stack, folded_name, frame_name};

/// One measure a process, as [`stacks::of`] says. Stacks of 0 bytes are left out, equal lines are summed.
#[must_use]
pub fn render(recording: &Recording) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks::of(recording) {
        if stack.bytes > 0 {
            let sum = lines.entry(line(&stack)).or_default();
            *sum = sum.saturating_add(stack.bytes);
        }
    }
    lines
        .into_iter()
        .map(|(line, bytes)| format!("{line} {bytes}\n"))
        .collect()
}

/// Without its bytes.
fn line(stack: &Stack<'_>) -> String {
    let mut line = folded_name(stack.comm);
    for frame in stack.frames.iter().rev() {
        line.push(';');
        line.push_str(&folded_name(&frame_name(frame)));
    }
    if stack.frames.is_empty() {
        line.push(';');
        line.push_str(NO_STACK);
    }
    line
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
