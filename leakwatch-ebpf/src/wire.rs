//! Records of the ring buffer, counters and settings.
//!
//! A record is a [`Header`], and, when [`flags::STACK`] is set, [`REGISTERS_BYTES`] of raw user registers (the
//! kernel's `struct pt_regs` of the machine, undecoded, so that one object serves every architecture) followed by
//! `stack_length` bytes of the user stack from `stack_pointer` upward.

pub mod alloc;

use core::mem::{offset_of, size_of};

/// Room for the raw user registers in a record, in bytes. aarch64's `user_pt_regs` has 272, x86-64's `pt_regs` 168;
/// the unused tail is zero.
pub const REGISTERS_BYTES: usize = 272;

/// The largest stack snapshot that a record can carry, in bytes. `--stack-bytes` caps it lower.
pub const STACK_BYTES_MAX: usize = 64 * 1024;

/// The stack is copied in chunks that end at page boundaries, so one chunk is a page at most.
pub const STACK_CHUNK_BYTES: usize = 4096;

/// Length of a thread's name with its NUL, as the kernel keeps it (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;

/// What happened. The number travels in [`Header::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// `mmap` returned a range: `address`, `length`, `protection`, `operation` = mmap flags, `fd`.
    Map = 1,
    /// `brk` moved the heap's end up: from `old_address` (the end before) to `address` (the end now); bytes, not pages.
    BrkUp = 2,
    /// `mremap` returned: `old_address`, `old_length` became `address`, `length`; `operation` = mremap flags.
    RemapTo = 3,
    /// `mprotect` or `pkey_mprotect` made a range accessible: `address`, `length`, `protection`.
    Protect = 4,
    /// `munmap` was entered.
    Unmap = 5,
    /// `brk` was entered with an end below the present one: `address` = the new end, `length` = bytes given up.
    BrkDown = 6,
    /// `mremap` was entered: `old_address`, `old_length` is about to move, grow or shrink; `address` (with
    /// `MREMAP_FIXED`) and `length` = what is asked for; `operation` = mremap flags.
    RemapFrom = 7,
    /// `madvise` was entered with an advice that gives pages up; `operation` = the advice.
    Discard = 8,
    /// `mmap` with `MAP_FIXED` was entered: whatever stood in `address`, `length` is about to be replaced.
    Replace = 9,
    /// `mprotect` was entered with `PROT_NONE`: `address`, `length` become a reservation.
    Decommit = 10,
    /// A release that was reported at entry then failed: the same fields, `operation` = the [`Kind`] that failed.
    ReleaseFailed = 11,
    /// A process forked: `address` = the child's PID.
    Fork = 12,
    /// The process replaced its image: everything known of its memory is void.
    Exec = 13,
    /// The last thread of the process, or its leader, exited.
    Exit = 14,
    /// A page fault is being taken: `address` = the faulting address.
    Fault = 15,
    /// A function of the allocator returned a block: `address`, `length` = the bytes asked for, `old_address` = the block
    /// that was given to realloc (0 for none), `old_length` = when realloc was entered (nanoseconds: somebody else can be
    /// handed the old block, and tell, before it returns), `protection` = the function's number in the attach cookie
    /// ([`alloc::Cookie`]), `operation` = the burst's number (its low bits). Registers and stack are as they were at the
    /// function's entry. Without a stack and with [`flags::THINNED`]: the block is not in the sample, and the old one was.
    Alloc = 16,
}

impl Kind {
    /// The kind behind a number of the wire; `None` for a number this version does not know.
    #[must_use]
    pub const fn from_wire(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Map,
            2 => Self::BrkUp,
            3 => Self::RemapTo,
            4 => Self::Protect,
            5 => Self::Unmap,
            6 => Self::BrkDown,
            7 => Self::RemapFrom,
            8 => Self::Discard,
            9 => Self::Replace,
            10 => Self::Decommit,
            11 => Self::ReleaseFailed,
            12 => Self::Fork,
            13 => Self::Exec,
            14 => Self::Exit,
            15 => Self::Fault,
            16 => Self::Alloc,
            _ => return None,
        })
    }
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// Registers and a stack snapshot follow the header.
    pub const STACK: u16 = 1;
    /// The snapshot ends at the cap (`--stack-bytes`), not at the end of the stack.
    pub const STACK_CAPPED: u16 = 1 << 1;
    /// A read of the stack failed before its end: the rest is not in the record.
    pub const STACK_UNREADABLE: u16 = 1 << 2;
    /// The snapshot reaches the known end of the thread's stack.
    pub const STACK_WHOLE: u16 = 1 << 3;
    /// The event carries no stack because none of its pages is in the sample: its bytes are attributed in proportion.
    /// Of [`super::Kind::Alloc`]: because the block is not in the sample.
    pub const THINNED: u16 = 1 << 4;
}

