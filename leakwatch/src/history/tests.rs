use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;

use super::figures::{Figures, METRICS, Unit};
use super::file::HistoryError;
use super::heap::HeapRow;
use super::read::{History, Kept};
use super::service::Service;
use super::store::{Note, ProcessKey, Row, Store};
use super::thinning::{Oldest, Retention, Step, bucket_of, due};
use super::{At, RunId};
use crate::diagnose::verdict::HeapFacts;

const HOUR: i64 = 3600 * 1000;
const DAY: i64 = 24 * HOUR;
/// A time in the middle of nothing: some hour of 2026.
const START: i64 = 493_000 * HOUR;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    (folder, path)
}

fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        cgroup: "/x.service".to_owned(),
        instance: 0,
    }
}

fn process(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_time_ticks: 7,
        boot: "boot".to_owned(),
    }
}

fn figures(bytes: u64) -> Figures {
    Figures {
        rss_bytes: Some(bytes),
        anonymous_bytes: Some(bytes),
        threads: Some(4),
        ..Figures::default()
    }
}

fn row(run: RunId, at: i64, bytes: u64) -> Row {
    Row {
        run,
        at: At(at),
        figures: figures(bytes),
    }
}

fn all(path: &Path) -> Vec<Kept> {
    let mut all = Vec::new();
    History::open(path)
        .unwrap()
        .for_each(|kept| all.push(kept))
        .unwrap();
    all
}

fn store(path: &Path) -> Store {
    Store::open(path, Retention::default()).unwrap()
}

#[test]
fn what_is_written_is_read_whole_also_while_it_is_written() {
    let (_folder, path) = folder();
    let mut store = store(&path);
    let run = store.begin(&service("a\u{1b}b"), process(42), At(START));
    let other = store.begin(&service("other"), process(43), At(START));
    let every = Figures {
        rss_bytes: Some(1 << 20),
        anonymous_bytes: Some(2 << 20),
        file_bytes: Some(3 << 20),
        shared_bytes: Some(4096),
        swap_bytes: Some(0),
        data_bytes: Some(u64::MAX >> 12 << 10),
        page_table_bytes: Some(4096),
        pss_bytes: None,
        private_dirty_bytes: Some(5 << 20),
        cgroup_bytes: Some(6 << 20),
        threads: Some(7),
        descriptors: Some(8),
        connections: Some(9),
        close_wait: Some(0),
        minor_faults: Some(1 << 40),
        major_faults: None,
    };
    let rows = [
        Row {
            run,
            at: At(START),
            figures: every,
        },
        row(other, START, 4096),
    ];
    assert_eq!(store.write(&rows), None);
    store.note(Note::Baseline {
        run,
        baseline: 3 << 20,
    });
    store.note(Note::Alert {
        run,
        at: At(START + 1),
        event: "raised",
        threshold: "rate",
        line: "a line".to_owned(),
    });
    store.note(Note::Ended {
        run: other,
        at: At(START + 2),
        ending: "it exited",
    });
    assert_eq!(store.write(&[]), None);
    assert_eq!(store.kept(), 2);

    // Twice: while it is written, and after.
    for _ in 0..2 {
        let history = History::open(&path).unwrap();
        let services = history.services().unwrap();
        assert_eq!(services[0].1, service("a\u{1b}b"));
        let runs = history.runs().unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!(
            (runs[0].process.clone(), runs[0].baseline),
            (process(42), Some(3 << 20))
        );
        assert_eq!(runs[0].ended_at, None);
        assert_eq!(runs[1].ending.as_deref(), Some("it exited"));
        assert_eq!(history.alerts().unwrap()[0].line, "a line");
        let kept = all(&path);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].mean, every);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        store = {
            drop(history);
            drop(store);
            assert!(!path.with_file_name("history-wal").exists(), "closed well");
            self::store(&path)
        };
    }
}

#[test]
fn a_history_is_gone_on_with_and_has_one_writer() {
    let (_folder, path) = folder();
    let mut first = store(&path);
    let run = first.begin(&service("a"), process(42), At(START));
    first.write(&[row(run, START, 4096)]);
    assert!(matches!(
        Store::open(&path, Retention::default()),
        Err(HistoryError::InUse { .. })
    ));
    drop(first);
    let mut second = store(&path);
    let known = second.runs_since(At(START)).unwrap();
    assert_eq!((known[0].run, known[0].open), (run, true));
    assert_eq!(second.last_at().unwrap(), Some(At(START)));
    let next = second.begin(&service("a"), process(99), At(START + 5));
    assert_ne!(next, run);
    second.write(&[row(next, START + 5, 8192)]);
    let history = History::open(&path).unwrap();
    assert_eq!(
        history.services().unwrap().len(),
        1,
        "a new run of the same service"
    );
    assert_eq!(history.runs().unwrap().len(), 2);
    let mut seen = Vec::new();
    second
        .samples_since(At(START + 1), |run, at, figures| {
            seen.push((run, at, figures.rss_bytes))
        })
        .unwrap();
    assert_eq!(seen, [(next, At(START + 5), Some(8192))]);
}

