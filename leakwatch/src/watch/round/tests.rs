use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::selection::Selectors;
use super::super::thresholds::Thresholds;
use super::*;
use crate::history::read::History;
use crate::history::thinning::Retention;

/// A folder that stands in for /proc, in which processes come, grow and go.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let random = folder.path().join("sys/kernel/random");
        fs::create_dir_all(&random).unwrap();
        fs::write(random.join("boot_id"), "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
        fs::write(
            folder.path().join("meminfo"),
            "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
        )
        .unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("")
    }

    /// Numbers above those of real processes.
    fn process(&self, pid: u32, name: &str, start: u64, stack: u64, kib: u64, threads: u64) {
        let folder = self.folder.path().join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        let stat = format!(
            "{pid} ({name}) S 1 2 3 4 5 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0 0 0 0 {stack} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cgroup"), "0::/x.service\n").unwrap();
        fs::write(
            folder.join("status"),
            format!(
                "Name:\t{name}\nVmRSS:\t{kib} kB\nRssAnon:\t{kib} kB\nVmSwap:\t0 kB\nThreads:\t{threads}\n"
            ),
        )
        .unwrap();
    }

    /// A round, and a moment: two samples of one millisecond are one to the history.
    fn round(watch: &mut Watch) {
        watch.round();
        std::thread::sleep(Duration::from_millis(2));
    }

    fn gone(&self, pid: u32) {
        fs::remove_dir_all(self.folder.path().join(pid.to_string())).unwrap();
    }
}

fn options(host: &Host, history: Option<&Path>) -> WatchOptions {
    WatchOptions {
        selectors: Selectors {
            names: vec!["server".to_owned()],
            ..Selectors::default()
        },
        every: Duration::from_millis(10),
        duration: None,
        window: Duration::from_secs(600),
        learning: Duration::from_secs(3600),
        history: history.map(Path::to_owned),
        retention: Retention::default(),
        thresholds: Thresholds {
            rate: None,
            time_to_limit: None,
            threads: Some(100),
            ..Thresholds::default()
        },
        by_service: HashMap::new(),
        on_alert: Vec::new(),
        record_on_alert: None,
        recordings: PathBuf::from("."),
        listen: None,
        heaps: false,
        proc_root: ProcRoot::new(host.root()),
    }
}

const A: u32 = 4_194_001;
const B: u32 = 4_194_002;
const C: u32 = 4_194_003;

#[test]
fn a_restart_of_either_side_goes_on_with_the_same_service() {
    let host = Host::new();
    let file = host.folder.path().join("history");
    host.process(A, "server", 100, 1, 1000, 3);
    host.process(B, "other", 101, 1, 1000, 3);
    let mut watch = Watch::start(options(&host, Some(&file))).unwrap();
    Host::round(&mut watch);
    Host::round(&mut watch);
    assert_eq!(watch.processes(), 1);
    // The target is restarted.
    host.gone(A);
    Host::round(&mut watch);
    assert_eq!(watch.processes(), 0);
    host.process(C, "server", 300, 1, 900, 3);
    Host::round(&mut watch);
    // And leakwatch is, while the target runs on.
    drop(watch);
    let mut watch = Watch::start(options(&host, Some(&file))).unwrap();
    Host::round(&mut watch);
    watch.finish();
    // And the target while nobody watches.
    host.gone(C);
    host.process(A, "server", 500, 1, 800, 3);
    let mut watch = Watch::start(options(&host, Some(&file))).unwrap();
    Host::round(&mut watch);
    watch.finish();

    let history = History::open(&file).unwrap();
    assert_eq!(history.services().unwrap().len(), 1);
    let runs = history.runs().unwrap();
    let told: Vec<(u32, u64, Option<&str>)> = runs
        .iter()
        .map(|run| {
            (
                run.process.pid,
                run.process.start_time_ticks,
                run.ending.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (A, 100, Some("it exited")),
            (C, 300, Some("while nobody watched")),
            (A, 500, None),
        ]
    );
    let mut samples: HashMap<RunId, u64> = HashMap::new();
    history
        .for_each(|kept| *samples.entry(kept.run).or_default() += kept.samples)
        .unwrap();
    let of = |index: usize| samples[&runs[index].id];
    assert_eq!((of(0), of(1), of(2)), (2, 2, 1));
}

#[test]
fn another_program_under_the_same_number_is_another_run() {
    let host = Host::new();
    let file = host.folder.path().join("history");
    host.process(A, "server", 100, 1, 1000, 3);
    let mut watch = Watch::start(options(&host, Some(&file))).unwrap();
    Host::round(&mut watch);
    host.process(A, "server", 100, 2, 10, 1);
    Host::round(&mut watch);
    Host::round(&mut watch);
    watch.finish();
    let runs = History::open(&file).unwrap().runs().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].ending.as_deref(), Some("it executed another program"));
}

