//! Two recordings of a service: before a new build of it, and after.

use super::super::build;
use super::super::model::diff::DiffReport;
use super::*;

/// After, the build is another, the window twice as long, the upload keeps half as much in it, a table appears, a parser went.
pub fn before_and_after() -> (Recording, Recording) {
    let before = full();
    let mut after = full();
    after.target.pid = 5151;
    after.window.started_at = "2026-01-03T03:04:05Z".into();
    after.window.duration_seconds = 120.0;
    after.verdict = None;
    let grown = touched(vec![server("Table::grow()", 77)], 60, 60, 1);
    let mut table = build::call_sites(&rank(vec![grown], GroupBy::Stack, 120.0));
    after.call_sites.append(&mut table);
    after
        .call_sites
        .retain(|site| !site.label.starts_with("parse_header"));
    let upload = &mut after.call_sites[0];
    upload.live_bytes = Some(350 * MIB);
    for stack in upload.stacks.iter_mut().flatten() {
        stack.live_bytes = stack.live_bytes.map(|bytes| bytes / 2);
    }
    for (rank, site) in (1..).zip(&mut after.call_sites) {
        site.rank = rank;
        let stacks = site.stacks.iter_mut().flatten();
        for frame in site
            .frames
            .iter_mut()
            .chain(stacks.flat_map(|stack| &mut stack.frames))
            .filter(|frame| frame.module.as_deref() == Some(SERVER))
        {
            frame.build_id = Some("0a54f1c8c7dd7b2de4a3a3c53d0b8b2a11b7ba1b".into());
            frame.offset = frame.offset.map(|offset| Address(offset.0 + 0x40));
        }
    }
    (before, after)
}

pub fn hostile_diff() -> DiffReport {
    let mut after = hostile();
    after.call_sites.extend(full().call_sites);
    build::diff::diff(&hostile(), &after).unwrap()
}
