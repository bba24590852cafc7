//! `leakwatch heap`: one picture of a heap, against what the program says of itself, in text and JSON; and what it
//! refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use leakwatch_tests::daemons::Redis;
use leakwatch_tests::programs::{self, Program};
use leakwatch_tests::record::{Outcome, run, run_command};
use leakwatch_tests::refusal::{a_kernel_thread, entries, folder, sleeper, thirty_two_bit};
use leakwatch_tests::target::Target;
use leakwatch_tests::{expect, kernel};
use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// A picture that was taken: what was printed, and the JSON that was written.
struct Picture {
    outcome: Outcome,
    value: Value,
}

impl Picture {
    fn of(pid: u32, arguments: &[&str]) -> Self {
        let folder = folder();
        let (json, text) = (folder.path().join("x.json"), folder.path().join("x.txt"));
        let mut command = Command::new(programs::leakwatch());
        command.args(["heap", "-p", &pid.to_string()]).args(arguments);
        command.arg("-o").arg(&json).arg("-o").arg(&text);
        let outcome = run_command(command);
        assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome}");
        expect::printable(&outcome);
        let long = outcome.stdout.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "a line is over 80 columns\n{outcome}");
        for file in [&json, &text] {
            let mode = fs::metadata(file).expect("it was written").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        assert!(
            fs::read_to_string(text)
                .expect("it was written")
                .contains("\nHEAP")
        );
        let json = fs::read_to_string(json).expect("it was written");
        assert!(json.ends_with("}\n"), "no final newline");
        let value: Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(value["schema_version"], 1);
        assert_eq!(value["target"]["pid"], pid);
        Self { outcome, value }
    }

    fn number(&self, pointer: &str) -> u64 {
        let number = self.value.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("{pointer} is no number\n{}", self.outcome))
    }

    fn rows(&self, pointer: &str) -> &[Value] {
        let rows = self.value.pointer(pointer).and_then(Value::as_array);
        rows.unwrap_or_else(|| panic!("{pointer} is no list\n{}", self.outcome))
    }

    fn sum(&self, pointer: &str, of: &str) -> u64 {
        let rows = self.rows(pointer).iter();
        rows.map(|row| {
            row[of]
                .as_u64()
                .unwrap_or_else(|| panic!("a row without {of}: {row}"))
        })
        .sum()
    }

    /// The figures that follow a label, up to the line's end.
    fn line(&self, label: &str) -> Vec<&str> {
        let line = self
            .outcome
            .stdout
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(label));
        let line = line.unwrap_or_else(|| panic!("nothing says {label:?}\n{}", self.outcome));
        line.split("  ")
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// Every figure of the text that the JSON has too.
    fn text_agrees(&self) {
        let in_use = self.number("/heap/in_use_bytes") + self.number("/heap/mapped_bytes");
        let blocks = self.number("/heap/in_use_count") + self.number("/heap/mapped_count");
        assert_eq!(
            self.line("in use  "),
            [size(in_use), blocks.to_string()],
            "{}",
            self.outcome
        );
        let mut free_blocks = 0;
        for kind in ["bins", "top", "tcache", "fastbins"] {
            let bytes = self.number(&format!("/heap/free_kinds/{kind}/bytes"));
            let count = self.number(&format!("/heap/free_kinds/{kind}/count"));
            free_blocks += count;
            assert_eq!(self.line(&format!("{kind}  ")), [size(bytes), count.to_string()]);
        }
        let free = self.number("/heap/free_bytes");
        assert_eq!(self.line("free, but kept"), [size(free), free_blocks.to_string()]);
        let (shared, resident) = (
            self.number("/heap/fragmentation_bytes"),
            self.number("/heap/free_pages_bytes"),
        );
        assert_eq!(self.line("free, on pages in use: fragmentation"), [size(shared)]);
        assert_eq!(self.line("free, in whole pages, resident"), [size(resident)]);
        assert_eq!(
            self.line("free, in whole pages, not resident"),
            [size(free.saturating_sub(shared).saturating_sub(resident))]
        );
        assert_eq!(
            self.line("malloc_trim(0) gives back at most"),
            [size(self.number("/heap/trim_bytes"))]
        );
        assert_eq!(
            self.line("resident or swapped, of all arenas"),
            [size(self.number("/heap/resident_bytes"))]
        );
        let first = &self.rows("/heap/classes")[0];
        let figures = self.line(&format!("{} B ", first["bytes"]));
        assert_eq!(figures[0], first["count"].to_string(), "{}", self.outcome);
        assert_eq!(figures[1], size(first["in_use_bytes"].as_u64().expect("bytes")));
    }

    /// The parts sum to the whole.
    fn closes(&self) {
        let in_use = self.number("/heap/in_use_bytes");
        let free = self.number("/heap/free_bytes");
        assert_eq!(self.sum("/heap/arenas", "in_use_bytes"), in_use);
        assert_eq!(self.sum("/heap/arenas", "free_bytes"), free);
        let overhead = self.number("/heap/overhead_bytes");
        assert_eq!(self.sum("/heap/arenas", "system_bytes"), in_use + free + overhead);
        // Large blocks are classes of their own, as far as they were found.
        let of_classes = |field: &str, mapped: bool| -> u64 {
            let rows = self.rows("/heap/classes");
            let rows = rows.iter().filter(|row| row["mapped"] == mapped);
            rows.map(|row| row[field].as_u64().expect("a number")).sum()
        };
        assert_eq!(of_classes("in_use_bytes", false), in_use);
        assert_eq!(of_classes("count", false), self.number("/heap/in_use_count"));
        assert!(of_classes("count", true) <= self.number("/heap/mapped_count"));
        assert!(self.number("/heap/fragmentation_bytes") <= free);
        let (pages, trim) = (
            self.number("/heap/free_pages_bytes"),
            self.number("/heap/trim_bytes"),
        );
        assert!(
            trim <= pages && pages <= self.number("/heap/resident_bytes"),
            "{}",
            self.outcome
        );
    }
}

