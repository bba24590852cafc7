//! The leaky service itself: worker threads that serve made-up requests.
//!
//! What it does is known to the byte, so that a report can be held against it: `handle_upload` keeps every session's
//! buffer, `handle_search`, `handle_render` and `handle_login` free what they allocate, and the cache of
//! `cache_insert` is full before the service says that it is ready.
//!
//! It speaks JSON lines on stdout: `{"state":"ready",...}` once, and `{"state":"truth",...}` for each line `truth` on
//! stdin and as its last word when stdin ends.

use std::hint::black_box;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

/// What asks for the truth on stdin.
pub const TRUTH_REQUEST: &[u8] = b"truth\n";

const WORKERS: usize = 4;
/// Each worker serves one request per pause; with 4 workers some 800 a second, 20 of them uploads.
const PAUSE: Duration = Duration::from_millis(5);
const UPLOAD_EVERY: u64 = 40;
/// An upload's buffer: above glibc's threshold for a mapping of its own, and never freed, so that the threshold stays.
const UPLOAD_BYTES: usize = 300 * 1024;
/// Uploads beyond this are refused: a demo must not fill a machine.
const LEAKED_BYTES_MAX: u64 = 1 << 30;
/// Every worker's part of the cache.
const CACHE_ENTRIES: usize = 16;
const CACHE_ENTRY_BYTES: usize = 16 * 1024;
/// Honest work before the service is ready: heaps and arenas have then the size that they keep.
const WARM_UP_REQUESTS: u64 = 4 * UPLOAD_EVERY;
/// It ends by itself after this, whatever became of whoever started it.
const LIFETIME: Duration = Duration::from_secs(600);

/// A line of the service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Message {
    Ready { pid: u32 },
    Truth(Truth),
}

/// What the service knows of its own leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Bytes of session buffers kept since it was ready.
    pub leaked_bytes: u64,
    pub leaked_buffers: u64,
    /// Requests of all kinds served since it was ready.
    pub requests: u64,
}

impl Truth {
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one decimal")]
    pub fn leaked_mib(&self) -> f64 {
        self.leaked_bytes as f64 / (1024.0 * 1024.0)
    }
}

/// What all workers share.
#[derive(Debug, Default)]
struct Shared {
    /// Sessions by upload: nobody ever closes one.
    sessions: Mutex<Vec<Session>>,
    leaked_bytes: AtomicU64,
    leaked_buffers: AtomicU64,
    requests: AtomicU64,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Session {
    buffer: Vec<u8>,
}

impl Shared {
    fn truth(&self) -> Truth {
        Truth {
            leaked_bytes: self.leaked_bytes.load(Ordering::SeqCst),
            leaked_buffers: self.leaked_buffers.load(Ordering::SeqCst),
            requests: self.requests.load(Ordering::SeqCst),
        }
    }
}

/// Serves until stdin ends or the time is up.
pub fn run() -> anyhow::Result<()> {
    // What `ps` and the report call it; as /proc/self/exe it would be `exe`.
    let _ = rustix::thread::set_name(c"leaky-service");
    // The pipe on stdin ends with its owner too; this also holds when a worker should hang.
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie the demo's service to the process that started it")?;
    serve(io::stdin(), io::stdout(), LIFETIME)
}

fn serve(
    requests: impl io::Read + Send + 'static,
    mut answers: impl Write,
    lifetime: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + lifetime;
    let shared = Arc::new(Shared::default());
    let warm = Arc::new(Barrier::new(WORKERS + 1));
    let start = Arc::new(Barrier::new(WORKERS + 1));
    let mut workers = Vec::with_capacity(WORKERS);
    for number in 0..WORKERS {
        let (shared, warm, start) = (Arc::clone(&shared), Arc::clone(&warm), Arc::clone(&start));
        workers.push(
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&shared, number as u64, &warm, &start))
                .context("cannot start a worker")?,
        );
    }
    // Lines come through a channel, so that waiting for one ends with the time.
    let (sender, lines) = mpsc::channel();
    thread::Builder::new()
        .name("requests".to_owned())
        .spawn(move || {
            for line in io::BufReader::new(requests).lines() {
                let Ok(line) = line else { break };
                if sender.send(line).is_err() {
                    break;
                }
            }
        })
        .context("cannot start the reader of requests")?;

    warm.wait();
    // Uploads begin with the first request after this, so nothing is leaked before whoever waits can know.
    let ready = say(
        &mut answers,
        &Message::Ready {
            pid: std::process::id(),
        },
    );
    start.wait();
    let mut said = ready;
    while said.is_ok() {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.as_bytes() == TRUTH_REQUEST.trim_ascii_end() => {
                said = say(&mut answers, &Message::Truth(shared.truth()));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    shared.stop.store(true, Ordering::SeqCst);
    for worker in workers {
        let _ = worker.join();
    }
    said?;
    // Counted after the workers have ended: this is the whole truth.
    say(&mut answers, &Message::Truth(shared.truth()))
}

/// One line, written at once.
fn say(answers: &mut impl Write, message: &Message) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    answers
        .write_all(line.as_bytes())
        .and_then(|()| answers.flush())
        .context("nobody listens to the demo's service")
}

fn work(shared: &Shared, number: u64, warm: &Barrier, start: &Barrier) {
    let mut cache = Cache::default();
    for request in 0..WARM_UP_REQUESTS {
        serve_honestly(&mut cache, request);
    }
    warm.wait();
    start.wait();
    // Workers begin apart, so that uploads spread evenly over time.
    let mut request = number * UPLOAD_EVERY / WORKERS as u64;
    while !shared.stop.load(Ordering::SeqCst) {
        serve_request(shared, &mut cache, request);
        shared.requests.fetch_add(1, Ordering::SeqCst);
        request += 1;
        thread::sleep(PAUSE);
    }
}

