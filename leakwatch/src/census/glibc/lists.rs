//! Chunks that are free though they look in use: those on the lists of fastbins and tcaches.

use std::collections::BTreeMap;
use std::ops::Range;

use super::keys::Keys;
use super::layout::{FASTBINS, FLAGS, HEADER, IS_MMAPPED, LEAST_CHUNK, Layout, Links, NON_MAIN_ARENA, link};
use super::tcache;
use crate::census::memory::{Memory, word_at};
use crate::census::{Budget, NotTaken};

/// Nodes between two looks at the clock.
const NODES_UNCHECKED: u64 = 1024;
/// How often a tcache that its thread is changing right now is read.
const TCACHE_TRIES: u32 = 3;

/// One list of chunks.
struct List {
    /// The head's chunk (not what the user was given).
    chunk: u64,
    /// The smallest and the largest chunk that may be on it.
    sizes: (u64, u64),
    /// Nodes at most.
    most: u64,
    /// What a link's target is above its chunk: in a tcache links point at what the user was given, in a fastbin at
    /// the chunk. Both stand in the user's first word.
    to_user: u64,
    /// Whether the chunks' addresses are kept.
    by_address: bool,
    /// What the tcache is to its thread, where it is one of a tcache's lists.
    tcache: Option<u64>,
}

/// How a list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListEnd {
    Whole,
    /// A node that is no chunk of this size, or one more than there can be.
    Broken,
}

/// Chunks whose addresses are kept: 32 MiB of them.
const ADDRESSES_MAX: usize = 1 << 22;

/// Chunks on lists.
#[derive(Default)]
pub struct Nodes<'a> {
    /// By address once they are sorted, [`ADDRESSES_MAX`] at most.
    pub addresses: Vec<u64>,
    /// How many others, by (index of the arena, bytes of the chunk).
    pub counts: BTreeMap<(usize, u64), u64>,
    /// Blocks that are told of, as their users were given them, by address.
    watched: &'a [u64],
    /// Those of them that were met, by their index.
    pub met: Vec<usize>,
    /// What the blocks in tcaches are marked with.
    pub keys: Keys,
}

impl<'a> Nodes<'a> {
    /// None yet, and the blocks that are told of when they are met.
    pub fn watching(watched: &'a [u64]) -> Self {
        Self {
            watched,
            ..Self::default()
        }
    }

    fn count(&self) -> u64 {
        self.addresses.len() as u64 + self.counts.values().sum::<u64>()
    }
}

/// The walked heaps, by address: (range, index of the arena).
pub type Extents = [(Range<u64>, usize)];

fn arena_of(extents: &Extents, address: u64) -> Option<usize> {
    let after = extents.partition_point(|(range, _)| range.start <= address);
    let (range, arena) = extents.get(after.checked_sub(1)?)?;
    range.contains(&address).then_some(*arena)
}

/// Where the chunk of a header lies.
enum Place {
    Arena(usize),
    /// In a mapping of its own: since 2.43 a tcache that is tuned for such sizes keeps these too. Such a chunk stays
    /// among the mmapped ones.
    Mapping,
}

fn place(layout: &Layout, extents: &Extents, chunk: u64, size_word: u64) -> Option<Place> {
    let arena = arena_of(extents, chunk);
    if size_word & IS_MMAPPED == 0 {
        return arena.map(Place::Arena);
    }
    (layout.mapped_unsized > 0 && arena.is_none()).then_some(Place::Mapping)
}

fn follow<'a>(
    memory: &impl Memory,
    list: &List,
    mangled: bool,
    place: &impl Fn(u64, u64) -> Option<Place>,
    room: usize,
    mut nodes: Nodes<'a>,
    budget: &Budget,
) -> Result<(ListEnd, Nodes<'a>), NotTaken> {
    let mut chunk = list.chunk;
    // A node that is met again is in a circle (Brent's way: the one remembered changes at powers of two).
    let mut remembered = 0;
    for index in 0..list.most {
        if chunk == remembered {
            return Ok((ListEnd::Broken, nodes));
        }
        if index.is_power_of_two() {
            remembered = chunk;
        }
        if index % NODES_UNCHECKED == 0 {
            budget.check()?;
        }
        let mut words = [0; 32];
        if !chunk.is_multiple_of(16) || memory.fill(chunk, &mut words).is_err() {
            return Ok((ListEnd::Broken, nodes));
        }
        let word = |offset| word_at(&words, offset).unwrap_or(0);
        let bytes = word(8) & !FLAGS;
        let Some(place) = place(chunk, word(8)).filter(|_| (list.sizes.0..=list.sizes.1).contains(&bytes))
        else {
            return Ok((ListEnd::Broken, nodes));
        };
        if let Place::Arena(arena) = place {
            if list.by_address && nodes.addresses.len() < room {
                nodes.addresses.push(chunk);
            } else {
                *nodes.counts.entry((arena, bytes)).or_default() += 1;
            }
        }
        if let Ok(index) = nodes.watched.binary_search(&(chunk + HEADER)) {
            nodes.met.push(index);
        }
        if let Some(tcache) = list.tcache {
            nodes.keys.met(word(24), tcache);
        }
        let next = link(chunk + HEADER, word(16), mangled);
        if next == 0 {
            return Ok((ListEnd::Whole, nodes));
        }
        let Some(next) = next.checked_sub(list.to_user) else {
            return Ok((ListEnd::Broken, nodes));
        };
        chunk = next;
    }
    // The list is longer than its count: the target has just put one there, or it is a circle.
    Ok((ListEnd::Broken, nodes))
}

