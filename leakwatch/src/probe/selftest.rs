//! Proof, before anybody is watched, that an event makes the whole way: a child of leakwatch's own maps a known
//! length, and that must come back with registers and stack.

use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{Counter, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Probe, ProbeError};

/// An odd number of pages that nothing else asks for.
const LENGTH: usize = 0x0137_5000;

/// What came back.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// From the child's system call to the event in hand.
    pub took: Duration,
    /// Raw user registers of the child.
    pub registers: Vec<u8>,
    pub stack_pointer: u64,
    pub stack: Vec<u8>,
    pub flags: u16,
}

pub(super) fn run(probe: &mut Probe, patience: Duration) -> Result<SelfTest, ProbeError> {
    let failed = |what: String| ProbeError::SelfTest(what);
    // From a thread of its own: its stack is short, however deep the caller's is, and fits every `--stack-bytes`.
    let child = std::thread::scope(|scope| scope.spawn(Child::fork).join())
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked")))
        .map_err(|error| failed(format!("cannot fork a child: {error}")))?;
    probe.watch(child.pid, false)?;
    let began = Instant::now();
    child
        .go()
        .map_err(|error| failed(format!("cannot start the child: {error}")))?;
    let mut found = None;
    let mut events = 0usize;
    while found.is_none() && began.elapsed() < patience {
        events += probe.drain(usize::MAX, |event| {
            if event.header.tgid == child.pid
                && event.kind == Kind::Map
                && event.header.length == LENGTH as u64
                && found.is_none()
            {
                found = Some(SelfTest {
                    took: began.elapsed(),
                    registers: event.registers.unwrap_or_default().to_vec(),
                    stack_pointer: event.header.stack_pointer,
                    stack: event.stack.to_vec(),
                    flags: event.header.flags,
                });
            }
        });
        if found.is_none() {
            // No wake-up comes for so little data: look again shortly.
            pause(probe);
        }
    }
    probe.unwatch(child.pid);
    drop(child);
    let Some(result) = found else {
        let counts = probe.counts()?;
        return Err(failed(format!(
            "a child mapped memory and no event came back within {} ms ({events} other events, {} sent, {} lost)",
            patience.as_millis(),
            counts.get(Counter::Events),
            counts.lost(),
        )));
    };
    if result.registers.is_empty() {
        return Err(failed("the event came back without registers".to_owned()));
    }
    if result.stack.is_empty() {
        return Err(failed("the event came back without a stack".to_owned()));
    }
    Ok(result)
}

fn pause(probe: &Probe) {
    let mut descriptors = [PollFd::from_borrowed_fd(probe.ring_fd(), PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    // A failure or a timeout leads to the next look alike.
    let _ = poll(&mut descriptors, Some(&timeout));
}

/// A forked child that waits for a byte, maps [`LENGTH`] and exits.
struct Child {
    pid: u32,
    start: std::io::PipeWriter,
}

impl Child {
    fn fork() -> std::io::Result<Self> {
        use std::os::fd::AsRawFd as _;

        let (wait, start) = std::io::pipe()?;
        let (wait_fd, start_fd) = (wait.as_raw_fd(), start.as_raw_fd());
        // SAFETY: the child calls nothing but async-signal-safe functions (close, read, mmap, _exit), whatever
        // threads the parent has and whatever locks they hold.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(std::io::Error::last_os_error()),
            0 => {
                // SAFETY: as above; the buffer is the child's own, and the mapping is never touched.
                unsafe {
                    libc::close(start_fd);
                    let mut byte = 0u8;
                    if libc::read(wait_fd, (&raw mut byte).cast(), 1) == 1 {
                        libc::mmap(
                            std::ptr::null_mut(),
                            LENGTH,
                            libc::PROT_NONE,
                            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                            -1,
                            0,
                        );
                    }
                    libc::_exit(0);
                }
            }
            pid => Ok(Self {
                pid: u32::try_from(pid).unwrap_or(0),
                start,
            }),
        }
    }

    fn go(&self) -> std::io::Result<()> {
        use std::io::Write as _;
        (&self.start).write_all(b"g")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It exits by itself after the one byte; without it, the signal sees to that.
        if let Ok(pid) = libc::pid_t::try_from(self.pid)
            && pid > 0
        {
            // SAFETY: our own child, not yet reaped, so the number cannot be anybody else's.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}
