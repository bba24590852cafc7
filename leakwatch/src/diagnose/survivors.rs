//! Who allocated what the heap gained: the census tells by how much each class of blocks grew, the cohorts how that is
//! split over call sites. Pure.

use std::collections::BTreeMap;

use super::staying::Staying;
use crate::births::cohorts::{Class, Outcome, Survivor};
use crate::ledger::SiteId;

/// By how much the blocks of one class grew in the window; negative where they became fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassGrowth {
    pub class: Class,
    pub count: i64,
    pub bytes: i64,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub outcome: &'a Outcome,
    /// Every class that has blocks at either end.
    pub growth: &'a [ClassGrowth],
    /// The part of the window in which births were watched and could become candidates, 0 to 1
    /// ([`crate::births::Extent::part_of`]).
    pub watched: f64,
}

/// What one site has of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub class: Class,
    pub bytes: f64,
    pub blocks: f64,
    /// Survivors of the site in this class.
    pub survivors: u64,
}

/// What one site keeps of the growth.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteEstimate {
    pub site: SiteId,
    /// Chunks of the arenas, bytes with their headers. Blocks with a mapping of their own are not in it: the ledger has
    /// these.
    pub bytes: u64,
    /// Square of the standard error of `bytes`.
    pub variance: f64,
    pub blocks: f64,
    /// Those with bytes and those with a mapping of their own, the most bytes first.
    pub classes: Vec<Share>,
    /// Births that were watched long enough to be followed.
    pub followed: u64,
    /// Of these, the ones in use at the end.
    pub survived: u64,
    /// Of the survivors, those that are as young as blocks that others of the site did not outlive.
    pub young: u64,
    /// Of the survivors, those that may be other blocks.
    pub doubtful: u64,
    /// Of the survivors, seconds: the median and the greatest.
    pub median_age: f64,
    pub oldest_age: f64,
    /// Births of the site that were seen, and what they stand for.
    pub seen: u64,
    pub born: u64,
    pub born_bytes: u64,
}

/// The growth of the arenas' blocks in use: the sum of the sites' bytes, `unnamed_bytes` and `shrunk_bytes`, to the
/// byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The most bytes first. A site with no bytes is in it where it has survivors, or many births.
    pub sites: Vec<SiteEstimate>,
    /// Classes that grew, or what part of their growth, and nobody is known for; the most bytes first.
    pub unnamed: Vec<ClassGrowth>,
    /// Their sum.
    pub unnamed_bytes: i64,
    /// Classes that became fewer: blocks from before the window that were freed. Not positive.
    pub shrunk_bytes: i64,
}

/// From so much growth on it is asked whether births tell whose it is, bytes.
const TOLD_FROM: i64 = 256 << 10;
/// They do where they name one part in so many of it,
const NAMED_PART: u64 = 10;
/// or where so many births were followed that a keeper among them would have been seen, and none was.
const FOLLOWED_ENOUGH: u64 = 50;

impl Estimate {
    /// Whether births tell whose the growth is, if only that it is not theirs who were seen. A window too short, or growth
    /// that came all at once, may have been missed: then who touched its pages is better evidence than nobody.
    #[must_use]
    pub fn tells(&self) -> bool {
        let named: u64 = self.sites.iter().map(|site| site.bytes).sum();
        let followed: u64 = self.sites.iter().map(|site| site.followed).sum();
        let unnamed = self.unnamed_bytes.max(0).cast_unsigned();
        self.unnamed_bytes < TOLD_FROM
            || followed >= FOLLOWED_ENOUGH
            || named.saturating_mul(NAMED_PART) >= named.saturating_add(unnamed)
    }
}

/// Evidence of less than one whole keeper names nobody.
const KEEPERS_LEAST: f64 = 0.75;
/// How many standard deviations the keepers may be short of what their class's growth lets expect.
const SHORT: f64 = 2.0;
/// And by what factor: while it is watched a target is slower, and what it does by the clock comes late.
const SLOWER: f64 = 4.0;
/// Sites that keep nothing are told of where they have one in so many births.
const BUSY: u64 = 100;

/// The survivors of one site in one class.
#[derive(Clone, Copy, Default)]
struct Kept {
    survivors: u64,
    /// Of those that are the blocks that were born.
    sure: f64,
    /// Of those that may be others.
    doubtful: f64,
}

