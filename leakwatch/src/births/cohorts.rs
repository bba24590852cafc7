//! What becomes of the blocks whose births were watched.
//!
//! Births are watched in stretches: from when the probes are put in to when they are taken out. Within a stretch every
//! later birth at a watched address is seen, after it none is. So a block counts only if it was looked at near the end
//! of its stretch, with the probes still there, and was in use then: what was free by then, or young, is left out, since
//! its address may be handed out again unseen. What is left are *candidates*, looked at again at each check and by the
//! census at the end.
//!
//! Between stretches a candidate may be freed and its address be given to another block of the same size. Such a block
//! is told by its content, where it can be, and by the births that later stretches see.

mod checked;

use std::collections::{BTreeMap, HashMap};

use leakwatch_ebpf::wire::block_in_sample;

use super::table::{Births, Facts, Losses};
use crate::ledger::SiteId;

pub use checked::Checked;

/// How many words of a block are remembered.
pub const WORDS: usize = 8;

/// The first words of a block, as far as it has so many. They stay in this process's memory.
pub type Words = [u64; WORDS];

/// A block to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub address: u64,
    /// When it was born, nanoseconds: another block may be born there meanwhile.
    pub born: u64,
}

/// What was found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A chunk begins there and is in use.
    InUse {
        /// With its header; of one with a mapping of its own its mapping.
        chunk_bytes: u64,
        mapped: bool,
        words: Words,
    },
    /// It is free, or no chunk begins there.
    NotInUse,
    /// It could not be told.
    Unknown,
}

/// Blocks of one kind, as a census counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// With its header; of one with a mapping of its own its mapping.
    pub chunk_bytes: u64,
    /// The address of a constant that it begins with, as of a vtable.
    pub constant: Option<u64>,
    pub mapped: bool,
}

/// What the census at the window's end found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    InUse {
        class: Class,
        words: Words,
    },
    /// It is free, or no chunk begins there.
    Gone,
    Unknown,
}

/// How the blocks of one site fared, by the check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Births that were seen, sampled ones, by their weights; and what they stand for.
    pub seen: u64,
    pub born: u64,
    pub born_bytes: u64,
    /// By the interval between checks in which they were born: the members of the cohort (blocks that were old enough
    /// when they were looked at in their stretch), then how many of them were in use at that look, then at each check
    /// since, the end's census included.
    pub alive: Vec<Vec<u64>>,
    /// The greatest age at which a block was seen that died later, nanoseconds.
    pub oldest_death: u64,
}

/// A block that is in use at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survivor {
    pub site: SiteId,
    pub class: Class,
    /// Asked for, bytes.
    pub size: u64,
    /// Since it was born, or what was realloc'ed into it, nanoseconds.
    pub age: u64,
    /// Index into [`Course::alive`].
    pub interval: usize,
    /// Its content does not say that it is the block that was born: it may be another, unseen one's.
    pub doubtful: bool,
    /// That it is not by chance that its content says so, 0 to 1.
    pub certainty: f64,
    /// The function that made it: index into `FUNCTIONS` of the target's entry points.
    pub function: u32,
}

/// All that is known at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub survivors: Vec<Survivor>,
    pub courses: BTreeMap<SiteId, Course>,
    /// Moments of the checks, the end's census last, nanoseconds.
    pub checks: Vec<u64>,
    pub losses: Losses,
    /// Births that were seen, of blocks in the sample.
    pub births: u64,
    /// Candidates that could not be followed to the end.
    pub unknown: u64,
    /// One block of the sample stands for so many.
    pub stands_for: u64,
}

/// Candidates kept at most; over it the threshold is halved.
const CANDIDATES_MAX: usize = 1 << 18;
/// What a chunk may have beyond what was asked for: a rest that is too small for a chunk of its own is not split off.
const SLACK: u64 = 16;
/// The same where an alignment was asked for.
const SLACK_ALIGNED: u64 = 48;
/// A mapping of its own is made of whole pages, huge ones where that is tuned.
const SLACK_MAPPED: u64 = (2 << 20) + (8 << 10);
/// Functions from this one on take an alignment.
const FIRST_ALIGNED: u32 = 4;

/// A block that is followed.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    born: u64,
    site: SiteId,
    size: u64,
    function: u32,
    first: u64,
    /// When it was seen in use last, nanoseconds.
    seen: u64,
    words: Words,
    stretch: u64,
    interval: usize,
}

/// The blocks of one process.
#[derive(Debug)]
pub struct Cohorts {
    births: Births,
    candidates: BTreeMap<u64, Candidate>,
    courses: BTreeMap<SiteId, Course>,
    checks: Vec<u64>,
    stretch: u64,
    unknown: u64,
}

