//! A process's own sockets by their state: its descriptors joined with the tables of its network namespace.

use std::io::{self, BufReader};
use std::time::{Duration, Instant};

use super::descriptors::{self, OwnSockets};
use super::lines::{for_each_line, number, word};
use super::{ProcRoot, named};

/// Sockets of one process, by what they are. A socket with several descriptors counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// TCP connections that are open at both ends.
    pub tcp_established: u64,
    /// TCP sockets that wait for connections.
    pub tcp_listening: u64,
    /// TCP connections that the peer has closed and this process has not: they stay until it does.
    pub tcp_close_wait: u64,
    /// TCP sockets that come or go: SYN sent or received, FIN-WAIT, closing, last ACK.
    pub tcp_other: u64,
    pub udp: u64,
    /// Unix stream and packet sockets with a peer.
    pub unix_connected: u64,
    pub unix_listening: u64,
    /// Unix sockets without a peer, datagram ones among them.
    pub unix_other: u64,
    /// Of other families, or not bound: raw, netlink, packet, TCP that was neither connected nor bound.
    pub other: u64,
    /// Descriptors that were not looked at: there were too many.
    pub beyond: u64,
}

impl Sockets {
    /// What a server has of each client: TCP connections that are or were open, and connected Unix sockets.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.tcp_established + self.tcp_close_wait + self.unix_connected
    }
}

/// A reading, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketsReading {
    pub sockets: Sockets,
    pub took: Duration,
}

