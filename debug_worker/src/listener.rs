//! The socket clients connect to: made safe when bound, gone when dropped.

use crate::address::Exposure;
use crate::address::ListenAddress;
use crate::log_limit::LogLimit;
use crate::peer_owner::Ends;
use crate::peer_owner::PeerOwner;
use crate::peer_owner::Uninvited;
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
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Room for a burst of connections that are all refused but one.
const BACKLOG: i32 = 16;

/// Why a debug server cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// A network address without [`Exposure::Network`].
    #[error(
        "{0} can be reached from other machines, and who reaches the debug port owns the guest: the protocol has no \
         authentication; listen on 127.0.0.1 and forward the port with ssh -L, or allow it explicitly"
    )]
    NotLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error(
        "{0} is in use, perhaps by another debug server; choose another address, or port 0 for a free port"
    )]
    InUse(ListenAddress),
    /// Something is at the path that is not ours to replace.
    #[error("{0} exists and is not a socket; choose another path, or remove it")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {address}: {source}; choose another address")]
    System {
        /// Where.
        address: ListenAddress,
        /// What it said.
        source: io::Error,
    },
}

/// A bound socket that is not polled yet. It accepts connections, which wait until a server runs.
#[derive(Debug)]
pub struct DebugListener {
    bound: Bound,
    users: Users,
    evict: Evictor,
    evictions: mesh::Receiver<Eviction>,
}

/// The operator wants the client gone that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eviction;

/// Throws out the client of a debug server, such as one that was stopped or forgotten and keeps the guest stopped. For an operator's signal
/// or command.
#[derive(Debug, Clone)]
pub struct Evictor(mesh::Sender<Eviction>);

impl Evictor {
    /// Ends the session of the client that is served now, as if its connection had been lost, without waiting for it to read anything. Does
    /// nothing where nobody is served.
    pub fn evict(&self) {
        self.0.send(Eviction);
    }
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(SocketFile, UnixListener),
}

impl DebugListener {
    /// Binds `address`.
    ///
    /// A unix socket is open to its owner only from its first moment. A socket file that nobody listens on is replaced; one
    /// in use, and any other file, is left alone.
    pub fn bind(address: &ListenAddress, exposure: Exposure) -> Result<Self, BindError> {
        match address {
            ListenAddress::Tcp(tcp) => bind_tcp(*tcp, exposure),
            ListenAddress::Unix(path) => bind_unix(path),
        }
        .map(|bound| {
            let (evict, evictions) = mesh::channel();
            Self {
                bound,
                users: Users::ours(),
                evict: Evictor(evict),
                evictions,
            }
        })
    }

    /// Lets in TCP clients of this machine that are programs of this user. Without it only our own user's are, and root's. Who may connect
    /// to a unix socket is said by the permissions of its file.
    pub fn allow_user(&mut self, uid: u32) {
        self.users.allow(uid);
    }

    /// What throws out the clients that come by this listener. It may outlive the server.
    pub fn evictor(&self) -> Evictor {
        self.evict.clone()
    }

    /// Where it listens, with the port that was found where 0 was asked for.
    pub fn local_addr(&self) -> ListenAddress {
        match &self.bound {
            Bound::Tcp(listener) => ListenAddress::Tcp(
                // It cannot fail on a bound socket; were it to, the address is only shown.
                listener
                    .local_addr()
                    .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
            ),
            Bound::Unix(file, _) => ListenAddress::Unix(file.path.clone()),
        }
    }

    /// The same listening socket again, to break it.
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
                "the debug port is open to other machines and has no authentication: who reaches it owns the guest"
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
        // Nobody gets in before `listen`, so there is no moment at which another user could.
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
        // A live server with a full backlog would block it.
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        // Only this answer says that nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(system)
        }
        _ => Err(BindError::InUse(ListenAddress::Unix(path.to_owned()))),
    }
}

/// The file of a unix socket, removed on drop unless it has been replaced by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn note(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            inode: Self::inode(path)?,
        })
    }

    fn inode(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::inode(&self.path).is_ok_and(|inode| inode == self.inode)
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
    /// The file goes first: while the socket is open, no other file can have its inode.
    Unix(
        #[expect(dead_code, reason = "removes the file when dropped")] SocketFile,
        PolledSocket<UnixListener>,
    ),
}

/// A client that has connected.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// What to call it.
    pub(crate) peer: String,
    /// Why it must not stay, if it must not.
    pub(crate) uninvited: Option<Uninvited>,
}

impl PolledListener {
    /// The next client. Cancel safe.
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
                    uninvited: owners.check(Ends { peer, ours }).err(),
                })
            }
            // Its file is our user's alone, and the kernel sees to that.
            Self::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted {
                    socket: stream.into(),
                    peer: "a local client".to_owned(),
                    uninvited: None,
                })
            }
        }
    }
}

/// Neither setting is needed for a session to work, so a refusal is only logged.
fn tune_tcp(socket: &Socket, peer: SocketAddr, log: &mut LogLimit) {
    let socket = SockRef::from(socket);
    // Each reply is one write that the client waits for.
    if let Err(error) = socket.set_tcp_nodelay(true)
        && let Some(left_out) = log.admit()
    {
        tracing::warn!(%peer, %error, "replies to the debugger may be delayed by 40 ms{left_out}");
    }
    // A client whose machine has vanished sends no FIN; the guest must not stay stopped for it for ever.
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive)
        && let Some(left_out) = log.admit()
    {
        tracing::warn!(%peer, %error, "a debugger whose machine vanishes will not be noticed{left_out}");
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
        assert!(matches!(unix(&path).unwrap_err(), BindError::InUse(_)));
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
        // The standard library leaves the file behind, as a killed server does.
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
        assert!(error.to_string().contains("No such file"), "{error}");
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        assert!(matches!(unix(&long).unwrap_err(), BindError::System { .. }));
    }
}