/// Splits the growth.
#[must_use]
pub fn estimate(facts: &Facts<'_>) -> Estimate {
    let outcome = facts.outcome;
    let mut survived: BTreeMap<SiteId, u64> = BTreeMap::new();
    for survivor in &outcome.survivors {
        *survived.entry(survivor.site).or_default() += 1;
    }
    let staying: BTreeMap<SiteId, Staying> = outcome
        .courses
        .iter()
        .map(|(site, course)| {
            let survived = survived.get(site).copied().unwrap_or(0);
            (*site, Staying::of(course, survived, outcome.checks.len()))
        })
        .collect();
    let mut kept: BTreeMap<Class, BTreeMap<SiteId, Kept>> = BTreeMap::new();
    for survivor in &outcome.survivors {
        let weight = staying
            .get(&survivor.site)
            .map_or(0.0, |site| site.weight(survivor));
        let own = kept
            .entry(survivor.class)
            .or_default()
            .entry(survivor.site)
            .or_default();
        own.survivors += 1;
        if survivor.doubtful {
            own.doubtful += weight;
        } else {
            own.sure += weight * survivor.certainty;
        }
    }

    let mut shares = Shares::default();
    let nobody = BTreeMap::new();
    for growth in facts.growth.iter().filter(|growth| !growth.class.mapped) {
        shares.split(facts, growth, kept.get(&growth.class).unwrap_or(&nobody));
    }
    for (class, sites) in kept.iter().filter(|(class, _)| class.mapped) {
        shares.list_mapped(facts, *class, sites);
    }
    shares.name_by_neighbours(facts.watched / outcome.stands_for.max(1) as f64);
    shares.finish(outcome, &staying)
}

/// Whether there are fewer keepers than can be by chance, and by the target's being slower.
fn is_short(keepers: f64, expected: f64) -> bool {
    SLOWER * (keepers + SHORT * keepers.sqrt() + 1.0) < expected
}

/// How far survivors that may be other blocks are believed. An address that was watched, freed and given to a block of
/// the same size whose birth nobody saw looks like a survivor, and where a leak takes what churn has just freed such are
/// many more than survivors. So they are believed only where the others are too few for what the class has grown by, and
/// no further than up to that.
fn believed(expected: f64, sure: f64, doubtful: f64) -> f64 {
    if doubtful <= 0.0 || sure > 0.0 && !is_short(sure, expected) {
        return 0.0;
    }
    ((expected - sure) / doubtful).clamp(0.0, 1.0)
}

/// The growth that is split so far.
#[derive(Default)]
struct Shares {
    sites: BTreeMap<SiteId, (Vec<Share>, u64, f64)>,
    unnamed: Vec<ClassGrowth>,
    /// Classes that are named as a whole: size, growth in bytes, and the weight of each site.
    named: Vec<(u64, f64, BTreeMap<SiteId, f64>)>,
    /// Of classes that nobody is known for, whether they grew or not.
    nameless_bytes: i64,
    shrunk_bytes: i64,
}

