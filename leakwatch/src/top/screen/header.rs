//! Who is watched, how it stands so far, and memory over time.

use ratatui::layout::Rect;

use super::super::state::State;
use super::super::view::{Judged, View};
use super::paint::{Look, Painter, wrapped};
use crate::diagnose::figures;
use crate::report::model::EndedBy;

/// Of its second line.
const INDENT: u16 = 4;
/// Lines of the verdict.
const VERDICT_MOST: usize = 2;
/// Columns of the figures beside the chart.
const LABEL: u16 = 11;

/// How many lines it has.
#[must_use]
pub fn lines(width: u16, state: &State) -> u16 {
    let verdict = verdict_lines(state.view().verdict.as_ref(), width).len();
    4 + u16::try_from(verdict).unwrap_or(1)
}

fn verdict_lines(verdict: Option<&Judged>, width: u16) -> Vec<String> {
    let text = match verdict {
        None => "no verdict yet".to_owned(),
        Some(verdict) => verdict.summary.clone(),
    };
    let width = usize::from(width);
    let first = width.saturating_sub(prefix(verdict).len());
    wrapped(
        &text,
        first,
        width.saturating_sub(usize::from(INDENT)),
        VERDICT_MOST,
    )
}

fn prefix(verdict: Option<&Judged>) -> String {
    match verdict.map(|verdict| verdict.confidence) {
        None => "so far: ".to_owned(),
        Some(None) => "so far, by sizes: ".to_owned(),
        Some(Some(confidence)) => format!("so far, by sizes ({}): ", figures::whole_percent(confidence)),
    }
}

fn look_of(kind: &str) -> Look {
    match kind {
        "leak" => Look::Bad,
        "growth" | "retention" => Look::Warning,
        "flat" | "plateau" | "churn" => Look::Good,
        _ => Look::Strong,
    }
}

pub fn draw(state: &State, area: Rect, painter: &mut Painter<'_>) {
    if area.is_empty() {
        return;
    }
    title(state, area, painter);
    if area.height == 1 {
        return;
    }
    if !state.has_view() {
        painter.line(
            area,
            1,
            &[(
                "attaching: nothing is stopped, and nothing is seen yet",
                Look::Faint,
            )],
        );
        return;
    }
    let view = state.view();
    let verdict = view.verdict.as_ref();
    let prefix = prefix(verdict);
    let look = verdict.map_or(Look::Faint, |verdict| look_of(&verdict.kind));
    let mut from = painter.line(area, 1, &[(&prefix, Look::Faint)]);
    let mut row = 1;
    for line in verdict_lines(verdict, area.width) {
        let left = area.width.saturating_sub(from);
        painter.text(area, (from, row), left, &line, look);
        from = INDENT;
        row += 1;
    }
    row = row.max(2);
    painter.line(area, row, &[(&account(view), Look::Plain)]);
    painter.line(area, row + 1, &[(&evidence(view, area.width), Look::Faint)]);
    let (lost, look) = losses(view);
    let cost = cost(view);
    painter.line(
        area,
        row + 2,
        &[(&lost, look), ("  ", Look::Plain), (&cost, Look::Faint)],
    );
}

fn title(state: &State, area: Rect, painter: &mut Painter<'_>) {
    let about = &state.about;
    let watched = figures::duration(state.view().elapsed.floor());
    let watched = match (state.has_view(), about.ends_after) {
        (false, _) => String::new(),
        (true, Some(end)) => format!("{watched} of {}", figures::duration(end)),
        (true, None) => watched,
    };
    let (flag, look) = match state.ended {
        Some(EndedBy::TargetExit) => ("THE PROCESS HAS EXITED ", Look::Bad),
        Some(EndedBy::TargetExec) => ("THE PROCESS IS ANOTHER PROGRAM NOW ", Look::Bad),
        Some(_) => ("ENDED ", Look::Warning),
        None if state.paused => ("PAUSED ", Look::Warning),
        None => ("", Look::Plain),
    };
    let pid = format!(" PID {}  ", about.pid);
    let room = area
        .width
        .saturating_sub(15 + u16::try_from(pid.len() + flag.len()).unwrap_or(0));
    let mut at = painter.line(area, 0, &[("leakwatch top  ", Look::Strong)]);
    at = painter.text(area, (at, 0), room.clamp(4, 40), &about.comm, Look::Accent);
    at = painter.text(area, (at, 0), area.width.saturating_sub(at), &pid, Look::Plain);
    at = painter.text(area, (at, 0), area.width.saturating_sub(at), flag, look);
    painter.right(
        area,
        (area.width, 0),
        area.width.saturating_sub(at),
        &watched,
        Look::Plain,
    );
}

