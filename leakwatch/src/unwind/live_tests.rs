//! Real stacks of real processes, unwound to their roots and named.
//!
//! Only the test traces its children, to have the registers that the kernel side would send.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use leakwatch_ebpf::wire::{REGISTERS_BYTES, flags};

use super::*;
use crate::sampler::maps::Mapping;
use crate::symbolize::{SymbolizedFrame, Symbolizer};

/// Four threads asleep in `deepest`, called through `middle` and `outermost`; the main thread in pthread_join.
const SLEEPERS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <time.h>
volatile int depth;
static inline __attribute__((always_inline)) int nap(void) {
    struct timespec t = {1000, 0};
    return nanosleep(&t, 0) + depth;
}
__attribute__((noinline)) int deepest(int n) { volatile char room[300]; room[n] = 1; return nap() + room[n] + depth; }
__attribute__((noinline)) int middle(int n) { volatile long room[40]; room[n] = n; return deepest(n + 1) + (int)room[n]; }
__attribute__((noinline)) int outermost(int n) { return middle(n) + depth; }
static void *worker(void *p) { outermost(1); return p; }
int main(void) {
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, worker, 0);
    for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
    return 0;
}
"#;

pub(crate) struct Target(Child);

impl Target {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn mappings(&self) -> Vec<Mapping> {
        let text = fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        text.lines().map(mapping).collect()
    }

    /// The tasks, once `count` of them are blocked in one of these system calls.
    pub(super) fn asleep(&self, count: usize, calls: &[libc::c_long]) -> Vec<Task> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let tasks: Vec<_> = fs::read_dir(format!("/proc/{}/task", self.pid()))
                .unwrap()
                .filter_map(|entry| Task::asleep(&entry.ok()?.path(), calls))
                .collect();
            if tasks.len() == count {
                return tasks;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {count} tasks sleep",
                tasks.len()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn stack(&self, task: &Task) -> Vec<u8> {
        let end = self
            .mappings()
            .into_iter()
            .find(|it| it.range.contains(&task.sp))
            .unwrap()
            .range
            .end;
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut stack = vec![0; usize::try_from((end - task.sp).min(256 << 10)).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut stack, task.sp).unwrap();
        stack
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Task {
    pub(super) sp: u64,
    pub(super) registers: Vec<u8>,
}

impl Task {
    /// Of `/proc/PID/task/TID`, when it is blocked in one of these system calls.
    fn asleep(directory: &Path, calls: &[libc::c_long]) -> Option<Self> {
        // "230 0x0 0x0 0x7ffd… 0x0 0x0 0x0 0x7ffd…(SP) 0x7f12…(PC)"
        let text = fs::read_to_string(directory.join("syscall")).ok()?;
        let words: Vec<_> = text.split_whitespace().collect();
        let hex = |word: &&str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
        let sp = hex(words.get(7)?)?;
        // A sleep that was looked into goes on under another number.
        let call = words[0].parse().ok()?;
        let resumed = call == libc::SYS_restart_syscall && calls.contains(&SLEEP[0]);
        if !resumed && !calls.contains(&call) {
            return None;
        }
        let tid = directory.file_name()?.to_str()?.parse().ok()?;
        Some(Self {
            sp,
            registers: registers_of(tid),
        })
    }
}

/// The registers of a blocked thread, laid out as the kernel lays them out: `user_regs_struct` begins like `pt_regs`.
fn registers_of(tid: libc::pid_t) -> Vec<u8> {
    let mut registers = vec![0_u8; REGISTERS_BYTES];
    let mut vector = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: registers.len(),
    };
    let null = std::ptr::null_mut::<libc::c_void>();
    let mut status = 0;
    // SAFETY: the thread belongs to a child of this test; the vector is a writable buffer of its length.
    unsafe {
        assert_eq!(
            libc::ptrace(libc::PTRACE_SEIZE, tid, null, null),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, null, null), 0);
        assert_eq!(libc::waitpid(tid, &raw mut status, libc::__WALL), tid);
        let got = libc::ptrace(libc::PTRACE_GETREGSET, tid, libc::NT_PRSTATUS, &raw mut vector);
        assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::ptrace(libc::PTRACE_DETACH, tid, null, null), 0);
    }
    if cfg!(target_arch = "x86_64") {
        // Segment bases and what follows are no part of pt_regs.
        registers[21 * 8..].fill(0);
    }
    registers
}

