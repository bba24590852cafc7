use super::resolve::{Command, Shown};
use super::*;
use crate::session::{AllocsChoice, CensusChoice, FaultChoice, GroupBy};

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
                    verbose: true,
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
        refusal(&["leakwatch", "demo", "-d", "10m"]),
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