/// [`page_in_sample`] of every page: nothing is thinned.
pub const SAMPLE_ALL: u64 = 1 << 32;

/// The threshold falls no lower: one page in a million.
pub const SAMPLE_MIN: u64 = SAMPLE_ALL >> 20;

/// Ranges of more pages than this always carry a stack, whatever the threshold.
pub const THIN_PAGES_MAX: u64 = 64;

/// A hash of a page number, uniform over `0..SAMPLE_ALL` even for runs and strides of pages (the finaliser of
/// splitmix64). Both sides must agree on it: the kernel samples by it, userspace thins the sample in hand by it.
#[inline(always)]
#[must_use]
pub const fn page_hash(page: u64) -> u64 {
    let mut hash = page.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) >> 32
}

/// Whether a page is in the sample at this threshold (`0..=SAMPLE_ALL`): spatially hashed sampling. A page is in it
/// always or never, so that its latest toucher owns it and an estimate from the sample is unbiased.
#[inline(always)]
#[must_use]
pub const fn page_in_sample(page: u64, threshold: u64) -> bool {
    page_hash(page) < threshold
}

/// Whether a block of the heap is in the sample at this threshold, told by its address: then it is in it at every birth
/// there, so that the latest one that was seen owns it. Blocks are aligned to 16 bytes at least.
#[inline(always)]
#[must_use]
pub const fn block_in_sample(address: u64, threshold: u64) -> bool {
    page_in_sample(address >> 4, threshold)
}

/// The fixed part of every record.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Bytes of stack after the registers.
    pub stack_length: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds, when the program ran.
    pub time: u64,
    /// Process, as the initial PID namespace numbers it.
    pub tgid: u32,
    /// Thread, likewise.
    pub tid: u32,
    pub address: u64,
    pub length: u64,
    pub old_address: u64,
    pub old_length: u64,
    /// `PROT_*` bits.
    pub protection: u32,
    /// mmap flags, mremap flags, madvise advice or a [`Kind`]: see the kind.
    pub operation: u32,
    /// mmap's file descriptor, -1 for none.
    pub fd: i32,
    /// Bytes from the stack pointer to the stack's end, or to the cap: what the snapshot would have at best.
    pub stack_wanted: u32,
    /// Address of the snapshot's first byte.
    pub stack_pointer: u64,
    /// The thread's name, NUL-padded; any bytes.
    pub comm: [u8; COMM_BYTES],
}

pub const HEADER_BYTES: usize = size_of::<Header>();
/// The largest record, in bytes.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + REGISTERS_BYTES + STACK_BYTES_MAX;

const _: () = assert!(HEADER_BYTES == 96);
const _: () = assert!(HEADER_BYTES.is_multiple_of(8) && REGISTERS_BYTES.is_multiple_of(8));
const _: () = assert!(offset_of!(Header, time) == 8);
const _: () = assert!(offset_of!(Header, address) == 24);
const _: () = assert!(offset_of!(Header, protection) == 56);
const _: () = assert!(offset_of!(Header, stack_pointer) == 72);
const _: () = assert!(offset_of!(Header, comm) == 80);

/// The system calls that have an entry and an exit program; `pkey_mprotect` shares those of `mprotect`. The number indexes
/// [`Settings::enter`] and [`Settings::exit_return`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Syscall {
    Mmap = 0,
    Munmap = 1,
    Mremap = 2,
    Brk = 3,
    Mprotect = 4,
    Madvise = 5,
}

/// How many [`Syscall`]s there are.
pub const SYSCALLS: usize = 6;
/// A system call has at most six arguments.
pub const ARGUMENTS: usize = 6;

/// What the programs must be told before they are loaded: kernel layouts found in BTF and in the tracepoints' `format`
/// files, and the run's limits. All offsets are in bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Settings {
    /// Largest stack snapshot, at most [`STACK_BYTES_MAX`].
    pub stack_bytes: u32,
    /// Wake the reader once so many bytes wait in the ring; below, its timer serves.
    pub wake_bytes: u32,
    /// How many bytes of `struct pt_regs` to copy, at most [`REGISTERS_BYTES`].
    pub registers_bytes: u32,
    /// The stack pointer in `struct pt_regs`.
    pub stack_pointer_offset: u32,
    /// The system call's arguments in `struct pt_regs`, as they stand when the call returns.
    pub register_arguments: [u32; ARGUMENTS],
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// The thread's TLS base in `task_struct` (x86-64 `thread.fsbase`, aarch64 `thread.uw.tp_value`).
    pub task_tls: u32,
    /// `task_struct.pid`, `task_struct.tgid`.
    pub task_pid: u32,
    pub task_tgid: u32,
    /// `mm_struct.brk`, `mm_struct.start_stack`.
    pub mm_brk: u32,
    pub mm_start_stack: u32,
    /// `group_dead` in `sched_process_exit`'s record; 0 on kernels that lack it.
    pub exit_group_dead: u32,
    /// log2 of the page size.
    pub page_shift: u32,
    /// The arguments in each `sys_enter_*` record.
    pub enter: [[u32; ARGUMENTS]; SYSCALLS],
    /// The return value in each `sys_exit_*` record.
    pub exit_return: [u32; SYSCALLS],
    /// The faulting address in `page_fault_user`'s record; 0 on kernels that lack it.
    pub fault_address: u32,
    /// The first arguments of a function in `struct pt_regs`, by the calling convention of C.
    pub function_arguments: [u32; FUNCTION_ARGUMENTS],
    /// A function's result in `struct pt_regs`.
    pub function_result: u32,
    pub instruction_pointer_offset: u32,
    /// Where a function finds its return address in `struct pt_regs`; [`RETURN_ON_STACK`] where its caller pushed it.
    pub link_register_offset: u32,
}

