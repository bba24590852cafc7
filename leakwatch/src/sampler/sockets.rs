//! The sockets of a process by their state: the sockets among its descriptors, joined with the tables of its network
//! namespace (`/proc/PID/net/{tcp,tcp6,unix,udp,udp6}`).
//!
//! The ways that were weighed against it:
//! - `sock_diag` (netlink) gives the same tables without text, and so at less cost; but it answers for the namespace that
//!   the asking thread is in, so a container would need `setns`; it cannot select by process either; and more than half of
//!   the cost, one link read for each descriptor, stays (14,000 connections: 80 ms in all, of which the tables take 35).
//! - `pidfd_getfd` and `getsockopt` would ask each socket itself; but while the copy is held, the target's own `close`
//!   does not close the connection.
//!
//! What remains is paced by [`super::cost::ReadBudget`], ends at a deadline, and leaves out every table that no socket is
//! looked for in any more: that of a process with three connections costs nothing for the host's others but the reading of
//! the table of TCP.

use std::collections::HashSet;
use std::io::{self, BufReader};
use std::time::Instant;

use super::lines::{for_each_line, number, word};
use super::{ProcRoot, descriptors, named};

/// How often the deadline is looked at.
const STRIDE: u32 = 1024;

/// TCP sockets. None is in `TIME_WAIT`: such a one belongs to the kernel alone, as does a connection that nobody has
/// accepted yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    pub established: u64,
    pub listen: u64,
    /// The peer has closed, the process has not: when they grow, it forgets to.
    pub close_wait: u64,
    /// `SYN_SENT` and `SYN_RECV`.
    pub connecting: u64,
    /// Shut down by the process, not closed yet: `FIN_WAIT1`, `FIN_WAIT2`, `CLOSING`, `LAST_ACK`.
    pub closing: u64,
    /// Any other state.
    pub other: u64,
}

impl Tcp {
    /// All that are or were connected to a peer.
    #[must_use]
    pub fn connections(&self) -> u64 {
        [self.established, self.close_wait, self.connecting, self.closing]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// Unix sockets of any type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unix {
    pub connected: u64,
    pub listen: u64,
    /// Neither: unconnected, or on the way from one to the other.
    pub other: u64,
}

/// UDP sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    pub connected: u64,
    pub unconnected: u64,
}

/// The sockets of one process, IPv4 and IPv6 together. A socket counts once, however many descriptors it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    pub tcp: Tcp,
    pub unix: Unix,
    pub udp: Udp,
    /// In none of the tables: of another family (netlink, packet, ...) or network namespace, closed while this was
    /// read, or a TCP socket that is not connected: the kernel lists none that was never bound or connected, nor one
    /// whose connection was reset.
    pub unlisted: u64,
}

impl Sockets {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            tcp,
            unix,
            udp,
            unlisted,
        } = self;
        [
            tcp.connections(),
            tcp.listen,
            tcp.other,
            unix.connected,
            unix.listen,
            unix.other,
            udp.connected,
            udp.unconnected,
            *unlisted,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Unix,
    Udp,
}

/// The rest is left out once all are found. TCP is before Unix because a Unix socket's path may hold a newline and so feign
/// a line, and what is found already cannot be taken for another. UDP is last because the kernel seeks from the table's
/// beginning for each page of text: 15,000 sockets take 0.2 s, where as many TCP sockets take 35 ms.
const TABLES: [(&str, Protocol); 5] = [
    ("net/tcp", Protocol::Tcp),
    ("net/tcp6", Protocol::Tcp),
    ("net/unix", Protocol::Unix),
    ("net/udp", Protocol::Udp),
    ("net/udp6", Protocol::Udp),
];

