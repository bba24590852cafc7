//! What two readings of a heap say, as the recording has it.

use std::collections::BTreeMap;

use crate::census::reading::Reading;
use crate::census::types::ToldBy;
use crate::census::{Amount, Arena, Census, Class, Free, What};
use crate::diagnose::verdict::{ClassGrowth, HeapFacts};
use crate::report::escape::text_of;
use crate::report::model::{Address, FreeKind, FreeKinds, Heap, HeapArena, HeapClass, HeapGrowth};

/// The largest request that a chunk serves; of one with a mapping of its own, `chunk_bytes` is its mapping.
#[must_use]
pub const fn largest_request(chunk_bytes: u64, mapped: bool) -> u64 {
    chunk_bytes.saturating_sub(if mapped { MAPPED_HEADER } else { HEADER })
}

/// Of a chunk's header, what no request can use.
const HEADER: u64 = 8;
/// The same of a chunk with a mapping of its own.
const MAPPED_HEADER: u64 = 16;

/// The heap as `end` has it; with `start`, its growth since.
#[must_use]
pub fn heap(start: Option<&Reading>, end: &Reading) -> Heap {
    let census = &end.census;
    let took = start.map_or(end.took, |start| end.took.saturating_add(start.took));
    Heap {
        allocator: end.allocator.to_string(),
        in_use_bytes: census.in_use_bytes,
        in_use_count: census.in_use_chunks,
        free_bytes: census.free.bytes(),
        free_kinds: kinds(&census.free),
        overhead_bytes: census.arenas.iter().map(|arena| arena.overhead_bytes).sum(),
        mapped_bytes: census.mmapped.bytes,
        mapped_count: census.mmapped.count,
        mapped_without_size: census.mmapped_unlocated,
        resident_bytes: end.kept.map(|kept| kept.heap_bytes),
        free_pages_bytes: end.kept.map(|kept| kept.free_pages_bytes),
        trim_bytes: end.kept.map(|kept| kept.trim_bytes),
        fragmentation_bytes: census.free.bytes().saturating_sub(whole_pages(census)),
        largest_free_bytes: census.largest_free.clone(),
        arenas: arenas(start, &census.arenas),
        classes: classes(start, end),
        growth: start.map(|start| growth(start, end)),
        took_seconds: took.as_secs_f64(),
    }
}

/// Bytes of pages that hold nothing but free memory, resident or not.
fn whole_pages(census: &Census) -> u64 {
    let runs = census.free_pages.runs.iter();
    runs.fold(census.free_pages.dropped_bytes, |sum, (run, _)| {
        sum.saturating_add(run.end.saturating_sub(run.start))
    })
}

