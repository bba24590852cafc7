//! The heap census: what of a heap is in use, and what the allocator keeps although it is free.
//!
//! Neither pages nor mappings can tell a leak from freed memory that is kept. The allocator's own metadata can, and it
//! is read here from outside: no probe, no pause, no ptrace. The price is that the heap changes while it is read. So
//! nothing that is read is trusted, a piece that contradicts itself is read again, and where that does not help
//! the census is [`NotTaken`] for a reason that it names. It never guesses.
//!
//! Only glibc's heap is read ([`glibc`]). Of the target's data nothing is kept but sizes, counts, and addresses of
//! constants that blocks begin with.

pub mod constants;
pub mod content;
pub mod cost;
pub mod glibc;
pub mod kept;
pub mod memory;
pub mod reading;
pub mod types;
pub mod watched;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::sampler::maps::Mapping;
use crate::target::allocator::Allocator;
use memory::Memory;

/// How many of the largest free chunks are kept.
pub const LARGEST: usize = 8;

/// So many times a torn place amid a heap is read again without a pause between.
const AT_ONCE: u32 = 5;
/// The first pause before something is read again; each is twice the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// What a census may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The census is given up after this long. One read of up to 1 MiB can end later.
    pub time: Duration,
    /// How often one place is read again without getting beyond it.
    pub tries: u32,
    /// So long, in pauses, a place is waited for that stays torn, and as long a heap that cannot be taken at all: a
    /// thread that lost its processor amid a change leaves it so until it runs on. Often that is no chance: where a
    /// new top chunk's header is the first word of a new page, its fault wakes the one who reads.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            tries: 24,
            // Some rounds of a scheduler on a crowded machine.
            patience: Duration::from_millis(500),
        }
    }
}

/// Chunks and their bytes, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub count: u64,
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Down to nothing at least: the two sides of a difference are read at different moments.
    pub(crate) fn subtract(&mut self, other: Self) {
        self.count = self.count.saturating_sub(other.count);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Free chunks, by where the allocator keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Coalesced chunks, found again by any `malloc` that fits.
    pub bins: Amount,
    /// What is left at the ends of the heaps; the count is that of arenas which have such a rest.
    pub top: Amount,
    /// Kept by a thread for its own next `malloc` of this size. To its neighbours such a chunk is in use.
    pub tcache: Amount,
    /// Small chunks of an arena that were not coalesced. To its neighbours such a chunk is in use.
    pub fastbins: Amount,
}

impl Free {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [self.bins, self.top, self.tcache, self.fastbins]
            .iter()
            .fold(0, |sum, kind| sum.saturating_add(kind.bytes))
    }

    fn add(&mut self, other: &Self) {
        self.bins.add(other.bins);
        self.top.add(other.top);
        self.tcache.add(other.tcache);
        self.fastbins.add(other.fastbins);
    }
}

/// Chunks of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    pub in_use: Amount,
    /// In bins, tcache or fastbins. A top is in no class.
    pub free: Amount,
}

/// What a block in use begins with or consists of, where that is cheap and certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// Its first word is an address among the constants of a module: of a C++ object that of its class's vtable.
    Constant(u64),
    /// Every byte is zero.
    Zero,
    /// Text up to its end or a NUL.
    Text,
}

/// One arena: the main heap, or the heaps that some threads share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Of its `malloc_state`.
    pub address: u64,
    pub main: bool,
    /// How many pieces it is made of.
    pub heaps: u64,
    /// Bytes of the pieces: the sum of what is in use, free and overhead.
    pub system_bytes: u64,
    pub in_use: Amount,
    pub free: Free,
    /// The allocator's own headers of heaps and their end marks, bytes.
    pub overhead_bytes: u64,
}

/// Free memory by address, in runs of chunks: what lies between two chunks in use. What a thread keeps in its tcache is
/// in use here, as it is for the allocator when it coalesces and trims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreePages {
    /// With each, whether `malloc_trim(0)` would give back what it has of whole pages: it leaves the tops of thread
    /// arenas alone.
    pub runs: Vec<(Range<u64>, bool)>,
    /// Bytes of runs beyond [`FREE_RUNS_MAX`].
    pub dropped_bytes: u64,
}

