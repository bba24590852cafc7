//! `leakwatch watch` on real processes: restarts of both sides, the end in the midst of writing, a full disk, alerts.

use std::fs;
use std::process::Command;
use std::time::Duration;

use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::run;
use leakwatch_tests::refusal::{Bystander, folder};
use leakwatch_tests::target::Target;
use leakwatch_tests::watching::{FakeProc, Service, Watching, get, history, program_named, sample, wait_for};

fn sleeper(program: &std::path::Path) -> Bystander {
    let mut command = Command::new(program);
    command.arg("600");
    Bystander::start(command)
}

/// A target that is restarted is a new run, whoever else is; and `kill -9` costs one round at most.
#[test]
fn restarts_of_both_sides_and_a_kill() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let program = program_named(folder.path(), "/bin/sleep".as_ref(), "lw-restart");
    let file = folder.path().join("history");
    let arguments = [
        "--name",
        "lw-restart",
        "--every",
        "100ms",
        "--listen",
        "0",
        "--history",
        file.to_str().expect("a temporary name is plain"),
    ];
    let first = sleeper(&program);
    let mut watch = Watching::start(&arguments);
    watch.note(&["watching lw-restart", &first.pid()]);
    let pid_of_first = first.pid();
    drop(first);
    watch.note(&[&pid_of_first, "it exited"]);
    let second = sleeper(&program);
    watch.note(&["watching lw-restart", &second.pid(), "a new run of it"]);
    let port = watch.port();
    let samples = || {
        let (_, page) = get(port, "/metrics", "text/plain").expect("it listens");
        sample(&page, "leakwatch_watch_samples_total").expect("it counts")
    };
    wait_for("some rounds", || (samples() >= 20.0).then_some(()));
    let before = samples();
    watch.kill();
    let read = history(&file, &[]);
    assert_eq!(read.services.len(), 1, "{read:?}");
    assert!(
        read.services[0].samples as f64 >= before - 1.0,
        "{} of {before} samples are left",
        read.services[0].samples
    );

    let mut watch = Watching::start(&arguments);
    watch.note(&["watching lw-restart", &second.pid(), "again"]);
    std::thread::sleep(Duration::from_millis(500));
    let status = watch.terminate();
    assert_eq!(status.code(), Some(0), "{watch}");
    watch_said_nothing_odd(&watch);
    let after = history(&file, &[]);
    assert_eq!(after.services.len(), 1);
    let service = &after.services[0];
    assert!(service.samples > read.services[0].samples, "it goes on");
    let pids: Vec<String> = service.runs.iter().map(|run| run.pid.to_string()).collect();
    assert_eq!(pids, [pid_of_first, second.pid()]);
    assert_eq!(service.runs[0].ending.as_deref(), Some("it exited"));
    assert_eq!(service.runs[1].ended_at, None);
    let mut runs = service.points.run.clone();
    runs.dedup();
    assert_eq!(runs, [0, 1]);
    assert!(service.points.at_seconds.is_sorted());
}

fn watch_said_nothing_odd(watch: &Watching) {
    for line in watch.stderr() {
        assert!(
            line.starts_with("leakwatch: ") && !line.contains("panicked"),
            "{watch}"
        );
    }
}

/// In the midst of writing, again and again: what is left is whole rounds, and it goes on from there.
#[test]
fn killed_in_the_midst_of_writing() {
    if !kernel::required() {
        return;
    }
    const PROCESSES: u32 = 1500;
    let folder = folder();
    let file = folder.path().join("history");
    let host = FakeProc::new(PROCESSES);
    let arguments = [
        "--all",
        "--proc-root",
        host.root(),
        "--every",
        "100ms",
        "--history",
        file.to_str().expect("a temporary name is plain"),
    ];
    let mut rounds = 0;
    for attempt in 0..12_u64 {
        let mut watch = Watching::start(&arguments);
        watch.note(&["watching fake"]);
        // Somewhere in a round.
        std::thread::sleep(Duration::from_millis(150 + 37 * attempt));
        watch.kill();
        let read = history(&file, &["--top", "2000", "--points", "2"]);
        let samples: u64 = read.services.iter().map(|service| service.samples).sum();
        assert_eq!(samples % u64::from(PROCESSES), 0, "part of a round is there");
        let now = samples / u64::from(PROCESSES);
        assert!(now >= rounds, "{now} rounds after {rounds}");
        rounds = now;
    }
    assert!(rounds >= 12, "{rounds} rounds in all");
    let read = history(&file, &["--top", "2000", "--points", "2"]);
    assert_eq!(read.services.len(), PROCESSES as usize);
    assert!(
        read.services.iter().all(|service| service.runs.len() == 1),
        "each goes on"
    );
}