#[test]
fn what_was_read_of_a_heap_is_kept_last_and_an_older_file_takes_it() {
    let (_folder, path) = folder();
    let heap = |at: i64, kept: Option<i64>| HeapRow {
        since: At(START),
        at: At(at),
        anonymous: -5,
        heap: HeapFacts {
            in_use: 3,
            in_use_count: 1,
            mapped: -7,
            mapped_count: 0,
            kept,
            free_at_end: 11,
            free_in_thread_arenas: 0,
            trim_at_end: None,
            thread_arenas: u64::MAX,
            class: None,
        },
    };
    let mut first = store(&path);
    let run = first.begin(&service("a"), process(1), At(START));
    first.note(Note::Heap(run, heap(START + 5, None)));
    first.note(Note::Heap(run, heap(START + 9, Some(4))));
    assert_eq!(first.write(&[row(run, START, 4096)]), None);
    let read = |run| History::open(&path).unwrap().heap(run).unwrap();
    let mut kept = heap(START + 9, Some(4));
    kept.heap.thread_arenas = i64::MAX.cast_unsigned();
    assert_eq!(read(run), Some(kept));
    assert_eq!(read(RunId(99)), None);
    drop(first);

    let old = Connection::open(&path).unwrap();
    old.execute_batch("DROP TABLE heap").unwrap();
    drop(old);
    assert_eq!(read(run), None);
    let mut again = store(&path);
    again.note(Note::Heap(run, heap(START + 12, None)));
    assert_eq!(again.write(&[]), None);
    assert_eq!(read(run).map(|heap| heap.at), Some(At(START + 12)));
}

#[test]
fn what_is_not_ours_is_told_and_not_touched() {
    let (folder, path) = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("text"), "precious\n".repeat(100)).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    let foreign = Connection::open(at("foreign")).unwrap();
    foreign
        .execute_batch("CREATE TABLE x(y); PRAGMA user_version = 1;")
        .unwrap();
    drop(foreign);
    drop(store(&path));
    std::fs::copy(&path, at("newer")).unwrap();
    let newer = Connection::open(at("newer")).unwrap();
    newer.pragma_update(None, "user_version", 9).unwrap();
    drop(newer);
    symlink(&path, at("link")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    for (name, part) in [
        ("text", "no SQLite database"),
        ("empty", "it is empty"),
        ("foreign", "another program"),
        ("newer", "version 9"),
        ("link", "symbolic link"),
        ("folder", "director"),
        ("missing/x", "no such file or folder"),
    ] {
        let before = std::fs::read(at(name)).ok();
        for error in [
            Store::open(&at(name), Retention::default()).unwrap_err(),
            History::open(&at(name)).unwrap_err(),
        ] {
            let line = error.to_string();
            let part = if name == "folder" && line.contains("regular") {
                "regular"
            } else {
                part
            };
            assert!(
                line.contains(part) && line.contains(name) && !line.contains('\n'),
                "{line}"
            );
        }
        assert_eq!(std::fs::read(at(name)).ok(), before, "{name}");
    }
    assert!(!at("missing").exists());
    let error = History::open(&at("none\u{1b}[2J")).unwrap_err().to_string();
    assert!(
        error.contains("no such file") && !error.contains('\x1b'),
        "{error}"
    );
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["empty", "folder", "foreign", "history", "link", "newer", "text"]
    );
}

