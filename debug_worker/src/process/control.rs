//! The messages between the VMM and its worker, as JSON. Each message is one packet of a socket of the type SEQPACKET, so no message can be mistaken for two.

use super::invitation::Invitation;
use super::sandbox::Sandbox;
use futures::AsyncReadExt as _;
use futures::AsyncWriteExt as _;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

/// Longer than any message. A longer one is cut off by the kernel, and is no JSON then.
const LONGEST: usize = 64 << 10;

/// The packet of a descriptor. A packet without a byte would be the end of the connection.
const DESCRIPTOR: &[u8] = b"d";

/// A socket of the type SEQPACKET. The standard library has no type for it; this one has the same operations.
pub(super) type ControlSocket = UnixDatagram;

/// What the VMM tells its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToWorker {
    /// Always the first message. This number of descriptors follows.
    Begin(Box<Invitation>, usize),
    /// Return the state of the server. The answer shows that the worker is alive, too.
    Inspect(u64),
    /// End the session of the present client.
    Evict,
    /// End the session, and the process.
    Stop,
}

/// What a worker tells the VMM.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromWorker {
    /// The worker is in its sandbox, and accepts clients from now on.
    Ready(Sandbox),
    /// The answer to [`ToWorker::Inspect`].
    State(u64, Vec<(String, String)>),
    /// The worker ends because of this error.
    Failed(String),
}

/// Two ends of a control socket.
pub(super) fn pair() -> io::Result<(ControlSocket, ControlSocket)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
}

fn json(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message)?;
    match bytes.len() < LONGEST {
        true => Ok(bytes),
        false => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Sends the first message, with descriptors: each is a packet of its own. There is room for all of them.
pub(super) fn begin(
    socket: &ControlSocket,
    invitation: Invitation,
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let begin = ToWorker::Begin(Box::new(invitation), descriptors.len());
    send(socket, &begin)?;
    for descriptor in descriptors {
        socket.send_with_fd(DESCRIPTOR, descriptor.as_raw_fd())?;
    }
    Ok(())
}

/// Waits for the first message.
pub(super) fn begun(socket: &ControlSocket) -> io::Result<(Invitation, Vec<OwnedFd>)> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    let ToWorker::Begin(invitation, count) = receive(socket)? else {
        return Err(wrong());
    };
    let mut descriptors = Vec::new();
    for _ in 0..count {
        let (_, descriptor) = socket.recv_with_fd(&mut [0; DESCRIPTOR.len()])?;
        descriptors.push(descriptor.ok_or_else(wrong)?.into());
    }
    Ok((*invitation, descriptors))
}

/// Sends a message from a thread that has no executor.
pub(super) fn send(socket: &ControlSocket, message: &impl Serialize) -> io::Result<()> {
    socket.send(&json(message)?).map(drop)
}

/// Waits for a message on a thread that has no executor.
pub(super) fn receive<M: DeserializeOwned>(socket: &ControlSocket) -> io::Result<M> {
    let mut bytes = vec![0; LONGEST];
    let count = socket.recv(&mut bytes)?;
    parse(&bytes[..count])
}

fn parse<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    match bytes {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        bytes => Ok(serde_json::from_slice(bytes)?),
    }
}

/// A control socket on an executor.
pub(super) struct Control(PolledSocket<ControlSocket>);

impl Control {
    pub(super) fn new(driver: &(impl ?Sized + Driver), socket: ControlSocket) -> io::Result<Self> {
        PolledSocket::new(driver, socket).map(Self)
    }

    pub(super) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        // The socket takes a packet as a whole or not at all.
        self.0.write(&json(message)?).await.map(drop)
    }

    /// Sends a message if the socket has room for it.
    pub(super) fn try_send(&self, message: &impl Serialize) -> io::Result<()> {
        send(self.0.get(), message)
    }

    /// The next message. Cancel safe: a packet is read in one piece.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the other side has closed the socket.
    pub(super) async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let mut bytes = vec![0; LONGEST];
        let count = self.0.read(&mut bytes).await?;
        parse(&bytes[..count])
    }
}