/// A disk that is full is told once; alerts go on; when there is room again it is written again.
#[test]
fn a_full_disk() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("it is ours");
    let mount = |options: &str| {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&disk)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "cannot mount a tmpfs");
    };
    mount("size=1m");
    let _unmount = Unmount(disk.clone());
    let file = disk.join("history");
    let host = FakeProc::new(200);
    let mut watch = Watching::start(&[
        "--all",
        "--proc-root",
        host.root(),
        "--every",
        "100ms",
        "--max-threads",
        "100",
        "--listen",
        "0",
        "--history",
        file.to_str().expect("a temporary name is plain"),
    ]);
    let port = watch.port();
    let told = watch.note(&[
        "cannot be written: no space is left on the disk",
        "watching goes on",
    ]);
    host.set(7, 1000, 500);
    watch.alert(&["ALERT", "threads 500 threads, beyond 100 threads"]);
    let (_, page) = get(port, "/metrics", "text/plain").expect("it listens");
    assert_eq!(sample(&page, "leakwatch_watch_history_failing"), Some(1.0));
    assert!(sample(&page, "leakwatch_watch_lost_samples_total").expect("it counts") >= 200.0);
    let count = |watch: &Watching| watch.stderr().iter().filter(|line| **line == told).count();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(count(&watch), 1, "told once\n{watch}");
    // Part of what is full is read all the same.
    let full = history(&file, &[]);
    assert!(full.services.iter().all(|service| service.samples > 0));

    mount("remount,size=64m");
    watch.note(&["is written again", "samples are not in it"]);
    let status = watch.terminate();
    assert_eq!(status.code(), Some(0), "{watch}");
    assert_eq!(count(&watch), 1, "{watch}");
    let read = history(&file, &["--top", "500"]);
    assert_eq!(read.services.len(), 200);
    let raised = read.alerts.iter().filter(|alert| alert.event == "raised").count();
    assert_eq!(raised, 1, "the alert of that time is in it");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A real leak is told by a line, a command with its environment, a recording by itself, and the exit status.
#[test]
fn an_alert_of_a_leak_with_a_command_and_a_recording() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let out = folder.path().join("alerts");
    let script = "{ env | grep ^LEAKWATCH_ALERT_ | sort; echo; } >> \"$1\"";
    let mut target = Target::start(&Program::c("trend_server"), &["--requests"]);
    target.go();
    let pid = target.pid().to_string();
    let mut watch = Watching::start(&[
        "--pid",
        &pid,
        "--every",
        "200ms",
        "--max-rate",
        "100MiB",
        "--min-time-to-limit",
        "off",
        "--fail-on-alert",
        "--record-on-alert",
        "3s",
        "--recordings",
        folder.path().to_str().expect("a temporary name is plain"),
        "--on-alert",
        "sh",
        "-c",
        script,
        "sh",
        out.to_str().expect("a temporary name is plain"),
    ]);
    let line = watch.alert(&["ALERT", &pid, "rate ", "/h, beyond 100.0 MiB/h", "recording to "]);
    assert!(line.contains("steady growth"), "{line}");
    let recorded = watch.alert(&["RECORDED", &pid]);
    let file = recorded.rsplit(": ").next().expect("it is named");
    assert!(line.ends_with(file), "{line}\n{recorded}");
    let outcome = run(&["report", file]);
    assert_eq!(outcome.status.code(), Some(0), "{outcome}");
    assert!(outcome.stdout.contains("keep_request"), "{outcome}");
    let said = wait_for("both alerts", || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        (text.contains("EVENT=raised") && text.contains("EVENT=recorded") && text.ends_with("\n\n"))
            .then_some(text)
    });
    let value = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("no {name}\n{said}"))
    };
    assert_eq!(value("LEAKWATCH_ALERT_PID"), pid);
    assert_eq!(value("LEAKWATCH_ALERT_THRESHOLD"), "rate");
    assert_eq!(value("LEAKWATCH_ALERT_BOUND"), "104857600");
    assert_eq!(value("LEAKWATCH_ALERT_RECORDING"), file);
    let rate: f64 = value("LEAKWATCH_ALERT_VALUE").parse().expect("it is a number");
    // 12 of 3 KiB in each tenth of a second, which take a little longer.
    assert!((0.6e9..=1.8e9).contains(&rate), "{rate} an hour");
    let status = watch.terminate();
    assert_eq!(status.code(), Some(3), "{watch}");
    assert!(target.is_well(), "it is as it was");
}

