//! The screen as it looks: at the sizes that terminals have, with what they must bear.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::super::naming::named;
use super::super::state::{Event, Key, State};
use super::super::view::{About, Judged, Named, Row, RowStack, View};
use super::*;
use crate::diagnose::rank::{Evidence, GroupBy, Via};
use crate::report::model::EndedBy;
use crate::session::live::{Blocks, LiveBirths, LiveCost};
use crate::symbolize::SymbolizedFrame;
use crate::unwind::StackId;

const MIB: u64 = 1 << 20;

fn frame(function: &str, file: &str, line: u32, module: &str, inlined: bool) -> SymbolizedFrame {
    SymbolizedFrame {
        offset: 0x1234,
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(line),
        module: Some(module.into()),
        inlined,
        ..SymbolizedFrame::default()
    }
}

fn row(id: u32, named: Named, bytes: u64, alive: Option<u64>) -> Row {
    let named = Arc::new(named);
    Row {
        key: named.key.clone(),
        label: named.label.clone(),
        module: named.module.clone(),
        haystack: named.haystack.clone(),
        bytes,
        gained: bytes + u64::from(id) * MIB,
        surviving: alive.map(|alive| {
            let blocks = Blocks {
                followed: alive + 3,
                alive,
            };
            (alive * 64 * 1024, blocks)
        }),
        rate: Some(bytes as f64 / 65.0),
        events: bytes / 4096,
        last_seen: 65.0 - 4.0 * f64::from(id - 1),
        stacks: vec![RowStack {
            id: StackId(id),
            via: Via::Fault,
            evidence: Evidence::Pages,
            bytes,
            complete: id != 2,
            named,
        }],
        threads: vec!["worker".to_owned()],
        processes: vec![4242],
    }
}

fn server(function: &str) -> Named {
    named(
        vec![
            frame(
                "__memset_avx2_unaligned_erms",
                "memset.S",
                151,
                "/usr/lib/libc.so.6",
                false,
            ),
            frame(
                "std::vector<char, std::allocator<char> >::vector(unsigned long)",
                "/usr/include/c++/14/bits/stl_vector.h",
                557,
                "/opt/srv/bin/server",
                true,
            ),
            frame(
                function,
                "/home/b/src/server.cpp",
                42,
                "/opt/srv/bin/server",
                false,
            ),
            frame(
                "serve(int)",
                "/home/b/src/server.cpp",
                180,
                "/opt/srv/bin/server",
                false,
            ),
            frame(
                "main",
                "/home/b/src/server.cpp",
                230,
                "/opt/srv/bin/server",
                false,
            ),
        ],
        GroupBy::Stack,
    )
}

fn view() -> View {
    View {
        elapsed: 65.3,
        by_pages: true,
        verdict: Some(Judged {
            kind: "leak".to_owned(),
            summary: "The process's memory grows steadily by 1.4 MiB/s, 91.0 MiB in 1 min 5 s, and nothing says that it will stop; at this rate the limit of its control group is reached in 12 min.".to_owned(),
            confidence: Some(0.87),
        }),
        growth: Some(91 * MIB.cast_signed()),
        rss_bytes: Some(140 * MIB),
        memory: (0..66u64).map(|second| (second as f64, (40 + second * 3 / 2 + second % 4) * MIB)).collect(),
        rows: vec![
            row(1, server("handle_render(Request const&)"), 43 * MIB, Some(12)),
            row(2, server("handle_upload(Request const&)"), 44 * MIB, Some(420)),
            row(3, server("cache::insert<std::string, Entry>"), 2 * MIB, None),
            row(4, named(vec![SymbolizedFrame { offset: 0x7f11_2233, module: Some("/usr/lib/libstripped.so.1".into()), ..SymbolizedFrame::default() }], GroupBy::Stack), 100 * 1024, None),
        ],
        holding: 1204,
        held_bytes: 90 * MIB,
        surviving_bytes: 432 * 64 * 1024,
        births: LiveBirths {
            watched: true,
            not_watched: None,
            checked: Some(Duration::from_secs(42)),
            blocks: Blocks { followed: 438, alive: 432 },
        },
        losses: Vec::new(),
        cost: LiveCost {
            events: 24_113,
            processor: Duration::from_millis(610),
            sampling_rate: Some(0.25),
            snapshot: Duration::from_micros(730),
        },
    }
}

