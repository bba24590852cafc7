//! What the screen shows, and what keys do to it. Pure: keys, views and answers come in as values, and what is to be done
//! outside goes out as an [`Effect`].

use std::sync::Arc;

use super::order::{Sort, arranged};
use super::view::{About, Row, View};
use crate::report::model::EndedBy;
use crate::unwind::StackId;

/// Letters of a filter or a file name.
const INPUT_MOST: usize = 200;

/// A key, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Letter(char),
    /// With Ctrl.
    Control(char),
    Enter,
    Escape,
    Tab,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Help,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    Key(Key),
    View(Arc<View>),
    /// The recording has ended; the screen stays until somebody quits.
    Ended(EndedBy),
    /// The answer to [`Effect::Check`]: what is wrong with the name, if anything.
    Checked(Result<(), String>),
    /// The rows that the list and the stack have room for.
    Room {
        list: usize,
        stack: usize,
    },
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// See whether a file of this name can be made.
    Check(String),
    Quit,
}

/// Where keys go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    Browse,
    Help {
        from: usize,
    },
    /// The filter is being typed; `before` is what it was.
    Filter {
        before: String,
    },
    Quit,
    /// The name of the file that is to be written when the recording has ended.
    Save {
        name: String,
        problem: Option<String>,
        /// Quits when the name is good.
        quits: bool,
    },
}

/// Which pane the arrow keys move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    List,
    Stack,
}

/// A row, told again when the ranking has changed.
#[derive(Clone, Debug)]
struct Selected {
    key: Arc<str>,
    /// Its largest stack: names that come later change the key.
    stack: Option<StackId>,
}

/// All there is to know of the screen.
#[derive(Clone, Debug)]
pub struct State {
    pub about: About,
    pub mode: Mode,
    pub focus: Focus,
    pub stack_open: bool,
    pub paused: bool,
    pub ended: Option<EndedBy>,
    pub filter: String,
    /// What was chosen; `None`: what tells most.
    chosen: Option<Sort>,
    pub reversed: bool,
    /// The file to write at the end.
    pub save: Option<String>,
    /// Proposed for it.
    pub proposed: String,
    /// What is shown.
    shown: Arc<View>,
    /// The latest, while the shown one stands still.
    waiting: Option<Arc<View>>,
    seen: bool,
    /// The rows of the shown view, as they are arranged.
    order: Vec<usize>,
    selected: Option<Selected>,
    /// Somebody has chosen it; until then it is the first row, whichever that is.
    chosen_row: bool,
    /// First row of the list on the screen, and first line of the stack.
    pub list_from: usize,
    pub stack_from: usize,
    list_room: usize,
    stack_room: usize,
}

impl State {
    #[must_use]
    pub fn new(about: About) -> Self {
        let proposed = proposed_name(&about);
        Self {
            about,
            mode: Mode::Browse,
            focus: Focus::List,
            stack_open: true,
            paused: false,
            ended: None,
            filter: String::new(),
            chosen: None,
            reversed: false,
            save: None,
            proposed,
            shown: Arc::new(View::default()),
            waiting: None,
            seen: false,
            order: Vec::new(),
            selected: None,
            chosen_row: false,
            list_from: 0,
            stack_from: 0,
            list_room: 1,
            stack_room: 1,
        }
    }

    #[must_use]
    pub fn view(&self) -> &View {
        &self.shown
    }

    /// Whether there was a view yet.
    #[must_use]
    pub fn has_view(&self) -> bool {
        self.seen
    }

    #[must_use]
    pub fn sort(&self) -> Sort {
        self.chosen.unwrap_or_else(|| Sort::best(&self.shown))
    }

    /// The rows that the filter lets through, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        let rows = &self.shown.rows;
        self.order
            .iter()
            .filter_map(|index| rows.get(*index))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Index among [`Self::rows`].
    #[must_use]
    pub fn selected_index(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        let by_key = self.rows().position(|row| row.key == selected.key);
        by_key.or_else(|| {
            let stack = selected.stack?;
            self.rows().position(|row| row.has(stack))
        })
    }

    #[must_use]
    pub fn selected(&self) -> Option<&Row> {
        self.selected_index().and_then(|index| self.rows().nth(index))
    }