/// The trends and what memory goes with, at a fast interval: who keeps state for each connection goes with connections, who
/// keeps requests grows and does not, who keeps nothing is flat.
#[test]
fn three_servers_are_told_apart() {
    if !kernel::required() {
        return;
    }
    let mut servers: Vec<Target> = [vec!["--keep"], vec!["--requests"], vec![]]
        .iter()
        .map(|arguments| Target::start(&Program::c("trend_server"), arguments))
        .collect();
    for server in &mut servers {
        server.go();
    }
    let pids: Vec<String> = servers.iter().map(|server| server.pid().to_string()).collect();
    let [keeps, requests, steady] = pids.as_slice() else {
        panic!("there are three");
    };
    let mut watch = Watching::start(&[
        "--pid",
        keeps,
        "--pid",
        requests,
        "--pid",
        steady,
        "--every",
        "500ms",
        "--duration",
        "75s",
        "--max-rate",
        "off",
        "--min-time-to-limit",
        "off",
    ]);
    std::thread::sleep(Duration::from_secs(70));
    let status = watch.ended();
    assert_eq!(status.code(), Some(0), "{watch}");
    let line = |pid: &str| {
        let marked = format!("(PID {pid})");
        watch
            .stdout()
            .into_iter()
            .find(|line| line.contains(&marked))
            .unwrap_or_else(|| panic!("nothing of {pid}\n{watch}"))
    };
    assert!(line(requests).contains(": leak ("), "{watch}");
    assert!(line(steady).contains(": flat ("), "{watch}");
    assert!(line(requests).contains("steady growth"), "{watch}");
    assert!(!line(requests).contains("goes with"), "{watch}");
    assert!(line(steady).contains("flat"), "{watch}");
    let of_keeper = line(keeps);
    assert!(!of_keeper.contains("goes with threads"), "{of_keeper}");
    assert!(of_keeper.contains(": leak ("), "{of_keeper}");
    // "…; goes with connections (24.0 KiB to 24.1 KiB each); …": 24 KiB are the truth.
    let (_, each) = of_keeper
        .split_once("goes with connections (")
        .unwrap_or_else(|| panic!("not with connections: {of_keeper}"));
    let bounds: Vec<f64> = each
        .split(" each)")
        .next()
        .unwrap_or_default()
        .split(" to ")
        .filter_map(|bound| bound.strip_suffix(" KiB")?.parse().ok())
        .collect();
    assert!(
        bounds.len() == 2 && bounds.iter().all(|bound| (bound - 24.0).abs() <= 0.25 * 24.0),
        "{of_keeper}"
    );
}

