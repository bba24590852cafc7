//! `leakwatch top` in a pseudo-terminal: what a user sees and presses, and that the terminal is theirs again whatever
//! happens.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use leakwatch_tests::kernel;
use leakwatch_tests::programs::{Program, leakwatch};
use leakwatch_tests::recording::Recording;
use leakwatch_tests::target::Target;
use leakwatch_tests::terminal::{InTerminal, words};

const SIZE: (u16, u16) = (80, 24);
const CONTROL_P: &str = "\u{10}";
const ESCAPE: &str = "\u{1b}";

/// Leaks by mmap for ten minutes, or until its stdin is closed.
fn leaking() -> Target {
    let mut target = Target::start(
        &Program::c("mmap_leak"),
        &["--steps", "60000", "--pause-ms", "10"],
    );
    target.go();
    target
}

fn top(target: &Target, folder: &Path, more: &[&str], environment: &[(&str, &str)]) -> InTerminal {
    let pid = target.pid().to_string();
    let mut arguments: Vec<OsString> = words(&["top", "--pid", &pid, "--allocs", "never"]);
    arguments.extend(words(more));
    InTerminal::start(&arguments, folder, environment, SIZE)
}

/// The row that is selected, which is the first until somebody moves.
fn selected(screen: &str) -> &str {
    screen
        .lines()
        .find_map(|line| line.strip_prefix("> "))
        .unwrap_or_default()
}

