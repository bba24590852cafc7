//! What changed from one window to another: which call sites are the same, and how fast each gains. Pure.
//!
//! Windows differ in length, so bytes are not compared but bytes per second. What a site gained once, at a start, has
//! another rate in a longer window; the lengths are told with the rates.

use std::collections::HashMap;

/// Rates that differ by less than this part of the greater one are the same: no two windows have the same load.
const SAME_SHARE: f64 = 0.1;

/// Standard errors of a difference within which it may be none: 19 times of 20.
const ERRORS: f64 = 1.96;

/// A call site of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Site {
    /// Its stacks from the culprit outward, each frame its build and offset. Only those of which every frame has both.
    pub code: Vec<String>,
    /// The same by names.
    pub names: String,
    /// The culprit alone, by name.
    pub culprit: String,
    pub live: Option<u64>,
    pub held: Option<u64>,
    /// Of `live`; 0 when it is exact.
    pub standard_error: Option<f64>,
}

/// A window, and what gained in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// More than 0.
    pub seconds: f64,
    pub sites: Vec<Site>,
}

/// What tells that two call sites are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matched {
    /// The same offsets of the same builds.
    Code,
    /// The same functions from the culprit outward: another build, or another line of the same function.
    Names,
    /// The same culprit, and no other has it on either side: its callers differ, or were not all seen.
    Culprit,
}

impl Matched {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Names => "names",
            Self::Culprit => "culprit",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Appeared,
    Grew,
    Same,
    Shrank,
    Went,
}

impl Change {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Appeared => "appeared",
            Self::Grew => "grew",
            Self::Same => "same",
            Self::Shrank => "shrank",
            Self::Went => "went",
        }
    }
}

/// A call site in both windows, or in one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Indices in the sides' `sites`; one of them is there.
    pub before: Option<usize>,
    pub after: Option<usize>,
    /// `None` for a site of one window.
    pub matched: Option<Matched>,
    /// By held bytes: live ones are not known on each side that has it.
    pub by_held: bool,
    pub change: Change,
    /// Bytes per second; 0 where the site is not.
    pub rate_before: f64,
    pub rate_after: f64,
    /// Of their difference; `None` where that of a side is not known.
    pub standard_error: Option<f64>,
    /// The difference is greater than chance makes it, as far as its error is known.
    pub beyond_error: bool,
}

/// All sites of both, those that changed most first.
#[must_use]
pub fn difference(before: &Side, after: &Side) -> Vec<Pair> {
    let mut matching = Matching {
        before: &before.sites,
        after: &after.sites,
        partner: vec![None; before.sites.len()],
        taken: vec![false; after.sites.len()],
    };
    matching.each(Matched::Code, |site| &site.code);
    matching.each(Matched::Names, |site| std::slice::from_ref(&site.names));
    matching.unique_culprits();
    let mut pairs: Vec<Pair> = matching
        .partner
        .iter()
        .enumerate()
        .map(|(index, partner)| (Some(index), *partner))
        .chain(
            matching
                .taken
                .iter()
                .enumerate()
                .filter(|(_, taken)| !**taken)
                .map(|(index, _)| (None, Some((index, Matched::Code)))),
        )
        .map(|(index, partner)| {
            let matched = partner.filter(|_| index.is_some()).map(|(_, matched)| matched);
            pair(before, after, index, partner.map(|(index, _)| index), matched)
        })
        .collect();
    let by = |pair: &Pair| (pair.rate_after - pair.rate_before).abs();
    // Stable: what is left equal stays in the order of its rank.
    pairs.sort_by(|a, b| by(b).total_cmp(&by(a)));
    pairs
}

struct Matching<'a> {
    before: &'a [Site],
    after: &'a [Site],
    /// Of each site before, that after.
    partner: Vec<Option<(usize, Matched)>>,
    taken: Vec<bool>,
}

impl<'a> Matching<'a> {
    /// Pairs those that have a key in common, in the order of their ranks.
    fn each(&mut self, matched: Matched, keys: impl Fn(&'a Site) -> &'a [String]) {
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, site) in self.after.iter().enumerate().rev() {
            if self.taken.get(index) == Some(&false) {
                for key in keys(site).iter().filter(|key| !key.is_empty()) {
                    by_key.entry(key).or_default().push(index);
                }
            }
        }
        for (partner, site) in self.partner.iter_mut().zip(self.before) {
            if partner.is_some() {
                continue;
            }
            for key in keys(site) {
                let Some(found) = by_key.get_mut(key.as_str()) else {
                    continue;
                };
                // One that was reached by another key is gone already.
                while let Some(index) = found.pop() {
                    if let Some(taken) = self.taken.get_mut(index).filter(|taken| !**taken) {
                        *taken = true;
                        *partner = Some((index, matched));
                        break;
                    }
                }
                if partner.is_some() {
                    break;
                }
            }
        }
    }

