//! Probes come and go hundreds of times in a server under load: it keeps serving, what it answers is right, and nothing
//! is left in its text, however leakwatch ends.

use std::time::{Duration, Instant};

use leakwatch_tests::kernel;
use leakwatch_tests::programs::Program;
use leakwatch_tests::record::{Record, Running};
use leakwatch_tests::target::Target;
use leakwatch_tests::text::{self, Places};
use rustix::process::Signal;

const BURSTS: u64 = 500;
const KILLS: u32 = 100;
const MOMENTS: u32 = 20;

/// A server that has answered more than before, all of it right.
fn serves(server: &mut Target, before: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let truth = server.count();
        assert_eq!(truth.number("wrong"), 0, "{truth:?}");
        if truth.number("answers") > before {
            return truth.number("answers");
        }
        assert!(Instant::now() < deadline, "it does not serve any more: {truth:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn server() -> Target {
    let mut server = Target::start(&Program::cpp("cohort_server"), &["--cache", "full", "--fixed"]);
    server.go();
    server
}

fn start(pid: u32, duration: &str, mode: [&str; 2]) -> Running {
    let record = Record::of(pid).duration(duration).arg("--census").arg("always");
    record.arg(mode[0]).arg(mode[1]).start()
}

#[test]
fn five_hundred_bursts() {
    if !kernel::required() {
        return;
    }
    let mut server = server();
    let (mut bursts, mut answers, mut windows) = (0, serves(&mut server, 0), 0);
    while bursts < BURSTS {
        // Three at a time: theirs come and go while another's are there.
        let start = || start(server.pid(), "8s", ["--allocs-budget", "3"]);
        for running in [start(), start(), start()] {
            let outcome = running.finish();
            let recording = outcome.recording();
            let allocations = recording.allocations.unwrap_or_else(|| {
                panic!(
                    "births were not watched: {:?}\n{outcome}",
                    recording.allocations_not_watched
                )
            });
            // Not one burst without an end: they come and go.
            assert!(
                allocations.watched_seconds < recording.window.duration_seconds / 2.0,
                "{allocations:?}"
            );
            assert!(allocations.bursts > 0, "{allocations:?}\n{outcome}");
            bursts += allocations.bursts;
            windows += 1;
            assert!(server.is_well(), "{outcome}");
        }
        answers = serves(&mut server, answers);
        text::wait_clean(server.pid());
    }
    eprintln!("{bursts} bursts in {windows} windows, {answers} answers");
}

/// The kernel takes out what a process put in, whatever end it comes to.
#[test]
fn killed_in_a_hundred_bursts() {
    if !kernel::required() {
        return;
    }
    let mut server = server();
    let pid = server.pid();
    let mut answers = serves(&mut server, 0);
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut found = 0;
    for _ in 0..KILLS / 2 {
        // Probes that stay, and probes that come and go.
        let both = [
            start(pid, "5s", ["--allocs", "always"]),
            start(pid, "5s", ["--allocs-budget", "50"]),
        ];
        for running in &both {
            running.wait_attached();
        }
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        std::thread::sleep(Duration::from_millis(100 + random % 500));
        for running in both {
            // It is looked before each is killed, whether this one tests anything.
            found += u32::from(!text::compare(pid).differences.is_empty());
            running.signal(Signal::KILL);
            drop(running);
        }
        answers = serves(&mut server, answers);
        text::wait_clean(pid);
        assert!(server.is_well());
    }
    eprintln!("{found} of {KILLS} were killed with probes in the text, {answers} answers");
    assert!(
        found >= KILLS / 3,
        "only {found} of {KILLS} were killed with probes in the text"
    );
}

/// Killed in the very moment in which some of the probes are in the text and others are not yet, or not any more. The
/// kernel does not write to another's text on behalf of a process that is being killed: it says "failed to unregister,
/// leaking uprobe" in its log and leaves the breakpoints. So nobody who can be killed may be the one who puts them in.
#[test]
fn killed_while_probes_come_and_go() {
    if !kernel::required() {
        return;
    }
    let mut server = server();
    let pid = server.pid();
    let places = {
        let running = start(pid, "20s", ["--allocs", "always"]);
        running.wait_attached();
        let deadline = Instant::now() + Duration::from_secs(10);
        while text::compare(pid).differences.is_empty() {
            assert!(Instant::now() < deadline, "no probe was put in");
        }
        // All of them, by now.
        std::thread::sleep(Duration::from_millis(200));
        Places::of(pid)
    };
    text::wait_clean(pid);
    let mut answers = serves(&mut server, 0);
    let mut halfway = 0;
    for _ in 0..MOMENTS {
        let running = start(pid, "20s", ["--allocs-budget", "20"]);
        running.wait_attached();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let taken = places.taken();
            if taken > 0 && taken < places.all() {
                halfway += 1;
                break;
            }
        }
        running.signal(Signal::KILL);
        drop(running);
        answers = serves(&mut server, answers);
        text::wait_clean(pid);
    }
    eprintln!("{halfway} of {MOMENTS} were killed halfway, {answers} answers");
    assert!(
        halfway >= MOMENTS / 3,
        "only {halfway} of {MOMENTS} were killed halfway"
    );
}