/// Runs that are kept: 24 MiB of them.
pub const FREE_RUNS_MAX: usize = 1 << 20;

impl FreePages {
    pub(crate) fn add(&mut self, run: Range<u64>, trimmable: bool) {
        let count = self.runs.len();
        match self.runs.last_mut() {
            // Read window by window, and a run may go on in the next.
            Some((last, same)) if last.end == run.start && *same == trimmable => last.end = run.end,
            // The last is whole now, and too small to matter. The first may go on what was read before.
            Some(last) if count > 1 && !has_whole_page(&last.0) => *last = (run, trimmable),
            _ if count < FREE_RUNS_MAX => self.runs.push((run, trimmable)),
            _ => {
                self.dropped_bytes = self
                    .dropped_bytes
                    .saturating_add(run.end.saturating_sub(run.start))
            }
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        for (run, trimmable) in other.runs {
            self.add(run, trimmable);
        }
        self.dropped_bytes = self.dropped_bytes.saturating_add(other.dropped_bytes);
    }

    /// Leaves what is made of whole pages, by address. The first chunk of a run keeps `header` bytes.
    pub(crate) fn shrink_to_pages(&mut self, page: u64, header: u64) {
        for (run, _) in &mut self.runs {
            let start = run.start.saturating_add(header);
            run.start = start.checked_next_multiple_of(page).unwrap_or(u64::MAX);
            run.end -= run.end % page;
        }
        self.runs.retain(|(run, _)| run.start < run.end);
        self.runs.sort_unstable_by_key(|(run, _)| run.start);
    }
}

/// Of the smallest size that pages have.
fn has_whole_page(run: &Range<u64>) -> bool {
    run.start.next_multiple_of(4096) < run.end - run.end % 4096
}

/// A heap at about one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Chunks of the arenas in use, bytes with their headers. Mmapped ones are apart.
    pub in_use_bytes: u64,
    pub in_use_chunks: u64,
    pub free: Free,
    pub arenas: Vec<Arena>,
    /// By size of the chunk, bytes: the request and its header, rounded up to 16. Without mmapped chunks.
    pub classes: BTreeMap<u64, Class>,
    /// By (size of the chunk, what is in it): how many are in use. What was not told apart is in none.
    pub contents: BTreeMap<(u64, What), u64>,
    /// Chunks that begin with a constant and found no room in `contents`.
    pub constants_dropped: u64,
    /// Chunks with a mapping of their own, bytes of their mappings. All in use, but for those that a tcache keeps which
    /// is tuned for such sizes (since 2.43). By the allocator's own count, or where that is not found by their headers.
    pub mmapped: Amount,
    /// Of these, by the bytes of their mappings: how many were found.
    pub mmapped_classes: BTreeMap<u64, u64>,
    /// The others: known by the allocator's own count, where they lie is not known.
    pub mmapped_unlocated: u64,
    /// The largest chunks in bins, bytes, the largest first: [`LARGEST`] at most.
    pub largest_free: Vec<u64>,
    /// Pages that hold nothing but free memory, by address. Their residence is looked up by [`kept::look_up`].
    pub free_pages: FreePages,
    /// What was found at the addresses that were watched, in their order.
    pub found: Vec<watched::Found>,
    /// With what [`watched::glimpse`] can look at blocks until the next census. The keys of tcaches are those of the
    /// blocks that were in one: where there was none there is no key, and what lies in a tcache later looks in use.
    pub lists: Option<watched::Lists>,
    /// Where the arenas' heaps lie, by address.
    pub extents: Vec<Range<u64>>,
    pub took: Duration,
    /// Pieces that contradicted themselves and were read again.
    pub torn_retries: u64,
    /// Free lists whose end could not be followed: the chunks beyond count as in use.
    pub broken_lists: u64,
}