/// What a reading had to leave out or to do again, by name: only what is not 0.
#[must_use]
pub fn losses(reading: &Reading) -> BTreeMap<String, u64> {
    let census = &reading.census;
    [
        ("heap_torn_reads", census.torn_retries),
        ("heap_broken_lists", census.broken_lists),
        ("heap_constants_dropped", census.constants_dropped),
        ("heap_free_runs_dropped_bytes", census.free_pages.dropped_bytes),
        ("heap_types_not_named", reading.unnamed),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}

fn difference(start: u64, end: u64) -> i64 {
    end.cast_signed().saturating_sub(start.cast_signed())
}

fn growth(start: &Reading, end: &Reading) -> HeapGrowth {
    let (before, after) = (&start.census, &end.census);
    let in_use_bytes = difference(before.in_use_bytes, after.in_use_bytes);
    let kept = start.kept.zip(end.kept);
    let resident = kept.map(|(before, after)| difference(before.heap_bytes, after.heap_bytes));
    HeapGrowth {
        in_use_bytes,
        in_use_count: difference(before.in_use_chunks, after.in_use_chunks),
        free_bytes: difference(before.free.bytes(), after.free.bytes()),
        mapped_bytes: difference(before.mmapped.bytes, after.mmapped.bytes),
        mapped_count: difference(before.mmapped.count, after.mmapped.count),
        resident_bytes: resident,
        free_pages_bytes: kept
            .map(|(before, after)| difference(before.free_pages_bytes, after.free_pages_bytes)),
        kept_bytes: resident.map(|resident| resident.saturating_sub(in_use_bytes)),
    }
}

/// What the verdict wants to know of a heap that was read twice.
#[must_use]
pub fn facts(heap: &Heap) -> Option<HeapFacts> {
    let growth = heap.growth.as_ref()?;
    let in_threads = || heap.arenas.iter().filter(|arena| !arena.main);
    Some(HeapFacts {
        in_use: growth.in_use_bytes,
        in_use_count: growth.in_use_count,
        mapped: growth.mapped_bytes,
        mapped_count: growth.mapped_count,
        kept: growth.kept_bytes,
        free_at_end: heap.free_bytes,
        free_in_thread_arenas: in_threads().map(|arena| arena.free_bytes).sum(),
        thread_arenas: in_threads().count() as u64,
        trim_at_end: heap.trim_bytes,
        class: heap.classes.first().map(|class| ClassGrowth {
            request: class.bytes,
            type_name: class.type_name.clone(),
            count: class.growth_count.unwrap_or(0),
            bytes: class.growth_bytes.unwrap_or(0),
        }),
    })
}

fn kinds(free: &Free) -> FreeKinds {
    let kind = |amount: Amount| FreeKind {
        bytes: amount.bytes,
        count: amount.count,
    };
    FreeKinds {
        bins: kind(free.bins),
        top: kind(free.top),
        tcache: kind(free.tcache),
        fastbins: kind(free.fastbins),
    }
}

fn arenas(start: Option<&Reading>, arenas: &[Arena]) -> Vec<HeapArena> {
    let before = |arena: &Arena| {
        let start = start?;
        let known = start.census.arenas.iter().find(|it| it.address == arena.address);
        Some(known.map_or((0, 0), |it| (it.in_use.bytes, it.free.bytes())))
    };
    arenas
        .iter()
        .map(|arena| {
            let before = before(arena);
            HeapArena {
                address: Address(arena.address),
                main: arena.main,
                heaps: arena.heaps,
                system_bytes: arena.system_bytes,
                in_use_bytes: arena.in_use.bytes,
                in_use_count: arena.in_use.count,
                free_bytes: arena.free.bytes(),
                free_kinds: kinds(&arena.free),
                growth_in_use_bytes: before.map(|(in_use, _)| difference(in_use, arena.in_use.bytes)),
                growth_free_bytes: before.map(|(_, free)| difference(free, arena.free.bytes())),
            }
        })
        .collect()
}

/// What makes blocks of one size one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Type(String, ToldBy),
    Zero,
    Text,
    Nothing,
}

/// By size of the chunk and what was told: how many are in use.
type Rows = BTreeMap<(u64, Told), u64>;

/// `other` is a reading of the same process: what only one of them had the time to name has the name in both.
fn rows(reading: &Reading, other: Option<&Reading>) -> Rows {
    let mut rows = Rows::new();
    let mut told = BTreeMap::<u64, u64>::new();
    let left = |bytes: u64, told: &BTreeMap<u64, u64>| {
        let in_use = reading
            .census
            .classes
            .get(&bytes)
            .map_or(0, |class| class.in_use.count);
        in_use.saturating_sub(told.get(&bytes).copied().unwrap_or(0))
    };
    for ((bytes, what), count) in &reading.census.contents {
        let key = match what {
            What::Constant(address) => match reading.names.get(address).or_else(|| other?.names.get(address))
            {
                Some(name) => Told::Type(text_of(name.name.as_bytes()), name.told_by),
                None => continue,
            },
            What::Zero => Told::Zero,
            What::Text => Told::Text,
        };
        // A chunk that turned out to be on a list of free ones may have been counted by its content before.
        let count = (*count).min(left(*bytes, &told));
        *rows.entry((*bytes, key)).or_default() += count;
        *told.entry(*bytes).or_default() += count;
    }
    for bytes in reading.census.classes.keys() {
        rows.insert((*bytes, Told::Nothing), left(*bytes, &told));
    }
    rows.retain(|(bytes, told), count| {
        let free = reading
            .census
            .classes
            .get(bytes)
            .map_or(0, |class: &Class| class.free.count);
        *count > 0 || *told == Told::Nothing && free > 0
    });
    rows
}

