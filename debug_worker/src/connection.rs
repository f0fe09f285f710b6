//! The bytes of one client. Reads and writes proceed at the same time, and both are bounded.

use crate::protocol::Protocol;
use crate::server::Socket;
use crate::statistics::Statistics;
use futures::AsyncReadExt;
use futures::AsyncWrite;
use futures::AsyncWriteExt;
use gdb_frontend::PACKET_SIZE;
use pal_async::Driver;
use pal_async::socket::ReadHalf;
use pal_async::socket::WriteHalf;
use pal_async::timer::Instant;
use pal_async::timer::PolledTimer;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

/// A packet of the maximum size with `$`, `#` and its checksum.
const LARGEST_PACKET: usize = PACKET_SIZE + 4;

/// A read takes a whole packet of the maximum size.
const READ_SIZE: usize = LARGEST_PACKET;

/// While more unsent bytes than this are queued, the session acts on no packet, so a client that does not read its
/// replies cannot make the queue grow. Four replies of the maximum size may wait, so that an interrupt is still read behind
/// requests that a client has sent ahead.
const MAX_UNSENT: usize = 4 * LARGEST_PACKET;

/// The maximum number of bytes in one line of the protocol trace.
const MAX_TRACED: usize = 4096;

/// Both directions of a client's connection.
pub(crate) struct Connection {
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

/// The bytes from the client.
pub(crate) struct Incoming {
    half: ReadHalf<socket2::Socket>,
    buffer: Box<[u8]>,
    /// The protocol that the first bytes are checked against. `None` after the check.
    protocol: Option<Protocol>,
    statistics: Statistics,
}

/// The bytes to the client.
pub(crate) struct Outgoing {
    half: WriteHalf<socket2::Socket>,
    unsent: Vec<u8>,
    /// The index in `unsent` of the first byte that has not been sent.
    start: usize,
    /// The time since when the client has accepted no unsent byte.
    stuck_since: Option<Instant>,
    timer: PolledTimer,
    /// The maximum time for which a client may accept no byte.
    idle_timeout: Duration,
    statistics: Statistics,
}

/// The result of sending the queued bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// All queued bytes are sent.
    All,
    /// The client has read nothing for the idle timeout.
    Stuck,
}

impl Connection {
    /// A connection to a client that has to speak `protocol`. A client that does not read for `idle_timeout` is given
    /// up.
    pub(crate) fn new(
        driver: &dyn Driver,
        socket: Socket,
        protocol: Protocol,
        idle_timeout: Duration,
        statistics: Statistics,
    ) -> Self {
        let (read, write) = socket.split();
        Self {
            incoming: Incoming {
                half: read,
                buffer: vec![0; READ_SIZE].into_boxed_slice(),
                protocol: Some(protocol),
                statistics: statistics.clone(),
            },
            outgoing: Outgoing {
                half: write,
                unsent: Vec::new(),
                start: 0,
                stuck_since: None,
                timer: PolledTimer::new(driver),
                idle_timeout,
                statistics,
            },
        }
    }
}

impl Incoming {
    /// Reads the next bytes; an empty slice at the end of the stream. If the first bytes belong to another protocol,
    /// the error contains a
    /// [`WrongProtocol`](crate::protocol::WrongProtocol). Cancel safe: a poll takes bytes only if it returns them.
    pub(crate) async fn read(&mut self) -> io::Result<&[u8]> {
        let count = self.half.read(&mut self.buffer).await?;
        self.statistics.bytes_received(count);
        let bytes = &self.buffer[..count];
        tracing::trace!(target: "rsp", "<- {}", Traced(bytes));
        if count > 0
            && let Some(protocol) = self.protocol.take()
        {
            protocol.admit(bytes).map_err(io::Error::other)?;
        }
        Ok(bytes)
    }
}

impl Outgoing {
    /// Queues bytes for [`Outgoing::flush`].
    pub(crate) fn queue(&mut self, bytes: Vec<u8>) {
        tracing::trace!(target: "rsp", "-> {}", Traced(&bytes));
        match self.unsent.is_empty() {
            true => self.unsent = bytes,
            false => self.unsent.extend_from_slice(&bytes),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.unsent.len() > MAX_UNSENT
    }

    /// Writes all queued bytes, unless the client accepts no byte for the idle timeout. Cancel safe: `self` keeps the
    /// progress.
    pub(crate) async fn flush(&mut self) -> io::Result<Written> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Written>> {
        while self.start < self.unsent.len() {
            match Pin::new(&mut self.half).poll_write(cx, &self.unsent[self.start..])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.start += count;
                    self.statistics.bytes_sent(count);
                    self.stuck_since = None;
                }
                Poll::Pending => {
                    let since = *self.stuck_since.get_or_insert_with(Instant::now);
                    let Some(end) = since.checked_add(self.idle_timeout) else {
                        return Poll::Pending;
                    };
                    ready!(self.timer.poll_until(cx, end));
                    return Poll::Ready(Ok(Written::Stuck));
                }
            }
        }
        self.unsent.clear();
        self.start = 0;
        Poll::Ready(Ok(Written::All))
    }

    /// Closes the direction to the client.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.half.close().await
    }
}

/// Displays printable ASCII unchanged and other bytes as escapes, as in a Rust byte string.
struct Traced<'a>(&'a [u8]);

impl fmt::Display for Traced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(MAX_TRACED)];
        shown.escape_ascii().fmt(f)?;
        match self.0.len() - shown.len() {
            0 => Ok(()),
            rest => write!(f, " and {rest} bytes more"),
        }
    }
}