#[test]
fn several_of_a_kind_have_numbers_and_a_restart_takes_the_free_one() {
    let host = Host::new();
    for (pid, start) in [(A, 1), (B, 2), (C, 3)] {
        host.process(pid, "server", start, 1, 1000, 3);
    }
    let mut watch = Watch::start(options(&host, None)).unwrap();
    Host::round(&mut watch);
    assert_eq!(watch.processes(), 3);
    host.gone(B);
    Host::round(&mut watch);
    host.process(B + 10, "server", 9, 1, 1000, 3);
    Host::round(&mut watch);
    let titles: Vec<String> = watch
        .tracked
        .values()
        .map(|tracked| tracked.service.title())
        .collect();
    assert_eq!(titles, ["server", "server#2", "server#1"]);
}

#[test]
fn an_alert_is_raised_once_and_is_in_the_history() {
    let host = Host::new();
    let file = host.folder.path().join("history");
    let mut watch = Watch::start(options(&host, Some(&file))).unwrap();
    for threads in [3, 150, 160, 170, 99, 50, 40, 30, 200, 200] {
        host.process(A, "server", 100, 1, 1000, threads);
        Host::round(&mut watch);
    }
    host.gone(A);
    Host::round(&mut watch);
    assert_eq!(watch.finish(), Outcome { alerts: 2 });
    let history = History::open(&file).unwrap();
    let events: Vec<String> = history
        .alerts()
        .unwrap()
        .into_iter()
        .map(|alert| format!("{} {}", alert.threshold, alert.event))
        .collect();
    assert_eq!(
        events,
        [
            "threads raised",
            "threads cleared",
            "threads raised",
            "threads ended"
        ]
    );
}

#[test]
fn a_service_has_bounds_of_its_own() {
    let host = Host::new();
    host.process(A, "server", 100, 1, 1000, 150);
    let mut options = options(&host, None);
    let own = Thresholds {
        threads: None,
        ..options.thresholds
    };
    options.by_service.insert("server".to_owned(), own);
    let mut watch = Watch::start(options).unwrap();
    for _ in 0..5 {
        Host::round(&mut watch);
    }
    assert_eq!(watch.finish().alerts, 0);
}

#[test]
fn growth_without_an_end_is_an_alert_and_a_rise_over_the_baseline_too() {
    let host = Host::new();
    let mut options = options(&host, None);
    options.learning = Duration::from_millis(200);
    options.thresholds = Thresholds {
        rate: Some(1e6),
        rise: Some(super::super::thresholds::Rise::Share(0.5)),
        ..Thresholds::default()
    };
    let mut watch = Watch::start(options).unwrap();
    let started = Instant::now();
    let mut round = 0_u64;
    while started.elapsed() < Duration::from_secs(20) {
        // 50 MiB, and 20 MiB a second.
        let grown = u64::try_from(started.elapsed().as_millis()).unwrap() * 20;
        host.process(A, "server", 100, 1, 51_200 + grown, 3);
        Host::round(&mut watch);
        round += 1;
        std::thread::sleep(Duration::from_millis(10));
        let raised: Vec<Threshold> = watch.tracked[&A].raised().collect();
        if raised == [Threshold::Rate, Threshold::Rise, Threshold::TimeToLimit] {
            break;
        }
    }
    let tracked = &watch.tracked[&A];
    let raised: Vec<Threshold> = tracked.raised().collect();
    assert_eq!(
        raised,
        [Threshold::Rate, Threshold::Rise, Threshold::TimeToLimit],
        "after {round} rounds: {:?}",
        tracked.judged
    );
    let judged = tracked.judged.unwrap();
    assert!(judged.kind.grows());
    let rate = judged.slope / f64::from(1 << 20);
    assert!((15.0..=25.0).contains(&rate), "{rate} MiB a second");
    let left = tracked.seconds_to_limit(Some(4 << 30)).unwrap();
    assert!((150.0..=300.0).contains(&left), "{left} s");
}

#[test]
fn a_number_that_nobody_has_is_an_error() {
    let host = Host::new();
    let mut options = options(&host, None);
    options.selectors = Selectors {
        pids: vec![A],
        ..Selectors::default()
    };
    let error = Watch::start(options).unwrap_err().to_string();
    assert_eq!(error, format!("cannot watch PID {A}: it has exited"));
}