/// What has grown, and how much of that call sites hold.
fn account(view: &View) -> String {
    let held = figures::bytes(view.held_bytes);
    let held = if view.by_pages {
        format!("call sites hold {held}")
    } else {
        format!("call sites hold {held} of address space")
    };
    let rss = view
        .rss_bytes
        .map(|rss| format!(" (RSS {})", figures::bytes(rss)))
        .unwrap_or_default();
    match view.growth {
        None => format!("anonymous memory was not measured{rss}; {held}"),
        Some(growth) if growth > 0 && view.by_pages => {
            let part = figures::whole_percent(view.held_bytes as f64 / growth as f64);
            format!(
                "anonymous memory {}{rss}; {held}, {part} of it",
                figures::signed(growth)
            )
        }
        Some(growth) => format!("anonymous memory {}{rss}; {held}", figures::signed(growth)),
    }
}

/// What the ranking rests on.
fn evidence(view: &View, width: u16) -> String {
    let base = if view.by_pages {
        "by pages: who extended the heap"
    } else {
        "by mappings: who asked for address space"
    };
    let births = &view.births;
    if let Some(why) = &births.not_watched {
        return format!("{base}; births are not watched: {why}");
    }
    let blocks = &births.blocks;
    match (births.watched, births.checked) {
        (true, None) => format!("{base}; births decide at the end (no check yet)"),
        (true, Some(at)) if width >= 100 => format!(
            "{base}; births decide at the end (of {} blocks followed {} were in use at {})",
            blocks.followed,
            blocks.alive,
            figures::duration(at.as_secs_f64().round()),
        ),
        (true, Some(_)) => format!(
            "{base}; births decide at the end ({}/{} alive)",
            blocks.alive, blocks.followed
        ),
        (false, _) => base.to_owned(),
    }
}

fn losses(view: &View) -> (String, Look) {
    if view.losses.is_empty() {
        return ("lost: nothing".to_owned(), Look::Faint);
    }
    let lost: Vec<String> = view
        .losses
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    (format!("lost: {}", lost.join(", ")), Look::Warning)
}

fn cost(view: &View) -> String {
    let cost = &view.cost;
    let share = cost.processor.as_secs_f64() / view.elapsed.max(1.0);
    let sampled = match cost.sampling_rate {
        Some(rate) if rate < 1.0 => format!(", 1 page in {:.0}", 1.0 / rate.max(f64::MIN_POSITIVE)),
        _ => String::new(),
    };
    format!(
        "cost: {:.1} % of a CPU, {} events{sampled}, {} a view",
        share * 100.0,
        cost.events,
        figures::seconds(cost.snapshot.as_secs_f64())
    )
}

/// Anonymous memory over the window. The lowest bar stands on the least it was, unless that is little.
pub fn chart(state: &State, area: Rect, painter: &mut Painter<'_>) {
    let memory = &state.view().memory;
    let sizes = || memory.iter().map(|(_, bytes)| *bytes);
    let (Some(least), Some(most)) = (sizes().min(), sizes().max()) else {
        return;
    };
    if area.is_empty() || area.width <= LABEL + 4 {
        return;
    }
    let base = if least > most / 2 { least } else { 0 };
    let bars = Rect {
        x: area.x + LABEL,
        width: area.width - LABEL,
        ..area
    };
    // So that a level series is a line at the foot, and not nothing.
    let lift = (most - base) / 24 + 1;
    let values: Vec<u64> = resampled(memory, usize::from(bars.width))
        .into_iter()
        .map(|bytes| bytes - base + lift)
        .collect();
    painter.bars(bars, &values, Look::Accent);
    painter.right(
        area,
        (LABEL - 1, 0),
        LABEL - 1,
        &figures::bytes(most),
        Look::Faint,
    );
    painter.right(
        area,
        (LABEL - 1, area.height - 1),
        LABEL - 1,
        &figures::bytes(base),
        Look::Faint,
    );
}

/// One value for each column: the last one of its part of the time.
fn resampled(memory: &[(f64, u64)], columns: usize) -> Vec<u64> {
    let (Some(first), Some(last)) = (memory.first(), memory.last()) else {
        return Vec::new();
    };
    let span = last.0 - first.0;
    let columns = columns.min(memory.len()).max(1);
    let mut at = 0;
    let mut value = first.1;
    (1..=columns)
        .map(|column| {
            let until = first.0 + span * column as f64 / columns as f64;
            while let Some((time, bytes)) = memory.get(at)
                && (*time <= until || column == columns)
            {
                value = *bytes;
                at += 1;
            }
            value
        })
        .collect()
}
