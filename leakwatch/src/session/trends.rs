//! What the samples of the window say together: how memory went, and what it went with.

use super::series::Series;
use crate::diagnose::goes_with::{self, Counted};
use crate::diagnose::trend::series::{Sample, Series as TrendSeries};
use crate::diagnose::trend::{Trend, judge};
use crate::diagnose::verdict::Goes;

/// Bytes and counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "a size in memory")]
fn float(count: u64) -> f64 {
    count as f64
}

/// How anonymous memory went; `None` without samples.
pub(super) fn of_memory(series: &Series) -> Option<Trend> {
    let samples: Vec<Sample> = series
        .points()
        .iter()
        .filter_map(|point| {
            Some(Sample {
                at: point.at.as_secs_f64(),
                bytes: float(point.anonymous()?),
                run: 0,
            })
        })
        .collect();
    (!samples.is_empty()).then(|| judge(&TrendSeries::new(&samples)))
}

/// What anonymous memory goes with.
pub(super) fn correlations(series: &Series) -> Vec<Goes> {
    let samples: Vec<Counted> = series
        .points()
        .iter()
        .map(|point| Counted {
            at: point.at.as_secs_f64(),
            bytes: point.anonymous(),
            connections: point.connections,
            descriptors: point.descriptors,
            threads: point.totals.threads,
            run: 0,
        })
        .collect();
    Goes::all(&goes_with::correlations(&samples))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::series::Point;
    use super::*;
    use crate::diagnose::trend::Kind;
    use crate::diagnose::verdict::With;
    use crate::sampler::totals::Totals;

    /// 5 KiB for each connection, which come in clumps and stay; with `files` beside them, which come and go.
    fn server(seconds: u64, files: bool) -> Series {
        let mut series = Series::default();
        let (mut connections, mut random) = (10_u64, 1_u64);
        for second in 0..seconds {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            connections += (random >> 33) % 7 * ((random >> 40) % 3);
            series.push(Point {
                at: Duration::from_secs(second),
                totals: Totals {
                    rss_anonymous: Some((50 << 20) + connections * 5120),
                    threads: Some(8),
                    ..Totals::default()
                },
                descriptors: Some(20 + connections + if files { second % 3 } else { 0 }),
                // Not each time.
                connections: (second % 10 != 3).then_some(connections),
                rollup: None,
                children: 0,
            });
        }
        series
    }

    #[test]
    fn memory_that_goes_with_connections_does_not_go_with_threads() {
        let series = server(240, true);
        let found = correlations(&series);
        let with: Vec<With> = found.iter().map(|goes| goes.with).collect();
        // The threads never change.
        assert_eq!(with, [With::Connections, With::Descriptors]);
        for goes in &found {
            // Two were tried.
            assert!(goes.chance > goes.correlation.p_value, "{goes:?}");
        }
        // Where nothing else changes among the descriptors, they are no question of their own.
        let alone = correlations(&server(240, false));
        let with: Vec<With> = alone.iter().map(|goes| goes.with).collect();
        assert_eq!(with, [With::Connections]);
        for goes in found.iter().take(1).chain(&alone) {
            assert!(goes.chance <= 0.02 && goes.is_told(), "{goes:?}");
            let each = goes.correlation.per_unit.unwrap();
            assert!((each.bytes - 5120.0).abs() < 0.25 * 5120.0, "{goes:?}");
        }
        assert_eq!(of_memory(&series).unwrap().kind, Kind::SteadyGrowth);
    }

    #[test]
    fn without_samples_there_is_nothing_to_say() {
        assert!(of_memory(&Series::default()).is_none());
        assert!(correlations(&Series::default()).is_empty());
        assert_eq!(of_memory(&server(3, false)).unwrap().kind, Kind::Unknown);
    }
}
