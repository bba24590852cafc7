//! One reading of a process's heap with all that goes with it: the census, what is resident, what types are called.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kept::{self, Kept};
use super::memory::ProcessMemory;
use super::types::{TypeName, TypeNames};
use super::{Census, Limits, NotTaken, What, take};
use crate::sampler::{ProcRoot, maps};
use crate::target::allocator::{self, Allocator};
use crate::target::proc::Proc;

/// Constants that are named; those that most bytes begin with come first.
const NAMES_MAX: usize = 4096;
/// Naming ends after this part of the census's time, and [`NAMING_LEAST`] at least.
const NAMING_SHARE: u32 = 2;
const NAMING_LEAST: Duration = Duration::from_millis(50);

/// What was read of a heap at about one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub allocator: Allocator,
    pub census: Census,
    /// `None` where pagemap could not be read.
    pub kept: Option<Kept>,
    /// By the address that blocks begin with. What has no name is not in it.
    pub names: BTreeMap<u64, TypeName>,
    /// Constants that were not looked up, since there was no time left or there were too many.
    pub unnamed: u64,
    /// All of it.
    pub took: Duration,
}

/// Reads the heap of a process. `watched` are addresses of blocks as their users were given them, ascending: the census
/// says what became of each.
///
/// # Errors
///
/// See [`NotTaken`].
pub fn read(root: &ProcRoot, pid: u32, limits: Limits, watched: &[u64]) -> Result<Reading, NotTaken> {
    let began = Instant::now();
    let unreadable = |error: std::io::Error| NotTaken::Unreadable(error.to_string());
    let allocator = allocator::identify(&Proc::host(), pid).map_err(unreadable)?;
    let mappings = maps::read(root, pid).map_err(unreadable)?.mappings;
    let memory = ProcessMemory::of(pid);
    let census = take(&memory, &allocator, &mappings, limits, watched)?;
    let kept = kept::look_up(root, pid, &census).ok();

    let mut bytes = BTreeMap::<u64, u64>::new();
    for ((size, what), count) in &census.contents {
        if let What::Constant(address) = what {
            let sum = bytes.entry(*address).or_default();
            *sum = sum.saturating_add(size.saturating_mul(*count));
        }
    }
    let mut by_bytes: Vec<(u64, u64)> = bytes.into_iter().map(|(address, sum)| (sum, address)).collect();
    by_bytes.sort_unstable_by(|one, next| next.cmp(one));
    let naming = Instant::now();
    let patience = (census.took / NAMING_SHARE).max(NAMING_LEAST);
    let mut names = BTreeMap::new();
    let mut unnamed = 0;
    let mut types = TypeNames::new(memory, &mappings, root, pid);
    for (index, (_, address)) in by_bytes.iter().enumerate() {
        if index >= NAMES_MAX || naming.elapsed() > patience {
            unnamed = (by_bytes.len() - index) as u64;
            break;
        }
        if let Some(name) = types.name(*address) {
            names.insert(*address, name);
        }
    }
    Ok(Reading {
        allocator,
        census,
        kept,
        names,
        unnamed,
        took: began.elapsed(),
    })
}