    /// Takes what happened, and says what is to be done.
    pub fn update(&mut self, event: Event) -> Effect {
        match event {
            Event::Key(key) => return self.key(key),
            Event::View(view) if self.paused && self.seen => self.waiting = Some(view),
            Event::View(view) => self.show(view),
            Event::Ended(by) => {
                self.ended = Some(by);
            }
            Event::Checked(answer) => return self.checked(answer),
            Event::Room { list, stack } => {
                (self.list_room, self.stack_room) = (list.max(1), stack.max(1));
                self.keep_in_sight();
            }
        }
        Effect::Nothing
    }

    fn show(&mut self, view: Arc<View>) {
        self.shown = view;
        self.seen = true;
        self.arrange();
    }

    /// Puts the rows in order; who was selected stays so, wherever it stands now.
    fn arrange(&mut self) {
        self.order = arranged(&self.shown, self.sort(), self.reversed, &self.filter);
        match self.selected_index().filter(|_| self.chosen_row) {
            Some(index) => self.select(index),
            // Nothing was, or it is gone: the first.
            None => self.select(0),
        }
    }

    fn select(&mut self, index: usize) {
        let last = self.order.len().saturating_sub(1);
        let row = self.rows().nth(index.min(last));
        let selected = row.map(|row| Selected {
            key: Arc::clone(&row.key),
            stack: row.stacks.first().map(|stack| stack.id),
        });
        let same = match (&self.selected, &selected) {
            (Some(before), Some(now)) => before.key == now.key || before.stack == now.stack,
            _ => false,
        };
        if !same {
            self.stack_from = 0;
        }
        // A row that a filter hides is still the one when it is shown again.
        if selected.is_some() {
            self.selected = selected;
        }
        self.keep_in_sight();
    }

    fn keep_in_sight(&mut self) {
        let at = self.selected_index().unwrap_or(0);
        let most = self.order.len().saturating_sub(self.list_room);
        let from = self.list_from.min(most);
        self.list_from = from.clamp(at.saturating_sub(self.list_room - 1), at);
        let lines = self.stack_lines();
        self.stack_from = self.stack_from.min(lines.saturating_sub(1));
    }

    fn stack_lines(&self) -> usize {
        let stack = self.selected().and_then(|row| row.stacks.first());
        stack.map_or(0, |stack| stack.named.frames.len())
    }

    fn key(&mut self, key: Key) -> Effect {
        if key == Key::Control('c') {
            return Effect::Quit;
        }
        match std::mem::replace(&mut self.mode, Mode::Browse) {
            Mode::Browse => self.browse(key),
            Mode::Help { from } => self.help(key, from),
            Mode::Filter { before } => self.type_filter(key, before),
            Mode::Quit => self.quit_dialog(key),
            Mode::Save { name, quits, .. } => self.type_name(key, name, quits),
        }
    }

    fn browse(&mut self, key: Key) -> Effect {
        match key {
            Key::Letter('q') => self.mode = Mode::Quit,
            Key::Escape if self.focus == Focus::Stack => self.focus = Focus::List,
            Key::Escape if !self.filter.is_empty() => {
                self.filter.clear();
                self.arrange();
            }
            Key::Escape => self.mode = Mode::Quit,
            Key::Letter('?' | 'h') | Key::Help => self.mode = Mode::Help { from: 0 },
            Key::Letter('/') => {
                self.mode = Mode::Filter {
                    before: self.filter.clone(),
                };
            }
            Key::Letter('s') => {
                self.chosen = Some(self.sort().next(self.shown.births.watched));
                self.arrange();
            }
            Key::Letter('r') => {
                self.reversed = !self.reversed;
                self.arrange();
            }
            Key::Letter('p' | ' ') => self.pause(),
            Key::Letter('w') => self.ask_name(false),
            Key::Enter => {
                self.stack_open = !self.stack_open;
                self.focus = Focus::List;
            }
            Key::Tab if self.stack_open => {
                self.focus = match self.focus {
                    Focus::List => Focus::Stack,
                    Focus::Stack => Focus::List,
                };
            }
            _ => self.step(key),
        }
        Effect::Nothing
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(view) = self.waiting.take()
        {
            self.show(view);
        }
    }

