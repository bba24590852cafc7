//! What keys and views do to the screen's state.

use std::sync::Arc;

use super::super::naming::named;
use super::super::view::{About, Named, Row, RowStack, View};
use super::*;
use crate::diagnose::rank::{Evidence, GroupBy, Via};
use crate::session::live::Blocks;
use crate::symbolize::SymbolizedFrame;

fn stack_of(function: &str) -> Arc<Named> {
    let frame = |function: &str| SymbolizedFrame {
        function: Some(function.into()),
        module: Some("/usr/bin/server".into()),
        ..SymbolizedFrame::default()
    };
    Arc::new(named(
        vec![frame("malloc"), frame(function), frame("main")],
        GroupBy::Stack,
    ))
}

fn row(id: u32, function: &str, bytes: u64) -> Row {
    let named = stack_of(function);
    Row {
        key: named.key.clone(),
        label: named.label.clone(),
        module: named.module.clone(),
        bytes,
        gained: 2 * bytes,
        surviving: None,
        rate: Some(bytes as f64),
        events: 1,
        last_seen: f64::from(id),
        stacks: vec![RowStack {
            id: StackId(id),
            via: Via::Fault,
            evidence: Evidence::Pages,
            bytes,
            complete: true,
            named: named.clone(),
        }],
        threads: Vec::new(),
        processes: vec![1],
        haystack: named.haystack.clone(),
    }
}

fn view(rows: &[(u32, &str, u64)]) -> Arc<View> {
    Arc::new(View {
        elapsed: 10.0,
        by_pages: true,
        rows: rows
            .iter()
            .map(|(id, name, bytes)| row(*id, name, *bytes))
            .collect(),
        ..View::default()
    })
}

fn state() -> State {
    let mut state = State::new(About {
        pid: 42,
        comm: "my server".to_owned(),
        ends_after: None,
    });
    state.update(Event::Room { list: 3, stack: 2 });
    state
}

fn shown(state: &State) -> Vec<&str> {
    state.rows().map(|row| &*row.label).collect()
}

fn press(state: &mut State, keys: &[Key]) -> Effect {
    let mut effect = Effect::Nothing;
    for key in keys {
        effect = state.update(Event::Key(*key));
    }
    effect
}

fn type_in(state: &mut State, text: &str) {
    text.chars().for_each(|letter| {
        press(state, &[Key::Letter(letter)]);
    });
}

fn label(state: &State) -> &str {
    state.selected().map_or("", |row| &row.label)
}

#[test]
fn the_selection_stays_on_its_site_when_the_ranking_changes() {
    let mut state = state();
    state.update(Event::View(view(&[(1, "a", 30), (2, "b", 20), (3, "c", 10)])));
    assert_eq!((shown(&state), label(&state)), (vec!["a", "b", "c"], "a"));
    press(&mut state, &[Key::Down, Key::Letter('j')]);
    assert_eq!(label(&state), "c");
    state.update(Event::View(view(&[(1, "a", 30), (2, "b", 20), (3, "c", 100)])));
    assert_eq!((shown(&state), label(&state)), (vec!["c", "a", "b"], "c"));
    // It is another's turn where it is gone.
    state.update(Event::View(view(&[(1, "a", 30), (2, "b", 40)])));
    assert_eq!(label(&state), "b");
}

#[test]
fn until_somebody_moves_the_first_is_selected_whichever_it_is() {
    let mut state = state();
    state.update(Event::View(view(&[(1, "a", 30), (2, "b", 20)])));
    assert_eq!(label(&state), "a");
    let turned = view(&[(1, "a", 30), (2, "b", 50)]);
    state.update(Event::View(turned.clone()));
    assert_eq!(label(&state), "b");
    press(&mut state, &[Key::Down, Key::Up]);
    state.update(Event::View(view(&[(1, "a", 90), (2, "b", 50)])));
    assert_eq!(label(&state), "b");
    press(&mut state, &[Key::Home]);
    assert_eq!(label(&state), "a");
    state.update(Event::View(turned));
    assert_eq!(label(&state), "b");
}

#[test]
fn the_selection_stays_when_a_stack_gets_its_names() {
    let mut state = state();
    state.update(Event::View(view(&[
        (1, "server+0x10", 30),
        (2, "server+0x20", 20),
    ])));
    press(&mut state, &[Key::Down]);
    state.update(Event::View(view(&[(1, "first", 30), (2, "second", 20)])));
    assert_eq!(label(&state), "second");
}

