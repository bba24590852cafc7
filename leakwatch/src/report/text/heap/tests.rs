use proptest::prelude::*;

use super::super::tests::{at, inert};
use super::super::{render, render_heap};
use super::*;
use crate::report::model::{FreeKinds, HeapArena};
use crate::report::sample;

/// The section alone.
fn section_of(recording: &Recording, options: &Options) -> String {
    let text = render(recording, options);
    let after = text.split("\nHEAP").nth(1).unwrap_or_default();
    format!("HEAP{}", after.split("\nCALL SITES").next().unwrap_or_default())
}

fn verbose(width: usize) -> Options {
    Options {
        verbose: true,
        ..at(width)
    }
}

#[test]
fn with_growth() {
    insta::assert_snapshot!("heap_80", section_of(&sample::full(), &at(80)));
    insta::assert_snapshot!("heap_140_verbose", section_of(&sample::full(), &verbose(140)));
}

#[test]
fn without_growth() {
    let mut recording = sample::full();
    recording.heap = Some(sample::heap_alone());
    recording.heap_not_taken = Some("at the window's start: it took longer than 10s".into());
    insta::assert_snapshot!("heap_alone_80", section_of(&recording, &at(80)));
}

#[test]
fn a_picture() {
    let ascii = Options {
        unicode: false,
        ..at(80)
    };
    let text = render_heap(&sample::picture(), &ascii);
    assert!(text.is_ascii());
    insta::assert_snapshot!("heap_picture_80", text);
    insta::assert_snapshot!(
        "heap_picture_120_verbose",
        render_heap(&sample::picture(), &verbose(120))
    );
}

#[test]
fn an_empty_heap() {
    let mut picture = sample::picture();
    picture.heap = Heap {
        allocator: "glibc 2.36".into(),
        ..Heap::default()
    };
    picture.losses.counters.clear();
    picture.notes.clear();
    insta::assert_snapshot!("heap_empty_80", render_heap(&picture, &at(80)));
}

#[test]
fn nothing_is_told_of_what_was_not_asked_for() {
    let mut recording = sample::full();
    recording.heap = None;
    assert!(!render(&recording, &at(80)).contains("HEAP"));
    recording.heap_not_taken = Some("the heap is not glibc's: jemalloc".into());
    assert_eq!(
        section_of(&recording, &at(80)).trim_end(),
        "HEAP\n  not taken: the heap is not glibc's: jemalloc"
    );
    recording.heap_not_taken = Some("at the window's end: the target exited".into());
    assert_eq!(
        section_of(&recording, &at(80)).trim_end(),
        "HEAP\n  not taken at the window's end: the target exited"
    );
}

#[test]
fn what_grew_is_told_in_a_sentence() {
    let page = Page::new(&at(200));
    let with = |change: fn(&mut HeapGrowth)| {
        let mut heap = sample::heap_grown();
        heap.growth.iter_mut().for_each(change);
        sentence(&page, &heap)
    };
    assert_eq!(
        with(|_| ()),
        "Memory in use grew by 118.0 MiB (445046 blocks more); 12.0 MiB more stay resident though free. First are blocks \
         of 536 B (Session): 148500 more, 77.0 MiB."
    );
    let mapped = with(|growth| growth.mapped_bytes = 78 << 20);
    assert!(
        mapped.ends_with("First are blocks with a mapping of their own: 46 more, 78.0 MiB."),
        "{mapped}"
    );
    let shrunk = with(|growth| {
        (growth.in_use_bytes, growth.mapped_bytes) = (-2 << 20, 0);
        (growth.in_use_count, growth.mapped_count) = (-1, 0);
        growth.kept_bytes = Some(-1 << 20);
    });
    assert!(
        shrunk.starts_with(
            "Memory in use shrank by 2.0 MiB (1 block fewer); 1.0 MiB that was kept free is in use again or given back."
        ),
        "{shrunk}"
    );
    let steady = with(|growth| growth.kept_bytes = Some(-1 << 20));
    assert!(steady.contains("(445046 blocks more). First"), "{steady}");
    let still = with(|growth| *growth = HeapGrowth::default());
    assert!(still.starts_with("Memory in use did not grow. First"), "{still}");
}

#[test]
fn classes_that_hardly_grew_are_summed() {
    let text = section_of(&sample::full(), &at(80));
    assert!(text.contains("Session") && !text.contains("kEmptyRow"), "{text}");
    assert!(text.contains("and 5 more: grew +"), "{text}");
    let text = section_of(&sample::full(), &verbose(80));
    assert!(
        text.contains("&kEmptyRow") && text.contains("-604.7 KiB"),
        "{text}"
    );
    let top = Options {
        top: 2,
        ..verbose(80)
    };
    let text = section_of(&sample::full(), &top);
    assert!(
        text.contains("and 6 more: grew +7.2 MiB, shrank -732.7 KiB"),
        "{text}"
    );
}