fn read(path: &Path) -> Recording {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Recording::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn first(recording: &Recording) -> &str {
    let culprit = recording.call_sites[0].culprit.as_ref();
    culprit
        .and_then(|culprit| culprit.function.as_deref())
        .unwrap_or_default()
}

#[test]
fn a_leak_is_seen_looked_at_and_saved() {
    if !kernel::required() {
        return;
    }
    let target = leaking();
    let folder = tempfile::tempdir().unwrap();
    let mut top = top(&target, folder.path(), &[], &[]);
    let began = Instant::now();
    top.wait("the leak first", |screen| {
        selected(screen).starts_with("map_and_forget")
    });
    println!("seen after {:?}", began.elapsed());
    let screen = top.wait("its stack", |screen| screen.contains("=> map_and_forget"));
    for part in [
        "so far",
        "call sites hold",
        "by pages",
        "lost: nothing",
        "PAGES▼",
        "q quit",
        "MiB",
    ] {
        assert!(screen.contains(part), "no {part}:\n{screen}");
    }
    assert!(top.draws());

    top.press("?");
    top.wait("help", |screen| screen.contains("help: Esc closes"));
    top.press(ESCAPE);
    top.wait("no help", |screen| !screen.contains("help: Esc closes"));

    top.press("/nobody has this");
    top.wait("nothing", |screen| screen.contains("no call site has this"));
    top.press(ESCAPE);
    // An escape and a key at once are another key to a terminal.
    top.wait("no filter", |screen| !screen.contains("nobody"));
    top.press("/FORGET\r");
    top.wait("the filter", |screen| {
        screen.contains("CALL SITE  /FORGET") && selected(screen).starts_with("map_and_forget")
    });
    top.press(ESCAPE);
    top.wait("no filter", |screen| !screen.contains("/FORGET"));

    top.press("p");
    let paused = top.wait("that it is paused", |screen| screen.contains("PAUSED"));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(top.screen(), paused, "it does not stand still");
    top.press("p");
    let resumed = top.wait("that it goes on", |screen| !screen.contains("PAUSED"));
    assert_ne!(resumed.lines().next(), paused.lines().next());

    top.press("\r");
    top.wait("no stack", |screen| !screen.contains("STACK"));
    top.press("\r");
    top.wait("the stack", |screen| screen.contains("=> map_and_forget"));

    top.resize(120, 40);
    top.wait("more columns", |screen| {
        screen.contains("MODULE") && screen.lines().count() > 30
    });
    top.resize(20, 6);
    top.wait("few columns", |screen| {
        screen.contains("> map_and") && !screen.contains("RATE")
    });
    top.resize(80, 24);
    top.wait("its first size", |screen| {
        screen.contains("RATE") && !screen.contains("MODULE")
    });

    let name = format!("leakwatch-mmap_leak-{}.json", target.pid());
    std::fs::write(folder.path().join(&name), "precious").unwrap();
    top.press("q");
    top.wait("the question", |screen| {
        screen.contains("End the recording and print the report?")
    });
    top.press("s");
    top.wait("a name", |screen| screen.contains(&name));
    top.press("\r");
    top.wait("that it is taken", |screen| {
        screen.contains("something of this name already")
    });
    top.press("\u{15}seen.json\r");
    assert!(top.wait_end().success());
    top.is_as_before();

    let report = top.after();
    assert!(
        report.contains("map_and_forget") && report.contains("the recording is in seen.json"),
        "{report}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join(&name)).unwrap(),
        "precious"
    );
    let path = folder.path().join("seen.json");
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let recording = read(&path);
    assert_eq!(first(&recording), "map_and_forget");
    assert!(recording.window.duration_seconds > 3.0);
}

#[test]
fn a_signal_ends_it_with_the_report_and_the_terminal_as_it_was() {
    if !kernel::required() {
        return;
    }
    let target = leaking();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let folder = tempfile::tempdir().unwrap();
        let mut top = top(&target, folder.path(), &["-o", "x.json"], &[]);
        top.wait("the leak", |screen| screen.contains("map_and_forget"));
        top.signal(signal);
        assert!(top.wait_end().success(), "signal {signal}: {}", top.screen());
        top.is_as_before();
        assert_eq!(first(&read(&folder.path().join("x.json"))), "map_and_forget");
        assert!(top.after().contains("map_and_forget"), "{}", top.after());
    }
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_is_told() {
    if !kernel::required() {
        return;
    }
    let target = leaking();
    for place in ["screen", "session"] {
        let folder = tempfile::tempdir().unwrap();
        let mut top = top(&target, folder.path(), &[], &[("LEAKWATCH_TEST_PANIC", place)]);
        if place == "screen" {
            top.wait("the leak", |screen| screen.contains("map_and_forget"));
            top.press(CONTROL_P);
            std::thread::sleep(Duration::from_secs(3));
            if top.draws() {
                // Only a debug build can be asked for it.
                println!("not tried: this is no debug build");
                return;
            }
        }
        let status = top.wait_end();
        top.is_as_before();
        let all = top.all();
        assert!(all.contains(&format!("asked for, in the {place}")), "{all}");
        // What was recorded outlives the screen, and nothing outlives the session.
        assert_eq!(status.success(), place == "screen", "{all}");
        assert_eq!(top.after().contains("map_and_forget"), place == "screen", "{all}");
    }
}

#[test]
fn the_end_of_the_process_is_shown_and_the_screen_stays_until_somebody_quits() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::c("mmap_leak"), &["--steps", "300", "--pause-ms", "10"]);
    let folder = tempfile::tempdir().unwrap();
    let mut top = top(&target, folder.path(), &[], &[]);
    top.wait("that it is attached", |screen| screen.contains("call sites hold"));
    target.go();
    top.wait("the leak", |screen| screen.contains("map_and_forget"));
    let _ = target.truth();
    target.finish();
    top.wait("its end", |screen| screen.contains("THE PROCESS HAS EXITED"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(top.draws());
    top.press("jk/forget\r");
    top.wait("the filter", |screen| screen.contains("/forget"));
    top.press("\u{3}");
    assert!(top.wait_end().success());
    top.is_as_before();
    assert!(top.after().contains("The target exited"), "{}", top.after());
}

#[test]
fn a_window_with_an_end_ends_by_itself_and_colours_are_not_forced() {
    if !kernel::required() {
        return;
    }
    let target = leaking();
    let folder = tempfile::tempdir().unwrap();
    let mut top = top(
        &target,
        folder.path(),
        &["--duration", "3s"],
        &[("NO_COLOR", "1")],
    );
    top.wait("the time", |screen| screen.contains("of 3.0 s"));
    assert!(top.wait_end().success());
    top.is_as_before();
    let all = top.all();
    assert!(all.contains("map_and_forget"));
    for colour in [
        "\u{1b}[38;5;",
        "\u{1b}[31m",
        "\u{1b}[32m",
        "\u{1b}[33m",
        "\u{1b}[36m",
    ] {
        assert!(!all.contains(colour), "{colour:?}");
    }
}

/// Pages alone would not do: an innocent handler extends the heap as often.
#[test]
fn survivors_name_who_keeps_the_heap_while_it_goes_on() {
    if !kernel::required() {
        return;
    }
    let mut target = Target::start(&Program::cpp("cohort_server"), &[]);
    target.go();
    let folder = tempfile::tempdir().unwrap();
    let arguments = words(&[
        "top",
        "--pid",
        &target.pid().to_string(),
        "--group-by",
        "function",
        "-o",
        "x.json",
    ]);
    let mut top = InTerminal::start(&arguments, folder.path(), &[], (120, 30));
    let screen = top.wait("survivors", |screen| {
        screen.contains("SURVIVING▼")
            && selected(screen).contains("handle_upload")
            && screen.contains("were in use at")
    });
    println!("{screen}");
    top.press("qq");
    assert!(top.wait_end().success());
    top.is_as_before();
    let recording = read(&folder.path().join("x.json"));
    assert!(
        first(&recording).contains("handle_upload"),
        "{}",
        first(&recording)
    );
}

#[test]
fn without_a_terminal_it_is_one_line_and_status_2() {
    let output = Command::new(leakwatch())
        .args(["top", "--pid", "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.starts_with("leakwatch: ") && said.lines().count() == 1 && said.contains("terminal"),
        "{said}"
    );
    assert!(output.stdout.is_empty());
}
