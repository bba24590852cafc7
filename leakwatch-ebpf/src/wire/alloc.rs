//! The maps of the probes on the allocator's functions.

use core::mem::size_of;

use super::FUNCTION_ARGUMENTS;

/// Threads whose calls are remembered.
pub const THREADS_MAX: u32 = 16 * 1024;

/// Slots for records beside one per CPU: so many programs can be preempted in the middle of one.
pub const SLOTS_SPARE: u32 = 8;

/// How often a CPU adds its hits to the burst's: adding each would make the CPUs wait for one another.
pub const HITS_STEP: u64 = 64;

/// The most that counts as the time of one entry, nanoseconds: beyond it the thread was interrupted or lost its CPU.
pub const TIMED_MOST: u64 = 20_000;

/// A burst, as userspace sets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Burst {
    /// Its number; 0 between bursts.
    pub number: u64,
    /// Blocks under it are in the sample: [`super::block_in_sample`].
    pub threshold: u64,
    /// After so many hits the burst is cut. Told in steps of [`HITS_STEP`] per CPU.
    pub hits_max: u64,
    /// The deepest that a thread's own stack goes, bytes: beyond is another stack.
    pub stack_bytes_max: u64,
}

/// A burst, as the programs tell of it. Userspace sets it to zero when it begins one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BurstState {
    /// In steps of [`HITS_STEP`].
    pub hits: u64,
    /// Bits of [`cut`]; not 0: the programs leave at once.
    pub cut: u64,
}

/// Why a burst was cut.
pub mod cut {
    /// `hits_max`.
    pub const HITS: u64 = 1;
    /// A call on a stack that is not the thread's own.
    pub const OFF_STACK: u64 = 2;
}

/// A call that a thread is in.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Call {
    /// The burst that it was seen in; 0 when the thread is in none.
    pub burst: u64,
    /// At the function's entry.
    pub stack_pointer: u64,
    /// Address of the function.
    pub entry: u64,
    /// Bytes asked for.
    pub length: u64,
    /// realloc's old block, or where the result is to be stored.
    pub pointer: u64,
    /// The attach cookie.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds, when a function was entered that gives up a block; else 0.
    pub began: u64,
    /// What lay on the stack at the entry, where the return probe puts its own; 0 where it is not on the stack.
    pub return_address: u64,
}

const _: () = assert!(size_of::<Burst>() == 32 && size_of::<BurstState>() == 16 && size_of::<Call>() == 64);

/// What a program must know of the function that it is attached to. Travels as the attach cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// A number by which userspace tells the function.
    pub function: u8,
    /// Which argument is the size.
    pub size: u8,
    /// Which argument the size is to be multiplied by.
    pub count: Option<u8>,
    /// Which argument is the block that is given up.
    pub old: Option<u8>,
    /// Which argument says where to store the block. Otherwise it is the function's result.
    pub store: Option<u8>,
    /// The kernel does not emulate the function's first instruction.
    pub stepped: bool,
}

const NONE: u8 = 0xf;

impl Cookie {
    /// The cookie's bits: never 0, which stands for none.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        const fn or_none(argument: Option<u8>) -> u64 {
            match argument {
                Some(argument) => argument as u64,
                None => NONE as u64,
            }
        }
        self.function as u64
            | (self.size as u64) << 8
            | or_none(self.count) << 12
            | or_none(self.old) << 16
            | or_none(self.store) << 20
            | (self.stepped as u64) << 24
            | 1 << 25
    }

    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        #[inline(always)]
        const fn argument(number: u8) -> Option<u8> {
            if (number as usize) < FUNCTION_ARGUMENTS {
                Some(number)
            } else {
                None
            }
        }
        let [function, size_count, old_store, rest, ..] = bits.to_le_bytes();
        Self {
            function,
            size: size_count & 0xf,
            count: argument(size_count >> 4),
            old: argument(old_store & 0xf),
            store: argument(old_store >> 4),
            stepped: rest & 1 != 0,
        }
    }
}
