//! The walk up one stack, and what its end means.
//!
//! framehop finds the caller of a frame, and `dwarf` where that is not enough; whether to believe it, and
//! whether a stack that ends has reached its root, is decided here. Memory is the snapshot and nothing else: no process
//! is read while a stack is walked.

use std::ops::Range;
use std::sync::Arc;

use framehop::{FrameAddress, Unwinder as _};
use leakwatch_ebpf::wire::flags;

use super::registers::Machine;
use super::{Ending, Truncation};

/// Section bytes as framehop holds them: shared between processes.
pub type Bytes = Arc<[u8]>;

/// More frames than this are not kept.
pub const FRAMES_MAX: usize = 512;

/// How far above the snapshot a wanted address may lie to be stack that was not copied; further off it is a register
/// that holds something else. Bytes.
const STACK_REACH: u64 = 64 << 20;

/// Above the last frame of a thread without unwind information in its entry code (musl's `_start`): arguments,
/// environment pointers. Bytes.
const ENTRY_REACH: u64 = 256;

/// What one event carried of a thread: raw registers and a copy of its stack.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    /// The kernel's `struct pt_regs` of this machine, [`leakwatch_ebpf::wire::REGISTERS_BYTES`].
    pub registers: &'a [u8],
    /// Address of the stack's first byte.
    pub stack_pointer: u64,
    /// From `stack_pointer` upward.
    pub stack: &'a [u8],
    /// [`leakwatch_ebpf::wire::flags`].
    pub flags: u16,
}

impl Snapshot<'_> {
    fn end(&self) -> u64 {
        self.stack_pointer.saturating_add(self.stack.len() as u64)
    }

    fn holds(&self, address: u64) -> bool {
        (self.stack_pointer..self.end()).contains(&address)
    }

    fn read(&self, address: u64) -> Option<u64> {
        let start = usize::try_from(address.checked_sub(self.stack_pointer)?).ok()?;
        let bytes = self.stack.get(start..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

/// What stands behind a code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Executable, with unwind information or outside every file.
    Known,
    /// Executable, of a file that could not be read.
    Unreadable,
    /// Not executable memory of this process.
    NotCode,
}

/// A way from a frame to its caller.
pub(super) trait Climb {
    /// Where the current frame stands.
    fn point(&self) -> Point;

    /// Moves on to the caller. `None` where there is none: by the unwind information, or because nothing but the frame
    /// pointer could tell, and that is 0.
    ///
    /// # Errors
    /// When the caller cannot be found.
    fn climb(
        &mut self,
        at: FrameAddress,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<Caller>, ()>;

    /// Asked after an answer of `None`: whether nothing but the frame pointer could tell.
    fn by_frame_pointer(&mut self, at: FrameAddress) -> bool;
}

/// A caller's code address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub address: u64,
    /// Interrupted there by a signal, which is no call: the address is the next instruction, not one behind a call.
    pub interrupted: bool,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub stack: u64,
    pub frame: u64,
}

/// The fast way. It follows stack and frame pointer only.
pub(super) struct Framehop<'a, M: Machine> {
    pub unwinder: &'a M::Unwinder,
    pub cache: &'a mut M::Cache,
    pub registers: M::Registers,
}

impl<M: Machine> Climb for Framehop<'_, M> {
    fn point(&self) -> Point {
        Point {
            stack: M::stack_pointer(&self.registers),
            frame: M::frame_pointer(&self.registers),
        }
    }

    fn climb(
        &mut self,
        at: FrameAddress,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<Caller>, ()> {
        let caller = self
            .unwinder
            .unwind_frame(at, &mut self.registers, self.cache, read)
            .map_err(|_| ())?;
        Ok(caller.map(|address| Caller {
            address,
            interrupted: false,
        }))
    }

    /// On x86-64 framehop answers "the end" both for a frame pointer of 0 and for unwind information that says so;
    /// with a frame pointer that leads nowhere only the latter remains.
    fn by_frame_pointer(&mut self, at: FrameAddress) -> bool {
        let mut registers = M::with_frame_pointer(&self.registers, 1);
        let outcome = self
            .unwinder
            .unwind_frame(at, &mut registers, self.cache, &mut |_| Err(()));
        outcome != Ok(None)
    }
}

