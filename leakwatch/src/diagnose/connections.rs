//! Connections where they were not read. Pure.
//!
//! To read them costs the host a walk over its tables of sockets, so it is done rarely; to count descriptors costs nothing.
//! Where a process has as many descriptors beside its connections at all but a few readings, what its descriptors gain in
//! between are connections. A few, because the two are counted one after the other, and a clump may come in between.

use super::goes_with::Counted;

/// Readings from which on that is believed.
const READINGS_LEAST: usize = 3;

/// The connections at each sample; `None` where the descriptors do not tell: they gained something else too, or
/// connections were read too rarely. Then what memory goes with has to be asked of both.
#[must_use]
pub fn by_descriptors(samples: &[Counted]) -> Option<Vec<Option<u64>>> {
    let others = |sample: &Counted| sample.descriptors?.checked_sub(sample.connections?);
    let readings = || samples.iter().filter(|sample| sample.connections.is_some());
    let run = samples.last()?.run;
    let mut all: Vec<u64> = readings().filter_map(others).collect();
    all.sort_unstable();
    let beside = *all.get(all.len() / 2)?;
    let alike = all.iter().filter(|one| **one == beside).count();
    // Of what comes long after the last reading nobody knows.
    let last = samples.iter().rposition(|sample| sample.connections.is_some())?;
    let told = 2 * last >= samples.len()
        && samples.iter().all(|sample| sample.run == run)
        && alike >= READINGS_LEAST
        && 4 * alike >= 3 * readings().count();
    told.then(|| {
        samples
            .iter()
            .map(|sample| {
                sample
                    .connections
                    .or_else(|| sample.descriptors?.checked_sub(beside))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(Option<u64>, u64)]) -> Vec<Counted> {
        of.iter()
            .map(|&(connections, descriptors)| Counted {
                connections,
                descriptors: Some(descriptors),
                ..Counted::default()
            })
            .collect()
    }

    #[test]
    fn what_descriptors_gain_are_connections_where_nothing_else_changes() {
        let told = samples(&[
            (None, 8),
            (Some(3), 10),
            (None, 15),
            (Some(5), 12),
            (Some(7), 14),
            (None, 30),
        ]);
        let expected = [1, 3, 8, 5, 7, 23].map(Some).to_vec();
        assert_eq!(by_descriptors(&told), Some(expected));
        // Fewer than it has beside them: nobody knows which are gone.
        let fewer = samples(&[(Some(1), 8), (Some(2), 9), (Some(3), 10), (None, 2)]);
        assert_eq!(by_descriptors(&fewer).unwrap().last(), Some(&None));
    }

    #[test]
    fn a_reading_amid_a_clump_is_left_as_it_was() {
        let told = samples(&[
            (Some(3), 10),
            (Some(9), 12),
            (Some(5), 12),
            (Some(7), 14),
            (None, 15),
        ]);
        let expected = [3, 9, 5, 7, 8].map(Some).to_vec();
        assert_eq!(by_descriptors(&told), Some(expected));
    }

    #[test]
    fn where_something_else_changes_they_do_not_tell() {
        let files = samples(&[(Some(3), 10), (Some(3), 11), (Some(3), 12)]);
        assert_eq!(by_descriptors(&files), None);
        let rare = samples(&[(Some(3), 10), (None, 11), (Some(5), 12)]);
        assert_eq!(by_descriptors(&rare), None);
        let early = samples(&[
            (Some(3), 10),
            (Some(4), 11),
            (Some(5), 12),
            (None, 13),
            (None, 14),
            (None, 15),
        ]);
        assert_eq!(by_descriptors(&early), None);
        let mut again = samples(&[(Some(3), 10), (Some(4), 11), (Some(5), 12), (None, 13)]);
        again[3].run = 1;
        assert_eq!(by_descriptors(&again), None);
        assert_eq!(by_descriptors(&[]), None);
    }
}