#[test]
fn the_list_follows_the_selection_and_no_key_leads_out_of_it() {
    let names: Vec<String> = (0..10).map(|index| format!("f{index}")).collect();
    let rows: Vec<(u32, &str, u64)> = (0u32..10)
        .map(|id| (id, &*names[id as usize], 100 - u64::from(id)))
        .collect();
    let mut state = state();
    state.update(Event::View(view(&rows)));
    for (key, selected, from) in [
        (Key::Down, 1, 0),
        (Key::End, 9, 7),
        (Key::Down, 9, 7),
        (Key::Up, 8, 7),
        (Key::PageUp, 6, 6),
        (Key::PageDown, 8, 6),
        (Key::Home, 0, 0),
        (Key::Up, 0, 0),
        (Key::Letter('G'), 9, 7),
        (Key::Letter('g'), 0, 0),
        (Key::Control('f'), 2, 0),
    ] {
        press(&mut state, &[key]);
        assert_eq!(
            (state.selected_index(), state.list_from),
            (Some(selected), from),
            "{key:?}"
        );
    }
    // A smaller screen, and fewer rows.
    press(&mut state, &[Key::End]);
    state.update(Event::Room { list: 1, stack: 1 });
    assert_eq!(state.list_from, 9);
    state.update(Event::View(view(&rows[..2])));
    assert!(state.list_from < 2 && state.selected().is_some());
    state.update(Event::View(view(&[])));
    press(
        &mut state,
        &[Key::Down, Key::End, Key::PageDown, Key::Tab, Key::Down, Key::End],
    );
    assert_eq!((state.selected_index(), state.list_from), (None, 0));
}

#[test]
fn sorts_go_round_and_are_turned() {
    let mut state = state();
    let rows = [(1, "b", 30), (3, "a", 20), (2, "c", 10)];
    state.update(Event::View(view(&rows)));
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push((state.sort(), shown(&state).join("")));
        press(&mut state, &[Key::Letter('s')]);
    }
    let seen: Vec<(Sort, &str)> = seen.iter().map(|(sort, order)| (*sort, &**order)).collect();
    // Births are not watched: nothing to sort by there.
    assert_eq!(
        seen,
        [
            (Sort::Held, "bac"),
            (Sort::Rate, "bac"),
            (Sort::Kept, "bac"),
            (Sort::Recent, "acb"),
            (Sort::Name, "abc"),
        ]
    );
    assert_eq!(state.sort(), Sort::Held);
    press(&mut state, &[Key::Letter('r')]);
    assert_eq!(shown(&state), ["c", "a", "b"]);
}

#[test]
fn survivors_rank_once_they_tell_and_a_choice_is_kept() {
    let with = |alive: u64| {
        let mut view = View::clone(&view(&[(1, "churn", 1000), (2, "leak", 10)]));
        view.births.watched = true;
        view.births.blocks = Blocks { followed: 50, alive };
        let blocks = Blocks { followed: 50, alive };
        view.rows[1].surviving = Some((4096, blocks));
        Arc::new(view)
    };
    let mut state = state();
    state.update(Event::View(with(3)));
    assert_eq!((state.sort(), shown(&state)), (Sort::Held, vec!["churn", "leak"]));
    state.update(Event::View(with(30)));
    assert_eq!(
        (state.sort(), shown(&state)),
        (Sort::Surviving, vec!["leak", "churn"])
    );
    press(&mut state, &[Key::Letter('s')]);
    state.update(Event::View(with(300)));
    assert_eq!(state.sort(), Sort::Held);
}

#[test]
fn a_filter_hides_what_has_it_nowhere_and_escape_takes_it_back() {
    let mut state = state();
    state.update(Event::View(view(&[
        (1, "Upload", 30),
        (2, "render", 20),
        (3, "load_all", 10),
    ])));
    press(&mut state, &[Key::Down]);
    press(&mut state, &[Key::Letter('/')]);
    // Keys are letters now.
    type_in(&mut state, "LOADq");
    press(&mut state, &[Key::Backspace]);
    assert_eq!(
        (shown(&state), state.mode.clone()),
        (
            vec!["Upload", "load_all"],
            Mode::Filter {
                before: String::new()
            }
        )
    );
    press(&mut state, &[Key::Enter]);
    assert_eq!(
        (state.filter.as_str(), state.mode.clone()),
        ("LOAD", Mode::Browse)
    );
    // It is true of later views, and of the functions further out.
    state.update(Event::View(view(&[(1, "Upload", 30), (4, "download", 90)])));
    assert_eq!(shown(&state), ["download", "Upload"]);
    press(&mut state, &[Key::Letter('/'), Key::Control('u')]);
    type_in(&mut state, "main");
    assert_eq!(shown(&state).len(), 2);
    type_in(&mut state, "nothing has this");
    assert_eq!((shown(&state).len(), state.selected_index()), (0, None));
    press(&mut state, &[Key::Escape]);
    assert_eq!(state.filter, "LOAD");
    press(&mut state, &[Key::Escape]);
    assert_eq!((state.filter.as_str(), state.mode.clone()), ("", Mode::Browse));
}

