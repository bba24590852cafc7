use proptest::prelude::*;

use super::*;

fn frame(function: &str, module: &str) -> SymbolizedFrame {
    SymbolizedFrame {
        function: Some(function.into()),
        module: Some(module.into()),
        ..SymbolizedFrame::default()
    }
}

fn site(stack: &[&str], live: u64) -> SiteFacts {
    SiteFacts {
        via: Via::Mmap,
        frames: stack
            .iter()
            .map(|name| {
                frame(
                    name,
                    if matches!(*name, "malloc" | "mmap" | "brk") {
                        "/usr/lib/libc.so.6"
                    } else {
                        "/app"
                    },
                )
            })
            .collect(),
        complete: true,
        committed: 2 * live + 1,
        released: live,
        held: live + 1,
        events: 1,
        first_seen: 1.0,
        last_seen: 2.0,
        series: vec![(0.0, 0), (1.0, live)],
        live: Some(live),
        live_variance: 0.0,
        touched: None,
        extended: None,
        allocated: None,
        pool: None,
        evidence: Evidence::Mappings,
        estimated: false,
        threads: vec!["worker".into()],
        process: 7,
    }
}

fn names(rows: &[RankedSite]) -> Vec<(&str, Option<u64>)> {
    rows.iter().map(|row| (row.label.as_str(), row.live)).collect()
}

#[test]
fn the_same_culprit_chain_is_one_row() {
    let facts = vec![
        site(&["mmap", "malloc", "leak", "main"], 10),
        site(&["brk", "malloc", "leak", "main"], 30),
        site(&["malloc", "leak", "other"], 25),
        site(&["malloc", "cache", "main"], 39),
    ];
    let rows = rank(facts.clone(), GroupBy::Stack, 10.0);
    assert_eq!(
        names(&rows),
        [("leak", Some(40)), ("cache", Some(39)), ("leak", Some(25))]
    );
    assert_eq!(rows[0].stacks.len(), 2);
    assert_eq!(rows[0].stacks[0].live, Some(30));
    assert_eq!(rows[0].culprit, Some(2));
    assert_eq!(rows[0].rate, Some(4.0));
    assert_eq!(rows[0].series, [(0.0, 0), (1.0, 40)]);
    assert_eq!(rows.iter().map(|row| row.rank).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        names(&rank(facts.clone(), GroupBy::Function, 1.0)),
        [("leak", Some(65)), ("cache", Some(39))]
    );
    assert_eq!(names(&rank(facts, GroupBy::Module, 1.0)), [("/app", Some(104))]);
}

/// A function of a stripped file that maps, and then touches, is one row, called by where it begins.
#[test]
fn calls_in_one_unnamed_function_are_one_row() {
    let unnamed = |offset, function_start: Option<u64>, module: &str, live| {
        let outer = SymbolizedFrame {
            offset: offset + 0x1000,
            function_start: function_start.map(|start| start + 0x1000),
            module: Some(module.into()),
            ..SymbolizedFrame::default()
        };
        let inner = SymbolizedFrame {
            offset,
            function_start,
            ..outer.clone()
        };
        SiteFacts {
            frames: [inner, outer].into(),
            ..site(&[], live)
        }
    };
    let facts = vec![
        unnamed(0x1a9, Some(0x100), "/bin/python3", 30),
        unnamed(0x1b4, Some(0x100), "/bin/python3", 8),
        // The next function, the same one elsewhere, and code of which nothing is known.
        unnamed(0x1f4, Some(0x1c0), "/bin/python3", 7),
        unnamed(0x1a9, Some(0x100), "/bin/postgres", 6),
        unnamed(0x304, None, "/bin/python3", 5),
        unnamed(0x300, None, "/bin/python3", 4),
    ];
    for by in [GroupBy::Stack, GroupBy::Function] {
        assert_eq!(
            names(&rank(facts.clone(), by, 1.0)),
            [
                ("python3+0x100", Some(38)),
                ("python3+0x1c0", Some(7)),
                ("postgres+0x100", Some(6)),
                ("python3+0x304", Some(5)),
                ("python3+0x300", Some(4)),
            ]
        );
    }
    // Another caller is another chain.
    let mut elsewhere = unnamed(0x1b4, Some(0x100), "/bin/python3", 8);
    Arc::make_mut(&mut elsewhere.frames)[1].function_start = Some(0x5000);
    let facts = vec![facts[0].clone(), elsewhere];
    assert_eq!(rank(facts.clone(), GroupBy::Stack, 1.0).len(), 2);
    assert_eq!(rank(facts, GroupBy::Function, 1.0).len(), 1);
}