impl Shares {
    fn split(&mut self, facts: &Facts<'_>, growth: &ClassGrowth, sites: &BTreeMap<SiteId, Kept>) {
        let expected = growth.count.max(0) as f64 * facts.watched / facts.outcome.stands_for.max(1) as f64;
        let sure: f64 = sites.values().map(|kept| kept.sure).sum();
        let doubtful: f64 = sites.values().map(|kept| kept.doubtful).sum();
        let believed = believed(expected, sure, doubtful);
        let weight_of = |kept: &Kept| kept.sure + believed * kept.doubtful;
        let weight = sure + believed * doubtful;
        if weight < KEEPERS_LEAST {
            self.nameless_bytes = self.nameless_bytes.saturating_add(growth.bytes);
            if growth.bytes > 0 {
                self.unnamed.push(*growth);
            }
            return;
        }
        if growth.bytes <= 0 {
            self.shrunk_bytes = self.shrunk_bytes.saturating_add(growth.bytes);
            return;
        }
        let bytes = growth.bytes as f64;
        // So much is there to name where the keepers are as many as chance allows.
        let named = if is_short(weight, expected) {
            (SLOWER * weight / expected).min(1.0)
        } else {
            1.0
        };
        // More keepers than growth: older blocks of the class went, and whose they were is not known.
        let turnover = (1.0 - expected / weight.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        let turnover = if weight > expected + SHORT * expected.sqrt() + 2.0 {
            turnover
        } else {
            0.0
        };
        if named >= 1.0 && growth.class.constant.is_none() {
            let weights = sites.iter().map(|(site, kept)| (*site, weight_of(kept)));
            self.named
                .push((growth.class.chunk_bytes, bytes, weights.collect()));
        }
        let mut left = whole(bytes * named);
        let rest = growth.bytes.saturating_sub(left);
        if rest > 0 {
            self.nameless_bytes = self.nameless_bytes.saturating_add(rest);
            self.unnamed.push(ClassGrowth {
                class: growth.class,
                count: whole(growth.count as f64 * (1.0 - named)),
                bytes: rest,
            });
        }
        let all = left;
        let named_bytes = left as f64;
        let mut before = 0.0;
        for (site, kept) in sites.iter().filter(|(_, kept)| weight_of(kept) > 0.0) {
            let own_weight = weight_of(kept);
            before += own_weight;
            // Cut where the running sums round to, so that the parts sum to the whole.
            let until = whole(named_bytes * (before / weight));
            let own = until.saturating_sub(all - left).clamp(0, left);
            left -= own;
            let share = own_weight / weight;
            let posterior = (own_weight + 0.5) / (weight + 1.0);
            let chance = named_bytes * named_bytes * posterior * (1.0 - posterior) / (weight + 2.0);
            // The doubtful ones that are believed may be others', and what went may all have been this one's.
            let doubt = named_bytes * believed * (kept.doubtful - share * doubtful).abs() / weight;
            let gone = own as f64 * turnover * (1.0 - share);
            let entry = self.sites.entry(*site).or_default();
            entry.0.push(Share {
                class: growth.class,
                bytes: own as f64,
                blocks: own as f64 / growth.class.chunk_bytes.max(1) as f64,
                survivors: kept.survivors,
            });
            entry.1 = entry.1.saturating_add(own.cast_unsigned());
            entry.2 += chance + doubt * doubt + gone * gone;
        }
        // What rounding left.
        self.nameless_bytes = self.nameless_bytes.saturating_add(left);
    }

    fn list_mapped(&mut self, facts: &Facts<'_>, class: Class, sites: &BTreeMap<SiteId, Kept>) {
        let weight = |kept: &Kept| kept.sure + kept.doubtful;
        let all: f64 = sites.values().map(weight).sum();
        let grown = facts.growth.iter().find(|growth| growth.class == class);
        let grown = grown.map_or(0, |growth| growth.count.max(0)) as f64;
        for (site, kept) in sites {
            let blocks = grown * weight(kept) / all.max(f64::MIN_POSITIVE);
            self.sites.entry(*site).or_default().0.push(Share {
                class,
                bytes: blocks * class.chunk_bytes as f64,
                blocks,
                survivors: kept.survivors,
            });
        }
    }

    /// Gives a class that nobody is known for to the sites that have the classes of about its size, where these are many
    /// and it is one more like them: text and buffers come in all sizes, and of each size few are seen.
    fn name_by_neighbours(&mut self, watched: f64) {
        let (mut known, mut bytes_named) = (Vec::new(), 0_i64);
        self.unnamed.retain(|growth| {
            let Some(weights) = neighbours(&self.named, growth, watched) else {
                return true;
            };
            bytes_named += growth.bytes;
            known.push((*growth, weights));
            false
        });
        self.nameless_bytes -= bytes_named;
        for (growth, weights) in known {
            let all: f64 = weights.values().sum();
            let (mut left, mut before) = (growth.bytes, 0.0);
            for (site, weight) in weights.iter().filter(|(_, weight)| **weight > 0.0) {
                before += weight;
                let until = whole(growth.bytes as f64 * (before / all));
                let own = until.saturating_sub(growth.bytes - left).clamp(0, left);
                left -= own;
                let entry = self.sites.entry(*site).or_default();
                entry.0.push(Share {
                    class: growth.class,
                    bytes: own as f64,
                    blocks: own as f64 / growth.class.chunk_bytes.max(1) as f64,
                    survivors: 0,
                });
                entry.1 = entry.1.saturating_add(own.cast_unsigned());
                // It was not seen: a quarter of it may be anybody's.
                entry.2 += (own as f64 / 4.0).powi(2);
            }
            self.nameless_bytes += left;
        }
    }

    fn finish(mut self, outcome: &Outcome, staying: &BTreeMap<SiteId, Staying>) -> Estimate {
        // What is in flight makes some classes grow and others shrink: together they are what nobody is known for.
        let unnamed_bytes = self.nameless_bytes.max(0);
        let shrunk_bytes = self.shrunk_bytes.saturating_add(self.nameless_bytes.min(0));
        trim(&mut self.unnamed, unnamed_bytes);
        let mut survivors: BTreeMap<SiteId, Vec<&Survivor>> = BTreeMap::new();
        for survivor in &outcome.survivors {
            survivors.entry(survivor.site).or_default().push(survivor);
        }
        let none = Vec::new();
        let births: u64 = outcome.courses.values().map(|course| course.seen).sum();
        let busy = outcome
            .courses
            .iter()
            .filter(|(_, course)| course.seen * BUSY >= births && course.seen > 0)
            .map(|(site, _)| site);
        for site in survivors.keys().chain(busy) {
            self.sites.entry(*site).or_default();
        }
        let mut sites: Vec<SiteEstimate> = self
            .sites
            .into_iter()
            .map(|(site, (mut classes, bytes, variance))| {
                classes.sort_by(|one, next| next.bytes.total_cmp(&one.bytes));
                let own = survivors.get(&site).unwrap_or(&none);
                let mut ages: Vec<u64> = own.iter().map(|survivor| survivor.age).collect();
                ages.sort_unstable();
                let course = outcome.courses.get(&site);
                let staying = staying.get(&site);
                let oldest_death = staying.map_or(0, |staying| staying.oldest_death);
                SiteEstimate {
                    site,
                    bytes,
                    variance,
                    blocks: classes
                        .iter()
                        .filter(|share| !share.class.mapped || bytes == 0)
                        .map(|share| share.blocks)
                        .sum(),
                    classes,
                    followed: staying.map_or(0, |staying| staying.followed),
                    survived: own.len() as u64,
                    young: ages.partition_point(|age| *age <= oldest_death) as u64,
                    doubtful: own.iter().filter(|survivor| survivor.doubtful).count() as u64,
                    median_age: seconds(ages.get(ages.len() / 2)),
                    oldest_age: seconds(ages.last()),
                    seen: course.map_or(0, |course| course.seen),
                    born: course.map_or(0, |course| course.born),
                    born_bytes: course.map_or(0, |course| course.born_bytes),
                }
            })
            .collect();
        sites.sort_by(|one, next| next.bytes.cmp(&one.bytes).then(one.site.cmp(&next.site)));
        Estimate {
            sites,
            unnamed: self.unnamed,
            unnamed_bytes,
            shrunk_bytes,
        }
    }
}

/// Classes of about one size, and keepers in them, that speak for one more: of so many that are one site's the next is it too
/// in five cases of six (the rule of succession).
const NEIGHBOURS_LEAST: usize = 3;
const NEIGHBOUR_KEEPERS_LEAST: f64 = 4.0;

/// The weights of the sites that have the classes of about the same size: `None` where they do not speak for this one.
fn neighbours(
    named: &[(u64, f64, BTreeMap<SiteId, f64>)],
    growth: &ClassGrowth,
    watched: f64,
) -> Option<BTreeMap<SiteId, f64>> {
    // Of so many some would have been seen.
    if growth.class.constant.is_some() || growth.count as f64 * watched > 3.0 {
        return None;
    }
    let size = growth.class.chunk_bytes;
    let about = size - size / 5..=size + size / 4;
    let (mut weights, mut bytes, mut count) = (BTreeMap::new(), 0.0, 0_usize);
    for (_, grown, sites) in named.iter().filter(|(size, ..)| about.contains(size)) {
        count += 1;
        bytes += grown;
        for (site, weight) in sites {
            *weights.entry(*site).or_default() += weight;
        }
    }
    let keepers: f64 = weights.values().sum();
    let usual = bytes / count.max(1) as f64;
    let alike = growth.bytes as f64 <= 2.0 * usual;
    (count >= NEIGHBOURS_LEAST && keepers >= NEIGHBOUR_KEEPERS_LEAST && alike).then_some(weights)
}

/// The greatest first, down to a sum of `bytes`: what goes beyond is noise that other classes make up for.
fn trim(unnamed: &mut Vec<ClassGrowth>, bytes: i64) {
    unnamed.sort_by_key(|growth| (std::cmp::Reverse(growth.bytes), growth.class));
    let mut left = bytes;
    for growth in unnamed.iter_mut() {
        let own = growth.bytes.min(left);
        if own < growth.bytes {
            growth.count = whole(growth.count as f64 * (own as f64 / growth.bytes as f64));
            growth.bytes = own;
        }
        left -= own;
    }
    unnamed.retain(|growth| growth.bytes > 0);
    if left > 0
        && let Some(first) = unnamed.first_mut()
    {
        first.bytes += left;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a cast from float saturates")]
fn whole(amount: f64) -> i64 {
    amount.round() as i64
}

fn seconds(nanoseconds: Option<&u64>) -> f64 {
    nanoseconds.map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e9)
}

#[cfg(test)]
#[path = "survivors_tests.rs"]
mod tests;
