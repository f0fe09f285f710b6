//! The listening socket. It is bound with safe permissions, and dropping it removes the socket file.

use crate::address::Exposure;
use crate::address::ListenAddress;
use crate::log_limit::LogLimit;
use crate::peer_owner::Endpoints;
use crate::peer_owner::PeerOwner;
use crate::peer_owner::PeerRefused;
use crate::peer_owner::Users;
use pal_async::socket::PolledSocket;
use socket2::Domain;
use socket2::SockAddr;
use socket2::SockRef;
use socket2::Socket;
use socket2::TcpKeepalive;
use socket2::Type;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
#[cfg(feature = "process")]
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use thiserror::Error;

/// The kernel's queue of connections that have not been accepted, large enough for a burst of refused clients.
const BACKLOG: i32 = 16;

/// The reason why a debug server cannot listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is not a loopback address, and [`Exposure::Network`] was not given.
    #[error(
        "other machines can reach {0}, and the protocol has no authentication: any program that reaches the debug port controls the guest; \
         listen on 127.0.0.1 and forward the port with ssh -L, or allow network addresses explicitly"
    )]
    NotLoopback(SocketAddr),
    /// Another program listens on the address.
    #[error(
        "{0} is in use, perhaps by another debug server; {advice}", advice = other_address(.0)
    )]
    InUse(ListenAddress),
    /// The path names a file that is not a socket. The server does not replace such a file.
    #[error("{0} exists and is not a socket; choose another path, or remove it")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("cannot listen on {address}; choose another address")]
    System {
        /// The address that was given.
        address: ListenAddress,
        /// The error of the system call.
        source: io::Error,
    },
}

fn other_address(address: &ListenAddress) -> &'static str {
    match address {
        ListenAddress::Tcp(_) => "choose another address, or port 0 for a free port",
        ListenAddress::Unix(_) => "choose another path, or end that server",
    }
}

/// A bound socket that is not polled yet. The kernel accepts connections, and they wait until a server runs.
#[derive(Debug)]
pub struct DebugListener {
    bound: Bound,
    users: Users,
    evict: Evictor,
    /// Whether anybody can evict a client.
    has_evictor: AtomicBool,
    evictions: mesh::Receiver<Eviction>,
}

/// The message that the operator evicts the present client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eviction;

/// Ends the session of the present client of a debug server, for example of a suspended or forgotten debugger that
/// keeps the guest stopped. An operator's signal or command calls this.
#[derive(Debug, Clone)]
pub struct Evictor(mesh::Sender<Eviction>);

impl Evictor {
    /// Ends the present session as if the connection had been lost, without waiting until the client has read its
    /// replies. Has no effect if no client is served.
    pub fn evict(&self) {
        self.0.send(Eviction);
    }
}

/// What a process that inherits a listening socket has to know of it.
#[cfg(feature = "process")]
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct SharedListener {
    /// The path of a unix socket, for texts. `None`: a TCP socket.
    unix: Option<String>,
    /// The users that are admitted besides the server's own and root.
    users: Vec<u32>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(SocketFile, UnixListener),
}