#[test]
fn unknown_is_not_zero() {
    let mut unknown = site(&["a"], 5);
    unknown.live = None;
    unknown.held = 50;
    let rows = rank(
        vec![unknown.clone(), site(&["a"], 7), site(&["b"], 20)],
        GroupBy::Stack,
        0.0,
    );
    // `a` holds 50 + 8, `b` 21; the live bytes of `a` are not known.
    assert_eq!(names(&rows), [("a", None), ("b", Some(20))]);
    assert_eq!(rows[0].share, Some(58.0 / 78.0));
    assert_eq!(rows[0].rate, None);
}

#[test]
fn errors_add_in_squares_and_retention_is_of_what_was_touched() {
    let paged = |live: u64, variance: f64, touched: u64| SiteFacts {
        via: Via::Fault,
        live_variance: variance,
        touched: Some(touched),
        evidence: Evidence::Pages,
        ..site(&["a"], live)
    };
    let mapped = SiteFacts {
        estimated: true,
        ..site(&["a"], 100)
    };
    let rows = rank(
        vec![paged(30, 9.0, 100), paged(20, 16.0, 100), mapped.clone()],
        GroupBy::Stack,
        1.0,
    );
    let row = &rows[0];
    assert_eq!((row.live, row.touched), (Some(150), Some(200)));
    assert_eq!(row.standard_error, Some(5.0));
    // The mapping's 100 bytes were not touched by anybody that is known.
    assert_eq!(row.retention, Some(0.25));
    assert_eq!(row.evidence, Evidence::Mappings);
    assert_eq!(row.vias, [Via::Mmap, Via::Fault]);
    assert!(row.estimated);

    // The address space of the same site is not counted as pages, even where some of it has no other toucher.
    let beside = SiteFacts {
        series: vec![(0.0, 5000)],
        ..site(&["a"], 2)
    };
    let rows = rank(vec![paged(30, 0.0, 40), beside.clone()], GroupBy::Stack, 1.0);
    assert_eq!(rows[0].series, [(0.0, 0), (1.0, 30)]);
    assert_eq!((rows[0].live, rows[0].evidence), (Some(32), Evidence::Pages));
    let rows = rank(vec![beside], GroupBy::Stack, 1.0);
    assert_eq!(rows[0].series, [(0.0, 5000)]);

    let rows = rank(vec![paged(30, 0.0, 20)], GroupBy::Stack, 1.0);
    assert_eq!(
        (rows[0].retention, rows[0].standard_error),
        (Some(1.0), Some(0.0))
    );
    assert_eq!(rows[0].evidence, Evidence::Pages);
    assert!(!rows[0].estimated);

    let rows = rank(vec![mapped], GroupBy::Stack, 1.0);
    assert_eq!((rows[0].touched, rows[0].retention), (None, None));
    let rows = rank(vec![paged(0, 0.0, 0)], GroupBy::Stack, 1.0);
    assert_eq!((rows[0].touched, rows[0].retention), (Some(0), None));
    let unknown = SiteFacts {
        live: None,
        ..paged(1, 4.0, 9)
    };
    let rows = rank(vec![unknown], GroupBy::Stack, 1.0);
    assert_eq!(rows[0].touched, Some(9));
    assert_eq!((rows[0].retention, rows[0].standard_error), (None, None));
}

#[test]
fn four_points_make_a_rate() {
    let with = |series: Vec<(f64, u64)>| SiteFacts {
        series,
        ..site(&["a"], 1000)
    };
    let rate = |series| rank(vec![with(series)], GroupBy::Stack, 10.0)[0].rate;
    assert_eq!(rate(vec![(0.0, 0), (5.0, 1), (10.0, 2)]), Some(100.0));
    assert_eq!(rate(vec![(0.0, 0), (1.0, 20), (2.0, 40), (3.0, 60)]), Some(20.0));
    assert_eq!(rate(vec![(0.0, 60), (1.0, 40), (2.0, 20), (3.0, 0)]), Some(-20.0));
    // All at one moment: no line.
    assert_eq!(rate(vec![(1.0, 1); 4]), Some(100.0));
    // Of the row's series, not of one stack's.
    let row = rank(
        vec![with(vec![(0.0, 0), (2.0, 40)]), with(vec![(1.0, 20), (3.0, 40)])],
        GroupBy::Stack,
        10.0,
    );
    assert_eq!(row[0].series, [(0.0, 0), (1.0, 20), (2.0, 60), (3.0, 80)]);
    assert_eq!(row[0].rate, Some(28.0));
}

