//! Who puts probes into a target's text, and takes them out again: a process of its own for each link.
//!
//! The kernel does not write to another process's text on behalf of one that is being killed. Whoever is killed while it
//! attaches or detaches leaves breakpoints there for good, and the kernel says no more than `failed to unregister,
//! leaking uprobe` in its log. So leakwatch itself does neither: a fork of it makes the link when it is told to and ends it
//! when it is told to, again and again. A fork for each burst would copy the page tables of all that leakwatch has by then,
//! at the target's expense.
//!
//! However leakwatch ends, the fork sees the end of a socket, finishes what it is at, and exits: the link goes with it, in a
//! process that nobody is killing. It is in a session of its own, so that what ends a terminal's programs does not end it,
//! and takes no signal but the one that none can refuse. Only who kills a whole control group at once, or this very
//! process, in the milliseconds in which it writes still does that to it.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Of a holder: while it works the target waits. It is a real-time process, the least of them, or where that is not allowed
/// the first among the others, who are let have their turn first.
const REAL_TIME: libc::c_int = 1;
const URGENT: libc::c_int = -20;

/// A process that holds a link, or waits for the word to make it. Dropping it ends the link and the process, and returns
/// when that has been done.
#[derive(Debug)]
pub(super) struct Holder {
    pid: libc::pid_t,
    /// Where it answers, and whose end is its own.
    life: UnixStream,
}

impl Holder {
    /// A fork that makes a link by `attach` whenever it is told to ([`Self::attach`]), in which it may use `descriptors`; all
    /// others it closes. `attach` must neither take memory nor a lock: the fork has one thread of however many there are.
    ///
    /// # Errors
    ///
    /// When there is no process or socket to be had.
    pub fn of(descriptors: &[RawFd], attach: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<Self> {
        let (life, its_end) = UnixStream::pair()?;
        let life_fd = its_end.as_raw_fd();
        let mut kept: Vec<RawFd> = descriptors.iter().copied().chain([life_fd]).collect();
        kept.sort_unstable();
        let signals = Blocked::all();
        // SAFETY: the child calls nothing but system calls, whatever threads the parent has.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: as above; it ends without returning.
                unsafe {
                    libc::setsid();
                    // Without the privileges it stays as it is.
                    libc::setpriority(libc::PRIO_PROCESS, 0, URGENT);
                    // musl's function of this name does nothing.
                    let priority = REAL_TIME;
                    libc::syscall(
                        libc::SYS_sched_setscheduler,
                        0,
                        libc::SCHED_FIFO,
                        &raw const priority,
                    );
                    close_all_but(&kept);
                    hold(life_fd, attach);
                }
            }
            _ => {}
        }
        drop(signals);
        // What the holder does not hold any more must be at its end here.
        drop(its_end);
        Ok(Self { pid, life })
    }

    /// Has the link made, without waiting for it: [`Self::wait`] does.
    ///
    /// # Errors
    ///
    /// When the holder has ended.
    pub fn start(&self) -> io::Result<()> {
        self.tell()
    }

    /// Has the link ended, without waiting for it: [`Self::wait`] does.
    ///
    /// # Errors
    ///
    /// When the holder has ended, and the link with it.
    pub fn detach(&self) -> io::Result<()> {
        self.tell()
    }

    /// Waits until the link is made, or has ended.
    ///
    /// # Errors
    ///
    /// Why it could not be made; or the holder has ended, and the link with it.
    pub fn wait(&self) -> io::Result<()> {
        self.answer()
    }

    fn tell(&self) -> io::Result<()> {
        (&self.life).write_all(&[0])
    }

    fn answer(&self) -> io::Result<()> {
        let mut number = [0; 4];
        (&self.life).read_exact(&mut number)?;
        match i32::from_ne_bytes(number) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Whether the link is still held: who holds it may have been killed.
    pub fn is_alive(&self) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return false;
        };
        // It is left to be reaped by the drop.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(pid), look), Ok(None))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Not by closing it: another fork may have it too. It fails where the holder has ended before.
        let _: io::Result<()> = self.life.shutdown(Shutdown::Write);
        // SAFETY: our own child, not yet reaped, so the number cannot be anybody else's.
        while unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) } == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// Each byte is the word to make the link, or to end it where there is one; the end is the end at any time.
