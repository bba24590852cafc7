//! The heap's blocks by class, and its arenas.

use std::cmp::Reverse;

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use super::super::Options;
use super::super::layout::{
    BLAMED, DIM, PLAIN, Page, UNKNOWN, bytes, count, exact_bytes, left, percent, right, signed, signed_count,
};
use super::{blocks_of, label};
use crate::report::model::{Heap, HeapArena, HeapClass};

/// From here on the classes have a further column, and from here on the arenas.
const WIDE: usize = 120;
const WIDEST: usize = 140;
/// Without `-v` classes that have less than this part of the growth are summed.
const SMALL_SHARE: f64 = 0.01;
/// The longest name of a type that is shown, in columns.
const NAME: usize = 400;
/// Arenas that are shown without `-v`.
const ARENAS: usize = 4;

/// The classes: with growth those that grew, else those that hold most.
pub fn classes(page: &mut Page, heap: &Heap, options: &Options) {
    match heap.growth {
        Some(_) => grown(page, heap, options),
        None => holding(page, heap, options),
    }
    if heap.mapped_without_size > 0 {
        let text = format!(
            "{} of the large blocks are known by number alone, and in no row",
            count(heap.mapped_without_size)
        );
        page.paragraph(2, &text, DIM);
    }
}

fn grown(page: &mut Page, heap: &Heap, options: &Options) {
    let growth = |class: &HeapClass| class.growth_bytes.unwrap_or(0);
    let changed: Vec<&HeapClass> = heap.classes.iter().filter(|class| growth(class) != 0).collect();
    let sum = |classes: &[&HeapClass], grew: bool| {
        classes
            .iter()
            .map(|class| growth(class))
            .filter(|growth| (*growth > 0) == grew)
            .fold(0i64, i64::saturating_add)
    };
    let total = sum(&changed, true) as f64;
    let shown = changed
        .iter()
        .take(options.top)
        .take_while(|class| options.verbose || growth(class) as f64 > total * SMALL_SHARE)
        .count();
    let (shown, rest) = changed.split_at(shown);
    if shown.is_empty() && rest.is_empty() {
        page.paragraph(2, "no class of blocks grew or shrank", PLAIN);
        return;
    }
    let wide = page.width >= WIDE;
    if !shown.is_empty() {
        let mut head = format!(
            "{}{}{}{}{}",
            right("size", 11),
            right("blocks", 9),
            right("growth", 9),
            right("in use", 12),
            right("growth", 13)
        );
        if wide {
            head.push_str(&right("free", 9));
        }
        page.line(&page.paint(DIM, &format!("{head}  type")));
    }
    for (index, class) in shown.iter().enumerate() {
        let mut figures = format!(
            "{}{}{}{}{}",
            right(&exact_bytes(class.bytes), 11),
            right(&count(class.count), 9),
            right(&signed_count(class.growth_count.unwrap_or(0)), 9),
            right(&bytes(class.in_use_bytes), 12),
            right(&signed(growth(class)), 13)
        );
        if wide {
            figures.push_str(&right(&free(class), 9));
        }
        let style = if index == 0 && growth(class) > 0 {
            BLAMED
        } else {
            PLAIN
        };
        one(page, &figures, class, style, options.verbose);
    }
    if !rest.is_empty() {
        let mut sums = Vec::new();
        for (grew, sum) in [(true, sum(rest, true)), (false, sum(rest, false))] {
            if sum != 0 {
                sums.push(format!(
                    "{} {}",
                    if grew { "grew" } else { "shrank" },
                    signed(sum)
                ));
            }
        }
        let text = format!("{} and {} more: {}", page.ellipsis(), rest.len(), sums.join(", "));
        page.paragraph(2, &text, PLAIN);
    }
}

fn holding(page: &mut Page, heap: &Heap, options: &Options) {
    // Sizes of which nothing is in use come last.
    let in_use = heap.classes.partition_point(|class| class.in_use_bytes > 0);
    let most = if options.verbose {
        heap.classes.len()
    } else {
        in_use
    };
    let (shown, rest) = heap.classes.split_at(most.min(options.top));
    let all = heap.in_use_bytes.saturating_add(heap.mapped_bytes);
    if shown.is_empty() && heap.mapped_count == 0 {
        page.paragraph(2, "no blocks", PLAIN);
        return;
    }
    let head = format!(
        "{}{}{}{}{}  type",
        right("size", 11),
        right("blocks", 9),
        right("in use", 12),
        right("share", 9),
        right("free", 9)
    );
    page.line(&page.paint(DIM, &head));
    for class in shown {
        let share = if all > 0 {
            percent(class.in_use_bytes as f64 / all as f64)
        } else {
            UNKNOWN.to_owned()
        };
        let figures = format!(
            "{}{}{}{}{}",
            right(&exact_bytes(class.bytes), 11),
            right(&count(class.count), 9),
            right(&bytes(class.in_use_bytes), 12),
            right(&share, 9),
            right(&free(class), 9)
        );
        one(page, &figures, class, PLAIN, options.verbose);
    }
    if !rest.is_empty() {
        let in_use = rest
            .iter()
            .fold(0u64, |sum, class| sum.saturating_add(class.in_use_bytes));
        let text = format!(
            "{} and {} more: {} in use",
            page.ellipsis(),
            rest.len(),
            bytes(in_use)
        );
        page.paragraph(2, &text, PLAIN);
    }
    if heap.mapped_count > 0 {
        let blocks = blocks_of(heap.mapped_count);
        let text = format!(
            "{blocks} with a mapping of their own: {}",
            bytes(heap.mapped_bytes)
        );
        page.paragraph(2, &text, PLAIN);
    }
}

