//! From what was drawn to what is there.
//!
//! How many new pages there are is known exactly, only whose they are is a sample. So the sample says shares: given
//! that it has n pages it is a simple random one, and N x (a site's pages in it) / n is unbiased, and closer to the
//! truth than (a site's pages in it) / rate, which errs with n as well. Huge pages are drawn as wholes, and few: what is
//! drawn of them says shares only of what the same site mapped.

use super::Estimate;

/// Sampled pages: of blocks that are not huge, and of those that are, each of these with all that came along.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Drawn {
    pub base: f64,
    pub huge: f64,
    /// How many faults brought `huge`.
    pub huge_faults: f64,
    /// Sum of the squares of what each brought.
    huge_squares: f64,
}

impl Drawn {
    pub fn of_base(pages: u64) -> Self {
        Self {
            base: whole(pages),
            ..Self::default()
        }
    }

    /// One fault that brought `pages`.
    pub fn of_huge(pages: u64) -> Self {
        let pages = whole(pages);
        Self {
            huge: pages,
            huge_faults: 1.0,
            huge_squares: pages * pages,
            ..Self::default()
        }
    }

    pub fn join(&mut self, other: Self) {
        *self = self.and(other);
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            base: self.base + other.base,
            huge: self.huge + other.huge,
            huge_faults: self.huge_faults + other.huge_faults,
            huge_squares: self.huge_squares + other.huge_squares,
        }
    }
}

/// How a kind of pages is scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Pages that one drawn page stands for.
    factor: f64,
    /// Independent draws that share the population; `None` where its size was not used.
    draws: Option<f64>,
    /// 1 - rate: what of the population was left out.
    left_out: f64,
    /// 1 / rate.
    inverse: f64,
}

impl Scale {
    /// `population`: pages of this kind that there are, where that is known; `drawn` of them are in the sample, in so
    /// many `draws`.
    pub fn of(stands_for: u64, population: Option<u64>, drawn: f64, draws: f64) -> Self {
        let inverse = whole(stands_for);
        let unscaled = Self {
            factor: inverse,
            draws: None,
            left_out: 1.0 - 1.0 / inverse,
            inverse,
        };
        match population {
            Some(population) if drawn > 0.0 && stands_for > 1 => Self {
                factor: whole(population) / drawn,
                draws: Some(draws),
                ..unscaled
            },
            _ => unscaled,
        }
    }

    pub fn pages(&self, drawn: f64) -> f64 {
        drawn * self.factor
    }

    /// The pages of blocks that are not huge.
    pub fn base(&self, drawn: Drawn) -> Estimate {
        Estimate {
            pages: self.pages(drawn.base),
            variance: self.variance(drawn.base, drawn.base, drawn.base),
        }
    }

    /// The pages of blocks that are.
    pub fn huge(&self, drawn: Drawn) -> Estimate {
        Estimate {
            pages: self.pages(drawn.huge),
            variance: self.variance(drawn.huge, drawn.huge_faults, drawn.huge_squares),
        }
    }

    /// Square of the standard error of a share of `pages` drawn in so many `draws`, each of which brought `squares`
    /// / `draws` pages squared.
    fn variance(&self, pages: f64, draws: f64, squares: f64) -> f64 {
        if draws <= 0.0 || self.left_out <= 0.0 {
            return 0.0;
        }
        match self.draws {
            // A share of 1 in a small sample is not certain: as if one more draw had gone each way.
            Some(all) => {
                let population = self.factor * pages / draws * all;
                let share = (draws + 1.0) / (all + 2.0);
                population * population * share * (1.0 - share) / (all + 2.0) * self.left_out
            }
            // A handful of draws says little of how much they scatter: as if there had been one more.
            None => squares * (1.0 + 1.0 / draws) * self.inverse * (self.inverse - 1.0),
        }
    }
}

/// `part` of `all`, 0 where there is none.
pub(super) fn ratio(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
pub(super) fn whole(count: u64) -> f64 {
    count as f64
}
