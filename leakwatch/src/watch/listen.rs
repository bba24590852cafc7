//! The port that Prometheus scrapes: HTTP/1.1, one page, every request bounded in size and time.
//!
//! hyper reads what strangers send. It was weighed against a parser of own making, which such input finds the holes of.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::sync::oneshot;

use super::exposition::{Format, Snapshot, render};

/// Connections at the same time; more are closed at once.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines.
const HEADERS_MAX: usize = 64;
/// For the head of a request, and for all of it with its answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is served: the last round's state, and its page once one has asked for it.
#[derive(Debug, Default)]
struct Served {
    snapshot: Arc<Snapshot>,
    page: Option<(Format, Bytes)>,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    served: Arc<Mutex<Served>>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds and serves, in a thread of its own.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("cannot start the server of --listen")?;
        let served = Arc::new(Mutex::new(Served::default()));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&served);
        let thread = std::thread::Builder::new()
            .name("listen".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, &shared) => {}
                        _ = stopped => {}
                    }
                });
                // Connections that are open are not waited for.
                runtime.shutdown_background();
            })
            .context("cannot start the server of --listen")?;
        Ok(Self {
            served,
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens; the port is known where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is served from now on.
    pub fn publish(&self, snapshot: Snapshot) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.snapshot = Arc::new(snapshot);
        served.page = None;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, served: &Arc<Mutex<Served>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        super::say("the server of --listen could not be started");
        return;
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // No descriptors are left, most likely: they come back.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let served = Arc::clone(served);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer(&request, &served);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_MAX);
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // What a client did wrong is its own affair.
            let _ = tokio::time::timeout(TIMEOUT, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, served: &Mutex<Served>) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept = request
                .headers()
                .get(ACCEPT)
                .and_then(|value| value.to_str().ok());
            let format = Format::accepted(accept.unwrap_or_default());
            let mut response = Response::new(Full::new(page(served, format)));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
            response
        }
        "/" => plain(StatusCode::OK, "leakwatch: see /metrics\n"),
        _ => plain(StatusCode::NOT_FOUND, "there is /metrics\n"),
    }
}

/// Rendered once a round, however many ask.
fn page(served: &Mutex<Served>, format: Format) -> Bytes {
    let snapshot = {
        let served = served.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((rendered, page)) = &served.page
            && *rendered == format
        {
            return page.clone();
        }
        Arc::clone(&served.snapshot)
    };
    // Without the lock: the watch must not wait for it.
    let page = Bytes::from(render(&snapshot, format));
    let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
    if Arc::ptr_eq(&served.snapshot, &snapshot) {
        served.page = Some((format, page.clone()));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::super::exposition::Own;
    use super::*;

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn start() -> Listener {
        let listener = Listener::start("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.publish(Snapshot {
            own: Own {
                rounds: 17,
                ..Own::default()
            },
            ..Snapshot::default()
        });
        listener
    }

    #[test]
    fn a_scrape_gets_the_last_round() {
        let listener = start();
        let answer = ask(listener.address(), b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(answer.contains("\nleakwatch_watch_rounds_total 17\n"), "{answer}");
        listener.publish(Snapshot {
            own: Own {
                rounds: 18,
                ..Own::default()
            },
            ..Snapshot::default()
        });
        let answer = ask(
            listener.address(),
            b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n",
        );
        assert!(
            answer.contains("leakwatch_watch_rounds_total 18\n") && answer.ends_with("# EOF\n"),
            "{answer}"
        );
    }

    #[test]
    fn other_requests_are_answered_in_brief() {
        let listener = start();
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            (
                "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
                "405",
            ),
            ("rubbish\r\n\r\n", "400"),
        ] {
            let answer = ask(listener.address(), request.as_bytes());
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{request}: {answer}"
            );
        }
        let mut long = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
        long.resize(1 << 20, b'a');
        let answer = ask(listener.address(), &long);
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[test]
    fn idle_strangers_do_not_shut_others_out_for_long() {
        let listener = start();
        let idle: Vec<TcpStream> = (0..2 * CONNECTIONS_MAX)
            .map(|_| TcpStream::connect(listener.address()).unwrap())
            .collect();
        let deadline = Instant::now() + 4 * HEAD_TIMEOUT;
        loop {
            let answer = ask(listener.address(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            if answer.starts_with("HTTP/1.1 200") {
                break;
            }
            assert!(Instant::now() < deadline, "they shut others out");
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(idle);
    }

    #[test]
    fn an_address_that_is_taken_is_told() {
        let listener = start();
        let error = Listener::start(listener.address()).unwrap_err();
        assert!(
            format!("{error:#}").contains("cannot listen on 127.0.0.1:"),
            "{error:#}"
        );
    }
}
