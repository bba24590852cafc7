//! Calls of bpf(2) and perf_event_open(2) that aya does not make: a program loaded for a uprobe link of many places, and
//! the links themselves.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;

/// How a program is going to be attached: `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    /// To perf events. For them the kernel does not look at the type.
    Event = 0,
    /// `BPF_PERF_EVENT`, of the link to such an event.
    EventLink = 41,
    /// `BPF_TRACE_UPROBE_MULTI`, Linux 6.6.
    Multi = 48,
    /// `BPF_TRACE_UPROBE_SESSION`, Linux 6.13.
    Session = 57,
}

/// `BPF_PROG_LOAD`'s part of `union bpf_attr`, up to what is needed.
#[repr(C)]
struct ProgramAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface_index: u32,
    expected_attach_type: u32,
}

/// `BPF_LINK_CREATE`'s.
#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    /// `uprobe_multi.path`, or `perf_event.bpf_cookie`.
    path_or_cookie: u64,
    offsets: u64,
    reference_counter_offsets: u64,
    cookies: u64,
    count: u32,
    multi_flags: u32,
    pid: u32,
    padding: u32,
}

/// Loads a program of the kind that uprobes run. `instructions` are the kernel's, eight bytes each, with their maps'
/// descriptors in place.
///
/// # Errors
///
/// The kernel's reason, and the end of the verifier's words where it has some.
pub(super) fn load(
    name: &str,
    instructions: &[u8],
    license: &CStr,
    attach_type: AttachType,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut attributes = ProgramAttributes {
        program_type: BPF_PROG_TYPE_KPROBE,
        instruction_count: u32::try_from(instructions.len() / 8).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface_index: 0,
        expected_attach_type: attach_type as u32,
    };
    for (to, from) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the attributes point to memory that lives until the call returns, and say its length.
    let first = match unsafe { bpf(BPF_PROG_LOAD, &attributes) } {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    if matches!(first.raw_os_error(), Some(libc::EPERM)) {
        return Err((first, String::new()));
    }
    // Once more with the verifier's words, which cost time.
    let mut log = vec![0u8; 1 << 20];
    attributes.log_level = 1;
    attributes.log_size = u32::try_from(log.len()).unwrap_or(0);
    attributes.log_buffer = log.as_mut_ptr() as u64;
    // SAFETY: as above; the buffer has the length that it is said to have.
    let again = unsafe { bpf(BPF_PROG_LOAD, &attributes) };
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
    let last = lines
        .get(lines.len().saturating_sub(6)..)
        .unwrap_or_default()
        .join("; ");
    again.map_err(|error| (error, last))
}

/// Attaches a program to many places of a file at once, for one process: `offsets` in the file, bytes, each with the
/// cookie that the program is told there.
///
/// # Errors
///
/// The kernel's reason: EINVAL where it does not know such links, or one of the offsets is no code.
pub(super) fn link_many(
    program: BorrowedFd<'_>,
    attach_type: AttachType,
    path: &CStr,
    offsets: &[u64],
    cookies: &[u64],
    pid: u32,
    returns: bool,
) -> io::Result<OwnedFd> {
    const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;
    debug_assert_eq!(offsets.len(), cookies.len());
    let attributes = LinkAttributes {
        program: descriptor(program)?,
        attach_type: attach_type as u32,
        path_or_cookie: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        cookies: cookies.as_ptr() as u64,
        count: u32::try_from(offsets.len().min(cookies.len())).unwrap_or(0),
        multi_flags: if returns { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        pid,
        ..LinkAttributes::default()
    };
    // SAFETY: as in `load`; both lists have `count` entries.
    unsafe { bpf(BPF_LINK_CREATE, &attributes) }
}

/// Attaches a program to a perf event. The event lives as long as the link.
///
/// # Errors
///
/// The kernel's reason.
pub(super) fn link_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    let attributes = LinkAttributes {
        program: descriptor(program)?,
        target: descriptor(event)?,
        attach_type: AttachType::EventLink as u32,
        path_or_cookie: cookie,
        ..LinkAttributes::default()
    };
    // SAFETY: no pointer in it.
    unsafe { bpf(BPF_LINK_CREATE, &attributes) }
}

/// The kernel's number for uprobes among perf events, and its bit for return probes.
#[derive(Clone, Copy, Debug)]
pub(super) struct UprobeEvents {
    kind: u32,
    return_bit: u64,
}

impl UprobeEvents {
    pub fn of_this_kernel() -> io::Result<Self> {
        let read =
            |name: &str| std::fs::read_to_string(format!("/sys/bus/event_source/devices/uprobe/{name}"));
        let unknown = |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("`{}`", text.trim()));
        let kind = read("type")?;
        let format = read("format/retprobe")?;
        let bit: u32 = format
            .trim()
            .strip_prefix("config:")
            .and_then(|bit| bit.parse().ok())
            .ok_or_else(|| unknown(&format))?;
        Ok(Self {
            kind: kind.trim().parse().map_err(|_| unknown(&kind))?,
            return_bit: 1u64.checked_shl(bit).ok_or_else(|| unknown(&format))?,
        })
    }

    /// An event at one place of a file, for one process.
    ///
    /// # Errors
    ///
    /// The kernel's reason.
    pub fn open(self, path: &CStr, offset: u64, pid: u32, returns: bool) -> io::Result<OwnedFd> {
        /// `struct perf_event_attr` of linux/perf_event.h in its second version.
        #[repr(C)]
        #[derive(Default)]
        struct Attributes {
            kind: u32,
            size: u32,
            config: u64,
            sample_period: u64,
            sample_type: u64,
            read_format: u64,
            flags: u64,
            wakeup_events: u32,
            breakpoint_type: u32,
            path: u64,
            offset: u64,
        }
        const SIZE: u32 = 72;
        const _: () = assert!(size_of::<Attributes>() == SIZE as usize);
        const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

        let attributes = Attributes {
            kind: self.kind,
            size: SIZE,
            config: if returns { self.return_bit } else { 0 },
            path: path.as_ptr() as u64,
            offset,
            ..Attributes::default()
        };
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        let any: libc::c_int = -1;
        // SAFETY: the kernel reads as many bytes as the structure says it has, and the path, and keeps no pointer.
        let result = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                pid,
                any,
                any,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        owned(result)
    }
}

/// # Safety
///
/// Every pointer in the attributes must be to memory that the command may use, as long as the attributes say.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size` bytes of the attributes; the rest is the caller's promise.
    owned(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the descriptor was just handed out, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn descriptor(of: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(of.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))
}