impl DebugListener {
    /// Binds `address`.
    ///
    /// A unix socket has mode 0600 before it accepts connections. A socket file on which no program listens is
    /// replaced. A socket in use, and any other file, is left unchanged.
    pub fn bind(address: &ListenAddress, exposure: Exposure) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(tcp) => bind_tcp(*tcp, exposure),
            ListenAddress::Unix(path) => bind_unix(path),
        }
        .map(Self::of)
    }

    fn of(bound: Bound) -> Self {
        let (evict, evictions) = mesh::channel();
        Self {
            bound,
            users: Users::ours(),
            evict: Evictor(evict),
            has_evictor: AtomicBool::new(false),
            evictions,
        }
    }

    /// Admits TCP clients on this machine that run as the user `uid`. By default only clients that run as the server's
    /// user or as root are admitted. For a unix socket, the permissions of its file decide.
    pub fn allow_user(&mut self, uid: u32) {
        self.users.allow(uid);
    }

    /// The handle that evicts clients of this listener. It may outlive the server.
    pub fn evictor(&self) -> Evictor {
        self.has_evictor.store(true, Ordering::Relaxed);
        self.evict.clone()
    }

    /// Whether somebody has asked for the handle that evicts clients.
    pub(crate) fn has_evictor(&self) -> bool {
        self.has_evictor.load(Ordering::Relaxed)
    }

    /// The address on which the socket listens. If port 0 was requested, the address has the port that was selected.
    pub fn local_addr(&self) -> ListenAddress {
        match &self.bound {
            Bound::Tcp(listener) => ListenAddress::Tcp(
                // `local_addr` does not fail on a bound socket. The address is only displayed, so a placeholder would
                // do no harm.
                listener
                    .local_addr()
                    .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            ),
            Bound::Unix(file, _) => ListenAddress::Unix(file.path.clone()),
        }
    }

    /// A second handle of the listening socket, and what a process that inherits it has to know.
    #[cfg(feature = "process")]
    pub(crate) fn share(&self) -> io::Result<(OwnedFd, SharedListener)> {
        let (socket, unix) = match &self.bound {
            Bound::Tcp(listener) => (OwnedFd::from(listener.try_clone()?), None),
            Bound::Unix(file, listener) => {
                let path = file.path.to_string_lossy().into_owned();
                (listener.try_clone()?.into(), Some(path))
            }
        };
        let users = self.users.allowed().to_vec();
        Ok((socket, SharedListener { unix, users }))
    }

    /// The listener of another process, which removes the file of a unix socket.
    #[cfg(feature = "process")]
    pub(crate) fn inherited(socket: OwnedFd, shared: SharedListener) -> Self {
        let bound = match shared.unix {
            None => Bound::Tcp(socket.into()),
            Some(path) => {
                let file = SocketFile {
                    path: path.into(),
                    inode: None,
                };
                Bound::Unix(file, socket.into())
            }
        };
        let mut listener = Self::of(bound);
        shared
            .users
            .into_iter()
            .for_each(|user| listener.allow_user(user));
        listener
    }

    /// What the operator asks for. The listener stays open, and no connection is accepted.
    #[cfg(feature = "process")]
    pub(crate) fn evictions(&mut self) -> &mut mesh::Receiver<Eviction> {
        &mut self.evictions
    }

    /// A second handle of the listening socket, with which a test breaks the socket.
    #[cfg(test)]
    pub(crate) fn try_clone_for_test(&self) -> Socket {
        match &self.bound {
            Bound::Tcp(listener) => listener.try_clone().map(Socket::from),
            Bound::Unix(_, listener) => listener.try_clone().map(Socket::from),
        }
        .expect("a descriptor is free")
    }

    pub(crate) fn into_polled(
        self,
        driver: &dyn pal_async::Driver,
    ) -> io::Result<(PolledListener, mesh::Receiver<Eviction>)> {
        let listener = match self.bound {
            Bound::Tcp(listener) => {
                let owners = PeerOwner::new(self.users, listener.local_addr()?);
                let listener = PolledSocket::new(driver, listener)?;
                PolledListener::Tcp(listener, owners, LogLimit::new())
            }
            Bound::Unix(file, listener) => {
                PolledListener::Unix(file, PolledSocket::new(driver, listener)?)
            }
        };
        Ok((listener, self.evictions))
    }
}

fn bind_tcp(address: SocketAddr, exposure: Exposure) -> Result<Bound, BindError> {
    if !address.ip().is_loopback() {
        match exposure {
            Exposure::LoopbackOnly => return Err(BindError::NotLoopback(address)),
            Exposure::Network => tracing::warn!(
                %address,
                "other machines can reach the debug port, and the protocol has no authentication: any program that reaches the port controls the guest"
            ),
        }
    }
    TcpListener::bind(address)
        .map(Bound::Tcp)
        .map_err(|source| bind_error(ListenAddress::Tcp(address), source))
}

fn bind_error(address: ListenAddress, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::System { address, source },
    }
}

fn bind_unix(path: &Path) -> Result<Bound, BindError> {
    let address = || ListenAddress::Unix(path.to_owned());
    clear_stale_socket(path)?;
    let listen = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::note(path)?;
        // Before `listen` no client can connect, so no other user can connect before the mode is set.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        Ok(Bound::Unix(file, socket.into()))
    };
    listen().map_err(|source| bind_error(address(), source))
}

/// Removes a socket file whose server has died.
fn clear_stale_socket(path: &Path) -> Result<(), BindError> {
    let system = |source| BindError::System {
        address: ListenAddress::Unix(path.to_owned()),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let connect = || {
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A connection attempt to a live server with a full backlog would block.
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        // Only this error proves that no program listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        _ => Err(BindError::InUse(ListenAddress::Unix(path.to_owned()))),
    }
}

/// The file of a unix socket. Dropping it removes the file, unless another file has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// `None`: another process removes the file.
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    fn note(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: Some(Self::inode(path)?),
        })
    }

    fn inode(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(ours) = self.inode
            && Self::inode(&self.path).is_ok_and(|inode| inode == ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the debug socket");
        }
    }
}

