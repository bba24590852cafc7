//! The ranked call sites with their stacks.

use unicode_width::UnicodeWidthStr;

use super::Options;
use super::arenas;
use super::births;
use super::columns::{Columns, space};
use super::layout::{BLAMED, DIM, PLAIN, Page, STRONG, bytes, left, seconds};
use crate::report::model::{CallSite, Frame, Recording};
use crate::report::stacks::frame_name;

/// Frames of a shortened stack: so many inside of the culprit, and so many outside of it.
const INSIDE: usize = 1;
const OUTSIDE: usize = 3;

/// What each evidence can and cannot say.
pub const EVIDENCE: &[(&str, &str)] = &[
    (
        "survivors",
        "Evidence is survivors: births of blocks were watched in short bursts, and the site has its part of what the heap \
         grew by, size by size, by the blocks of its that are still in use.",
    ),
    (
        "pages",
        "Evidence is pages: live is resident memory that the site was the first to touch in the window; kept is how \
         much that is of all it touched (near 100 % it stays, near 0 % it comes and goes). Where small allocations \
         share a heap the toucher may be a bystander. Memory that an allocator reuses without returning it to the \
         kernel causes no fault and does not show.",
    ),
    (
        "mappings",
        "Evidence is mappings: it names who extended the memory. That is the keeper of large allocations and direct \
         mappings; where small allocations share a heap it may be a bystander whose call came when the heap was full.",
    ),
];

pub fn section(page: &mut Page, recording: &Recording, options: &Options) {
    page.heading(
        "CALL SITES",
        "ranked by the bytes that they added in the window and still keep",
    );
    if recording.call_sites.is_empty() {
        page.paragraph(2, "none", PLAIN);
        return;
    }
    // What keeps nothing rests on nothing that needs a word.
    let keepers = || recording.call_sites.iter().filter(|site| weight(site) > 0);
    for (evidence, text) in EVIDENCE {
        if keepers().any(|site| site.evidence == *evidence) {
            page.paragraph(2, text, DIM);
        }
    }
    let touched = recording
        .call_sites
        .iter()
        .any(|site| site.touched_bytes.is_some());
    let (shown, rest): (Vec<_>, Vec<_>) = recording
        .call_sites
        .iter()
        .enumerate()
        .partition(|(index, site)| *index < options.top && weight(site) >= options.min_bytes);
    let shown: Vec<&CallSite> = shown.into_iter().map(|(_, site)| site).collect();
    let columns = Columns::of(page, &shown);
    let space_shown = columns.has_address_space() || options.verbose;
    if space_shown && shown.iter().any(|site| site.estimated) {
        page.paragraph(
            2,
            "~: estimated; to spare the target some calls came without their stacks, and are shared out among the sites.",
            DIM,
        );
    }
    if !shown.is_empty() {
        page.line(&page.paint(DIM, &columns.head(page)));
    }
    // One evidence for all is said above, and so is each by its column.
    let first = keepers().next().map(|site| &site.evidence);
    let mixed = !columns.has_evidence() && keepers().any(|site| Some(&site.evidence) != first);
    for site in shown {
        page.line(&page.paint(STRONG, &columns.row(page, site)));
        one(page, site, mixed, options);
    }
    if !rest.is_empty() {
        let live = rest
            .iter()
            .try_fold(0u64, |sum, (_, site)| Some(sum.saturating_add(site.live_bytes?)));
        let sum = |of: fn(&CallSite) -> Option<u64>| {
            let sum = rest
                .iter()
                .filter_map(|(_, site)| of(site))
                .fold(0, u64::saturating_add);
            bytes(sum)
        };
        let beside = if touched && live.is_some() {
            format!("{} touched", sum(|site| site.touched_bytes))
        } else {
            format!("{} held", sum(|site| site.held_bytes))
        };
        let live = live
            .map(|live| format!("{} live, ", bytes(live)))
            .unwrap_or_default();
        let text = format!("{} and {} more: {live}{beside}", page.ellipsis(), rest.len());
        page.paragraph(2, &text, PLAIN);
    }
}

/// What ranks it, bytes.
pub fn weight(site: &CallSite) -> u64 {
    site.live_bytes.or(site.held_bytes).unwrap_or(0)
}

