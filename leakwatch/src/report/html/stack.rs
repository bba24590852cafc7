//! Stacks, frame by frame: the culprit and inlined frames marked, each with file and line.

use maud::{Markup, html};

use super::cells::{more, name, size};
use crate::report::escape::fit;
use crate::report::model::{CallSite, Frame, SharedFrame, StackRow};
use crate::report::stacks::frame_name;
use crate::report::text::sites::frame_place;

/// Frames of one stack.
const FRAMES: usize = 256;
/// Stacks of one row.
pub const STACKS: usize = 10;
/// Frames of a stack when the page's budget is spent.
const FEW: usize = 8;
const NAME: usize = 160;

/// Frames that the page may still have: a browser draws each.
pub struct Budget(pub usize);

impl Budget {
    fn take(&mut self, frames: usize) -> usize {
        let most = frames.min(FRAMES);
        let granted = if self.0 >= most { most } else { most.min(FEW) };
        self.0 = self.0.saturating_sub(granted);
        granted
    }
}

/// The stack that holds most, and the row's others.
pub fn stacks(site: &CallSite, budget: &mut Budget) -> Markup {
    let culprit = site.culprit.as_ref().and_then(|culprit| culprit.frame);
    let rows = site.stacks.as_deref().unwrap_or_default();
    if rows.len() < 2 {
        return html! { (frames(&site.frames, culprit, site.stack_complete, budget)) };
    }
    let shown = rows.len().min(STACKS);
    let rest = rows.get(shown..).unwrap_or_default();
    let sum = |of: fn(&StackRow) -> Option<u64>| rest.iter().filter_map(of).fold(0, u64::saturating_add);
    let (live, held) = (sum(|row| row.live_bytes), sum(|row| row.held_bytes));
    let sums = html! { ": " (size(live)) " live, " (size(held)) " held" };
    html! {
        @for (index, row) in rows.iter().take(shown).enumerate() {
            details.stack-row open[index == 0] {
                summary {
                    "stack " (index + 1) " of " (rows.len()) ": "
                    @if let Some(live) = row.live_bytes { (size(live)) " live" }
                    @else if let Some(held) = row.held_bytes { (size(held)) " held" }
                    @else { "unknown" }
                    ", " (name(&row.via, 20))
                    @if let Some(process) = row.process { ", PID " (process) }
                }
                // The culprit's place is known of the first stack.
                (frames(&row.frames, culprit.filter(|_| index == 0), row.stack_complete, budget))
            }
        }
        (more(rest.len(), "stacks in this row", &sums))
    }
}

/// One stack, innermost first; of an incomplete one that is said.
pub fn frames(frames: &[SharedFrame], culprit: Option<usize>, complete: bool, budget: &mut Budget) -> Markup {
    let shown = budget.take(frames.len());
    html! {
        @if !frames.is_empty() {
            ol.frames {
                @for (index, frame) in frames.iter().take(shown).enumerate() {
                    (one(frame, culprit == Some(index)))
                }
            }
        }
        @if shown < frames.len() { p.more { "… and " (frames.len() - shown) " more frames" } }
        @if !complete {
            p.remark {
                @if frames.is_empty() { "no stack" } @else { "the stack does not reach its root" }
            }
        }
    }
}

fn one(frame: &Frame, culprit: bool) -> Markup {
    let place = frame_place(frame, true);
    html! {
        li class=[class(frame, culprit)] {
            span.function { (name(&frame_name(frame), NAME)) }
            @if culprit { " " span.tag { "culprit" } }
            @if frame.inlined { " " span.tag { "inlined" } }
            @if !place.is_empty() {
                " " span.place title=(whole_place(frame)) { (name(&place, 60)) }
            }
        }
    }
}

fn class(frame: &Frame, culprit: bool) -> Option<&'static str> {
    match (culprit, frame.inlined) {
        (true, _) => Some("culprit"),
        (false, true) => Some("inlined"),
        (false, false) => None,
    }
}

/// With folders, module, offset and build ID: what another tool asks for.
fn whole_place(frame: &Frame) -> String {
    let mut parts = Vec::new();
    if let Some(file) = &frame.file {
        let file = fit(file, 300, "…");
        parts.push(
            frame
                .line
                .map_or_else(|| file.clone(), |line| format!("{file}:{line}")),
        );
    }
    if let Some(module) = &frame.module {
        let module = fit(module, 300, "…");
        parts.push(
            frame
                .offset
                .map_or_else(|| module.clone(), |offset| format!("{module}+{:#x}", offset.0)),
        );
    }
    if let Some(address) = frame.address {
        parts.push(format!("{:#x}", address.0));
    }
    if let Some(build_id) = &frame.build_id {
        parts.push(format!("build ID {}", fit(build_id, 80, "…")));
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_budget_is_spent_stacks_are_short_but_there() {
        let mut budget = Budget(300);
        assert_eq!(
            [20, 1000, 20, 3, 20].map(|frames| budget.take(frames)),
            [20, 256, 20, 3, 8]
        );
        assert_eq!(budget.0, 0);
        assert_eq!([20, 3].map(|frames| budget.take(frames)), [8, 3]);
    }
}
