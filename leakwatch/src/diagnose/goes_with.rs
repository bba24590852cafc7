//! What anonymous memory goes with: connections, descriptors or threads. Pure.

use super::connections::by_descriptors;
use super::correlate::{Correlation, Paired, correlate};
use super::verdict::With;

/// A sample: the size and the counts, as far as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Seconds.
    pub at: f64,
    /// Anonymous memory, resident or swapped.
    pub bytes: Option<u64>,
    pub connections: Option<u64>,
    pub descriptors: Option<u64>,
    pub threads: Option<u64>,
    /// Where it changes, the process was restarted.
    pub run: u32,
}

/// As far as enough samples have both and either changes; connections first, then descriptors and threads.
#[must_use]
pub fn correlations(samples: &[Counted]) -> Vec<(With, Correlation)> {
    let connections = by_descriptors(samples);
    let units = |with: With| -> Option<Vec<Option<u64>>> {
        let read = |of: fn(&Counted) -> Option<u64>| Some(samples.iter().map(of).collect());
        match with {
            With::Connections => connections.clone().or_else(|| read(|sample| sample.connections)),
            // Nothing but connections changes among them: to ask of both would be to ask twice.
            With::Descriptors if connections.is_some() => None,
            With::Descriptors => read(|sample| sample.descriptors),
            With::Threads => read(|sample| sample.threads),
        }
    };
    [With::Connections, With::Descriptors, With::Threads]
        .into_iter()
        .filter_map(|with| {
            let paired: Vec<Paired> = samples
                .iter()
                .zip(units(with)?)
                .filter_map(|(sample, units)| {
                    Some(Paired {
                        at: sample.at,
                        bytes: float(sample.bytes?),
                        units: float(units?),
                        run: sample.run,
                    })
                })
                .collect();
            Some((with, correlate(&paired)?))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}