///
/// # Safety
///
/// For a forked child: nothing but system calls are made, if `attach` makes no other.
unsafe fn hold(life: RawFd, mut attach: impl FnMut() -> io::Result<OwnedFd>) -> ! {
    let mut link = None;
    // SAFETY: the caller's promise.
    while unsafe { next_byte(life) } {
        let number = if link.take().is_some() {
            0
        } else {
            match attach() {
                Ok(made) => {
                    link = Some(made);
                    0
                }
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            }
        }
        .to_ne_bytes();
        // SAFETY: the buffer is this function's own. Where nobody asks any more it fails, and the end is there to be read.
        unsafe { libc::send(life, number.as_ptr().cast(), number.len(), libc::MSG_NOSIGNAL) };
    }
    drop(link);
    // SAFETY: nothing of the parent's is cleaned up.
    unsafe { libc::_exit(0) }
}

/// Waits for a byte or the end; whether a byte came.
///
/// # Safety
///
/// `life` is open. Nothing but system calls are made.
unsafe fn next_byte(life: RawFd) -> bool {
    let mut byte = 0_u8;
    loop {
        // SAFETY: the buffer is this function's own.
        match unsafe { libc::read(life, (&raw mut byte).cast(), 1) } {
            1 => return true,
            // SAFETY: this thread's own.
            -1 if unsafe { *libc::__errno_location() } == libc::EINTR => {}
            _ => return false,
        }
    }
}

/// Closes every descriptor that is not in `kept`, which is sorted: a ring, a program or another link that the child had
/// would live as long as it.
///
/// # Safety
///
/// For a forked child: nobody else uses these descriptors there.
unsafe fn close_all_but(kept: &[RawFd]) {
    let mut from = 0;
    for descriptor in kept.iter().filter_map(|kept| libc::c_uint::try_from(*kept).ok()) {
        if descriptor > from {
            // SAFETY: the caller's promise.
            unsafe { libc::syscall(libc::SYS_close_range, from, descriptor - 1, 0) };
        }
        from = descriptor + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, 0) };
}