/// How a walk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    pub ending: Ending,
    /// A frame with intricate rules was left by its frame pointer, or could not be left, or one has no rules at all.
    /// framehop falls back to the frame pointer where it cannot follow a rule, and does not say so: frames may be missing,
    /// or wrong.
    pub doubtful: bool,
}

/// Walks a stack from `pc`, by one way. `frame` is called with each code address, innermost first, ready for lookup:
/// lowered by one where it is behind a call, so that it lies inside the call. `code` says what an address is,
/// `intricate` whether its rules are beyond this way, and `bare` whether it has none and this way would guess.
pub(super) fn walk(
    mut way: impl Climb,
    snapshot: &Snapshot<'_>,
    pc: u64,
    code: impl Fn(u64) -> Code,
    intricate: impl Fn(u64) -> bool,
    bare: impl Fn(u64) -> bool,
    mut frame: impl FnMut(u64),
) -> Walked {
    let mut address = FrameAddress::from_instruction_pointer(pc);
    let mut depth = 0;
    // Whether the frame before was found through the frame pointer: then a frame pointer of 0 is the chain's end.
    let mut chained = false;
    let mut doubtful = false;
    let ending = loop {
        let lookup = address.address_for_lookup();
        frame(lookup);
        depth += 1;
        if depth >= FRAMES_MAX {
            break Ending::Truncated(Truncation::TooDeep);
        }
        if bare(lookup) {
            doubtful = true;
            break Ending::Truncated(Truncation::NoUnwindInformation);
        }
        let before = way.point();
        let mut reads = Reads::default();
        let outcome = way.climb(address, &mut |wanted| reads.record(wanted, snapshot.read(wanted)));
        let lost = |reads: &Reads| why(snapshot, reads, before, code(lookup));
        match outcome {
            // A frame pointer of 0, where nothing but the frame pointer could tell: the end of a chain that was
            // followed, or a register that happens to be 0.
            Ok(None) if reads.first.is_none() && before.frame == 0 && way.by_frame_pointer(address) => {
                doubtful = doubtful || intricate(lookup);
                let root = chained || near_entry(snapshot, before);
                break if root { Ending::Root } else { lost(&reads) };
            }
            // No return address by the unwind information (_start, clone3), or it is 0.
            Ok(None) => break Ending::Root,
            Ok(Some(caller)) => {
                let stack = way.point().stack;
                let moved = stack > before.stack
                    // A leaf on aarch64 returns through the link register: the stack need not move.
                    || (stack == before.stack && !address.is_return_address())
                    // Signal handlers may have a stack of their own.
                    || caller.interrupted;
                chained = reads.first == Some(before.frame);
                if chained || reads.first_failed.is_some() {
                    doubtful = doubtful || intricate(lookup);
                }
                let next = if caller.interrupted {
                    Some(FrameAddress::from_instruction_pointer(caller.address))
                } else {
                    FrameAddress::from_return_address(caller.address)
                };
                let Some(next) = next else {
                    break Ending::Root;
                };
                if !moved || code(next.address_for_lookup()) == Code::NotCode {
                    doubtful = doubtful || intricate(lookup);
                    break at_end(snapshot, before).unwrap_or_else(|| lost(&reads));
                }
                if caller.interrupted && !snapshot.holds(stack) {
                    frame(next.address_for_lookup());
                    break Ending::Truncated(Truncation::SnapshotUnreadable);
                }
                address = next;
            }
            Err(()) => {
                doubtful = doubtful || intricate(lookup);
                break at_end(snapshot, before).unwrap_or_else(|| lost(&reads));
            }
        }
    };
    Walked { ending, doubtful }
}

#[derive(Default)]
struct Reads {
    first: Option<u64>,
    first_failed: Option<u64>,
}

impl Reads {
    fn record(&mut self, wanted: u64, value: Option<u64>) -> Result<u64, ()> {
        self.first.get_or_insert(wanted);
        if value.is_none() {
            self.first_failed.get_or_insert(wanted);
        }
        value.ok_or(())
    }
}

/// The frame's stack begins where the thread's stack ends: there is no caller.
fn at_end(snapshot: &Snapshot<'_>, at: Point) -> Option<Ending> {
    let whole = snapshot.flags & flags::STACK_WHOLE != 0;
    (whole && at.stack >= snapshot.end()).then_some(Ending::Root)
}