fn classes(start: Option<&Reading>, end: &Reading) -> Vec<HeapClass> {
    let before = start.map(|start| rows(start, Some(end)));
    let mut after = rows(end, start);
    for key in before.iter().flat_map(BTreeMap::keys) {
        after.entry(key.clone()).or_insert(0);
    }
    let mut classes: Vec<HeapClass> = after
        .into_iter()
        .map(|(key, count)| {
            let growth = before
                .as_ref()
                .map(|before| difference(before.get(&key).copied().unwrap_or(0), count));
            let (chunk_bytes, told) = key;
            class(end, chunk_bytes, told, count, growth)
        })
        .collect();
    classes.extend(mapped_classes(start, end));
    let weight = |class: &HeapClass| (class.growth_bytes.unwrap_or(0), class.in_use_bytes);
    classes.sort_by_key(|class| std::cmp::Reverse(weight(class)));
    classes
}

/// Blocks with mappings of their own, by the bytes of these.
fn mapped_classes(start: Option<&Reading>, end: &Reading) -> Vec<HeapClass> {
    let before = start.map(|start| &start.census.mmapped_classes);
    let mut after = end.census.mmapped_classes.clone();
    for size in before.into_iter().flat_map(BTreeMap::keys) {
        after.entry(*size).or_insert(0);
    }
    let row = |(size, count): (u64, u64)| {
        let growth = before.map(|before| difference(before.get(&size).copied().unwrap_or(0), count));
        HeapClass {
            bytes: largest_request(size, true),
            chunk_bytes: size,
            count,
            in_use_bytes: count.saturating_mul(size),
            mapped: true,
            growth_count: growth,
            growth_bytes: growth.map(|count| count.saturating_mul(size.cast_signed())),
            ..HeapClass::default()
        }
    };
    after.into_iter().map(row).collect()
}

