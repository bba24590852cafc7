//! What became of the blocks that a call site asked for. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The blocks of one stack, or of all stacks of a row. Bytes; ages are seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocated {
    /// In use at the end, estimated.
    pub blocks: f64,
    /// Births seen, of blocks in the sample.
    pub births: u64,
    /// What they stand for, in the time that was watched.
    pub born_blocks: u64,
    pub born_bytes: u64,
    /// Births that were followed to the end or to their death.
    pub followed: u64,
    /// Of these, the ones in use at the end.
    pub survived: u64,
    /// Of the survivors, those that are as young as other blocks of the site became at most.
    pub young: u64,
    /// Of the survivors, those that may be other blocks, at the same address by now.
    pub doubtful: u64,
    /// Of the survivors. Of several stacks, of the one with the most.
    pub median_age: Option<f64>,
    pub oldest_age: Option<f64>,
    /// The most bytes first.
    pub classes: Vec<AllocatedClass>,
    /// The functions that it called, as `malloc`; each once.
    pub functions: Vec<&'static str>,
}

/// Blocks of one size, and of one type where that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct AllocatedClass {
    /// The largest request that such a chunk serves.
    pub request: u64,
    /// With its header; of one with a mapping of its own its mapping.
    pub chunk_bytes: u64,
    /// Untrusted text.
    pub type_name: Option<String>,
    /// Each has a mapping of its own: the ledger has its bytes, and the site's live bytes are without them.
    pub mapped: bool,
    pub blocks: f64,
    pub bytes: f64,
    /// Survivors that were seen.
    pub survivors: u64,
}

impl Allocated {
    /// Of several stacks; `None` of none. The order does not matter.
    pub fn sum<'a>(stacks: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        // Of equals the older ones.
        let most = stacks.clone().max_by(|a, b| {
            let age = |it: &Self| it.median_age.unwrap_or(f64::NEG_INFINITY);
            a.survived.cmp(&b.survived).then(age(a).total_cmp(&age(b)))
        })?;
        let sum = |of: fn(&Self) -> u64| stacks.clone().map(of).fold(0u64, u64::saturating_add);
        let mut functions: Vec<&'static str> = stacks
            .clone()
            .flat_map(|it| it.functions.iter().copied())
            .collect();
        functions.sort_unstable();
        functions.dedup();
        Some(Self {
            blocks: sum_of(stacks.clone().map(|it| it.blocks)),
            births: sum(|it| it.births),
            born_blocks: sum(|it| it.born_blocks),
            born_bytes: sum(|it| it.born_bytes),
            followed: sum(|it| it.followed),
            survived: sum(|it| it.survived),
            young: sum(|it| it.young),
            doubtful: sum(|it| it.doubtful),
            median_age: most.median_age,
            oldest_age: stacks.clone().filter_map(|it| it.oldest_age).reduce(f64::max),
            classes: classes(stacks.flat_map(|it| &it.classes)),
            functions,
        })
    }
}

/// What makes two classes one: the bytes of the chunk, the type, and whether it has a mapping of its own.
type Key<'a> = (u64, Option<&'a str>, bool);

fn classes<'a>(all: impl Iterator<Item = &'a AllocatedClass>) -> Vec<AllocatedClass> {
    let mut by_key: BTreeMap<Key<'_>, Vec<&AllocatedClass>> = BTreeMap::new();
    for class in all {
        let key = (class.chunk_bytes, class.type_name.as_deref(), class.mapped);
        by_key.entry(key).or_default().push(class);
    }
    let mut joined: Vec<AllocatedClass> = by_key
        .into_iter()
        .filter_map(|((chunk_bytes, type_name, mapped), classes)| {
            Some(AllocatedClass {
                request: classes.iter().map(|class| class.request).max()?,
                chunk_bytes,
                type_name: type_name.map(str::to_owned),
                mapped,
                blocks: sum_of(classes.iter().map(|class| class.blocks)),
                bytes: sum_of(classes.iter().map(|class| class.bytes)),
                survivors: classes
                    .iter()
                    .fold(0, |sum, class| sum.saturating_add(class.survivors)),
            })
        })
        .collect();
    // The map's order stands for what is left equal.
    joined.sort_by(|a, b| {
        b.bytes
            .total_cmp(&a.bytes)
            .then_with(|| Reverse(a.survivors).cmp(&Reverse(b.survivors)))
    });
    joined
}

/// Sums of doubles depend on their order; a row must not depend on that of its stacks.
fn sum_of(amounts: impl Iterator<Item = f64>) -> f64 {
    let mut amounts: Vec<f64> = amounts.collect();
    amounts.sort_by(f64::total_cmp);
    amounts.iter().sum()
}