fn near_entry(snapshot: &Snapshot<'_>, at: Point) -> bool {
    let whole = snapshot.flags & flags::STACK_WHOLE != 0;
    whole && snapshot.end().saturating_sub(at.stack) <= ENTRY_REACH
}

fn why(snapshot: &Snapshot<'_>, reads: &Reads, at: Point, code: Code) -> Ending {
    let end = snapshot.end();
    let beyond = |reach: &Range<u64>| reads.first_failed.is_some_and(|it| reach.contains(&it));
    // The word may begin inside the snapshot and end outside.
    let missing = beyond(&(end.saturating_sub(7)..end.saturating_add(STACK_REACH)))
        || (at.stack >= end && snapshot.flags & flags::STACK_WHOLE == 0);
    Ending::Truncated(if missing && snapshot.flags & flags::STACK_CAPPED != 0 {
        Truncation::SnapshotCapped
    } else if missing && snapshot.flags & flags::STACK_WHOLE == 0 {
        Truncation::SnapshotUnreadable
    } else if code == Code::Unreadable {
        Truncation::ModuleUnreadable
    } else {
        Truncation::NoUnwindInformation
    })
}

#[cfg(test)]
mod tests {
    use super::super::registers::{Aarch64, X86_64};
    use super::*;
    use framehop::aarch64::UnwindRegsAarch64;
    use framehop::x86_64::UnwindRegsX86_64;

    const BASE: u64 = 0x7fff_0000;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Code lies in 0x10_0000..0x20_0000, and what lies above 0x18_0000 is of an unreadable file.
    fn code(address: u64) -> Code {
        match address {
            0x10_0000..0x18_0000 => Code::Known,
            0x18_0000..0x20_0000 => Code::Unreadable,
            _ => Code::NotCode,
        }
    }

    /// No unwind information at all: everything goes by frame pointers, as for JIT code.
    fn x86(words: &[u64], flags: u16, ip: u64, bp: u64) -> (Vec<u64>, Ending) {
        let stack = bytes(words);
        let snapshot = Snapshot {
            registers: &[],
            stack_pointer: BASE,
            stack: &stack,
            flags,
        };
        let mut frames = Vec::new();
        let way = Framehop::<X86_64> {
            unwinder: &X86_64::unwinder(),
            cache: &mut X86_64::cache(),
            registers: UnwindRegsX86_64::new(ip, BASE, bp),
        };
        let walked = walk(
            way,
            &snapshot,
            ip,
            code,
            |_| false,
            |_| false,
            |address| frames.push(address),
        );
        (frames, walked.ending)
    }

    // Each function of these stacks begins
    //     push %rbp
    //     mov  %rsp,%rbp
    // so that (%rbp) is the caller's %rbp and 8(%rbp) the return address.

    #[test]
    fn a_frame_pointer_chain_that_ends_in_0_is_at_its_root() {
        //            local  bp          return     bp  return    local
        let words = [0x1111, BASE + 32, 0x10_0200, 0x2222, 0, 0x10_0300, 0x3333];
        let (frames, ending) = x86(&words, 0, 0x10_0100, BASE + 8);
        assert_eq!(frames, [0x10_0100, 0x10_01ff, 0x10_02ff]);
        assert_eq!(ending, Ending::Root);
    }

    #[test]
    fn a_return_address_of_0_is_the_root() {
        let words = [BASE + 16, 0x10_0200, 0, 0];
        let (frames, ending) = x86(&words, 0, 0x10_0100, BASE);
        assert_eq!(frames, [0x10_0100, 0x10_01ff]);
        assert_eq!(ending, Ending::Root);
    }

    #[test]
    fn no_frames_are_invented_from_a_register_that_holds_something_else() {
        // %rbp points into the stack, but what stands there is no return address.
        let words = [1, 2, 0xdead_beef, 4, 5];
        let (frames, ending) = x86(&words, flags::STACK_WHOLE, 0x10_0100, BASE + 8);
        assert_eq!(frames, [0x10_0100]);
        assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
        // A heap address in %rbp is not a capped stack.
        let (_, ending) = x86(&words, flags::STACK_CAPPED, 0x10_0100, 0x5555_0000_0000);
        assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
        // 0 in %rbp where no chain was followed says nothing, unless the stack ends there.
        let (_, ending) = x86(&[0; 8], flags::STACK_WHOLE, 0x10_0100, 0);
        assert_eq!(ending, Ending::Root);
        let (_, ending) = x86(&[0; 100], flags::STACK_WHOLE, 0x10_0100, 0);
        assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
        let (_, ending) = x86(&words, flags::STACK_WHOLE, 0x18_0100, BASE + 8);
        assert_eq!(ending, Ending::Truncated(Truncation::ModuleUnreadable));
    }