    fn unique_culprits(&mut self) {
        let only = |sites: &'a [Site]| {
            let mut only: HashMap<&str, Option<usize>> = HashMap::new();
            for (index, site) in sites
                .iter()
                .enumerate()
                .filter(|(_, site)| !site.culprit.is_empty())
            {
                only.entry(&site.culprit)
                    .and_modify(|one| *one = None)
                    .or_insert(Some(index));
            }
            only
        };
        let (before, after) = (only(self.before), only(self.after));
        for (culprit, index) in before {
            let (Some(index), Some(Some(other))) = (index, after.get(culprit)) else {
                continue;
            };
            if let (Some(partner @ None), Some(taken @ false)) =
                (self.partner.get_mut(index), self.taken.get_mut(*other))
            {
                *partner = Some((*other, Matched::Culprit));
                *taken = true;
            }
        }
    }
}

fn pair(
    before: &Side,
    after: &Side,
    index_before: Option<usize>,
    index_after: Option<usize>,
    matched: Option<Matched>,
) -> Pair {
    let was = index_before.and_then(|index| before.sites.get(index));
    let is = index_after.and_then(|index| after.sites.get(index));
    let by_held = [was, is].into_iter().flatten().any(|site| site.live.is_none());
    let rate = |side: &Side, site: Option<&Site>| {
        let bytes = site.and_then(|site| if by_held { site.held } else { site.live });
        bytes.unwrap_or(0) as f64 / side.seconds
    };
    let (rate_before, rate_after) = (rate(before, was), rate(after, is));
    // A site that is not there has none, and held bytes are counted, not sampled.
    let error = |side: &Side, site: Option<&Site>| match site {
        Some(site) if !by_held => site.standard_error.map(|error| error / side.seconds),
        _ => Some(0.0),
    };
    let standard_error = error(before, was)
        .zip(error(after, is))
        .map(|(before, after)| before.hypot(after));
    let difference = rate_after - rate_before;
    let beyond_error = difference.abs() > ERRORS * standard_error.unwrap_or(0.0);
    let differs = difference.abs() > SAME_SHARE * rate_before.max(rate_after);
    let change = match (was, is) {
        (None, _) => Change::Appeared,
        (_, None) => Change::Went,
        _ if !beyond_error || !differs => Change::Same,
        _ if difference > 0.0 => Change::Grew,
        _ => Change::Shrank,
    };
    Pair {
        before: index_before,
        after: index_after,
        matched,
        by_held,
        change,
        rate_before,
        rate_after,
        standard_error,
        beyond_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(code: &str, names: &str, live: u64) -> Site {
        Site {
            code: code.split_whitespace().map(str::to_owned).collect(),
            names: names.to_owned(),
            culprit: names.split(' ').next().unwrap_or_default().to_owned(),
            live: Some(live),
            held: Some(0),
            standard_error: Some(0.0),
        }
    }

    fn side(seconds: f64, sites: Vec<Site>) -> Side {
        Side { seconds, sites }
    }

    /// Indices before and after, how they were matched, and what changed.
    type Found = (Option<usize>, Option<usize>, Option<Matched>, Change);

    fn found(before: &Side, after: &Side) -> Vec<Found> {
        let mut found: Vec<_> = difference(before, after)
            .iter()
            .map(|pair| (pair.before, pair.after, pair.matched, pair.change))
            .collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn code_before_names_before_a_culprit_that_is_alone() {
        let before = side(
            10.0,
            vec![
                site("b1:10 b1:20", "f main", 1000),
                site("b1:11", "f main", 1000),
                site("b1:30", "g main", 1000),
                site("b1:40", "h one", 1000),
                site("b1:50", "i one", 1000),
                site("b1:60", "i two", 1000),
            ],
        );
        let after = side(
            10.0,
            vec![
                // Another stack of the second's function, by name the first's partner too.
                site("b1:11", "f main", 1000),
                site("b1:20", "f main", 1000),
                site("b2:77", "g main", 1000),
                site("b2:78", "h two", 1000),
                // Two had that culprit.
                site("b2:79", "i three", 1000),
            ],
        );
        assert_eq!(
            found(&before, &after),
            [
                (None, Some(4), None, Change::Appeared),
                (Some(0), Some(1), Some(Matched::Code), Change::Same),
                (Some(1), Some(0), Some(Matched::Code), Change::Same),
                (Some(2), Some(2), Some(Matched::Names), Change::Same),
                (Some(3), Some(3), Some(Matched::Culprit), Change::Same),
                (Some(4), None, None, Change::Went),
                (Some(5), None, None, Change::Went),
            ]
        );
    }

    #[test]
    fn rates_are_compared_and_not_bytes() {
        // Ten times the window, ten times the bytes.
        let before = side(
            6.0,
            vec![site("a", "a", 600), site("b", "b", 600), site("c", "c", 600)],
        );
        let after = side(
            60.0,
            vec![site("a", "a", 6000), site("b", "b", 12_000), site("c", "c", 600)],
        );
        let pairs = difference(&before, &after);
        let of = |index| pairs.iter().find(|pair| pair.before == Some(index)).unwrap();
        assert_eq!(of(0).change, Change::Same);
        assert_eq!(
            (of(1).change, of(1).rate_before, of(1).rate_after),
            (Change::Grew, 100.0, 200.0)
        );
        assert_eq!((of(2).change, of(2).rate_after), (Change::Shrank, 10.0));
        assert_eq!(pairs[0].before, Some(1), "100 B/s more is the most");
        assert_eq!(pairs[1].before, Some(2), "90 B/s less is next");
    }

    #[test]
    fn chance_is_no_change() {
        let sampled = |live, error| Site {
            standard_error: error,
            ..site("a", "a", live)
        };
        let change = |live, error| {
            let before = side(10.0, vec![sampled(1000, Some(100.0))]);
            let after = side(10.0, vec![sampled(live, error)]);
            let pair = difference(&before, &after)[0];
            (pair.change, pair.beyond_error)
        };
        // The error of the difference is sqrt(100² + 100²) = 141 B; 1.96 of it are 277 B.
        assert_eq!(change(1270, Some(100.0)), (Change::Same, false));
        assert_eq!(change(1290, Some(100.0)), (Change::Grew, true));
        assert_eq!(change(700, Some(100.0)), (Change::Shrank, true));
        // Not known: only the tenth counts.
        assert_eq!(change(1090, None), (Change::Same, true));
        assert_eq!(change(1200, None), (Change::Grew, true));
    }

    #[test]
    fn live_bytes_where_both_have_them_else_address_space() {
        let mapped = |live, held| Site {
            live,
            held: Some(held),
            standard_error: None,
            ..site("a", "a", 0)
        };
        let before = side(1.0, vec![mapped(Some(5), 100)]);
        let pair = difference(&before, &side(1.0, vec![mapped(None, 300)]))[0];
        assert!(pair.by_held);
        assert_eq!((pair.rate_before, pair.rate_after), (100.0, 300.0));
        assert_eq!(pair.standard_error, Some(0.0));
        let pair = difference(&before, &side(1.0, vec![mapped(Some(7), 300)]))[0];
        assert_eq!((pair.by_held, pair.rate_after), (false, 7.0));
        assert_eq!(pair.standard_error, None);
    }

    #[test]
    fn a_window_with_itself_is_the_same_and_with_nothing_all_new() {
        let sites = vec![
            site("a", "a", 9),
            site("", "", 8),
            site("", "b", 7),
            site("a", "a", 6),
        ];
        let window = side(3.0, sites);
        let pairs = difference(&window, &window);
        // The one without any key cannot be told to be the same.
        let same = pairs.iter().filter(|pair| pair.change == Change::Same).count();
        assert_eq!((pairs.len(), same), (5, 3));
        assert!(
            pairs
                .iter()
                .filter(|pair| pair.change == Change::Same)
                .all(|pair| pair.before == pair.after)
        );
        let nothing = side(1.0, Vec::new());
        let pairs = difference(&nothing, &window);
        assert!(
            pairs
                .iter()
                .all(|pair| pair.change == Change::Appeared && pair.matched.is_none())
        );
        assert!(difference(&nothing, &nothing).is_empty());
    }
}