fn mapping(line: &str) -> Mapping {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        word.to_owned()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let [range, permissions, offset, device, inode] = std::array::from_fn(|_| word());
    let (start, end) = range.split_once('-').unwrap();
    let (major, minor) = device.split_once(':').unwrap();
    Mapping {
        range: Range {
            start: hex(start),
            end: hex(end),
        },
        readable: permissions.contains('r'),
        writable: permissions.contains('w'),
        executable: permissions.contains('x'),
        shared: permissions.contains('s'),
        offset: hex(&offset),
        device: (
            u32::from_str_radix(major, 16).unwrap(),
            u32::from_str_radix(minor, 16).unwrap(),
        ),
        inode: inode.parse().unwrap(),
        path: (!rest.is_empty()).then(|| rest.into()),
    }
}

pub(crate) fn compiled(directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    compiled_from(SLEEPERS, directory, name, arguments)
}

pub(super) fn compiled_from(code: &str, directory: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let source = directory.join("sleepers.c");
    fs::write(&source, code).unwrap();
    let program = directory.join(name);
    let done = Command::new("cc")
        .args(["-O2", "-fomit-frame-pointer", "-pthread", "-o"])
        .args([&program, &source])
        .args(arguments)
        .status()
        .unwrap();
    assert!(done.success());
    program
}

pub(crate) const SLEEP: [libc::c_long; 2] = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];

/// The stacks of all sleeping tasks of a program, each at its root, and what is needed to name them.
pub(crate) fn sleeping_stacks(
    target: &Target,
    count: usize,
    calls: &[libc::c_long],
) -> (Unwinder, Vec<StackId>) {
    let tasks = target.asleep(count, calls);
    let mut unwinder = Unwinder::new();
    unwinder.refresh(target.pid(), &target.mappings());
    let ids = tasks
        .iter()
        .map(|task| {
            // "Capped": only the unwind information can tell that the root was reached.
            let stack = target.stack(task);
            let snapshot = Snapshot {
                registers: &task.registers,
                stack_pointer: task.sp,
                stack: &stack,
                flags: flags::STACK | flags::STACK_CAPPED,
            };
            unwinder.unwind(target.pid(), &snapshot)
        })
        .collect();
    (unwinder, ids)
}

pub(crate) fn named(unwinder: &Unwinder, symbolizer: &mut Symbolizer, id: StackId) -> Vec<SymbolizedFrame> {
    let stack = unwinder.stack(id).unwrap();
    let frames = symbolizer.symbolize(unwinder.modules(), stack);
    assert_eq!(stack.ending, Ending::Root, "{frames:#?}");
    frames
}

pub(crate) fn functions(frames: &[SymbolizedFrame]) -> Vec<&str> {
    frames
        .iter()
        .map(|frame| frame.function.as_deref().unwrap_or("?"))
        .collect()
}

#[track_caller]
pub(super) fn assert_in_order(functions: &[&str], wanted: &[&str]) {
    let mut rest = functions.iter();
    for name in wanted {
        assert!(
            rest.any(|function| function == name),
            "{name} is not in its place in {functions:?}"
        );
    }
}