/// Adds the chunks of a list to `nodes`: of a broken one those up to the break.
fn add(
    memory: &impl Memory,
    layout: &Layout,
    list: &List,
    place: &impl Fn(u64, u64) -> Option<Place>,
    budget: &mut Budget,
    nodes: &mut Nodes<'_>,
) -> Result<(), NotTaken> {
    let ways: &[bool] = match layout.links {
        Links::Plain => &[false],
        Links::Mangled => &[true],
        Links::Either => &[false, true],
    };
    // Of all lists together.
    let room = ADDRESSES_MAX.saturating_sub(nodes.addresses.len());
    let (mut whole, mut longest) = (false, Nodes::watching(nodes.watched));
    for mangled in ways {
        let (end, found) = follow(
            memory,
            list,
            *mangled,
            place,
            room,
            Nodes::watching(nodes.watched),
            budget,
        )?;
        whole = end == ListEnd::Whole;
        if whole {
            longest = found;
            break;
        }
        if found.count() > longest.count() {
            longest = found;
        }
    }
    budget.broken_lists += u64::from(!whole);
    for (key, count) in longest.counts {
        *nodes.counts.entry(key).or_default() += count;
    }
    nodes.addresses.append(&mut longest.addresses);
    nodes.met.append(&mut longest.met);
    nodes.keys.append(longest.keys);
    Ok(())
}

/// Adds the chunks in the fastbins of an arena, the one at `index`. The heaps need not be known: an arena's chunks say
/// themselves whether they are the main one's.
pub fn fastbins(
    memory: &impl Memory,
    layout: &Layout,
    (index, state, main): (usize, u64, bool),
    budget: &mut Budget,
    nodes: &mut Nodes<'_>,
) -> Result<(), NotTaken> {
    let of_arena = |_: u64, size_word: u64| {
        let own = size_word & IS_MMAPPED == 0 && (size_word & NON_MAIN_ARENA == 0) == main;
        own.then_some(Place::Arena(index))
    };
    let Some(offset) = layout.fastbins else {
        return Ok(());
    };
    let system = memory.word(state + layout.system_mem).unwrap_or(0);
    for index in 0..FASTBINS {
        let head = memory.word(state + offset + 8 * index).unwrap_or(0);
        if head == 0 {
            continue;
        }
        let size = LEAST_CHUNK + 16 * index;
        let list = List {
            chunk: head,
            sizes: (size, size),
            // It holds at least as many bytes.
            most: system / size,
            to_user: 0,
            by_address: true,
            tcache: None,
        };
        add(memory, layout, &list, &of_arena, budget, nodes)?;
    }
    Ok(())
}

/// Adds the chunks that a thread keeps in the tcache whose chunk is at `address`. Nothing, where it turns out to be the
/// user's own data: then the heads of its lists are no chunks of the right size.
pub fn tcache(
    memory: &impl Memory,
    layout: &Layout,
    extents: &Extents,
    address: u64,
    budget: &mut Budget,
    nodes: &mut Nodes<'_>,
) -> Result<(), NotTaken> {
    let by_extent = |chunk: u64, size_word: u64| place(layout, extents, chunk, size_word);
    for _ in 0..TCACHE_TRIES {
        if let Some(lists) = tcache_lists(memory, layout, extents, address) {
            for list in lists {
                add(memory, layout, &list, &by_extent, budget, nodes)?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// The lists of a tcache, each with a chunk at its head.
fn tcache_lists(memory: &impl Memory, layout: &Layout, extents: &Extents, address: u64) -> Option<Vec<List>> {
    let size = memory.word(address + 8).ok()? & !FLAGS;
    layout
        .tcaches
        .iter()
        .filter(|shape| (shape.least_chunk..=shape.most_chunk).contains(&size))
        .find_map(|shape| {
            let mut body = vec![0; usize::try_from(shape.bytes()).ok()?];
            memory.fill(address + HEADER, &mut body).ok()?;
            let bins = tcache::bins(&body, *shape)?;
            bins.into_iter()
                .map(|bin| {
                    let chunk = bin.head.checked_sub(HEADER)?;
                    let sizes = shape.sizes(bin.index);
                    let size = memory.word(chunk.checked_add(8)?).ok()?;
                    place(layout, extents, chunk, size)?;
                    (sizes.0..=sizes.1).contains(&(size & !FLAGS)).then_some(List {
                        chunk,
                        sizes,
                        most: bin.most,
                        to_user: HEADER,
                        by_address: false,
                        tcache: Some(address + HEADER),
                    })
                })
                .collect()
        })
}
