//! Processes for tests to look at, each with one known truth. They end when their standard input closes, and so with the
//! test, however that ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{self, ChildStdout, Command, Stdio};

use super::ProcRoot;
use super::sample::{Parts, Sampler};

const ROLE: &str = "LEAKWATCH_TEST_ROLE";

pub(super) struct Child {
    process: process::Child,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// A shell that runs `setup` and then waits; a step does nothing.
    pub fn shell(setup: &str) -> Self {
        let script = format!("{setup}\necho ready; while read line; do echo ready; done");
        let (child, _) = Self::start(Command::new("sh").args(["-c", &script]));
        child
    }

    /// This very test binary, in a role of [`child_of_a_test`]; with what it says when it is ready.
    pub fn role(role: &str, change: impl FnOnce(&mut Command)) -> (Self, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg("sampler::living::child_of_a_test")
            .env(ROLE, role);
        change(&mut command);
        Self::start(&mut command)
    }

    fn start(command: &mut Command) -> (Self, String) {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut child = Self { process, output };
        let said = child.heard();
        (child, said)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets it take its next step, and waits for the end of that.
    pub fn step(&mut self) -> String {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.heard()
    }

    /// Ends it, and leaves it a zombie.
    pub fn end(&mut self) {
        drop(self.process.stdin.take());
        // Its end closes the pipe; the process is a zombie at once or in a moment.
        let _ = self.output.read_to_end(&mut Vec::new());
    }

    pub fn reap(&mut self) {
        self.end();
        self.process.wait().unwrap();
    }

    pub fn heard(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "it ended before it was ready"
            );
            // The test harness writes to the same output, in part before the same newline.
            if let Some((_, said)) = line.split_once("ready") {
                return said.trim().to_owned();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.reap();
    }
}

#[test]
#[ignore = "the child of other tests"]
fn child_of_a_test() {
    match std::env::var(ROLE).as_deref() {
        Ok("sockets") => sockets(),
        Ok("growth") => growth(),
        Ok("stranger") => stranger(),
        Ok("idle sockets") => idle_sockets(),
        _ => {}
    }
}

fn ready(what: impl std::fmt::Display) {
    println!("\nready {what}");
    std::io::stdout().flush().unwrap();
}

fn wait() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Accepts 37 connections, and holds seven other sockets.
fn sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = [
        TcpListener::bind("127.0.0.1:0").unwrap(),
        listener.try_clone().unwrap(),
    ];
    let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect(unconnected.local_addr().unwrap()).unwrap();
    let pair = UnixStream::pair().unwrap();
    let name = SocketAddr::from_abstract_name(format!("leakwatch {}\n0", process::id())).unwrap();
    let unix = UnixListener::bind_addr(&name).unwrap();
    ready(listener.local_addr().unwrap());
    let accepted: Vec<_> = (0..37).map(|_| listener.accept().unwrap().0).collect();
    let again = accepted[0].try_clone().unwrap();
    ready("");
    wait();
    accepted[1].shutdown(std::net::Shutdown::Write).unwrap();
    ready("");
    wait();
    drop((listeners, pair, unix, accepted, again));
}

/// At a step: 64 MiB, 21 descriptors and 11 threads.
fn growth() {
    ready("");
    wait();
    let memory = vec![1_u8; 64 << 20];
    let files: Vec<_> = (0..21).map(|_| File::open("/dev/null").unwrap()).collect();
    let barrier = std::sync::Barrier::new(12);
    std::thread::scope(|scope| {
        for _ in 0..11 {
            scope.spawn(|| {
                barrier.wait();
                barrier.wait();
            });
        }
        barrier.wait();
        ready("");
        wait();
        barrier.wait();
    });
    drop((std::hint::black_box(memory), files));
}

/// Samples its parent, and says what it could not read.
fn stranger() {
    let mut sampler = Sampler::new(ProcRoot::default());
    let parent = std::os::unix::process::parent_id();
    let sample = sampler
        .subject(parent)
        .and_then(|mut subject| sampler.sample(&mut subject, Parts::ALL))
        .unwrap();
    ready(format!(
        "{:?} {:?} {}",
        sample.rollup.err(),
        sample.sockets.err(),
        sample.totals.rss.is_some()
    ));
    wait();
}

/// Both ends of as many connections as it may have, up to 7,000.
fn idle_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held: Vec<_> = (0..7000)
        .map_while(|_| {
            let near = TcpStream::connect(address).ok()?;
            Some((near, listener.accept().ok()?))
        })
        .collect();
    ready(2 * held.len());
    wait();
}
