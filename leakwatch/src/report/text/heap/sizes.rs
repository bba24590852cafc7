//! The blocks by size, with a bar for each power of two.

use std::collections::BTreeMap;

use super::super::layout::{DIM, PLAIN, Page, bytes, count, right, rounded};
use crate::report::model::Heap;

/// What one bar stands for.
#[derive(Clone, Copy, Default)]
struct Bucket {
    blocks: u64,
    in_use_bytes: u64,
    free_bytes: u64,
}

impl Bucket {
    fn bytes(&self) -> u64 {
        self.in_use_bytes.saturating_add(self.free_bytes)
    }
}

/// A line for each power of two that has blocks: what is in use, and what is free in chunks of such sizes.
pub fn histogram(page: &mut Page, heap: &Heap) {
    let mut buckets = BTreeMap::<u64, Bucket>::new();
    for class in heap.classes.iter().filter(|class| !class.mapped) {
        let most = class
            .bytes
            .max(32)
            .checked_next_power_of_two()
            .unwrap_or(u64::MAX);
        let bucket = buckets.entry(most).or_default();
        let free = class.free_count.unwrap_or(0).saturating_mul(class.chunk_bytes);
        bucket.blocks = bucket.blocks.saturating_add(class.count);
        bucket.in_use_bytes = bucket.in_use_bytes.saturating_add(class.in_use_bytes);
        bucket.free_bytes = bucket.free_bytes.saturating_add(free);
    }
    let mut rows: Vec<(String, Bucket)> = buckets
        .into_iter()
        .map(|(most, bucket)| (bytes(most), bucket))
        .filter(|(_, bucket)| bucket.bytes() > 0)
        .collect();
    if heap.mapped_count > 0 {
        let mapped = Bucket {
            blocks: heap.mapped_count,
            in_use_bytes: heap.mapped_bytes,
            free_bytes: 0,
        };
        rows.push(("mapped".to_owned(), mapped));
    }
    if rows.is_empty() {
        page.paragraph(2, "no blocks", PLAIN);
        return;
    }
    let (in_use_mark, free_mark) = page.bar_marks();
    let head = format!(
        "{}{}{}{}",
        right("up to", 11),
        right("blocks", 11),
        right("in use", 12),
        right("free", 11)
    );
    let head = format!("{head}  {in_use_mark} in use {free_mark} free");
    page.line(&page.paint(DIM, &head));
    let most = rows.iter().map(|(_, bucket)| bucket.bytes()).max().unwrap_or(0);
    let room = page.width.saturating_sub(48).min(64);
    let cells = |bytes: u64| {
        let cells = bytes as f64 / most as f64 * room as f64;
        usize::try_from(rounded(cells)).unwrap_or(room).min(room)
    };
    for (label, bucket) in rows {
        // Rounded as a whole, so that no bar is longer than the longest.
        let (whole, in_use) = (cells(bucket.bytes()), cells(bucket.in_use_bytes));
        page.line(&format!(
            "{}{}{}{}  {}{}",
            right(&label, 11),
            right(&count(bucket.blocks), 11),
            right(&bytes(bucket.in_use_bytes), 12),
            right(&bytes(bucket.free_bytes), 11),
            in_use_mark.repeat(in_use),
            free_mark.repeat(whole.saturating_sub(in_use))
        ));
    }
}