/// With `whole` a name that finds no room beside the figures has it below.
fn one(page: &mut Page, figures: &str, class: &HeapClass, style: Style, whole: bool) {
    let room = page.width.saturating_sub(figures.width() + 2);
    let fitted = label(page, class, room);
    let all = label(page, class, NAME);
    page.line(&format!("{figures}  {}", page.paint(style, &fitted)));
    if whole && all != fitted {
        page.paragraph(13, &all, DIM);
    }
}

/// Free chunks of the size; a free chunk has no type.
fn free(class: &HeapClass) -> String {
    class.free_count.map(count).unwrap_or_default()
}

/// A single arena is the heap itself.
pub fn worth_showing(heap: &Heap, options: &Options) -> bool {
    heap.arenas.len() > 1 || options.verbose && !heap.arenas.is_empty()
}

/// The arenas: with growth what grew most first, else the largest.
pub fn arenas(page: &mut Page, heap: &Heap, options: &Options) {
    if !worth_showing(heap, options) {
        return;
    }
    let growth = |arena: &HeapArena| {
        let (in_use, free) = (arena.growth_in_use_bytes?, arena.growth_free_bytes?);
        Some(in_use.saturating_add(free))
    };
    let mut arenas: Vec<&HeapArena> = heap.arenas.iter().collect();
    arenas.sort_by_key(|arena| Reverse((growth(arena), arena.system_bytes)));
    let with_growth = heap.growth.is_some();
    let wide = page.width >= WIDEST;
    let head = arena_line(
        "arena",
        &[
            Some("heaps".to_owned()),
            Some("size".to_owned()),
            Some("in use".to_owned()),
            with_growth.then(|| "growth".to_owned()),
            Some("free".to_owned()),
            with_growth.then(|| "growth".to_owned()),
        ],
    );
    let kinds = ["bins", "top", "tcache", "fastbins"];
    let more: String = kinds
        .iter()
        .filter(|_| wide)
        .map(|kind| right(kind, 11))
        .collect();
    page.line(&page.paint(DIM, &format!("{head}{more}")));
    let shown = arenas
        .len()
        .min(if options.verbose { usize::MAX } else { ARENAS });
    let (shown, rest) = arenas.split_at(shown);
    for arena in shown {
        let name = if arena.main {
            "main".to_owned()
        } else {
            format!("{:#x}", arena.address.0)
        };
        let signed_of =
            |growth: Option<i64>| with_growth.then(|| growth.map_or_else(|| UNKNOWN.to_owned(), signed));
        let mut line = arena_line(
            &page.fit(&name, 15),
            &[
                Some(page.fit(&count(arena.heaps), 5)),
                Some(bytes(arena.system_bytes)),
                Some(bytes(arena.in_use_bytes)),
                signed_of(arena.growth_in_use_bytes),
                Some(bytes(arena.free_bytes)),
                signed_of(arena.growth_free_bytes),
            ],
        );
        let free = &arena.free_kinds;
        let of_kinds = [free.bins, free.top, free.tcache, free.fastbins].map(|kind| bytes(kind.bytes));
        if wide {
            line.extend(of_kinds.iter().map(|kind| right(kind, 11)));
        }
        page.line(&line);
        if options.verbose && !wide {
            let named: Vec<String> = kinds
                .iter()
                .zip(&of_kinds)
                .map(|(name, bytes)| format!("{name} {bytes}"))
                .collect();
            page.paragraph(4, &named.join(", "), DIM);
        }
    }
    if !rest.is_empty() {
        let sum = |of: fn(&HeapArena) -> u64| rest.iter().map(|arena| of(arena)).fold(0, u64::saturating_add);
        let text = format!(
            "{} and {} more: {} in use, {} free ({} shows them)",
            page.ellipsis(),
            rest.len(),
            bytes(sum(|arena| arena.in_use_bytes)),
            bytes(sum(|arena| arena.free_bytes)),
            page.more
        );
        page.paragraph(2, &text, PLAIN);
    }
}

/// Heaps, size, in use, growth, free, growth; `None` where there is no such column.
fn arena_line(name: &str, figures: &[Option<String>; 6]) -> String {
    let mut line = format!("  {}", left(name, 15));
    for (figure, columns) in figures.iter().zip([6, 11, 11, 12, 11, 12]) {
        if let Some(figure) = figure {
            line.push_str(&right(figure, columns));
        }
    }
    line
}