fn state_with(view: View) -> State {
    let mut state = State::new(About {
        pid: 4242,
        comm: "server".to_owned(),
        ends_after: None,
    });
    state.update(Event::View(Arc::new(view)));
    state
}

fn press(state: &mut State, keys: &[Key]) {
    for key in keys {
        state.update(Event::Key(*key));
    }
}

fn terminal(state: &mut State, colour: bool, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let (list, stack) = Parts::of(Rect::new(0, 0, width, height), state).room();
    state.update(Event::Room { list, stack });
    terminal
        .draw(|frame| draw(state, Theme { colour }, frame.area(), frame.buffer_mut()))
        .unwrap();
    terminal
}

fn screen(state: &mut State, size: (u16, u16)) -> String {
    terminal(state, true, size).backend().to_string()
}

#[test]
fn at_80_by_24() {
    insta::assert_snapshot!(screen(&mut state_with(view()), (80, 24)));
}

#[test]
fn at_120_by_40() {
    let mut state = state_with(view());
    press(&mut state, &[Key::Down]);
    insta::assert_snapshot!(screen(&mut state, (120, 40)));
}

#[test]
fn at_200_by_30_by_mappings() {
    let mut view = view();
    view.by_pages = false;
    view.births = LiveBirths {
        not_watched: Some("the allocator is jemalloc".to_owned()),
        ..LiveBirths::default()
    };
    view.losses = vec![("events", 12), ("truncated stacks", 3)];
    view.cost.sampling_rate = None;
    insta::assert_snapshot!(screen(&mut state_with(view), (200, 30)));
}

#[test]
fn with_help() {
    let mut state = state_with(view());
    press(&mut state, &[Key::Letter('?')]);
    insta::assert_snapshot!(screen(&mut state, (80, 24)));
}

#[test]
fn with_a_filter_being_typed() {
    let mut state = state_with(view());
    press(&mut state, &[Key::Letter('/')]);
    "upload"
        .chars()
        .for_each(|letter| press(&mut state, &[Key::Letter(letter)]));
    insta::assert_snapshot!(screen(&mut state, (80, 24)));
}

#[test]
fn with_the_question_at_the_end_and_a_name_that_is_taken() {
    let mut state = state_with(view());
    press(&mut state, &[Key::Letter('q')]);
    let asked = screen(&mut state, (80, 24));
    press(&mut state, &[Key::Letter('s'), Key::Enter]);
    state.update(Event::Checked(Err(
        "there is something of this name already: give another".to_owned(),
    )));
    insta::assert_snapshot!(format!("{asked}\n{}", screen(&mut state, (80, 24))));
}

#[test]
fn with_the_target_gone_and_a_file_to_write() {
    let mut state = state_with(view());
    press(&mut state, &[Key::Letter('w'), Key::Enter]);
    state.update(Event::Checked(Ok(())));
    state.update(Event::Ended(EndedBy::TargetExit));
    insta::assert_snapshot!(screen(&mut state, (100, 24)));
}

#[test]
fn before_anything_is_known() {
    let mut state = State::new(About {
        pid: 4242,
        comm: "server".to_owned(),
        ends_after: Some(60.0),
    });
    insta::assert_snapshot!(screen(&mut state, (80, 24)));
    state.update(Event::View(Arc::new(View {
        elapsed: 1.0,
        by_pages: true,
        ..View::default()
    })));
    insta::assert_snapshot!("with_nothing_held", screen(&mut state, (80, 12)));
}