#[test]
fn an_event_without_a_stack_is_a_row_of_its_own() {
    let rows = rank(vec![site(&[], 5), site(&["a"], 1)], GroupBy::Function, 1.0);
    assert_eq!(names(&rows), [("(no stack)", Some(5)), ("a", Some(1))]);
    assert_eq!(rows[0].culprit, None);
    assert!(rank(Vec::new(), GroupBy::Stack, 1.0).is_empty());
}

proptest! {
    #[test]
    fn nothing_is_lost_and_the_order_of_the_input_does_not_matter(
        picks in proptest::collection::vec((0usize..5, 0usize..3, 0u64..4), 0..40), turn in 0usize..40,
    ) {
        let mut facts: Vec<SiteFacts> = picks.iter()
            .map(|&(a, b, live)| site(&["malloc", ["a", "b", "c", "d", "e"][a], ["x", "y", "z"][b]], live))
            .collect();
        let rows = rank(facts.clone(), GroupBy::Stack, 10.0);
        prop_assert_eq!(rows.iter().map(|row| row.live.unwrap()).sum::<u64>(), picks.iter().map(|p| p.2).sum::<u64>());
        prop_assert_eq!(rows.iter().map(|row| row.events).sum::<u64>(), picks.len() as u64);
        prop_assert!(rows.is_sorted_by_key(|row| Reverse(row.live)));
        let shares: f64 = rows.iter().filter_map(|row| row.share).sum();
        prop_assert!(shares == 0.0 || (shares - 1.0).abs() < 1e-9);
        if !facts.is_empty() { let at = turn % facts.len(); facts.rotate_left(at); }
        prop_assert_eq!(rank(facts, GroupBy::Stack, 10.0), rows);
    }
}

fn class(chunk_bytes: u64, type_name: Option<&str>, blocks: f64, survivors: u64) -> AllocatedClass {
    AllocatedClass {
        request: chunk_bytes - 8,
        chunk_bytes,
        type_name: type_name.map(str::to_owned),
        mapped: false,
        blocks,
        bytes: blocks * chunk_bytes as f64,
        survivors,
    }
}

fn survivors(stack: &[&str], live: u64, allocated: Allocated) -> SiteFacts {
    SiteFacts {
        via: Via::Malloc,
        committed: 0,
        released: 0,
        held: 0,
        series: Vec::new(),
        live_variance: 16.0,
        allocated: Some(allocated),
        evidence: Evidence::Survivors,
        ..site(stack, live)
    }
}

