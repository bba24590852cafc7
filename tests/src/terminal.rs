//! A program in a pseudo-terminal, and what a user would see of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::programs;

/// How long a screen may take to show something. Generous: it only bounds a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came out of the program so far.
struct Shown {
    parser: vt100::Parser,
    /// Everything, in case of need.
    bytes: Vec<u8>,
}

/// leakwatch in a terminal of its own. Dropped, it is killed (itself alone) and reaped.
pub struct InTerminal {
    child: Child,
    master: File,
    /// Kept open: a terminal without anybody at its other end forgets its modes.
    slave: File,
    before: libc::termios,
    shown: Arc<Mutex<Shown>>,
    reader: Option<JoinHandle<()>>,
}

impl InTerminal {
    /// Starts leakwatch with these arguments in a terminal of so many columns and rows.
    ///
    /// # Panics
    /// When there is no terminal to be had, or no leakwatch.
    #[must_use]
    pub fn start(
        arguments: &[OsString],
        folder: &Path,
        environment: &[(&str, &str)],
        (columns, rows): (u16, u16),
    ) -> Self {
        let (master, slave) = open(columns, rows);
        let before = modes(&slave);
        let mut command = Command::new(programs::leakwatch());
        let end = |file: &File| Stdio::from(OwnedFd::from(file.try_clone().expect("a descriptor")));
        command
            .args(arguments)
            .current_dir(folder)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(end(&slave))
            .stdout(end(&slave))
            .stderr(end(&slave));
        // SAFETY: both are system calls on the child's own descriptors, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("leakwatch can be started");
        let shown = Arc::new(Mutex::new(Shown {
            parser: vt100::Parser::new(cells(rows), cells(columns), 0),
            bytes: Vec::new(),
        }));
        let reader = {
            let (shown, mut from) = (Arc::clone(&shown), master.try_clone().expect("a descriptor"));
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    let mut shown = shown.lock().expect("no reader panicked");
                    shown.parser.process(&buffer[..count]);
                    shown.bytes.extend_from_slice(&buffer[..count]);
                }
            })
        };
        Self {
            child,
            master,
            slave,
            before,
            shown,
            reader: Some(reader),
        }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Presses keys: letters, or escape sequences as a terminal sends them.
    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal is there");
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.shown
            .lock()
            .expect("no reader panicked")
            .parser
            .screen_mut()
            .set_size(cells(rows), cells(columns));
        set_size(&self.master, columns, rows);
    }

    /// The screen as it is now, a line for each row.
    #[must_use]
    pub fn screen(&self) -> String {
        self.shown
            .lock()
            .expect("no reader panicked")
            .parser
            .screen()
            .contents()
    }

    /// All that came out, as text.
    #[must_use]
    pub fn all(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no reader panicked").bytes).into_owned()
    }

    /// What came out since the program last left the other screen, as text.
    #[must_use]
    pub fn after(&self) -> String {
        const LEFT: &str = "\u{1b}[?1049l";
        let all = self.all();
        all.rsplit_once(LEFT)
            .map_or_else(String::new, |(_, after)| after.to_owned())
    }

    /// Is it on the other screen, as programs are that draw?
    #[must_use]
    pub fn draws(&self) -> bool {
        self.shown
            .lock()
            .expect("no reader panicked")
            .parser
            .screen()
            .alternate_screen()
    }

    /// Waits until the screen is as wanted.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the screen does not come to show {what} ({ended:?}):\n{screen}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                // What it said last is on its way.
                std::thread::sleep(Duration::from_millis(100));
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = i32::try_from(self.pid()).expect("a PID");
        // SAFETY: it is our child, and was not reaped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// The terminal is as it was before: its first screen, its cursor, and its modes.
    ///
    /// # Panics
    /// When it is not.
    pub fn is_as_before(&self) {
        let shown = self.shown.lock().expect("no reader panicked");
        let screen = shown.parser.screen();
        assert!(!screen.alternate_screen(), "the other screen was not left");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        let now = modes(&self.slave);
        let told = |modes: &libc::termios| {
            (
                modes.c_iflag,
                modes.c_oflag,
                modes.c_cflag,
                modes.c_lflag,
                modes.c_cc,
            )
        };
        assert_eq!(told(&now), told(&self.before), "the modes are others");
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The reader sees the end when nobody has the other end any more.
        // SAFETY: the descriptor is replaced at once by one that is valid.
        if let Ok(null) = File::open("/dev/null") {
            self.slave = null;
        }
        drop(self.reader.take());
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a terminal has cells")
}

/// A pseudo-terminal: its two ends.
fn open(columns: u16, rows: u16) -> (File, File) {
    let (mut master, mut slave) = (0, 0);
    // SAFETY: both descriptors are this function's own, and the other arguments may be null.
    let opened = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(
        opened,
        0,
        "no pseudo-terminal: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: openpty returned them, and nothing else owns them.
    let ends = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
    for end in [&ends.0, &ends.1] {
        rustix::io::fcntl_setfd(end.as_fd(), rustix::io::FdFlags::CLOEXEC).expect("a descriptor");
    }
    set_size(&ends.0, columns, rows);
    ends
}

fn set_size(master: &File, columns: u16, rows: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads this struct.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(done, 0);
}

fn modes(terminal: &File) -> libc::termios {
    // SAFETY: plain data, filled in below.
    let mut modes = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes this struct.
    let done = unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut modes) };
    assert_eq!(done, 0);
    modes
}

/// Arguments as they are typed.
#[must_use]
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(|word| OsStr::new(word).to_owned()).collect()
}
