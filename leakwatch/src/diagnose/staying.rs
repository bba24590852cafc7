//! How likely the blocks of a call site are to stay, by how its older ones fared. Pure.

use crate::births::cohorts::{Course, Survivor};

/// A site of whose old blocks fewer died than this is not extrapolated.
const DEATHS_LEAST: f64 = 4.0;

/// How likely a block of one site is to stay.
pub(super) struct Staying {
    /// By the interval in which it was born: the chance that what is in use at the end is there for good.
    weights: Vec<f64>,
    /// That a block which may be another is the one that was born.
    trust: f64,
    /// The greatest age, nanoseconds, that a block of the site had which died later.
    pub oldest_death: u64,
    pub followed: u64,
}

impl Staying {
    /// `checks`: how many there were, the end's census included.
    pub fn of(course: &Course, survived: u64, checks: usize) -> Self {
        // What share was alive at the j-th check of what was at the one before; the look is the first.
        let sum = |at: usize, needed: usize| -> f64 {
            course
                .alive
                .iter()
                .filter(|counts| counts.len() > needed)
                .filter_map(|counts| counts.get(at))
                .sum::<u64>() as f64
        };
        let members = sum(0, 1);
        let mut passed = if members > 0.0 { sum(1, 1) / members } else { 1.0 };
        let mut chain = vec![passed];
        for check in 1..=checks {
            // Blocks of the last interval are at their first check as young as can be: older ones tell better.
            let last = course
                .alive
                .get(checks.saturating_sub(1))
                .filter(|_| check == 1 && checks > 1);
            let young = |at: usize| {
                last.and_then(|counts| counts.get(at))
                    .map_or(0.0, |count| *count as f64)
            };
            let (exposed, alive) = (sum(check, check + 1), sum(check + 1, check + 1));
            let (exposed, alive) = if exposed > young(1) {
                (exposed - young(1), alive - young(2))
            } else {
                (exposed, alive)
            };
            // As if one more had fared as at the check before: nothing is known of a site with no older blocks but that.
            passed = (alive + passed) / (exposed + 1.0);
            chain.push(passed);
        }
        let limit = course.alive.first().map_or(1.0, |counts| limit(counts));
        let weights = (0..checks.max(1))
            .map(|interval| {
                let passed = checks - interval.min(checks);
                limit * chain.iter().skip(passed + 1).product::<f64>()
            })
            .collect();
        let followed: u64 = course.alive.iter().filter_map(|counts| counts.first()).sum();
        let candidates: u64 = course.alive.iter().filter_map(|counts| counts.get(1)).sum();
        Self {
            weights,
            trust: if candidates > 0 {
                survived as f64 / candidates as f64
            } else {
                0.0
            },
            oldest_death: course.oldest_death,
            followed,
        }
    }

    pub fn weight(&self, survivor: &Survivor) -> f64 {
        let last = self.weights.last().copied().unwrap_or(1.0);
        let weight = self.weights.get(survivor.interval).copied().unwrap_or(last);
        weight * if survivor.doubtful { self.trust } else { 1.0 }
    }
}

/// What share of a cohort's last count will stay, if it goes on to decay as it did: blocks of long requests go down to
/// nothing, a leak's are all there, a mix has a rest (Aitken's extrapolation).
fn limit(counts: &[u64]) -> f64 {
    let [.., first, second, third] = counts else {
        return 1.0;
    };
    let (first, second, third) = (*first as f64, *second as f64, *third as f64);
    if first - third < DEATHS_LEAST || third <= 0.0 {
        return 1.0;
    }
    let bend = first + third - 2.0 * second;
    let limit = if bend > 0.0 {
        (first * third - second * second) / bend
    } else {
        // It decays no slower than before: the next step as the last.
        third * third / second.max(1.0)
    };
    (limit / third).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_decays_is_extrapolated() {
        assert_eq!(limit(&[100, 100, 100, 100, 100]), 1.0);
        // To nothing, and to a rest of twenty.
        assert!(limit(&[1000, 1000, 400, 160, 64]) < 0.01);
        assert!((limit(&[1000, 1000, 100, 60, 40]) - 0.5).abs() < 0.01);
        // Too few to tell.
        assert_eq!(limit(&[4, 4, 4, 3, 2]), 1.0);
        assert_eq!(limit(&[4]), 1.0);
    }
}
