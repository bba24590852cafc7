//! The heap as its allocator has it: what is in use, what is free and yet kept, and of what size and type the blocks
//! are.

mod sizes;
mod tables;

use super::layout::{
    DIM, PLAIN, Page, STRONG, UNKNOWN, bytes, count, exact_bytes, known, left, right, seconds, signed,
    whole_percent,
};
use super::{Options, tail};
use crate::report::model::{FreeKind, Heap, HeapClass, HeapGrowth, HeapPicture, Recording};

/// Columns of the labels of the summary.
const LABEL: usize = 42;
/// The largest free chunks that are told.
const LARGEST: usize = 8;
/// The longest reason that is told, in columns.
const REASON: usize = 400;

/// The section of a recording. It is there when the census was asked for.
pub fn section(page: &mut Page, recording: &Recording, options: &Options) {
    let not_taken = not_taken(page, recording);
    let Some(heap) = &recording.heap else {
        if let Some(not_taken) = not_taken {
            page.heading("HEAP", "");
            page.paragraph(2, &not_taken, PLAIN);
        }
        return;
    };
    heading(page, heap);
    page.paragraph(2, &sentence(page, heap), PLAIN);
    if let Some(not_taken) = not_taken {
        let text = format!("How it grew is not known, for a census was {not_taken}");
        page.paragraph(2, &text, PLAIN);
    }
    summary(page, heap, options.verbose);
    tables::arenas(page, heap, options);
    tables::classes(page, heap, options);
}

/// Why there is no census, or one only.
pub fn not_taken(page: &Page, recording: &Recording) -> Option<String> {
    recording.heap_not_taken.as_ref().map(|why| {
        // It says at which end of the window, where it is known.
        let colon = if why.starts_with("at the window's ") {
            ""
        } else {
            ":"
        };
        format!("not taken{colon} {}", page.fit(why, REASON))
    })
}

/// The whole page of one picture.
pub fn picture(page: &mut Page, picture: &HeapPicture, options: &Options) {
    let heap = &picture.heap;
    let comm = page.fit(&picture.target.comm, 32);
    let at = page.fit(&picture.taken_at, 40);
    let about = format!("{comm}, PID {}, at {at}.", picture.target.pid);
    page.paragraph(0, &about, DIM);
    page.paragraph(0, &sentence(page, heap), STRONG);
    for note in &picture.notes {
        page.paragraph(0, &format!("Note: {}", page.fit(note, REASON)), PLAIN);
    }
    heading(page, heap);
    summary(page, heap, true);
    page.heading(
        "SIZES",
        "blocks by what was asked for, up to the next power of two",
    );
    sizes::histogram(page, heap);
    page.heading("BLOCKS", "by size and type; what holds most first");
    tables::classes(page, heap, options);
    if tables::worth_showing(heap, options) {
        page.heading("ARENAS", "the largest first");
        tables::arenas(page, heap, options);
    }
    tail::losses(page, &picture.losses, true);
}

fn heading(page: &mut Page, heap: &Heap) {
    let allocator = page.fit(&heap.allocator, 32);
    page.heading(
        "HEAP",
        &format!("{allocator}, read in {}", seconds(heap.took_seconds)),
    );
}

/// What there is to know of it in a breath.
pub fn sentence(page: &Page, heap: &Heap) -> String {
    match &heap.growth {
        Some(growth) => of_growth(page, heap, growth),
        None => of_picture(heap),
    }
}

fn of_picture(heap: &Heap) -> String {
    let (in_use, blocks) = in_use(heap);
    let mut text = format!("{} in use in {}", bytes(in_use), blocks_of(blocks));
    if heap.free_bytes == 0 {
        return text + "; nothing is free.";
    }
    let share = heap.free_bytes as f64 / in_use.saturating_add(heap.free_bytes) as f64;
    text.push_str(&format!(
        "; {} ({}) free, but kept: {} of it is fragmentation, on pages in use",
        bytes(heap.free_bytes),
        whole_percent(share),
        bytes(heap.fragmentation_bytes)
    ));
    match heap.trim_bytes {
        Some(0) => text.push_str("; malloc_trim(0) would give back nothing"),
        Some(trim) => text.push_str(&format!(
            "; malloc_trim(0) would give back {} at most",
            bytes(trim)
        )),
        None => {}
    }
    text.push('.');
    text
}

