//! A Rust service on two threads whose `open_session` keeps what it makes in a `HashMap`: a `Vec` for the body, a `Box` for
//! the state, a `String` for the name. `search` and `render` make as much a hundred times as often, and give it back. With
//! `--fixed` a session is closed when some hundred more have come. The protocol is that of `cohort.h`.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const THREADS: u64 = 2;
const KEPT_WHEN_FIXED: usize = 100;
/// Sessions that the table has room for from the start: its own growth is no part of the leak.
const ROOM: usize = 28_000;

unsafe extern "C" {
    fn malloc_usable_size(block: *const u8) -> usize;
}

static KEPT: AtomicU64 = AtomicU64::new(0);
static SESSIONS: AtomicU64 = AtomicU64::new(0);
static ANSWERS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static STOPPING: AtomicBool = AtomicBool::new(false);

struct State {
    number: u64,
    scores: [u32; 70],
}

struct Session {
    name: String,
    body: Vec<u8>,
    /// Always there but in the warm-up.
    state: Option<Box<State>>,
}

#[derive(Default)]
struct Worker {
    sessions: HashMap<u64, Session>,
    order: VecDeque<u64>,
    random: u64,
    number: u64,
}

/// Bytes that a block of the arenas costs, its header included.
fn footprint(block: *const u8) -> u64 {
    // SAFETY: the pointer is that of a live block of the system's malloc.
    (unsafe { malloc_usable_size(block) } + 8) as u64
}

impl Session {
    fn bytes(&self) -> u64 {
        let state: *const State = self.state.as_deref().map_or(std::ptr::null(), |state| &raw const *state);
        footprint(self.name.as_ptr()) + footprint(self.body.as_ptr()) + footprint(state.cast())
    }
}

impl Worker {
    fn below(&mut self, most: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % most
    }

    #[inline(never)]
    fn open_session(&mut self, fixed: bool) {
        self.number += 1;
        let number = self.number;
        let length = 600 + self.below(700) as usize;
        let session = Session {
            name: format!("session {number:012} of the service"),
            body: (0..length).map(|at| (at as u64 * 31 + number) as u8).collect(),
            state: Some(Box::new(State { number, scores: [number as u32; 70] })),
        };
        KEPT.fetch_add(session.bytes(), Relaxed);
        SESSIONS.fetch_add(1, Relaxed);
        self.sessions.insert(number, session);
        if fixed {
            self.order.push_back(number);
            if self.order.len() > KEPT_WHEN_FIXED {
                self.close_oldest();
            }
        }
        black_box(());
    }

    #[inline(never)]
    fn close_oldest(&mut self) {
        let closed = self.order.pop_front().and_then(|number| self.sessions.remove(&number).map(|old| (number, old)));
        let Some((number, session)) = closed else { return };
        let state = session.state.as_deref();
        if state.is_none_or(|state| state.number != number || state.scores[69] != number as u32) {
            WRONG.fetch_add(1, Relaxed);
        }
        KEPT.fetch_sub(session.bytes(), Relaxed);
        SESSIONS.fetch_sub(1, Relaxed);
    }

    /// What a request costs beside its memory: some 50 microseconds.
    #[inline(never)]
    fn reckon(&mut self) {
        for _ in 0..20_000 {
            self.below(7);
        }
        black_box(self.random);
    }

    #[inline(never)]
    fn search(&mut self) {
        let count = 20 + self.below(200);
        let mut results: Vec<u64> = (0..count).map(|result| (result * 7919 + self.number) % 65_521).collect();
        results.sort_unstable();
        let names: Vec<String> = results.iter().take(8).map(|result| format!("result number {result:020}")).collect();
        let boxed = Box::new([results[0]; 71]);
        black_box((&names, &boxed));
        ANSWERS.fetch_add(1, Relaxed);
    }

    #[inline(never)]
    fn render(&mut self) {
        let rows = 4 + self.below(20);
        let mut page = String::new();
        for row in 0..rows {
            let cell = "cell ".repeat(1 + self.below(30) as usize);
            let _ = write!(page, "<tr><td>{row}</td><td>{cell}</td></tr>");
        }
        if !page.ends_with("</tr>") {
            WRONG.fetch_add(1, Relaxed);
        }
        black_box(&page);
        ANSWERS.fetch_add(1, Relaxed);
    }
}

fn work(seed: u64, fixed: bool, requests_a_second: u64, go: &std::sync::Barrier, warm: &std::sync::Barrier) {
    let mut worker = Worker { random: 777_777 + seed, number: seed << 32, ..Worker::default() };
    worker.sessions = HashMap::with_capacity(ROOM);
    for _ in 0..2000 {
        worker.search();
        worker.render();
    }
    // The table's memory is there before the window, as are the twin's sessions.
    for number in 0..ROOM as u64 {
        worker.sessions.insert(number, Session { name: String::new(), body: Vec::new(), state: None });
    }
    worker.sessions.clear();
    while fixed && worker.order.len() < KEPT_WHEN_FIXED {
        worker.open_session(fixed);
    }
    warm.wait();
    go.wait();
    let began = Instant::now();
    let mut done = 0;
    while !STOPPING.load(Relaxed) {
        let due = (began.elapsed().as_secs_f64() * requests_a_second as f64 / THREADS as f64) as u64;
        for request in done..due {
            worker.reckon();
            worker.search();
            worker.render();
            // One request in ten logs somebody in.
            if request % 10 == 0 {
                worker.open_session(fixed);
            }
        }
        done = due;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    let value = arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    value.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("stdout is open");
}

fn main() {
    let fixed = std::env::args().any(|argument| argument == "--fixed");
    let requests = number("--requests", 5_000);
    let barriers = || std::sync::Arc::new(std::sync::Barrier::new(THREADS as usize + 1));
    let (warm, go) = (barriers(), barriers());
    let workers: Vec<_> = (0..THREADS)
        .map(|seed| {
            let (warm, go) = (warm.clone(), go.clone());
            std::thread::spawn(move || work(seed, fixed, requests, &go, &warm))
        })
        .collect();
    warm.wait();
    say(&format!("{{\"ready\":true,\"pid\":{}}}", std::process::id()));
    let mut lines = std::io::stdin().lock().lines();
    lines.next();
    go.wait();
    let site = if fixed { "null" } else { "\"open_session\"" };
    while let Some(Ok(_)) = lines.next() {
        let (kept, sessions) = (KEPT.load(Relaxed), SESSIONS.load(Relaxed));
        say(&format!(
            "{{\"site\":{site},\"committed_bytes\":{kept},\"calls\":{sessions},\"answers\":{},\"wrong\":{},\
             \"functions\":{{\"open_session\":{kept}}},\"innocents\":[\"search\",\"render\"]}}",
            ANSWERS.load(Relaxed),
            WRONG.load(Relaxed)
        ));
    }
    STOPPING.store(true, Relaxed);
    for worker in workers {
        worker.join().expect("a worker does not panic");
    }
}