fn class(end: &Reading, chunk_bytes: u64, told: Told, count: u64, growth: Option<i64>) -> HeapClass {
    let free = (told == Told::Nothing).then(|| {
        end.census
            .classes
            .get(&chunk_bytes)
            .map_or(0, |class| class.free.count)
    });
    let mut class = HeapClass {
        bytes: largest_request(chunk_bytes, false),
        chunk_bytes,
        count,
        in_use_bytes: count.saturating_mul(chunk_bytes),
        free_count: free,
        growth_count: growth,
        growth_bytes: growth.map(|count| count.saturating_mul(chunk_bytes.cast_signed())),
        ..HeapClass::default()
    };
    match told {
        Told::Type(name, told_by) => {
            class.type_name = Some(name);
            let by = match told_by {
                ToldBy::Rtti => "rtti",
                ToldBy::VtableSymbol => "vtable",
                ToldBy::ConstantSymbol => "constant",
            };
            class.type_told_by = Some(by.to_owned());
        }
        Told::Zero => class.content = Some("zero".to_owned()),
        Told::Text => class.content = Some("text".to_owned()),
        Told::Nothing => {}
    }
    class
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::census::kept::Kept;
    use crate::census::types::TypeName;
    use crate::target::allocator::Allocator;

    fn count(count: u64, bytes: u64) -> Amount {
        Amount {
            count,
            bytes: count * bytes,
        }
    }

    /// Sessions of 544 bytes at two addresses of one name, texts of 64, and a free rest.
    fn reading(sessions: u64, others: u64, free: u64, texts: u64, resident: u64) -> Reading {
        let mut census = Census {
            in_use_bytes: (sessions + others) * 544 + texts * 64,
            in_use_chunks: sessions + others + texts,
            ..Census::default()
        };
        census.free.bins = count(free, 544);
        let class = Class {
            in_use: count(sessions + others, 544),
            free: count(free, 544),
        };
        census.classes.insert(544, class);
        let class = Class {
            in_use: count(texts, 64),
            free: count(0, 64),
        };
        census.classes.insert(64, class);
        census
            .contents
            .insert((544, What::Constant(0x1000)), sessions / 2);
        census
            .contents
            .insert((544, What::Constant(0x2000)), sessions - sessions / 2);
        census.contents.insert((544, What::Constant(0x3000)), others);
        census.contents.insert((64, What::Text), texts + 7);
        let session = TypeName {
            name: "Session".to_owned(),
            told_by: ToldBy::Rtti,
        };
        Reading {
            allocator: Allocator::Glibc {
                version: Some("2.36".to_owned()),
            },
            census,
            kept: Some(Kept {
                heap_bytes: resident,
                free_pages_bytes: 0,
                trim_bytes: 0,
            }),
            names: [(0x1000, session.clone()), (0x2000, session)].into(),
            unnamed: 0,
            took: Duration::from_millis(2),
        }
    }

    #[test]
    fn one_class_of_objects_is_one_row_and_the_rest_another() {
        let heap = heap(None, &reading(100, 30, 5, 1000, 0));
        let rows: Vec<_> = heap
            .classes
            .iter()
            .map(|it| {
                (
                    it.bytes,
                    it.count,
                    it.type_name.as_deref(),
                    it.content.as_deref(),
                    it.free_count,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (56, 1000, None, Some("text"), None),
                (536, 100, Some("Session"), None, None),
                (536, 30, None, None, Some(5)),
            ]
        );
        assert_eq!(heap.growth, None);
        assert_eq!(heap.classes[0].growth_count, None);
    }

    #[test]
    fn what_is_free_in_no_whole_page_is_fragmentation() {
        let mut reading = reading(100, 30, 100, 0, 0);
        reading.census.free_pages.runs = vec![(0x1000..0x3000, true), (0x8000..0x9000, false)];
        reading.census.free_pages.dropped_bytes = 0x2000;
        assert_eq!(heap(None, &reading).fragmentation_bytes, 100 * 544 - 0x5000);
        // They were read at another moment than the lists.
        reading.census.free_pages.dropped_bytes = 1 << 40;
        assert_eq!(heap(None, &reading).fragmentation_bytes, 0);
    }

    #[test]
    fn only_what_was_lost_is_among_the_losses() {
        let mut reading = reading(1, 0, 0, 0, 0);
        assert_eq!(losses(&reading), BTreeMap::new());
        reading.census.torn_retries = 3;
        reading.unnamed = 7;
        let lost: Vec<_> = losses(&reading).into_iter().collect();
        let named = |name: &str, count| (name.to_owned(), count);
        assert_eq!(
            lost,
            [named("heap_torn_reads", 3), named("heap_types_not_named", 7)]
        );
    }

    #[test]
    fn a_type_that_one_reading_named_is_no_growth() {
        let mut start = reading(100, 0, 0, 0, 0);
        start.names.clear();
        let heap = heap(Some(&start), &reading(110, 0, 0, 0, 0));
        let sessions = heap.classes.iter().find(|it| it.type_name.is_some()).unwrap();
        assert_eq!((sessions.count, sessions.growth_count), (110, Some(10)));
    }

    #[test]
    fn blocks_with_mappings_of_their_own_are_rows_too() {
        let (mut start, mut end) = (reading(0, 0, 0, 0, 0), reading(100, 0, 0, 0, 0));
        start.census.mmapped_classes = [(139_264, 5), (200_704, 2)].into();
        end.census.mmapped_classes = [(139_264, 55)].into();
        let heap = heap(Some(&start), &end);
        let rows: Vec<_> = heap
            .classes
            .iter()
            .map(|it| (it.bytes, it.mapped, it.count, it.growth_count))
            .collect();
        assert_eq!(rows[0], (139_248, true, 55, Some(50)));
        assert_eq!(rows[1], (536, false, 100, Some(100)));
        assert_eq!(rows.last(), Some(&(200_688, true, 0, Some(-2))));
    }

    #[test]
    fn growth_that_is_not_in_use_is_kept() {
        let mib = 1 << 20;
        let heap = heap(
            Some(&reading(100, 30, 5, 1000, 3 * mib)),
            &reading(1100, 30, 2005, 0, 5 * mib),
        );
        let growth = heap.growth.unwrap();
        assert_eq!(growth.in_use_bytes, 1000 * 544 - 1000 * 64);
        assert_eq!(growth.free_bytes, 2000 * 544);
        assert_eq!(growth.resident_bytes, Some(2 << 20));
        assert_eq!(growth.kept_bytes, Some((2 << 20) - 480_000));
        let rows: Vec<_> = heap
            .classes
            .iter()
            .map(|it| {
                (
                    it.bytes,
                    it.type_name.as_deref(),
                    it.growth_count,
                    it.growth_bytes,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (536, Some("Session"), Some(1000), Some(544_000)),
                (536, None, Some(0), Some(0)),
                // All of them are gone, and still the row that shrank most.
                (56, None, Some(-1000), Some(-64_000)),
            ]
        );
    }
}