#[inline(never)]
fn serve_request(shared: &Shared, cache: &mut Cache, request: u64) {
    if request % UPLOAD_EVERY == UPLOAD_EVERY - 1 {
        handle_upload(shared, request);
    } else {
        serve_honestly(cache, request);
    }
}

fn serve_honestly(cache: &mut Cache, request: u64) {
    let answer = match request % 4 {
        0 => handle_search(request),
        1 => handle_render(request),
        2 => handle_login(request),
        _ => cache_insert(cache, request),
    };
    black_box(answer);
}

/// The leak: the session's buffer is kept, and no code path lets it go.
#[inline(never)]
fn handle_upload(shared: &Shared, request: u64) {
    let kept = shared.leaked_bytes.load(Ordering::SeqCst);
    if kept >= LEAKED_BYTES_MAX {
        return;
    }
    // A few sizes, as uploads have; every byte is written.
    let length = UPLOAD_BYTES + (request % 5) as usize * 4096;
    let buffer = vec![filling(request); length];
    let session = Session { buffer };
    let bytes = session.buffer.len() as u64;
    shared
        .sessions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(session);
    shared.leaked_bytes.fetch_add(bytes, Ordering::SeqCst);
    shared.leaked_buffers.fetch_add(1, Ordering::SeqCst);
}

/// Collects some hundred hits and lets them go.
#[inline(never)]
fn handle_search(request: u64) -> usize {
    let hits: Vec<Vec<u8>> = (0..200)
        .map(|hit| vec![filling(request); 64 + hit % 7 * 48])
        .collect();
    black_box(&hits).iter().map(Vec::len).sum()
}

/// Builds a page and lets it go. It stays under 64 KiB: freeing a larger block, mapped by itself, would raise glibc's
/// threshold for mappings and move the leak to the heap.
#[inline(never)]
fn handle_render(request: u64) -> usize {
    let mut page = Vec::with_capacity(48 * 1024);
    while page.len() < 47 * 1024 {
        page.extend_from_slice(&[filling(request); 512]);
    }
    black_box(&page).len()
}

/// Makes a token from a name and lets both go.
#[inline(never)]
fn handle_login(request: u64) -> usize {
    let name = format!("user-{request}");
    let token: Vec<u64> = (0..512)
        .map(|round| {
            request
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(round % 64)
        })
        .collect();
    black_box((&name, &token)).0.len() + token.len()
}

/// A cache with a bound: full after the warm-up, from then on each insertion replaces the oldest entry.
#[derive(Debug, Default)]
struct Cache {
    entries: Vec<Vec<u8>>,
    oldest: usize,
}

#[inline(never)]
fn cache_insert(cache: &mut Cache, request: u64) -> usize {
    let entry = vec![filling(request); CACHE_ENTRY_BYTES];
    if cache.entries.len() < CACHE_ENTRIES {
        cache.entries.push(entry);
    } else if let Some(slot) = cache.entries.get_mut(cache.oldest) {
        *slot = entry;
        cache.oldest = (cache.oldest + 1) % CACHE_ENTRIES;
    }
    black_box(&cache.entries).len()
}

/// A byte that is never 0: zeroed memory would be asked of the kernel untouched.
fn filling(request: u64) -> u8 {
    u8::try_from(request % 255).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(out: &[u8]) -> Vec<Message> {
        String::from_utf8_lossy(out)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn it_gets_ready_tells_its_truth_and_ends_with_its_input() {
        let mut out = Vec::new();
        serve(&b"truth\nother\n"[..], &mut out, LIFETIME).unwrap();
        let messages = messages(&out);
        assert!(matches!(messages[0], Message::Ready { .. }));
        assert!(matches!(messages[1], Message::Truth(_)));
        assert!(matches!(messages[2], Message::Truth(_)));
        assert_eq!(messages.len(), 3);
    }

    #[test]
    fn it_ends_when_its_time_is_up() {
        // A pipe that nobody closes.
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let mut out = Vec::new();
        let began = Instant::now();
        serve(std::fs::File::from(reader), &mut out, Duration::from_millis(700)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
        let messages = messages(&out);
        let Message::Truth(truth) = messages[1] else {
            panic!("{messages:?}");
        };
        assert!(truth.requests > 0);
    }

    #[test]
    fn the_truth_is_what_the_sessions_hold() {
        let shared = Shared::default();
        let mut cache = Cache::default();
        for request in 0..10 * UPLOAD_EVERY {
            serve_request(&shared, &mut cache, request);
        }
        let held: usize = shared
            .sessions
            .lock()
            .unwrap()
            .iter()
            .map(|session| session.buffer.len())
            .sum();
        let truth = shared.truth();
        assert_eq!(truth.leaked_bytes, held as u64);
        assert_eq!(truth.leaked_buffers, 10);
        assert!(held >= 10 * UPLOAD_BYTES);
    }

    #[test]
    fn the_leak_is_bounded() {
        let shared = Shared::default();
        shared.leaked_bytes.store(LEAKED_BYTES_MAX, Ordering::SeqCst);
        handle_upload(&shared, 39);
        assert_eq!(shared.truth().leaked_buffers, 0);
    }

    #[test]
    fn the_cache_is_full_after_the_warm_up_and_only_replaces() {
        let mut cache = Cache::default();
        for request in 0..WARM_UP_REQUESTS {
            serve_honestly(&mut cache, request);
        }
        assert_eq!(cache.entries.len(), CACHE_ENTRIES);
        for request in 0..100 {
            cache_insert(&mut cache, request);
        }
        assert_eq!(cache.entries.len(), CACHE_ENTRIES);
    }
}