fn of_growth(page: &Page, heap: &Heap, growth: &HeapGrowth) -> String {
    let grown = growth.in_use_bytes.saturating_add(growth.mapped_bytes);
    let more = growth.in_use_count.saturating_add(growth.mapped_count);
    let (verb, amount) = match grown {
        0 => ("did not grow", String::new()),
        1.. => ("grew by ", bytes(grown.unsigned_abs())),
        _ => ("shrank by ", bytes(grown.unsigned_abs())),
    };
    let mut text = format!("Memory in use {verb}{amount}");
    if more != 0 {
        let which = if more > 0 { "more" } else { "fewer" };
        text.push_str(&format!(" ({} {which})", blocks_of(more.unsigned_abs())));
    }
    // A hundredth of the growth is the difference of two readings, not news.
    let worth = |kept: &i64| kept.unsigned_abs() > grown.unsigned_abs() / 100;
    match growth.kept_bytes.filter(worth) {
        Some(kept @ 1..) => text.push_str(&format!(
            "; {} more stay resident though free",
            bytes(kept.unsigned_abs())
        )),
        Some(kept) if kept < 0 => text.push_str(&format!(
            "; {} that was kept free is in use again or given back",
            bytes(kept.unsigned_abs())
        )),
        _ => {}
    }
    text.push('.');
    text + &first(page, heap, growth)
}

/// What grew most: many blocks of one size are the mark of a leak.
fn first(page: &Page, heap: &Heap, growth: &HeapGrowth) -> String {
    let class = heap
        .classes
        .first()
        .and_then(|class| Some((class, class.growth_count?, class.growth_bytes?)));
    let of_class = class.map_or(0, |(_, _, grown)| grown);
    if growth.mapped_bytes > of_class.max(0) {
        return format!(
            " First are blocks with a mapping of their own: {} more, {}.",
            count(growth.mapped_count.max(0).unsigned_abs()),
            bytes(growth.mapped_bytes.unsigned_abs())
        );
    }
    let Some((class, more, grown)) = class.filter(|(_, _, grown)| *grown > 0) else {
        return String::new();
    };
    let name = match label(page, class, 60) {
        name if name == UNKNOWN => String::new(),
        name => format!(" ({name})"),
    };
    format!(
        " First are blocks of {}{name}: {} more, {}.",
        exact_bytes(class.bytes),
        count(more.unsigned_abs()),
        bytes(grown.unsigned_abs())
    )
}

/// Bytes and blocks in use, those with a mapping of their own too.
fn in_use(heap: &Heap) -> (u64, u64) {
    (
        heap.in_use_bytes.saturating_add(heap.mapped_bytes),
        heap.in_use_count.saturating_add(heap.mapped_count),
    )
}

pub fn blocks_of(number: u64) -> String {
    format!(
        "{} {}",
        count(number),
        if number == 1 { "block" } else { "blocks" }
    )
}

/// What the blocks of a class are, as far as it was told.
pub fn label(page: &Page, class: &HeapClass, columns: usize) -> String {
    match (&class.type_name, &class.content) {
        // What they begin with is the address of something that is no vtable.
        (Some(name), _) if class.type_told_by.as_deref() == Some("constant") => {
            page.fit(&format!("&{name}"), columns)
        }
        (Some(name), _) => page.fit(name, columns),
        (None, Some(content)) => page.fit(&format!("[{content}]"), columns),
        (None, None) if class.mapped => "[mapped]".to_owned(),
        (None, None) => UNKNOWN.to_owned(),
    }
}

/// One line of the summary.
pub struct Row {
    pub indent: usize,
    pub label: &'static str,
    pub bytes: Option<u64>,
    pub blocks: Option<u64>,
    pub growth: Option<i64>,
    /// Left out where the terminal is to show little.
    detail: bool,
}

fn row(indent: usize, label: &'static str, bytes: Option<u64>) -> Row {
    Row {
        indent,
        label,
        bytes,
        blocks: None,
        growth: None,
        detail: false,
    }
}

const FREE: &str = "free, but kept";