/// Signals that wait until this is dropped. A child that is forked meanwhile has them blocked for good.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: a set of signals is a plain array of bits, and both are this function's own.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled in when they were blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter};
    use std::time::{Duration, Instant};

    use super::*;

    fn make(holder: &Holder) -> io::Result<()> {
        holder.start()?;
        holder.wait()
    }

    /// Holds the writing end of a pipe, which is at its end when nobody holds that any more.
    fn holding() -> (Holder, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let descriptor = writer.as_raw_fd();
        let writer = std::cell::Cell::new(Some(writer));
        let attach = || {
            writer
                .take()
                .map(OwnedFd::from)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
        };
        let holder = Holder::of(&[descriptor], attach).unwrap();
        assert!(!is_at_its_end(&reader, Duration::ZERO));
        make(&holder).unwrap();
        drop::<Option<PipeWriter>>(writer.take());
        (holder, reader)
    }

    fn is_at_its_end(reader: &PipeReader, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut wanted = libc::pollfd {
            fd: reader.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        while wanted.revents & libc::POLLHUP == 0 && Instant::now() < deadline {
            // SAFETY: one structure, of this function's own.
            unsafe { libc::poll(&raw mut wanted, 1, 10) };
        }
        wanted.revents & libc::POLLHUP != 0
    }

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_link_is_there_until_it_is_dropped() {
        let (holder, reader) = holding();
        assert!(!is_at_its_end(&reader, SHORT));
        // What a terminal or a service's end sends.
        for signal in [
            libc::SIGINT,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGPIPE,
            libc::SIGQUIT,
        ] {
            // SAFETY: our own child.
            assert_eq!(unsafe { libc::kill(holder.pid, signal) }, 0);
        }
        assert!(!is_at_its_end(&reader, SHORT));
        drop(holder);
        assert!(is_at_its_end(&reader, LONG));
    }

    #[test]
    fn a_link_goes_when_its_owner_is_killed() {
        let (reader, writer) = io::pipe().unwrap();
        let (ready, ready_in) = io::pipe().unwrap();
        // SAFETY: the child does what a fork of one of several threads may, and ends without returning.
        let owner = unsafe { libc::fork() };
        if owner == 0 {
            let descriptor = writer.as_raw_fd();
            // SAFETY: nobody else uses it in this child.
            let attach = || Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) });
            let holder = Holder::of(&[descriptor], attach);
            let made = [u8::from(holder.is_ok_and(|holder| {
                let made = make(&holder).is_ok();
                // Its drop would end the link.
                std::mem::forget(holder);
                made
            }))];
            // SAFETY: as above.
            unsafe {
                libc::close(descriptor);
                libc::write(ready_in.as_raw_fd(), made.as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
        }
        drop((writer, ready_in));
        let mut made = [0];
        (&ready).read_exact(&mut made).unwrap();
        assert_eq!(made, [1]);
        assert!(!is_at_its_end(&reader, SHORT));
        // SAFETY: our own child, not yet reaped.
        unsafe {
            libc::kill(owner, libc::SIGKILL);
            libc::waitpid(owner, std::ptr::null_mut(), 0);
        }
        assert!(is_at_its_end(&reader, LONG));
    }

    #[test]
    fn the_end_of_a_holder_is_seen() {
        let (holder, reader) = holding();
        assert!(holder.is_alive());
        // SAFETY: our own child, not yet reaped.
        unsafe { libc::kill(holder.pid, libc::SIGKILL) };
        assert!(is_at_its_end(&reader, LONG));
        let deadline = Instant::now() + LONG;
        while holder.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!holder.is_alive());
        drop(holder);
    }

    #[test]
    fn a_link_is_made_and_ended_at_a_word_again_and_again() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptor = file.as_raw_fd();
        let holder = Holder::of(&[descriptor], || {
            // SAFETY: the descriptor is open in the child.
            match unsafe { libc::dup(descriptor) } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: it was just made, and is nobody else's.
                link => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(link) }),
            }
        })
        .unwrap();
        let descriptors = || {
            std::fs::read_dir(format!("/proc/{}/fd", holder.pid))
                .unwrap()
                .count()
        };
        for _ in 0..3 {
            make(&holder).unwrap();
            assert_eq!(descriptors(), 3, "its socket, the file and the link");
            holder.detach().unwrap();
            holder.wait().unwrap();
            assert_eq!(descriptors(), 2);
        }
        assert!(holder.is_alive());
    }

    #[test]
    fn the_reason_of_a_refusal_is_told() {
        let holder = Holder::of(&[], || Err(io::Error::from_raw_os_error(libc::ENOEXEC))).unwrap();
        let refused = make(&holder).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOEXEC));
    }

    #[test]
    fn one_that_was_never_told_to_ends() {
        let (reader, writer) = io::pipe().unwrap();
        let holder = Holder::of(&[writer.as_raw_fd()], || {
            Err(io::Error::from_raw_os_error(libc::ENOEXEC))
        });
        drop(writer);
        assert!(!is_at_its_end(&reader, SHORT));
        drop(holder.unwrap());
        assert!(is_at_its_end(&reader, LONG));
    }

    #[test]
    fn a_holder_keeps_nothing_else() {
        let (reader, other) = io::pipe().unwrap();
        let (holder, _held) = holding();
        drop(other);
        assert!(is_at_its_end(&reader, LONG));
        drop(holder);
    }
}