    #[test]
    fn a_snapshot_that_ends_early_says_how() {
        let words = [BASE + 64, 0x10_0200, 3, 4];
        for (bits, reason) in [
            (flags::STACK_CAPPED, Truncation::SnapshotCapped),
            (flags::STACK_UNREADABLE, Truncation::SnapshotUnreadable),
            (0, Truncation::SnapshotUnreadable),
        ] {
            let (frames, ending) = x86(&words, bits, 0x10_0100, BASE);
            assert_eq!(frames, [0x10_0100, 0x10_01ff]);
            assert_eq!(ending, Ending::Truncated(reason), "{bits}");
        }
        // The chain leads beyond the end of a whole stack: it is no chain.
        let (_, ending) = x86(&words, flags::STACK_WHOLE, 0x10_0100, BASE);
        assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
    }

    #[test]
    fn the_end_of_a_whole_stack_is_the_root() {
        // The outermost frame's CFA is the end of the stack.
        let words = [BASE + 0x9999, 0x10_0200];
        let (frames, ending) = x86(&words, flags::STACK_WHOLE, 0x10_0100, BASE);
        assert_eq!(frames, [0x10_0100, 0x10_01ff]);
        assert_eq!(ending, Ending::Root);
    }

    #[test]
    fn a_chain_that_loops_ends() {
        let words = [BASE, 0x10_0200, BASE, 0x10_0300];
        let (frames, ending) = x86(&words, flags::STACK_CAPPED, 0x10_0100, BASE);
        assert!(frames.len() <= 3, "{frames:x?}");
        assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
    }

    #[test]
    fn a_stack_deeper_than_the_cap_is_cut() {
        let words: Vec<u64> = (0..600_u64)
            .flat_map(|index| [BASE + (index + 1) * 16, 0x10_0200 + index])
            .collect();
        let (frames, ending) = x86(&words, flags::STACK_WHOLE, 0x10_0100, BASE);
        assert_eq!(frames.len(), FRAMES_MAX);
        assert_eq!(ending, Ending::Truncated(Truncation::TooDeep));
    }

    #[test]
    fn aarch64_frame_records() {
        // stp x29, x30, [sp, #-32]!
        // mov x29, sp
        let stack = bytes(&[BASE + 32, 0x10_0200, 0, 0, 0, 0x10_0300, 0, 0]);
        let snapshot = Snapshot {
            registers: &[],
            stack_pointer: BASE,
            stack: &stack,
            flags: 0,
        };
        let mut frames = Vec::new();
        let way = Framehop::<Aarch64> {
            unwinder: &Aarch64::unwinder(),
            cache: &mut Aarch64::cache(),
            registers: UnwindRegsAarch64::new(0x10_0180, BASE, BASE),
        };
        let walked = walk(
            way,
            &snapshot,
            0x10_0100,
            code,
            |_| false,
            |_| false,
            |it| frames.push(it),
        );
        assert_eq!(frames, [0x10_0100, 0x10_01ff]);
        assert_eq!(walked.ending, Ending::Root);
    }

    proptest::proptest! {
        /// Whatever stands in the registers and the stack: it ends, within the cap, and no frame is outside code.
        #[test]
        fn random_stacks_end(words in proptest::collection::vec(
            proptest::prop_oneof![BASE..BASE + 800, 0x10_0000_u64..0x20_0000, proptest::num::u64::ANY], 0..100),
            bp in proptest::prop_oneof![BASE..BASE + 800, proptest::num::u64::ANY], flags in 0_u16..16)
        {
            let (frames, _) = x86(&words, flags, 0x10_0100, bp);
            proptest::prop_assert!(frames.len() <= FRAMES_MAX);
            proptest::prop_assert!(frames.iter().all(|frame| code(*frame) != Code::NotCode));
        }
    }
}
