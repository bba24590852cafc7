//! `leakwatch scan`: all processes of the host at two moments, and who grew between.
//!
//! A look at a process is what is cheap of a sample: two files and a call, some 20 µs. Of thousands of processes that is a
//! tenth of a second.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};

use crate::history::figures::Figures;
use crate::report::build::origin;
use crate::report::escape::text_of;
use crate::report::model::SCHEMA_VERSION;
use crate::report::model::history::{ScanReport, ScanRow};
use crate::sampler::ProcRoot;
use crate::sampler::processes;
use crate::sampler::sample::{Moment, Parts, Sampler};
use crate::sampler::subject::{NoSample, Subject};

/// Processes at most; more would be no host.
const PROCESSES_MAX: usize = 1 << 20;

/// One look at all of them.
#[derive(Debug, Default)]
struct Look {
    seen: BTreeMap<u32, (Subject, Figures)>,
    unreadable: u64,
}

/// Looks twice, and ranks who grew; at most `top` rows.
///
/// # Errors
/// When the processes cannot be listed.
pub fn scan(root: &ProcRoot, duration: Duration, top: usize) -> anyhow::Result<ScanReport> {
    let mut sampler = Sampler::new(root.clone());
    let begun = Moment::now();
    let before = look(&mut sampler, root, &BTreeMap::new())?;
    std::thread::sleep(duration.saturating_sub(Moment::now().since_boot.saturating_sub(begun.since_boot)));
    let again = Moment::now();
    let after = look(&mut sampler, root, &before.seen)?;
    let mut rows = Vec::new();
    let mut started = 0;
    let mut total = 0_i64;
    for (pid, (subject, figures)) in &after.seen {
        let earlier = before
            .seen
            .get(pid)
            .filter(|(known, _)| known.start_time_ticks() == subject.start_time_ticks());
        let row = row(*pid, earlier.map(|(_, figures)| figures), figures);
        started += u64::from(row.started);
        total = total.saturating_add(row.anonymous_growth_bytes);
        rows.push(row);
    }
    let stayed = rows.len() as u64 - started;
    rows.sort_by_key(|row| (std::cmp::Reverse(row.anonymous_growth_bytes), row.pid));
    rows.truncate(top);
    let mut buffer = Vec::new();
    for row in &mut rows {
        // Of those that are shown only.
        if let Ok(described) = processes::describe(root, row.pid, &mut buffer) {
            row.name = text_of(&described.comm);
        }
    }
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok(ScanReport {
        schema_version: SCHEMA_VERSION,
        tool: origin::tool(),
        taken_at: crate::history::At::of(begun.wall).text(),
        seconds: again.since_boot.saturating_sub(begun.since_boot).as_secs_f64(),
        processes: after.seen.len() as u64,
        started,
        exited: (before.seen.len() as u64).saturating_sub(stayed),
        unreadable: after.unreadable,
        anonymous_growth_bytes: total,
        processor_seconds: Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
        .as_secs_f64(),
        rows,
    })
}

fn look(
    sampler: &mut Sampler,
    root: &ProcRoot,
    known: &BTreeMap<u32, (Subject, Figures)>,
) -> anyhow::Result<Look> {
    let pids = processes::list(root).context("cannot list the processes")?;
    let mut look = Look::default();
    for pid in pids.into_iter().take(PROCESSES_MAX) {
        let subject = match known.get(&pid) {
            Some((subject, _)) => Ok(*subject),
            None => sampler.subject(pid),
        };
        let sampled = subject.and_then(|mut subject| match sampler.sample(&mut subject, Parts::NONE) {
            // The number is another's since.
            Err(NoSample::Replaced { .. }) => {
                let mut subject = sampler.subject(pid)?;
                let sample = sampler.sample(&mut subject, Parts::NONE)?;
                Ok((subject, sample))
            }
            other => other.map(|sample| (subject, sample)),
        });
        match sampled {
            Ok((subject, sample)) => {
                look.seen.insert(pid, (subject, Figures::of(&sample)));
            }
            Err(NoSample::Unreadable(_)) => look.unreadable += 1,
            // Gone, or without memory of its own.
            Err(_) => {}
        }
    }
    Ok(look)
}

/// What a process gained. One that was started meanwhile gained all that it has.
fn row(pid: u32, before: Option<&Figures>, now: &Figures) -> ScanRow {
    let grew = |of: fn(&Figures) -> Option<u64>| {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let now = signed(of(now)?);
        match before {
            Some(before) => Some(now.saturating_sub(signed(of(before)?))),
            None => Some(now),
        }
    };
    ScanRow {
        pid,
        name: "?".to_owned(),
        started: before.is_none(),
        rss_bytes: now.rss_bytes,
        anonymous_bytes: now.anonymous_and_swap(),
        anonymous_growth_bytes: grew(Figures::anonymous_and_swap).unwrap_or(0),
        rss_growth_bytes: grew(|figures| figures.rss_bytes),
        threads: now.threads,
        threads_growth: before.and(grew(|figures| figures.threads)),
        descriptors: now.descriptors,
        descriptors_growth: before.and(grew(|figures| figures.descriptors)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_process_is_seen_to_grow() {
        let grower = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            let memory = vec![1_u8; 64 << 20];
            std::thread::sleep(Duration::from_millis(800));
            std::hint::black_box(memory);
        });
        let report = scan(&ProcRoot::default(), Duration::from_millis(600), 5).unwrap();
        grower.join().unwrap();
        assert!(report.rows.len() <= 5 && report.processes >= 2);
        let own = report
            .rows
            .iter()
            .find(|row| row.pid == std::process::id())
            .unwrap_or_else(|| panic!("{report:?}"));
        assert!(own.anonymous_growth_bytes >= 60 << 20, "{own:?}");
        assert!(!own.started && own.name != "?");
        assert!(report.seconds >= 0.6);
    }

    #[test]
    fn a_number_that_was_given_away_and_one_that_is_new() {
        let figures = |bytes| Figures {
            anonymous_bytes: Some(bytes),
            threads: Some(3),
            ..Figures::default()
        };
        let stayed = row(7, Some(&figures(100)), &figures(40));
        assert_eq!(
            (stayed.anonymous_growth_bytes, stayed.threads_growth),
            (-60, Some(0))
        );
        let new = row(7, None, &figures(40));
        assert!(new.started);
        assert_eq!((new.anonymous_growth_bytes, new.threads_growth), (40, None));
        assert_eq!(new.rss_growth_bytes, None);
    }

    #[test]
    fn a_folder_without_processes_is_no_error_and_none_is() {
        let folder = tempfile::tempdir().unwrap();
        let report = scan(&ProcRoot::new(folder.path()), Duration::ZERO, 5).unwrap();
        assert_eq!((report.processes, report.rows.len()), (0, 0));
        fs::create_dir(folder.path().join("42")).unwrap();
        fs::write(folder.path().join("42/stat"), "rubbish\n").unwrap();
        let report = scan(&ProcRoot::new(folder.path()), Duration::ZERO, 5).unwrap();
        assert_eq!(report.unreadable, 1);
        let nowhere = ProcRoot::new(folder.path().join("nowhere"));
        assert!(scan(&nowhere, Duration::ZERO, 5).is_err());
    }
}