#[test]
fn threads_of_a_c_program() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "sleepers", &["-g"]);
    let target = Target::spawn(&mut Command::new(&program));
    let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
    // Four threads, one stack.
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_eq!(unwinder.stacks().len(), 1);
    let losses = unwinder.losses();
    assert_eq!((losses.stacks, losses.truncated.len(), losses.panics), (4, 0, 0));
    assert!(losses.modules_unreadable.is_empty(), "{losses:?}");

    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert_in_order(
        &functions(&frames),
        &["nap", "deepest", "middle", "outermost", "worker"],
    );
    let nap = frames
        .iter()
        .position(|it| it.function.as_deref() == Some("nap"))
        .unwrap();
    assert!(frames[nap].inlined && !frames[nap + 1].inlined);
    assert_eq!(frames[nap].offset, frames[nap + 1].offset);
    assert!(frames[nap].file.as_deref().unwrap().ends_with("sleepers.c"));
    assert_eq!((frames[nap].line, frames[nap + 1].line), (Some(8), Some(10)));
    assert_eq!(frames[nap].module.as_deref(), program.to_str());
    assert!(frames[nap].build_id.as_deref().is_some_and(|id| id.len() >= 16));
    let label = crate::diagnose::culprit::culprit(&frames)
        .map(|index| crate::diagnose::culprit::frame_label(&frames[index]));
    assert_eq!(label.as_deref(), Some("nap"));
    drop(target);

    // The main thread waits in pthread_join.
    let target = Target::spawn(&mut Command::new(&program));
    target.asleep(4, &SLEEP);
    let (unwinder, ids) = sleeping_stacks(&target, 1, &[libc::SYS_futex]);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert_in_order(&functions(&frames), &["main", "_start"]);
}

#[test]
fn stripped_static_and_headerless_variants() {
    let directory = tempfile::tempdir().unwrap();
    let stripped = compiled(directory.path(), "stripped", &["-s"]);
    let fixed = compiled(directory.path(), "fixed", &["-static"]);
    let both = compiled(directory.path(), "both", &["-static", "-s"]);
    let not_pie = compiled(directory.path(), "notpie", &["-no-pie", "-s"]);
    // Without section headers, as sstrip leaves a file: e_shoff, e_shnum and e_shstrndx are 0.
    let headerless = directory.path().join("headerless");
    let mut bytes = fs::read(&stripped).unwrap();
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    fs::write(&headerless, bytes).unwrap();
    fs::set_permissions(&headerless, fs::metadata(&stripped).unwrap().permissions()).unwrap();
    for program in [stripped, fixed, both, not_pie, headerless] {
        let target = Target::spawn(&mut Command::new(&program));
        let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
        let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
        let own: Vec<_> = frames
            .iter()
            .filter(|it| it.module.as_deref() == program.to_str())
            .collect();
        assert!(own.len() >= 4, "{program:?} {frames:#?}");
        if program.ends_with("fixed") {
            assert_in_order(&functions(&frames), &["deepest", "middle", "outermost", "worker"]);
        } else {
            // Stripped: no name is better than the name of some neighbour.
            assert!(own.iter().all(|it| it.function.is_none()), "{program:?} {own:#?}");
            assert!(own.iter().all(|it| it.offset < 16 << 20), "{program:?} {own:#?}");
        }
    }
}

#[test]
fn code_without_unwind_information() {
    let directory = tempfile::tempdir().unwrap();
    let no_tables = [
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-fno-optimize-sibling-calls",
    ];
    let chained = compiled(
        directory.path(),
        "chained",
        &[
            &no_tables[..],
            &["-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"],
        ]
        .concat(),
    );
    let target = Target::spawn(&mut Command::new(&chained));
    let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert_in_order(
        &functions(&frames),
        &["deepest", "middle", "outermost", "worker", "start_thread"],
    );
    drop(target);

    // Neither tables nor frame pointers: the instructions tell, where they can be read.
    let blind = compiled(directory.path(), "blind", &no_tables);
    let target = Target::spawn(&mut Command::new(&blind));
    let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
    if cfg!(target_arch = "x86_64") {
        let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
        let names = functions(&frames);
        let start = names.iter().position(|it| *it == "deepest").unwrap();
        assert_eq!(
            names[start..start + 4],
            ["deepest", "middle", "outermost", "worker"],
            "{names:?}"
        );
        assert!(!unwinder.is_stale(target.pid()));
        return;
    }
    // Elsewhere the first own function is known, its caller is not, and none is made up.
    let stack = unwinder.stack(ids[0]).unwrap();
    assert_eq!(stack.ending, Ending::Truncated(Truncation::NoUnwindInformation));
    let frames = Symbolizer::new().symbolize(unwinder.modules(), stack);
    assert_eq!(
        functions(&frames).last(),
        Some(&"deepest"),
        "{:?}",
        functions(&frames)
    );
    assert!(unwinder.is_stale(target.pid()));
    assert_eq!(unwinder.losses().truncated[&Truncation::NoUnwindInformation], 4);
}