impl Cohorts {
    #[must_use]
    pub fn new(threshold: u64) -> Self {
        Self {
            births: Births::new(threshold),
            candidates: BTreeMap::new(),
            courses: BTreeMap::new(),
            checks: Vec::new(),
            stretch: 0,
            unknown: 0,
        }
    }

    /// Which blocks are in the sample: the kernel side is to be told when it falls.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        self.births.threshold()
    }

    /// Lowers the threshold. It never rises.
    pub fn lower(&mut self, threshold: u64) {
        let before = self.births.threshold();
        self.births.lower(threshold);
        self.follow_threshold(before);
    }

    /// See [`Births::born`].
    pub fn born(&mut self, address: u64, facts: Facts) {
        let before = self.births.threshold();
        self.births.born(address, facts);
        self.end_others(address);
        self.follow_threshold(before);
    }

    /// See [`Births::moved`].
    pub fn moved(&mut self, old: u64, new: u64, facts: Facts, began: u64) {
        let before = self.births.threshold();
        self.births.moved(old, new, facts, began);
        self.end_others(old);
        self.end_others(new);
        self.follow_threshold(before);
    }

    /// See [`Births::left`].
    pub fn left(&mut self, old: u64, began: u64) {
        self.births.left(old, began);
        self.end_others(old);
    }

    /// Blocks of this stretch that were born at `until` or before and were not looked at yet, by address.
    #[must_use]
    pub fn to_look_at(&self, until: u64) -> Vec<Look> {
        let mut looks: Vec<Look> = self
            .births
            .blocks()
            .filter(|(address, born)| born.facts.time <= until && !self.candidates.contains_key(address))
            .map(|(address, born)| Look {
                address,
                born: born.facts.time,
            })
            .collect();
        looks.sort_unstable_by_key(|look| look.address);
        looks
    }

    /// What was found of them at `time` (nanoseconds), in the same order, with the probes still there. Those in use
    /// become candidates.
    pub fn looked(&mut self, time: u64, looks: &[Look], seen: &[Seen]) {
        let interval = self.checks.len();
        for (look, seen) in looks.iter().zip(seen) {
            let Some(born) = self.births.at(look.address).copied() else {
                // realloc gave it up before the look.
                continue;
            };
            let Some(site) = born.facts.site.filter(|_| born.facts.time == look.born) else {
                // Another was born there since, and is too young: whose the one before was is not known any more.
                continue;
            };
            let alive = match *seen {
                Seen::Unknown => {
                    self.unknown += 1;
                    self.births.forget(look.address);
                    continue;
                }
                Seen::InUse {
                    chunk_bytes,
                    mapped,
                    words,
                } if fits(born.facts.size, born.facts.function, chunk_bytes, mapped) => Some(words),
                Seen::InUse { .. } | Seen::NotInUse => None,
            };
            let course = self.courses.entry(site).or_default();
            course.count(interval, 0);
            let Some(words) = alive else { continue };
            course.count(interval, 1);
            self.candidates.insert(
                look.address,
                Candidate {
                    born: born.facts.time,
                    site,
                    size: born.facts.size,
                    function: born.facts.function,
                    first: born.first,
                    seen: time,
                    words,
                    stretch: self.stretch,
                    interval,
                },
            );
        }
        while self.candidates.len() > CANDIDATES_MAX && self.threshold() > 1 {
            self.lower(self.threshold() / 2);
        }
    }

    /// The probes are gone, and all of their events were told: what was not looked at is forgotten.
    pub fn end_stretch(&mut self) {
        self.stretch += 1;
        let candidates = &self.candidates;
        self.births.retain(|address, _| candidates.contains_key(&address));
    }

    /// All candidates, by address.
    #[must_use]
    pub fn candidates(&self) -> Vec<Look> {
        self.candidates
            .iter()
            .map(|(address, candidate)| Look {
                address: *address,
                born: candidate.born,
            })
            .collect()
    }

    /// A check of all candidates, at `time` (nanoseconds), in the same order.
    pub fn checked(&mut self, time: u64, looks: &[Look], seen: &[Seen]) {
        for (look, seen) in looks.iter().zip(seen) {
            let Some(candidate) = self.candidate(look) else {
                continue;
            };
            match *seen {
                Seen::InUse {
                    chunk_bytes, mapped, ..
                } if fits(candidate.size, candidate.function, chunk_bytes, mapped) => candidate.seen = time,
                // What cannot be told now may be told later.
                Seen::Unknown => {}
                Seen::InUse { .. } | Seen::NotInUse => self.end(look.address),
            }
        }
        self.count_check(time);
    }

    /// The end, at `time` (nanoseconds): what the census found at the candidates' addresses, in the same order.
    #[must_use]
    pub fn close(mut self, time: u64, looks: &[Look], fates: &[Fate]) -> Outcome {
        let mut survivors = Vec::new();
        let stretch = self.stretch;
        let common = Common::of(self.candidates.values());
        let mut contents = Vec::new();
        for (look, fate) in looks.iter().zip(fates) {
            let Some(candidate) = self.candidate(look) else {
                continue;
            };
            match fate {
                Fate::InUse { class, words }
                    if fits(
                        candidate.size,
                        candidate.function,
                        class.chunk_bytes,
                        class.mapped,
                    ) =>
                {
                    candidate.seen = time;
                    if candidate.stretch != stretch {
                        contents.push(Content {
                            survivor: survivors.len(),
                            size: candidate.size,
                            before: candidate.words,
                            after: *words,
                        });
                    }
                    survivors.push(Survivor {
                        site: candidate.site,
                        class: *class,
                        size: candidate.size,
                        age: time.saturating_sub(candidate.first),
                        interval: candidate.interval,
                        doubtful: false,
                        certainty: 1.0,
                        function: candidate.function,
                    });
                }
                Fate::InUse { .. } | Fate::Gone => self.end(look.address),
                Fate::Unknown => {
                    self.unknown += 1;
                    self.candidates.remove(&look.address);
                }
            }
        }
        compare(&mut survivors, contents, &common);
        self.count_check(time);
        for (site, births) in self.births.sites() {
            let course = self.courses.entry(site).or_default();
            course.seen = births.seen;
            course.born = births.blocks;
            course.born_bytes = births.bytes;
        }
        Outcome {
            survivors,
            courses: self.courses,
            checks: self.checks,
            losses: self.births.losses(),
            births: self.births.seen(),
            unknown: self.unknown,
            stands_for: self.births.stands_for(),
        }
    }

    fn candidate(&mut self, look: &Look) -> Option<&mut Candidate> {
        self.candidates
            .get_mut(&look.address)
            .filter(|candidate| candidate.born == look.born)
    }

    /// It died.
    fn end(&mut self, address: u64) {
        self.births.forget(address);
        if let Some(candidate) = self.candidates.remove(&address) {
            let course = self.courses.entry(candidate.site).or_default();
            let age = candidate.seen.saturating_sub(candidate.first);
            course.oldest_death = course.oldest_death.max(age);
        }
    }

    /// Whoever was at an address before the one that is there by now has died.
    fn end_others(&mut self, address: u64) {
        let now = self.births.at(address).map(|born| born.facts.time);
        if self
            .candidates
            .get(&address)
            .is_some_and(|candidate| Some(candidate.born) != now)
            && let Some(candidate) = self.candidates.remove(&address)
        {
            let course = self.courses.entry(candidate.site).or_default();
            let age = candidate.seen.saturating_sub(candidate.first);
            course.oldest_death = course.oldest_death.max(age);
        }
    }

    fn count_check(&mut self, time: u64) {
        let mut alive: BTreeMap<(SiteId, usize), u64> = BTreeMap::new();
        for candidate in self.candidates.values() {
            *alive.entry((candidate.site, candidate.interval)).or_default() += 1;
        }
        for (site, course) in &mut self.courses {
            for (interval, counts) in course.alive.iter_mut().enumerate() {
                if counts.is_empty() {
                    counts.extend([0, 0]);
                }
                counts.push(alive.get(&(*site, interval)).copied().unwrap_or(0));
            }
        }
        self.checks.push(time);
    }

    /// Where the threshold fell since it was `before`, what left the sample is as if it had never been in it.
    fn follow_threshold(&mut self, before: u64) {
        let threshold = self.births.threshold();
        if threshold >= before {
            return;
        }
        self.candidates
            .retain(|address, _| block_in_sample(*address, threshold));
        for counts in self.courses.values_mut().flat_map(|course| &mut course.alive) {
            for count in counts {
                let scaled = u128::from(*count) * u128::from(threshold) / u128::from(before.max(1));
                *count = u64::try_from(scaled).unwrap_or(u64::MAX);
            }
        }
    }
}