/// Why there is no census.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the heap is not glibc's: {0}")]
    OtherAllocator(Allocator),
    #[error("the version of glibc is unknown, and the heap does not tell it")]
    UnknownVersion,
    #[error("the heap's layout in glibc {0} is not known")]
    UnsupportedVersion(String),
    #[error("glibc's main arena was not found, or malloc was never called")]
    NoArena,
    #[error("the main heap is not one piece: {0}")]
    NotContiguous(&'static str),
    #[error("the heap's metadata contradicts itself at {address:#x}: {what}, after {tries} tries")]
    Inconsistent {
        address: u64,
        what: &'static str,
        tries: u32,
    },
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the memory cannot be read: {0}")]
    Unreadable(String),
}

/// Takes the census of a process: `allocator` as [`crate::target::allocator::identify`] tells it, `mappings` as they
/// stand now. `watched` are addresses of blocks as their users were given them, ascending: [`Census::found`] says what
/// became of each.
pub fn take(
    memory: &impl Memory,
    allocator: &Allocator,
    mappings: &[Mapping],
    limits: Limits,
    watched: &[u64],
) -> Result<Census, NotTaken> {
    let began = Instant::now();
    let mut pauses = Pauses::default();
    let mut anew = 0;
    let mut taken = take_once(memory, allocator, mappings, limits, watched);
    // Where it took long to find out, it was waited for already, amid the heap.
    while matches!(taken, Err(NotTaken::Inconsistent { .. }))
        && began.elapsed() < limits.patience.saturating_mul(2)
        && pauses.wait(limits.patience)
    {
        anew += 1;
        let left = Limits {
            time: limits.time.saturating_sub(began.elapsed()),
            ..limits
        };
        match take_once(memory, allocator, mappings, left, watched) {
            // Why it was taken anew says more.
            Err(NotTaken::TimedOut(_)) => break,
            again => taken = again,
        }
    }
    if let Ok(census) = &mut taken {
        census.torn_retries = census.torn_retries.saturating_add(anew);
    }
    taken
}

fn take_once(
    memory: &impl Memory,
    allocator: &Allocator,
    mappings: &[Mapping],
    limits: Limits,
    watched: &[u64],
) -> Result<Census, NotTaken> {
    match allocator {
        Allocator::Glibc { version: Some(text) } => {
            let layout = glibc::layout::version(text)
                .and_then(glibc::layout::Layout::of)
                .ok_or_else(|| NotTaken::UnsupportedVersion(text.clone()))?;
            glibc::take(memory, &layout, mappings, limits, watched)
        }
        Allocator::Glibc { version: None } => {
            glibc::take_of_unknown_version(memory, mappings, limits, watched)
        }
        // Stripped, so it has no names; but a heap of glibc's is known by its looks.
        Allocator::UnknownStatic => match glibc::take_of_unknown_version(memory, mappings, limits, watched) {
            Err(NotTaken::NoArena) => Err(NotTaken::OtherAllocator(allocator.clone())),
            taken => taken,
        },
        other => Err(NotTaken::OtherAllocator(other.clone())),
    }
}

/// Pauses, each twice as long as the one before.
#[derive(Debug, Default)]
struct Pauses {
    count: u32,
    taken: Duration,
}

impl Pauses {
    /// Waits, unless there was as much of it as `most`.
    fn wait(&mut self, most: Duration) -> bool {
        let next = (PAUSE * (1 << self.count.min(16))).min(PAUSE_MAX);
        let next = next.min(most.saturating_sub(self.taken));
        if next.is_zero() {
            return false;
        }
        std::thread::sleep(next);
        self.count += 1;
        self.taken += next;
        true
    }
}

/// What is left of the limits while a census is taken.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    started: Instant,
    pauses: Pauses,
    pub torn: u64,
    pub broken_lists: u64,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            pauses: Pauses::default(),
            torn: 0,
            broken_lists: 0,
        }
    }

    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn tries(&self) -> u32 {
        self.limits.tries
    }

    /// Before a place is read again that was torn so many times in a row, where all before it was sound: most such
    /// moments are over in nanoseconds; the others last until a thread has its processor again.
    pub fn pause(&mut self, tries: u32) {
        if tries > AT_ONCE {
            self.pauses.wait(self.limits.patience);
        }
    }

    pub fn check(&self) -> Result<(), NotTaken> {
        if self.started.elapsed() > self.limits.time {
            return Err(NotTaken::TimedOut(self.limits.time));
        }
        Ok(())
    }
}