/// What stands below the figures: the name and the stack.
fn one(page: &mut Page, site: &CallSite, mixed: bool, options: &Options) {
    let culprit = site.culprit.as_ref();
    let place = culprit
        .map(|culprit| source(culprit.file.as_deref(), culprit.line))
        .unwrap_or_default();
    let module = culprit
        .and_then(|culprit| culprit.module.as_deref())
        .map(base)
        .unwrap_or_default();
    let room = page.width - 5;
    let module = page.fit(module, room / 4);
    let place = page.fit(&place, room / 4);
    let mut about = String::new();
    for part in [
        place,
        if module.is_empty() || *module == *site.label {
            String::new()
        } else {
            format!("({module})")
        },
        if mixed {
            format!("[{}]", page.fit(&site.evidence, 9))
        } else {
            String::new()
        },
    ] {
        if !part.is_empty() {
            about.push_str("  ");
            about.push_str(&part);
        }
    }
    let label = page.fit(&site.label, room.saturating_sub(about.width()));
    page.line(&format!(
        "     {}{}",
        page.paint(BLAMED, &label),
        page.paint(DIM, &about)
    ));

    if let Some(blocks) = births::of_site(page, site, options.verbose) {
        page.paragraph(7, &blocks, PLAIN);
    }
    if let Some(told) = arenas::of_site(page, site) {
        page.paragraph(7, &format!("{told}."), PLAIN);
    }
    // How it came to keep nothing is of interest to few, and so are stacks that name nobody.
    let keeps = weight(site) > 0 || site.allocations.is_none();
    if keeps && site.arenas.is_none() || options.verbose {
        stack(page, site, options.verbose);
    }
    if options.verbose {
        page.paragraph(7, &history(site), DIM);
    }
    if options.verbose && !site.threads.is_empty() {
        let threads: Vec<String> = site
            .threads
            .iter()
            .take(16)
            .map(|name| page.fit(name, 64))
            .collect();
        page.paragraph(7, &format!("threads: {}", threads.join(", ")), DIM);
    }
}

/// Its address space, where it asked for any, and its times.
pub fn history(site: &CallSite) -> String {
    let mut text = match site.committed_bytes {
        Some(1..) => format!(
            "committed {}, released {}, held {}; ",
            space(site, site.committed_bytes),
            space(site, site.released_bytes),
            space(site, site.held_bytes),
        ),
        _ => String::new(),
    };
    text.push_str(&format!("{} events", site.events));
    if let (Some(first), Some(last)) = (site.first_seen_seconds, site.last_seen_seconds) {
        text.push_str(&format!(" from {} to {}", seconds(first), seconds(last)));
    }
    text
}

fn stack(page: &mut Page, site: &CallSite, whole: bool) {
    let blamed = site.culprit.as_ref().and_then(|culprit| culprit.frame);
    let middle = blamed.unwrap_or(0);
    let last = site.frames.len().saturating_sub(1);
    let shown =
        |index: usize| whole || index == last || (index + INSIDE >= middle && index <= middle + OUTSIDE);
    let mut hidden = 0;
    let places: Vec<String> = site
        .frames
        .iter()
        .map(|frame| frame_place(frame, whole))
        .collect();
    let visible = places.iter().enumerate().filter(|(index, _)| shown(*index));
    let widest = visible
        .map(|(_, place)| place.width())
        .max()
        .unwrap_or(0)
        .min((page.width - 9) / 3);
    for (index, (frame, place)) in site.frames.iter().zip(&places).enumerate() {
        // A gap of one frame costs the line that the frame would.
        let alone = !shown(index) && hidden == 0 && shown(index + 1);
        if !shown(index) && !alone {
            hidden += 1;
            continue;
        }
        gap(page, &mut hidden);
        one_frame(
            page,
            frame,
            &page.fit(place, widest),
            widest,
            blamed == Some(index),
        );
    }
    if !site.stack_complete {
        let what = if site.frames.is_empty() {
            "no stack"
        } else {
            "the stack does not reach its root"
        };
        page.paragraph(7, &format!("({what})"), DIM);
    }
    let others = site
        .stacks
        .as_ref()
        .map_or(0, |stacks| stacks.len().saturating_sub(1));
    if others > 0 {
        let plural = if others == 1 { "stack" } else { "stacks" };
        page.paragraph(7, &format!("(and {others} more {plural} in this row)"), DIM);
    }
}

fn gap(page: &mut Page, hidden: &mut usize) {
    if *hidden > 0 {
        let text = format!("{} {hidden} frames ({} shows them)", page.ellipsis(), page.more);
        page.paragraph(9, &text, DIM);
        *hidden = 0;
    }
}

/// Where a function has no name, the frame is called by the function's start; `exact` says where in it.
pub fn frame_place(frame: &Frame, exact: bool) -> String {
    let within = frame
        .offset
        .filter(|offset| exact && frame.function_start.is_some_and(|start| start != *offset));
    match (&frame.file, &frame.module) {
        (Some(file), _) => source(Some(file), frame.line),
        (None, Some(module)) => match within {
            Some(offset) => format!("{}+{:#x}", base(module), offset.0),
            None => base(module).to_owned(),
        },
        (None, None) => String::new(),
    }
}

/// `place` is fitted to `place_room` columns.
fn one_frame(page: &mut Page, frame: &Frame, place: &str, place_room: usize, blamed: bool) {
    let room = page.width - 9;
    let name = frame_name(frame);
    let name = if frame.inlined {
        format!("{name} (inlined)")
    } else {
        name
    };
    let name = page.fit(&name, room - place_room - 2);
    let name = left(&name, (room - place_room - 2).min(60));
    let (mark, style) = if blamed { (">", BLAMED) } else { (" ", PLAIN) };
    page.line(&format!(
        "       {} {}  {}",
        page.paint(style, mark),
        page.paint(style, &name),
        page.paint(DIM, place)
    ));
}

/// `file:line`, without folders.
pub fn source(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (None, _) => String::new(),
        (Some(file), None) => base(file).to_owned(),
        (Some(file), Some(line)) => format!("{}:{line}", base(file)),
    }
}

/// A path without its folders.
pub fn base(path: &str) -> &str {
    path.rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or(path)
}