#[test]
fn survivors_join_the_pages_of_their_chain() {
    let one = Allocated {
        blocks: 10.5,
        births: 7,
        born_blocks: 70,
        born_bytes: 700,
        followed: 6,
        survived: 5,
        young: 2,
        doubtful: 1,
        median_age: Some(3.0),
        oldest_age: Some(4.0),
        classes: vec![
            class(48, None, 0.5, 1),
            class(1008, Some("Session"), 10.0, 4),
            AllocatedClass {
                mapped: true,
                ..class(1008, Some("Session"), 1.0, 1)
            },
        ],
        functions: vec!["malloc"],
    };
    let two = Allocated {
        survived: 4,
        median_age: Some(9.0),
        oldest_age: Some(20.0),
        classes: vec![class(1008, Some("Session"), 2.0, 4), class(1008, None, 1.0, 1)],
        functions: vec!["calloc", "malloc"],
        ..one.clone()
    };
    let extender = SiteFacts {
        via: Via::Fault,
        series: Vec::new(),
        touched: Some(400),
        extended: Some(300),
        evidence: Evidence::Pages,
        ..site(&["memset", "leak", "main"], 0)
    };
    let facts = vec![
        survivors(&["malloc", "leak", "main"], 60, one.clone()),
        extender.clone(),
        survivors(&["calloc", "malloc", "leak", "main"], 50, two),
        site(&["malloc", "other"], 10),
    ];
    // `calloc` and `memset` are of the C library here too.
    let facts: Vec<SiteFacts> = facts
        .into_iter()
        .map(|mut site| {
            for frame in Arc::make_mut(&mut site.frames) {
                if matches!(frame.function.as_deref(), Some("calloc" | "memset")) {
                    frame.module = Some("/usr/lib/libc.so.6".into());
                }
            }
            site
        })
        .collect();
    let rows = rank(facts.clone(), GroupBy::Stack, 10.0);
    assert_eq!(names(&rows), [("leak", Some(110)), ("other", Some(10))]);
    let row = &rows[0];
    assert_eq!((row.evidence, row.stacks.len()), (Evidence::Survivors, 3));
    assert_eq!(row.vias, [Via::Malloc, Via::Fault]);
    // What it extended is no part of what it keeps, nor of its share; and it is no churn.
    assert_eq!((row.share, row.rate), (Some(110.0 / 120.0), Some(11.0)));
    assert_eq!((row.extended, row.retention), (Some(300), Some(0.75)));
    assert_eq!(row.standard_error, Some(32f64.sqrt()));
    let allocated = row.allocated.as_ref().unwrap();
    assert_eq!(allocated.blocks, 21.0);
    assert_eq!(
        (allocated.births, allocated.born_blocks, allocated.born_bytes),
        (14, 140, 1400)
    );
    assert_eq!(
        (
            allocated.followed,
            allocated.survived,
            allocated.young,
            allocated.doubtful
        ),
        (12, 9, 4, 2)
    );
    // The median of the stack with more survivors, the oldest of both.
    assert_eq!(
        (allocated.median_age, allocated.oldest_age),
        (Some(3.0), Some(20.0))
    );
    assert_eq!(allocated.functions, ["calloc", "malloc"]);
    let told: Vec<_> = allocated
        .classes
        .iter()
        .map(|class| {
            (
                class.chunk_bytes,
                class.type_name.as_deref(),
                class.mapped,
                class.blocks,
                class.survivors,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1008, Some("Session"), false, 12.0, 8),
            (1008, None, false, 1.0, 1),
            (1008, Some("Session"), true, 1.0, 1),
            (48, None, false, 0.5, 1),
        ]
    );
    let mut turned = facts;
    turned.reverse();
    assert_eq!(rank(turned, GroupBy::Stack, 10.0), rows);

    assert_eq!((rows[1].extended, rows[1].allocated.clone()), (None, None));
    // At equal weight the stronger evidence tells what the row rests on.
    let equal = vec![site(&["a"], 5), survivors(&["a"], 5, one)];
    assert_eq!(rank(equal, GroupBy::Stack, 1.0)[0].evidence, Evidence::Survivors);
}

#[test]
fn survivors_beside_a_series_are_part_of_the_rate() {
    let paged = SiteFacts {
        series: vec![(0.0, 0), (1.0, 200), (2.0, 400), (3.0, 600)],
        evidence: Evidence::Pages,
        ..site(&["a"], 600)
    };
    let rows = rank(
        vec![paged, survivors(&["a"], 50, Allocated::default())],
        GroupBy::Stack,
        10.0,
    );
    assert_eq!((rows[0].evidence, rows[0].rate), (Evidence::Pages, Some(205.0)));
}

#[test]
fn arenas_are_one_row_whoever_touched_them() {
    let in_arenas = |stack: &[&str], live: u64| SiteFacts {
        pool: Some(Pool::Pymalloc),
        evidence: Evidence::Pages,
        via: Via::Fault,
        touched: Some(live),
        ..site(stack, live)
    };
    let facts = || {
        vec![
            in_arenas(&["dict_new", "keep", "main"], 30),
            in_arenas(&["list_new", "innocent", "main"], 25),
            // The same function outside of them.
            site(&["mmap", "keep", "main"], 50),
        ]
    };
    for by in [GroupBy::Stack, GroupBy::Function] {
        let rows = rank(facts(), by, 10.0);
        assert_eq!(names(&rows), [("pymalloc arenas", Some(55)), ("keep", Some(50))]);
        assert_eq!((rows[0].culprit, rows[0].pool), (None, Some(Pool::Pymalloc)));
        assert_eq!((rows[0].stacks.len(), rows[0].touched), (2, Some(55)));
        assert_eq!((rows[1].pool, rows[1].culprit), (None, Some(1)));
    }
    // By module they are whatever came through it.
    let rows = rank(facts(), GroupBy::Module, 10.0);
    assert_eq!(names(&rows), [("/app", Some(105))]);
    assert_eq!(rows[0].pool, None);
}