/// A listening socket on an executor.
#[derive(Debug)]
pub(crate) enum PolledListener {
    Tcp(PolledSocket<TcpListener>, PeerOwner, LogLimit),
    /// The fields are dropped in order, so the file is removed while the socket is open. Until then no other file can
    /// have the same inode.
    Unix(
        #[expect(dead_code, reason = "removes the file when dropped")] SocketFile,
        PolledSocket<UnixListener>,
    ),
}

/// A client that has connected.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// The client's address, for texts.
    pub(crate) peer: String,
    /// The reason why the client is refused, if it is.
    pub(crate) refused: Option<PeerRefused>,
}

impl PolledListener {
    /// Accepts the next client. Cancel safe.
    pub(crate) async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, owners, log) => {
                let (stream, peer) = listener.accept().await?;
                let ours = stream.local_addr()?;
                let socket = Socket::from(stream);
                tune_tcp(&socket, peer, log);
                Ok(Accepted {
                    socket,
                    peer: peer.to_string(),
                    refused: owners.check(Endpoints { peer, ours }).err(),
                })
            }
            // The mode of the socket file admits only the server's user and root; the kernel enforces this.
            Self::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted {
                    socket: stream.into(),
                    peer: "a local client".to_owned(),
                    refused: None,
                })
            }
        }
    }
}

/// A session works without these settings, so a failure is only logged.
fn tune_tcp(socket: &Socket, peer: SocketAddr, log: &mut LogLimit) {
    let socket = SockRef::from(socket);
    // Each reply is one write that the client waits for.
    if let Err(error) = socket.set_tcp_nodelay(true)
        && let Some(left_out) = log.admit()
    {
        tracing::warn!(%peer, %error, "replies to the debugger may be delayed by 40 ms{left_out}");
    }
    // A machine that has disappeared sends no FIN. Without keepalive its debugger would keep the guest stopped for
    // ever.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive)
        && let Some(left_out) = log.admit()
    {
        tracing::warn!(%peer, %error, "the loss of a debugger whose machine disappears will not be noticed{left_out}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn unix(path: &Path) -> Result<DebugListener, BindError> {
        DebugListener::bind(&ListenAddress::Unix(path.to_owned()), Exposure::default())
    }

    #[test]
    fn a_network_address_needs_permission() {
        let any: ListenAddress = "0.0.0.0:0".parse().unwrap();
        let error = DebugListener::bind(&any, Exposure::LoopbackOnly).unwrap_err();
        assert!(error.to_string().contains("no authentication"), "{error}");
        DebugListener::bind(&any, Exposure::Network).unwrap();
        let v6 =
            DebugListener::bind(&"[::]:0".parse().unwrap(), Exposure::LoopbackOnly).unwrap_err();
        assert!(matches!(v6, BindError::NotLoopback(_)));
    }

    #[test]
    fn a_port_in_use_is_called_so() {
        let first =
            DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Exposure::default()).unwrap();
        let address = first.local_addr();
        assert!(
            !address.to_string().ends_with(":0"),
            "{address} is the port that was found"
        );
        let error = DebugListener::bind(&address, Exposure::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{address} is in use")),
            "{error}"
        );
    }

    #[test]
    fn a_unix_socket_is_its_owners_alone_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        let listener = unix(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_and_a_plain_file_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        let _live = unix(&path).unwrap();
        let error = unix(&path).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)));
        let text = error.to_string();
        assert!(
            text.contains("another path") && !text.contains("port"),
            "{text}"
        );
        UnixStream::connect(&path).expect("the first one still listens");
        let file = dir.path().join("notes");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(unix(&file).unwrap_err(), BindError::NotASocket(_)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(
            matches!(unix(&link).unwrap_err(), BindError::NotASocket(_)),
            "a link is not followed"
        );
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        // The standard library leaves the file behind when it drops a listener, as a killed server does.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = unix(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_has_been_replaced_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        let first = unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = unix(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).expect("the second server's socket is still there");
    }

    #[test]
    fn a_folder_that_does_not_exist_says_so() {
        let error = unix(Path::new("/nonexistent/gdb")).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert!(cause.is_some_and(|cause| cause.contains("No such file")));
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        assert!(matches!(unix(&long).unwrap_err(), BindError::System { .. }));
    }
}