/// Reads the sockets of a process. A table that the kernel does not have (IPv6 turned off) holds none.
///
/// Errors: `PermissionDenied` without ptrace rights, `FileTooLarge` with more descriptors than
/// [`descriptors::DESCRIPTORS_MAX`], `TimedOut` when the deadline passes first.
pub fn read(root: &ProcRoot, pid: u32, deadline: Instant) -> io::Result<Sockets> {
    let mut wanted = descriptors::sockets(root, pid, deadline)?;
    let mut sockets = Sockets::default();
    for (file, protocol) in TABLES {
        if wanted.is_empty() {
            break;
        }
        let table = match root.open(pid, file) {
            Ok(table) => table,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let table = BufReader::with_capacity(64 * 1024, table);
        join(table, protocol, &mut wanted, &mut sockets, deadline)
            .map_err(|error| named(&root.of(pid, file), &error))?;
    }
    sockets.unlisted = u64::try_from(wanted.len()).unwrap_or(u64::MAX);
    Ok(sockets)
}

/// Counts the sockets of one table that are wanted, and takes them out of `wanted`.
fn join(
    table: impl io::BufRead,
    protocol: Protocol,
    wanted: &mut HashSet<u64>,
    sockets: &mut Sockets,
    deadline: Instant,
) -> io::Result<()> {
    let mut lines = 0_u32;
    let mut in_time = true;
    for_each_line(table, |line| {
        lines = lines.wrapping_add(1);
        if lines.is_multiple_of(STRIDE) && Instant::now() > deadline {
            in_time = false;
            return false;
        }
        match protocol {
            Protocol::Tcp | Protocol::Udp => {
                if let Some((state, inode)) = internet(line)
                    && wanted.remove(&inode)
                {
                    match protocol {
                        Protocol::Tcp => *tcp(&mut sockets.tcp, state) += 1,
                        _ if state == 1 => sockets.udp.connected += 1,
                        _ => sockets.udp.unconnected += 1,
                    }
                }
            }
            Protocol::Unix => {
                if let Some((flags, state, inode)) = unix(line)
                    && wanted.remove(&inode)
                {
                    *of_unix(&mut sockets.unix, flags, state) += 1;
                }
            }
        }
        !wanted.is_empty()
    })?;
    if in_time {
        Ok(())
    } else {
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// By `enum` in `include/net/tcp_states.h`.
fn tcp(tcp: &mut Tcp, state: u64) -> &mut u64 {
    match state {
        0x01 => &mut tcp.established,
        0x02 | 0x03 => &mut tcp.connecting,
        0x04 | 0x05 | 0x09 | 0x0b => &mut tcp.closing,
        0x08 => &mut tcp.close_wait,
        0x0a => &mut tcp.listen,
        _ => &mut tcp.other,
    }
}

/// `__SO_ACCEPTCON` and `SS_CONNECTED` of `include/uapi/linux/net.h`.
fn of_unix(unix: &mut Unix, flags: u64, state: u64) -> &mut u64 {
    if flags & 0x1_0000 != 0 {
        &mut unix.listen
    } else if state == 3 {
        &mut unix.connected
    } else {
        &mut unix.other
    }
}

/// The n-th word of those that follow, counted from 0.
fn skip_to(mut text: &[u8], n: usize) -> (&[u8], &[u8]) {
    for _ in 0..n {
        text = word(text).1;
    }
    word(text)
}

/// (state, inode) of a line of `tcp`, `tcp6`, `udp` or `udp6`:
/// `   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 ...`.
fn internet(line: &[u8]) -> Option<(u64, u64)> {
    let (state, rest) = skip_to(line, 3);
    let (inode, _) = skip_to(rest, 5);
    Some((number(state, 16)?, number(inode, 10)?))
}

/// (flags, state, inode) of a line of `unix`:
/// `0000000000000000: 00000002 00000000 00010000 0001 01 20671 /run/systemd/notify`.
fn unix(line: &[u8]) -> Option<(u64, u64, u64)> {
    let (flags, rest) = skip_to(line, 3);
    let (state, rest) = skip_to(rest, 1);
    let (inode, _) = word(rest);
    Some((number(flags, 16)?, number(state, 16)?, number(inode, 10)?))
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;