/// The verdict of a watch is a recording's, from sizes alone: a leak, a cache that is full within a third of the time, and
/// blocks that come and go within what is there. It is in the history too. Memory that the allocator keeps grows as a leak
/// does, and only the heap tells: that is read, unless it is not to be.
#[test]
fn verdicts_by_sizes_and_heaps() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let history_file = folder.path().join("history.db");
    let history_name = history_file.to_str().expect("a temporary name is plain");
    // 80 steps in 12 s.
    let kinds = [
        ("--leak", "leak"),
        ("--cache", "plateau"),
        ("--churn", "flat"),
        ("--fragment", "retention"),
    ];
    let mut targets: Vec<Target> = kinds
        .iter()
        .map(|(how, _)| Target::start(&Program::c("heap_window"), &[how, "--pause-ms", "150"]))
        .collect();
    let pids: Vec<String> = targets.iter().map(|target| target.pid().to_string()).collect();
    let mut arguments = vec![
        "--every",
        "200ms",
        "--duration",
        "12s",
        "--max-rate",
        "off",
        "--min-time-to-limit",
        "off",
        "--history",
        history_name,
    ];
    for pid in &pids {
        arguments.extend(["--pid", pid]);
    }
    let mut watch = Watching::start(&arguments);
    for target in &mut targets {
        target.go();
    }
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(watch.ended().code(), Some(0), "{watch}");
    let kept = history(&history_file, &[]);
    for (pid, (how, kind)) in pids.iter().zip(kinds) {
        let said = watch.stdout();
        let told = format!("(PID {pid}): {kind} (");
        assert!(said.iter().any(|line| line.contains(&told)), "{how}\n{watch}");
        let of_pid = |service: &&Service| service.runs.iter().any(|run| run.pid.to_string() == *pid);
        let service = kept.services.iter().find(of_pid);
        let verdict = service.and_then(|service| service.verdict.as_ref());
        assert_eq!(
            verdict.map(|verdict| verdict.kind.as_str()),
            Some(kind),
            "{how}: {verdict:?}\n{watch}"
        );
    }
}

/// Without any right over other users' processes the own ones are watched, and what is forbidden is absent.
#[test]
fn without_root() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let unprivileged = |program: &std::path::Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(program);
        command
    };
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("it is ours");
    let leakwatch = program_named(folder.path(), leakwatch_tests::programs::leakwatch(), "leakwatch");
    let mut sleeping = unprivileged("/bin/sleep".as_ref());
    sleeping.arg("600");
    let own = Bystander::start(sleeping);
    let others = sleeper("/bin/sleep".as_ref());
    let file = folder.path().join("history");
    let mut command = unprivileged(&leakwatch);
    command.args(["watch", "--every", "100ms", "--duration", "2s", "--pid"]);
    command
        .arg(own.pid())
        .arg("--pid")
        .arg(others.pid())
        .arg("--history")
        .arg(&file);
    let mut watch = Watching::start_command(command);
    let status = watch.ended();
    assert_eq!(status.code(), Some(0), "{watch}");
    let read = history(&file, &[]);
    let has = |pid: &str, metric: &str| {
        let service = read
            .services
            .iter()
            .find(|service| service.runs.iter().any(|run| run.pid.to_string() == pid))
            .unwrap_or_else(|| panic!("nothing of {pid}\n{watch}"));
        service
            .points
            .metrics
            .get(metric)
            .is_some_and(|column| column.most.iter().any(Option::is_some))
    };
    assert!(has(&own.pid(), "rss_bytes") && has(&own.pid(), "pss_bytes"));
    assert!(has(&others.pid(), "rss_bytes") && !has(&others.pid(), "pss_bytes"));
}

#[test]
fn what_cannot_be_watched_or_read_is_one_line() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let text = folder.path().join("text");
    fs::write(&text, "precious\n").expect("it is ours");
    let name = text.to_str().expect("a temporary name is plain");
    let config = folder.path().join("x.toml");
    fs::write(&config, "[thresholds]\nrat = 1\n").expect("it is ours");
    let config = config.to_str().expect("a temporary name is plain");
    for (arguments, status, part) in [
        (
            vec!["watch", "--pid", "4194304"],
            1,
            "cannot watch PID 4194304: it has exited",
        ),
        (
            vec!["watch", "--pid", "1", "--history", name],
            1,
            "no history of leakwatch",
        ),
        (vec!["history", name], 1, "no history of leakwatch"),
        (vec!["history", "/nonexistent/x"], 1, "no such file or folder"),
        (vec!["watch", "--pid", "1", "--config", config], 2, "line 2"),
        (
            vec!["watch", "--pid", "1", "--listen", "192.0.2.77:1"],
            1,
            "cannot listen on 192.0.2.77:1",
        ),
        (vec!["watch"], 2, "required"),
    ] {
        let outcome = run(&arguments);
        assert_eq!(outcome.status.code(), Some(status), "{outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert!(outcome.stderr.contains(part), "{outcome}");
    }
    assert_eq!(fs::read_to_string(&text).expect("it is there"), "precious\n");
}
