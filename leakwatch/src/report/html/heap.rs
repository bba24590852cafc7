//! The heap as its allocator has it: in use, free and kept, and by class of blocks.

use maud::{Markup, html};

use super::cells::{change, known, more, name, size};
use super::titled;
use crate::report::model::{Heap, HeapArena, HeapClass, Recording};
use crate::report::text::heap as words;
use crate::report::text::layout::{Page, count, exact_bytes, seconds, signed_count};

/// Rows of the classes, and of the arenas.
const CLASSES: usize = 40;
const ARENAS: usize = 16;
const NAME: usize = 120;

pub fn section(page: &Page, recording: &Recording) -> Markup {
    let not_taken = words::not_taken(page, recording);
    let (remark, content) = match (&recording.heap, not_taken) {
        (None, None) => (String::new(), html! { p { "The heap was not read." } }),
        (None, Some(why)) => (String::new(), html! { p { (why) } }),
        (Some(heap), not_taken) => (
            format!(
                "{}, read in {}",
                page.fit(&heap.allocator, 32),
                seconds(heap.took_seconds)
            ),
            html! {
                p { (words::sentence(page, heap)) }
                @if let Some(why) = not_taken {
                    p { "How it grew is not known, for a census was " (why) }
                }
                div.beside { (summary(heap)) (classes(page, heap)) }
                (arenas(heap))
            },
        ),
    };
    titled("heap", &remark, &content)
}

fn summary(heap: &Heap) -> Markup {
    let grown = heap.growth.is_some();
    html! {
        div {
            table.summary {
                caption.hidden { "What is in use and what is free" }
                thead { tr {
                    th scope="col" { "heap" } th scope="col" { "bytes" } th scope="col" { "blocks" }
                    @if grown { th scope="col" { "growth" } }
                } }
                tbody {
                    @for row in words::rows(heap) {
                        tr class=(if row.indent > 2 { "part" } else { "sum" }) {
                            th scope="row" { (row.label) }
                            td { (known(row.bytes)) }
                            td { (row.blocks.map(count).unwrap_or_default()) }
                            @if grown { td { @if let Some(growth) = row.growth { (change(growth)) } } }
                        }
                    }
                }
            }
            @if let Some(largest) = words::largest(heap) { p.remark { (largest) } }
        }
    }
}

/// With growth those that changed, else those that hold something.
fn classes(page: &Page, heap: &Heap) -> Markup {
    let grown = heap.growth.is_some();
    let growth = |class: &HeapClass| class.growth_bytes.unwrap_or(0);
    let rows: Vec<&HeapClass> = heap
        .classes
        .iter()
        .filter(|class| {
            if grown {
                growth(class) != 0
            } else {
                class.in_use_bytes > 0
            }
        })
        .collect();
    let rest = rows.get(CLASSES..).unwrap_or_default();
    let in_use = rest
        .iter()
        .fold(0u64, |sum, class| sum.saturating_add(class.in_use_bytes));
    let grew = rest
        .iter()
        .fold(0i64, |sum, class| sum.saturating_add(growth(class)));
    let sums = html! { ": " (size(in_use)) " in use" @if grown { ", " (change(grew)) } };
    html! {
        div {
            @if rows.is_empty() {
                p { @if grown { "no class of blocks grew or shrank" } @else { "no blocks" } }
            } @else {
                table.classes {
                    caption.hidden { "Blocks by size and type" }
                    thead { tr {
                        th scope="col" { "type" } th scope="col" { "size" } th scope="col" { "blocks" }
                        @if grown { th scope="col" { "more" } }
                        th scope="col" { "in use" }
                        @if grown { th scope="col" { "growth" } }
                        th scope="col" { "free" }
                    } }
                    tbody {
                        @for class in rows.iter().take(CLASSES) {
                            tr {
                                th scope="row" { (name(&words::label(page, class, 400), NAME)) }
                                td { (exact_bytes(class.bytes)) }
                                td { (count(class.count)) }
                                @if grown { td { (signed_count(class.growth_count.unwrap_or(0))) } }
                                td { (size(class.in_use_bytes)) }
                                @if grown { td { (change(growth(class))) } }
                                td { (class.free_count.map(count).unwrap_or_default()) }
                            }
                        }
                    }
                }
            }
            (more(rest.len(), "classes", &sums))
            @if heap.mapped_without_size > 0 {
                p.remark {
                    (count(heap.mapped_without_size)) " of the large blocks are known by number alone, and in no row"
                }
            }
        }
    }
}

/// A single arena is the heap itself.
fn arenas(heap: &Heap) -> Markup {
    if heap.arenas.len() < 2 {
        return html! {};
    }
    let grown = heap.growth.is_some();
    let growth = |arena: &HeapArena| {
        let (in_use, free) = (arena.growth_in_use_bytes?, arena.growth_free_bytes?);
        Some(in_use.saturating_add(free))
    };
    let mut arenas: Vec<&HeapArena> = heap.arenas.iter().collect();
    arenas.sort_by_key(|arena| std::cmp::Reverse((growth(arena), arena.system_bytes)));
    let rest = arenas.get(ARENAS..).unwrap_or_default();
    let in_use = rest
        .iter()
        .fold(0u64, |sum, arena| sum.saturating_add(arena.in_use_bytes));
    html! {
        details {
            summary { (heap.arenas.len()) " arenas" }
            table.arenas {
                caption.hidden { "The arenas" }
                thead { tr {
                    th scope="col" { "arena" } th scope="col" { "heaps" } th scope="col" { "size" }
                    th scope="col" { "in use" } @if grown { th scope="col" { "growth" } }
                    th scope="col" { "free" } @if grown { th scope="col" { "growth" } }
                } }
                tbody {
                    @for arena in arenas.iter().take(ARENAS) {
                        tr {
                            th scope="row" {
                                @if arena.main { "main" } @else { (format!("{:#x}", arena.address.0)) }
                            }
                            td { (count(arena.heaps)) }
                            td { (size(arena.system_bytes)) }
                            td { (size(arena.in_use_bytes)) }
                            @if grown { td { @if let Some(growth) = arena.growth_in_use_bytes { (change(growth)) } } }
                            td { (size(arena.free_bytes)) }
                            @if grown { td { @if let Some(growth) = arena.growth_free_bytes { (change(growth)) } } }
                        }
                    }
                }
            }
            (more(rest.len(), "arenas", &html! { ": " (size(in_use)) " in use" }))
        }
    }
}