/// As the text tells sizes.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mut value = bytes as f64;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB"] {
        if unit.is_empty() || value >= 1023.95 {
            (value, unit) = (value / 1024.0, next);
        }
    }
    format!("{value:.1} {unit}")
}

fn worked(program: &Program, arguments: &[&str]) -> (Target, leakwatch_tests::target::Truth) {
    let mut target = Target::start(program, arguments);
    target.go();
    let truth = target.truth();
    (target, truth)
}

#[test]
fn blocks_that_a_program_keeps() {
    if !kernel::required() {
        return;
    }
    let (mut target, truth) = worked(&Program::c("keep_blocks"), &["--steps", "20", "--pause-ms", "1"]);
    let picture = Picture::of(target.pid(), &[]);
    picture.closes();
    picture.text_agrees();
    let of_size: u64 = picture
        .rows("/heap/classes")
        .iter()
        // A request of 64 KiB and its header, rounded up to 16.
        .filter(|row| row["chunk_bytes"] == 65_552)
        .map(|row| row["count"].as_u64().expect("a count"))
        .sum();
    assert_eq!(of_size, truth.calls, "{}", picture.outcome);
    assert_eq!(picture.rows("/heap/classes")[0]["bytes"], 65_544);
    assert!(target.is_well(), "it did not survive being read");
}

#[test]
fn a_fragmented_heap() {
    if !kernel::required() {
        return;
    }
    let (target, truth) = worked(&Program::c("fragment"), &["--pause-ms", "1"]);
    let picture = Picture::of(target.pid(), &["-v"]);
    picture.closes();
    picture.text_agrees();
    let in_use = picture.number("/heap/in_use_bytes");
    let truly = truth.number("in_use_bytes");
    assert!(
        in_use.abs_diff(truly) <= 64 * 1024,
        "{truly} in use\n{}",
        picture.outcome
    );
    let free = picture.number("/heap/free_bytes");
    assert!(free > 20 * in_use, "{}", picture.outcome);
    // Every page has a block in use, but for the heap's end.
    let shared = picture.number("/heap/fragmentation_bytes");
    assert!(shared * 10 > free * 4, "{}", picture.outcome);
}

#[test]
fn threads_have_arenas() {
    if !kernel::required() {
        return;
    }
    let (target, _) = worked(&Program::cpp("arenas"), &[]);
    let picture = Picture::of(target.pid(), &["-v"]);
    picture.closes();
    picture.text_agrees();
    let arenas = picture.rows("/heap/arenas");
    assert!(arenas.len() > 4, "{}", picture.outcome);
    assert_eq!(arenas.iter().filter(|arena| arena["main"] == true).count(), 1);
    for arena in arenas.iter().filter(|arena| arena["main"] == false) {
        let address = arena["address"].as_str().expect("an address");
        assert!(
            picture.outcome.stdout.contains(&format!("\n  {address} ")),
            "{address}\n{}",
            picture.outcome
        );
    }
    let few = Picture::of(target.pid(), &["--top", "1"]);
    assert!(few.outcome.stdout.contains("(-v shows them)"), "{}", few.outcome);
    assert!(few.rows("/heap/classes").len() > 1, "{}", few.outcome);
}

#[test]
fn a_python() {
    if !kernel::required() {
        return;
    }
    let (target, _) = worked(&Program::python("leak_request"), &[]);
    let picture = Picture::of(target.pid(), &[]);
    picture.closes();
    picture.text_agrees();
}

