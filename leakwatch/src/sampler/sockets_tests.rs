use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::super::living::Child;
use super::*;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

const TCP_HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A line of `tcp`, as Linux 3.0 to 6.18 write it.
fn tcp_line(number: u64, state: u64, inode: u64) -> String {
    format!(
        "{number:4}: 0100007F:1F90 0100007F:{number:04X} {state:02X} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
    )
}

/// One of `tcp6`, with an address as long as it gets.
fn tcp6_line(state: u64, inode: u64) -> String {
    format!(
        "   0: 00000000000000000000000001000000:1F90 0000000000000000FFFF00000100007F:A001 {state:02X} 00000000:00000000 02:000A7D5C 00000000     0        0 {inode} 2 ffff8881045f0000 20 4 30 10 -1\n"
    )
}

struct Fake {
    folder: tempfile::TempDir,
    root: ProcRoot,
}

impl Fake {
    fn new(sockets: &[u64], tables: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("42");
        std::fs::create_dir_all(process.join("fd")).unwrap();
        std::fs::create_dir_all(process.join("net")).unwrap();
        for (descriptor, inode) in sockets.iter().enumerate() {
            let link = process.join("fd").join(descriptor.to_string());
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), link).unwrap();
        }
        for (name, text) in tables {
            std::fs::write(process.join("net").join(name), text).unwrap();
        }
        Self {
            root: ProcRoot::new(folder.path()),
            folder,
        }
    }

    fn read(&self) -> Sockets {
        read(&self.root, 42, soon()).unwrap()
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(Path::new(self.folder.path()).join("42").join(file)).unwrap();
    }
}

#[test]
fn each_state_and_nobody_else_s() {
    let states: Vec<u64> = (1..=12).collect();
    let mut tcp = TCP_HEAD.to_owned();
    for &state in &states {
        tcp += &tcp_line(state, state, 100 + state);
        // Another process's, and the kernel's.
        tcp += &tcp_line(state, state, 9000 + state);
        tcp += &tcp_line(state, 6, 0);
    }
    let mut wanted: Vec<u64> = states.iter().map(|state| 100 + state).collect();
    wanted.extend([201, 202, 301, 302, 303, 304, 401, 402, 999]);
    let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 301 /run/a b\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 302 @abstract\n\
        ffff888100000000: 00000003 00000000 00000000 0002 03   303\n\
        00000000a9ca1b2c: 00000002 00000000 00000000 0002 01 304\n"
        .to_owned();
    let udp = format!("{TCP_HEAD}{}{}", tcp_line(9999, 7, 401), tcp_line(8, 1, 402));
    let fake = Fake::new(
        &wanted,
        &[
            ("tcp", tcp),
            (
                "tcp6",
                format!("{TCP_HEAD}{}{}", tcp6_line(1, 201), tcp6_line(8, 202)),
            ),
            ("udp", udp),
            ("unix", unix),
        ],
    );
    let expected = Sockets {
        tcp: Tcp {
            established: 2,
            listen: 1,
            close_wait: 2,
            connecting: 2,
            closing: 4,
            // TIME_WAIT and NEW_SYN_RECV have no owner; here one is made up. And CLOSE.
            other: 3,
        },
        unix: Unix {
            connected: 2,
            listen: 1,
            other: 1,
        },
        udp: Udp {
            connected: 1,
            unconnected: 1,
        },
        unlisted: 1,
    };
    assert_eq!(fake.read(), expected);
    assert_eq!(fake.read().total(), 21);
    assert_eq!(expected.tcp.connections(), 10);
    // Without IPv6, and without Unix sockets.
    fake.remove("net/tcp6");
    fake.remove("net/unix");
    assert_eq!(fake.read().unlisted, 7);
}

#[test]
fn a_path_cannot_feign_the_line_of_a_connection() {
    let forged = "0000000000000000: 00000002 00000000 00010000 0001 01 7 /x\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 55 /y\n"
        .to_owned();
    let tcp = format!("{TCP_HEAD}{}", tcp_line(0, 1, 55));
    let sockets = Fake::new(&[7, 55], &[("tcp", tcp), ("unix", forged)]).read();
    assert_eq!((sockets.tcp.established, sockets.unix.listen), (1, 1));
}

#[test]
fn tables_are_left_once_all_is_found() {
    // A folder in place of the table would fail if it were read.
    let fake = Fake::new(&[55], &[("tcp", format!("{TCP_HEAD}{}", tcp_line(0, 10, 55)))]);
    std::fs::create_dir(fake.folder.path().join("42/net/tcp6")).unwrap();
    assert_eq!(fake.read().tcp.listen, 1);
    let fake = Fake::new(&[], &[]);
    std::fs::create_dir(fake.folder.path().join("42/net/tcp")).unwrap();
    assert_eq!(fake.read(), Sockets::default());
}

#[test]
fn a_deadline_ends_a_long_table() {
    let table: String = (0..3000).map(|number| tcp_line(number, 1, 9)).collect();
    let fake = Fake::new(&[55], &[("tcp", table)]);
    let late = read(&fake.root, 42, Instant::now() - Duration::from_secs(1)).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_child_with_known_sockets() {
    let root = ProcRoot::default();
    let (mut child, address) = Child::role("sockets", |_| {});
    let mut peers: Vec<_> = (0..37).map(|_| TcpStream::connect(&address).unwrap()).collect();
    child.heard();
    let all = Sockets {
        tcp: Tcp {
            established: 37,
            listen: 2,
            ..Tcp::default()
        },
        unix: Unix {
            connected: 2,
            listen: 1,
            other: 0,
        },
        udp: Udp {
            connected: 1,
            unconnected: 1,
        },
        unlisted: 0,
    };
    assert_eq!(read(&root, child.pid(), soon()).unwrap(), all);

    peers.truncate(32);
    let closed = eventually(&root, child.pid(), |sockets| sockets.tcp.close_wait == 5);
    let mut expected = all;
    expected.tcp.close_wait = 5;
    expected.tcp.established = 32;
    assert_eq!(closed, expected);

    // The child ends its half of one of those that are open.
    child.step();
    let shut = eventually(&root, child.pid(), |sockets| sockets.tcp.closing == 1);
    assert_eq!((shut.tcp.established, shut.tcp.connections()), (31, 37));
}

/// A packet of the loopback device takes a moment.
fn eventually(root: &ProcRoot, pid: u32, reached: impl Fn(&Sockets) -> bool) -> Sockets {
    let end = soon();
    loop {
        let sockets = read(root, pid, soon()).unwrap();
        if reached(&sockets) || Instant::now() > end {
            return sockets;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

proptest! {
    #[test]
    fn any_table_leaves_every_socket_counted_once(
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..20),
        real in proptest::collection::vec((0_u64..20, 0_u64..30), 0..20),
    ) {
        let mut table = lines.join(&b'\n');
        table.push(b'\n');
        table.extend(real.iter().flat_map(|(state, inode)| tcp_line(1, *state, *inode).into_bytes()));
        for protocol in [Protocol::Tcp, Protocol::Unix, Protocol::Udp] {
            let mut wanted: HashSet<u64> = (1..20).collect();
            let mut sockets = Sockets::default();
            join(&table[..], protocol, &mut wanted, &mut sockets, soon()).unwrap();
            prop_assert_eq!(sockets.total() + wanted.len() as u64, 19);
        }
    }
}
