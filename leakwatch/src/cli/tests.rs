use super::resolve::{Command, Shown};
use super::*;
use crate::history::thinning::Retention;
use crate::sampler::ProcRoot;
use crate::session::{AllocsChoice, CensusChoice, FaultChoice, GroupBy};
use crate::watch::thresholds::{Rise, Thresholds};

fn resolve(words: &[&str]) -> Command {
    Command::resolve(Arguments::try_parse_from(words).unwrap()).unwrap()
}

/// The one line that a wrong command line is answered with.
fn refusal(words: &[&str]) -> String {
    let error = Arguments::try_parse_from(words).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{words:?}");
    let line = exit::usage_line(&error.render().to_string());
    assert!(line.starts_with("leakwatch: ") && !line.contains('\n'), "{line}");
    line
}

#[test]
fn defaults_of_record() {
    assert_eq!(
        resolve(&["leakwatch", "record", "-p", "4242"]),
        Command::Record {
            selector: Selector::Pid(4242),
            window: Window {
                duration: Duration::from_secs(10),
                open_ended: false,
                stack_bytes: 32 * 1024,
                ring_bytes: 64 * 1024 * 1024,
                sample_budget: 2000,
                faults: FaultChoice::Auto,
                census: CensusChoice::Auto,
                allocs: AllocsChoice::Auto,
                allocs_budget: 10_000,
                follow_children: false,
                group_by: GroupBy::Stack,
                dump_ledger: None,
                record_changes: None,
            },
            fail_on_leak: false,
            output: Output {
                files: vec![],
                shown: Shown {
                    top: 10,
                    min_bytes: 0,
                    brief: true,
                    verbose: false,
                },
            },
        }
    );
}

#[test]
fn every_option_of_record_arrives() {
    let words = [
        "leakwatch",
        "record",
        "--name",
        "redis-server",
        "-d",
        "5m",
        "-o",
        "a.json",
        "-o",
        "b.txt",
        "--top",
        "3",
        "--group-by",
        "module",
        "--min-bytes",
        "64KiB",
        "--children",
        "--stack-bytes",
        "8KiB",
        "--ring-bytes",
        "1M",
        "--sample-budget",
        "500",
        "--faults",
        "never",
        "--census",
        "never",
        "--allocs",
        "always",
        "--allocs-budget",
        "2.5",
        "--fail-on-leak",
        "-v",
    ];
    assert_eq!(
        resolve(&words),
        Command::Record {
            selector: Selector::Name("redis-server".to_owned()),
            window: Window {
                duration: Duration::from_secs(300),
                open_ended: false,
                stack_bytes: 8192,
                ring_bytes: 1 << 20,
                sample_budget: 500,
                faults: FaultChoice::Never,
                census: CensusChoice::Never,
                allocs: AllocsChoice::Always,
                allocs_budget: 25_000,
                follow_children: true,
                group_by: GroupBy::Module,
                dump_ledger: None,
                record_changes: None,
            },
            fail_on_leak: true,
            output: Output {
                files: vec!["a.json".into(), "b.txt".into()],
                shown: Shown {
                    top: 3,
                    min_bytes: 65536,
                    brief: false,
                    verbose: false,
                },
            },
        }
    );
}

#[test]
fn options_of_heap() {
    let words = [
        "leakwatch",
        "heap",
        "-p",
        "7",
        "-o",
        "a.json",
        "--top",
        "3",
        "-v",
        "--force",
    ];
    assert_eq!(
        resolve(&words),
        Command::Heap {
            selector: Selector::Pid(7),
            force: true,
            output: Output {
                files: vec!["a.json".into()],
                shown: Shown {
                    top: 3,
                    min_bytes: 0,
                    brief: false,
                    verbose: true,
                },
            },
        }
    );
    let Command::Heap { force, output, .. } = resolve(&["leakwatch", "heap", "--name", "x"]) else {
        panic!("it is another command");
    };
    assert!(!force && !output.shown.verbose && output.shown.top == 10);
}

#[test]
fn defaults_of_watch() {
    let Command::Watch {
        options,
        fail_on_alert,
    } = resolve(&["leakwatch", "watch", "--name", "nginx"])
    else {
        panic!("it is another command");
    };
    assert!(!fail_on_alert);
    assert_eq!(options.selectors.names, ["nginx"]);
    assert_eq!(options.every, Duration::from_secs(30));
    assert_eq!(
        (options.duration, options.window),
        (None, Duration::from_secs(6 * 3600))
    );
    assert_eq!(options.thresholds, Thresholds::default());
    assert_eq!((options.history, options.listen), (None, None));
    assert_eq!(options.retention, Retention::default());
    assert_eq!(options.proc_root, ProcRoot::default());
}

