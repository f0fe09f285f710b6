//! Sockets.

use crate::reactor::Direction;
use crate::reactor::Driver;
use crate::reactor::Registration;
use futures::AsyncRead;
use futures::AsyncWrite;
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::io::Read as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

/// A stream or listening socket on an executor.
#[derive(Debug)]
pub struct PolledSocket<T>(Io<T>);

/// Dropped in this order: closing the socket takes it out of the reactor's epoll.
#[derive(Debug)]
struct Io<T> {
    socket: T,
    registration: Registration,
}

impl<T: AsFd> PolledSocket<T> {
    /// Registers `socket` with `driver` and makes it non-blocking.
    pub fn new(driver: &(impl ?Sized + Driver), socket: T) -> io::Result<Self> {
        SockRef::from(&socket).set_nonblocking(true)?;
        let registration = Registration::new(driver.reactor(), &socket)?;
        Ok(Self(Io {
            socket,
            registration,
        }))
    }

    /// Takes the socket back, blocking again.
    pub fn into_inner(self) -> T {
        let Io {
            socket,
            registration,
        } = self.0;
        registration.deregister(&socket);
        // It cannot fail on an open socket, and the socket is not lost where it does.
        let _ = SockRef::from(&socket).set_nonblocking(false);
        socket
    }

    /// The socket.
    pub fn get(&self) -> &T {
        &self.0.socket
    }

    /// Changes the type of the socket, which stays registered.
    pub fn convert<U: AsFd + From<T>>(self) -> PolledSocket<U> {
        let Io {
            socket,
            registration,
        } = self.0;
        PolledSocket(Io {
            socket: socket.into(),
            registration,
        })
    }

    /// Two halves for two tasks. The socket closes when both are gone.
    pub fn split(self) -> (ReadHalf<T>, WriteHalf<T>) {
        let io = Arc::new(self.0);
        (ReadHalf(io.clone()), WriteHalf(io))
    }
}

impl<T: AsFd> Io<T> {
    /// Tries `f` whenever the socket may be ready, until it does not say `WouldBlock`.
    fn poll_io<R>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let edge = ready!(self.registration.poll_ready(cx, direction));
            match f(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.registration.clear_ready(direction, edge);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let edge = ready!(self.registration.poll_ready(cx, Direction::Read));
        let result = ready!(self.poll_io(cx, Direction::Read, |socket| {
            (&*SockRef::from(socket)).read(buf)
        }));
        // A short read has emptied a stream socket (epoll(7), question 9), which saves a call that says `WouldBlock`.
        // What comes later is a new edge, and a hang-up keeps the socket ready.
        if let Ok(read) = result
            && 0 < read
            && read < buf.len()
        {
            self.registration.clear_ready(Direction::Read, edge);
        }
        Poll::Ready(result)
    }

    fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // A client that is gone is an error of this call, not a signal to the whole VMM.
        self.poll_io(cx, Direction::Write, |socket| {
            SockRef::from(socket).send_with_flags(buf, libc::MSG_NOSIGNAL)
        })
    }

    fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_io(cx, Direction::Write, |socket| {
            SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL)
        })
    }

    fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.socket).shutdown(Shutdown::Write)
    }
}

impl<T: Listener> PolledSocket<T> {
    /// Waits for a client. Cancel safe.
    pub async fn accept(&mut self) -> io::Result<(T::Socket, T::Address)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Polls for a client.
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(T::Socket, T::Address)>> {
        self.0.poll_io(cx, Direction::Read, T::accept)
    }
}

/// A listening socket.
pub trait Listener: AsFd {
    /// What it accepts.
    type Socket: AsFd;
    /// Where clients come from.
    type Address: std::fmt::Debug;

    /// Accepts a client.
    fn accept(&self) -> io::Result<(Self::Socket, Self::Address)>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<Self::Address>;
}

impl Listener for TcpListener {
    type Socket = TcpStream;
    type Address = SocketAddr;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

impl Listener for UnixListener {
    type Socket = UnixStream;
    type Address = std::os::unix::net::SocketAddr;

    fn accept(&self) -> io::Result<(UnixStream, Self::Address)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<Self::Address> {
        self.local_addr()
    }
}

impl<T: AsFd + Unpin> AsyncRead for PolledSocket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buf)
    }
}

/// Closing shuts down the writing direction and leaves the reading one open.
impl<T: AsFd + Unpin> AsyncWrite for PolledSocket<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}

/// The reading half of a socket.
#[derive(Debug)]
pub struct ReadHalf<T>(Arc<Io<T>>);

impl<T: AsFd> ReadHalf<T> {
    /// Ready when both directions are closed, or the socket has failed. The other side may have ended only what it writes, and still read.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = self.0.registration.poll_ready(cx, Direction::Closed);
        ready.map(|_| ())
    }
}

impl<T: AsFd> AsyncRead for ReadHalf<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buf)
    }
}

/// The writing half of a socket.
#[derive(Debug)]
pub struct WriteHalf<T>(Arc<Io<T>>);

/// Closing shuts down the writing direction and leaves the reading one open.
impl<T: AsFd> AsyncWrite for WriteHalf<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown_write())
    }
}
