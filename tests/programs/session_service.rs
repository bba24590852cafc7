//! A small Rust service: requests of three kinds on two threads. `retain_session` keeps the `Vec` of each session,
//! the others give theirs back. With `--honest` it keeps none. The protocol is that of `truth.h`.

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::Duration;

const SESSION_BYTES: usize = 300 * 1024;

unsafe extern "C" {
    fn mallopt(parameter: i32, value: i32) -> i32;
    fn malloc_usable_size(block: *const u8) -> usize;
}

/// glibc's `M_MMAP_THRESHOLD`: once set it no longer moves, so that each large `Vec` is a mapping of its own.
const MMAP_THRESHOLD: i32 = -3;

struct Service {
    sessions: Vec<Vec<u8>>,
    honest: bool,
    committed: usize,
}

trait Handler {
    fn handle(&self, service: &mut Service, request: usize);
}

struct Session;
struct Search;

impl Handler for Session {
    #[inline(never)]
    fn handle(&self, service: &mut Service, request: usize) {
        retain_session(service, request);
        black_box(());
    }
}

impl Handler for Search {
    #[inline(never)]
    fn handle(&self, _service: &mut Service, request: usize) {
        rank_results(request);
        black_box(());
    }
}

#[inline(never)]
fn retain_session(service: &mut Service, request: usize) {
    let mut state: Vec<u8> = Vec::with_capacity(SESSION_BYTES);
    state.resize(SESSION_BYTES, u8::try_from(request % 251).unwrap_or(0));
    if service.honest {
        drop(black_box(state));
    } else {
        // SAFETY: the pointer is that of a live block of the system's malloc.
        let usable = unsafe { malloc_usable_size(state.as_ptr()) };
        service.committed += (usable + 16).div_ceil(4096) * 4096;
        service.sessions.push(state);
    }
    black_box(());
}

#[inline(never)]
fn rank_results(request: usize) {
    let mut results: Vec<u64> = (0..60_000).map(|result| (result * 7919 + request as u64) % 65_521).collect();
    results.sort_unstable();
    black_box(&results);
}

fn number(name: &str, otherwise: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let value = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    value.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("stdout is open");
}

fn main() {
    // SAFETY: called before any other thread exists.
    unsafe { mallopt(MMAP_THRESHOLD, 128 * 1024) };
    let honest = std::env::args().any(|argument| argument == "--honest");
    let (steps, pause) = (number("--steps", 40), number("--pause-ms", 20));
    let mut service = Service { sessions: Vec::with_capacity(steps), honest, committed: 0 };
    let (requests, queue) = std::sync::mpsc::sync_channel::<usize>(0);
    let (answers, answered) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            let handlers: [&dyn Handler; 3] = [&Search, &Session, &Search];
            for request in queue {
                for handler in handlers {
                    handler.handle(&mut service, request);
                }
            }
            answers.send(service).expect("main waits for it");
        })
        .expect("a thread can be spawned");

    say(&format!("{{\"ready\":true,\"pid\":{}}}", std::process::id()));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin is open");
    for request in 0..steps {
        requests.send(request).expect("the worker runs");
        std::thread::sleep(Duration::from_millis(pause as u64));
    }
    drop(requests);
    let service = answered.recv().expect("the worker answers");
    let site = if honest { "null" } else { "\"retain_session\"" };
    say(&format!(
        "{{\"site\":{site},\"committed_bytes\":{},\"calls\":{},\"innocents\":[\"rank_results\"]}}",
        service.committed,
        service.sessions.len()
    ));
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    drop(service);
}