#[test]
fn python_asleep() {
    let target =
        Target::spawn(Command::new("python3").args(["-c", "import time\ndef f(): time.sleep(1000)\nf()"]));
    let calls = [SLEEP.as_slice(), &[libc::SYS_select, libc::SYS_pselect6]].concat();
    let (unwinder, ids) = sleeping_stacks(&target, 1, &calls);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert!(frames.len() > 8, "{frames:#?}");
    assert_in_order(&functions(&frames), &["Py_BytesMain", "_start"]);
}

#[test]
fn names_outlive_the_file_and_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "gone", &[]);
    let target = Target::spawn(&mut Command::new(&program));
    target.asleep(4, &SLEEP);
    fs::remove_file(&program).unwrap();
    fs::write(&program, "another file stands here now").unwrap();
    let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
    drop(target);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert_in_order(&functions(&frames), &["deepest", "middle", "outermost"]);
    assert!(
        frames.iter().any(|it| it.module.as_deref() == program.to_str()),
        "{frames:#?}"
    );
}

#[test]
fn a_truncated_snapshot_is_capped_and_a_short_one_no_root() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "sleepers", &[]);
    let target = Target::spawn(&mut Command::new(&program));
    let tasks = target.asleep(4, &SLEEP);
    let mut unwinder = Unwinder::new();
    unwinder.refresh(target.pid(), &target.mappings());
    let stack = target.stack(&tasks[0]);
    let mut cut = |bytes: usize, flags| {
        let snapshot = Snapshot {
            registers: &tasks[0].registers,
            stack_pointer: tasks[0].sp,
            stack: &stack[..bytes],
            flags,
        };
        let id = unwinder.unwind(target.pid(), &snapshot);
        unwinder.stack(id).unwrap().clone()
    };
    let short = cut(256, flags::STACK_CAPPED);
    assert_eq!(short.ending, Ending::Truncated(Truncation::SnapshotCapped));
    assert!(!short.frames.is_empty());
    assert_eq!(
        cut(256, flags::STACK_UNREADABLE).ending,
        Ending::Truncated(Truncation::SnapshotUnreadable)
    );
    let mut unknown = Unwinder::new();
    let id = unknown.without_registers();
    assert_eq!(
        unknown.stack(id).unwrap().ending,
        Ending::Truncated(Truncation::NoRegisters)
    );
}