/// Counts the sockets of a process. The tables hold every socket of its network namespace, so that this costs by the
/// host's sockets as well as by the process's descriptors: it is for [`super::cost`] to say when it may be done.
///
/// # Errors
///
/// When its descriptors cannot be read. A table that is not there (no IPv6, say) has no sockets.
pub fn read(root: &ProcRoot, pid: u32) -> io::Result<SocketsReading> {
    let began = Instant::now();
    let own = descriptors::sockets(root, pid)?;
    let mut sockets = Sockets {
        beyond: own.beyond,
        ..Sockets::default()
    };
    let mut found = 0_u64;
    if !own.inodes.is_empty() {
        for (table, kind) in TABLES {
            let path = root.of(pid, table);
            let Ok(file) = root.open(pid, table) else { continue };
            found += count(BufReader::with_capacity(64 << 10, file), kind, &own, &mut sockets)
                .map_err(|error| named(&path, &error))?;
        }
    }
    sockets.other = (own.inodes.len() as u64).saturating_sub(found);
    Ok(SocketsReading {
        sockets,
        took: began.elapsed(),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Tcp,
    Udp,
    Unix,
}

const TABLES: [(&str, Table); 5] = [
    ("net/tcp", Table::Tcp),
    ("net/tcp6", Table::Tcp),
    ("net/udp", Table::Udp),
    ("net/udp6", Table::Udp),
    ("net/unix", Table::Unix),
];

/// Adds the process's own of one table; how many there were.
fn count(reader: impl io::BufRead, table: Table, own: &OwnSockets, sockets: &mut Sockets) -> io::Result<u64> {
    let mut found = 0;
    let mut is_head = true;
    for_each_line(reader, |line| {
        if std::mem::take(&mut is_head) {
            return true;
        }
        // A line that is not understood is nobody's.
        if let Some((inode, state)) = parse(line, table)
            && own.inodes.contains(&inode)
        {
            found += 1;
            *field(table, state, sockets) += 1;
        }
        true
    })?;
    Ok(found)
}

/// What a line says of its socket, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Number(u64),
    /// Of a Unix socket: its state, and whether it accepts connections.
    Unix(u64, bool),
}

/// The inode and the state.
fn parse(line: &[u8], table: Table) -> Option<(u64, State)> {
    /// `__SO_ACCEPTCON`.
    const ACCEPTS: u64 = 1 << 16;
    let mut rest = line;
    let mut next = || {
        let (found, after) = word(rest);
        rest = after;
        (!found.is_empty()).then_some(found)
    };
    match table {
        // sl local remote st queues timer retransmits uid timeout inode
        Table::Tcp | Table::Udp => {
            let state = number(
                {
                    next()?;
                    next()?;
                    next()?;
                    next()?
                },
                16,
            )?;
            for _ in 0..5 {
                next()?;
            }
            Some((number(next()?, 10)?, State::Number(state)))
        }
        // num refcount protocol flags type st inode path
        Table::Unix => {
            next()?;
            next()?;
            next()?;
            let flags = number(next()?, 16)?;
            next()?;
            let state = number(next()?, 16)?;
            Some((number(next()?, 10)?, State::Unix(state, flags & ACCEPTS != 0)))
        }
    }
}

fn field(table: Table, state: State, sockets: &mut Sockets) -> &mut u64 {
    // Of `tcp_states.h`, and of `net.h` for Unix sockets.
    const ESTABLISHED: u64 = 1;
    const CLOSE_WAIT: u64 = 8;
    const LISTEN: u64 = 10;
    const CONNECTED: u64 = 3;
    match (table, state) {
        (Table::Udp, _) => &mut sockets.udp,
        (_, State::Number(ESTABLISHED)) => &mut sockets.tcp_established,
        (_, State::Number(CLOSE_WAIT)) => &mut sockets.tcp_close_wait,
        (_, State::Number(LISTEN)) => &mut sockets.tcp_listening,
        (_, State::Number(_)) => &mut sockets.tcp_other,
        (_, State::Unix(_, true)) => &mut sockets.unix_listening,
        (_, State::Unix(CONNECTED, false)) => &mut sockets.unix_connected,
        (_, State::Unix(..)) => &mut sockets.unix_other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::*;

    /// Each connection and socket of this very process is counted as what it is.
    #[test]
    fn the_sockets_of_this_process() {
        let root = ProcRoot::default();
        let own = std::process::id();
        // Other tests of this process open and close some meanwhile: the difference is at least what is made here, and a
        // second reading without it is less by as many.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0");
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<TcpStream> = (0..37).map(|_| TcpStream::connect(address).unwrap()).collect();
        let servers: Vec<TcpStream> = (0..37).map(|_| listener.accept().unwrap().0).collect();
        // These five are closed by their clients alone.
        clients.truncate(32);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("listening\n 0 x")).unwrap();
        let pair = UnixStream::pair().unwrap();
        let datagram = UnixDatagram::unbound().unwrap();
        let with = read(&root, own).unwrap().sockets;
        assert!(with.tcp_established >= 64, "{with:?}");
        assert!(with.tcp_close_wait >= 5, "{with:?}");
        assert!(with.tcp_listening >= 1 + u64::from(six.is_ok()), "{with:?}");
        assert!(with.udp >= 1 && with.unix_listening >= 1, "{with:?}");
        assert!(with.unix_connected >= 2 && with.unix_other >= 1, "{with:?}");
        drop((clients, servers, udp, unix, pair, datagram, listener, six));
        let without = read(&root, own).unwrap().sockets;
        assert!(
            without.connections() + 60 < with.connections(),
            "{with:?} {without:?}"
        );
    }

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0\n   1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 20 4 30 10 -1\n   2: 0100007F:1F90 0100007F:A002 08 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 20 4 30 10 -1\n   3: 0100007F:1F90 0100007F:A004 01 00000000:00000000 00:00000000 00000000     0        0 99 1 0000000000000000 20 4 30 10 -1\n   4: 0100007F:1F90 0100007F:A006 06 00000000:00000000 03:00000176 00000000     0        0 0 3 0000000000000000\n   5: 0100007F:1F90 0100007F:A008 04 00000000:00000000 00:00000000 00000000     0        0 14 1 0000000000000000 20 4 30 10 -1\n";
    const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000002 00000000 00010000 0001 01    21 /run/x y\n0000000000000000: 00000003 00000000 00000000 0001 03    22\n0000000000000000: 00000002 00000000 00000000 0002 01    23\n0000000000000000: 00000003 00000000 00000000 0001 03    98 @other\n";

    fn fake(own: &[u64]) -> (tempfile::TempDir, ProcRoot) {
        let folder = tempfile::tempdir().unwrap();
        let process = folder.path().join("42");
        std::fs::create_dir_all(process.join("net")).unwrap();
        std::fs::create_dir_all(process.join("fd")).unwrap();
        for (descriptor, inode) in own.iter().enumerate() {
            let name = process.join("fd").join(descriptor.to_string());
            std::os::unix::fs::symlink(format!("socket:[{inode}]"), name).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", process.join("fd/900")).unwrap();
        std::os::unix::fs::symlink("socket:[-1]", process.join("fd/901")).unwrap();
        std::fs::write(process.join("net/tcp"), TCP).unwrap();
        std::fs::write(process.join("net/unix"), UNIX).unwrap();
        let root = ProcRoot::new(folder.path());
        (folder, root)
    }

    #[test]
    fn only_its_own_and_each_once() {
        // 12 has two descriptors, and 77 is of no table.
        let (_folder, root) = fake(&[11, 12, 12, 13, 14, 21, 22, 23, 77]);
        let sockets = read(&root, 42).unwrap().sockets;
        let expected = Sockets {
            tcp_established: 1,
            tcp_listening: 1,
            tcp_close_wait: 1,
            tcp_other: 1,
            udp: 0,
            unix_connected: 1,
            unix_listening: 1,
            unix_other: 1,
            other: 1,
            beyond: 0,
        };
        assert_eq!(sockets, expected);
        assert_eq!(sockets.connections(), 3);
        assert_eq!(descriptors::count(&root, 42).unwrap(), 11);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let (_folder, root) = fake(&[]);
        assert_eq!(read(&root, 43).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(&root, 42).unwrap().sockets, Sockets::default());
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..700) {
            let (_folder, root) = fake(&[11, 12]);
            let mut table = TCP.as_bytes()[..cut.min(TCP.len())].to_vec();
            table.extend(text);
            std::fs::write(root.of(42, "net/tcp"), &table).unwrap();
            let sockets = read(&root, 42).unwrap().sockets;
            prop_assert!(sockets.tcp_established <= 3);
        }
    }
}
