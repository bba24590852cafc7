//! Folded stacks: `comm;outermost;…;innermost bytes`, one line a stack, as flame graph tools read them.

use std::collections::BTreeMap;

use super::model::diff::{DiffReport, DiffStack};
use super::model::{Recording, SharedFrame};
use super::stacks::{self, NO_STACK, folded_name, frame_name};

/// One measure a process, as [`stacks::of`] says. Stacks of 0 bytes are left out, equal lines are summed.
#[must_use]
pub fn render(recording: &Recording) -> String {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for stack in stacks::of(recording) {
        if stack.bytes > 0 {
            let sum = lines.entry(line(stack.comm, stack.frames)).or_default();
            *sum = sum.saturating_add(stack.bytes);
        }
    }
    lines
        .into_iter()
        .map(|(line, bytes)| format!("{line} {bytes}\n"))
        .collect()
}

/// The form of `difffolded.pl`: a line has two counts, before and after, in bytes per hour of its window, since windows
/// differ in length. Stacks of which neither is a whole byte are left out, equal lines are summed.
#[must_use]
pub fn render_diff(report: &DiffReport) -> String {
    let mut lines: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for stack in report.sites.iter().flat_map(|site| &site.stacks) {
        let sums = lines.entry(line(&stack.comm, &stack.frames)).or_default();
        for (sum, rate) in sums.iter_mut().zip(per_hour(report, stack)) {
            *sum = sum.saturating_add(rate);
        }
    }
    lines
        .into_iter()
        .filter(|(_, rates)| *rates != [0, 0])
        .map(|(line, [before, after])| format!("{line} {before} {after}\n"))
        .collect()
}

/// Bytes per hour before and after, whole ones.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates; no rate is below 0"
)]
pub(super) fn per_hour(report: &DiffReport, stack: &DiffStack) -> [u64; 2] {
    let rate = |bytes: u64, seconds: f64| (bytes as f64 * (3600.0 / seconds)).round() as u64;
    [
        rate(stack.before_bytes, report.before.duration_seconds),
        rate(stack.after_bytes, report.after.duration_seconds),
    ]
}

/// Without its bytes.
fn line(comm: &str, frames: &[SharedFrame]) -> String {
    let mut line = folded_name(comm);
    for frame in frames.iter().rev() {
        line.push(';');
        line.push_str(&folded_name(&frame_name(frame)));
    }
    if frames.is_empty() {
        line.push(';');
        line.push_str(NO_STACK);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::{build, sample};
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
    fn two_rates_a_line() {
        let (before, after) = sample::before_and_after();
        let report = build::diff::diff(&before, &after).unwrap();
        let text = render_diff(&report);
        // 700 MiB in 60 s, and 350 MiB in 120 s, an hour.
        let expected = format!(
            "__memmove_avx_unaligned_erms {} {}\n",
            (700u64 * 60) << 20,
            (350u64 * 30) << 20
        );
        assert!(text.contains(&expected), "{text}");
        assert!(
            text.contains(&format!("server;Table::grow() 0 {}\n", (60u64 * 30) << 20)),
            "{text}"
        );
        let text = render_diff(&sample::hostile_diff());
        assert!(!text.replace('\n', "").chars().any(char::is_control));
        assert!(text.lines().all(|line| {
            let mut words = line.rsplit(' ');
            words.next().unwrap().parse::<u64>().is_ok() && words.next().unwrap().parse::<u64>().is_ok()
        }));
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