#[test]
fn code_is_followed_through_fork_refresh_and_exit() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "sleepers", &[]);
    let target = Target::spawn(&mut Command::new(&program));
    let tasks = target.asleep(4, &SLEEP);
    let stack = target.stack(&tasks[0]);
    let snapshot = Snapshot {
        registers: &tasks[0].registers,
        stack_pointer: tasks[0].sp,
        stack: &stack,
        flags: flags::STACK_CAPPED,
    };
    let mappings = target.mappings();
    let mut unwinder = Unwinder::new();
    let pid = target.pid();
    unwinder.refresh(pid, &mappings);
    let modules = unwinder.modules().iter().count();
    let id = unwinder.unwind(pid, &snapshot);
    assert_eq!(unwinder.stack(id).unwrap().ending, Ending::Root);
    assert!(!unwinder.is_stale(pid));

    // A child at the same addresses has the same stack.
    unwinder.fork(pid, 4_000_000);
    assert_eq!(unwinder.unwind(4_000_000, &snapshot), id);

    // libc unmapped: its code is no code any more, and the process wants a refresh.
    let is_libc = |it: &&Mapping| {
        it.path
            .as_ref()
            .is_some_and(|path| path.to_string_lossy().contains("libc.so"))
    };
    let without: Vec<_> = mappings.iter().filter(|it| !is_libc(it)).cloned().collect();
    unwinder.refresh(pid, &without);
    let lost = unwinder.unwind(pid, &snapshot);
    assert!(matches!(
        unwinder.stack(lost).unwrap().frames[..],
        [Frame::Anonymous { .. }, ..]
    ));
    assert_ne!(unwinder.stack(lost).unwrap().ending, Ending::Root);
    assert!(unwinder.is_stale(pid));
    // Mapped again: the same modules, nothing new.
    unwinder.refresh(pid, &mappings);
    assert_eq!(unwinder.unwind(pid, &snapshot), id);
    assert_eq!(unwinder.modules().iter().count(), modules);

    unwinder.forget(pid);
    unwinder.unwind(pid, &snapshot);
    assert_eq!(unwinder.losses().unknown_process, 1);
    assert_eq!(unwinder.unwind(4_000_000, &snapshot), id);
}

#[test]
fn the_vdso_is_a_module_with_names() {
    use object::{Object, ObjectSymbol};
    let target = Target::spawn(Command::new("sleep").arg("1000"));
    target.asleep(1, &SLEEP);
    let mut unwinder = Unwinder::new();
    unwinder.refresh(target.pid(), &target.mappings());
    let (id, vdso) = unwinder
        .modules()
        .iter()
        .find(|(_, it)| &*it.path == "[vdso]")
        .unwrap();
    assert_eq!(vdso.unreadable(), None);
    let modules::Content::Memory(bytes) = &vdso.content else {
        panic!("{:?}", vdso.content)
    };
    let file = object::File::parse(&bytes[..]).unwrap();
    let wanted = if cfg!(target_arch = "x86_64") {
        "__vdso_clock_gettime"
    } else {
        "__kernel_clock_gettime"
    };
    let symbol = file.dynamic_symbols().find(|it| it.name() == Ok(wanted)).unwrap();
    let stack = Stack {
        frames: vec![Frame::Module {
            module: id,
            offset: symbol.address() + 1,
        }],
        ending: Ending::Root,
    };
    let frames = Symbolizer::new().symbolize(unwinder.modules(), &stack);
    assert!(
        frames[0].function.as_deref().unwrap().contains("clock_gettime"),
        "{frames:?}"
    );
}

/// Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_per_stack() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "sleepers", &[]);
    time(&program, 4, 1_000_000);
    let framed = compiled(directory.path(), "framed", &["-fno-omit-frame-pointer"]);
    time(&framed, 4, 1_000_000);
}

pub(super) fn time(program: &Path, tasks: usize, rounds: u32) {
    let target = Target::spawn(&mut Command::new(program));
    let tasks = target.asleep(tasks, &SLEEP);
    let stack = target.stack(&tasks[0]);
    let snapshot = Snapshot {
        registers: &tasks[0].registers,
        stack_pointer: tasks[0].sp,
        stack: &stack,
        flags: flags::STACK_CAPPED,
    };
    let mut unwinder = Unwinder::new();
    unwinder.refresh(target.pid(), &target.mappings());
    let id = unwinder.unwind(target.pid(), &snapshot);
    let depth = unwinder.stack(id).unwrap().frames.len();
    let started = Instant::now();
    for _ in 0..rounds {
        unwinder.unwind(target.pid(), &snapshot);
    }
    let each = started.elapsed() / rounds;
    println!("{}: {depth} frames, {each:?} a stack", program.display());
}
