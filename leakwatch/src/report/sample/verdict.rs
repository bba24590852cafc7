//! A verdict with everything in it.

use super::super::model::Verdict;
use super::MIB;
use crate::diagnose::correlate::{Correlation, PerUnit};
use crate::diagnose::rank::RankedSite;
use crate::diagnose::trend::series::{Sample, Series};
use crate::diagnose::trend::{self};
use crate::diagnose::verdict::room::Of;
use crate::diagnose::verdict::{Counts, Facts, Goes, HeapFacts, LossFacts, Room, With, judge};
use crate::report::build;

/// A server that grew by 840 MiB in a minute, with its connections.
pub fn verdict(sites: &[RankedSite]) -> Verdict {
    let series: Vec<(f64, u64)> = (0_u32..=60)
        .map(|at| {
            (
                f64::from(at),
                (300 + 14 * u64::from(at)) * MIB + u64::from(at % 3) * 40_960,
            )
        })
        .collect();
    let samples: Vec<Sample> = series
        .iter()
        .map(|&(at, bytes)| Sample {
            at,
            bytes: bytes as f64,
            run: 0,
        })
        .collect();
    let trend = trend::judge(&Series::new(&samples));
    let found = Correlation {
        coefficient: 0.9,
        lag: 0.0,
        p_value: 0.014,
        events: 12.0,
        per_unit: Some(PerUnit {
            bytes: 3800.0,
            low: 3174.0,
            high: 4505.0,
        }),
        changes: 59,
    };
    let none = Correlation {
        p_value: 0.4,
        ..found
    };
    build::verdict(&judge(&Facts {
        window: 60.0,
        age: Some(8.0 * 86_400.0),
        growth: Some(840 << 20),
        series: &series,
        trend: Some(&trend),
        goes: &Goes::all(&[(With::Connections, found), (With::Threads, none)]),
        counts: Counts {
            connections: Some((120, 2310)),
            ..Counts::default()
        },
        heap: Some(HeapFacts {
            in_use: 95 << 20,
            in_use_count: 444_982,
            mapped: 23 << 20,
            mapped_count: 64,
            kept: Some(12 << 20),
            free_at_end: 24 * MIB,
            trim_at_end: Some(9 * MIB),
            ..HeapFacts::default()
        }),
        sites,
        losses: LossFacts {
            events: 61_777,
            samples: 60,
            ..LossFacts::default()
        },
        room: Some(Room {
            of: Of::Cgroup { above: 0 },
            limit: 2048 * MIB,
            left: 840 * MIB,
        }),
        ..Facts::default()
    }))
}