/// Its own user may look without being root; the version of its libc is then read from the heap itself.
#[test]
fn the_same_user_without_root() {
    if !kernel::required() {
        return;
    }
    let places = open_to_all(&Program::c("keep_blocks"));
    let mut command = Command::new(&places.program);
    command
        .args(["--steps", "20", "--pause-ms", "1"])
        .uid(NOBODY)
        .gid(NOBODY);
    let mut target = Target::start_command(command);
    target.go();
    let truth = target.truth();
    let outcome = places.heap_of(&target.pid().to_string());
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !matches!(yama.trim(), "" | "0") {
        expect::refused(&outcome, 1, &["kernel.yama.ptrace_scope", "CAP_SYS_PTRACE"]);
        return;
    }
    assert!(outcome.status.success(), "{outcome}");
    let value: Value = serde_json::from_str(&fs::read_to_string(places.output()).expect("it was written"))
        .expect("it is JSON");
    let first = &value["heap"]["classes"][0];
    assert_eq!(first["count"], truth.calls, "{outcome}");
    assert_eq!(first["chunk_bytes"], 65_552, "{outcome}");
}

#[test]
fn another_users_process_without_root() {
    if !kernel::required() {
        return;
    }
    let places = open_to_all(&Program::c("fragment"));
    let process = sleeper();
    let outcome = places.heap_of(&process.pid());
    expect::refused(&outcome, 1, &[&process.pid(), "root", "CAP_SYS_PTRACE"]);
    assert!(!places.output().exists(), "{outcome}");
}

/// A folder where anybody can read and write, with copies: the target folder may lie where only root can look.
struct Places {
    folder: TempDir,
    leakwatch: PathBuf,
    program: PathBuf,
}

fn open_to_all(program: &Program) -> Places {
    let folder = folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("it is ours");
    let copy = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        programs::copy(from, &to);
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).expect("it is ours");
        to
    };
    Places {
        leakwatch: copy(programs::leakwatch(), "leakwatch"),
        program: copy(&program.path, "program"),
        folder,
    }
}

impl Places {
    fn output(&self) -> PathBuf {
        self.folder.path().join("x.json")
    }

    /// As nobody.
    fn heap_of(&self, pid: &str) -> Outcome {
        let mut command = Command::new(&self.leakwatch);
        command.args(["heap", "-p", pid, "-o"]).arg(self.output());
        command.current_dir(self.folder.path()).uid(NOBODY).gid(NOBODY);
        run_command(command)
    }
}

// What is refused.

/// Refused in one line, and nothing is written.
fn refused(pid: &str, words: &[&str]) {
    let folder = folder();
    let output = folder.path().join("x.json");
    let mut command = Command::new(programs::leakwatch());
    command.args(["heap", "-p", pid, "-o"]).arg(&output);
    let outcome = run_command(command);
    expect::refused(&outcome, 1, words);
    assert_eq!(entries(folder.path()), Vec::<PathBuf>::new(), "{outcome}");
}

#[test]
fn another_allocator_is_named() {
    if !kernel::required() {
        return;
    }
    let redis = Redis::start();
    let pid = redis.pid().to_string();
    refused(
        &pid,
        &[
            &format!("the heap of PID {pid} (redis-server) was not read"),
            "jemalloc",
        ],
    );
}

#[test]
fn a_process_that_is_gone() {
    if !kernel::required() {
        return;
    }
    let mut child = Command::new("true").spawn().expect("true runs");
    let pid = child.id().to_string();
    child.wait().expect("true ends");
    refused(&pid, &[&pid]);
}

#[test]
fn a_kernel_thread_has_no_heap() {
    if !kernel::required() {
        return;
    }
    let Some(pid) = a_kernel_thread() else {
        eprintln!("SKIPPED: no kernel thread is visible here");
        return;
    };
    refused(&pid, &[&pid, "kernel thread"]);
}

#[test]
fn a_32_bit_process() {
    if !kernel::required() {
        return;
    }
    let folder = folder();
    let Some(process) = thirty_two_bit(folder.path()) else {
        return;
    };
    refused(&process.pid(), &[&process.pid(), "32-bit"]);
}

#[test]
fn wrong_command_lines() {
    let pid = std::process::id().to_string();
    expect::refused(&run(&["heap", "-p", "redis"]), 2, &["digits only"]);
    expect::refused(&run(&["heap"]), 2, &["--pid"]);
    expect::refused(
        &run(&["heap", "-p", &pid, "-o", "x.folded"]),
        2,
        &["x.folded", ".json, .txt"],
    );
    expect::refused(
        &run(&["heap", "-p", &pid, "-o", "/nonexistent/x.json"]),
        1,
        &["/nonexistent/x.json"],
    );
}

/// `report` renders recordings.
#[test]
fn a_picture_is_no_recording() {
    if !kernel::required() {
        return;
    }
    let target = Target::start(&Program::c("keep_blocks"), &[]);
    let folder = folder();
    let json = folder.path().join("x.json");
    let pid = target.pid().to_string();
    let taken = run(&[
        "heap".as_ref(),
        "-p".as_ref(),
        pid.as_ref(),
        "-o".as_ref(),
        json.as_os_str(),
    ]);
    assert!(taken.status.success(), "{taken}");
    let outcome = run(&["report".as_ref(), json.as_os_str()]);
    expect::refused(&outcome, 1, &["x.json", "leakwatch heap"]);
}