#[test]
fn options_of_watch() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("x.toml");
    std::fs::write(
        &config,
        "[thresholds]\nrate = \"1MiB\"\nthreads = 9\n[service.a-name-that-is-long]\nfds = 1\n",
    )
    .unwrap();
    let config_name = config.to_str().unwrap();
    let words = [
        "leakwatch",
        "watch",
        "-p",
        "7",
        "-p",
        "8",
        "--cgroup",
        "x.service",
        "--every",
        "1s",
        "-d",
        "30d",
        "--history",
        "a/b.lwh",
        "--history-size",
        "2MiB",
        "--keep",
        "2d",
        "--config",
        config_name,
        "--max-rate",
        "off",
        "--max-rise",
        "50%",
        "--record-on-alert",
        "1m",
        "--recordings",
        "/",
        "--listen",
        "9464",
        "--fail-on-alert",
        "--on-alert",
        "logger",
        "-t",
        "leak",
    ];
    let error = Command::resolve(Arguments::try_parse_from(words).unwrap()).unwrap_err();
    assert!(error.to_string().contains("line 5"), "{error}");
    std::fs::write(
        &config,
        "[thresholds]\nrate = \"1MiB\"\nthreads = 9\n[service.a-name-that-is-long]\ndescriptors = 1\n",
    )
    .unwrap();
    let Command::Watch {
        options,
        fail_on_alert,
    } = resolve(&words)
    else {
        panic!("it is another command");
    };
    assert!(fail_on_alert);
    assert_eq!(options.selectors.pids, [7, 8]);
    assert_eq!(options.on_alert, ["logger", "-t", "leak"]);
    assert_eq!(options.duration, Some(Duration::from_secs(30 * 86400)));
    assert_eq!(
        options.retention,
        Retention::new(Duration::from_secs(2 * 86400), 2 << 20)
    );
    let bounds = options.thresholds;
    assert_eq!((bounds.rate, bounds.rise), (None, Some(Rise::Share(0.5))));
    assert_eq!((bounds.threads, bounds.descriptors), (Some(9), None));
    let own = options.by_service["a-name-that-is-"];
    assert_eq!((own.threads, own.descriptors), (Some(9), Some(1)));
    assert_eq!(options.listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(options.recordings, std::path::Path::new("/"));
}

#[test]
fn options_of_history_and_scan() {
    let words = [
        "leakwatch",
        "history",
        "a.lwh",
        "--service",
        "a-name-that-is-long",
        "--top",
        "3",
        "-o",
        "x.csv",
    ];
    let Command::History { file, wanted, output } = resolve(&words) else {
        panic!("it is another command");
    };
    assert_eq!(file, std::path::Path::new("a.lwh"));
    assert_eq!(
        (wanted.services[0].as_str(), wanted.most, wanted.points),
        ("a-name-that-is-", 3, 1000)
    );
    assert_eq!(output.files, [std::path::PathBuf::from("x.csv")]);
    let Command::Scan { duration, output, .. } = resolve(&["leakwatch", "scan"]) else {
        panic!("it is another command");
    };
    assert_eq!((duration, output.shown.top), (Duration::from_secs(10), 20));
}

#[test]
fn wrong_command_lines_are_one_line_each() {
    let pid = |text| ["leakwatch", "record", "--pid", text];
    let duration = |text| ["leakwatch", "record", "-p", "1", "--duration", text];
    let lines = [
        refusal(&pid("0")),
        refusal(&pid("-7")),
        refusal(&pid("redis")),
        refusal(&pid("99999999999")),
        refusal(&pid("\x1b[2J")),
        refusal(&duration("0")),
        refusal(&duration("-5s")),
        refusal(&duration("8d")),
        refusal(&["leakwatch", "record"]),
        refusal(&["leakwatch", "record", "-p", "1", "--name", "x"]),
        refusal(&["leakwatch", "record", "--name", ""]),
        refusal(&["leakwatch", "record", "-p", "1", "--group-by", "thread"]),
        refusal(&["leakwatch", "record", "-p", "1", "--childs"]),
        refusal(&["leakwatch", "record", "-p", "1", "--stack-bytes", "1M"]),
        refusal(&["leakwatch", "record", "-p", "1", "--ring-bytes", "3M"]),
        refusal(&["leakwatch", "heap"]),
        refusal(&["leakwatch", "heap", "-p", "redis"]),
        refusal(&["leakwatch", "top"]),
        refusal(&["leakwatch", "report"]),
        refusal(&["leakwatch", "diff", "a.json"]),
        refusal(&["leakwatch", "demo", "-d", "10m"]),
        refusal(&["leakwatch", "watch"]),
        refusal(&["leakwatch", "watch", "-p", "1", "--every", "1ms"]),
        refusal(&["leakwatch", "watch", "-p", "1", "--keep", "1d"]),
        refusal(&["leakwatch", "watch", "-p", "1", "--max-rate", "fast"]),
        refusal(&["leakwatch", "watch", "-p", "1", "--listen", "example.com:80"]),
        refusal(&["leakwatch", "watch", "-p", "1", "--on-alert"]),
        refusal(&["leakwatch", "history"]),
        refusal(&["leakwatch", "history", "x", "--points", "1"]),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_same_file_twice_is_refused() {
    let words = ["leakwatch", "demo", "-o", "a.json", "-o", "a.json"];
    let error = Command::resolve(Arguments::try_parse_from(words).unwrap()).unwrap_err();
    assert!(error.to_string().contains("given twice"));
    assert_eq!(exit::status_of(&error.into()), ExitStatus::Usage);
}

#[test]
fn an_error_is_one_inert_line_with_its_causes() {
    let error = anyhow::anyhow!("it is\x1b[31m full\n").context("cannot write x.json");
    assert_eq!(
        exit::line_of(&error),
        "leakwatch: cannot write x.json: it is\\u{1b}[31m full\\n"
    );
    assert_eq!(exit::status_of(&error), ExitStatus::Error);
    let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    assert!(exit::is_broken_pipe(
        &anyhow::Error::from(gone).context("cannot write to stdout")
    ));
    assert!(!exit::is_broken_pipe(&error));
}

#[test]
fn candidates_are_listed_inertly() {
    let candidates = [
        Candidate {
            pid: 12,
            uid: Some(33),
            age_seconds: Some(3 * 86400 + 4 * 3600 + 5),
            cmdline: "redis-server\x1b[2J *:6379".to_owned(),
        },
        Candidate {
            pid: 4_194_304,
            uid: None,
            age_seconds: None,
            cmdline: "x".repeat(200),
        },
    ];
    insta::assert_snapshot!(candidate_table(&candidates, 7));
}