impl Course {
    /// One more of an interval: 0 a member of the cohort, 1 one that was in use at its look.
    fn count(&mut self, interval: usize, stage: usize) {
        if self.alive.len() <= interval {
            self.alive.resize(interval + 1, Vec::new());
        }
        if let Some(counts) = self.alive.get_mut(interval) {
            if counts.len() < 2 {
                counts.resize(2, 0);
            }
            if let Some(count) = counts.get_mut(stage) {
                *count += 1;
            }
        }
    }
}

/// The chunk for a request, bytes.
fn chunk_bytes_of(request: u64) -> u64 {
    (request.saturating_add(8 + 15) & !15).max(32)
}

/// Whether a chunk is of the size that a request gets.
fn fits(request: u64, function: u32, chunk_bytes: u64, mapped: bool) -> bool {
    if mapped {
        return chunk_bytes > request && (chunk_bytes - request <= SLACK_MAPPED || function >= FIRST_ALIGNED);
    }
    let least = chunk_bytes_of(request);
    let slack = if function >= FIRST_ALIGNED {
        SLACK_ALIGNED
    } else {
        SLACK
    };
    (least..=least.saturating_add(slack)).contains(&chunk_bytes)
}

/// A survivor whose address others may have had meanwhile.
struct Content {
    /// Its index.
    survivor: usize,
    size: u64,
    before: Words,
    after: Words,
}

