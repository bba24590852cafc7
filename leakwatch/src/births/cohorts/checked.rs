//! What the checks have told so far, while the window goes on.

use super::Cohorts;
use crate::ledger::SiteId;

/// How the blocks of one site stood at the latest check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checked {
    pub site: SiteId,
    /// Followed to a check, and those of them that were in use at the latest.
    pub followed: u64,
    pub alive: u64,
    /// Births that were seen.
    pub seen: u64,
    /// Asked for, bytes.
    pub mean_bytes: f64,
}

impl Cohorts {
    /// How many blocks one of the sample stands for.
    #[must_use]
    pub fn stands_for(&self) -> u64 {
        self.births.stands_for()
    }

    /// How the blocks of each site stood at the latest check: those that were followed to one.
    pub fn checked_so_far(&self) -> impl Iterator<Item = Checked> + '_ {
        self.births.sites().filter_map(|(site, births)| {
            let checked = self
                .courses
                .get(&site)?
                .alive
                .iter()
                .filter(|counts| counts.len() > 2);
            let (mut followed, mut alive) = (0, 0);
            for counts in checked {
                followed += counts.first().copied().unwrap_or(0);
                alive += counts.last().copied().unwrap_or(0);
            }
            Some(Checked {
                site,
                followed,
                alive,
                seen: births.seen,
                mean_bytes: births.bytes as f64 / (births.blocks as f64).max(1.0),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Look, Seen};
    use super::*;
    use crate::births::Facts;
    use leakwatch_ebpf::wire::SAMPLE_ALL;

    const IN_USE: Seen = Seen::InUse {
        chunk_bytes: 112,
        mapped: false,
        words: [7; 8],
    };

    #[test]
    fn blocks_count_once_they_were_checked() {
        let mut cohorts = Cohorts::new(SAMPLE_ALL);
        for block in 0..4u64 {
            let facts = Facts {
                site: Some(SiteId(if block == 3 { 2 } else { 1 })),
                weight: 1,
                size: 100,
                function: 0,
                time: 10 + block,
                thread: 7,
            };
            cohorts.born(0x1000 + 0x100 * block, facts);
        }
        let looks: Vec<Look> = cohorts.to_look_at(100);
        assert_eq!(looks.len(), 4);
        cohorts.looked(100, &looks, &[IN_USE, IN_USE, IN_USE, Seen::NotInUse]);
        assert!(cohorts.checked_so_far().all(|site| site.followed == 0), "young");
        let looks = cohorts.candidates();
        cohorts.checked(200, &looks, &[IN_USE, Seen::NotInUse, IN_USE]);
        let mut told: Vec<Checked> = cohorts.checked_so_far().collect();
        told.sort_by_key(|site| site.site);
        assert_eq!(
            told.iter()
                .map(|site| (site.site.0, site.followed, site.alive))
                .collect::<Vec<_>>(),
            [(1, 3, 2), (2, 1, 0)]
        );
        assert!(told.iter().all(|site| site.mean_bytes == 100.0), "{told:?}");
        assert_eq!(cohorts.stands_for(), 1);
    }
}