/// The summary, line by line.
pub fn rows(heap: &Heap) -> Vec<Row> {
    let growth = heap.growth.as_ref();
    let (bytes_in_use, blocks_in_use) = in_use(heap);
    let kinds = kinds(heap);
    let free_blocks = kinds
        .iter()
        .fold(0u64, |sum, (_, kind)| sum.saturating_add(kind.count));
    let whole = heap.free_bytes.saturating_sub(heap.fragmentation_bytes);
    let gone = heap.free_pages_bytes.map(|there| whole.saturating_sub(there));
    let detail = |row: Row| Row { detail: true, ..row };
    let mut rows = vec![Row {
        blocks: Some(blocks_in_use),
        growth: growth.map(|it| it.in_use_bytes.saturating_add(it.mapped_bytes)),
        ..row(2, "in use", Some(bytes_in_use))
    }];
    if heap.mapped_count > 0 || growth.is_some_and(|it| it.mapped_bytes != 0) {
        rows.push(Row {
            blocks: Some(heap.mapped_count),
            growth: growth.map(|it| it.mapped_bytes),
            ..row(4, "with a mapping of their own", Some(heap.mapped_bytes))
        });
    }
    rows.push(Row {
        blocks: Some(free_blocks),
        growth: growth.map(|it| it.free_bytes),
        ..row(2, FREE, Some(heap.free_bytes))
    });
    rows.extend(kinds.map(|(label, kind)| Row {
        blocks: Some(kind.count),
        ..detail(row(4, label, Some(kind.bytes)))
    }));
    rows.extend([
        row(
            2,
            "free, on pages in use: fragmentation",
            Some(heap.fragmentation_bytes),
        ),
        Row {
            growth: growth.and_then(|it| it.free_pages_bytes),
            ..row(2, "free, in whole pages, resident", heap.free_pages_bytes)
        },
        row(4, "malloc_trim(0) gives back at most", heap.trim_bytes),
        detail(row(2, "free, in whole pages, not resident", gone)),
        detail(row(2, "headers and ends of the heaps", Some(heap.overhead_bytes))),
        Row {
            growth: growth.and_then(|it| it.resident_bytes),
            ..detail(row(2, "resident or swapped, of all arenas", heap.resident_bytes))
        },
    ]);
    rows
}

fn kinds(heap: &Heap) -> [(&'static str, FreeKind); 4] {
    [
        ("bins", heap.free_kinds.bins),
        ("top", heap.free_kinds.top),
        ("tcache", heap.free_kinds.tcache),
        ("fastbins", heap.free_kinds.fastbins),
    ]
}

/// The largest chunks in bins, where there are any.
pub fn largest(heap: &Heap) -> Option<String> {
    let largest: Vec<String> = heap
        .largest_free_bytes
        .iter()
        .take(LARGEST)
        .map(|size| bytes(*size))
        .collect();
    (!largest.is_empty()).then(|| format!("largest chunks in bins: {}", largest.join(", ")))
}

/// With `detail` each kind of free memory has a line, and so has what costs nothing.
fn summary(page: &mut Page, heap: &Heap, detail: bool) {
    let growth = heap.growth.as_ref();
    let mut head = format!("{}{}{}", left("", LABEL), right("bytes", 11), right("blocks", 11));
    if growth.is_some() {
        head.push_str(&right("growth", 13));
    }
    page.line(&page.paint(DIM, &head));
    for row in rows(heap).iter().filter(|row| detail || !row.detail) {
        line(page, growth, row);
        if row.label == FREE && !detail {
            let kinds = kinds(heap).map(|(name, kind)| format!("{name} {}", bytes(kind.bytes)));
            page.paragraph(4, &kinds.join(", "), DIM);
        }
    }
    if let Some(largest) = largest(heap).filter(|_| detail) {
        page.paragraph(2, &largest, PLAIN);
    }
}

fn line(page: &mut Page, growth: Option<&HeapGrowth>, row: &Row) {
    let style = if ["in use", FREE].contains(&row.label) {
        STRONG
    } else {
        PLAIN
    };
    let label = left(row.label, LABEL - row.indent);
    let mut line = format!("{}{}", " ".repeat(row.indent), page.paint(style, &label));
    line.push_str(&right(&known(row.bytes), 11));
    line.push_str(&right(&row.blocks.map(count).unwrap_or_default(), 11));
    if growth.is_some() {
        line.push_str(&right(&row.growth.map(signed).unwrap_or_default(), 13));
    }
    page.line(&line);
}

#[cfg(test)]
mod tests;