fn hostile() -> State {
    let evil = "\x1b[2J\x1b]0;pwned\x07\u{202e}gnp\n\u{9b}31m漢字\u{200b}";
    let mut view = view();
    view.rows = (1..40)
        .map(|id| {
            let function = format!("{evil}{}{id}", "漢".repeat(30_000));
            let frames = vec![
                frame(
                    &function,
                    &format!("/{evil}"),
                    1,
                    &format!("/tmp/{evil}"),
                    id % 2 == 0,
                ),
                frame(evil, evil, 2, evil, false),
            ];
            row(
                id,
                named(frames, GroupBy::Stack),
                u64::from(id) * MIB,
                Some(u64::MAX / 1_000_000),
            )
        })
        .collect();
    for row in &mut view.rows {
        row.threads = vec![evil.to_owned(); 8];
    }
    view.held_bytes = u64::MAX;
    view.growth = Some(i64::MIN);
    view.births.not_watched = Some(evil.to_owned());
    view.verdict = Some(Judged {
        kind: evil.to_owned(),
        summary: format!("{evil} {}", "x".repeat(5000)),
        confidence: Some(f64::NAN),
    });
    let mut state = State::new(About {
        pid: u32::MAX,
        comm: evil.to_owned(),
        ends_after: Some(1e300),
    });
    state.update(Event::View(Arc::new(view)));
    state
}

#[test]
fn with_hostile_names() {
    insta::assert_snapshot!(screen(&mut hostile(), (80, 24)));
}

#[test]
fn at_every_small_size_and_a_few_large_ones_it_is_drawn_and_inert() {
    let heights = || (1..10).chain([13, 14, 19, 20, 29]);
    let widths = (1..12).chain([16, 20, 25, 39]);
    let sizes = widths.flat_map(|width| heights().map(move |height| (width, height)));
    for size in sizes.chain([(200, 60), (500, 3), (3, 200)]) {
        for keys in [
            &[][..],
            &[Key::Letter('?')],
            &[Key::Letter('q')],
            &[Key::Letter('w')],
            &[Key::Enter, Key::End],
        ] {
            let mut state = hostile_once();
            press(&mut state, keys);
            let terminal = terminal(&mut state, true, size);
            for cell in terminal.backend().buffer().content() {
                let inert = cell
                    .symbol()
                    .chars()
                    .all(|letter| !letter.is_control() && letter != '\u{202e}');
                assert!(inert, "{:?} at {size:?}", cell.symbol());
            }
        }
    }
}

/// Made once: its names are long.
fn hostile_once() -> State {
    thread_local! {
        static STATE: State = hostile();
    }
    STATE.with(State::clone)
}

#[test]
fn at_1_by_1_and_20_by_5() {
    let mut state = state_with(view());
    insta::assert_snapshot!(format!(
        "{}\n{}",
        screen(&mut state, (1, 1)),
        screen(&mut state, (20, 5))
    ));
}

#[test]
fn without_colour_there_is_none_and_what_is_selected_is_still_seen() {
    let mut state = state_with(view());
    let plain = terminal(&mut state, false, (100, 30));
    let cells = || plain.backend().buffer().content().iter();
    assert!(cells().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(cells().any(|cell| cell.modifier.contains(ratatui::style::Modifier::REVERSED)));
    let coloured = terminal(&mut state, true, (100, 30));
    assert!(
        coloured
            .backend()
            .buffer()
            .content()
            .iter()
            .any(|cell| cell.fg == Color::Red)
    );
}

proptest! {
    /// Whatever is pressed, at whatever size, however many rows come and go.
    #[test]
    fn no_keys_and_no_size_make_it_panic(
        steps in proptest::collection::vec((0usize..24, 1u16..130, 1u16..50, 0usize..40), 1..30),
    ) {
        let keys = [
            Key::Letter('q'), Key::Letter('?'), Key::Letter('/'), Key::Letter('s'), Key::Letter('r'), Key::Letter('p'),
            Key::Letter('w'), Key::Letter('g'), Key::Letter('G'), Key::Letter('x'), Key::Control('u'), Key::Enter,
            Key::Escape, Key::Tab, Key::Backspace, Key::Up, Key::Down, Key::PageUp, Key::PageDown, Key::Home, Key::End,
            Key::Help, Key::Control('c'), Key::Control('f'),
        ];
        let mut state = state_with(view());
        for (key, width, height, rows) in steps {
            press(&mut state, &keys[key..=key]);
            let mut next = view();
            next.rows = (1..=rows).map(|id| row(u32::try_from(id).unwrap(), server(&format!("f{id}")), 1 << (id % 60), None)).collect();
            state.update(Event::View(Arc::new(next)));
            terminal(&mut state, true, (width, height));
            let at = state.selected_index();
            prop_assert!(at.is_none_or(|at| at >= state.list_from));
        }
    }
}