#[test]
fn the_rows_of_free_memory_sum_to_what_is_free() {
    let heap = sample::heap_grown();
    let mut page = Page::new(&verbose(80));
    summary(&mut page, &heap, true);
    let text = page.finish();
    let mib = |label: &str| -> f64 {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(label))
            .unwrap();
        let figure = line
            .trim_start()
            .strip_prefix(label)
            .unwrap()
            .split_whitespace()
            .next();
        figure.unwrap().parse().unwrap()
    };
    let parts = [
        "free, on pages in use: fragmentation",
        "free, in whole pages, resident",
        "free, in whole pages, not resident",
    ];
    assert!(
        (parts.into_iter().map(mib).sum::<f64>() - mib("free, but kept")).abs() < 1e-9,
        "{text}"
    );
}

#[test]
fn residence_that_is_not_known_is_not_told_as_none() {
    let mut picture = sample::picture();
    (
        picture.heap.resident_bytes,
        picture.heap.free_pages_bytes,
        picture.heap.trim_bytes,
    ) = (None, None, None);
    let text = render_heap(&picture, &at(80));
    for label in [
        "free, in whole pages, resident",
        "malloc_trim(0) gives back at most",
        "free, in whole pages, not resident",
        "resident or swapped, of all arenas",
    ] {
        let line = text.lines().find(|line| line.contains(label)).unwrap();
        assert!(line.trim_end().ends_with(" -"), "{line}");
    }
    assert!(!text.contains("would give back"), "{text}");
}

#[test]
fn bars_are_as_long_as_their_bytes() {
    let mut heap = sample::heap_alone();
    heap.classes.truncate(2);
    (heap.mapped_count, heap.mapped_bytes) = (0, 0);
    for (class, (bytes, free)) in heap.classes.iter_mut().zip([(100, 0), (1000, 50)]) {
        (class.bytes, class.chunk_bytes) = (bytes, bytes);
        (class.count, class.in_use_bytes, class.free_count) = (50, 50 * bytes, Some(free));
    }
    let ascii = Options {
        unicode: false,
        ..at(80)
    };
    let mut page = Page::new(&ascii);
    sizes::histogram(&mut page, &heap);
    let text = page.finish();
    let bars: Vec<(usize, usize)> = text
        .lines()
        .skip(1)
        .map(|line| {
            (
                line.matches('#').count(),
                line.get(47..).unwrap_or_default().matches('.').count(),
            )
        })
        .collect();
    // 5,000 bytes of 100,000; 50,000 in use and as much free.
    assert_eq!(bars, [(2, 0), (16, 16)], "{text}");
}

#[test]
fn hostile_names_and_figures_do_nothing() {
    for width in [80, 119, 120, 200] {
        for unicode in [true, false] {
            for verbose in [false, true] {
                let options = Options {
                    verbose,
                    unicode,
                    ..at(width)
                };
                inert(&render_heap(&sample::hostile_picture(), &options), width);
                inert(&render(&sample::hostile(), &options), width);
            }
        }
    }
    assert!(render_heap(&sample::hostile_picture(), &verbose(200)).len() < 64 << 10);
}

proptest! {
    #[test]
    fn any_name_and_figure_keep_to_the_width(
        name in "\\PC{0,200}|.{0,200}",
        figure in any::<u64>(),
        change in any::<i64>(),
        width in 80usize..220,
        verbose in any::<bool>(),
        grown in any::<bool>(),
    ) {
        let mut heap = if grown { sample::heap_grown() } else { sample::heap_alone() };
        heap.allocator.clone_from(&name);
        for class in &mut heap.classes {
            class.type_name = Some(name.clone());
            (class.bytes, class.chunk_bytes, class.count, class.in_use_bytes) = (figure, figure, figure, figure);
            (class.growth_bytes, class.growth_count) = (grown.then_some(change), grown.then_some(change));
        }
        heap.arenas = vec![HeapArena { address: crate::report::model::Address(figure), heaps: figure,
            system_bytes: figure, in_use_bytes: figure, free_bytes: figure, free_kinds: FreeKinds::default(),
            growth_free_bytes: Some(change), growth_in_use_bytes: Some(change), ..HeapArena::default() }; 9];
        (heap.in_use_bytes, heap.free_bytes, heap.mapped_count) = (figure, figure, figure);
        (heap.resident_bytes, heap.free_pages_bytes, heap.trim_bytes) = (Some(figure), Some(figure), Some(figure));
        if let Some(growth) = &mut heap.growth {
            (growth.in_use_bytes, growth.in_use_count, growth.kept_bytes) = (change, change, Some(change));
        }
        let options = Options { verbose, ..at(width) };
        let picture = HeapPicture { heap: heap.clone(), ..sample::picture() };
        inert(&render_heap(&picture, &options), width);
        let recording = Recording { heap: Some(heap), heap_not_taken: Some(name), ..sample::full() };
        inert(&render(&recording, &options), width);
    }
}
