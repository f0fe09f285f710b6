//! Which user's program is at the other end of a TCP connection, where that end is on this machine. The kernel does not tell, as it does for a
//! unix socket; but the other end is a socket of its own here, and sockets have owners.

mod proc_net;
mod sock_diag;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use thiserror::Error;

/// What users there are has to be known to tell them apart: see `Users::is_known`.
const OVERFLOW_UID: &str = "/proc/sys/kernel/overflowuid";
const UID_MAP: &str = "/proc/self/uid_map";

/// Both ends of a connection, as we see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) ours: SocketAddr,
}

/// The socket at the other end, as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    uid: u32,
    /// 0 where no program holds it any more: then `uid` says nothing (it is 0, which is root's).
    inode: u64,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// A program of this user's.
    User(u32),
    /// A program of this machine that has closed its socket already.
    Gone,
    /// A program of this machine, and the kernel does not say whose.
    Unknown,
    /// Another machine.
    Elsewhere,
}

/// Why a client of this machine is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Uninvited {
    /// It is another user's.
    #[error(
        "this debug server is for programs of the user with the id {ours} and of root, and the client is one of user {theirs}'s; \
         use a unix socket (unix:PATH), or have the user let in (--gdb-allow-user)"
    )]
    OtherUser {
        /// The client's user.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It has gone already, and what it sent may be anybody's.
    #[error("the client has closed its connection")]
    Gone,
    /// Nobody can say whose it is.
    #[error(
        "this debug server is for programs of the user with the id {ours} and of root, and whose the client is cannot be found out; \
         use a unix socket (unix:PATH)"
    )]
    Unknown {
        /// Our user.
        ours: u32,
    },
}

/// Who may connect from this machine.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    ours: u32,
    allowed: Vec<u32>,
    /// Stands for every user that this user namespace has no number for.
    nobody_known: Option<u32>,
}

impl Users {
    /// Our own user and root.
    pub(crate) fn ours() -> Self {
        Self {
            ours: rustix::process::geteuid().as_raw(),
            allowed: Vec::new(),
            nobody_known: overflow_uid(),
        }
    }

    pub(crate) fn allow(&mut self, uid: u32) {
        self.allowed.push(uid);
    }

    fn admit(&self, peer: Peer) -> Result<(), Uninvited> {
        let ours = self.ours;
        match peer {
            Peer::Elsewhere => Ok(()),
            Peer::Gone => Err(Uninvited::Gone),
            Peer::Unknown => Err(Uninvited::Unknown { ours }),
            Peer::User(uid) if self.nobody_known == Some(uid) => Err(Uninvited::Unknown { ours }),
            Peer::User(uid) if uid == ours || uid == 0 || self.allowed.contains(&uid) => Ok(()),
            Peer::User(theirs) => Err(Uninvited::OtherUser { theirs, ours }),
        }
    }
}

/// The number that stands for several users here, if there is one.
fn overflow_uid() -> Option<u32> {
    let overflow = fs::read_to_string(OVERFLOW_UID).ok()?;
    // Where the map cannot be read, the number is not trusted.
    several_users(&overflow, &fs::read_to_string(UID_MAP).unwrap_or_default())
}

/// The number in the text `overflow`, unless that is a user of its own in a namespace with this map.
fn several_users(overflow: &str, map: &str) -> Option<u32> {
    let overflow = overflow.trim().parse().ok()?;
    (!is_mapped(map, overflow)).then_some(overflow)
}

/// Whether `uid` is a user of its own in a namespace with this map (user_namespaces(7)).
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

/// Looks up who is at the other end.
#[derive(Debug)]
pub(crate) struct PeerOwner {
    users: Users,
    lookup: Lookup,
}

/// How. The first costs the same however many sockets there are; not every kernel has it, and not every sandbox allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    SockDiag,
    ProcNet,
}

impl PeerOwner {
    /// `listening` is an address of a socket that exists, to try what works.
    pub(crate) fn new(users: Users, listening: SocketAddr) -> Self {
        let lookup = match sock_diag::is_usable(listening) {
            true => Lookup::SockDiag,
            false => Lookup::ProcNet,
        };
        Self { users, lookup }
    }

    /// Whether the client may stay.
    ///
    /// # Errors
    /// [`Uninvited`].
    pub(crate) fn check(&self, ends: Ends) -> Result<(), Uninvited> {
        let ends = Ends {
            peer: canonical(ends.peer),
            ours: canonical(ends.ours),
        };
        let found = match self.lookup {
            Lookup::SockDiag => sock_diag::find(ends),
            Lookup::ProcNet => proc_net::find(ends),
        };
        self.users.admit(who(found, || is_this_machines(ends)))
    }
}

/// What a lookup says.
fn who(found: io::Result<Option<Found>>, is_this_machines: impl Fn() -> bool) -> Peer {
    match found {
        Ok(Some(Found { inode: 0, .. })) => Peer::Gone,
        Ok(Some(Found { uid, .. })) => Peer::User(uid),
        Ok(None) if is_this_machines() => Peer::Gone,
        Err(_) if is_this_machines() => Peer::Unknown,
        Ok(None) | Err(_) => Peer::Elsewhere,
    }
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// Whether the other end has an address of this machine's.
fn is_this_machines(ends: Ends) -> bool {
    let ip = ends.peer.ip();
    ip.is_loopback() || ip == ends.ours.ip() || is_own_address(ends.peer).unwrap_or(true)
}

/// Traffic to an address of our own goes out from that address. Nothing is sent to find out.
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