    fn step(&mut self, key: Key) {
        let (at, last, page) = match self.focus {
            Focus::List => {
                let last = self.order.len().saturating_sub(1);
                (self.selected_index().unwrap_or(0), last, self.list_room)
            }
            Focus::Stack => {
                let last = self.stack_lines().saturating_sub(self.stack_room);
                (self.stack_from, last, self.stack_room)
            }
        };
        let Some(to) = stepped(key, at, last, page) else {
            return;
        };
        match self.focus {
            Focus::List => self.select(to),
            Focus::Stack => self.stack_from = to,
        }
        self.chosen_row = true;
        if key == Key::Home && self.focus == Focus::List {
            // The first row again, whichever that is.
            self.chosen_row = false;
        }
    }

    fn help(&mut self, key: Key, from: usize) -> Effect {
        // The screen knows how long it is.
        if let Some(from) = stepped(key, from, HELP_MOST, 8) {
            self.mode = Mode::Help { from };
        }
        Effect::Nothing
    }

    fn type_filter(&mut self, key: Key, before: String) -> Effect {
        match key {
            Key::Enter => return Effect::Nothing,
            Key::Escape => {
                self.filter = before;
                self.arrange();
                return Effect::Nothing;
            }
            Key::Up | Key::Down | Key::PageUp | Key::PageDown => self.step(key),
            _ => {
                if typed(&mut self.filter, key) {
                    self.arrange();
                }
            }
        }
        self.mode = Mode::Filter { before };
        Effect::Nothing
    }

    fn quit_dialog(&mut self, key: Key) -> Effect {
        match key {
            Key::Enter | Key::Letter('q' | 'y') => return Effect::Quit,
            Key::Letter('s' | 'w') => self.ask_name(true),
            Key::Escape | Key::Letter('n') => {}
            _ => self.mode = Mode::Quit,
        }
        Effect::Nothing
    }

    fn ask_name(&mut self, quits: bool) {
        self.mode = Mode::Save {
            name: self.save.clone().unwrap_or_else(|| self.proposed.clone()),
            problem: None,
            quits,
        };
    }

    fn type_name(&mut self, key: Key, mut name: String, quits: bool) -> Effect {
        match key {
            Key::Escape => {
                if quits {
                    self.mode = Mode::Quit;
                } else {
                    // Not to be saved after all.
                    self.save = None;
                }
                return Effect::Nothing;
            }
            Key::Enter if !name.is_empty() => {
                let problem = None;
                self.mode = Mode::Save {
                    name: name.clone(),
                    problem,
                    quits,
                };
                return Effect::Check(name);
            }
            _ => {
                typed(&mut name, key);
            }
        }
        self.mode = Mode::Save {
            name,
            problem: None,
            quits,
        };
        Effect::Nothing
    }

    fn checked(&mut self, answer: Result<(), String>) -> Effect {
        let Mode::Save { name, problem, quits } = &mut self.mode else {
            return Effect::Nothing;
        };
        match answer {
            Err(why) => {
                *problem = Some(why);
                Effect::Nothing
            }
            Ok(()) => {
                self.save = Some(std::mem::take(name));
                let quits = *quits;
                self.mode = Mode::Browse;
                if quits { Effect::Quit } else { Effect::Nothing }
            }
        }
    }
}

/// No help is longer.
const HELP_MOST: usize = 64;

/// Where a key leads from line `at`; `None` for one that leads nowhere.
fn stepped(key: Key, at: usize, last: usize, page: usize) -> Option<usize> {
    let page = page.saturating_sub(1).max(1);
    let to = match key {
        Key::Up | Key::Letter('k') => at.saturating_sub(1),
        Key::Down | Key::Letter('j') => at + 1,
        Key::PageUp | Key::Control('b') => at.saturating_sub(page),
        Key::PageDown | Key::Control('f') => at + page,
        Key::Home | Key::Letter('g') => 0,
        Key::End | Key::Letter('G') => last,
        _ => return None,
    };
    Some(to.min(last))
}

/// Types into a line; whether it has changed.
fn typed(line: &mut String, key: Key) -> bool {
    match key {
        Key::Letter(letter) if !letter.is_control() && line.chars().count() < INPUT_MOST => {
            line.push(letter);
            true
        }
        Key::Backspace | Key::Control('h') => line.pop().is_some(),
        Key::Control('u') => {
            let had = !line.is_empty();
            line.clear();
            had
        }
        _ => false,
    }
}

/// `leakwatch-COMM-PID.json`, of letters that no shell minds.
fn proposed_name(about: &About) -> String {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-') {
            letter
        } else {
            '_'
        }
    };
    let comm: String = about.comm.chars().take(16).map(plain).collect();
    format!("leakwatch-{comm}-{}.json", about.pid)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