#[test]
fn damage_is_one_line() {
    let (_folder, path) = folder();
    let mut store = store(&path);
    let run = store.begin(&service("a"), process(42), At(START));
    for round in 0..200 {
        store.write(&[row(run, START + round * 1000, 4096)]);
    }
    drop(store);
    let whole = std::fs::read(&path).unwrap();
    for at in (100..whole.len()).step_by(509) {
        let mut damaged = whole.clone();
        for byte in damaged.iter_mut().skip(at).take(64) {
            *byte = 0xa5;
        }
        std::fs::write(&path, &damaged).unwrap();
        let read = || -> Result<(), HistoryError> {
            let history = History::open(&path)?;
            history.services()?;
            history.runs()?;
            history.alerts()?;
            history.for_each(|_| ())
        };
        if let Err(error) = read() {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = History::open(&path)
        .and_then(|history| history.for_each(|_| ()))
        .unwrap_err();
    assert!(matches!(error, HistoryError::Damaged { .. }), "{error}");
    drop(error);
}

/// As a full disk does, a file system that may not be written fails every round until it can be again.
#[test]
fn a_write_that_fails_is_told_once_counted_and_made_up_for() {
    let (_folder, path) = folder();
    let mut store = store(&path);
    let run = store.begin(&service("a"), process(42), At(START));
    assert_eq!(store.write(&[row(run, START, 4096)]), None);
    let blocker = Connection::open(&path).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.note(Note::Baseline {
        run,
        baseline: 1 << 20,
    });
    let line = store
        .write(&[row(run, START + 1, 4096), row(run, START + 2, 4096)])
        .unwrap();
    assert!(
        line.contains("cannot be written: another program holds it"),
        "{line}"
    );
    assert!(store.is_failing());
    assert_eq!(store.write(&[row(run, START + 3, 4096)]), None, "told once");
    assert_eq!(store.thin(At(START)), None);
    blocker.execute_batch("ROLLBACK").unwrap();
    let line = store.write(&[row(run, START + 4, 8192)]).unwrap();
    assert!(
        line.contains("is written again; 3 samples are not in it"),
        "{line}"
    );
    assert_eq!((store.losses().samples, store.losses().notes), (3, 0));
    drop(store);
    assert_eq!(all(&path).len(), 2);
    let runs = History::open(&path).unwrap().runs().unwrap();
    assert_eq!(
        runs[0].baseline,
        Some(1 << 20),
        "what was noted meanwhile is there"
    );
}

#[test]
fn a_day_fine_two_weeks_medium_and_the_rest_coarse() {
    let (_folder, path) = folder();
    let mut store = store(&path);
    let run = store.begin(&service("saw"), process(42), At(START));
    // A sawtooth whose floor rises by 1 MiB a day, a sample each minute for 20 days.
    let minutes = 20 * 24 * 60_i64;
    let bytes = |minute: i64| {
        let floor = 100 * 1024 + 1024 * minute / (24 * 60);
        u64::try_from((floor + 1024 * (minute % 10)) * 1024).unwrap()
    };
    let mut rows = Vec::new();
    for minute in 0..minutes {
        rows.push(row(run, START + minute * 60_000, bytes(minute)));
        if rows.len() == 60 {
            store.write(&rows);
            rows.clear();
            for _ in 0..4 {
                store.thin(At(START + minute * 60_000));
            }
        }
    }
    let now = START + minutes * 60_000;
    for _ in 0..500 {
        store.thin(At(now));
    }
    let size = store.size().unwrap();
    drop(store);
    let kept = all(&path);
    let samples: u64 = kept.iter().map(|kept| kept.samples).sum();
    assert_eq!(samples, u64::try_from(minutes).unwrap(), "none is lost");
    let of = |width| kept.iter().filter(|kept| kept.width == width).collect::<Vec<_>>();
    let (fine, medium, coarse) = (of(0), of(300), of(3600));
    assert!((1440..=1446).contains(&fine.len()), "{}", fine.len());
    assert!(
        (13 * 288..=13 * 288 + 13).contains(&medium.len()),
        "{}",
        medium.len()
    );
    assert!((6 * 24 - 2..=6 * 24).contains(&coarse.len()), "{}", coarse.len());
    assert!(kept.is_sorted_by_key(|kept| kept.at), "in the order of time");
    for bucket in coarse {
        let minute = (bucket.at.0 - START) / 60_000;
        assert_eq!(bucket.samples, 60);
        let floor = bucket.least.rss_bytes.unwrap();
        assert_eq!(floor, bytes(minute), "the floor of a saw stays to be seen");
        assert!(bucket.most.rss_bytes.unwrap() >= floor + (9 << 20));
        let mean = bucket.mean.rss_bytes.unwrap();
        assert!(mean.abs_diff(floor + (9 << 19)) < 1 << 16, "{bucket:?}");
        assert_eq!((bucket.mean.threads, bucket.mean.pss_bytes), (Some(4), None));
    }
    assert!(size < 3 << 20, "{size}");
}

#[test]
fn the_oldest_goes_first_when_there_is_too_much() {
    let (_folder, path) = folder();
    let most = 2 << 20;
    let mut store = Store::open(&path, Retention::new(Duration::from_secs(400 * 86400), most)).unwrap();
    let runs: Vec<RunId> = (0..200)
        .map(|pid| store.begin(&service(&format!("s{pid}")), process(pid), At(START)))
        .collect();
    let mut told = 0;
    for round in 0..2000_i64 {
        let at = START + round * 60_000;
        let rows: Vec<Row> = runs.iter().map(|run| row(*run, at, 1 << 30)).collect();
        assert_eq!(store.write(&rows), None);
        told += usize::from(store.thin(At(at)).is_some());
    }
    // A round brings 200 rows, and a step takes a bucket's worth.
    assert!(store.size().unwrap() < most + (most >> 1), "{:?}", store.size());
    assert_eq!(told, 1);
    let kept = all(&path);
    assert!(
        kept.iter().any(|kept| kept.at.0 == START + 1999 * 60_000),
        "the newest are there"
    );
}

#[test]
fn a_clock_that_was_set_back_merges_and_loses_nothing() {
    let (_folder, path) = folder();
    let mut store = store(&path);
    let run = store.begin(&service("a"), process(42), At(START));
    for pass in 0..2_i64 {
        for minute in 0..120 {
            let at = START + minute * 60_000 + pass;
            store.write(&[row(run, at, 4096 * u64::try_from(1 + pass).unwrap())]);
        }
        for _ in 0..50 {
            store.thin(At(START + 3 * DAY));
        }
    }
    drop(store);
    let kept = all(&path);
    assert!(kept.iter().all(|kept| kept.width == 300));
    assert_eq!(kept.iter().map(|kept| kept.samples).sum::<u64>(), 240);
    assert_eq!(kept[3].least.rss_bytes, Some(4096));
    assert_eq!(kept[3].most.rss_bytes, Some(8192));
    assert!(kept[3].mean.rss_bytes.unwrap() > 4096);
}

#[test]
fn what_is_due_by_age_and_by_size() {
    let retention = Retention::default();
    let now = At(START);
    let old = |milliseconds: i64| Some(At(START - milliseconds));
    let nothing = Oldest::default();
    assert_eq!(due(nothing, &retention, now, true), None);
    let young = Oldest {
        sample: old(HOUR),
        ..nothing
    };
    assert_eq!(due(young, &retention, now, false), None);
    assert!(matches!(
        due(young, &retention, now, true),
        Some(Step::Samples { .. })
    ));
    let aged = Oldest {
        sample: old(2 * DAY),
        medium: old(15 * DAY),
        coarse: old(401 * DAY),
    };
    // The oldest first, so that what becomes of the finer has room.
    assert!(matches!(
        due(aged, &retention, now, false),
        Some(Step::Drop { .. })
    ));
    let aged = Oldest { coarse: None, ..aged };
    assert!(matches!(
        due(aged, &retention, now, false),
        Some(Step::Buckets { .. })
    ));
    let aged = Oldest { medium: None, ..aged };
    assert!(matches!(
        due(aged, &retention, now, false),
        Some(Step::Samples { .. })
    ));
    // Of a bucket that is not over nothing is taken.
    let unfinished = Oldest {
        sample: old(1000),
        ..nothing
    };
    assert_eq!(due(unfinished, &retention, At(START - 500), true), None);
}

proptest! {
    #[test]
    fn a_bucket_holds_its_time(at in i64::MIN / 4..i64::MAX / 4, width in 1_u64..100_000) {
        let start = bucket_of(At(at), width);
        prop_assert!(start.0 <= at && at - start.0 < i64::try_from(width).unwrap() * 1000);
        prop_assert_eq!(bucket_of(start, width), start);
    }

    #[test]
    fn any_figures_come_back_to_the_kib(values in proptest::collection::vec(proptest::option::of(any::<u64>()), METRICS.len())) {
        let mut figures = Figures::default();
        for (metric, value) in METRICS.iter().zip(&values) {
            (metric.set)(&mut figures, *value);
        }
        let (_folder, path) = folder();
        let mut store = store(&path);
        let run = store.begin(&service("a"), process(1), At(0));
        prop_assert_eq!(store.write(&[Row { run, at: At(1), figures }]), None);
        drop(store);
        let kept = all(&path);
        for (metric, value) in METRICS.iter().zip(&values) {
            let expected = value.map(|value| match metric.unit {
                Unit::Bytes => value >> 10 << 10,
                Unit::Count | Unit::Total => value.min(i64::MAX.unsigned_abs()),
            });
            prop_assert_eq!((metric.get)(&kept[0].mean), expected, "{}", metric.name);
        }
    }
}
