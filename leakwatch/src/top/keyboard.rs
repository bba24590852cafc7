//! The screen's loop: views and keys in, drawings out.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Views;
use super::mailbox::{Mailbox, Taken};
use super::screen::Theme;
use super::state::{Effect, Event, Key, State};
use super::terminal::{Input, Terminal, input};
use super::view::About;
use crate::report::model::{EndedBy, Recording};
use crate::report::output::Output;

/// A view or a signal is seen so late at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Keys that are taken before the screen is drawn: who holds one down sees where it leads.
const KEYS_AT_ONCE: usize = 64;

/// Those that end programs of a terminal.
pub const SIGNALS: [libc::c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Whether a signal came.
#[derive(Clone, Debug, Default)]
pub struct Signalled(Arc<AtomicBool>);

impl Signalled {
    /// From now on they are noted rather than deadly.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        let signalled = Self::default();
        for signal in SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&signalled.0))?;
        }
        Ok(signalled)
    }

    fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Whether the screen stays when the recording has ended so: what happened to the target is to be seen.
#[must_use]
pub fn stays_after(how: EndedBy) -> bool {
    matches!(how, EndedBy::TargetExit | EndedBy::TargetExec)
}

/// How the screen was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quit {
    /// The file that the recording is to be written to.
    pub save: Option<String>,
    /// The recording had ended before.
    pub ended: bool,
}

impl Quit {
    fn of(state: State) -> Self {
        Self {
            save: state.save,
            ended: state.ended.is_some(),
        }
    }
}

/// Shows views until the user quits, a signal comes, or the recording ends otherwise than with the target.
///
/// # Errors
///
/// When the terminal is gone.
pub fn run(
    mut terminal: Terminal,
    about: About,
    theme: Theme,
    views: &Views,
    ended: &Mailbox<EndedBy>,
    signals: &Signalled,
) -> io::Result<Quit> {
    let mut state = State::new(about);
    loop {
        terminal.draw(&mut state, theme)?;
        let mut drawn = true;
        // Nothing is drawn where nothing has happened.
        while drawn {
            if signals.came() {
                return Ok(Quit::of(state));
            }
            match ended.take(Duration::ZERO) {
                Taken::Latest(how) if stays_after(how) => {
                    state.update(Event::Ended(how));
                    drawn = false;
                }
                Taken::Closed if state.ended.is_some() => {}
                Taken::Latest(_) | Taken::Closed => return Ok(Quit::of(state)),
                Taken::Nothing => {}
            }
            match views.take(Duration::ZERO) {
                Taken::Latest(view) => {
                    state.update(Event::View(view));
                    drawn = false;
                }
                Taken::Nothing => {}
                // They are made as long as anybody looks.
                Taken::Closed => return Err(io::Error::other("the thread that makes views has ended")),
            }
            let patience = if drawn { LOOK_EVERY } else { Duration::ZERO };
            let mut next = input(patience)?;
            for _ in 0..KEYS_AT_ONCE {
                let Some(input) = next else { break };
                drawn = false;
                if matches!(input, Input::Key(Key::Control('l'))) {
                    terminal.forget()?;
                }
                if let Input::Key(key) = input
                    && press(&mut state, key)
                {
                    return Ok(Quit::of(state));
                }
                next = super::terminal::input(Duration::ZERO)?;
            }
        }
    }
}

/// Whether it was the key that quits.
fn press(state: &mut State, key: Key) -> bool {
    if key == Key::Control('p') {
        panic_if_asked("screen");
    }
    let mut effect = state.update(Event::Key(key));
    if let Effect::Check(name) = &effect {
        let answer = check(Path::new(name));
        effect = state.update(Event::Checked(answer));
    }
    effect == Effect::Quit
}

/// Whether a recording can be written to a new file of this name.
fn check(path: &Path) -> Result<(), String> {
    let output = Output::<Recording>::new(path).map_err(|error| error.to_string())?;
    if std::fs::symlink_metadata(path).is_ok() {
        return Err("there is something of this name already: give another".to_owned());
    }
    output.check().map_err(|error| error.to_string())
}

/// In a debug build, for the test of what becomes of the terminal: panics where the environment asks for it.
pub fn panic_if_asked(place: &str) {
    if cfg!(debug_assertions) && std::env::var_os("LEAKWATCH_TEST_PANIC").is_some_and(|asked| asked == place)
    {
        panic!("asked for, in the {place}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_where_something_stands_or_nothing_can() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("there.json"), "old").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link.json")).unwrap();
        for (name, part) in [
            ("there.json", "already"),
            ("link.json", "already"),
            ("a.xyz", "cannot tell the format"),
            ("no/such/a.json", "folder does not exist"),
        ] {
            let answer = check(&folder.path().join(name)).unwrap_err();
            assert!(answer.contains(part), "{answer}");
        }
        assert_eq!(check(&folder.path().join("new.json")), Ok(()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
