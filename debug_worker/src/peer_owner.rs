//! Finds the user of the client of a TCP connection on this machine. For a TCP connection the kernel does not report
//! the peer's user, as it does for a unix socket. But the client's end of the connection is a socket on this machine,
//! and every socket has an owner.

mod proc_net;
mod sock_diag;

use proc_net::ProcNet;
use sock_diag::SockDiag;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use thiserror::Error;

/// The overflow user id stands for several users: see `several_users`.
const OVERFLOW_UID: &str = "/proc/sys/kernel/overflowuid";
const UID_MAP: &str = "/proc/self/uid_map";

/// The two addresses of a connection, as the server sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) peer: SocketAddr,
    pub(crate) ours: SocketAddr,
}

/// The client's socket, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PeerSocket {
    uid: u32,
    /// 0 if no program holds the socket any more. Then `uid` is 0 as well and does not mean root.
    inode: u64,
}

/// The program at the client's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// A program of this user.
    User(u32),
    /// A program on this machine that has closed its socket already.
    Gone,
    /// A program on this machine, and the kernel does not report its user.
    Unknown,
    /// A program on another machine.
    Elsewhere,
}

/// The reason why a client on this machine is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum PeerRefused {
    /// The client runs as another user.
    #[error(
        "this debug server admits programs of the user with the id {ours} and of root, and the client runs as the user {theirs}; \
         use a unix socket (unix:PATH), or ask the operator to admit the user (--gdb-allow-user)"
    )]
    OtherUser {
        /// The client's user.
        theirs: u32,
        /// The server's user.
        ours: u32,
    },
    /// The client has closed its socket, so its user is unknown.
    #[error("the client has closed its connection")]
    Gone,
    /// The client's user cannot be determined.
    #[error(
        "this debug server admits programs of the user with the id {ours} and of root, and the user of the client cannot be determined; \
         use a unix socket (unix:PATH)"
    )]
    Unknown {
        /// The server's user.
        ours: u32,
    },
}

/// Finds the user of a client in the tables of `/proc/net` alone, as on a kernel without `inet_diag`.
#[cfg(all(test, feature = "process"))]
pub(crate) fn user_by_tables() -> io::Result<impl Fn(Endpoints) -> Option<u32>> {
    let tables = ProcNet::open()?;
    Ok(move |endpoints| Some(tables.find(endpoints).ok()??.uid))
}

/// The users whose programs may connect from this machine.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    ours: u32,
    allowed: Vec<u32>,
    /// The user id that stands for all users that this user namespace does not map.
    overflow_uid: Option<u32>,
}

impl Users {
    /// The server's own user and root.
    pub(crate) fn ours() -> Self {
        Self {
            ours: rustix::process::geteuid().as_raw(),
            allowed: Vec::new(),
            overflow_uid: overflow_uid(),
        }
    }

    pub(crate) fn allow(&mut self, uid: u32) {
        self.allowed.push(uid);
    }

    /// The users that are admitted besides the server's own and root.
    #[cfg(feature = "process")]
    pub(crate) fn allowed(&self) -> &[u32] {
        &self.allowed
    }

    fn admit(&self, peer: Peer) -> Result<(), PeerRefused> {
        let ours = self.ours;
        match peer {
            Peer::Elsewhere => Ok(()),
            Peer::Gone => Err(PeerRefused::Gone),
            Peer::Unknown => Err(PeerRefused::Unknown { ours }),
            Peer::User(uid) if self.overflow_uid == Some(uid) => Err(PeerRefused::Unknown { ours }),
            Peer::User(uid) if uid == ours || uid == 0 || self.allowed.contains(&uid) => Ok(()),
            Peer::User(theirs) => Err(PeerRefused::OtherUser { theirs, ours }),
        }
    }
}

/// The user id that stands for several users here, if there is one.
fn overflow_uid() -> Option<u32> {
    let overflow = fs::read_to_string(OVERFLOW_UID).ok()?;
    // If the map cannot be read, the user id is treated as one that stands for several users.
    several_users(&overflow, &fs::read_to_string(UID_MAP).unwrap_or_default())
}

/// Returns the user id in the text `overflow`, unless the namespace with this map contains a user with this id.
fn several_users(overflow: &str, map: &str) -> Option<u32> {
    let overflow = overflow.trim().parse().ok()?;
    (!is_mapped(map, overflow)).then_some(overflow)
}

/// Whether the namespace with this map contains the user `uid` (user_namespaces(7)).
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().ok());
        match (numbers.next().flatten(), numbers.nth(1).flatten()) {
            (Some(first), Some(count)) => {
                (first..first.saturating_add(count)).contains(&uid.into())
            }
            _ => false,
        }
    })
}

/// Looks up the user of a client.
#[derive(Debug)]
pub(crate) struct PeerOwner {
    users: Users,
    lookup: Lookup,
}

/// The method of the lookup. The time of the first does not depend on the number of sockets, but not every kernel has
/// it, and not every sandbox allows it.
#[derive(Debug)]
enum Lookup {
    SockDiag(SockDiag),
    ProcNet(io::Result<ProcNet>),
}

impl Lookup {
    fn find(&self, endpoints: Endpoints) -> io::Result<Option<PeerSocket>> {
        match self {
            Self::SockDiag(kernel) => kernel.find(endpoints),
            Self::ProcNet(Ok(tables)) => tables.find(endpoints),
            Self::ProcNet(Err(error)) => Err(error.kind().into()),
        }
    }
}

impl PeerOwner {
    /// `listening` is the address of an existing socket, on which the methods are tried. All descriptors are opened here.
    pub(crate) fn new(users: Users, listening: SocketAddr) -> Self {
        let usable = SockDiag::open().ok();
        let lookup = match usable.filter(|kernel| kernel.is_usable(listening)) {
            Some(kernel) => Lookup::SockDiag(kernel),
            None => Lookup::ProcNet(ProcNet::open()),
        };
        Self { users, lookup }
    }

    /// Checks whether the client may stay.
    ///
    /// # Errors
    /// [`PeerRefused`].
    pub(crate) fn check(&self, endpoints: Endpoints) -> Result<(), PeerRefused> {
        let endpoints = Endpoints {
            peer: canonical(endpoints.peer),
            ours: canonical(endpoints.ours),
        };
        let found = self.lookup.find(endpoints);
        self.users
            .admit(peer_of(found, || is_on_this_machine(endpoints)))
    }
}

/// Evaluates the result of a lookup.
fn peer_of(found: io::Result<Option<PeerSocket>>, is_on_this_machine: impl Fn() -> bool) -> Peer {
    match found {
        Ok(Some(PeerSocket { inode: 0, .. })) => Peer::Gone,
        Ok(Some(PeerSocket { uid, .. })) => Peer::User(uid),
        Ok(None) if is_on_this_machine() => Peer::Gone,
        Err(_) if is_on_this_machine() => Peer::Unknown,
        Ok(None) | Err(_) => Peer::Elsewhere,
    }
}

/// Converts an IPv4-mapped IPv6 address to the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Whether the client's address belongs to this machine.
fn is_on_this_machine(endpoints: Endpoints) -> bool {
    let ip = endpoints.peer.ip();
    ip.is_loopback() || ip == endpoints.ours.ip() || is_own_address(endpoints.peer).unwrap_or(true)
}

/// Traffic to an own address has this address as its source. `connect` on a UDP socket selects the source address
/// without sending a packet.
fn is_own_address(address: SocketAddr) -> io::Result<bool> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip() == address.ip())
}

#[cfg(test)]
mod tests;
