//! Asks the kernel about one socket (sock_diag(7)). The time does not depend on the number of sockets.
//!
//! The netlink socket is opened once, because a worker in a sandbox can open no socket later.

use super::Endpoints;
use super::PeerSocket;
use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_core::NetlinkHeader;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::AF_INET;
use netlink_packet_sock_diag::constants::AF_INET6;
use netlink_packet_sock_diag::constants::IPPROTO_TCP;
use netlink_packet_sock_diag::constants::TCP_LISTEN;
use netlink_packet_sock_diag::inet::ExtensionFlags;
use netlink_packet_sock_diag::inet::InetRequest;
use netlink_packet_sock_diag::inet::InetResponseHeader;
use netlink_packet_sock_diag::inet::SocketId;
use netlink_packet_sock_diag::inet::StateFlags;
use rustix::io::Errno;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use std::cell::Cell;
use std::io;
use std::io::Read as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::time::Duration;

const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;

/// The kernel answers before `send` returns. The timeout is for a kernel that does not answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Matches any socket with the addresses.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A netlink socket.
#[derive(Debug)]
pub(super) struct SockDiag {
    socket: Socket,
    /// The number of the last question. The answer to an earlier question, which came too late, has another number.
    last: Cell<u32>,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(AF_NETLINK),
            Type::DGRAM,
            Some(Protocol::from(NETLINK_SOCK_DIAG)),
        )?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            last: Cell::new(0),
        })
    }

    /// Whether this kernel answers for a listening socket.
    pub(super) fn is_usable(&self, listening: SocketAddr) -> bool {
        let nobody: IpAddr = match listening {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let nobody = SocketAddr::new(nobody, 0);
        matches!(self.ask(listening, nobody), Ok(Some(_)))
    }

    /// Finds the client's socket.
    pub(super) fn find(&self, endpoints: Endpoints) -> io::Result<Option<PeerSocket>> {
        let found = self.ask(endpoints.peer, endpoints.ours)?;
        // If there is no such socket, the kernel returns a socket that listens on the client's port.
        Ok(found
            .filter(|found| {
                let id = &found.socket_id;
                let ports = (id.source_port, id.destination_port);
                found.state != TCP_LISTEN && ports == (endpoints.peer.port(), endpoints.ours.port())
            })
            .map(|found| PeerSocket {
                uid: found.uid,
                inode: found.inode.into(),
            }))
    }

    fn ask(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Option<InetResponseHeader>> {
        let number = self.last.get().wrapping_add(1);
        self.last.set(number);
        self.socket.send(&question(number, local, remote))?;
        loop {
            let mut answer = [0; 4096];
            let count = (&self.socket).read(&mut answer)?;
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer[..count])
                .map_err(io::Error::other)?;
            if answer.header.sequence_number == number {
                return header_of(answer.payload);
            }
        }
    }
}

fn question(number: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let (family, scope) = match local {
        SocketAddr::V4(_) => (AF_INET, 0),
        SocketAddr::V6(address) => (AF_INET6, address.scope_id()),
    };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: local.ip(),
            destination_address: remote.ip(),
            interface_id: scope,
            cookie: NO_COOKIE,
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn header_of(payload: NetlinkPayload<SockDiagMessage>) -> io::Result<Option<InetResponseHeader>> {
    match payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            Ok(Some(found.header))
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
