//! The terminal: taken when the screen begins, and given back as it was however it ends.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::Terminal as Drawing;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::layout::Rect;

use super::screen::{self, Parts, Theme};
use super::state::{Event, Key, State};

/// A screen goes out in one piece.
const BUFFER_BYTES: usize = 64 * 1024;

/// Whether the terminal is ours, and has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, while it is ours.
pub struct Terminal {
    drawing: Drawing<CrosstermBackend<BufWriter<File>>>,
}

impl Terminal {
    /// Takes the terminal that stdout is: raw mode, the other screen, no cursor.
    ///
    /// # Errors
    ///
    /// When it cannot be taken; then it is as it was.
    pub fn take() -> io::Result<Self> {
        // Not by `std`'s stdout: whoever hangs in a write would keep its lock from the report.
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        TAKEN.store(true, Ordering::SeqCst);
        let taken = (|| {
            terminal::enable_raw_mode()?;
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
            execute!(
                out,
                terminal::EnterAlternateScreen,
                terminal::Clear(terminal::ClearType::All),
                cursor::Hide
            )?;
            let drawing = Drawing::new(CrosstermBackend::new(out))?;
            Ok(Self { drawing })
        })();
        if taken.is_err() {
            give_back();
        }
        taken
    }

    /// Draws the screen, and tells the state how much room there is.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn draw(&mut self, state: &mut State, theme: Theme) -> io::Result<()> {
        let size = terminal::size()?;
        self.drawing.autoresize()?;
        let (list, stack) = Parts::of(Rect::new(0, 0, size.0, size.1), state).room();
        state.update(Event::Room { list, stack });
        self.drawing
            .draw(|frame| screen::draw(state, theme, frame.area(), frame.buffer_mut()))?;
        Ok(())
    }
}

impl Terminal {
    /// Draws all of it anew the next time, whatever others have written over it.
    ///
    /// # Errors
    ///
    /// When the terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        self.drawing.resize(Rect::new(0, 0, columns, rows))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was, if it was taken. May be called from wherever.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // The modes first: that does not wait, even where output does.
    let _ = terminal::disable_raw_mode();
    if let Ok(out) = io::stdout().as_fd().try_clone_to_owned() {
        let mut out = File::from(out);
        let mut bytes = Vec::new();
        // Into memory: cannot fail.
        let _ = execute!(bytes, terminal::LeaveAlternateScreen, cursor::Show);
        let _ = out.write_all(&bytes);
    }
}

/// What the terminal has to say.
#[derive(Debug)]
pub enum Input {
    Key(Key),
    /// It has another size.
    Resized,
}

/// Waits so long at most for a key or another size.
///
/// # Errors
///
/// When the terminal is gone.
pub fn input(patience: Duration) -> io::Result<Option<Input>> {
    if !event::poll(patience)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        event::Event::Key(key) => key_of(key).map(Input::Key),
        event::Event::Resize(..) => Some(Input::Resized),
        _ => None,
    })
}

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    Some(match key.code {
        KeyCode::Char(letter) if key.modifiers.contains(KeyModifiers::CONTROL) => {
            Key::Control(letter.to_ascii_lowercase())
        }
        KeyCode::Char(_) if key.modifiers.contains(KeyModifiers::ALT) => return None,
        KeyCode::Char(letter) => Key::Letter(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Tab | KeyCode::BackTab => Key::Tab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::F(1) => Key::Help,
        KeyCode::F(10) => Key::Letter('q'),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_they_are_elsewhere() {
        let key = |code, modifiers| key_of(KeyEvent::new(code, modifiers));
        assert_eq!(
            key(KeyCode::Char('G'), KeyModifiers::SHIFT),
            Some(Key::Letter('G'))
        );
        assert_eq!(
            key(KeyCode::Char('C'), KeyModifiers::CONTROL),
            Some(Key::Control('c'))
        );
        assert_eq!(key(KeyCode::F(10), KeyModifiers::NONE), Some(Key::Letter('q')));
        assert_eq!(key(KeyCode::F(1), KeyModifiers::NONE), Some(Key::Help));
        assert_eq!(key(KeyCode::Char('x'), KeyModifiers::ALT), None);
        assert_eq!(key(KeyCode::Insert, KeyModifiers::NONE), None);
    }

    #[test]
    fn what_was_not_taken_is_not_given_back() {
        // It would write to the terminal that the tests run in.
        give_back();
        assert!(!TAKEN.load(Ordering::SeqCst));
    }
}
