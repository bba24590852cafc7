//! Which rows are shown, and in what order. Pure.

use std::cmp::Ordering;

use super::view::{Row, View};

/// What the ranking goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Surviving,
    Held,
    Rate,
    Kept,
    Recent,
    Name,
}

impl Sort {
    const ALL: [Self; 6] = [
        Self::Surviving,
        Self::Held,
        Self::Rate,
        Self::Kept,
        Self::Recent,
        Self::Name,
    ];
    /// So many blocks in use at a check say more of a heap than its pages do.
    const ALIVE_LEAST: u64 = 20;

    /// What tells most: survivors, where there are some; else what sites hold.
    #[must_use]
    pub fn best(view: &View) -> Self {
        if view.births.blocks.alive >= Self::ALIVE_LEAST {
            Self::Surviving
        } else {
            Self::Held
        }
    }

    #[must_use]
    pub fn next(self, births: bool) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        let later = Self::ALL.iter().cycle().skip(at + 1).copied();
        // Where births are not watched there is nothing to sort by in that column.
        later
            .take(Self::ALL.len())
            .find(|sort| births || *sort != Self::Surviving)
            .unwrap_or(self)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Surviving => "surviving bytes",
            Self::Held => "bytes held",
            Self::Rate => "rate",
            Self::Kept => "part kept",
            Self::Recent => "latest first",
            Self::Name => "name",
        }
    }

    fn compare(self, one: &Row, next: &Row) -> Ordering {
        let largest = |one: f64, next: f64| next.total_cmp(&one);
        let first = match self {
            Self::Surviving => next.surviving_bytes().cmp(&one.surviving_bytes()),
            Self::Held => Ordering::Equal,
            Self::Rate => largest(one.rate.unwrap_or(f64::MIN), next.rate.unwrap_or(f64::MIN)),
            Self::Kept => largest(one.kept().unwrap_or(-1.0), next.kept().unwrap_or(-1.0)),
            Self::Recent => largest(one.last_seen, next.last_seen),
            Self::Name => one.label.cmp(&next.label),
        };
        first
            .then_with(|| next.bytes.cmp(&one.bytes))
            .then_with(|| next.surviving_bytes().cmp(&one.surviving_bytes()))
            .then_with(|| one.key.cmp(&next.key))
    }
}

/// Indices of the rows that have `filter` in one of their names, in order.
#[must_use]
pub fn arranged(view: &View, sort: Sort, reversed: bool, filter: &str) -> Vec<usize> {
    let filter = filter.to_lowercase();
    let mut rows: Vec<(usize, &Row)> = view
        .rows
        .iter()
        .enumerate()
        .filter(|(_, row)| filter.is_empty() || row.haystack.contains(&filter))
        .collect();
    rows.sort_by(|(_, one), (_, next)| sort.compare(one, next));
    if reversed {
        rows.reverse();
    }
    rows.into_iter().map(|(index, _)| index).collect()
}