#[test]
fn paused_it_stands_still_and_then_is_up_to_date_at_once() {
    let mut state = state();
    // Nothing stands still before there is anything.
    press(&mut state, &[Key::Letter('p')]);
    state.update(Event::View(view(&[(1, "a", 1)])));
    assert_eq!(shown(&state), ["a"]);
    state.update(Event::View(view(&[(2, "b", 1)])));
    state.update(Event::View(view(&[(3, "c", 1)])));
    assert!(state.paused);
    assert_eq!(shown(&state), ["a"]);
    press(&mut state, &[Key::Letter(' ')]);
    assert_eq!((shown(&state), state.paused), (vec!["c"], false));
    press(&mut state, &[Key::Letter('p'), Key::Letter('p')]);
    assert_eq!(shown(&state), ["c"]);
}

#[test]
fn quitting_is_asked_once_and_control_c_does_not_ask() {
    for key in [Key::Letter('q'), Key::Escape] {
        let mut state = state();
        assert_eq!(press(&mut state, &[key]), Effect::Nothing);
        assert_eq!(state.mode, Mode::Quit);
        assert_eq!(
            press(&mut state, &[Key::Letter('x'), Key::Escape]),
            Effect::Nothing
        );
        assert_eq!(state.mode, Mode::Browse);
        assert_eq!(press(&mut state, &[key, Key::Enter]), Effect::Quit);
    }
    for keys in [
        &[][..],
        &[Key::Letter('?')],
        &[Key::Letter('/')],
        &[Key::Letter('w')],
        &[Key::Letter('q')],
    ] {
        let mut state = state();
        press(&mut state, keys);
        assert_eq!(press(&mut state, &[Key::Control('c')]), Effect::Quit, "{keys:?}");
        assert_eq!(state.save, None);
    }
}

#[test]
fn a_name_is_proposed_checked_and_kept() {
    let mut state = state();
    press(&mut state, &[Key::Letter('q')]);
    assert_eq!(
        press(&mut state, &[Key::Letter('s'), Key::Enter]),
        Effect::Check("leakwatch-my_server-42.json".to_owned())
    );
    state.update(Event::Checked(Err("it is there".to_owned())));
    let Mode::Save { problem, .. } = &state.mode else {
        panic!("{:?}", state.mode)
    };
    assert_eq!(problem.as_deref(), Some("it is there"));
    press(&mut state, &[Key::Control('u')]);
    assert_eq!(press(&mut state, &[Key::Enter]), Effect::Nothing, "no name");
    type_in(&mut state, "q.json");
    assert_eq!(
        press(&mut state, &[Key::Enter]),
        Effect::Check("q.json".to_owned())
    );
    assert_eq!(state.update(Event::Checked(Ok(()))), Effect::Quit);
    assert_eq!(state.save.as_deref(), Some("q.json"));

    // Meanwhile, without quitting; and not after all.
    let mut state = self::state();
    press(&mut state, &[Key::Letter('w'), Key::Enter]);
    assert_eq!(state.update(Event::Checked(Ok(()))), Effect::Nothing);
    assert_eq!((state.save.is_some(), state.mode.clone()), (true, Mode::Browse));
    press(&mut state, &[Key::Letter('w'), Key::Escape]);
    assert_eq!(state.save, None);
    // An answer that nobody waits for.
    assert_eq!(state.update(Event::Checked(Ok(()))), Effect::Nothing);
}

#[test]
fn the_stack_scrolls_while_it_has_the_keys() {
    let mut state = state();
    state.update(Event::View(view(&[(1, "a", 30), (2, "b", 20)])));
    press(&mut state, &[Key::Tab, Key::Down, Key::Down, Key::Down]);
    assert_eq!(
        (state.focus, state.stack_from, label(&state)),
        (Focus::Stack, 1, "a")
    );
    press(&mut state, &[Key::Escape, Key::Down]);
    assert_eq!(
        (state.focus, state.stack_from, label(&state)),
        (Focus::List, 0, "b")
    );
    press(&mut state, &[Key::Enter, Key::Tab]);
    assert_eq!((state.stack_open, state.focus), (false, Focus::List));
}

#[test]
fn what_is_typed_is_bounded() {
    let mut state = state();
    press(&mut state, &[Key::Letter('/')]);
    type_in(&mut state, &"é".repeat(5000));
    press(&mut state, &[Key::Letter('\u{1b}')]);
    assert_eq!(state.filter.chars().count(), INPUT_MOST);
    let hostile = State::new(About {
        pid: 1,
        comm: "../\x1b[31m-x/yé".to_owned(),
        ends_after: None,
    });
    assert_eq!(hostile.proposed, "leakwatch-..___31m-x_y_-1.json");
}
