//! `leakwatch top`: a recording without an end that was set, shown while it goes on.
//!
//! Four threads, so that none waits for another: the session drains the ring and takes snapshots; `digest` makes views
//! of them, names included; the screen's thread draws views and reads keys; and this one is the session's. Between them
//! there is room for the latest of each ([`mailbox`]), and what was not taken in time is dropped.
//!
//! [`state`] and [`screen`] are pure. [`terminal`] is the rim: it is given back as it was at every end, by an error, a
//! signal or a panic ([`panics`]) too.

mod digest;
mod keyboard;
pub mod mailbox;
pub mod naming;
pub mod order;
pub mod panics;
pub mod rows;
pub mod screen;
pub mod state;
pub mod terminal;
pub mod view;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::Notify;

use crate::report::escape::escape;
use crate::report::model::{EndedBy, Recording};
use crate::session::live::{Snapshot, Viewer};
use crate::session::{self, Progress, RecordOptions};
use keyboard::{Quit, SIGNALS, Signalled};
use mailbox::Mailbox;
use terminal::Terminal;
use view::{About, View};

pub use screen::Theme;

/// The screen's thread may hang in a write to a terminal that takes nothing; so long is waited for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is left when the screen is gone.
#[derive(Debug)]
pub struct Finished {
    pub recording: Recording,
    /// The file that the user wants it in.
    pub save: Option<String>,
}

/// Records, and shows how it goes until the user quits, a signal comes, or the window ends.
///
/// # Errors
///
/// When the terminal cannot be taken, or as [`session::record`].
pub fn run(options: &RecordOptions, theme: Theme) -> Result<Finished> {
    let about = About {
        pid: options.target.pid,
        comm: options.target.comm.clone(),
        ends_after: (!options.open_ended).then_some(options.duration.as_secs_f64()),
    };
    let signals = Signalled::catch().context("cannot catch signals")?;
    let snapshots = Arc::new(Mailbox::default());
    let views = Arc::new(Mailbox::default());
    let ended = Arc::new(Mailbox::default());
    let stop = Arc::new(Notify::new());
    panics::hold_back();
    let terminal = Terminal::take().context("cannot draw on this terminal")?;
    let screen = {
        let (views, ended, stop) = (Arc::clone(&views), Arc::clone(&ended), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                let _last = Gone(stop);
                let quit = keyboard::run(terminal, about, theme, &views, &ended, &signals)?;
                if !quit.ended {
                    tell("the recording ends: reading the heap and the pages, and making the report");
                }
                Ok(quit)
            })
            .context("cannot start the screen's thread")?
    };
    // Whatever becomes of the session, the terminal is given back.
    let mut screen = Screen {
        thread: Some(screen),
        snapshots: Arc::clone(&snapshots),
        ended,
    };
    let digest = {
        let (snapshots, by) = (Arc::clone(&snapshots), options.group_by);
        std::thread::Builder::new()
            .name("digest".to_owned())
            .spawn(move || digest::run(&snapshots, &views, by))
            .context("cannot start the thread that makes views")?
    };
    let mut live = Live { snapshots, stop };
    let recorded = session::record(options, &mut live);
    let how = recorded
        .as_ref()
        .map_or(EndedBy::Interrupt, |recording| recording.window.ended_by);
    let left = screen.end(how, recorded.is_ok());
    live.snapshots.close();
    drop(digest);
    session::default_signals(&SIGNALS);
    let recording = recorded?;
    let save = match left {
        Left::Quit(save) => save,
        Left::Failed(why) => {
            // The recording is worth more than the screen.
            tell(&format!("the screen failed: {why}"));
            None
        }
    };
    Ok(Finished { recording, save })
}

fn tell(line: &str) {
    use std::io::Write as _;
    let line = escape(line);
    let _ = writeln!(std::io::stderr(), "leakwatch: {line}");
}

/// What the session tells, and what ends it.
struct Live {
    snapshots: Arc<Mailbox<Snapshot>>,
    stop: Arc<Notify>,
}

impl Viewer for Live {
    fn show(&mut self, snapshot: Snapshot) {
        keyboard::panic_if_asked("session");
        self.snapshots.put(snapshot);
    }
}

impl Progress for Live {
    fn attached(&mut self, _: Duration) {}
    fn tick(&mut self, _: Duration, _: u64, _: Option<i64>) {}
    fn note(&mut self, _: &str) {}
    fn done(&mut self) {}
    fn viewer(&mut self) -> Option<&mut dyn Viewer> {
        Some(self)
    }
    fn stop(&self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.stop))
    }
}

/// However the screen ends, nobody looks at the recording any more, and who does not want to wait for the report can end
/// leakwatch at once.
struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        session::default_signals(&SIGNALS);
        self.0.notify_one();
    }
}

/// How the screen was left.
#[derive(Debug)]
enum Left {
    /// With a file to write, or none.
    Quit(Option<String>),
    Failed(String),
}

/// The screen's thread.
struct Screen {
    thread: Option<JoinHandle<std::io::Result<Quit>>>,
    snapshots: Arc<Mailbox<Snapshot>>,
    /// How the recording ended.
    ended: Arc<Mailbox<EndedBy>>,
}

impl Screen {
    /// Tells the screen that the recording has ended, and waits for it: after the target's end until the user quits, if there
    /// is anything to see.
    fn end(&mut self, how: EndedBy, worth_seeing: bool) -> Left {
        if worth_seeing {
            self.ended.put(how);
        }
        let stays = worth_seeing && keyboard::stays_after(how);
        self.close(!stays)
    }

    /// Waits for the screen's thread; `hurry`: it is about to end, and if it does not it is left behind.
    fn close(&mut self, hurry: bool) -> Left {
        self.ended.close();
        let Some(thread) = self.thread.take() else {
            return Left::Quit(None);
        };
        let began = Instant::now();
        while hurry && !thread.is_finished() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let left = if hurry && !thread.is_finished() {
            Left::Failed("the terminal takes nothing".to_owned())
        } else {
            match thread.join() {
                Ok(Ok(quit)) => Left::Quit(quit.save),
                Ok(Err(error)) => Left::Failed(error.to_string()),
                Err(_) => Left::Failed("it panicked".to_owned()),
            }
        };
        terminal::give_back();
        let said = panics::release();
        match left {
            Left::Failed(why) if !said.is_empty() => Left::Failed(format!("{why}: {}", said.join("; "))),
            left => {
                // Those that were caught are counted among the losses; this one unwinds.
                if std::thread::panicking() {
                    said.iter().for_each(|line| tell(line));
                }
                left
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close(true);
        self.snapshots.close();
    }
}

/// The latest view, for whoever draws it.
type Views = Mailbox<Arc<View>>;