/// With how many others of its size each content is compared.
const OTHERS: usize = 8;

/// Tells which contents are those of the blocks that were born; and for each site how often that is so by chance, by
/// comparing what its blocks were with what lies at other addresses now.
fn compare(survivors: &mut [Survivor], mut contents: Vec<Content>, common: &Common) {
    #[derive(Default)]
    struct Matches {
        same: f64,
        all: f64,
        by_chance: f64,
        compared: f64,
    }
    contents.sort_by_key(|content| content.size);
    let mut matches: BTreeMap<(SiteId, u64), Matches> = BTreeMap::new();
    for alike in contents.chunk_by(|one, next| one.size == next.size) {
        for (index, content) in alike.iter().enumerate() {
            let Some(survivor) = survivors.get_mut(content.survivor) else {
                continue;
            };
            let own = matches.entry((survivor.site, content.size)).or_default();
            survivor.doubtful = !common.is_same(content.size, &content.before, &content.after);
            own.all += 1.0;
            own.same += if survivor.doubtful { 0.0 } else { 1.0 };
            let others = alike.iter().cycle().skip(index + 1);
            for other in others.take(OTHERS.min(alike.len() - 1)) {
                own.compared += 1.0;
                let same = common.is_same(content.size, &content.before, &other.after);
                own.by_chance += if same { 1.0 } else { 0.0 };
            }
        }
    }
    for content in contents {
        let Some(survivor) = survivors.get_mut(content.survivor) else {
            continue;
        };
        if let Some(own) = matches.get(&(survivor.site, content.size))
            && own.compared > 0.0
            && own.same > 0.0
        {
            let by_chance = own.all * own.by_chance / own.compared;
            // Of a site most of whose blocks are others by now the few that are not are chance, up to its scatter.
            let scatter = if own.same < own.all / 2.0 {
                2.0 * (by_chance + 1.0).sqrt()
            } else {
                0.0
            };
            survivor.certainty = (1.0 - (by_chance + scatter) / own.same).max(0.0);
        }
    }
}

/// Words that many blocks of one size have at one place: a magic number, a length, a common pointer.
struct Common(HashMap<(u64, usize, u64), u64>, HashMap<u64, u64>);

impl Common {
    fn of<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Self {
        let (mut words, mut blocks) = (HashMap::new(), HashMap::new());
        for candidate in candidates {
            *blocks.entry(candidate.size).or_default() += 1;
            for (place, word) in candidate.words.iter().enumerate() {
                *words.entry((candidate.size, place, *word)).or_default() += 1;
            }
        }
        Self(words, blocks)
    }

    /// Whether two contents are those of one block: most words that few other blocks have are still there. A block that
    /// has none of these could be any.
    fn is_same(&self, size: u64, before: &Words, after: &Words) -> bool {
        let told = before.iter().zip(after).enumerate();
        let told = told.filter(|(place, (word, _))| self.tells(size, *place, **word));
        let (kept, all) = told.fold((0, 0), |(kept, all), (_, (before, after))| {
            (kept + u32::from(before == after), all + 1)
        });
        all > 0 && 2 * kept >= all
    }

    /// Whether a word tells a block from others of its size.
    fn tells(&self, size: u64, place: usize, word: u64) -> bool {
        let [first, ..] = word.to_ne_bytes();
        let filler = word.to_ne_bytes().iter().all(|byte| *byte == first);
        let having = self.0.get(&(size, place, word)).copied().unwrap_or(0);
        let blocks = self.1.get(&size).copied().unwrap_or(0);
        !filler && word >= 1 << 16 && having <= 1 + blocks / 50
    }
}
