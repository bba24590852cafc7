//! A recording whose births were watched.

use super::full;
use crate::report::model::{Allocations, Recording, SiteAllocations, SiteClass, UnnamedClass};

/// The full one, whose first call site is known by its survivors, and the second only extended the heap.
pub fn survivors() -> Recording {
    let mut recording = full();
    watch(&mut recording, "Session");
    recording
}

/// What is of the target in it.
pub(super) fn hostile(recording: &mut Recording, evil: &str) {
    watch(recording, evil);
    recording.allocations_not_watched = Some(evil.to_owned());
}

fn watch(recording: &mut Recording, type_name: &str) {
    recording.allocations = Some(Allocations {
        method: "session".into(),
        bursts: 24,
        watched_seconds: 0.31,
        hits: 118_900,
        births: 118_204,
        sampling_rate: 0.5,
        followed: 9411,
        checks: 3,
        cost_seconds: 0.207,
        withheld_seconds: Some(0.052),
        budget_seconds: Some(0.3),
        target_cpu_seconds: Some(30.0),
        tell: true,
        unnamed_bytes: 600 << 10,
        shrunk_bytes: -4096,
        unnamed: [
            (300 << 10, Some(type_name)),
            (200 << 10, None),
            (99 << 10, None),
            (1 << 10, None),
        ]
        .into_iter()
        .map(|(growth_bytes, name)| UnnamedClass {
            bytes: 1000,
            chunk_bytes: 1008,
            type_name: name.map(Into::into),
            growth_count: growth_bytes / 1008,
            growth_bytes,
        })
        .collect(),
    });
    if let Some(site) = recording.call_sites.first_mut() {
        site.evidence = "survivors".into();
        site.via = "malloc".into();
        site.vias = vec!["malloc".into(), "fault".into()];
        site.extended_bytes = Some(1 << 20);
        site.allocations = Some(Box::new(SiteAllocations {
            blocks: 12_034,
            births: 420,
            born_blocks: 840,
            born_bytes: 840_000,
            followed: 415,
            survived: 412,
            young: 2,
            doubtful: 3,
            median_age_seconds: Some(15.5),
            oldest_age_seconds: Some(28.25),
            classes: [
                (12_000, 1000, Some(type_name)),
                (30, 64, None),
                (3, 32, None),
                (1, 24, None),
            ]
            .into_iter()
            .map(|(blocks, bytes, name)| SiteClass {
                bytes,
                chunk_bytes: bytes + 8,
                type_name: name.map(Into::into),
                mapped: false,
                blocks,
                live_bytes: blocks * (bytes + 8),
                survivors: blocks / 30,
            })
            .collect(),
            functions: vec!["malloc".into(), "realloc".into()],
        }));
    }
    if let Some(site) = recording.call_sites.get_mut(1) {
        site.extended_bytes = Some(30 << 20);
    }
}