/// The return address is the word that the stack pointer points to when a function is entered.
pub const RETURN_ON_STACK: u32 = u32::MAX;
/// Arguments that the allocator's functions have at most.
pub const FUNCTION_ARGUMENTS: usize = 3;

impl Settings {
    /// Before the loader has filled them in.
    pub const ZERO: Self = Self {
        stack_bytes: 0,
        wake_bytes: 0,
        registers_bytes: 0,
        stack_pointer_offset: 0,
        register_arguments: [0; ARGUMENTS],
        task_mm: 0,
        task_tls: 0,
        task_pid: 0,
        task_tgid: 0,
        mm_brk: 0,
        mm_start_stack: 0,
        exit_group_dead: 0,
        page_shift: 0,
        enter: [[0; ARGUMENTS]; SYSCALLS],
        exit_return: [0; SYSCALLS],
        fault_address: 0,
        function_arguments: [0; FUNCTION_ARGUMENTS],
        function_result: 0,
        instruction_pointer_offset: 0,
        link_register_offset: RETURN_ON_STACK,
    };
}

const _: () = assert!(size_of::<Settings>() == 4 * (4 + 6 + 8 + 36 + 7 + 6));

/// Bits of a value in the map of watched processes, whose key is the process's PID.
pub mod watch {
    /// Children that it forks are watched as well.
    pub const CHILDREN: u32 = 1;
}

/// How many processes can be watched at once.
pub const TARGETS_MAX: u32 = 4096;

/// Per-CPU counters; the number is the index in the map. Userspace adds the CPUs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Records handed to the ring.
    Events = 0,
    /// Acquiring records lost because the ring was full.
    LostAcquires = 1,
    /// Releasing records lost because the ring was full.
    LostReleases = 2,
    /// Fork, exec and exit records lost because the ring was full.
    LostLifecycle = 3,
    /// Bytes of stack copied.
    StackBytes = 4,
    /// Snapshots cut at the cap.
    StacksCapped = 5,
    /// Snapshots cut by a read that failed.
    StacksUnreadable = 6,
    /// Events whose registers could not be had: no stack at all.
    RegistersMissing = 7,
    /// brk calls whose entry was not seen or could not be remembered.
    BrkUnpaired = 8,
    /// Children that could not be watched since the map of processes was full.
    TargetsFull = 9,
    /// Events dropped because the CPU has no scratch slot (a CPU that came online later).
    NoScratch = 10,
    /// Page faults of watched processes that were in the sample.
    Faults = 11,
    /// Fault records lost because the ring was full.
    LostFaults = 12,
    /// Acquiring records sent without a stack since none of their pages is in the sample.
    Thinned = 13,
    /// Calls of the allocator's functions that hit a probe.
    AllocHits = 14,
    /// Those of them whose first instruction the kernel does not emulate: they cost several times as much.
    AllocStepped = 15,
    /// Calls that the allocator made of itself: the outermost one is the birth.
    AllocNested = 16,
    /// Blocks returned, in the sample or not. Failed calls return none.
    AllocBirths = 17,
    /// Births of the sample: sent or lost.
    AllocSampled = 18,
    /// Birth records lost because the ring was more than half full.
    LostAllocs = 19,
    /// Calls whose return was not seen, told by the thread's next call.
    AllocReturnsMissed = 20,
    /// Returns whose call was not seen, or is another's.
    AllocUnmatched = 21,
    /// Calls of threads beyond those that can be remembered.
    AllocThreadsOver = 22,
    /// Calls on a stack that is not the thread's own.
    AllocOffStack = 23,
    /// Calls that hit a probe before a burst began, after it ended or after it was cut: cheaper ones.
    AllocIdle = 24,
    /// Entries that took the program its whole way: the time of each was taken.
    AllocTimed = 25,
    /// Nanoseconds that the program took for those, of each no more than [`alloc::TIMED_MOST`].
    AllocNanoseconds = 26,
}

/// How many [`Counter`]s there are.
pub const COUNTERS: u32 = 27;
